//! Whole networks in bf16: our kernels must be no further from fp32 than libtorch's own autocast.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use deepsim_aten::{Bf16Code, bf16_code, choose_bf16_code};
use deepsim_nets::discriminator::{DiscriminatorSpec, FeatureBranch};
use deepsim_nets::generator::{GeneratorSpec, Trunk};
use deepsim_nets::init::seeded;
use deepsim_nets::layers::shape::FeatureShape;
use deepsim_nets::{
    Architecture, AutocastGuard, Code, Discriminator, FeatureNet, Generator, LatentSpec,
    LearnedEncoder, Mode, NetKind, Params, Precision, Tap,
};
use tch::{Device, Kind, Tensor};

const FP32: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Output of a network and gradients of a fixed pull on it, of its input first.
fn run(
    precision: Precision,
    x: &Tensor,
    params: Option<&Params>,
    forward: &dyn Fn(&Tensor) -> Tensor,
) -> Vec<Tensor> {
    let x = x.copy().set_requires_grad(true);
    let y = {
        let _autocast = AutocastGuard::new(Device::Cpu, precision).unwrap();
        seeded(3, || forward(&x))
    };
    let pull = seeded(4, || Tensor::randn(y.size(), FP32));
    let mut inputs = vec![x.shallow_clone()];
    if let Some(params) = params {
        inputs.extend(params.trained().iter().map(|p| p.tensor.shallow_clone()));
    }
    let pulled = (y.to_kind(Kind::Float) * pull).sum(Kind::Float);
    let mut out = Tensor::run_backward(&[pulled], &inputs, false, false);
    out.insert(0, y.detach());
    out
}

fn error(got: &Tensor, want: &Tensor) -> f64 {
    let difference = got.to_kind(Kind::Double) - want.to_kind(Kind::Double);
    (difference.norm() / want.to_kind(Kind::Double).norm()).double_value(&[])
}

/// Compares one network's output and gradients with those in fp32, by ours and by libtorch.
fn check(
    what: &str,
    code: Bf16Code,
    x: &Tensor,
    params: Option<&Params>,
    forward: &dyn Fn(&Tensor) -> Tensor,
) {
    choose_bf16_code(Bf16Code::None);
    let exact = run(Precision::Fp32, x, params, forward);
    let libtorch = run(Precision::Bf16, x, params, forward);
    choose_bf16_code(code);
    let ours = run(Precision::Bf16, x, params, forward);
    assert_eq!(ours.len(), exact.len());
    let mut differs = false;
    for (i, exact) in exact.iter().enumerate() {
        assert_eq!(ours[i].size(), exact.size(), "{what} {i}");
        let (mine, theirs) = (error(&ours[i], exact), error(&libtorch[i], exact));
        // Rounding is chance, above all where it moves a value across a rectifier's kink: where
        // libtorch was lucky, we need not be. A wrong tap or a lost channel is off by far more.
        assert!(
            mine < (1.6 * theirs).max(4e-3),
            "{what}, tensor {i} {:?}: ours is off by {mine:.2e}, libtorch's autocast by {theirs:.2e}",
            exact.size()
        );
        differs |= error(&ours[i], &libtorch[i]) > 0.0;
    }
    assert!(differs, "{what}: our kernels did not run");
}

fn generator(input: FeatureShape, crop: i64, width: f64, trunk: Trunk) -> Generator {
    let spec = GeneratorSpec {
        input,
        crop,
        width,
        trunk,
        noise: 0,
    };
    Generator::new(spec, 1, Device::Cpu).unwrap()
}

fn every_network(code: Bf16Code, crop: i64) {
    for (input, shape) in [
        (FeatureShape::Vector(100), vec![3, 100]),
        (
            FeatureShape::Map {
                channels: 24,
                size: 3,
            },
            vec![3, 24, 3, 3],
        ),
    ] {
        let db = Trunk::Db {
            kernel: 5,
            slope: 0.2,
        };
        for (what, trunk) in [("generator", Trunk::DeePSiM), ("D&B's generator", db)] {
            let g = generator(input, crop, 0.125, trunk);
            let x = seeded(1, || Tensor::randn(&shape, FP32).relu() * 10.0);
            check(what, code, &x, Some(g.params()), &|x| g.forward(x).unwrap());
        }
    }
    // Grey levels around zero, smooth as photos are.
    let images = seeded(2, || {
        (Tensor::randn([2, 3, 9, 9], FP32) * 50.0).upsample_bicubic2d(
            [crop, crop],
            false,
            None,
            None,
        )
    });
    let spec = DiscriminatorSpec {
        crop,
        features: FeatureBranch::Off,
        architecture: Default::default(),
    };
    let d = Discriminator::new(spec, 1, Device::Cpu).unwrap();
    check("discriminator", code, &images, Some(d.params()), &|x| {
        d.forward(x, None, Mode::Training).unwrap()
    });
    vae_gan(code, &images);
    for (net, tap) in [
        (NetKind::AlexNet, Tap::Pool5),
        (NetKind::CaffeNet, Tap::Pool2),
        (NetKind::CaffeNet, Tap::Norm2),
        (NetKind::Vgg16, Tap::Pool3),
        (NetKind::SqueezeNet, Tap::named("fire4")),
    ] {
        let c = FeatureNet::random(net, tap, 1, Device::Cpu).unwrap();
        check(&format!("{net} {tap}"), code, &images, None, &|x| {
            c.features(x, &[tap]).unwrap().remove(0)
        });
    }
}

/// The networks with batch normalisation, in training.
fn vae_gan(code: Bf16Code, images: &Tensor) {
    let crop = images.size()[2];
    if crop != 64 {
        return; // theirs is the only size that all three are made for
    }
    let spec = LatentSpec {
        size: 20,
        code: Code::Gaussian,
    };
    let e = LearnedEncoder::vae_gan(0.25, spec, crop, 1, Device::Cpu).unwrap();
    check(
        "the encoder of Larsen et al.",
        code,
        images,
        Some(e.params()),
        &|x| {
            let posterior = e.posterior_in(Mode::Training, x).unwrap();
            Tensor::cat(&[posterior.mean, posterior.log_variance.unwrap()], 1)
        },
    );
    let g = generator(FeatureShape::Vector(20), crop, 0.25, Trunk::VaeGan);
    let z = seeded(8, || Tensor::randn([3, 20], FP32));
    check("their decoder", code, &z, Some(g.params()), &|z| {
        let y = g.forward_in(Mode::Training, z, None).unwrap();
        assert_eq!(y.kind(), Kind::Float, "grey levels in bf16");
        y
    });
    let spec = DiscriminatorSpec {
        crop,
        features: FeatureBranch::Off,
        architecture: Architecture::VaeGan { width: 0.25 },
    };
    let d = Discriminator::new(spec, 1, Device::Cpu).unwrap();
    check(
        "their discriminator",
        code,
        images,
        Some(d.params()),
        &|x| d.forward(x, None, Mode::Training).unwrap(),
    );
}

/// Transformers are computed by libtorch alone: their values in bf16 are near those in fp32, and their tokens stay in
/// fp32.
#[test]
fn transformers_in_bf16_are_near_fp32() {
    for (net, side) in [
        (NetKind::Dinov2RegistersSmall, 56),
        (NetKind::ClipBase32, 96),
        (NetKind::SiglipBase16, 48),
    ] {
        let x = seeded(9, || Tensor::randn([2, 3, side, side], FP32) * 50.0);
        let tap = Tap::Block1;
        let ours = FeatureNet::random(net, tap, 1, Device::Cpu).unwrap();
        let forward = |x: &Tensor| ours.features(x, &[tap]).unwrap().remove(0);
        let exact = run(Precision::Fp32, &x, None, &forward);
        let coarse = run(Precision::Bf16, &x, None, &forward);
        for (i, bound) in [3e-2, 8e-2].into_iter().enumerate() {
            let off = error(&coarse[i], &exact[i]);
            assert!(off > 0.0 && off < bound, "{net}, tensor {i}: {off:.1e}");
        }
        assert_eq!(coarse[0].kind(), Kind::Float, "{net}");
    }
}

/// The same of the decoder of patches: tokens and images stay in fp32, and gradients of its weights, taken together, are near.
#[test]
fn decoder_of_patches_in_bf16_is_near_fp32() {
    let input = FeatureShape::Map {
        channels: 24,
        size: 4,
    };
    let trunk = Trunk::Vit {
        channels: 64,
        blocks: 3,
        heads: 4,
        mlp: 128,
    };
    let g = generator(input, 32, 1.0, trunk);
    let x = seeded(10, || Tensor::randn([3, 24, 4, 4], FP32));
    let forward = |x: &Tensor| g.forward(x).unwrap();
    let run = |precision| {
        let mut found = run(precision, &x, Some(g.params()), &forward);
        let weights: Vec<Tensor> = found.drain(2..).map(|t| t.flatten(0, -1)).collect();
        found.push(Tensor::cat(&weights, 0));
        found
    };
    let (exact, coarse) = (run(Precision::Fp32), run(Precision::Bf16));
    assert_eq!(coarse[0].kind(), Kind::Float);
    for (i, bound) in [3e-2, 8e-2, 8e-2].into_iter().enumerate() {
        let off = error(&coarse[i], &exact[i]);
        assert!(off > 0.0 && off < bound, "tensor {i}: {off:.1e}");
    }
}

/// One test, because the chosen code is the process's.
#[test]
fn no_network_loses_more_than_by_libtorch_s_autocast() {
    let best = bf16_code();
    for code in Bf16Code::up_to(best) {
        println!("{code:?} of {best:?}");
        every_network(code, 64);
        if code == Bf16Code::Plain {
            continue; // too slow for more
        }
        every_network(code, 128);
        let x = seeded(5, || Tensor::randn([2, 3, 227, 227], FP32) * 50.0);
        let c = FeatureNet::random(NetKind::CaffeNet, Tap::Fc7, 1, Device::Cpu).unwrap();
        check("CaffeNet fc7 at 227", code, &x, None, &|x| {
            c.features(x, &[Tap::Fc7]).unwrap().remove(0)
        });
        let v = FeatureNet::random(NetKind::Vgg16, Tap::Pool5, 1, Device::Cpu).unwrap();
        let x = seeded(7, || Tensor::randn([1, 3, 75, 64], FP32) * 50.0);
        check("VGG16 pool5", code, &x, None, &|x| {
            v.features(x, &[Tap::Pool5]).unwrap().remove(0)
        });
        let e =
            FeatureNet::random(NetKind::EfficientNetLite0, Tap::Logits, 1, Device::Cpu).unwrap();
        check("EfficientNet-Lite0", code, &x, None, &|x| {
            e.features(x, &[Tap::Logits]).unwrap().remove(0)
        });
        let r = Tap::named("layer2_0");
        let net = FeatureNet::random(NetKind::ResNet50, r, 1, Device::Cpu).unwrap();
        check("ResNet-50", code, &x, None, &|x| {
            net.features(x, &[r]).unwrap().remove(0)
        });
        let g = generator(
            FeatureShape::Map {
                channels: 256,
                size: 6,
            },
            227,
            1.0,
            Trunk::DeePSiM,
        );
        let y = seeded(6, || Tensor::randn([2, 256, 6, 6], FP32).relu() * 10.0);
        check("CONV5's generator", code, &y, Some(g.params()), &|y| {
            g.forward(y).unwrap()
        });
    }
    choose_bf16_code(best);
}

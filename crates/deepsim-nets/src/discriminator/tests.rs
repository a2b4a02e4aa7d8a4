//! Sizes, branches, statistics and dropout of discriminators.

use super::*;
use crate::zoo::NetKind;
use tch::Kind;

fn spec(crop: i64) -> DiscriminatorSpec {
    DiscriminatorSpec {
        crop,
        features: FeatureBranch::Off,
        architecture: Architecture::DeePSiM,
    }
}

fn patches(norm: PatchNorm) -> Architecture {
    Architecture::PatchGan {
        layers: 2,
        width: 0.125,
        norm,
    }
}

fn heads(taps: &[Tap]) -> Architecture {
    Architecture::Heads {
        net: NetKind::AlexNet,
        taps: taps.to_vec().try_into().unwrap(),
    }
}

/// Drawn in a region of its own: an unseeded draw would change what another test's seed gives.
fn images(shape: &[i64]) -> Tensor {
    crate::layers::init::normal("x", shape, 60.0, 1).unwrap()
}

#[test]
fn small_crops_drop_strided_layers() {
    let names = |crop| -> Vec<_> {
        let trunk = spec(crop).parts().unwrap().trunk;
        trunk.iter().filter_map(Op::key).collect()
    };
    assert_eq!(names(227).len(), 5);
    assert_eq!(names(128).len(), 5);
    assert_eq!(names(64), ["Dconv1", "Dconv2", "Dconv3", "Dconv4"]);
    assert_eq!(names(48), ["Dconv1", "Dconv2", "Dconv4"]);
    assert!(matches!(
        spec(32).validate(),
        Err(NetError::TooSmall { .. })
    ));
}

#[test]
fn features_of_deepsim_are_behind_the_rectifier_at_each_tap() {
    let d = Discriminator::new(spec(96), 1, Device::Cpu).unwrap();
    let x = images(&[2, 3, 96, 96]);
    for (tap, channels, side) in [
        (DiscriminatorTap::Dconv1, 32, 23),
        (DiscriminatorTap::Dconv2, 64, 19),
        (DiscriminatorTap::Dconv3, 128, 9),
        (DiscriminatorTap::Dconv4, 256, 7),
        (DiscriminatorTap::Dconv5, 256, 3),
    ] {
        let f = d.features(&x, tap, Mode::Evaluation).unwrap();
        assert_eq!(f.size(), [2, channels, side, side], "{tap}");
        assert!(f.min().double_value(&[]) >= 0.0, "{tap}");
        // An image may be too small for the layers behind the tap.
        let fits = tap == DiscriminatorTap::Dconv1;
        let small = d.features(&x.narrow(2, 0, 8), tap, Mode::Evaluation);
        assert_eq!(small.is_ok(), fits, "{tap}");
    }
    let last = d
        .features(&x, DiscriminatorTap::Dconv5, Mode::Evaluation)
        .unwrap();
    let pooled = d
        .features(&x, DiscriminatorTap::Dpool5, Mode::Evaluation)
        .unwrap();
    let mean = last.mean_dim([2i64, 3].as_slice(), false, Kind::Float);
    assert_eq!(pooled, mean);
}

#[test]
fn the_feature_branch_is_needed_exactly_where_it_is() {
    let x = Tensor::zeros([2, 3, 64, 64], (Kind::Float, Device::Cpu));
    let f = Tensor::zeros([2, 5, 1, 2], (Kind::Float, Device::Cpu));
    let plain = Discriminator::new(spec(64), 1, Device::Cpu).unwrap();
    assert_eq!(
        plain.forward(&x, None, Mode::Evaluation).unwrap().size(),
        [2, 2]
    );
    assert!(plain.forward(&x, Some(&f), Mode::Evaluation).is_err());
    let with = DiscriminatorSpec {
        features: FeatureBranch::Features(10),
        ..spec(64)
    };
    let with = Discriminator::new(with, 1, Device::Cpu).unwrap();
    assert_eq!(
        with.forward(&x, Some(&f), Mode::Evaluation).unwrap().size(),
        [2, 2]
    );
    assert!(with.forward(&x, None, Mode::Evaluation).is_err());
    let half = Some(f.to_kind(Kind::BFloat16));
    let logits = with.forward(&x, half.as_ref(), Mode::Evaluation);
    assert_eq!(logits.unwrap().kind(), Kind::Float, "outside autocast");
}

#[test]
fn shapes_are_known_without_building() {
    let vae_gan = Architecture::VaeGan { width: 0.25 };
    for (crop, features, architecture) in [
        (64, FeatureBranch::Off, Architecture::DeePSiM),
        (128, FeatureBranch::Features(10), Architecture::DeePSiM),
        (64, FeatureBranch::Off, vae_gan),
        (64, FeatureBranch::Off, patches(PatchNorm::Batch)),
        (64, FeatureBranch::Off, patches(PatchNorm::Spectral)),
        (64, FeatureBranch::Off, heads(&[Tap::Relu1, Tap::Relu3])),
    ] {
        let spec = DiscriminatorSpec {
            crop,
            features,
            architecture,
        };
        let d = Discriminator::new(spec.clone(), 1, Device::Cpu).unwrap();
        let there = d.params().iter().map(|p| (p.name.clone(), p.tensor.size()));
        assert_eq!(
            spec.shapes().unwrap(),
            there.collect::<Vec<_>>(),
            "{spec:?}"
        );
    }
    let endless = DiscriminatorSpec {
        features: FeatureBranch::Features(i64::MAX),
        ..spec(64)
    };
    assert!(endless.shapes().is_err());
    for crop in [i64::MIN, i64::MIN + 6, -1, 0] {
        assert!(spec(crop).shapes().is_err(), "{crop}");
        assert!(spec(crop).has(DiscriminatorTap::Dconv1).is_err(), "{crop}");
    }
}

#[test]
fn dropout_follows_the_seed() {
    let d = Discriminator::new(spec(64), 1, Device::Cpu).unwrap();
    let x = images(&[2, 3, 64, 64]);
    let draw =
        |seed| crate::layers::init::seeded(seed, || d.forward(&x, None, Mode::Training).unwrap());
    assert_eq!(draw(5), draw(5));
    assert_ne!(draw(5), draw(6));
    // The same masks, drawn before the pass.
    let masks = crate::layers::init::seeded(5, || d.draw_masks(2, Device::Cpu)).unwrap();
    let with = |masks: &[Tensor]| d.forward_with(&x, None, Mode::Training, Some(masks));
    assert_eq!(with(&masks).unwrap(), draw(5));
    assert!(with(&masks[..1]).is_err());
    let still = d.forward_with(&x, None, Mode::Evaluation, Some(&masks));
    assert_eq!(
        still.unwrap(),
        d.forward(&x, None, Mode::Evaluation).unwrap()
    );
}

#[test]
fn vaegan_discriminator_changes_statistics_in_training_alone() {
    let spec = DiscriminatorSpec {
        architecture: Architecture::VaeGan { width: 0.25 },
        ..spec(32)
    };
    let d = Discriminator::new(spec.clone(), 1, Device::Cpu).unwrap();
    let x = images(&[4, 3, 32, 32]);
    let running = || {
        let name = "Dconv4.norm.running_mean";
        d.params().get(name).unwrap().copy()
    };
    let before = running();
    let still = d.forward(&x, None, Mode::Evaluation).unwrap();
    assert_eq!(still, d.forward(&x, None, Mode::Evaluation).unwrap());
    let aside = d.forward(&x, None, Mode::Aside).unwrap();
    assert_eq!(before, running());
    let trained = d.forward(&x, None, Mode::Training).unwrap();
    assert_eq!(aside, trained);
    assert_ne!(before, running());
    assert_ne!(still, trained);
    assert_eq!(trained.size(), [4, 2]);
    assert_eq!(trained.select(1, 1).abs().max().double_value(&[]), 0.0);
    let now = running();
    assert!(d.forward(&x, Some(&x), Mode::Training).is_err());
    assert_eq!(now, running());
    assert!(d.forward(&x.narrow(0, 0, 1), None, Mode::Training).is_err());
    assert!(
        d.forward(&x.narrow(3, 0, 24), None, Mode::Training)
            .is_err()
    );
    let at = |tap| d.features(&x, tap, Mode::Evaluation);
    assert_eq!(at(DiscriminatorTap::Dconv4).unwrap().size(), [4, 64, 4, 4]);
    assert!(at(DiscriminatorTap::Dpool5).is_err());
    assert!(spec.has(DiscriminatorTap::Dconv5).is_err());
}

#[test]
fn patches_have_a_logit_each_and_no_features() {
    for norm in [PatchNorm::Batch, PatchNorm::None, PatchNorm::Spectral] {
        let spec = DiscriminatorSpec {
            architecture: patches(norm),
            ..spec(32)
        };
        let d = Discriminator::new(spec.clone(), 1, Device::Cpu).unwrap();
        let x = images(&[3, 3, 32, 32]);
        let mode = if norm == PatchNorm::Batch {
            Mode::Training
        } else {
            Mode::Evaluation
        };
        let y = d.forward(&x, None, mode).unwrap();
        assert_eq!(y.size(), [3, 1, 6, 6], "{norm:?}");
        assert_eq!(crate::loss::scores(&y).unwrap().size(), [3, 36]);
        assert!(d.forward(&x.narrow(3, 0, 24), None, mode).is_err());
        assert!(d.draw_masks(3, Device::Cpu).unwrap().is_empty());
        let error = spec.has(DiscriminatorTap::Dconv1).unwrap_err().to_string();
        assert!(error.contains("cannot be compared"), "{error}");
        assert!(d.features(&x, DiscriminatorTap::Dconv1, mode).is_err());
        let with = DiscriminatorSpec {
            features: FeatureBranch::Features(9),
            ..spec
        };
        assert!(with.validate().is_err());
    }
}

#[test]
fn power_iterations_change_vectors_alone_and_no_pass_does() {
    let spec = DiscriminatorSpec {
        architecture: patches(PatchNorm::Spectral),
        ..spec(32)
    };
    let d = Discriminator::new(spec, 1, Device::Cpu).unwrap();
    let x = images(&[2, 3, 32, 32]);
    let values = |train: bool| -> Vec<Tensor> {
        let all = d.params().iter().filter(|p| p.trains == train);
        all.map(|p| p.tensor.detach().copy()).collect()
    };
    let (vectors, weights) = (values(false), values(true));
    assert_eq!((vectors.len(), weights.len()), (8, 8));
    d.iterate_spectral().unwrap();
    let iterated = values(false);
    assert_ne!(vectors, iterated);
    let first = d.forward(&x, None, Mode::Training).unwrap();
    assert_eq!(first, d.forward(&x, None, Mode::Training).unwrap());
    assert_eq!(values(false), iterated);
    assert_eq!(values(true), weights);
}

#[test]
fn heads_learn_and_the_network_below_them_does_not() {
    let of = |crop, taps: &[Tap]| DiscriminatorSpec {
        architecture: heads(taps),
        ..spec(crop)
    };
    let d = Discriminator::new(of(64, &[Tap::Relu1, Tap::Relu3]), 1, Device::Cpu).unwrap();
    let x = images(&[2, 3, 64, 64]).set_requires_grad(true);
    let y = d.forward(&x, None, Mode::Training).unwrap();
    // 15x15 positions of relu1, 3x3 of relu3.
    assert_eq!(y.size(), [2, 1, 225 + 9]);
    for p in d.params().iter() {
        let of_network = p.name.starts_with("net.");
        let vector = p.name.ends_with("_u") || p.name.ends_with("_v");
        assert_eq!(p.trains, !(of_network || vector), "{}", p.name);
        assert_eq!(p.tensor.requires_grad(), p.trains, "{}", p.name);
    }
    let gradient = Tensor::run_backward(&[y.sum(Kind::Float)], &[&x], false, false).remove(0);
    assert!(gradient.abs().max().double_value(&[]) > 0.0);
    let vectors = || -> Vec<Tensor> {
        let all = d.params().iter().filter(|p| p.name.ends_with("_u"));
        all.map(|p| p.tensor.copy()).collect()
    };
    let before = vectors();
    d.iterate_spectral().unwrap();
    assert_eq!(before.len(), 6);
    assert_ne!(before, vectors());
    // What is saved is whole.
    let saved: NamedTensors = d
        .params()
        .iter()
        .map(|p| (p.name.clone(), p.tensor.detach().copy()))
        .collect();
    let again = Discriminator::from_values(d.spec().clone(), &saved, "it", "the test", Device::Cpu);
    let again = again.unwrap().forward(&x, None, Mode::Training).unwrap();
    assert_eq!(again, d.forward(&x, None, Mode::Training).unwrap());
    // Maps of too few positions, vectors, layers that there are not, another network.
    for (crop, tap) in [
        (64, Tap::Pool5),
        (64, Tap::Fc6),
        (64, Tap::Norm1),
        (8, Tap::Relu1),
    ] {
        assert!(of(crop, &[tap]).validate().is_err(), "{crop} {tap}");
    }
    let other = FeatureNet::random(NetKind::SqueezeNet, Tap::Conv1, 1, Device::Cpu).unwrap();
    let spec = of(64, &[Tap::Relu1]);
    assert!(Discriminator::with_network(spec, Some(other), 1, Device::Cpu).is_err());
}

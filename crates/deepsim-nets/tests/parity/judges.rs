//! LPIPS, SSIM and PSNR against the reference's definitions.

use std::path::Path;

use deepsim_nets::metrics::{Lpips, psnr, ssim};
use deepsim_nets::{FeatureNet, NetKind, Tap};
use tch::{Device, Kind, Tensor};

use crate::common::{GRADIENT, OUTPUT, Reference, assert_close, gradients};
use crate::directly;

/// Distances and both gradients; the weights and heads are in the reference's file.
fn check_lpips(net: NetKind, options: &str) {
    let r = Reference::run(&format!("lpips --net {net} {options}"));
    let deepest = match net {
        NetKind::AlexNet => Tap::Relu5,
        _ => Tap::Relu5_3,
    };
    let features =
        FeatureNet::from_tensors(net, deepest, &r.group("w/"), "reference", Device::Cpu).unwrap();
    let lpips = Lpips::new(features, &r.group("heads/"), "reference", Device::Cpu).unwrap();
    let (a, b) = (r.leaf("a"), r.leaf("b"));
    let what = format!("LPIPS by {net}, {options}");
    // Winograd's algorithm rounds more than direct sums: in thirteen layers some value changes sides of
    // a kink, and gradients jump there. Distances do not.
    directly(|| {
        let d = lpips.distance(&a, &b).unwrap();
        assert_close(&what, &d, r.get("y"), OUTPUT);
        let found = gradients(&d, r.get("up"), &[&a, &b]);
        for (gradient, name) in found.iter().zip(["ga", "gb"]) {
            assert_close(&format!("{what}: {name}"), gradient, r.get(name), GRADIENT);
        }
    });
    let d = lpips.distance(&a, &b).unwrap();
    assert_close(&what, &d, r.get("y"), OUTPUT);
    assert_eq!(
        lpips
            .distance(&a, &a)
            .unwrap()
            .abs()
            .max()
            .double_value(&[]),
        0.0
    );
}

#[test]
fn lpips_with_random_weights() {
    check_lpips(NetKind::AlexNet, "--seed 1 --batch 2 --crop 67");
    check_lpips(NetKind::Vgg16, "--seed 2 --batch 2 --crop 37");
}

/// The trained network and its heads.
#[test]
fn lpips_with_trained_weights() {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights");
    for net in [NetKind::AlexNet, NetKind::Vgg16] {
        let files = [
            weights.join(format!("{net}-lpips.safetensors")),
            weights.join(format!("lpips-{net}.safetensors")),
        ];
        let missing = files.iter().find(|f| !f.exists());
        assert!(
            missing.is_none(),
            "no {missing:?}: run cargo xtask setup first"
        );
        let [w, heads] = files.map(|f| f.display().to_string());
        let options = format!("--seed 3 --batch 2 --crop 64 --weights {w} --heads {heads}");
        check_lpips(net, &options);
    }
}

#[test]
fn ssim_and_psnr_follow_their_definitions() {
    for options in [
        "--seed 1 --batch 3 --crop 33",
        "--seed 2 --batch 1 --crop 11",
    ] {
        let r = Reference::run(&format!("ssim {options}"));
        for (name, found) in [
            ("ssim", ssim(r.get("a"), r.get("b")).unwrap()),
            ("psnr", psnr(r.get("a"), r.get("b")).unwrap()),
        ] {
            let found = Tensor::from_slice(&found).to_kind(Kind::Double);
            assert_close(&format!("{name} {options}"), &found, r.get(name), 1e-9);
        }
    }
}

/// SSIM and MS-SSIM as losses, against the package pytorch-msssim.
#[test]
fn structural_similarities_are_pytorch_msssim_s() {
    use deepsim_nets::structural::{ms_ssim, ssim};
    // 161 is the smallest that the package takes at five scales; odd and even sides on the way down.
    for (crop, both) in [(161, true), (176, true), (227, true), (64, false)] {
        let r = Reference::run(&format!("ms-ssim --seed 5 --batch 3 --crop {crop}"));
        let check = |name: &str, of: &dyn Fn(&Tensor, &Tensor) -> Tensor| {
            let (a, b) = (r.leaf("a"), r.leaf("b"));
            let found = of(&a, &b);
            let what = format!("{name} at {crop}");
            assert_close(&what, &found, r.get(name), OUTPUT);
            let back = gradients(&found, r.get("up"), &[&a, &b]);
            for (x, g) in ["ga", "gb"].iter().zip(&back) {
                let want = r.get(&format!("{name}/{x}"));
                assert_close(&format!("{what}: {x}"), g, want, GRADIENT);
            }
        };
        check("ssim", &|a, b| ssim(a, b).unwrap());
        if both {
            check("ms_ssim", &|a, b| ms_ssim(a, b).unwrap().similarity);
        }
    }
}

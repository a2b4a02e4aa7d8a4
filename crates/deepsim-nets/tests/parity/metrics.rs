//! LPIPS, SSIM and PSNR against the reference's definitions.

use std::path::Path;

use deepsim_nets::metrics::{Lpips, psnr, ssim};
use deepsim_nets::{FeatureNet, NetKind, Tap};
use tch::{Device, Kind, Tensor};

use crate::common::{GRADIENT, OUTPUT, Reference, Values, assert_close, assert_parity, gradients};

/// Distances and both gradients; the weights and heads are in the reference's file.
fn check_lpips(net: NetKind, options: &str) {
    let r = Reference::run(&format!("lpips --net {net} {options}"));
    let deepest = match net {
        NetKind::AlexNet => Tap::Relu5,
        _ => Tap::Relu5_3,
    };
    let load = |kind| {
        let weights = r.group_in("w/", kind);
        let features =
            FeatureNet::from_tensors(net, deepest, &weights, "reference", Device::Cpu).unwrap();
        Lpips::new(
            features,
            &r.group_in("heads/", kind),
            "reference",
            Device::Cpu,
        )
        .unwrap()
    };
    assert_parity(&format!("LPIPS by {net}, {options}"), &r, &|kind| {
        let (a, b) = (r.leaf("a", kind), r.leaf("b", kind));
        let d = load(kind).distance(&a, &b).unwrap();
        let found = gradients(&d, r.get("up"), &[&a, &b]);
        let mut values = Values::default();
        values.outputs.push(("y".to_owned(), d.detach()));
        values.add(
            "gradients",
            ["ga", "gb"].map(str::to_owned).into_iter().zip(found),
        );
        values
    });
    let (lpips, a) = (load(Kind::Float), r.get("a"));
    assert_eq!(
        lpips.distance(a, a).unwrap().abs().max().double_value(&[]),
        0.0
    );
}

#[test]
fn lpips_with_random_weights() {
    check_lpips(NetKind::AlexNet, "--batch 2 --crop 67");
    check_lpips(NetKind::Vgg16, "--batch 2 --crop 37");
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
        let options = format!("--batch 2 --crop 64 --weights {w} --heads {heads}");
        check_lpips(net, &options);
    }
}

#[test]
fn ssim_and_psnr_follow_their_definitions() {
    for options in ["--batch 3 --crop 33", "--batch 1 --crop 11"] {
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
    use deepsim_nets::loss::ssim::{ms_ssim, ssim};
    // 161 is the smallest that the package takes at five scales; odd and even sides on the way down.
    for (crop, both) in [(161, true), (176, true), (227, true), (64, false)] {
        let r = Reference::run(&format!("ms-ssim --batch 3 --crop {crop}"));
        // The package computes its window in single precision whatever the images' is: both of ours are
        // held against it as results in single precision.
        let check = |name: &str, of: &dyn Fn(&Tensor, &Tensor) -> Tensor| {
            for kind in [Kind::Float, Kind::Double] {
                let (a, b) = (r.leaf("a", kind), r.leaf("b", kind));
                let found = of(&a, &b);
                let what = format!("{name} at {crop}, {kind:?}");
                assert_close(&what, &found, r.get(name), OUTPUT);
                let back = gradients(&found, r.get("up"), &[&a, &b]);
                for (x, g) in ["ga", "gb"].iter().zip(&back) {
                    let want = r.get(&format!("{name}/{x}"));
                    assert_close(&format!("{what}: {x}"), g, want, GRADIENT);
                }
            }
        };
        check("ssim", &|a, b| ssim(a, b).unwrap());
        if both {
            check("ms_ssim", &|a, b| ms_ssim(a, b).unwrap().similarity);
        }
    }
}

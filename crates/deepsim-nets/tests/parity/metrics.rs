//! LPIPS, SSIM and PSNR against the reference's definitions.

use std::path::Path;

use deepsim_nets::metrics::{
    Dists, Inception, Lpips, Moments, Resizing, bicubic, bilinear, bilinear_antialiased,
    correlations, frechet_distance, grey, kernel_distance, precision_recall, psnr, ssim,
    two_way_identification,
};
use deepsim_nets::{FeatureNet, NetError, NetKind, Tap};
use tch::{Device, Kind, Tensor};

use crate::common::{
    GRADIENT, MISTAKE, OUTPUT, Reference, Values, assert_close, assert_parity, gradients, relative,
};

/// Distances and both gradients; the weights and heads are in the reference's file.
fn check_distance(
    what: &str,
    r: &Reference,
    magnified: Option<f64>,
    of: &dyn Fn(Kind, &Tensor, &Tensor) -> Tensor,
) {
    assert_parity(what, r, &|kind| {
        let (a, b) = (r.leaf("a", kind), r.leaf("b", kind));
        let d = of(kind, &a, &b);
        let found = gradients(&d, r.get("up"), &[&a, &b]);
        let mut values = Values {
            magnified,
            ..Values::default()
        };
        values.outputs.push(("y".to_owned(), d.detach()));
        values.add(
            "gradients",
            ["ga", "gb"].map(str::to_owned).into_iter().zip(found),
        );
        values
    });
}

/// A network up to the deepest layer that is compared, with the reference's weights.
fn trunk(net: NetKind, r: &Reference, kind: Kind) -> FeatureNet {
    let deepest = match net {
        NetKind::AlexNet => Tap::Relu5,
        _ => Tap::Relu5_3,
    };
    let weights = r.group_in("w/", kind);
    FeatureNet::from_tensors(net, deepest, &weights, "reference", Device::Cpu).unwrap()
}

/// `case` is our own definition, or the package itself.
fn check_lpips(case: &str, net: NetKind, options: &str) {
    let r = Reference::run(&format!("{case} --net {net} {options}"));
    let load = |kind| {
        let heads = r.group_in("heads/", kind);
        Lpips::new(trunk(net, &r, kind), &heads, "reference", Device::Cpu).unwrap()
    };
    let of = |kind, a: &Tensor, b: &Tensor| load(kind).distance(a, b).unwrap();
    check_distance(&format!("{case} by {net}, {options}"), &r, None, &of);
    let a = r.get("a");
    let same = of(Kind::Float, a, a);
    assert_eq!(same.abs().max().double_value(&[]), 0.0);
}

/// DISTS-pytorch has the definition.
fn check_dists(options: &str) {
    let r = Reference::run(&format!("dists {options}"));
    let of = |kind, a: &Tensor, b: &Tensor| {
        let own = r.group_in("heads/", kind);
        let dists = Dists::new(
            trunk(NetKind::Vgg16, &r, kind),
            &own,
            "reference",
            Device::Cpu,
        );
        dists.unwrap().distance(a, b).unwrap()
    };
    // Variances of a channel's few positions, and of their differences.
    check_distance(&format!("DISTS, {options}"), &r, Some(20.0), &of);
}

#[test]
fn lpips_with_random_weights() {
    for case in ["lpips", "lpips-package"] {
        check_lpips(case, NetKind::AlexNet, "--batch 2 --crop 67");
        check_lpips(case, NetKind::Vgg16, "--batch 2 --crop 37");
    }
}

/// Odd sides on the way down: the pools of DISTS have a border.
#[test]
fn dists_with_random_weights() {
    check_dists("--batch 2 --crop 37");
}

/// Fails where set-up has not been there.
fn trained<const N: usize>(names: [&str; N]) -> [String; N] {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights");
    names.map(|name| {
        let file = weights.join(name);
        assert!(file.exists(), "no {name}: run cargo xtask setup first");
        file.display().to_string()
    })
}

/// The trained network and its heads.
#[test]
fn lpips_with_trained_weights() {
    for net in [NetKind::AlexNet, NetKind::Vgg16] {
        let files = [
            format!("{net}-lpips.safetensors"),
            format!("lpips-{net}.safetensors"),
        ];
        let [w, heads] = trained(files.each_ref().map(String::as_str));
        let options = format!("--batch 2 --crop 64 --weights {w} --heads {heads}");
        check_lpips("lpips", net, &options);
    }
}

#[test]
fn dists_with_trained_weights() {
    let [w, own] = trained(["vgg16-lpips.safetensors", "dists.safetensors"]);
    check_dists(&format!("--batch 2 --crop 64 --weights {w} --heads {own}"));
}

type Resize = fn(&Tensor, i64) -> Result<Tensor, NetError>;

#[test]
fn resizing_is_that_of_the_packages() {
    let r = Reference::run("resize");
    let both: [(&str, Resize); 2] = [("bilinear", bilinear), ("bicubic", bicubic)];
    for size in ["down", "up"] {
        for (filter, resize) in both {
            let what = format!("{size}/{filter}");
            let found = resize(r.get(size), 299).unwrap();
            assert_close(&what, &found, r.get(&what), 1e-5);
        }
        let apart = relative(
            r.get(&format!("{size}/bilinear")),
            r.get(&format!("{size}/bicubic")),
        );
        assert!(apart > MISTAKE, "{size}: both filters are the same");
    }
}

/// From images to what FID is computed of.
#[test]
fn features_of_fid_are_pytorch_fid_s_and_clean_fid_s() {
    let r = Reference::run("fid-features --batch 2 --crop 83");
    let weights = r.group("w/");
    let features = |tap: &'static str, resizing| {
        let tap = Tap::named(tap);
        let net = NetKind::InceptionFid;
        let net = FeatureNet::from_tensors(net, tap, &weights, "reference", Device::Cpu).unwrap();
        let inception = Inception::new(net, tap).unwrap();
        inception.features(r.get("x"), resizing).unwrap()
    };
    for (tap, length) in [
        ("pool1", 64),
        ("pool2", 192),
        ("mixed_6e", 768),
        ("pooled", 2048),
    ] {
        let what = format!("pytorch-fid/{length}");
        let found = features(tap, Resizing::PytorchFid);
        assert_close(&what, &found, r.get(&what), 1e-4);
    }
    let (clean, own) = (features("pooled", Resizing::CleanFid), "clean-fid/2048");
    assert_close(own, &clean, r.get(own), 1e-4);
    let apart = relative(&clean, r.get("pytorch-fid/2048"));
    assert!(apart > MISTAKE, "both ways are the same: {apart:.2e}");
}

/// The same features in: pytorch-fid's distance, and loops for the others.
#[test]
fn distances_of_distributions_are_those_of_the_packages() {
    let r = Reference::run("distributions");
    for (name, bound) in [("regular", 1e-6), ("singular", 1e-3)] {
        let get = |what: &str| r.get(&format!("{name}/{what}"));
        let (a, b) = (get("a"), get("b"));
        let [precision, recall] = precision_recall(a, b, 3).unwrap();
        for (what, found, bound) in [
            ("frechet", frechet_distance(a, b).unwrap(), bound),
            ("kernel", kernel_distance(a, b).unwrap(), 1e-9),
            ("precision", precision, 1e-12),
            ("recall", recall, 1e-12),
        ] {
            let found = Tensor::from_slice(&[found]).get(0);
            assert_close(&format!("{name}: {what}"), &found, get(what), bound);
        }
        let moments = [a, b].map(|x| Moments::of(x).unwrap());
        assert_eq!(moments.map(|m| m.is_singular()), [name == "singular"; 2]);
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

/// What brain decoding reports, against numpy, scipy and PyTorch.
#[test]
fn correlations_and_identification_follow_their_definitions() {
    let r = Reference::run("identification");
    let (a, b) = (r.get("a"), r.get("b"));
    for (name, side) in [("down", 24), ("up", 80)] {
        let found = bilinear_antialiased(a, side).unwrap();
        assert_close(name, &found, r.get(name), 1e-5);
    }
    // Where images become smaller, the filter is another.
    let apart = relative(&bilinear(a, 24).unwrap(), r.get("down"));
    assert!(apart > MISTAKE, "antialiasing changes nothing: {apart:.2e}");
    let (real, made) = (r.get("real"), r.get("made"));
    let distances = correlations(real, made).unwrap();
    let distance = distances.iter().map(|r| 1.0 - r).sum::<f64>() / distances.len() as f64;
    let identified = two_way_identification(real, made).unwrap();
    assert!(identified > 0.5, "{identified}");
    for (name, found) in [
        ("pixels", Tensor::from_slice(&correlations(a, b).unwrap())),
        (
            "ssim",
            Tensor::from_slice(&ssim(&grey(a).unwrap(), &grey(b).unwrap()).unwrap()),
        ),
        ("two-way", Tensor::from_slice(&[identified]).get(0)),
        ("distance", Tensor::from_slice(&[distance]).get(0)),
    ] {
        assert_close(name, &found, r.get(name), 1e-9);
    }
}

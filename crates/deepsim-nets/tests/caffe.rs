//! The caffemodel importer and our networks against OpenCV's DNN module, a reader and an
//! implementation of Caffe's networks that share nothing with ours: the same file, the same
//! activations.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

use deepsim_nets::images::rgb_to_caffe;
use deepsim_nets::params::{NamedTensors, read_safetensors};
use deepsim_nets::{FeatureNet, FeatureShape, Generator, GeneratorSpec, NetKind, Tap, Trunk};
use deepsim_weights::{Existing, ImportKind, import_file};
use tch::{Device, Kind, Tensor};

/// ‖ours − OpenCV's‖ / ‖OpenCV's‖ allowed.
const TOLERANCE: f64 = 1e-4;

/// Runs `tests/python/caffe.py`, which writes the caffemodels of a case and what OpenCV makes of them.
fn written(case: &str) -> tempfile::TempDir {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = || {
        let mut command = Command::new("python3");
        command
            .env("PYTHONPATH", root.join("third_party/py"))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command
    };
    let folder = tempfile::tempdir().unwrap();
    let output = python()
        .arg(root.join("tests/python/caffe.py"))
        .args([case.as_ref(), folder.path().as_os_str()])
        .output()
        .expect("python3 must be on the PATH");
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let importable = python()
            .args(["-c", "import cv2.dnn, numpy, safetensors.numpy"])
            .output()
            .is_ok_and(|o| o.status.success());
        assert!(
            importable,
            "this test needs Python's OpenCV (4.x), numpy and safetensors in third_party/py; \
             install them with: cargo xtask setup --torch full\n{stderr}"
        );
        panic!("caffe.py {case} failed:\n{stderr}");
    }
    folder
}

/// Imports a caffemodel.
fn imported(folder: &Path, form: &str) -> PathBuf {
    let out = folder.join(format!("{form}.imported.safetensors"));
    let file = folder.join(format!("{form}.caffemodel"));
    import_file(ImportKind::Caffemodel, &file, &out, Existing::Keep).unwrap();
    out
}

/// Infinite where shapes differ, values are not finite, or nothing but zeros was expected.
fn relative(found: &Tensor, expected: &Tensor) -> f64 {
    if found.size() != expected.size() {
        return f64::INFINITY;
    }
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let unit = expected.norm().double_value(&[]);
    let error = (found - expected).norm().double_value(&[]) / unit;
    if error.is_finite() {
        error
    } else {
        f64::INFINITY
    }
}

fn assert_close(what: &str, found: &Tensor, expected: &Tensor) {
    let error = relative(found, expected);
    println!("{what}: {error:.1e}");
    assert!(
        error <= TOLERANCE,
        "{what}: relative error {error:.2e} above {TOLERANCE:.0e} (ours {:?}, OpenCV's {:?})",
        found.size(),
        expected.size()
    );
}

/// Every tap of a network, each for itself and as training asks for them, at each size.
fn check_taps(kind: NetKind, weights: &Path, expected: &NamedTensors, sides: &[i64]) {
    let taps: Vec<Tap> = kind.table().iter().map(|(tap, _)| *tap).collect();
    let last = *taps.last().unwrap();
    let net = FeatureNet::load(kind, last, weights, Device::Cpu).unwrap();
    for side in sides {
        let get = |name: &str| &expected[&format!("{name}.{side}")];
        // The check would see little of a normalisation that changes little.
        for (before, after) in [("pool1", "norm1"), ("pool2", "norm2")] {
            assert!(relative(get(after), get(before)) > 0.3, "{after} is idle");
        }
        let x = rgb_to_caffe(get("x")).unwrap();
        // A rectifier is one operation with its convolution unless what lies between is asked for.
        let outcomes: Vec<Tap> = taps
            .iter()
            .copied()
            .filter(|tap| !tap.name().starts_with("conv") && !tap.name().starts_with("fc"))
            .collect();
        for taps in [&taps, &outcomes] {
            let found = net.features(&x, taps).unwrap();
            assert_eq!(found.len(), taps.len());
            for (tap, found) in taps.iter().zip(&found) {
                let what = format!("{} {kind}, {side} pixels, {tap}", weights.display());
                assert_close(&what, found, get(tap.name()));
            }
        }
    }
}

/// Both generations of layer messages; fully connected layers in four dimensions in the old one,
/// as the model zoo's file has them.
#[test]
fn caffenet_has_opencvs_activations_at_every_tap() {
    let folder = written("caffenet");
    let [v1, new] = ["v1", "new"].map(|form| {
        let weights = imported(folder.path(), form);
        let expected =
            read_safetensors(&folder.path().join(format!("{form}.safetensors"))).unwrap();
        // 224 pixels: there pool1 has a column more than if sizes were rounded down.
        assert_eq!(expected["pool1.224"].size(), [2, 96, 27, 27]);
        check_taps(NetKind::CaffeNet, &weights, &expected, &[227, 224]);
        std::fs::read(weights).unwrap()
    });
    assert!(v1 == new, "the two forms of one network differ");
}

#[test]
fn videonet_has_opencvs_activations_at_every_tap() {
    let folder = written("videonet");
    let weights = imported(folder.path(), "new");
    let expected = read_safetensors(&folder.path().join("new.safetensors")).unwrap();
    check_taps(NetKind::VideoNet, &weights, &expected, &[227]);
}

fn check_generator(case: &str, input: FeatureShape) {
    let folder = written(case);
    let weights = read_safetensors(&imported(folder.path(), "new")).unwrap();
    let spec = GeneratorSpec {
        input,
        crop: 227,
        width: 1.0,
        trunk: Trunk::deepsim(),
        noise: 0,
    };
    let mut generator = Generator::new(spec, 1, Device::Cpu).unwrap();
    generator
        .params_mut()
        .copy_from(&weights, case, "caffe.py")
        .unwrap();
    let expected = read_safetensors(&folder.path().join("new.safetensors")).unwrap();
    let _guard = tch::no_grad_guard();
    let found = generator.forward(&expected["x"]).unwrap();
    assert_close(case, &found, &expected["y"]);
}

#[test]
fn generators_make_opencvs_images() {
    let map = FeatureShape::Map {
        channels: 256,
        size: 6,
    };
    check_generator("generator-conv5", map);
    check_generator("generator-fc6", FeatureShape::Vector(4096));
    check_generator("generator-fc8", FeatureShape::Vector(1000));
}

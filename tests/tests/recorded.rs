//! A generator for features that were recorded elsewhere: trained, cut and continued, judged, and
//! used; and what is wrong with a file of features is told before anything is done.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use deepsim_experiment::features_file::FeaturesFile;
use deepsim_nets::{FeatureNet, NetKind, Tap};
use deepsim_tests::files::{self, column, losses, tensors};
use deepsim_tests::lab::{Lab, TEST, TRAIN};
use deepsim_tests::process::{python, python_file, run};
use deepsim_tests::ranks::same_bits;
use safetensors::SafeTensors;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// Length of the features.
const LENGTH: usize = 7;

/// Name → values.
type Responses = BTreeMap<String, Vec<f32>>;

fn write(values: &Responses, path: &Path) {
    let tensors: Vec<_> = values
        .iter()
        .map(|(name, values)| (name, Tensor::from_slice(values)))
        .collect();
    Tensor::write_safetensors(&tensors, path).unwrap();
}

/// Responses of a made-up population: seven numbers for each image, on a scale of its own.
fn responses() -> Responses {
    (0..TRAIN + TEST)
        .map(|n| {
            let ending = if n % 2 == 0 { "jpg" } else { "png" };
            let of = |unit: usize| 40.0 + 3.0 * ((n as f32 + 1.0) * (unit as f32 + 0.7)).sin();
            (format!("{n:02}.{ending}"), (0..LENGTH).map(of).collect())
        })
        .collect()
}

/// The tiny experiment with recorded features; `more` are further lines of `[encoder]`.
fn experiment(lab: &Lab, more: &str) -> String {
    let text = lab.toml().replace("mirror = true", "mirror = false");
    let encoder = "[encoder]\nnet = \"alexnet\"\ntap = \"pool2\"\nweights = \"random:1\"\n";
    assert!(text.contains(encoder));
    text.replace(
        encoder,
        &format!(
            "[encoder]\nnet = \"recorded\"\nfeatures = \"{}\"\nshape = [{LENGTH}]\n{more}\n",
            lab.text("responses.safetensors")
        ),
    )
}

fn lab(more: &str) -> Lab {
    let lab = Lab::new();
    write(&responses(), &lab.at("responses.safetensors"));
    fs::write(lab.experiment(), experiment(&lab, more)).unwrap();
    lab
}

#[test]
fn a_run_on_recorded_features_is_continued_bit_for_bit() {
    for (more, precision) in [("normalize = \"zscore\"", "fp32"), ("", "bf16")] {
        let lab = lab(more);
        let set = format!("train.precision={precision}");
        let train = |out: &str, rest: &str| {
            let keep = "--set train.keep_checkpoints=4";
            lab.train_into(out, &format!("--set {set} {keep} {rest}"))
                .exits(0)
        };
        train("whole", "--steps 6").says(&["recorded:responses", "alexnet:relu3"]);
        train("cut", "--steps 3");
        train("cut", "--steps 6 --resume").says(&["resumed at step 3 of 6"]);
        let (whole, cut) = (lab.at("whole"), lab.at("cut"));
        assert_eq!(tensors(&cut, 6), tensors(&whole, 6));
        let trained = |run: &Path| -> Vec<String> {
            let lines = losses(run).into_iter();
            lines.filter(|l| !l.contains("eval.")).collect()
        };
        assert_eq!(trained(&cut), trained(&whole));
        assert_eq!(trained(&cut).len(), 6);
        // A reconstruction's features cannot be recorded here: their error is told as unknown.
        assert_eq!(column(&whole, "eval.feature_error"), [Value::Null]);
        assert!(column(&whole, "eval.image_error")[0].as_f64().unwrap() > 0.0);
        assert!(whole.join("samples/step-000000006.png").exists());
    }
}

/// The features are what the generator sees, each image its own: with those of two training
/// images exchanged the run is another.
#[test]
fn each_image_has_its_own_features() {
    let lab = lab("");
    lab.train_into("one", "--steps 2").exits(0);
    let mut exchanged = responses();
    let (a, b) = (exchanged["00.jpg"].clone(), exchanged["01.png"].clone());
    exchanged.insert("00.jpg".into(), b);
    exchanged.insert("01.png".into(), a);
    write(&exchanged, &lab.at("responses.safetensors"));
    lab.train_into("other", "--steps 3").exits(0);
    lab.train_into("one", "--steps 3 --resume")
        .refuses(&["encoder.weights", "changed", "--fresh"]);
    lab.eval("table2 --runs one")
        .says(&[
            "warning",
            "encoder.weights",
            "not what this run was trained with",
        ])
        .exits(1);
    // Step 2 sees all twelve training images but four: at the latest step 3 differs.
    write(&responses(), &lab.at("responses.safetensors"));
    lab.train_into("one", "--steps 3 --resume").exits(0);
    assert_ne!(
        tensors(&lab.at("one"), 3)["generator"],
        tensors(&lab.at("other"), 3)["generator"]
    );
}

/// Each process has its images' features.
#[test]
fn several_processes_train_the_same_bits_on_recorded_features() {
    same_bits(&lab("normalize = \"zscore\""), "run", &[2], "--steps 4");
}

#[test]
fn a_run_on_recorded_features_is_judged_and_used() {
    let lab = lab("normalize = \"rms\"");
    lab.train("--steps 2").exits(0);
    let rows = lab.rows("table2 --runs run");
    assert_eq!(rows[0]["layer"], "recorded:responses");
    assert!(rows[0]["image_error"].as_f64().unwrap() > 0.0);
    assert_eq!(rows[0]["feature_error"], Value::Null);
    assert_eq!(rows[0]["paper_image_error"], Value::Null);
    lab.eval("table2 --runs run").exits(0);
    lab.eval("table2 --runs run --data test").exits(0);
    lab.eval("table2 --runs run --data train")
        .exits(1)
        .says(&["recorded of its own images"]);
    lab.eval("compare run --out sheet.png --images 3").exits(0);
    lab.eval("table1 --experiment tiny.toml").exits(0);

    lab.eval("invert test/12.jpg --run run")
        .refuses(&["recorded", "decode"]);
    lab_input(&lab);
    let forward = "forward tiny.toml --net encoder --input x.safetensors";
    lab.eval(&format!("{forward} --output y.safetensors"))
        .refuses(&["recorded", "decode"]);

    // What decode makes of a held-out image's features is what the run's own sheet shows.
    lab.eval("decode responses.safetensors --run run --out made")
        .exits(0);
    let made = image::open(lab.at("made/12.jpg.png")).unwrap().to_rgb8();
    let sheet = image::open(lab.at("run/samples/step-000000002.png")).unwrap();
    let ours = sheet.crop_imm(0, 66, 64, 64).to_rgb8();
    let off = made
        .iter()
        .zip(ours.iter())
        .map(|(a, b)| a.abs_diff(*b))
        .max();
    assert!(off.unwrap() <= 1, "{off:?}");

    // So does the generator by `forward`, and figures show it.
    let x = Tensor::from_slice(&responses()["12.jpg"]).view([1, LENGTH as i64]);
    Tensor::write_safetensors(&[("x", x)], lab.at("x.safetensors")).unwrap();
    let forward = "forward tiny.toml --net generator --run run";
    lab.eval(&format!(
        "{forward} --input x.safetensors --output y.safetensors"
    ))
    .exits(0);
    let bytes = fs::read(lab.at("y.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (words, _) = file.tensor("y").unwrap().data().as_chunks::<4>();
    for (x, y, pixel) in made.enumerate_pixels() {
        for (c, shown) in pixel.0.iter().enumerate() {
            let at = (c * 64 + y as usize) * 64 + x as usize;
            let value = f32::from_le_bytes(words[at]).clamp(0.0, 255.0);
            assert!((value - f32::from(*shown)).abs() <= 1.0, "{x} {y} {c}");
        }
    }
    lab.eval("figure 3 --runs run --out figures").exits(0);

    // Neither images nor the recorded file need be there for it.
    fs::rename(
        lab.at("responses.safetensors"),
        lab.at("elsewhere.safetensors"),
    )
    .unwrap();
    fs::remove_dir_all(lab.at("train")).unwrap();
    let list = lab.rows("decode elsewhere.safetensors --run run --out again");
    assert_eq!(list.len(), (TRAIN + TEST) as usize);
    assert_eq!(list[12]["features"], "12.jpg");
    let again = image::open(lab.at("again/12.jpg.png")).unwrap().to_rgb8();
    assert_eq!(again, made);
    // The scale is known to the run alone.
    let weights = files::checkpoint(&lab.run_dir(), 2).join("generator.safetensors");
    let given = format!("--experiment tiny.toml --weights {}", weights.display());
    lab.eval(&format!("decode elsewhere.safetensors {given}"))
        .refuses(&["encoder.normalize", "--run"]);
}

fn lab_input(lab: &Lab) {
    let x = Tensor::zeros([1, 3, 64, 64], (Kind::Float, Device::Cpu));
    Tensor::write_safetensors(&[("x", x)], lab.at("x.safetensors")).unwrap();
}

/// The generator sees (features − offset) / divisor with the numbers that the checkpoint names.
#[test]
fn the_scale_of_a_run_is_that_of_its_training_images() {
    for (how, wanted) in [("rms", 40.0f32), ("zscore", 2.1)] {
        let lab = lab(&format!("normalize = \"{how}\""));
        lab.train("--steps 1").exits(0);
        let at = files::checkpoint(&lab.run_dir(), 1).join("features.safetensors");
        let bytes = fs::read(at).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let values = |name: &str| -> Vec<f32> {
            let (words, _) = file.tensor(name).unwrap().data().as_chunks::<4>();
            words.iter().map(|w| f32::from_le_bytes(*w)).collect()
        };
        let all = responses();
        let train: Vec<&Vec<f32>> = all.values().take(TRAIN as usize).collect();
        let (offset, divisor) = (values("offset"), values("divisor"));
        let square = |of: &dyn Fn(usize, f32) -> f64, units: &[usize]| -> f64 {
            let n = train.len() * units.len();
            let sum: f64 = train
                .iter()
                .flat_map(|v| units.iter().map(|&u| of(u, v[u]).powi(2)))
                .sum();
            (sum / n as f64).sqrt()
        };
        match how {
            "rms" => {
                let units: Vec<usize> = (0..LENGTH).collect();
                let expected = square(&|_, x| f64::from(x), &units);
                assert_eq!(offset, [0.0]);
                assert!((f64::from(divisor[0]) / expected - 1.0).abs() < 1e-6);
            }
            _ => {
                for u in 0..LENGTH {
                    let mean =
                        train.iter().map(|v| f64::from(v[u])).sum::<f64>() / train.len() as f64;
                    assert!((f64::from(offset[u]) - mean).abs() < 1e-4);
                    let expected = square(&|_, x| f64::from(x) - mean, &[u]);
                    assert!((f64::from(divisor[u]) / expected - 1.0).abs() < 1e-4);
                }
            }
        }
        assert!(
            (divisor[0] - wanted).abs() < 0.4 * wanted,
            "{how}: {divisor:?}"
        );
    }
}

#[test]
fn what_is_wrong_with_recorded_features_is_told_at_once() {
    let lab = lab("");
    let file = lab.at("responses.safetensors");
    let refused = |words: &[&str]| {
        let mut all = vec!["responses.safetensors"];
        all.extend(words);
        lab.train("").refuses(&all);
        assert!(!lab.run_dir().exists());
    };
    let mut some = responses();
    for n in ["00.jpg", "02.jpg", "04.jpg", "06.jpg"] {
        some.remove(n);
    }
    some.insert("stranger.jpg".into(), vec![0.0; LENGTH]);
    write(&some, &file);
    refused(&[
        "4 images have no features: train/00.jpg, train/02.jpg, train/04.jpg, …",
        "1 names belong to no image: stranger.jpg",
    ]);
    let mut odd = responses();
    odd.insert("03.png".into(), vec![0.0; 3]);
    odd.get_mut("05.png").unwrap()[2] = f32::NAN;
    write(&odd, &file);
    refused(&["[3]: 03.png", "one shape", "NaN or infinity: 05.png"]);
    let short: Responses = responses()
        .into_iter()
        .map(|(n, v)| (n, v[..5].to_vec()))
        .collect();
    write(&short, &file);
    refused(&["[5]", "encoder.shape says [7]"]);
    fs::write(&file, b"not a safetensors file").unwrap();
    refused(&["not a whole safetensors file"]);
    write(&Responses::new(), &file);
    refused(&["no features"]);
    fs::remove_file(&file).unwrap();
    refused(&["encoder.features", "your-own-representation.md"]);

    // Names may be file names without their ending, or say which side they are of.
    let bare: Responses = responses()
        .into_iter()
        .map(|(n, v)| match n.strip_suffix(".jpg") {
            Some(stem) => (stem.to_owned(), v),
            None if n.as_str() < "12" => (format!("train/{n}"), v),
            None => (format!("test/{n}"), v),
        })
        .collect();
    write(&bare, &file);
    lab.train("--steps 1").exits(0);
}

#[test]
fn two_images_of_one_name_need_whole_names() {
    let lab = lab("");
    fs::rename(lab.at("test/12.jpg"), lab.at("test/00.jpg")).unwrap();
    let mut all = responses();
    let twelve = all.remove("12.jpg").unwrap();
    write(&all, &lab.at("responses.safetensors"));
    lab.train("")
        .refuses(&["00.jpg (train/00.jpg, test/00.jpg)"]);
    let zero = all.remove("00.jpg").unwrap();
    all.insert("train/00.jpg".into(), zero);
    all.insert("test/00.jpg".into(), twelve);
    write(&all, &lab.at("responses.safetensors"));
    lab.train("--steps 1").exits(0);
}

#[test]
fn numpy_s_arrays_with_names_beside_them_say_the_same() {
    let lab = lab("");
    lab.train_into("one", "--steps 2").exits(0);
    let script = format!(
        "import numpy as np\nfrom safetensors.numpy import load_file\n\
         f = load_file('{}')\nn = sorted(f)\n\
         np.save('{}', np.stack([f[k] for k in n]).astype(np.float64))\n\
         open('{}', 'w').write('\\n'.join(n) + '\\n')",
        lab.text("responses.safetensors"),
        lab.text("matrix.npy"),
        lab.text("matrix.names.txt"),
    );
    run(&mut python(&script)).exits(0);
    let set = format!("encoder.features={}", lab.text("matrix.npy"));
    lab.train_into("two", &format!("--steps 2 --set {set}"))
        .exits(0);
    assert_eq!(tensors(&lab.at("one"), 2), tensors(&lab.at("two"), 2));
    fs::write(lab.at("matrix.names.txt"), "a\nb\n").unwrap();
    lab.train_into("three", &format!("--set {set}"))
        .refuses(&["[20, 7]", "2 names"]);
    fs::remove_file(lab.at("matrix.names.txt")).unwrap();
    lab.train_into("three", &format!("--set {set}"))
        .refuses(&["matrix.names.txt"]);
}

#[test]
fn settings_that_recorded_features_cannot_have_are_refused() {
    let lab = lab("");
    for (set, words) in [
        ("data.mirror=true", ["`data.mirror`", "mirror image"]),
        ("data.scale=[0.5,1.0]", ["`data.scale`", "random windows"]),
        ("encoder.tap=pool5", ["`encoder.tap`", "means nothing"]),
        ("encoder.shape=[]", ["`encoder.shape`", "[LENGTH]"]),
        ("encoder.shape=[2,3,4]", ["`encoder.shape`", "SIZE"]),
        ("encoder.shape=[0]", ["`encoder.shape`", "sizes from 1"]),
        ("encoder.normalize=mean", ["normalize", "zscore"]),
        ("comparator.net=recorded", ["comparator", "recorded"]),
        (
            "encoder.units=rgb-0-1",
            ["`encoder.units`", "means nothing"],
        ),
    ] {
        lab.train(&format!("--set {set}")).refuses(&words);
    }
    lab.train("--steps 1 --set data.scale=[1.0,1.0]").exits(0);
}

#[test]
fn a_generator_is_used_without_its_run() {
    let lab = Lab::trained(2);
    let weights = files::checkpoint(&lab.run_dir(), 2).join("generator.safetensors");
    let given = format!("--experiment tiny.toml --weights {}", weights.display());
    lab.eval(&format!("invert test/12.jpg --out a {given}"))
        .exits(0);
    lab.eval("invert test/12.jpg --out b --run run").exits(0);
    let png = |n: &str| fs::read(lab.at(n)).unwrap();
    assert_eq!(png("a/12-inverted.png"), png("b/12-inverted.png"));

    // `forward` writes a batch of features, which `decode` takes as it is.
    lab_input(&lab);
    let forward = "forward tiny.toml --net encoder --input x.safetensors";
    lab.eval(&format!("{forward} --output y.safetensors"))
        .exits(0);
    let list = lab
        .eval(&format!("decode y.safetensors --out c {given}"))
        .prints();
    assert_eq!(list, "c/y-0.png\n");
    assert_eq!(
        image::image_dimensions(lab.at("c/y-0.png")).unwrap(),
        (64, 64)
    );

    let flat: Responses = BTreeMap::from([("one".into(), vec![0.0; 192 * 9])]);
    write(&flat, &lab.at("flat.safetensors"));
    lab.eval(&format!("decode flat.safetensors {given}"))
        .refuses(&["one is [1728]", "[192, 3, 3]"]);
    lab.eval("decode y.safetensors --weights w")
        .refuses(&["--experiment"]);
    lab.eval(&format!("decode y.safetensors --run run {given}"))
        .refuses(&["cannot be used with"]);
    lab.eval("decode y.safetensors --experiment tiny.toml --weights y.safetensors")
        .refuses(&["unknown: y"]);
}

/// Images compared in the features of the discriminator that trains along.
#[test]
fn the_discriminator_can_be_the_comparator_of_a_run() {
    let lab = Lab::new();
    let comparator = "[comparator]\nnet = \"alexnet\"\ntap = \"relu3\"\nweights = \"random:1\"\n";
    assert!(lab.toml().contains(comparator));
    let text = lab.toml().replace(
        comparator,
        "[comparator]\nnet = \"discriminator\"\ntap = \"Dconv3\"\n",
    );
    fs::write(lab.experiment(), text).unwrap();
    for passes in ["paper", "one"] {
        let set = format!("train.discriminator_passes={passes}");
        let train = |out: &str, rest: &str| {
            lab.train_into(out, &format!("--set {set} {rest}")).exits(0);
        };
        let (whole, cut) = (format!("{passes}-whole"), format!("{passes}-cut"));
        train(&whole, "--steps 4");
        train(&cut, "--steps 2");
        train(&cut, "--steps 4 --resume");
        assert_eq!(tensors(&lab.at(&cut), 4), tensors(&lab.at(&whole), 4));
        let feat = column(&lab.at(&whole), "loss.feat");
        assert_eq!(feat.len(), 4);
        assert!(feat.iter().all(|v| v.as_f64().unwrap() > 0.0), "{feat:?}");
    }
    lab_input(&lab);
    let forward = "forward tiny.toml --net comparator --run one-whole";
    lab.eval(&format!(
        "{forward} --input x.safetensors --output y.safetensors"
    ))
    .exits(0)
    .says(&["y [1, 128, "]);
    lab.eval("table2 --runs one-whole").exits(0);
}

/// scipy and h5py write what is read here: values in their places, whichever version the file is of.
#[test]
fn folders_of_matlab_s_files_say_the_same() {
    let lab = lab("");
    let folder_of = |source: &str, folder: &str| {
        let mut write = python_file("matfiles.py");
        run(write.args([lab.text(source), lab.text(folder)])).exits(0);
    };
    // Maps whose sides all differ: an exchange of dimensions is another array.
    let maps: Vec<(String, Tensor)> = (0..5)
        .map(|n| {
            let values = Tensor::arange(24, (Kind::Float, Device::Cpu)) + f64::from(n) * 0.25;
            (format!("map {n}"), values.view([2, 3, 4]))
        })
        .collect();
    Tensor::write_safetensors(&maps, lab.at("maps.safetensors")).unwrap();
    folder_of("maps.safetensors", "maps");
    let read = FeaturesFile::read(&lab.at("maps")).unwrap();
    assert_eq!(read.sizes, [2, 3, 4]);
    assert_eq!(read.entries.len(), maps.len());
    for (name, map) in &maps {
        assert_eq!(&read.entries[name], map, "{name}");
    }
    // What MATLAB keeps as numbers that are none, and h5py's truth values, which are.
    run(python_file("matfiles.py").arg(lab.text("special"))).exits(0);
    for (folder, words) in [("text", "is text"), ("empty", "shape [0]")] {
        let error = FeaturesFile::read(&lab.at(&format!("special/{folder}"))).unwrap_err();
        let told = format!("{error:#}");
        assert!(told.contains(words), "{words} is not in: {told}");
    }
    let truth = FeaturesFile::read(&lab.at("special/truth")).unwrap();
    assert_eq!(truth.entries["00"], Tensor::from_slice(&[1f32, 0.0, 1.0]));
    // A training sees the same features, image by image.
    lab.train_into("one", "--steps 2").exits(0);
    folder_of("responses.safetensors", "fc7");
    let set = format!("--set encoder.features={}", lab.text("fc7"));
    lab.train_into("two", &format!("--steps 2 {set}"))
        .exits(0)
        .says(&["recorded:fc7"]);
    assert_eq!(tensors(&lab.at("one"), 2), tensors(&lab.at("two"), 2));
    // What is wrong with a file is told by its label; other features are other features.
    let (first, second) = (lab.at("fc7/00.mat"), lab.at("fc7/01.mat"));
    let kept = fs::read(&first).unwrap();
    fs::copy(&second, &first).unwrap();
    lab.train_into("two", &format!("--steps 3 --resume {set}"))
        .refuses(&["encoder.weights", "changed"]);
    fs::write(&first, &kept[..kept.len() - 3]).unwrap();
    lab.train_into("three", &set)
        .refuses(&["fc7", "00: ", "damaged"]);
    fs::remove_file(&first).unwrap();
    lab.train_into("three", &set)
        .refuses(&["1 images have no features", "train/00.jpg"]);
    let above = format!("--set encoder.features={}", lab.text(""));
    lab.train_into("three", &above)
        .refuses(&["no .mat files", "fc7", "name one of them"]);
}

/// From files of features in two layers back to images: targets of images and of their recorded features are the same.
#[test]
fn a_generator_s_input_is_optimised_until_layers_match() {
    let lab = Lab::trained(1);
    let net = FeatureNet::random(NetKind::AlexNet, Tap::Relu3, 1, Device::Cpu).unwrap();
    let of_images = "baseline icnn test/12.jpg test/13.png --run run --frame 64 --net alexnet \
                     --net-weights random:1 --steps 12 --batch 1";
    let rows = |arguments: &str| -> Vec<(String, f64, f64)> {
        let rows = lab.rows(arguments);
        let row = |row: &Value| {
            let number = |key: &str| row[key].as_f64().unwrap();
            let label = row["label"].as_str().unwrap().to_owned();
            (label, number("start"), number("best"))
        };
        rows.iter().map(row).collect()
    };
    let found = rows(&format!("{of_images} --layers relu1,relu3 --out images"));
    let labels: Vec<&str> = found.iter().map(|(label, ..)| label.as_str()).collect();
    assert_eq!(labels, ["12", "13"]);
    for (label, start, best) in &found {
        assert!(best < start, "{label}: {start} -> {best}");
    }
    assert!(lab.at("images/12.png").is_file() && lab.at("images/13.png").is_file());
    let photo = fs::read(lab.at("test/13.png")).unwrap();
    lab.eval(&format!("{of_images} --layers relu1 --out test"))
        .refuses(&["13.png", "is there already"]);
    assert_eq!(fs::read(lab.at("test/13.png")).unwrap(), photo);
    for (bounds, words) in [
        (vec![1f32, -1.0], "below 0"),
        (vec![f32::NAN], "NaN"),
        (vec![1.0, 2.0], "2 numbers"),
    ] {
        let bounds = [("upper", Tensor::from_slice(&bounds))];
        Tensor::write_safetensors(&bounds, lab.at("upper.safetensors")).unwrap();
        lab.eval(&format!(
            "{of_images} --layers relu1 --upper upper.safetensors --out x"
        ))
        .refuses(&["--upper", words]);
    }
    // Any features of the right shapes, layer by layer, as bdpy has them.
    for (tap, shape) in [(Tap::Relu1, [64, 15, 15]), (Tap::Relu3, [384, 3, 3])] {
        let image = |n: u32| {
            let x = Tensor::full([1, 3, 64, 64], f64::from(n), (Kind::Float, Device::Cpu));
            let features = net
                .features(&x, &[tap])
                .unwrap()
                .remove(0)
                .squeeze_dim(0)
                .contiguous();
            assert_eq!(features.size(), shape);
            (format!("stimulus {n}"), features)
        };
        let features: Vec<_> = [10, 40, 90].map(image).into_iter().collect();
        let file = format!("{tap}.safetensors");
        Tensor::write_safetensors(&features, lab.at(&file)).unwrap();
        fs::create_dir_all(lab.at(&format!("features/{tap}/S1"))).unwrap();
        let folder = lab.text(&format!("features/{tap}/S1/VC"));
        run(python_file("matfiles.py").args([lab.text(&file), folder])).exits(0);
    }
    let of_features = "baseline icnn --run run --net alexnet --net-weights random:1 --steps 12 --features features";
    let found = rows(&format!(
        "{of_features} --within S1/VC --out features-out --noise 3"
    ));
    assert_eq!(found.len(), 3);
    assert_eq!(found[0].0, "stimulus 10");
    assert!(found.iter().all(|(_, start, best)| best < start));
    // The order of a batch is no matter: noise belongs to the stimulus.
    let one = rows(&format!(
        "{of_features} --within S1/VC --out one --noise 3 --batch 1"
    ));
    for ((_, start, _), (_, alone, _)) in found.iter().zip(&one) {
        assert!((start - alone).abs() < 1e-4 * start, "{start} {alone}");
    }
    lab.eval(&format!("{of_features} --out x"))
        .refuses(&["relu1", "no .mat files", "S1"]);
    lab.eval(&format!("{of_features} --within S1/VC --side 48 --out x"))
        .refuses(&["relu1", "48 px", "--side"]);
    fs::rename(
        lab.at("features/relu3/S1/VC/stimulus 40.mat"),
        lab.at("features/relu3/S1/VC/other.mat"),
    )
    .unwrap();
    lab.eval(&format!("{of_features} --within S1/VC --out x"))
        .refuses(&["other labels", "stimulus 40"]);
}

//! Weights and checkpoints that are damaged, foreign, or not those of before.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::fs;
use std::path::Path;

use deepsim_nets::params::f32_bytes;
use deepsim_nets::{NetKind, init};
use deepsim_tests::files::{self, checkpoint_steps, contents};
use deepsim_tests::lab::Lab;
use deepsim_tests::photos;
use safetensors::tensor::{Dtype, TensorView};

type Tensors = Vec<(String, Vec<usize>, Vec<u8>)>;

/// AlexNet's convolutions, random.
fn alexnet(seed: u64) -> Tensors {
    NetKind::weight_shapes(NetKind::AlexNet.convolutional_rows())
        .into_iter()
        .map(|(name, shape)| {
            let values = init::normal(&name, &shape, 0.02, seed).unwrap();
            let sizes = shape.iter().map(|&d| usize::try_from(d).unwrap()).collect();
            (name, sizes, f32_bytes(&values).unwrap())
        })
        .collect()
}

fn save(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (
            name,
            TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
        )
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// A laboratory whose encoder has a file of weights; the arguments that name it.
fn with_weights() -> (Lab, String) {
    let lab = Lab::new();
    save(&lab.at("alexnet.safetensors"), &alexnet(1));
    let set = format!("--set encoder.weights={}", lab.text("alexnet.safetensors"));
    (lab, set)
}

#[test]
fn every_mismatch_is_listed_at_once() {
    let (lab, set) = with_weights();
    let mut tensors = alexnet(1);
    tensors.retain(|(name, _, _)| name != "features.3.bias");
    for (name, shape, _) in &mut tensors {
        match name.as_str() {
            "features.0.weight" => *shape = vec![3, 64, 11, 11],
            "features.10.bias" => *name = "features.10.bia".to_owned(),
            _ => {}
        }
    }
    save(&lab.at("alexnet.safetensors"), &tensors);
    lab.train(&set).refuses(&[
        &lab.text("alexnet.safetensors"),
        "alexnet",
        "missing: features.3.bias [192]",
        "missing: features.10.bias [256]",
        "shape: features.0.weight is [3, 64, 11, 11], expected [64, 3, 11, 11]",
        "unknown: features.10.bia",
    ]);
    assert!(!lab.run_dir().exists());
}

#[test]
fn weights_that_are_not_finite_are_refused_by_tensor() {
    let (lab, set) = with_weights();
    let mut tensors = alexnet(1);
    let (_, _, bytes) = tensors
        .iter_mut()
        .find(|(name, _, _)| name == "features.3.bias")
        .unwrap();
    bytes[4 * 5..4 * 6].copy_from_slice(&f32::NAN.to_le_bytes());
    save(&lab.at("alexnet.safetensors"), &tensors);
    let words = [
        "alexnet.safetensors",
        "features.3.bias holds NaN at position 5",
    ];
    lab.train(&set).refuses(&words);
    assert!(!lab.run_dir().exists());
    lab.train(&set.replace("encoder", "comparator"))
        .refuses(&words);

    // A generator's, by `forward`.
    lab.train("--steps 1").exits(0);
    let file = lab
        .run_dir()
        .join("checkpoints/step-000000001/generator.safetensors");
    let bytes = fs::read(file).unwrap();
    let whole = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Tensors = whole
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, view.shape().to_vec(), view.data().to_vec()))
        .collect();
    let (name, _, values) = &mut tensors[0];
    values[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let told = format!("{name} holds inf at position 0");
    save(&lab.at("generator.safetensors"), &tensors);
    let (input, weights) = ("alexnet.safetensors", "generator.safetensors");
    lab.eval(&format!(
        "decode {input} --experiment tiny.toml --weights {weights}"
    ))
    .refuses(&["generator.safetensors", &told]);
}

#[test]
fn damaged_weights() {
    let (lab, set) = with_weights();
    let file = lab.at("alexnet.safetensors");
    let whole = fs::read(&file).unwrap();
    for damaged in [&whole[..whole.len() / 2], &[0xFF; 64], b""] {
        fs::write(&file, damaged).unwrap();
        let words = [file.to_str().unwrap(), "not a whole safetensors file"];
        lab.train(&set).refuses(&words);
    }
    fs::remove_file(&file).unwrap();
    lab.train(&set).refuses(&[
        "encoder.weights: no file",
        file.to_str().unwrap(),
        "cargo xtask setup",
    ]);
    fs::create_dir(&file).unwrap();
    lab.train(&set)
        .refuses(&[file.to_str().unwrap(), "directory"]);
    assert!(!lab.run_dir().exists());
}

#[test]
fn a_run_knows_the_weights_that_it_began_with() {
    let (lab, set) = with_weights();
    lab.train(&format!("{set} --steps 2")).exits(0);
    save(&lab.at("alexnet.safetensors"), &alexnet(2));
    let resume = "--steps 4 --resume";
    lab.train(&format!("{set} {resume}")).refuses(&[
        &lab.text("run"),
        "encoder.weights",
        "changed",
        "--fresh",
    ]);
    lab.eval("invert test/12.jpg --run run --out pictures")
        .refuses(&[
            "run",
            "encoder.weights",
            "not what this run was trained with",
        ]);
    assert!(!lab.at("pictures").exists());
    let table = lab.eval("table2 --runs run --format csv");
    let table = table.exits(1).says(&[
        "warning",
        "run left out",
        "encoder.weights",
        "none of 1 runs",
    ]);
    assert_eq!(
        table.stdout, "",
        "a run that cannot be used is no empty table"
    );

    // Brought back, everything goes on.
    save(&lab.at("alexnet.safetensors"), &alexnet(1));
    lab.train(&format!("{set} {resume}")).exits(0);
    lab.eval("invert test/12.jpg --run run --out pictures")
        .exits(0);
}

#[test]
fn a_run_knows_the_images_that_it_began_with() {
    let lab = Lab::trained(2);
    let resume = "--steps 4 --resume";
    photos::photo(96, 80, 99)
        .save(lab.at("train/99.png"))
        .unwrap();
    lab.train(resume)
        .refuses(&[&lab.text("run"), "data.train", "changed", "--fresh"]);
    fs::remove_file(lab.at("train/99.png")).unwrap();
    photos::photo(96, 80, 99)
        .save(lab.at("test/99.png"))
        .unwrap();
    lab.train(resume)
        .refuses(&[&lab.text("run"), "data.test", "changed"]);
    let table = lab.eval("table2 --runs run");
    table
        .says(&["warning", "data.test", "not what this run was trained with"])
        .exits(1);
    fs::remove_file(lab.at("test/99.png")).unwrap();
    lab.train(resume).exits(0);
}

#[test]
fn damaged_checkpoints_are_never_used() {
    let lab = Lab::trained(2);
    let at = files::checkpoint(&lab.run_dir(), 2);
    let good = contents(&at);
    type Damage = (&'static str, fn(&Path), &'static str);
    let damages: [Damage; 5] = [
        (
            "generator.safetensors",
            files::flip_a_byte,
            "blake3 is not the manifest's",
        ),
        (
            "state.safetensors",
            |p| files::cut(p, 0.9),
            "the manifest says",
        ),
        (
            "discriminator.safetensors",
            |p| fs::remove_file(p).unwrap(),
            "No such file",
        ),
        ("manifest.json", |p| files::cut(p, 0.5), "manifest.json"),
        (
            "manifest.json",
            |p| fs::remove_file(p).unwrap(),
            "manifest.json",
        ),
    ];
    for (name, damage, reason) in damages {
        damage(&at.join(name));
        let words = ["step-000000002", name, reason];
        lab.train("--steps 4 --resume").refuses(&words);
        lab.eval("invert test/12.jpg --run run --out pictures")
            .refuses(&words);
        let table = lab.eval("table2 --runs run --format csv");
        let table = table.exits(1).says(&["warning: run left out", name]);
        assert_eq!(table.stdout, "");
        for (path, bytes) in &good {
            fs::write(path, bytes).unwrap();
        }
    }
    assert!(!lab.at("pictures").exists());
    assert_eq!(checkpoint_steps(&lab.run_dir()), [2]);
    // With nothing left to go on from, --fresh is the way out.
    files::flip_a_byte(&at.join("generator.safetensors"));
    lab.train("--steps 2 --fresh").exits(0);
    assert_eq!(contents(&at).len(), 4);
}

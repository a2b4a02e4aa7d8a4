//! Checkpoints and experiment files of earlier builds must stay readable: `tests/fixtures/checkpoint-v1`
//! was written by the build that introduced it and is never written again. (A new format gets a new
//! folder: `DEEPSIM_WRITE_FIXTURE=1 cargo test -p deepsim-experiment --test format`.)

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use deepsim_experiment::{Checkpoint, Experiment, Manifest, Snapshot, checkpoint};
use deepsim_nets::{Discriminator, Generator, params::Params};
use tch::{Device, Kind, Tensor};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoint-v1")
}

/// Small numbers that cannot come out right by accident.
fn values(salt: i64, shape: &[i64]) -> Tensor {
    let n: i64 = shape.iter().product();
    let x = Tensor::arange(n, (Kind::Float, Device::Cpu)) * 0.37 + salt as f64;
    x.sin().view(shape)
}

fn experiment() -> Experiment {
    Experiment::load(&fixture().join("experiment.toml"), &[]).unwrap()
}

fn tensors() -> Vec<(&'static str, Vec<(String, Tensor)>)> {
    vec![
        (
            "generator",
            vec![
                ("deconv0.weight".to_owned(), values(1, &[2, 3, 4, 4])),
                ("deconv0.bias".to_owned(), values(2, &[3])),
            ],
        ),
        (
            "discriminator",
            vec![("Dconv1.weight".to_owned(), values(3, &[4, 3, 2, 2]))],
        ),
        (
            "encoder",
            vec![("mean.weight".to_owned(), values(4, &[5, 7]))],
        ),
        (
            "state",
            vec![("generator.m.deconv0.bias".to_owned(), values(5, &[3]))],
        ),
    ]
}

fn counters() -> BTreeMap<String, i64> {
    [
        ("step", 1234),
        ("generator.step", 1200),
        ("gate.train_d", 0),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into()
}

fn write() {
    let experiment = experiment();
    let manifest = Manifest {
        format: 1,
        step: 1234,
        seconds: 56.5,
        generator: experiment.generator.clone(),
        discriminator: experiment.trained_discriminator().cloned(),
        encoder_weights: "a".repeat(64),
        comparator_weights: "b".repeat(64),
        comparators: BTreeMap::new(),
        train_data: "c".repeat(64),
        test_data: "d".repeat(64),
        versions: [("deepsim".to_owned(), "0.1.0".to_owned())].into(),
        experiment: None,
        files: BTreeMap::new(),
        digest: None,
        framing: None,
        initial: BTreeMap::new(),
        held_out_overlap: None,
    };
    let snapshot = Snapshot {
        files: tensors().into_iter().collect(),
        counters: counters(),
    };
    let there = checkpoint::write(&fixture(), manifest, &snapshot).unwrap();
    // As builds of format 1 wrote it: without a digest of its own.
    let file = there.join("manifest.json");
    let mut bare: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    bare.as_object_mut().unwrap().remove("digest");
    std::fs::write(&file, serde_json::to_vec_pretty(&bare).unwrap()).unwrap();
}

#[test]
fn a_checkpoint_of_the_first_format_is_read_as_it_was_written() {
    if std::env::var_os("DEEPSIM_WRITE_FIXTURE").is_some() {
        write();
    }
    let found = Checkpoint::newest(&fixture())
        .unwrap()
        .expect("it is there");
    assert_eq!((found.manifest.format, found.manifest.step), (1, 1234));
    assert_eq!(found.manifest.seconds, 56.5);
    assert_eq!(found.manifest.train_data, "c".repeat(64));
    for (stem, wanted) in tensors().into_iter().filter(|(stem, _)| *stem != "state") {
        let there = found.tensors(stem).unwrap();
        assert_eq!(there.len(), wanted.len(), "{stem}");
        for (name, tensor) in wanted {
            assert_eq!(there[&name], tensor, "{stem}/{name}");
        }
    }
    let (moments, counted) = found.state().unwrap();
    assert_eq!(counted, counters());
    assert_eq!(moments["generator.m.deconv0.bias"], values(5, &[3]));
}

/// A run that is training removes its older checkpoints, also one that is being evaluated.
#[test]
fn what_was_verified_is_read_even_if_it_is_removed_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = Checkpoint::newest(&fixture()).unwrap().unwrap().manifest;
    let save = |step| {
        let manifest = Manifest {
            format: checkpoint::FORMAT,
            step,
            files: BTreeMap::new(),
            ..manifest.clone()
        };
        let snapshot = Snapshot {
            files: tensors().into_iter().collect(),
            counters: counters(),
        };
        checkpoint::write(folder.path(), manifest, &snapshot).unwrap()
    };
    let older = save(1);
    let found = Checkpoint::newest(folder.path()).unwrap().unwrap();
    save(2);
    checkpoint::remove(&older).unwrap();
    assert!(!older.exists());
    assert_eq!(
        found.tensors("encoder").unwrap()["mean.weight"],
        values(4, &[5, 7])
    );
    assert_eq!(found.state().unwrap().1, counters());
    let missing = found.tensors("elsewhere").unwrap_err().to_string();
    assert!(
        missing.contains("names no elsewhere.safetensors"),
        "{missing}"
    );
}

/// The architectures that its manifest and experiment name are those that they named then.
#[test]
fn the_architectures_of_the_first_format_have_the_same_tensors() {
    let found = Checkpoint::newest(&fixture())
        .unwrap()
        .expect("it is there");
    let shapes = |params: &Params| -> String {
        params
            .iter()
            .map(|p| format!("{} {:?}\n", p.name, p.tensor.size()))
            .collect()
    };
    let generator = Generator::new(found.manifest.generator.clone(), 1, Device::Cpu).unwrap();
    let discriminator = Discriminator::new(
        found.manifest.discriminator.clone().unwrap(),
        1,
        Device::Cpu,
    )
    .unwrap();
    assert_eq!(found.manifest.generator, experiment().generator);
    let all = format!(
        "{}{}",
        shapes(generator.params()),
        shapes(discriminator.params())
    );
    let file = fixture().join("shapes.txt");
    if std::env::var_os("DEEPSIM_WRITE_FIXTURE").is_some() {
        std::fs::write(&file, &all).unwrap();
    }
    assert_eq!(all, std::fs::read_to_string(file).unwrap());
}

/// Its files hold a few numbers for the sake of size: a manifest may say what it likes of networks, and what it says
/// is not built until it is known that the files have it.
#[test]
fn networks_that_the_files_do_not_hold_are_not_built() {
    let found = Checkpoint::newest(&fixture())
        .unwrap()
        .expect("it is there");
    let complaint = |message: String| {
        for word in ["missing", "step-000001234"] {
            assert!(message.contains(word), "{message}");
        }
    };
    complaint(found.generator(Device::Cpu).unwrap_err().to_string());
    complaint(found.discriminator(Device::Cpu).unwrap_err().to_string());
}

/// A checkpoint of today's format with the fixture's numbers.
fn today(folder: &Path) -> PathBuf {
    let mut manifest = Checkpoint::newest(&fixture())
        .unwrap()
        .expect("it is there")
        .manifest;
    manifest.format = checkpoint::FORMAT;
    manifest.files.clear();
    let snapshot = Snapshot {
        files: tensors().into_iter().collect(),
        counters: counters(),
    };
    checkpoint::write(folder, manifest, &snapshot).unwrap()
}

/// What a later build adds to a manifest is covered by the digest, and no reason to refuse it.
#[test]
fn a_manifest_with_fields_of_a_later_build_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = today(folder.path());
    let file = at.join("manifest.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let digest = text.find(",\n  \"digest\"").unwrap();
    let bare = format!("{},\n  \"later\": [1, \"two\"]\n}}", &text[..digest]);
    let seal = |bare: &str| {
        let digest = blake3::hash(bare.as_bytes()).to_hex();
        format!(
            "{},\n  \"digest\": \"{digest}\"\n}}",
            &bare[..bare.len() - 2]
        )
    };
    std::fs::write(&file, seal(&bare)).unwrap();
    assert_eq!(Checkpoint::open(&at).unwrap().manifest.step, 1234);
    std::fs::write(&file, seal(&bare).replace("two", "tow")).unwrap();
    let error = Checkpoint::open(&at).unwrap_err().to_string();
    assert!(error.contains("not what its digest says"), "{error}");
    std::fs::write(&file, seal(&bare.replace("\"format\": 3", "\"format\": 4"))).unwrap();
    let error = Checkpoint::open(&at).unwrap_err().to_string();
    assert!(error.contains("format 4"), "{error}");
}

/// Every byte of every file, flipped; and every file cut at many places: refused, the file named.
#[test]
fn no_byte_of_a_checkpoint_can_change_unnoticed() {
    let folder = tempfile::tempdir().unwrap();
    let at = today(folder.path());
    Checkpoint::open(&at).unwrap();
    let mut tried = 0;
    for entry in std::fs::read_dir(&at).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let whole = std::fs::read(&file).unwrap();
        let mut refuse = |bytes: &[u8], what: &str| {
            std::fs::write(&file, bytes).unwrap();
            let error = match Checkpoint::open(&at) {
                Err(error) => error.to_string(),
                Ok(_) => panic!("{name}: {what} was not noticed"),
            };
            assert!(error.contains(&name), "{name}: {what}: {error}");
            tried += 1;
        };
        for i in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[i] ^= 1 << (i % 8);
            refuse(&bytes, &format!("byte {i}"));
        }
        for cut in (0..whole.len()).step_by(7) {
            refuse(&whole[..cut], &format!("cut at {cut}"));
        }
        refuse(&[whole.as_slice(), b"\n"].concat(), "one byte more");
        std::fs::write(&file, &whole).unwrap();
    }
    assert!(tried > 3000, "{tried}");
    Checkpoint::open(&at).unwrap();
}

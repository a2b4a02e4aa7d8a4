//! Experiments of VAE/GAN and its relatives in a laboratory.

use std::fs;

use crate::lab::Lab;
use crate::process::{program, root, run};

/// A laboratory whose experiment is one of the sample's on faces, made small.
pub fn lab(which: &str) -> Lab {
    let lab = Lab::new();
    write(&lab, which, "run");
    lab
}

/// Gives a laboratory such an experiment; `earlier` is the run that it compares in, if any.
pub fn write(lab: &Lab, which: &str, earlier: &str) {
    let file = root().join(format!("experiments/sample/faces-{which}.toml"));
    // With what it extends.
    let mut toml = run(program("deepsim-train").arg(file).arg("--print")).prints();
    for (from, to) in [
        ("data/faces/", format!("{}/", lab.path().display())),
        ("runs/faces-gan", lab.text(earlier)),
        ("width = 0.5", "width = 0.125".to_owned()),
        ("crop = 64", "crop = 32".to_owned()),
        ("size = 128", "size = 6".to_owned()),
        ("batch_size = 32", "batch_size = 4".to_owned()),
        ("threads = 0", "threads = 1".to_owned()),
        ("log_every = 50", "log_every = 1".to_owned()),
        ("eval_every = 300", "eval_every = 0".to_owned()),
        ("sample_every = 300", "sample_every = 2".to_owned()),
    ] {
        let small = toml.replace(from, &to);
        // The earlier run is named by one of the files alone.
        assert!(
            small != toml || from == "runs/faces-gan",
            "{which}: no {from}"
        );
        toml = small;
    }
    fs::write(lab.experiment(), toml).unwrap();
}

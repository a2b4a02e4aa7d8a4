//! Several images of the same features, from experiment file to sheet.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::fs;

use deepsim_tests::files::{column, tensors};
use deepsim_tests::lab::{Lab, TEST};

/// A laboratory whose generator takes noise beside its features.
fn noisy(diversity: &str) -> Lab {
    let lab = Lab::new();
    let toml = lab.toml().replace(
        "[discriminator]",
        &format!("noise = 3\n\n{diversity}[discriminator]"),
    );
    fs::write(lab.experiment(), toml).unwrap();
    lab
}

const REWARD: &str = "[diversity]\nweight = 50.0\nlimit = 40.0\n\n";

#[test]
fn noise_makes_several_images_and_resumes_exactly() {
    let lab = noisy(REWARD);
    lab.train_into("run", "--steps 4").exits(0);
    lab.train_into("cut", "--steps 2").exits(0);
    lab.train_into("cut", "--steps 4 --resume").exits(0);
    assert_eq!(tensors(&lab.at("cut"), 4), tensors(&lab.at("run"), 4));
    let diversity = column(&lab.run_dir(), "loss.diversity");
    assert_eq!(diversity.len(), 4);
    assert!(
        diversity.iter().all(|v| v.as_f64().unwrap() < 0.0),
        "{diversity:?}"
    );

    let ask = |out: &str, seed: u64| {
        let asked = "preimages run --draws 3 --show 4";
        lab.rows(&format!("{asked} --out {out} --seed {seed}"))
            .remove(0)
    };
    let said = ask("a", 1);
    for (key, value) in [("noise", 3), ("n", TEST), ("draws", 3)] {
        assert_eq!(said[key], value, "{key}");
    }
    for key in ["spread", "feature_spread", "feature_error", "image_error"] {
        assert!(said[key].as_f64().unwrap() > 0.0, "{key}: {said}");
    }
    let again = ask("b", 1);
    assert_eq!(
        (&again["spread"], &again["feature_error"]),
        (&said["spread"], &said["feature_error"])
    );
    assert_ne!(ask("c", 2)["spread"], said["spread"]);
    let read = |name: &str| fs::read(lab.at(name)).unwrap();
    assert_eq!(read("a/run.png"), read("b/run.png"));
    assert_ne!(read("a/run.png"), read("c/run.png"));
    let sheet = image::open(lab.at("a/run.png")).unwrap();
    assert!(sheet.width() > 4 * 64 && sheet.height() > 6 * 64);

    // Two runs of one name have a sheet each.
    fs::create_dir(lab.at("other")).unwrap();
    fs::rename(lab.at("cut"), lab.at("other/run")).unwrap();
    lab.eval("preimages run other/run --draws 3 --show 4 --out two")
        .exits(0);
    assert_eq!(read("two/run.png"), read("a/run.png"));
    assert_eq!(read("two/run-2.png").len(), read("a/run.png").len());

    // Every other command takes the noise at zero.
    lab.eval("table2 --runs run").exits(0);
    lab.eval("preimages run --draws 1").refuses(&["--draws"]);
}

#[test]
fn what_has_no_noise_is_refused() {
    let lab = Lab::trained(2);
    lab.eval("preimages run").refuses(&["generator.noise"]);
    let toml = lab
        .toml()
        .replace("[discriminator]", &format!("{REWARD}[discriminator]"));
    fs::write(lab.experiment(), toml).unwrap();
    lab.train_into("no", "")
        .refuses(&["diversity", "generator.noise"]);
    for (noise, words) in [("-1", "-1"), ("100000", "100000")] {
        let toml = lab
            .toml()
            .replace("width = 0.05", &format!("width = 0.05\nnoise = {noise}"));
        fs::write(lab.experiment(), toml).unwrap();
        lab.train_into("no", "").refuses(&["generator", words]);
    }
}

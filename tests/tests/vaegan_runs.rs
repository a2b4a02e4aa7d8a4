//! VAE/GAN and its relatives from experiment file to attribute vectors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::fs;

use deepsim_tests::faces;
use deepsim_tests::files::{checkpoint, column, names, tensors};
use deepsim_tests::lab::TRAIN;
use serde_json::Value;

fn numbers(values: &[Value]) -> Vec<f64> {
    values.iter().map(|v| v.as_f64().unwrap()).collect()
}

#[test]
fn it_trains_resumes_and_its_codes_have_attributes() {
    let lab = faces::lab("vaegan");
    lab.train_into("run", "--steps 4").exits(0);
    lab.train_into("cut", "--steps 2").exits(0);
    lab.train_into("cut", "--steps 4 --resume").exits(0);
    assert_eq!(tensors(&lab.at("cut"), 4), tensors(&lab.at("run"), 4));
    for term in ["loss.feat", "loss.kl", "loss.discr_real", "loss.discr_fake"] {
        let values = numbers(&column(&lab.run_dir(), term));
        assert_eq!(values.len(), 4, "{term}");
        assert!(values.iter().all(|v| *v > 0.0), "{term}: {values:?}");
    }
    assert!(
        checkpoint(&lab.run_dir(), 4)
            .join("encoder.safetensors")
            .exists()
    );

    // Every second image has the one attribute; all have the other; of the third nothing is known.
    let mut labels = "name,odd,all,unknown\n".to_owned();
    let mut names = [names(&lab.at("train")), names(&lab.at("test"))].concat();
    names.sort();
    for (i, name) in names.iter().enumerate() {
        labels += &format!("{name},{},1,\n", i % 2);
    }
    fs::write(lab.at("labels.csv"), labels).unwrap();
    let ask = |more: &str| lab.eval(&format!("attributes run --labels labels.csv {more}"));
    let said = lab.rows("attributes run --labels labels.csv --show 3 --strength 2");
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(
        (
            &said[0]["attribute"],
            &said[0]["with"],
            &said[0]["held_out"]
        ),
        (&"odd".into(), &(TRAIN / 2).into(), &8.into())
    );
    for key in ["length", "probe", "guess", "found_before", "missed_removed"] {
        let value = said[0][key].as_f64().unwrap();
        assert!((0.0..=100.0).contains(&value), "{key}: {value}");
    }
    let sheet = image::open(lab.at("attributes/run-odd.png")).unwrap();
    assert!(sheet.width() >= 3 * 32 && sheet.height() >= 6 * 32);
    ask("")
        .exits(0)
        .says(&["`all`", "a vector needs 5 of either"]);
    ask("--attribute all").refuses(&["`all`", "12 training images have it and 0 do not"]);
    ask("--attribute odds").refuses(&["odds", "odd"]);
    fs::write(lab.at("labels.csv"), "name,odd\nelsewhere.png,1\n").unwrap();
    ask("").refuses(&["no image of", names[0].as_str(), "names must end alike"]);
    fs::write(lab.at("labels.csv"), "name,odd\n").unwrap();
    ask("").refuses(&["labels.csv"]);
    lab.eval("attributes run --labels none.csv")
        .refuses(&["none.csv"]);
}

#[test]
fn a_gan_trains_and_its_discriminator_judges_an_autoencoder() {
    let lab = faces::lab("gan");
    lab.train_into("gan", "--steps 3").exits(0);
    let values = column(&lab.at("gan"), "loss.kl");
    assert!(values.iter().all(Value::is_null), "{values:?}");
    lab.eval("sample --runs gan --count 4 --show 4").exits(0);

    faces::write(&lab, "vae-dis", "gan");
    lab.train_into("dis", "--steps 4").exits(0);
    lab.train_into("cut", "--steps 2").exits(0);
    lab.train_into("cut", "--steps 4 --resume").exits(0);
    assert_eq!(tensors(&lab.at("cut"), 4), tensors(&lab.at("dis"), 4));
    let feat = numbers(&column(&lab.at("dis"), "loss.feat"));
    assert!(feat.iter().all(|v| *v > 0.0), "{feat:?}");
    lab.eval("table2 --runs .").exits(0);

    faces::write(&lab, "vae-dis", "nowhere");
    lab.train_into("none", "--steps 2").refuses(&["nowhere"]);
}

#[test]
fn what_it_cannot_be_is_said() {
    let lab = faces::lab("vaegan");
    for (set, words) in [
        ("train.batch_size=1", "batch"),
        ("data.crop=36", "crop"),
        ("vaegan.gamma=1.5", "vaegan.gamma"),
        ("vaegan.margin=-1.0", "vaegan.margin"),
        ("loss.adv=0", "leave [vaegan] out"),
        ("latent.code=plain", "no distribution"),
        ("discriminator.features=true", "draws of the prior"),
    ] {
        lab.train_into("no", &format!("--steps 2 --set {set}"))
            .refuses(&[words]);
        assert!(!lab.at("no").exists(), "{set}");
    }
}

//! Schedules, clipping and averages of weights; weights to begin with; stages; arithmetic that the experiment leaves open.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::fs;
use std::path::Path;

use deepsim_tests::files::{checkpoint, column, manifest, metrics};
use deepsim_tests::lab::Lab;
use deepsim_tests::ranks::{bits, same_bits, trained};
use safetensors::SafeTensors;

/// AdamW, clipped gradients, a warm-up, a cosine and averages: all that a network's update may have.
const RECIPE: &str = "--set optimizer.generator.rule=adamw --set optimizer.discriminator.rule=adamw \
     --set optimizer.generator.clip=1.0 --set optimizer.discriminator.clip=0.5 --set schedule.halve_at=[] \
     --set schedule.warmup=2 --set schedule.decay=cosine --set schedule.until=6 --set schedule.min=0.1 \
     --set ema.decay=0.9";

/// An encoder that learns, whose weights are averaged, too.
const CODES: &str = "--set latent.size=6 --set latent.code=gaussian --set loss.kl=0.01 \
     --set optimizer.encoder.lr=1e-3 --set optimizer.encoder.beta1=0.9 --set optimizer.encoder.beta2=0.999 \
     --set optimizer.encoder.eps=1e-8 --set optimizer.encoder.weight_decay=0 --set optimizer.encoder.clip=1.0 \
     --set ema.warmup=true";

/// Values of all tensors of a file, by their names.
fn values(file: &Path) -> Vec<f32> {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = tensors.tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let words = tensors.iter().flat_map(|(_, t)| t.data().chunks_exact(4));
    words
        .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
        .collect()
}

fn weights(run: &Path, step: u64, stem: &str) -> Vec<f32> {
    values(&checkpoint(run, step).join(format!("{stem}.safetensors")))
}

/// Largest distance of two networks' values.
fn apart(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    let pairs = one.iter().zip(other);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Distance of two networks' values, relative to their norm.
fn relative(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().zip(expected);
    let squares: f64 = pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let norm: f64 = expected.iter().map(|b| f64::from(*b).powi(2)).sum();
    (squares / norm).sqrt()
}

#[test]
fn cut_and_continued_equals_uncut_with_all_that_an_update_may_have() {
    let lab = Lab::new();
    for (name, sets) in [
        ("paper", ""),
        ("split", "--set train.accumulate=2"),
        ("codes", CODES),
    ] {
        let train = |out: &str, rest: &str| {
            let arguments = format!("{RECIPE} {sets} {rest}");
            lab.train_into(out, &arguments).exits(0);
        };
        let (whole, cut) = (format!("{name}-whole"), format!("{name}-cut"));
        train(&whole, "--steps 6");
        train(&cut, "--steps 3");
        train(&cut, "--steps 6 --resume");
        let (found, expected) = (bits(&lab.at(&cut)), bits(&lab.at(&whole)));
        assert_eq!(found.0, expected.0, "{name}");
        assert_eq!(found.0.len(), 6, "{name}");
        assert!(found.1 == expected.1, "{name}");
        let learns = name == "codes";
        for (file, is_there) in [
            ("generator-ema.safetensors", true),
            ("encoder-ema.safetensors", learns),
        ] {
            assert_eq!(found.1.contains_key(file), is_there, "{name}: {file}");
        }
    }
    // What was scheduled is what the log says.
    let rates: Vec<f64> = column(&lab.at("paper-whole"), "lr")
        .iter()
        .map(|v| v.as_f64().unwrap())
        .collect();
    // Of the next update, 1e-3 at most: warmed up after two, and then along the cosine.
    assert_eq!(rates[..2], [1e-3, 1e-3]);
    assert!(
        rates.windows(2).skip(1).all(|pair| pair[1] < pair[0]),
        "{rates:?}"
    );
    assert!((rates[5] - 1e-4).abs() < 1e-9, "{rates:?}");
}

/// Norms and averages come from the sums over all processes: all of them compare their weights, and averages, at each
/// checkpoint.
#[test]
fn several_processes_agree_on_clipped_gradients_and_averages() {
    let lab = Lab::new();
    let arguments = format!("{RECIPE} {CODES} --steps 4");
    for ran in trained(&lab, "two", 2, &arguments) {
        ran.exits(0);
    }
    lab.train_into("one", &arguments).exits(0);
    for stem in ["generator-ema", "encoder-ema"] {
        let [one, two] = ["one", "two"].map(|run| weights(&lab.at(run), 4, stem));
        let raw = weights(&lab.at("one"), 4, &stem.replace("-ema", ""));
        assert!(apart(&one, &raw) > 0.0, "{stem} is no average");
        let far = relative(&two, &one);
        assert!(far < 1e-3, "{stem}: {far:.1e}");
    }
    same_bits(&lab, "shards", &[2, 4], &format!("{RECIPE} --steps 3"));
}

#[test]
fn evaluations_see_the_averages_unless_the_raw_weights_are_asked_for() {
    let lab = Lab::new();
    lab.train_into("plain", "--steps 6").exits(0);
    lab.train_into("run", "--steps 6 --set ema.decay=0.9")
        .exits(0);
    // Averages change nothing in the training.
    let mut tensors = bits(&lab.run_dir()).1;
    assert!(tensors.remove("generator-ema.safetensors").is_some());
    assert!(tensors == bits(&lab.at("plain")).1);

    let error = |arguments: &str| {
        let rows = lab.rows(&format!("table2 {arguments}"));
        rows[0]["image_error"].as_f64().unwrap()
    };
    let (averaged, raw) = (error("--runs run"), error("--runs run --no-ema"));
    assert_ne!(averaged, raw);
    assert_eq!(raw, error("--runs plain"));
    assert_eq!(raw, error("--runs plain --no-ema"));
    let of_training = |run: &str| {
        let all = column(&lab.at(run), "eval.image_error");
        all.last().unwrap().as_f64().unwrap()
    };
    let close = |a: f64, b: f64| (a - b).abs() < 1e-6 * a.abs();
    assert!(close(of_training("run"), averaged));
    assert!(close(of_training("plain"), raw));

    // A run keeps its averages, and begins none later.
    lab.train_into("run", "--steps 8 --resume")
        .refuses(&["ema.decay: there 0.9, here nothing"]);
    lab.train_into("plain", "--steps 8 --resume --set ema.decay=0.9")
        .refuses(&["ema.decay: there nothing, here 0.9"]);
}

#[test]
fn an_open_precision_is_settled_when_a_run_begins_and_kept() {
    let lab = Lab::new();
    let open = "--set train.precision=auto";
    let kept = |run: &str, step: u64| {
        let manifest = manifest(&lab.at(run), step);
        let precision = &manifest["experiment"]["values"]["train.precision"];
        let precision = precision.as_str().unwrap().to_owned();
        let file = fs::read_to_string(lab.at(run).join("experiment.toml")).unwrap();
        assert!(
            file.contains(&format!("precision = \"{precision}\"")),
            "{file}"
        );
        precision
    };
    lab.train_into("open", &format!("{open} --steps 2"))
        .exits(0)
        .says(&["train.precision is auto, which is "]);
    let settled = kept("open", 2);
    assert!(["fp32", "bf16"].contains(&settled.as_str()), "{settled}");
    for ran in trained(&lab, "two", 2, &format!("{open} --steps 2")) {
        ran.exits(0);
    }
    assert_eq!(kept("two", 2), settled);
    // A run that goes on has what it began with, whatever is fast here.
    for precision in ["fp32", "bf16"] {
        let begun = format!("--set train.precision={precision} --steps 2");
        lab.train_into(precision, &begun).exits(0);
        lab.train_into(precision, &format!("{open} --steps 4 --resume"))
            .exits(0);
        assert_eq!(kept(precision, 4), precision);
    }
}

#[test]
fn networks_begin_with_the_weights_of_an_earlier_run() {
    let lab = Lab::new();
    lab.train_into("base", "--steps 4 --set ema.decay=0.5")
        .exits(0);
    let base = manifest(&lab.at("base"), 4);
    let hash = |file: &str| base["files"][file]["blake3"].clone();
    let still =
        "--set optimizer.generator.lr=1e-30 --set optimizer.discriminator.lr=1e-30 --steps 1";
    let of_base = |tail: &str| lab.text(&format!("base{tail}"));
    let step = "/checkpoints/step-000000004";
    for (out, generator, stem) in [
        ("of-run", of_base(""), "generator-ema"),
        ("of-checkpoint", of_base(step), "generator-ema"),
        (
            "of-file",
            of_base(&format!("{step}/generator.safetensors")),
            "generator",
        ),
    ] {
        let discriminator = of_base("");
        let sets = format!(
            "--set generator.weights={generator} --set discriminator.weights={discriminator} --set ema.decay=0.5"
        );
        lab.train_into(out, &format!("{sets} {still}")).exits(0);
        let run = lab.at(out);
        for (own, theirs) in [
            ("generator", stem),
            ("generator-ema", stem),
            ("discriminator", "discriminator"),
        ] {
            let far = apart(&weights(&run, 1, own), &weights(&lab.at("base"), 4, theirs));
            assert!(far < 1e-12, "{out}: {own} is {far} apart");
        }
        let initial = manifest(&run, 1)["initial"].clone();
        assert_eq!(
            initial["generator.weights"],
            hash(&format!("{stem}.safetensors"))
        );
        assert_eq!(
            initial["discriminator.weights"],
            hash("discriminator.safetensors")
        );
    }

    let refused = |sets: &str, words: &[&str]| {
        lab.train_into("refused", &format!("--steps 2 {sets}"))
            .refuses(words);
        assert!(!lab.at("refused").exists());
    };
    let from = |key: &str, path: &str| format!("--set {key}.weights={path}");
    refused(
        &from("generator", "nowhere"),
        &["generator.weights", "nothing is there"],
    );
    refused(
        &format!(
            "{} --set generator.width=0.1",
            from("generator", &of_base(""))
        ),
        &["the generator", "shape: "],
    );
    refused(
        &format!(
            "{} --set generator.trunk={{db={{kernel=4,slope=0.2}}}}",
            from("generator", &of_base(""))
        ),
        &["generator.weights", "whose generator has the trunk"],
    );
    let file = of_base(&format!("{step}/discriminator.safetensors"));
    refused(&from("generator", &file), &["the generator", "missing: "]);
    lab.train_into("without", "--steps 2 --set loss.adv=0")
        .exits(0);
    refused(
        &from("discriminator", &lab.text("without")),
        &["has no discriminator"],
    );

    // What it began with need not be there any more.
    fs::remove_dir_all(lab.at("base")).unwrap();
    let sets = format!(
        "{} {} --set ema.decay=0.5",
        from("generator", &of_base("")),
        from("discriminator", &of_base(""))
    );
    let slow = "--set optimizer.generator.lr=1e-30 --set optimizer.discriminator.lr=1e-30";
    lab.train_into("of-run", &format!("{sets} {slow} --steps 2 --resume"))
        .exits(0);
    let initial = manifest(&lab.at("of-run"), 2)["initial"].clone();
    assert_eq!(initial, manifest(&lab.at("of-run"), 1)["initial"]);
}

#[test]
fn stages_change_the_weights_of_the_loss_at_their_steps() {
    let lab = Lab::new();
    let stages = "--set stage=[{from=2,loss={adv=0,feat=0}},{from=4,loss={adv=100.0}}]";
    lab.train_into("whole", &format!("{stages} --steps 6"))
        .exits(0);
    let has = |run: &str, key: &str| -> Vec<bool> {
        let lines = metrics(&lab.at(run));
        let lines = lines.iter().filter(|line| line.get("lr").is_some());
        lines.map(|line| line[key].is_number()).collect()
    };
    let (yes, no) = (true, false);
    assert_eq!(has("whole", "loss.feat"), [yes, yes, no, no, no, no]);
    assert_eq!(has("whole", "loss.adv"), [yes, yes, no, no, yes, yes]);
    assert_eq!(has("whole", "loss.img"), [yes; 6]);
    let updates = column(&lab.at("whole"), "updates.d");
    assert_eq!(updates[1], updates[3]);
    assert_ne!(updates[3], updates[5]);
    // Every step has trained the generator, also where the gate had paused it.
    lab.train_into("cut", &format!("{stages} --steps 3"))
        .exits(0);
    lab.train_into("cut", &format!("{stages} --steps 6 --resume"))
        .exits(0);
    let (found, expected) = (bits(&lab.at("cut")), bits(&lab.at("whole")));
    assert_eq!(found.0, expected.0);
    assert!(found.1 == expected.1);
    // A run keeps them.
    lab.train_into("cut", "--steps 8 --resume")
        .refuses(&["stage: there [", "here nothing"]);

    // A discriminator that begins late, and one that a stage without it leaves as it is, whatever the gate had decided.
    let late = "--set loss.adv=0 --set stage=[{from=2,loss={adv=100.0}}]";
    lab.train_into("late", &format!("{late} --steps 4"))
        .exits(0);
    assert_eq!(has("late", "loss.adv"), [no, no, yes, yes]);
    let paused = "--set gate.g_off_above=0.001 --set gate.g_on_below=0.0001 --set gate.d_on_above=0.0009 \
                  --set gate.d_off_below=0.0005";
    let without = "--set stage=[{from=2,loss={adv=0}}]";
    lab.train_into("paused", &format!("{paused} {without} --steps 4"))
        .exits(0);
    let updates = column(&lab.at("paused"), "updates.g");
    assert_eq!(updates, [1, 1, 2, 3]);
}

//! `deepsim-train` as a user meets it: what it prints, writes, refuses to choose, and saves when
//! it is interrupted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::fs;
use std::time::Duration;

use deepsim_tests::files::{
    self, assert_unchanged, checkpoint_steps, contents, manifest, metrics, names, steps_logged,
};
use deepsim_tests::lab::{ENDLESS, Lab, TEST, TRAIN};
use deepsim_tests::photos;
use deepsim_tests::process::{program, python, run};
use rustix::process::Signal;
use serde_json::Value;

#[test]
fn a_whole_run_from_prepared_photos() {
    let lab = Lab::new();
    photos::folder(&lab.at("all"), 0, TRAIN + TEST);
    run(&mut lab.command("deepsim-data", "prepare all ready --holdout 0.4")).exits(0);
    let (train, test) = (lab.text("ready/train"), lab.text("ready/test"));
    let sets = format!("--set data.train=\"{train}\" --set data.test=\"{test}\"");

    let done = format!("done: step 6, run {}\n", lab.run_dir().display());
    let ran = lab.train(&sets).exits(0);
    assert_eq!(ran.stdout, done);
    assert!(
        ran.stderr.contains("12 images, batch 4, steps 1 to 6"),
        "{}",
        ran.stderr
    );

    let expected = [
        "checkpoints",
        "experiment.toml",
        "lock",
        "metrics.jsonl",
        "samples",
        "tensorboard",
    ];
    assert_eq!(names(&lab.run_dir()), expected);
    assert_eq!(
        checkpoint_steps(&lab.run_dir()),
        [4, 6],
        "the two newest are kept"
    );
    let newest = files::checkpoint(&lab.run_dir(), 6);
    let manifest = manifest(&lab.run_dir(), 6);
    assert_eq!(manifest["step"], 6);
    for name in [
        "generator.safetensors",
        "discriminator.safetensors",
        "state.safetensors",
    ] {
        let bytes = fs::metadata(newest.join(name)).unwrap().len();
        assert_eq!(manifest["files"][name]["bytes"], bytes);
        assert_eq!(
            manifest["files"][name]["blake3"].as_str().unwrap().len(),
            64
        );
    }
    for key in [
        "encoder_weights",
        "comparator_weights",
        "train_data",
        "test_data",
    ] {
        assert_eq!(manifest[key].as_str().unwrap().len(), 64, "{key}");
    }
    assert_eq!(names(&lab.at("run/tensorboard")).len(), 1);

    // Once done, it stays done: the same word, and not a byte changed but the lock's.
    let before = contents(&lab.run_dir());
    assert_eq!(lab.train(&sets).prints(), done);
    assert_eq!(lab.train(&format!("{sets} --resume")).prints(), done);
    assert_unchanged(&lab.run_dir(), &before);
}

#[test]
fn metrics_images_and_tensors_are_what_others_read() {
    let lab = Lab::trained(4);
    let lines = metrics(&lab.run_dir());
    let (steps, evaluated): (Vec<_>, Vec<_>) =
        lines.iter().partition(|l| l.get("loss.feat").is_some());
    assert_eq!(
        steps
            .iter()
            .map(|l| l["step"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [1, 2, 3, 4]
    );
    for line in &steps {
        for key in [
            "loss.feat",
            "loss.adv",
            "loss.img",
            "loss.discr",
            "loss.discr_real",
            "loss.discr_fake",
            "gate.ratio",
            "updates.g",
            "updates.d",
            "lr",
            "images_per_s",
            "data.quarantined",
        ] {
            assert!(line[key].is_number(), "{key} in {line}");
        }
        for key in ["gate.train_d", "gate.train_g", "gate.stuck", "discr.dead"] {
            assert!(line[key].is_boolean(), "{key} in {line}");
        }
        let (sum, real, fake) = (
            line["loss.discr"].as_f64(),
            line["loss.discr_real"].as_f64(),
            line["loss.discr_fake"].as_f64(),
        );
        // Means of several steps: the sum of means is the mean of sums but for rounding.
        let apart = sum.unwrap() - (real.unwrap() + fake.unwrap());
        assert!(apart.abs() < 1e-12 * sum.unwrap().abs(), "{line}");
    }
    assert_eq!(evaluated.len(), 1, "one evaluation, at the end");
    assert_eq!(evaluated[0]["step"], 4);
    assert_eq!(evaluated[0]["eval.n"], TEST);
    for key in [
        "eval.image_error",
        "eval.feature_error",
        "eval.gradient_energy",
    ] {
        assert!(evaluated[0][key].as_f64().unwrap() > 0.0, "{key}");
    }

    // Eight images above their reconstructions, two white pixels between.
    let sheet = image::open(lab.at("run/samples/step-000000004.png"))
        .unwrap()
        .to_rgb8();
    assert_eq!(sheet.dimensions(), (8 * 64 + 7 * 2, 2 * 64 + 2));
    assert_eq!(sheet.get_pixel(64, 10).0, [255; 3]);
    let first = |x: u32, y: u32| sheet.get_pixel(x, y).0;
    assert_ne!(first(5, 5), first(60, 60), "the first image has a gradient");

    // No code of ours is needed to read the weights.
    let script = "import sys, json\nfrom safetensors.torch import load_file\n\
        print(json.dumps({k: list(v.shape) for f in sys.argv[1:] for k, v in load_file(f).items()}))";
    let at = files::checkpoint(&lab.run_dir(), 4);
    let names =
        ["generator", "discriminator", "state"].map(|n| at.join(format!("{n}.safetensors")));
    let shapes: Value = serde_json::from_str(&run(python(script).args(&names)).prints()).unwrap();
    assert_eq!(shapes["deconv0.weight"][1], 3);
    assert_eq!(shapes["Dconv1.weight"], serde_json::json!([32, 3, 7, 7]));
    assert_eq!(shapes["generator.step"], serde_json::json!([1]));
}

#[test]
fn an_unfinished_run_is_continued_or_replaced_but_never_guessed_at() {
    let lab = Lab::trained(4);
    let before = contents(&lab.run_dir());
    lab.train("--steps 8")
        .refuses(&["step 4", "--resume", "--fresh"]);
    lab.train("--resume --fresh")
        .refuses(&["--resume", "--fresh"]);
    assert_unchanged(&lab.run_dir(), &before);

    let ran = lab
        .train("--steps 8 --resume")
        .says(&["resumed at step 4 of 8"]);
    assert_eq!(
        ran.prints(),
        format!("done: step 8, run {}\n", lab.run_dir().display())
    );
    let steps: Vec<Value> = (1..=8).map(Value::from).collect();
    let logged: Vec<Value> = metrics(&lab.run_dir())
        .into_iter()
        .filter(|l| l.get("lr").is_some())
        .map(|l| l["step"].clone())
        .collect();
    assert_eq!(logged, steps);

    fs::write(lab.at("run/notes.txt"), "mine").unwrap();
    lab.train("--steps 2 --fresh").exits(0);
    assert_eq!(checkpoint_steps(&lab.run_dir()), [2]);
    assert_eq!(steps_logged(&lab.run_dir()), 2);
    assert!(!lab.at("run/samples/step-000000008.png").exists());
    assert_eq!(fs::read_to_string(lab.at("run/notes.txt")).unwrap(), "mine");
}

#[test]
fn resuming_where_nothing_is_saved_starts_at_zero() {
    let lab = Lab::new();
    let ran = lab.train("--resume --steps 1").says(&["steps 1 to 1"]);
    ran.exits(0);
    // Neither does a run that was cut before its first checkpoint bind anyone, not even to its seed.
    fs::remove_dir_all(lab.at("run/checkpoints")).unwrap();
    lab.train("--steps 2 --set train.seed=7")
        .says(&["steps 1 to 2"])
        .exits(0);
    assert_eq!(steps_logged(&lab.run_dir()), 2);
    // Nor one that was killed while it wrote its very first file.
    fs::create_dir(lab.at("early")).unwrap();
    fs::write(lab.at("early/lock"), "1\n").unwrap();
    fs::write(lab.at("early/experiment.partial"), "# Resolved ").unwrap();
    lab.train_into("early", "--resume --steps 1").exits(0);
    assert!(!lab.at("early/experiment.partial").exists());
}

#[test]
fn what_may_not_change_is_named_with_both_values() {
    let lab = Lab::trained(2);
    let before = contents(&lab.run_dir());
    for (set, difference) in [
        ("train.batch_size=3", "train.batch_size: there 4, here 3"),
        ("train.seed=2", "train.seed: there 1, here 2"),
        ("data.crop=72", "data.crop: there 64, here 72"),
        (
            "encoder.tap=relu2",
            "encoder.tap: there \"pool2\", here \"relu2\"",
        ),
        (
            "comparator.weights=random:2",
            "comparator.weights: there \"random:1\", here \"random:2\"",
        ),
    ] {
        let words = [difference, "--out", "--fresh"];
        lab.train(&format!("--resume --steps 4 --set {set}"))
            .refuses(&words);
    }
    assert_unchanged(&lab.run_dir(), &before);
}

#[test]
fn overrides_are_recorded_and_runs_is_the_default_place() {
    let lab = Lab::new();
    let tiny = "tiny.toml --steps 2 --set loss.img=3e-6";
    let trained = run(&mut lab.command("deepsim-train", tiny));
    assert_eq!(trained.prints(), "done: step 2, run runs/tiny\n");
    let resolved = fs::read_to_string(lab.at("runs/tiny/experiment.toml")).unwrap();
    for words in [
        "# with --set loss.img=3e-6",
        "# with --set train.steps=2",
        "\nimg = 3e-6\n",
        "\nsteps = 2\n",
        "\nseed = 1\n",
    ] {
        let said =
            resolved.contains(words) || resolved.contains(&words.replace("3e-6", "0.000003"));
        assert!(said, "no {words:?} in\n{resolved}");
    }
    // The record is an experiment itself.
    let again = "runs/tiny/experiment.toml --out again";
    run(&mut lab.command("deepsim-train", again)).exits(0);
    assert_eq!(
        files::tensors(&lab.at("again"), 2),
        files::tensors(&lab.at("runs/tiny"), 2)
    );
}

/// A second wish, and no repetition of the first.
const LATER: Duration = Duration::from_millis(150);

/// The first waits for the iteration and the checkpoint behind it, which take far longer than it takes to
/// send the second.
#[test]
fn a_second_signal_ends_it_at_once_and_costs_what_was_not_saved() {
    for (first, second, code) in [
        (Signal::INT, Signal::INT, 130),
        (Signal::TERM, Signal::TERM, 143),
        (Signal::INT, Signal::TERM, 143),
    ] {
        let lab = Lab::new();
        let slow = "--set generator.width=1.0 --set train.batch_size=12";
        lab.train(&format!("--steps 2 {slow}")).exits(0);
        let mut at_work = lab.start(&format!("{ENDLESS} {slow}"));
        // Steps of its own: it listens.
        at_work.until(|| steps_logged(&lab.run_dir()) > 2);
        at_work.tell(first);
        std::thread::sleep(LATER);
        let ran = at_work.signal(second).exits(code);
        assert!(!ran.stderr.contains("saved step"), "{}", ran.stderr);
        assert_eq!(checkpoint_steps(&lab.run_dir()), [2]);
        lab.train(&format!("--steps 3 --resume {slow}")).exits(0);
        assert_eq!(checkpoint_steps(&lab.run_dir()), [2, 3]);
    }
}

#[test]
fn signals_save_and_one_directory_has_one_writer() {
    let lab = Lab::new();
    let mut first = lab.start(ENDLESS);
    first.until(|| steps_logged(&lab.run_dir()) >= 2);

    let holder = format!("in use by process {}", first.pid());
    lab.train(ENDLESS).refuses(&[&holder]);
    lab.train("--fresh").refuses(&[&holder]);
    assert!(first.lives());

    let ran = first
        .signal(Signal::TERM)
        .exits(143)
        .says(&["saved step", "--resume"]);
    assert_eq!(ran.stdout, "");
    let saved = *checkpoint_steps(&lab.run_dir()).last().unwrap();
    assert_eq!(
        steps_logged(&lab.run_dir()),
        saved,
        "every step that was done is saved"
    );

    let mut second = lab.start(ENDLESS);
    second.until(|| steps_logged(&lab.run_dir()) > saved);
    second
        .signal(Signal::INT)
        .exits(130)
        .says(&["saved step", "--resume"]);
    let later = *checkpoint_steps(&lab.run_dir()).last().unwrap();
    assert!(later > saved);

    // What batch systems send before time is up.
    let mut third = lab.start(ENDLESS);
    third.until(|| steps_logged(&lab.run_dir()) > later);
    third
        .signal(Signal::USR1)
        .exits(138)
        .says(&["saved step", "--resume"]);
    let later = *checkpoint_steps(&lab.run_dir()).last().unwrap();

    let total = later + 1;
    let done = lab.train(&format!("--steps {total} --resume")).prints();
    assert_eq!(
        done,
        format!("done: step {total}, run {}\n", lab.run_dir().display())
    );
}

#[test]
fn help_teaches_by_example() {
    for (name, words) in [
        ("deepsim-train", ["--resume", "Exit codes: 0 done"]),
        ("deepsim-eval", ["table2", "Exit codes: 0 done"]),
    ] {
        let help = run(program(name).arg("--help")).prints();
        for word in words
            .into_iter()
            .chain([&*format!("cargo run -p {name} -- ")])
        {
            assert!(help.contains(word), "no `{word}` in\n{help}");
        }
    }
}

/// What a program prints for `--help` on a terminal of so many columns.
fn help(name: &str, commands: &[String], columns: usize) -> String {
    let mut asked = program(name);
    asked
        .args(commands)
        .arg("--help")
        .env("COLUMNS", columns.to_string());
    run(&mut asked).exits(0).stdout
}

/// The commands that a help text lists.
fn listed(help: &str) -> Vec<String> {
    let section = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    section
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            line.strip_prefix("  ")
                .filter(|rest| !rest.starts_with(' '))
        })
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn help_has_examples_that_80_columns_do_not_break() {
    for name in [
        "deepsim-data",
        "deepsim-weights",
        "deepsim-train",
        "deepsim-eval",
    ] {
        let mut open = vec![Vec::<String>::new()];
        while let Some(commands) = open.pop() {
            let at = format!("{name} {}", commands.join(" "));
            let narrow = help(name, &commands, 80);
            let below = listed(&narrow);
            let examples = |help: &str| {
                let start = help.lines().position(|line| line.starts_with("Example"));
                start.map(|start| help.lines().skip(start).collect::<Vec<_>>().join("\n"))
            };
            let text = examples(&narrow);
            // What only lists commands leaves the examples to them.
            assert!(
                text.is_some() || (!below.is_empty() && !commands.is_empty()),
                "{at}: no example"
            );
            for line in text.iter().flat_map(|text| text.lines()) {
                assert!(line.chars().count() <= 80, "{at}: {line}");
            }
            // Wrapped text is another on a wider terminal.
            assert_eq!(text, examples(&help(name, &commands, 100)), "{at}");
            open.extend(below.into_iter().map(|command| {
                let mut longer = commands.clone();
                longer.push(command);
                longer
            }));
        }
    }
}

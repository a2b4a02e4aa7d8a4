//! A run directory that is there: what is gone on with, begun again, refused, and never removed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::fs;
use std::os::unix::fs::symlink;

use deepsim_experiment::Checkpoint;
use deepsim_tests::files::{
    self, assert_unchanged, checkpoint, checkpoint_steps, column, contents, copy, manifest, names,
    steps_logged,
};
use deepsim_tests::lab::Lab;
use serde_json::Value;

/// Both ways to go on without `--fresh`.
const GOING_ON: [&str; 2] = ["", "--resume"];

#[test]
fn a_run_without_its_checkpoints_is_not_begun_again() {
    for away in ["renamed", "emptied"] {
        let lab = Lab::trained(4);
        let checkpoints = lab.run_dir().join("checkpoints");
        fs::rename(&checkpoints, lab.run_dir().join("kept-elsewhere")).unwrap();
        if away == "emptied" {
            fs::create_dir(&checkpoints).unwrap();
        }
        let before = contents(&lab.run_dir());
        for flag in GOING_ON {
            lab.train(&format!("--steps 6 {flag}")).refuses(&[
                "checkpoints are missing",
                "step 4",
                &lab.text("run"),
                "--fresh",
            ]);
            assert_unchanged(&lab.run_dir(), &before);
        }
        lab.train("--steps 2 --fresh").exits(0);
        assert_eq!(checkpoint_steps(&lab.run_dir()), [2]);
        let kept = lab.run_dir().join("kept-elsewhere/step-000000004");
        Checkpoint::open(&kept).unwrap();
    }
}

#[test]
fn a_link_to_another_disk_is_followed_and_kept() {
    let lab = Lab::new();
    fs::create_dir_all(lab.at("disk/ckpt")).unwrap();
    fs::write(lab.at("disk/ckpt/mine"), "irreplaceable").unwrap();
    fs::create_dir(lab.run_dir()).unwrap();
    let link = lab.run_dir().join("checkpoints");
    symlink(lab.at("disk/ckpt"), &link).unwrap();
    fs::write(lab.run_dir().join("lock"), "").unwrap();
    fs::copy(lab.experiment(), lab.run_dir().join("experiment.toml")).unwrap();
    fs::remove_file(lab.at("disk/ckpt/mine")).unwrap();
    lab.train("--steps 2 --resume").exits(0);
    lab.train("--steps 4 --resume")
        .says(&["resumed at step 2"])
        .exits(0);
    assert_eq!(checkpoint_steps(&lab.run_dir()), [2, 4]);
    assert!(lab.at("disk/ckpt/step-000000004").is_dir());

    // The disk is away: nothing is begun on another one.
    fs::rename(lab.at("disk"), lab.at("unplugged")).unwrap();
    let before = contents(&lab.run_dir());
    for flag in GOING_ON {
        lab.train(&format!("--steps 6 {flag}")).refuses(&[
            "checkpoints are missing",
            "is a link to",
            "disk/ckpt",
            "--fresh",
        ]);
        assert_unchanged(&lab.run_dir(), &before);
    }
    fs::rename(lab.at("unplugged"), lab.at("disk")).unwrap();

    fs::write(lab.at("disk/ckpt/mine"), "irreplaceable").unwrap();
    lab.train("--steps 2 --fresh")
        .says(&["left as it is", "checkpoints/mine"])
        .exits(0);
    assert!(link.is_symlink());
    assert_eq!(checkpoint_steps(&lab.run_dir()), [2]);
    assert!(lab.at("disk/ckpt/step-000000002").is_dir());
    assert_eq!(
        fs::read_to_string(lab.at("disk/ckpt/mine")).unwrap(),
        "irreplaceable"
    );

    // Even where it leads nowhere: --fresh makes the place that it names.
    fs::remove_dir_all(lab.at("disk")).unwrap();
    lab.train("--steps 2 --fresh").exits(0);
    assert!(link.is_symlink());
    assert!(lab.at("disk/ckpt/step-000000002").is_dir());
}

/// What quickstart, torchrun and batch systems rely on when they always pass `--resume`.
#[test]
fn what_is_written_before_the_first_due_checkpoint_is_begun_again_and_nothing_else_goes() {
    for flag in GOING_ON {
        let lab = Lab::new();
        lab.train("--steps 1").exits(0);
        let dir = lab.run_dir();
        fs::remove_dir_all(dir.join("checkpoints")).unwrap();
        fs::create_dir(dir.join("checkpoints")).unwrap();
        let half = dir.join("checkpoints/.partial-step-000000002-abcdef");
        fs::create_dir(&half).unwrap();
        fs::write(half.join("generator.safetensors"), "half").unwrap();
        fs::write(dir.join("experiment.partial"), "# Resolved ").unwrap();
        fs::write(dir.join("notes.txt"), "mine").unwrap();
        fs::write(dir.join("samples/mine.png"), "mine").unwrap();
        let events = names(&dir.join("tensorboard")).len();
        let again =
            "no checkpoint of the steps in its log (up to 1): training begins again at step 1";
        lab.train(&format!("--steps 2 {flag}"))
            .says(&[again, "steps 1 to 2"])
            .exits(0);
        assert_eq!(steps_logged(&dir), 2);
        assert_eq!(checkpoint_steps(&dir), [2]);
        assert!(!half.exists());
        for mine in ["notes.txt", "samples/mine.png"] {
            assert_eq!(fs::read_to_string(dir.join(mine)).unwrap(), "mine");
        }
        assert!(dir.join("samples/step-000000001.png").exists());
        assert_eq!(names(&dir.join("tensorboard")).len(), events + 1);
    }
}

#[test]
fn a_run_without_its_experiment_file_is_neither_gone_on_with_nor_evaluated() {
    let lab = Lab::trained(2);
    fs::remove_file(lab.run_dir().join("experiment.toml")).unwrap();
    let before = contents(&lab.run_dir());
    let other = "--steps 4 --set train.seed=9 --set loss.img=1";
    for flag in GOING_ON {
        lab.train(&format!("{other} {flag}")).refuses(&[
            "experiment.toml is missing",
            &lab.text("run"),
            "--fresh",
        ]);
        assert_unchanged(&lab.run_dir(), &before);
    }
    lab.eval("compare run --out sheet.png")
        .exits(2)
        .says(&["experiment.toml is missing"]);
    lab.train(&format!("{other} --fresh")).exits(0);
}

/// Each value that a resume may not change is in the checkpoint, with its type.
#[test]
fn an_experiment_file_that_was_edited_is_refused_by_its_key() {
    let lab = Lab::trained(2);
    let manifest = manifest(&lab.run_dir(), 2);
    let values = &manifest["experiment"]["values"];
    for (key, value) in [
        ("train.seed", Value::from(1)),
        ("encoder.tap", "pool2".into()),
        ("data.mirror", true.into()),
        ("loss.adv", 100.0.into()),
        ("schedule.halve_at", vec![5].into()),
        ("train.discriminator_passes", "paper".into()),
    ] {
        assert_eq!(values[key], value, "{key}");
    }
    assert_eq!(manifest["experiment"]["digest"].as_str().unwrap().len(), 64);

    let file = lab.run_dir().join("experiment.toml");
    let text = fs::read_to_string(&file).unwrap();
    for (from, to, difference) in [
        ("seed = 1\n", "seed = 7\n", "train.seed: there 1, here 7"),
        (
            "mirror = true",
            "mirror = false",
            "data.mirror: there true, here false",
        ),
        (
            "adv = 100.0",
            "adv = 50.0",
            "loss.adv: there 100.0, here 50.0",
        ),
        (
            "halve_at = [5]",
            "halve_at = [5, 6]",
            "schedule.halve_at: there [5], here [5, 6]",
        ),
        (
            "\"pool2\"",
            "\"pool1\"",
            "encoder.tap: there \"pool2\", here \"pool1\"",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(&file, text.replace(from, to)).unwrap();
        let words = ["run/experiment.toml", "was trained with", difference];
        // Also where the experiment on the command line was edited alike.
        lab.train("--resume --steps 4").refuses(&words);
        let own = fs::read_to_string(lab.experiment()).unwrap();
        fs::write(lab.experiment(), own.replace(from, to)).unwrap();
        lab.train("--resume --steps 4").refuses(&words);
        fs::write(lab.experiment(), own).unwrap();
        for command in [
            "compare run --out sheet.png",
            "neighbors --runs run",
            "invert test/12.jpg --run run --out inverted",
        ] {
            lab.eval(command).exits(2).says(&[difference]);
        }
        lab.eval("table2 --runs run")
            .says(&["left out", difference]);
    }
    // What may change may be edited.
    fs::write(&file, text.replace("log_every = 1", "log_every = 2")).unwrap();
    lab.train("--resume --steps 4").exits(0);
}

#[test]
fn a_foreign_directory_is_refused_whatever_it_is_called() {
    let lab = Lab::new();
    let folder = lab.at("project");
    let make = |files: &[(&str, &str)]| {
        let _ = fs::remove_dir_all(&folder);
        for (name, text) in files {
            let file = folder.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
    };
    let toml = lab.toml();
    for files in [
        // Another program's lock, with and without things that look like a run's.
        [("lock", "held by apt"), ("data.csv", "1,2")].as_slice(),
        &[("lock", "4711\n"), ("thesis.tex", "\\section")],
        &[("lock", ""), ("checkpoints/last.ckpt", "weights")],
        &[("lock", "12"), ("samples/voice.wav", "RIFF")],
        &[("lock", "12"), ("metrics.jsonl", "{\"loss\": 1}\n")],
        &[
            ("lock", ""),
            ("experiment.toml", &toml),
            ("samples/mine", "x"),
        ],
        &[
            ("experiment.toml", &toml),
            ("checkpoints/step-000000001/mine", "x"),
        ],
        &[("metrics.jsonl", "{\"step\": 1}\n")],
    ] {
        make(files);
        let before = contents(&folder);
        for flag in ["", "--resume", "--fresh"] {
            lab.train_into("project", flag)
                .refuses(&["project is not empty", "--out"]);
        }
        assert_eq!(contents(&folder), before, "{files:?}");
    }
    // A lock alone, ours or empty, is what a killed run leaves.
    for lock in ["", "4711\n"] {
        make(&[("lock", lock)]);
        lab.train_into("project", "--resume --steps 1").exits(0);
    }
}

#[test]
fn fresh_clears_what_is_ours_by_name_and_content() {
    let lab = Lab::trained(4);
    let dir = lab.run_dir();
    let theirs = [
        "checkpoints/best.ckpt",
        "checkpoints/step-000000003/weights.bin",
        "checkpoints/.partial-download",
        "samples/favourite.png",
        "samples/step-000000004.xcf",
        "tensorboard/events.out.tfevents.1700000000.host.1.0",
        "notes.txt",
    ];
    for name in theirs {
        let file = dir.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, name).unwrap();
    }
    // A checkpoint with something of the user's in it stays as a whole.
    fs::write(checkpoint(&dir, 2).join("why-this-one.txt"), "mine").unwrap();
    let second = contents(&checkpoint(&dir, 2));
    let ran = lab.train("--steps 1 --fresh").exits(0);
    let ran = ran.says(&["left as it is", "step-000000002"]);
    // A folder is named as a whole.
    let told = theirs.map(|name| name.trim_end_matches("/weights.bin"));
    let ran = ran.says(&told);
    for name in theirs {
        assert_eq!(
            fs::read_to_string(dir.join(name)).unwrap(),
            name,
            "{}",
            ran.stderr
        );
    }
    // Out of the new run's way.
    let kept = contents(&dir.join("checkpoints/kept-step-000000002"));
    assert!(kept.values().eq(second.values()));
    assert!(!checkpoint(&dir, 2).exists());
    assert!(!checkpoint(&dir, 4).exists());
    assert!(!dir.join("samples/step-000000004.png").exists());
    assert_eq!(steps_logged(&dir), 1);
}

/// Names and links that lead nowhere once made every command look for ever.
#[test]
fn what_only_looks_like_a_checkpoint_is_named_and_passed_over() {
    let lab = Lab::trained(4);
    let folder = lab.run_dir().join("checkpoints");
    let strange = [
        "step-1",
        "step-000000001x",
        "step-0000000007",
        "step-000000008",
        "step-000000009",
        "step-000000010",
        "step-000000011",
    ];
    fs::create_dir(folder.join(strange[0])).unwrap();
    fs::write(folder.join(strange[1]), "a file").unwrap();
    symlink("nowhere", folder.join(strange[2])).unwrap();
    symlink("nowhere", folder.join(strange[3])).unwrap();
    symlink("nowhere/either", folder.join(strange[4])).unwrap();
    fs::create_dir(folder.join(strange[5])).unwrap();
    fs::write(folder.join(strange[6]), "a file").unwrap();
    for ran in [
        lab.train("--steps 6 --resume"),
        lab.train("--steps 6"),
        lab.eval("table2 --runs run"),
        lab.eval("compare run --out sheet.png"),
    ] {
        assert!(matches!(ran.code, Some(0 | 2)), "{:?}", ran.code);
        for name in strange {
            assert!(ran.stderr.contains(name), "no {name} in {}", ran.stderr);
        }
    }
    assert!(files::checkpoint_steps(&lab.run_dir()).contains(&4));
    // They are in nobody's way: what stands in a checkpoint's place is kept beside it.
    lab.train("--steps 8 --resume")
        .says(&["kept as", "kept-step-000000008"])
        .exits(0);
    Checkpoint::open(&checkpoint(&lab.run_dir(), 8)).unwrap();
    for name in strange {
        let kept = folder.join(format!("kept-{name}"));
        let there = [folder.join(name), kept]
            .iter()
            .any(|p| fs::symlink_metadata(p).is_ok());
        assert!(there, "{name} is gone");
    }
    // None but these, and a log that says that there were others.
    for step in checkpoint_steps(&lab.run_dir()) {
        let path = checkpoint(&lab.run_dir(), step);
        if path.join("manifest.json").exists() {
            fs::remove_dir_all(path).unwrap();
        }
    }
    lab.train("--steps 9 --resume").refuses(&[
        "checkpoints are missing",
        "step-000000009 (is a link that leads nowhere)",
    ]);
}

/// The hidden one was being replaced, or replaces, when the process was killed; the visible one went bad afterwards.
#[test]
fn a_whole_hidden_checkpoint_outlives_a_damaged_visible_one() {
    let lab = Lab::trained(4);
    let dir = lab.run_dir();
    let folder = dir.join("checkpoints");
    fs::remove_dir_all(checkpoint(&dir, 2)).unwrap();
    let hidden = folder.join(".partial-step-000000004-abcdef.replaced");
    copy(&checkpoint(&dir, 4), &hidden);
    files::flip_a_byte(&checkpoint(&dir, 4).join("generator.safetensors"));
    lab.train("--steps 5 --resume")
        .says(&["damaged", "kept-step-000000004", "resumed at step 4"])
        .exits(0);
    Checkpoint::open(&checkpoint(&dir, 4)).unwrap();
    assert!(folder.join("kept-step-000000004/manifest.json").exists());
}

#[test]
fn a_baseline_that_is_made_anew_removes_its_own_four_files_alone() {
    let lab = Lab::new();
    let mv = "baseline mv tiny.toml --images 2 --batch 2 --out mv";
    lab.eval(mv).exits(0);
    fs::write(lab.at("mv/notes.txt"), "mine").unwrap();
    fs::create_dir(lab.at("mv/figures")).unwrap();
    fs::write(lab.at("mv/figures/one.png"), "mine").unwrap();
    let before = fs::read(lab.at("mv/mv.json")).unwrap();
    lab.eval(&format!("{mv} --fresh --seed 3")).exits(0);
    assert_ne!(fs::read(lab.at("mv/mv.json")).unwrap(), before);
    for mine in ["mv/notes.txt", "mv/figures/one.png"] {
        assert_eq!(fs::read_to_string(lab.at(mine)).unwrap(), "mine");
    }
    assert_eq!(names(&lab.at("mv")).len(), 6);
    lab.eval("table2 --runs mv").exits(0);
    // A file of that name is not yet a record.
    fs::create_dir(lab.at("other")).unwrap();
    fs::write(lab.at("other/mv.json"), "{\"a\": 1}").unwrap();
    lab.eval("baseline mv tiny.toml --images 2 --out other --fresh")
        .refuses(&["other is there already"]);
    assert_eq!(
        fs::read_to_string(lab.at("other/mv.json")).unwrap(),
        "{\"a\": 1}"
    );
}

/// Killed while the first due checkpoint is written: the log knows of no step that no checkpoint has.
#[test]
fn a_run_killed_at_its_first_due_checkpoint_is_begun_again() {
    for at in ["file-written@2", "staged@2"] {
        let lab = Lab::new();
        let every = "--steps 4 --set train.checkpoint_every=2 --set train.log_every=1";
        lab.crash("run", every, at);
        lab.train(&format!("{every} --resume")).exits(0);
        assert_eq!(column(&lab.run_dir(), "loss.feat").len(), 4);
    }
}

/// What is not ours in a checkpoint keeps it from being removed, not from being the new run's past.
#[test]
fn after_fresh_no_earlier_checkpoint_is_gone_on_from() {
    let lab = Lab::trained(2);
    fs::write(checkpoint(&lab.run_dir(), 2).join(".DS_Store"), "mine").unwrap();
    lab.train("--steps 1 --fresh").exits(0);
    assert_eq!(checkpoint_steps(&lab.run_dir()), [1]);
    let kept = lab
        .run_dir()
        .join("checkpoints/kept-step-000000002/.DS_Store");
    assert_eq!(fs::read_to_string(kept).unwrap(), "mine");
}

#[test]
fn a_damaged_line_of_the_log_costs_no_other() {
    let lab = Lab::trained(4);
    let log = lab.run_dir().join("metrics.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let damaged = text.replace(lines[0], "{\"st");
    fs::write(&log, damaged).unwrap();
    lab.train("--steps 5 --resume")
        .says(&["1 of its lines cannot be read"])
        .exits(0);
    let after = fs::read_to_string(&log).unwrap();
    assert!(
        lines[1..].iter().all(|line| after.contains(line)),
        "{after}"
    );
}

#[test]
fn a_checkpoint_under_another_name_is_no_empty_place() {
    let lab = Lab::trained(2);
    fs::remove_file(lab.run_dir().join("metrics.jsonl")).unwrap();
    fs::rename(
        checkpoint(&lab.run_dir(), 2),
        lab.run_dir().join("checkpoints/best"),
    )
    .unwrap();
    let before = contents(&lab.run_dir());
    for flag in GOING_ON {
        lab.train(flag)
            .refuses(&["checkpoints are missing", "best"]);
        assert_unchanged(&lab.run_dir(), &before);
    }
}

/// Named even though nothing can be drawn from it.
#[test]
fn what_is_left_of_a_run_is_not_passed_over_in_silence() {
    let lab = Lab::trained(2);
    fs::remove_file(lab.run_dir().join("experiment.toml")).unwrap();
    lab.eval("table2 --runs run")
        .says(&["experiment.toml"])
        .exits(1);
}

//! Links, pipes, devices and other people's files where a run's own go: nothing is written through them, nothing waits
//! for them, and they are named before anything is removed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use deepsim_experiment::Checkpoint;
use deepsim_tests::files::{
    self, checkpoint, checkpoint_steps, contents, copy, names, pipe, steps_logged,
};
use deepsim_tests::lab::{ENDLESS, Lab};
use deepsim_tests::process::{Running, run, run_by};
use rustix::process::Signal;

const GOING_ON: [&str; 2] = ["--resume", "--fresh"];

#[test]
fn nothing_is_written_through_a_link() {
    for name in ["lock", "metrics.jsonl", "samples", "tensorboard"] {
        let lab = Lab::trained(2);
        let mine = lab.at("mine");
        fs::write(&mine, "{\"step\":1}\n{\"step\":9}\n").unwrap();
        let place = lab.run_dir().join(name);
        if place.is_dir() {
            fs::remove_dir_all(&place).unwrap();
        } else {
            fs::remove_file(&place).unwrap();
        }
        symlink(&mine, &place).unwrap();
        let before = fs::read(&mine).unwrap();
        lab.train("--resume --steps 4")
            .refuses(&[&lab.text(&format!("run/{name}")), "move it away"]);
        assert_eq!(checkpoint_steps(&lab.run_dir()), [2]);
        let ran = lab.train("--fresh --steps 1");
        match name {
            // It must be held before anything else.
            "lock" => drop(ran.refuses(&["run/lock is not the lock of this program"])),
            _ => {
                ran.exits(0);
                let kept = lab.run_dir().join(format!("kept-{name}"));
                assert_eq!(fs::read_link(kept).unwrap(), mine);
                assert_eq!(steps_logged(&lab.run_dir()), 1);
            }
        }
        assert_eq!(fs::read(&mine).unwrap(), before, "{name}");
    }
}

#[test]
fn a_pipe_or_a_device_is_refused_at_once() {
    let lab = Lab::trained(2);
    let replaced = [
        "run/lock",
        "run/metrics.jsonl",
        "run/checkpoints/step-000000002/manifest.json",
        "run/checkpoints/step-000000002/generator.safetensors",
    ];
    for name in replaced {
        let place = lab.at(name);
        let bytes = fs::read(&place).unwrap();
        for device in [false, true] {
            fs::remove_file(&place).unwrap();
            if device {
                symlink("/dev/zero", &place).unwrap();
            } else {
                pipe(&place);
            }
            lab.start("--resume --steps 4").ends_soon(name).exits(2);
            fs::remove_file(&place).unwrap();
            fs::write(&place, &bytes).unwrap();
        }
    }
    lab.train("--resume --steps 3").exits(0);
}

#[test]
fn fresh_puts_aside_what_is_in_the_way_and_leaves_foreign_files_of_known_names() {
    let lab = Lab::trained(2);
    let dir = lab.run_dir();
    fs::remove_dir_all(dir.join("tensorboard")).unwrap();
    fs::write(dir.join("tensorboard"), "mine").unwrap();
    fs::write(dir.join("metrics.jsonl"), "no log at all\n").unwrap();
    fs::write(dir.join("samples/step-000000099.png"), "not a PNG").unwrap();
    fs::write(dir.join("experiment.partial"), "my own").unwrap();
    lab.train("--fresh --steps 1").exits(0);
    for (name, text) in [
        ("kept-tensorboard", "mine"),
        ("kept-metrics.jsonl", "no log at all\n"),
        ("samples/step-000000099.png", "not a PNG"),
        ("experiment.partial", "my own"),
    ] {
        assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), text, "{name}");
    }
    assert_eq!(checkpoint_steps(&dir), [1]);
    assert_eq!(steps_logged(&dir), 1);
}

#[test]
fn a_run_directory_that_is_a_link_to_nothing_is_named() {
    let lab = Lab::new();
    symlink(lab.at("nowhere"), lab.at("run")).unwrap();
    for flag in GOING_ON {
        lab.train(flag)
            .refuses(&["run is a link to what is not there", "--out"]);
    }
}

/// The process was killed before it could give it its name.
#[test]
fn a_whole_hidden_checkpoint_that_is_newer_than_all_others_is_gone_on_from() {
    let lab = Lab::trained(4);
    let folder = lab.run_dir().join("checkpoints");
    fs::rename(
        checkpoint(&lab.run_dir(), 4),
        folder.join(".partial-step-000000004-abcdef"),
    )
    .unwrap();
    // An older one that was being removed is no use.
    let removed = folder.join(".partial-step-000000001-removed");
    copy(&checkpoint(&lab.run_dir(), 2), &removed);
    lab.train("--resume --steps 5")
        .says(&["resumed at step 4"])
        .exits(0);
    Checkpoint::open(&checkpoint(&lab.run_dir(), 4)).unwrap();
    assert!(!removed.exists());
}

#[test]
fn a_run_goes_on_when_its_data_lie_elsewhere_and_its_name_is_another() {
    let lab = Lab::trained(2);
    fs::rename(lab.at("train"), lab.at("moved")).unwrap();
    let toml = fs::read_to_string(lab.experiment()).unwrap();
    let moved = toml
        .replace(&lab.text("train"), &lab.text("./moved"))
        .replace("name = \"tiny\"", "name = \"other\"");
    fs::write(lab.experiment(), moved).unwrap();
    lab.train("--resume --steps 3")
        .says(&["resumed at step 2"])
        .exits(0);
    // Other images are other images, wherever they lie.
    let moved = lab.at("moved");
    fs::remove_file(moved.join(&names(&moved)[0])).unwrap();
    lab.train("--resume --steps 4")
        .refuses(&["data.train", "changed"]);
}

#[test]
fn an_experiment_file_beside_runs_hides_none_of_them() {
    let lab = Lab::trained(2);
    fs::create_dir(lab.at("runs")).unwrap();
    fs::rename(lab.run_dir(), lab.at("runs/a")).unwrap();
    fs::copy(lab.experiment(), lab.at("runs/experiment.toml")).unwrap();
    let table = lab.eval("table2 --runs runs");
    let table = table.says(&["runs left out"]).prints();
    assert!(table.lines().any(|line| line.starts_with("a  ")), "{table}");
}

#[test]
fn checkpoints_that_cannot_be_read_are_told_once_with_what_helps() {
    let lab = Lab::trained(4);
    for step in [2, 4] {
        files::flip_a_byte(&checkpoint(&lab.run_dir(), step).join("generator.safetensors"));
    }
    let ran = lab.train("--resume --steps 5");
    let ran = ran.refuses(&["none of its checkpoints is whole", "put back a copy"]);
    for step in ["step-000000002:", "step-000000004:"] {
        assert_eq!(ran.stderr.matches(step).count(), 1, "{}", ran.stderr);
    }

    let away = Lab::trained(2);
    fs::rename(away.run_dir().join("checkpoints"), away.at("disk")).unwrap();
    symlink(away.at("unplugged"), away.run_dir().join("checkpoints")).unwrap();
    away.eval("compare run --out sheet.png")
        .refuses(&["checkpoints is a link to", "unplugged"]);
}

#[test]
fn a_first_step_that_is_not_finite_promises_no_checkpoint() {
    let lab = Lab::new();
    let rates = "--set optimizer.generator.lr=1e38 --set optimizer.discriminator.lr=1e38";
    lab.train(rates).exits(1).says(&[
        "step 1:",
        "there is no checkpoint yet",
        "train.not_finite=halve",
        "[loss]",
        "deepsim-data inspect",
    ]);
}

/// A copy of a run has the same link: each would remove what the other has saved.
#[test]
fn checkpoints_behind_a_link_belong_to_one_run() {
    let lab = Lab::trained(2);
    let dir = lab.run_dir();
    fs::rename(dir.join("checkpoints"), lab.at("disk")).unwrap();
    symlink("../disk", dir.join("checkpoints")).unwrap();
    lab.train("--resume --steps 3").exits(0);
    fs::create_dir(lab.at("copy")).unwrap();
    symlink("../disk", lab.at("copy/checkpoints")).unwrap();
    for name in ["experiment.toml", "lock", "metrics.jsonl"] {
        fs::copy(dir.join(name), lab.at("copy").join(name)).unwrap();
    }
    let before = contents(&lab.at("disk"));
    for flag in GOING_ON {
        lab.train_into("copy", &format!("{flag} --steps 4"))
            .refuses(&[
                "copy/checkpoints leads to the checkpoints of",
                "a folder of its own",
            ]);
    }
    assert_eq!(contents(&lab.at("disk")), before);
    // A run that was moved is the same run.
    fs::rename(&dir, lab.at("elsewhere")).unwrap();
    lab.train_into("elsewhere", "--resume --steps 4")
        .says(&["resumed at step 3"])
        .exits(0);
}

/// What a link leads to may be of other runs as well.
#[test]
fn fresh_removes_no_events_or_sheets_behind_a_link() {
    let lab = Lab::trained(2);
    for name in ["tensorboard", "samples"] {
        fs::rename(lab.run_dir().join(name), lab.at(name)).unwrap();
        symlink(lab.at(name), lab.run_dir().join(name)).unwrap();
    }
    let before = ["tensorboard", "samples"].map(|name| contents(&lab.at(name)));
    lab.train("--fresh --steps 1").exits(0);
    for (name, before) in ["tensorboard", "samples"].into_iter().zip(before) {
        let after = contents(&lab.at(name));
        assert!(before.keys().all(|file| after.contains_key(file)), "{name}");
    }
}

#[test]
fn a_pipe_as_a_run_s_experiment_stops_nobody() {
    let lab = Lab::trained(2);
    let file = lab.run_dir().join("experiment.toml");
    fs::remove_file(&file).unwrap();
    pipe(&file);
    lab.train("--resume --steps 3")
        .refuses(&["experiment.toml", "pipe"]);
    lab.eval("table2 --runs run")
        .exits(1)
        .says(&["left out", "pipe"]);
}

#[test]
fn a_run_that_is_moved_while_it_trains_is_saved_where_it_is() {
    let lab = Lab::new();
    let mut at_work = lab.start(ENDLESS);
    at_work.until(|| steps_logged(&lab.run_dir()) > 1);
    fs::rename(lab.run_dir(), lab.at("moved")).unwrap();
    let ran = at_work.signal(Signal::TERM).exits(1);
    let ran = ran.says(&["run was moved to", "moved while it trained", "--resume"]);
    let step = *checkpoint_steps(&lab.at("moved")).last().unwrap();
    assert!(
        ran.stderr.contains(&format!("step {step} is saved there")),
        "{}",
        ran.stderr
    );
    assert!(!lab.run_dir().exists());
    let on = step + 1;
    lab.train_into("moved", &format!("--resume --steps {on}"))
        .exits(0);
}

/// Batch systems set such limits.
#[test]
fn a_limit_of_the_size_of_files_fails_the_save_and_not_the_process() {
    let lab = Lab::new();
    let train = lab.train_command("run", "--set train.sample_every=0");
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 200; exec \"$0\" \"$@\""]);
    let mut shell = run_by(shell, &train);
    run(&mut shell)
        .exits(1)
        .says(&["could not be saved", "File too large", "--resume"]);
}

#[test]
fn a_copy_by_hard_links_keeps_its_log() {
    let lab = Lab::trained(2);
    let log = lab.run_dir().join("metrics.jsonl");
    let copy = lab.at("backup.jsonl");
    fs::hard_link(&log, &copy).unwrap();
    let before = fs::read(&copy).unwrap();
    lab.train("--resume --steps 3").exits(0);
    assert_eq!(fs::read(&copy).unwrap(), before);
    assert_ne!(fs::read(&log).unwrap(), before);
}

/// The kernel keeps signals from the first process of a container that does not listen.
#[test]
fn an_evaluation_that_is_the_first_process_ends_on_a_signal() {
    let lab = Lab::trained(2);
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child"]);
    let reencode = "reencode --runs run --iterations 1000000 --out o";
    let mut evaluation = run_by(unshare, &lab.command("deepsim-eval", reencode));
    let mut at_work = Running::start(&mut evaluation);
    let child = |parent: u32| {
        let file = format!("/proc/{parent}/task/{parent}/children");
        fs::read_to_string(file)
            .unwrap_or_default()
            .trim()
            .parse::<i32>()
            .ok()
    };
    let parent = at_work.pid();
    let mut first = None;
    at_work.until(|| {
        first = child(parent);
        first.is_some()
    });
    std::thread::sleep(Duration::from_secs(2));
    if !at_work.lives() {
        println!("this user may not make a process namespace: nothing was tried");
        return;
    }
    let pid = rustix::process::Pid::from_raw(first.unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    at_work.ends().exits(143);
}

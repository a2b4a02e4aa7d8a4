//! Several processes that evaluate together: the output of one process, and what happens when one of them is wrong or gone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use deepsim_tests::lab::Lab;
use deepsim_tests::photos;
use deepsim_tests::process::{Ran, Running, root};
use deepsim_tests::ranks::{free_port, placed, started};
use rustix::process::Signal;

/// Three batches of held-out images, the last one of 4.
const HELD_OUT: u32 = 36;
/// Two blocks of training images for `neighbors`, the last one of 12.
const TRAINING: u32 = 140;

/// A laboratory with more images, and the options that train on them.
fn lab() -> (Lab, String) {
    let lab = Lab::new();
    photos::folder(&lab.at("large"), 0, TRAINING);
    photos::folder(&lab.at("many"), TRAINING, TRAINING + HELD_OUT);
    let sets = format!(
        "--set data.train={} --set data.test={}",
        lab.text("large"),
        lab.text("many")
    );
    (lab, sets)
}

/// The same with a run `run/`.
fn trained() -> Lab {
    let (lab, sets) = lab();
    lab.train(&format!("--steps 1 {sets}")).exits(0);
    lab
}

/// Evaluates by one process for each of these arguments; how each has ended, by rank.
fn ended(lab: &Lab, arguments: &[&str]) -> Vec<Ran> {
    let commands = arguments
        .iter()
        .map(|arguments| lab.command("deepsim-eval", arguments))
        .collect();
    started(commands)
        .into_iter()
        .map(|rank| rank.ends_soon("a rank"))
        .collect()
}

/// Every file of a folder by its name.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read(&path).unwrap())
    });
    files.collect()
}

/// Holds what so many processes print and write against what one does, byte for byte.
#[track_caller]
fn one_or_several(lab: &Lab, command: &str, sizes: &[usize]) {
    let whole = lab.eval(&format!("{command} --out whole")).prints();
    let files = contents(&lab.at("whole"));
    for &size in sizes {
        let out = format!("of-{size}");
        let arguments = format!("{command} --out {out}");
        let all = ended(lab, &vec![arguments.as_str(); size]);
        for (rank, ran) in all.into_iter().enumerate() {
            let stderr = ran.stderr.clone();
            let printed = ran.prints();
            if rank == 0 {
                assert_eq!(printed, whole, "{command} by {size}");
            } else {
                assert_eq!((printed, stderr), (String::new(), String::new()));
            }
        }
        let found = contents(&lab.at(&out));
        let names =
            |files: &BTreeMap<String, Vec<u8>>| -> Vec<String> { files.keys().cloned().collect() };
        assert_eq!(names(&found), names(&files), "{command} by {size}");
        for (name, bytes) in &files {
            assert!(found[name] == *bytes, "{name} of {command} by {size}");
        }
        fs::remove_dir_all(lab.at(&out)).unwrap();
    }
    fs::remove_dir_all(lab.at("whole")).unwrap();
}

#[test]
fn tables_of_several_processes_are_those_of_one() {
    let lab = trained();
    // A method without a generator stands in the table, too.
    lab.eval("baseline mv tiny.toml --images 2 --out mv")
        .exits(0);
    one_or_several(&lab, "table2 --runs . --format json", &[2, 3]);
    one_or_several(&lab, "table2 --runs run --format csv --no-clip", &[2]);
    // More processes than batches, and another number of images.
    one_or_several(&lab, "table2 --runs run --images 20 --judges", &[4]);
}

#[test]
fn neighbours_of_several_processes_are_those_of_one() {
    let lab = trained();
    one_or_several(&lab, "neighbors --runs run --format json", &[2, 3]);
    one_or_several(&lab, "neighbors --runs run --images 5 --format csv", &[4]);
}

#[test]
fn reencodings_of_several_processes_are_those_of_one() {
    let lab = trained();
    let command = "reencode --runs run --iterations 1,3";
    one_or_several(&lab, &format!("{command} --format json"), &[2, 3]);
    one_or_several(&lab, &format!("{command} --format csv --show 2"), &[4]);
    one_or_several(&lab, &format!("{command} many/140.jpg many/141.png"), &[2]);
}

#[test]
fn comparisons_of_several_processes_are_those_of_one() {
    let (lab, _) = lab();
    let (other, paired) = (lab.at("other"), TRAINING..TRAINING + HELD_OUT);
    fs::create_dir(&other).unwrap();
    for n in paired {
        let ending = if n % 2 == 0 { "jpg" } else { "png" };
        let file = other.join(format!("{n:02}.{ending}"));
        photos::photo(96, 80, n + 500).save(file).unwrap();
    }
    let command = "measure many other --encoder tiny.toml";
    one_or_several(&lab, &format!("{command} --format json"), &[2, 4]);
    one_or_several(&lab, &format!("{command} --unpaired --format csv"), &[2]);
}

#[test]
fn torchrun_starts_them() {
    let lab = trained();
    let arguments = "table2 --runs run --format json";
    let whole = lab.eval(arguments).prints();
    let eval = lab.command("deepsim-eval", arguments);
    let mut command = Command::new("python3");
    command
        .args(["-m", "torch.distributed.run", "--no-python", "--standalone"])
        .args(["--nproc-per-node", "2"])
        .arg(eval.get_program())
        .args(eval.get_args())
        .current_dir(lab.path())
        .env("PYTHONPATH", root().join("third_party/py"))
        .env_remove("RANK")
        .env_remove("WORLD_SIZE");
    let ran = Running::start(&mut command).ends_soon("torchrun");
    assert_eq!(ran.prints(), whole);
}

#[test]
fn processes_that_would_evaluate_something_else_are_refused() {
    let (lab, sets) = lab();
    for (out, seed) in [("run", 1), ("other", 2), ("copies/run", 3)] {
        let arguments = format!("--steps 1 --set train.seed={seed} {sets}");
        lab.train_into(out, &arguments).exits(0);
    }
    let refused = |first: &str, second: &str, words: &str| {
        let mut all = ended(&lab, &[first, second]);
        let second = all.remove(1);
        second.refuses(&[words, "all processes must evaluate the same"]);
        let told = all.remove(0).exits(1).says(&["rank 1 has failed", words]);
        assert_eq!(told.stdout, "");
    };
    for command in ["table2", "neighbors", "reencode"] {
        refused(
            &format!("{command} --runs run"),
            &format!("{command} --runs other"),
            "the list of runs is other here (rank 1), and run in rank 0",
        );
        refused(
            &format!("{command} --runs run"),
            &format!("{command} --runs copies/run"),
            "the checkpoint of the run is ",
        );
        refused(
            &format!("{command} --runs run --images 9"),
            &format!("{command} --runs run --images 10"),
            "--images is 10 here (rank 1), and 9 in rank 0",
        );
    }
    refused(
        "reencode --runs run --iterations 1,2",
        "reencode --runs run --iterations 1,3",
        "--iterations is [1, 3] here (rank 1), and [1, 2] in rank 0",
    );
    refused(
        "neighbors --runs run",
        "table2 --runs run",
        "the command is table2 here (rank 1), and neighbors in rank 0",
    );
    for folder in ["neighbors", "reencoded"] {
        assert!(!lab.at(folder).exists(), "{folder}");
    }
}

#[test]
fn one_that_fails_ends_the_others_with_its_words() {
    let lab = trained();
    let good = "table2 --runs run --format json --out tables";
    let mut all = ended(&lab, &[good, "table2 --runs nowhere", good]);
    all.remove(1).refuses(&["--runs nowhere: no such folder"]);
    for ran in all {
        ran.exits(1)
            .says(&["rank 1 has failed: --runs nowhere: no such folder"]);
    }
    // The first one may fail at the very end.
    fs::create_dir_all(lab.at("tables/table2.json")).unwrap();
    let mut all = ended(&lab, &[good, good]);
    let first = all.remove(0);
    assert_ne!(first.code, Some(0));
    first.says(&["a link, a folder, a pipe or a device"]);
    all.remove(0)
        .exits(1)
        .says(&["rank 0 has failed", "a link, a folder, a pipe or a device"]);
}

#[test]
fn runs_that_cannot_be_used_are_left_out_by_all() {
    let lab = trained();
    fs::create_dir(lab.at("broken")).unwrap();
    fs::write(lab.at("broken/experiment.toml"), "name = 1").unwrap();
    for command in ["table2", "neighbors", "reencode"] {
        let arguments = format!("{command} --runs . --format json");
        let whole = lab.eval(&arguments).says(&["broken left out"]).prints();
        let mut all = ended(&lab, &[arguments.as_str(); 2]);
        let second = all.remove(1);
        assert_eq!(second.stderr, "");
        assert_eq!(second.prints(), "");
        let first = all.remove(0).says(&["broken left out"]);
        assert_eq!(first.prints(), whole);
    }
}

#[test]
fn a_process_that_dies_ends_the_others_with_words() {
    let (lab, sets) = lab();
    for out in ["a", "b"] {
        lab.train_into(out, &format!("--steps 1 {sets}")).exits(0);
    }
    let arguments = "reencode --runs . --iterations 100";
    let commands = (0..2)
        .map(|_| lab.command("deepsim-eval", arguments))
        .collect();
    let mut ranks = started(commands);
    // They are at the second run then.
    let sheet = lab.at("reencoded/reencode-a.png");
    ranks[0].until(|| sheet.exists());
    ranks[1].tell(Signal::KILL);
    let first = ranks.remove(0).ends_soon("rank 0").exits(1);
    assert_eq!(first.stdout, "");
    first.says(&["another process of this evaluation has ended or does not answer"]);
    assert!(!lab.at("reencoded/reencode-b.png").exists());
}

#[test]
fn other_commands_are_of_one_process() {
    let lab = Lab::trained(1);
    for arguments in [
        "table1",
        "runs --runs .",
        "sample --runs run",
        "report --runs . --out page.html",
        "figure 1 --out figures",
    ] {
        let words = "WORLD_SIZE is 2, but only table2, neighbors, reencode and measure";
        let command = lab.command("deepsim-eval", arguments);
        Running::start(&mut placed(command, 0, 2, free_port()))
            .ends_soon("a rank")
            .refuses(&[words, "without RANK and WORLD_SIZE"]);
        // A world of one is no matter.
        let command = lab.command("deepsim-eval", "table1");
        Running::start(&mut placed(command, 0, 1, free_port()))
            .ends_soon("a rank")
            .exits(0);
    }
    let mut alone = lab.command("deepsim-eval", "table2 --runs run");
    alone.env("WORLD_SIZE", "2");
    Running::start(&mut alone)
        .ends_soon("a rank")
        .refuses(&["WORLD_SIZE is 2, but RANK is not set"]);
    let command = lab.command("deepsim-eval", "table2 --runs run");
    Running::start(&mut placed(command, 2, 2, free_port()))
        .ends_soon("a rank")
        .refuses(&["RANK is 2 and WORLD_SIZE 2"]);
}

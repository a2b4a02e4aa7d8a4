//! What was learned is saved before anything ends a run that could have been saved: a due checkpoint comes first, and
//! every error leaves one behind where the state is whole. Exit codes and last words of the trainer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use deepsim_experiment::Checkpoint;
use deepsim_tests::files::{checkpoint, checkpoint_steps, column, metrics, steps_logged, tensors};
use deepsim_tests::lab::{ENDLESS, Lab};
use deepsim_tests::process::{Ran, program, python, root, run};
use rustix::process::Signal;

/// Demands that a failed run left a whole checkpoint of its last step, and says which.
#[track_caller]
fn saved(ran: Ran, run: &Path, words: &[&str]) -> u64 {
    let ran = ran.exits(1).says(words);
    assert_eq!(ran.stdout, "");
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    let step = *checkpoint_steps(run).last().expect("nothing was saved");
    assert_eq!(step, steps_logged(run), "{}", ran.stderr);
    Checkpoint::open(&checkpoint(run, step)).unwrap();
    drop(ran.says(&[&format!("saved at step {step}")]));
    step
}

#[test]
fn a_training_image_that_goes_bad_under_way_costs_no_step() {
    let lab = Lab::new();
    let mut at_work = lab.start(ENDLESS);
    at_work.until(|| steps_logged(&lab.run_dir()) > 2);
    let image = lab.at("train/04.jpg");
    let whole = fs::read(&image).unwrap();
    // As large as before, so that the dataset is the same.
    fs::write(&image, vec![0; whole.len()]).unwrap();
    let words = [image.to_str().unwrap(), "data.quarantine=1", "--resume"];
    let step = saved(at_work.ends(), &lab.run_dir(), &words);

    let on = format!("--steps {} --resume", step + 6);
    // The same image again, before a step is done: refused input.
    let ran = lab.train(&format!("{on} --set train.batch_size=4"));
    assert!(matches!(ran.code, Some(1 | 2)), "{}", ran.stderr);
    lab.train(&format!("{on} --set data.quarantine=1"))
        .says(&["resumed at step"])
        .exits(0);
    assert_eq!(
        column(&lab.run_dir(), "data.quarantined").last().unwrap(),
        1
    );
}

#[test]
fn a_held_out_image_that_disappears_costs_no_step() {
    let lab = Lab::new();
    let often = "--set train.eval_every=5";
    let mut at_work = lab.start(&format!("{ENDLESS} {often}"));
    at_work.until(|| steps_logged(&lab.run_dir()) > 1);
    let image = lab.at("test/14.jpg");
    let whole = fs::read(&image).unwrap();
    fs::remove_file(&image).unwrap();
    let words = [
        image.to_str().unwrap(),
        "held-out error",
        "when it is next due",
        "with --resume",
    ];
    let step = saved(at_work.ends(), &lab.run_dir(), &words);
    assert_eq!(step % 5, 0);

    let on = format!("--steps {} --resume", step + 2);
    lab.train(&on)
        .refuses(&["data.test", "changed since this run began"]);
    fs::write(&image, whole).unwrap();
    lab.train(&on).exits(0);
    let steps: Vec<u64> = metrics(&lab.run_dir())
        .iter()
        .filter(|line| line.get("lr").is_some())
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, (1..=step + 2).collect::<Vec<_>>());
}

/// What fails again at each attempt is passed over by the next one.
#[test]
fn a_report_that_cannot_be_written_costs_no_step_and_is_passed_over() {
    let lab = Lab::new();
    let dir = lab.run_dir();
    lab.train("--steps 1").exits(0);
    for step in [2, 4, 6] {
        fs::create_dir_all(dir.join(format!("samples/step-{step:09}.png"))).unwrap();
    }
    let rare = "--set train.sample_every=2 --set train.checkpoint_every=100";
    let train = || lab.train(&format!("--resume {rare}"));
    for step in [2, 4, 6] {
        let name = format!("samples/step-{step:09}.png");
        let next = match step {
            6 => "all steps are done",
            _ => "with --resume",
        };
        let words = ["the sample sheet", &name, next];
        assert_eq!(saved(train(), &dir, &words), step);
    }
    // The last step is done, and a whole run like any other.
    train().says(&["already finished (step 6)"]).exits(0);
    let whole = Lab::new();
    whole.train("--set train.checkpoint_every=100").exits(0);
    assert_eq!(tensors(&dir, 6), tensors(&whole.run_dir(), 6));
}

/// The checkpoint is there before the sheet of the same step is drawn and before its errors are measured.
#[test]
fn a_due_checkpoint_comes_before_the_reports_of_its_step() {
    let lab = Lab::new();
    let all = "--steps 2 --set train.sample_every=2 --set train.eval_every=2";
    lab.crash("run", all, "parent-synced@2");
    assert_eq!(checkpoint_steps(&lab.run_dir()), [2]);
    assert!(!lab.run_dir().join("samples/step-000000002.png").exists());
    assert!(column(&lab.run_dir(), "eval.n").is_empty());
    // Its losses are in the checkpoint: the line that was cut off is written later.
    assert_eq!(steps_logged(&lab.run_dir()), 1);
    lab.train(all)
        .says(&[
            "already finished",
            "was not measured",
            "deepsim-eval table2",
        ])
        .exits(0);
    assert_eq!(steps_logged(&lab.run_dir()), 2);
}

#[test]
fn a_number_that_is_not_finite_is_never_saved() {
    let lab = Lab::new();
    let wild = "--set optimizer.generator.lr=30 --set train.checkpoint_every=1000";
    let ran = lab.train(&format!("{wild} --steps 9")).exits(1);
    assert!(!ran.stderr.contains("saved at"), "{}", ran.stderr);
    assert!(checkpoint_steps(&lab.run_dir()).is_empty());
}

/// How soon a program must be gone.
const SECONDS: Duration = Duration::from_secs(20);

/// A file system that does not answer, while weights are read: nothing is there to be saved.
#[test]
fn a_signal_before_the_first_step_ends_it_at_once() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::USR1, 138)] {
        let lab = Lab::new();
        let silent = lab.at("weights.safetensors");
        fs::write(&silent, "weights").unwrap();
        let mut holder = python(LEASES)
            .arg(&silent)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(holder.stdout.take().unwrap()).lines();
        assert_eq!(told.next().unwrap().unwrap(), "held");
        let set = format!("encoder.weights={}", silent.display());
        let at_work = lab.start(&format!("--set {set}"));
        // It has begun to listen when it opens the file.
        assert_eq!(told.next().unwrap().unwrap(), "asked");
        let begun = Instant::now();
        at_work
            .signal(signal)
            .exits(code)
            .says(&["nothing is lost"]);
        assert!(begun.elapsed() < SECONDS);
        holder.kill().unwrap();
        holder.wait().unwrap();
    }
}

/// Holds write leases on files: who opens one waits until the holder gives it back, as for a disk that does not answer
/// (the kernel ends it after /proc/sys/fs/lease-break-time, 45 seconds). A file that is open at the moment has none: tried again.
const LEASES: &str = "
import fcntl, os, signal, sys, time
signal.signal(signal.SIGIO, lambda *_: print('asked', flush=True))
held = []
for path in sys.argv[1:]:
    while True:
        file = os.open(path, os.O_RDWR)
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            held.append(file)
            break
        except BlockingIOError:
            os.close(file)
            time.sleep(0.01)
print('held', flush=True)
sys.stdin.read()
";

/// The same while images are read for the next step.
#[test]
fn a_signal_while_the_disk_does_not_answer_saves_and_ends_it() {
    let lab = Lab::new();
    let mut at_work = lab.start(ENDLESS);
    at_work.until(|| steps_logged(&lab.run_dir()) > 1);
    let images = fs::read_dir(lab.at("train")).unwrap();
    let mut holder = python(LEASES)
        .args(images.map(|entry| entry.unwrap().path()))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut before = (0, Instant::now());
    at_work.until(|| {
        let now = steps_logged(&lab.run_dir());
        if now != before.0 {
            before = (now, Instant::now());
        }
        before.1.elapsed() > Duration::from_secs(3)
    });
    let begun = Instant::now();
    at_work
        .signal(Signal::TERM)
        .exits(143)
        .says(&["saved step"]);
    assert!(begun.elapsed() < SECONDS);
    assert_eq!(checkpoint_steps(&lab.run_dir()), [before.0]);
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn a_signal_during_a_long_evaluation_saves_and_ends_it() {
    let lab = Lab::new();
    let first = fs::read(lab.at("test/13.png")).unwrap();
    for n in 0..3000 {
        fs::write(lab.at(&format!("test/more-{n:04}.png")), &first).unwrap();
    }
    let long = "--set train.eval_every=2 --set train.eval_images=3000";
    let mut at_work = lab.start(&format!("{ENDLESS} {long}"));
    at_work.until(|| steps_logged(&lab.run_dir()) == 2);
    let begun = Instant::now();
    at_work
        .signal(Signal::TERM)
        .exits(143)
        .says(&["saved step 2"]);
    assert!(begun.elapsed() < SECONDS);
    assert_eq!(checkpoint_steps(&lab.run_dir()), [2]);
    assert!(column(&lab.run_dir(), "eval.n").is_empty());
}

/// It is done all the same: what was asked for would have changed nothing.
#[test]
fn a_finished_run_asked_for_other_data_says_so() {
    let lab = Lab::trained(2);
    let other = format!("--set data.test=\"{}\"", lab.text("train"));
    for (set, told) in [(&*other, true), ("", false)] {
        let ran = lab.train(&format!("--steps 2 {set}")).exits(0);
        assert!(ran.stderr.contains("already finished"), "{}", ran.stderr);
        let warned = ran.stderr.contains("data.test is another dataset");
        assert_eq!(warned, told, "{}", ran.stderr);
        assert!(!ran.stderr.contains("data.train is"), "{}", ran.stderr);
    }
}

/// Exit codes by phase, and the words that go with them.
#[test]
fn exit_codes_and_last_words() {
    let lab = Lab::trained(2);
    let run_dir = lab.text("run");
    for (arguments, code, words) in [
        (
            "--steps 2",
            0,
            &["already finished (step 2)", "--resume --steps N", "--fresh"][..],
        ),
        ("--steps 2 --resume", 0, &["already finished"]),
        ("--steps 3", 2, &["up to step 2", "--resume", "--fresh"]),
        ("--steps 0", 2, &["train.steps"]),
        (
            "--steps 18446744073709551615",
            2,
            &["--steps", "9223372036854775807"],
        ),
        (
            "--set train.steps=18446744073709551615",
            2,
            &["train.steps", "9223372036854775807"],
        ),
        ("--device abacus", 2, &["device `abacus`"]),
        ("--set data.train=nowhere", 2, &["data.train", "nowhere"]),
        (
            "--set encoder.tap=pool6",
            2,
            &["unknown variant `pool6`", "`pool5`", "(alexnet)"],
        ),
        (
            "--fresh --set optimizer.generator.lr=1e30",
            1,
            &["step ", " is "],
        ),
    ] {
        let ran = lab.train(arguments).exits(code).says(words);
        let out = match code {
            0 => format!("done: step 2, run {run_dir}\n"),
            _ => String::new(),
        };
        assert_eq!(ran.stdout, out, "{arguments:?}");
        assert!(
            ran.stderr
                .contains(if code == 0 { "next: " } else { "error: " }),
            "{}",
            ran.stderr
        );
    }
    lab.eval(&format!(
        "forward {run_dir} --net encoder --input x --output y"
    ))
    .refuses(&["is a folder", "run/experiment.toml"]);
    lab.train_into("tiny.toml", "--resume")
        .exits(2)
        .says(&["error: ", "tiny.toml"]);
    // Not one of those that were refused has made a run of its own.
    for set in [
        "data.train=nowhere",
        "train.steps=0",
        "encoder.weights=nowhere.safetensors",
    ] {
        lab.train_into("elsewhere", &format!("--set {set}"))
            .exits(2);
    }
    assert!(!lab.at("elsewhere").exists());
}

#[test]
fn an_experiment_that_is_not_there_is_told_with_what_was_meant() {
    for (asked, meant) in [
        ("quickstart", "experiments/quickstart.toml?"),
        ("quikstart.toml", "did you mean experiments/quickstart.toml"),
        ("experiments/pool5.toml", "experiments/sample/pool5.toml"),
    ] {
        let mut command = program("deepsim-train");
        run(command.current_dir(root()).arg(asked)).refuses(&[
            "no experiment file",
            "did you mean",
            meant,
        ]);
    }
    let mut command = program("deepsim-train");
    let ran = run(command.current_dir(root()).arg("zebra.toml")).refuses(&["zebra.toml"]);
    assert!(!ran.stderr.contains("did you mean"), "{}", ran.stderr);
}

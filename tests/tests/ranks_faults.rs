//! Faults of several processes that train one run: signals, processes that hang, full disks, links that go down, processes
//! that were told other things, and a kill under torchrun.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use deepsim_experiment::Checkpoint;
use deepsim_nets::params::f32_bytes;
use deepsim_nets::{NetKind, init};
use deepsim_tests::files::{self, checkpoint_steps, losses, steps_logged, tensors};
use deepsim_tests::lab::{ENDLESS, Lab};
use deepsim_tests::process::{Ran, Running, python, root, run_by};
use deepsim_tests::ranks::{begun, free_port, placed, started, trained};
use rustix::process::{Pid, Signal, kill_process};
use safetensors::tensor::{Dtype, TensorView};

/// What the others say of a process that is gone or hangs.
const LOST: &str = "another process of this training has ended or does not answer";

fn all_end(ranks: Vec<Running>) -> Vec<Ran> {
    let ranks = ranks.into_iter();
    ranks.map(|rank| rank.ends_soon("a rank")).collect()
}

/// Waits until rank 0 has logged more steps than these.
fn until_logged(ranks: &mut [Running], run: &Path, steps: u64) {
    ranks[0].until(|| steps_logged(run) > steps);
}

/// The newest checkpoint's step; all that are there are whole.
fn sound(run: &Path) -> Option<u64> {
    let steps = checkpoint_steps(run);
    for &step in &steps {
        Checkpoint::open(&files::checkpoint(run, step)).unwrap();
    }
    steps.last().copied()
}

/// The command in a shell that lets no file become larger than so many blocks of 512 bytes: a disk that is full for this
/// process alone.
fn limited(command: &Command, blocks: u32) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -f {blocks}; exec \"$0\" \"$@\"")]);
    run_by(shell, command)
}

/// Whichever process reads it.
#[test]
fn an_image_that_becomes_corrupt_ends_all_and_one_names_it() {
    let lab = Lab::new();
    let mut ranks = begun(&lab, "run", &[ENDLESS.to_owned(), ENDLESS.to_owned()]);
    until_logged(&mut ranks, &lab.run_dir(), 1);
    fs::write(lab.at("train/03.png"), "no image").unwrap();
    let ended: Vec<Ran> = all_end(ranks)
        .into_iter()
        .map(|rank| rank.exits(1))
        .collect();
    let naming = ended.iter().filter(|rank| rank.stderr.contains("03.png"));
    assert!(naming.count() >= 1);
}

/// torchrun sends SIGTERM to each rank, and a scheduler does so, too, somewhat earlier or later.
#[test]
fn two_sigterms_to_each_rank_save_once_and_the_run_goes_on() {
    let lab = Lab::new();
    // One of them is held, so that neither has ended when the second signal comes.
    for held in [0, 1] {
        let out = format!("held-{held}");
        let run = lab.at(&out);
        let commands = [0, 1].map(|_| {
            let mut command = lab.train_command(&out, ENDLESS);
            command.env(["TORCHELASTIC_RUN_ID", "SLURM_JOB_ID"][held], "test");
            command
        });
        let mut ranks = started(commands.into());
        until_logged(&mut ranks, &run, 1);
        ranks[held].tell(Signal::STOP);
        for rank in &mut ranks {
            rank.tell(Signal::TERM);
        }
        std::thread::sleep(Duration::from_secs(1));
        for rank in &mut ranks {
            rank.tell(Signal::TERM);
        }
        ranks[held].tell(Signal::CONT);
        for ran in all_end(ranks) {
            let ran = ran.exits(143);
            assert!(!ran.stderr.contains("error"), "{}", ran.stderr);
        }
        assert_eq!(checkpoint_steps(&run).len(), 1);
        let step = sound(&run).unwrap();
        let more = step + 2;
        let mut ranks = trained(&lab, &out, 2, &format!("--resume --steps {more}"));
        ranks.remove(1).exits(0);
        let first = ranks.remove(0).exits(0);
        first.says(&[&format!("resumed at step {step} of {more}")]);
    }
}

/// A file that answers nobody who opens it, as on a disk that hangs, until this is dropped. The kernel lets it be for 45
/// seconds.
struct Hung(#[allow(dead_code, reason = "held for its end")] Running);

impl Hung {
    /// None where the file system or the system lets no file be held.
    fn image(lab: &Lab, image: &str) -> Option<Hung> {
        const HOLD: &str = "
import fcntl, os, signal, sys, time
signal.signal(signal.SIGIO, signal.SIG_IGN)
held = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
open(sys.argv[2], 'w').close()
time.sleep(600)
";
        let marker = lab.at("held");
        let mut holder = Running::start(python(HOLD).args([lab.at(image), marker.clone()]));
        while !marker.exists() {
            if !holder.lives() {
                let said = holder.ends().stderr;
                eprintln!("skipped: no file can be held here: {said}");
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(Hung(holder))
    }
}

/// Seconds of `train.patience` below.
const PATIENCE: u64 = 6;
/// Longer than anyone waits for one that does not answer.
const LONGER: Duration = Duration::from_secs(3 * PATIENCE);

/// Two processes at their last step: rank 0 evaluates, and an image hangs; rank 1 waits for its verdict. None where that
/// cannot be brought about.
fn evaluating(lab: &Lab) -> Option<(Vec<Running>, Hung)> {
    const STEPS: u64 = 150;
    let arguments = format!(
        "--steps {STEPS} --set train.checkpoint_every=1000 --set train.patience={PATIENCE}"
    );
    let mut ranks = begun(lab, "run", &[arguments.clone(), arguments]);
    until_logged(&mut ranks, &lab.run_dir(), 1);
    let hung = Hung::image(lab, "test/12.jpg")?;
    until_logged(&mut ranks, &lab.run_dir(), STEPS - 1);
    Some((ranks, hung))
}

#[test]
fn rank_0_may_evaluate_for_longer_than_the_others_are_patient() {
    let lab = Lab::new();
    let Some((mut ranks, hung)) = evaluating(&lab) else {
        return;
    };
    std::thread::sleep(LONGER);
    for rank in &mut ranks {
        assert!(rank.lives());
    }
    drop(hung);
    let mut ended = all_end(ranks);
    ended.remove(1).exits(0);
    ended.remove(0).exits(0).says(&["held-out error: image"]);
}

#[test]
fn one_that_hangs_while_rank_0_evaluates_is_noticed() {
    let lab = Lab::new();
    let Some((mut ranks, hung)) = evaluating(&lab) else {
        return;
    };
    ranks[1].tell(Signal::STOP);
    std::thread::sleep(LONGER);
    drop(hung);
    // The last step is saved, and nothing is lost.
    let first = ranks.remove(0).ends_soon("rank 0").exits(1);
    first.says(&[LOST, "does not answer", "all steps are done"]);
    sound(&lab.run_dir()).unwrap();
}

#[test]
fn rank_0_that_hangs_in_the_middle_of_an_evaluation_ends_the_others_in_time() {
    let lab = Lab::new();
    let Some((mut ranks, _hung)) = evaluating(&lab) else {
        return;
    };
    ranks[0].tell(Signal::STOP);
    let hung = Instant::now();
    let second = ranks.remove(1).ends_soon("rank 1").exits(1);
    assert!(
        hung.elapsed() < Duration::from_secs(40),
        "{:?}",
        hung.elapsed()
    );
    second.says(&[LOST, "does not answer"]);
}

/// Wherever it is in a step, most likely in a sum or before one.
#[test]
fn rank_0_that_hangs_in_the_middle_of_a_step_ends_the_others_in_time() {
    let lab = Lab::new();
    let arguments = format!("{ENDLESS} --set train.patience={PATIENCE}");
    let mut ranks = begun(&lab, "run", &[arguments.clone(), arguments]);
    until_logged(&mut ranks, &lab.run_dir(), 2);
    ranks[0].tell(Signal::STOP);
    let hung = Instant::now();
    let second = ranks.remove(1).ends_soon("rank 1").exits(1);
    assert!(
        hung.elapsed() < Duration::from_secs(40),
        "{:?}",
        hung.elapsed()
    );
    second.says(&[LOST]);
}

#[test]
fn a_full_disk_of_rank_0_ends_all_with_words_and_costs_nothing_earlier() {
    let lab = Lab::new();
    for ran in trained(&lab, "run", 2, "--steps 2") {
        ran.exits(0);
    }
    let before = tensors(&lab.run_dir(), 2);
    let on = lab.train_command("run", "--steps 8 --resume");
    let again = lab.train_command("run", "--steps 8 --resume");
    let mut ended = all_end(started(vec![limited(&on, 200), again]));
    ended
        .remove(1)
        .exits(1)
        .says(&["rank 0 has ended, and its message says why"]);
    ended.remove(0).exits(1).says(&[
        "step 4 could not be saved",
        "File too large",
        "the newest checkpoint is of step 2",
        "--resume",
    ]);
    assert_eq!(checkpoint_steps(&lab.run_dir()), [2]);
    assert_eq!(tensors(&lab.run_dir(), 2), before);
    for ran in trained(&lab, "run", 2, "--steps 4 --resume") {
        ran.exits(0);
    }
    assert_eq!(sound(&lab.run_dir()), Some(4));
}

#[test]
fn a_full_disk_of_another_rank_is_nothing_to_it() {
    let lab = Lab::new();
    let commands = [0, 1].map(|_| lab.train_command("run", "--steps 4"));
    let [first, second] = commands;
    for ran in all_end(started(vec![first, limited(&second, 0)])) {
        ran.exits(0);
    }
    assert_eq!(sound(&lab.run_dir()), Some(4));
}

/// AlexNet's convolutions, random, as a file of weights.
fn weights(path: &Path, seed: u64) {
    let shapes = NetKind::weight_shapes(NetKind::AlexNet.convolutional_rows());
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let values = init::normal(&name, &shape, 0.02, seed).unwrap();
            let sizes = shape.iter().map(|&d| usize::try_from(d).unwrap()).collect();
            (name, sizes, f32_bytes(&values).unwrap())
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (
            name,
            TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
        )
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Rank 1 is refused with these words, rank 0 says whose message to look at, and nothing is begun.
#[track_caller]
fn refused(lab: &Lab, commands: [Command; 2], words: &[&str]) {
    let mut ended = all_end(started(commands.into()));
    ended.remove(1).refuses(words);
    let first = ended.remove(0).exits(1);
    first.says(&["it trains something else, and its message says what"]);
    assert!(!lab.at("run/checkpoints").exists());
    assert!(!lab.at("run/metrics.jsonl").exists());
}

#[test]
fn ranks_with_other_weights_other_images_or_other_kernels_are_refused() {
    let lab = Lab::new();
    let train = |sets: &str| lab.train_command("run", &format!("--steps 2 {sets}"));
    // The same name and length, other bytes.
    for (folder, seed) in [("here", 1), ("there", 2)] {
        fs::create_dir(lab.at(folder)).unwrap();
        weights(&lab.at(folder).join("alexnet.safetensors"), seed);
    }
    let with = |folder: &str| {
        let file = lab.text(&format!("{folder}/alexnet.safetensors"));
        train(&format!("--set encoder.weights={file}"))
    };
    let differs = "all processes must train the same";
    refused(
        &lab,
        [with("here"), with("there")],
        &["encoder.weights is", "here (rank 1), and", differs],
    );
    files::copy(&lab.at("train"), &lab.at("other"));
    fs::copy(lab.at("test/13.png"), lab.at("other/01.png")).unwrap();
    let other = format!("--set data.train={}", lab.text("other"));
    refused(
        &lab,
        [train(""), train(&other)],
        &["data.train is", "here (rank 1), and", differs],
    );
    // Every processor runs the plain kernels; one that has no others is not refused.
    let plain = |capability: &str| {
        let mut command = train("");
        command.env("DEEPSIM_CPU_CAPABILITY", capability);
        command
    };
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if flags.contains(" avx2 ") && flags.contains(" fma ") {
        refused(
            &lab,
            [plain("avx2"), plain("default")],
            &["the processor's instruction set is", differs],
        );
    } else {
        eprintln!("skipped: this processor has plain kernels alone");
    }
}

#[test]
fn ranks_that_were_told_other_numbers_of_ranks_are_refused() {
    let lab = Lab::new();
    let port = free_port();
    let ranks: Vec<Running> = [(0, 2), (1, 3)]
        .into_iter()
        .map(|(rank, size)| {
            let command = lab.train_command("run", "--steps 2 --set train.patience=20");
            Running::start(&mut placed(command, rank, size, port))
        })
        .collect();
    for ran in all_end(ranks) {
        ran.refuses(&["the processes disagree: one process was told of"]);
    }
    assert!(!lab.run_dir().exists());
}

/// Runs `ip`, words separated by spaces.
fn ip(words: &str) -> bool {
    let ran = Command::new("ip").args(words.split_whitespace()).output();
    ran.is_ok_and(|output| output.status.success())
}

/// Two networks of their own, `NAME-0` and `NAME-1`, and a cable between them; gone when it is dropped.
struct Cable(String);

impl Cable {
    /// None where this user may not make networks, or there is no `ip`.
    fn laid() -> Option<Cable> {
        // Dropped, and with it all that was made, where a step fails.
        let cable = Cable(format!("deepsim-{}", std::process::id()));
        let name = &cable.0;
        let laid = [
            format!("netns add {name}-0"),
            format!("netns add {name}-1"),
            format!("-n {name}-0 link add end type veth peer name end netns {name}-1"),
        ];
        if !laid.iter().all(|words| ip(words)) {
            return None;
        }
        for side in [0, 1] {
            let address = Cable::address(side);
            for words in [
                "link set lo up".to_owned(),
                format!("addr add {address}/30 dev end"),
                "link set end up".to_owned(),
            ] {
                if !ip(&format!("-n {name}-{side} {words}")) {
                    return None;
                }
            }
        }
        Some(cable)
    }

    /// Of a range for tests (RFC 2544).
    fn address(side: usize) -> String {
        format!("198.18.0.{}", side + 1)
    }

    /// Puts one end in or out.
    fn set(&self, side: usize, state: &str) {
        assert!(ip(&format!("-n {}-{side} link set end {state}", self.0)));
    }

    /// Both ranks, each in its network.
    fn train(&self, lab: &Lab, arguments: &str) -> Vec<Running> {
        let port = free_port();
        let ranks = [0, 1].map(|rank| {
            let mut inside = Command::new("ip");
            inside.args(["netns", "exec", &format!("{}-{rank}", self.0)]);
            let inside = run_by(inside, &lab.train_command("run", arguments));
            let mut command = placed(inside, rank, 2, port);
            command.env("MASTER_ADDR", Cable::address(0));
            Running::start(&mut command)
        });
        ranks.into()
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for side in [0, 1] {
            ip(&format!("netns del {}-{side}", self.0));
        }
    }
}

#[test]
fn a_link_that_goes_down_ends_both_sides_in_time_and_the_run_goes_on_later() {
    let lab = Lab::new();
    let Some(cable) = Cable::laid() else {
        eprintln!("skipped: this user may not make networks, or there is no `ip`");
        return;
    };
    let mut newest = 0;
    for side in [0, 1] {
        let endless = "--steps 1000000 --resume --set train.checkpoint_every=2";
        let arguments = format!("{endless} --set train.patience={PATIENCE}");
        let mut ranks = cable.train(&lab, &arguments);
        let run = lab.run_dir();
        ranks[0].until(|| checkpoint_steps(&run).last() > Some(&newest));
        cable.set(side, "down");
        let down = Instant::now();
        for ran in all_end(ranks) {
            ran.exits(1).says(&[LOST]);
        }
        assert!(
            down.elapsed() < Duration::from_secs(40),
            "{:?}",
            down.elapsed()
        );
        newest = sound(&run).unwrap();
        cable.set(side, "up");
    }
    let more = newest + 2;
    for ran in all_end(cable.train(&lab, &format!("--steps {more} --resume"))) {
        ran.exits(0);
    }
    assert_eq!(sound(&lab.run_dir()), Some(more));
}

/// The process of a rank that torchrun has started, as far as it can be told.
fn child_of(torchrun: u32, rank: &str) -> Option<Pid> {
    let own = format!("RANK={rank}");
    let threads = fs::read_dir(format!("/proc/{torchrun}/task")).ok()?;
    let children = threads.flatten().filter_map(|thread| {
        let children = fs::read_to_string(thread.path().join("children")).ok()?;
        let children = children.split_whitespace().map(str::to_owned);
        Some(children.collect::<Vec<String>>())
    });
    let of_rank = |child: &String| {
        let environment = fs::read(format!("/proc/{child}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|variable| variable == own.as_bytes())
    };
    let child = children.flatten().find(of_rank)?;
    Pid::from_raw(child.parse().ok()?)
}

/// `cargo xtask rank-kills` does so many times.
#[test]
fn after_a_kill_torchrun_begins_again_and_the_run_is_the_undisturbed_one_bit_for_bit() {
    const STEPS: u64 = 40;
    let torchrun = root().join("third_party/py/bin/torchrun");
    if !torchrun.is_file() {
        eprintln!("skipped: no torchrun: `cargo xtask setup --torch full` fetches it");
        return;
    }
    let lab = Lab::new();
    let arguments = format!("--steps {STEPS} --resume --set train.deterministic_shards=4");
    for ran in trained(&lab, "whole", 2, &arguments) {
        ran.exits(0);
    }
    // The last one before a checkpoint is due.
    for (rank, out, every) in [("0", "first", 3), ("1", "second", 3), ("0", "early", 1000)] {
        let arguments = format!("{arguments} --set train.checkpoint_every={every}");
        let run = lab.at(out);
        let train = lab.train_command(out, &arguments);
        let mut launched = Command::new("python3");
        launched
            .arg(&torchrun)
            .args(["--no-python", "--standalone", "--nproc-per-node", "2"])
            .args(["--max-restarts", "3"])
            .current_dir(lab.path())
            .env("PYTHONPATH", root().join("third_party/py"))
            .env_remove("RANK")
            .env_remove("WORLD_SIZE");
        let mut launched = Running::start(&mut run_by(launched, &train));
        launched.until(|| match every {
            3 => checkpoint_steps(&run).last() > Some(&3),
            _ => steps_logged(&run) > 1,
        });
        let killed = child_of(launched.pid(), rank).expect("the ranks are torchrun's children");
        kill_process(killed, Signal::KILL).unwrap();
        let ran = launched.ends_soon("torchrun").exits(0);
        let ran = if every == 3 {
            ran.says(&["resumed at step"])
        } else {
            ran
        };
        assert_eq!(
            ran.stdout.matches(&format!("done: step {STEPS}")).count(),
            1
        );
        assert_eq!(
            tensors(&run, STEPS),
            tensors(&lab.at("whole"), STEPS),
            "rank {rank} was killed"
        );
        assert_eq!(losses(&run), losses(&lab.at("whole")));
    }
}

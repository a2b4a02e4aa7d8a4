//! A disk that fills up in the middle of a run.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use deepsim_experiment::Checkpoint;
use deepsim_tests::files::{self, checkpoint_steps};
use deepsim_tests::lab::Lab;
use deepsim_tests::process::Running;

/// A small file system of its own, or a file of one in another place; gone with the test.
struct Disk(PathBuf);

impl Disk {
    /// None where this user may not mount one.
    fn mounted(at: PathBuf, megabytes: u32) -> Option<Disk> {
        fs::create_dir(&at).unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&at)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(Disk(at))
    }

    /// One of its files in another place.
    fn file_at(&self, place: PathBuf) -> Disk {
        let file = self.0.join("file");
        for path in [&file, &place] {
            fs::write(path, "").unwrap();
        }
        let mut mount = Command::new("mount");
        let mounted = mount.arg("--bind").args([&file, &place]).output().unwrap();
        assert!(mounted.status.success(), "{mounted:?}");
        Disk(place)
    }

    /// Takes all that is free but for some bytes.
    fn fill(&self, but: usize) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = File::create(&path).unwrap();
        let block = vec![0u8; 1 << 16];
        let mut size = 0u64;
        while let Ok(written) = file.write(&block) {
            size += written as u64;
        }
        file.set_len(size.saturating_sub(but as u64)).unwrap();
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

fn sound(run: &Path) -> Vec<u64> {
    let steps = checkpoint_steps(run);
    for &step in &steps {
        Checkpoint::open(&files::checkpoint(run, step)).unwrap();
    }
    steps
}

/// The disk has room when the run starts; another program takes it. At whichever byte of a checkpoint it
/// is full, the earlier ones stay whole, and with room again the run goes on.
#[test]
fn a_disk_that_fills_up_while_a_checkpoint_is_written_costs_nothing_earlier() {
    let lab = Lab::new();
    let Some(disk) = Disk::mounted(lab.at("disk"), 600) else {
        println!("this user may not mount a file system: nothing was tried");
        return;
    };
    let out = lab.at("disk/run");
    let endless = "--steps 100000 --set train.checkpoint_every=3";
    // Nothing at all; the small files; in the middle of the weights.
    for (round, room) in [0, 100_000, 3_000_000].into_iter().enumerate() {
        let before = if round == 0 {
            0
        } else {
            *sound(&out).last().unwrap()
        };
        let resume = if round > 0 { "--resume" } else { "" };
        let arguments = format!("{endless} {resume}");
        let mut at_work = Running::start(&mut lab.train_command("disk/run", &arguments));
        at_work.until(|| out.is_dir() && checkpoint_steps(&out).last() > Some(&before));
        let ballast = disk.fill(room);
        let ran = at_work.ends();
        assert_ne!(ran.code, Some(0), "{}", ran.stderr);
        let ran = ran.says(&[
            "No space left",
            "could not be saved",
            "the newest checkpoint is of step",
            "--resume",
        ]);
        assert_eq!(ran.code, Some(1));
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        let left = sound(&out);
        assert!(left.last() > Some(&before), "{left:?}");
        fs::remove_file(ballast).unwrap();
    }
    let last = *sound(&out).last().unwrap();
    let more = last + 2;
    lab.train_into("disk/run", &format!("--steps {more} --resume"))
        .says(&[&format!("resumed at step {last}")])
        .exits(0);
}

/// A killed process may leave most of a checkpoint behind, which takes the room that the next one needs.
#[test]
fn leftovers_of_a_killed_process_make_room_for_its_successor() {
    let lab = Lab::new();
    let Some(disk) = Disk::mounted(lab.at("disk"), 600) else {
        println!("this user may not mount a file system: nothing was tried");
        return;
    };
    lab.train_into("disk/run", "--steps 2").exits(0);
    let left = lab.at("disk/run/checkpoints/.partial-step-000000004-abcdef");
    let ballast = disk.fill(0);
    let go_on = "--steps 4 --resume";
    lab.train_into("disk/run", go_on).refuses(&["MB"]);
    fs::create_dir(&left).unwrap();
    fs::rename(ballast, left.join("generator.safetensors")).unwrap();
    lab.train_into("disk/run", go_on).exits(0);
    assert!(!left.exists());
}

/// What a full disk keeps from the log is no reason to lose the step.
#[test]
fn a_full_disk_under_the_log_alone_costs_no_step() {
    let lab = Lab::new();
    let Some(disk) = Disk::mounted(lab.at("disk"), 1) else {
        println!("this user may not mount a file system: nothing was tried");
        return;
    };
    fs::create_dir(lab.run_dir()).unwrap();
    fs::write(lab.at("run/lock"), "").unwrap();
    let _log = disk.file_at(lab.at("run/metrics.jsonl"));
    let ballast = disk.fill(0);
    let rare = "--resume --set train.checkpoint_every=100";
    for step in 1..=2 {
        let ran = lab.train(rare).exits(1);
        ran.says(&[
            "the log failed",
            "No space left",
            &format!("saved at step {step}"),
        ]);
        assert_eq!(sound(&lab.run_dir()), (1..=step).collect::<Vec<_>>());
    }
    fs::remove_file(ballast).unwrap();
    lab.train(rare).says(&["resumed at step 2"]).exits(0);
    // The line that was not written is that of both steps.
    let steps: Vec<_> = files::column(&lab.run_dir(), "lr");
    assert_eq!(steps.len(), 5);
    let whole = Lab::new();
    whole.train(rare).exits(0);
    assert_eq!(
        files::tensors(&lab.run_dir(), 6),
        files::tensors(&whole.run_dir(), 6)
    );
}

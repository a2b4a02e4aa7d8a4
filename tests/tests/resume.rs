//! A run that was cut and continued is the run that was not, bit for bit: on one thread, in both
//! precisions, with the gate switching, and after kill -9 at any moment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::collections::BTreeSet;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use deepsim_experiment::checkpoint::CRASH_POINTS;
use deepsim_experiment::{Checkpoint, Experiment, Intent, RunDir, Start};
use deepsim_tests::files::{self, checkpoint_steps, column, losses, names, tensors};
use deepsim_tests::lab::{Lab, TODAY, TRAIN};
use deepsim_tests::ranks::bits;
use rustix::process::Signal;

/// All checkpoints kept, and thresholds right at the ratio of an untrained pair, 2 ln 2 / ln 2:
/// the gate switches often.
const NERVOUS: &str = "--set train.keep_checkpoints=4 --set gate.d_off_below=1.98 \
                       --set gate.d_on_above=1.99 --set gate.g_off_above=2.02 \
                       --set gate.g_on_below=2.01";

/// A decoder of patches, at a crop of which the features' map of 2×2 makes whole ones.
const PATCHES: &str = "--set data.crop=48 --set generator.width=1 --set generator.feature_noise=0.5 \
                       --set generator.trunk={vit={channels=32,blocks=2,heads=4,mlp=64}}";

fn cut_and_continued_equals_uncut(precision: &str, passes: &str) {
    let lab = Lab::new();
    let sets = format!(
        "{NERVOUS} --set train.precision={precision} --set train.discriminator_passes={passes}"
    );
    let train = |out: &str, rest: &str| {
        lab.train_into(out, &format!("{sets} {rest}")).exits(0);
    };
    train("whole", "--steps 8");
    train("cut", "--steps 4");
    assert_eq!(tensors(&lab.at("cut"), 4), tensors(&lab.at("whole"), 4));
    train("cut", "--steps 8 --resume");

    let (whole, cut) = (lab.at("whole"), lab.at("cut"));
    assert_eq!(tensors(&cut, 8), tensors(&whole, 8));
    // The cut run was also evaluated at its first end, step 4.
    let of_step = |line: &String| !line.contains("eval.") || line.contains("\"step\":8");
    let kept = |run| losses(run).into_iter().filter(of_step).collect::<Vec<_>>();
    assert_eq!(kept(&cut), kept(&whole));
    assert_eq!(kept(&cut).len(), 9);

    // All this says something only if the gate did switch, on both sides of the cut.
    let gates: Vec<(bool, bool)> = column(&whole, "gate.train_d")
        .iter()
        .zip(column(&whole, "gate.train_g"))
        .map(|(d, g)| (d.as_bool().unwrap(), g.as_bool().unwrap()))
        .collect();
    for half in [&gates[..4], &gates[4..]] {
        assert!(half.iter().collect::<BTreeSet<_>>().len() > 1, "{gates:?}");
    }
    let updates = |key| column(&whole, key).last().unwrap().as_u64().unwrap();
    assert!(
        updates("updates.g") < 8 || updates("updates.d") < 8,
        "{gates:?}"
    );
}

#[test]
fn cut_and_continued_equals_uncut_in_single_precision() {
    cut_and_continued_equals_uncut("fp32", "paper");
}

#[test]
fn cut_and_continued_equals_uncut_in_bf16() {
    cut_and_continued_equals_uncut("bf16", "paper");
}

#[test]
fn cut_and_continued_equals_uncut_with_one_pass_of_the_discriminator() {
    cut_and_continued_equals_uncut("fp32", "one");
}

#[test]
fn cut_and_continued_equals_uncut_with_one_pass_in_bf16() {
    cut_and_continued_equals_uncut("bf16", "one");
}

/// With vectors of power iterations, averages of scores, and means of terms that not every step has.
#[test]
fn cut_and_continued_equals_uncut_with_today_s_adversary() {
    let lab = Lab::new();
    for (precision, accumulate) in [("fp32", 1), ("bf16", 2)] {
        let at = |name: &str| format!("{name}-{precision}");
        let sets = format!(
            "{TODAY} --set train.precision={precision} --set train.accumulate={accumulate} --set train.log_every=2"
        );
        let train = |out: &str, rest: &str| {
            let out = at(out);
            lab.train_into(&out, &format!("{sets} {rest}")).exits(0);
        };
        train("whole", "--steps 6 --set train.checkpoint_every=3");
        train("cut", "--steps 3 --set train.checkpoint_every=3");
        train("cut", "--steps 6 --resume --set train.checkpoint_every=3");
        let (whole, cut) = (lab.at(&at("whole")), lab.at(&at("cut")));
        assert_eq!(tensors(&cut, 6), tensors(&whole, 6), "{precision}");
        let last = |run| losses(run).pop();
        assert_eq!(last(&cut), last(&whole), "{precision}");
        for key in ["loss.r1", "loss.lecam", "loss.adv_weight", "loss.adv"] {
            let values = column(&whole, key);
            assert!(values.iter().any(|v| v.as_f64().is_some()), "{key}");
        }
        assert!(bits(&cut).1 == bits(&whole).1, "{precision}");
    }
}

/// A decoder of patches: its positions are in the checkpoint and never change, its last layer weighs the terms, and what is
/// averaged is too.
#[test]
fn cut_and_continued_equals_uncut_with_a_decoder_of_patches() {
    let lab = Lab::new();
    for (precision, accumulate) in [("fp32", 2), ("bf16", 1)] {
        let at = |name: &str| format!("{name}-{precision}");
        let sets = format!(
            "{TODAY} {PATCHES} --set train.precision={precision} --set train.accumulate={accumulate} \
             --set ema.decay=0.9 --set train.checkpoint_every=2"
        );
        let train = |out: &str, rest: &str| {
            lab.train_into(&at(out), &format!("{sets} {rest}")).exits(0);
        };
        train("whole", "--steps 4");
        train("cut", "--steps 2");
        train("cut", "--steps 4 --resume");
        let (whole, cut) = (lab.at(&at("whole")), lab.at(&at("cut")));
        assert_eq!(tensors(&cut, 4), tensors(&whole, 4), "{precision}");
        assert_eq!(losses(&cut).pop(), losses(&whole).pop(), "{precision}");
        let weighed = column(&whole, "loss.adv_weight");
        assert!(weighed.iter().any(|v| v.as_f64().is_some()), "{weighed:?}");
    }
    // Another run begins with its weights, and one with another trunk does not.
    let from = format!("--set generator.weights={}", lab.text("whole-fp32"));
    lab.train_into("from", &format!("{PATCHES} {from} --steps 1"))
        .exits(0);
    // Noise on the features shows from the first step on.
    let still = PATCHES.replace("feature_noise=0.5", "feature_noise=0.0");
    lab.train_into("still", &format!("{still} {from} --steps 1"))
        .exits(0);
    let image = |out: &str| column(&lab.at(out), "loss.img")[0].as_f64().unwrap();
    assert!(image("from") != image("still"));
    lab.train_into("other", &format!("{from} --steps 1"))
        .refuses(&["generator.weights", "whose generator has the trunk"]);
}

/// A run may go on with another number of micro-batches. Its losses are the whole batch's but for rounding, and with one
/// number cut and continued equals uncut.
#[test]
fn micro_batches_train_as_the_whole_batch_does_and_their_number_may_change() {
    let lab = Lab::new();
    let train = |out: &str, steps: u64, accumulate: u64, rest: &str| {
        // Smooth steps: Adam's would amplify rounding where a gradient is nearly zero.
        let smooth = "--set optimizer.generator.eps=1 --set optimizer.discriminator.eps=1";
        let arguments =
            format!("--set train.accumulate={accumulate} {smooth} --steps {steps} {rest}");
        lab.train_into(out, &arguments).exits(0);
    };
    train("whole", 4, 1, "");
    train("split", 4, 2, "");
    train("cut", 2, 2, "");
    train("cut", 4, 2, "--resume");
    assert_eq!(tensors(&lab.at("cut"), 4), tensors(&lab.at("split"), 4));
    train("changed", 2, 2, "");
    train("changed", 4, 1, "--resume");
    for key in ["loss.feat", "loss.adv", "loss.img", "loss.discr_fake"] {
        let values = |out: &str| -> Vec<f64> {
            let column = column(&lab.at(out), key);
            column.iter().map(|v| v.as_f64().unwrap()).collect()
        };
        let whole = values("whole");
        assert_eq!(whole.len(), 4);
        for out in ["split", "changed"] {
            for (found, expected) in values(out).iter().zip(&whole) {
                let apart = (found - expected).abs() / expected.abs();
                assert!(apart < 1e-4, "{out}, {key}: {found} is not {expected}");
            }
        }
    }
}

/// Cut after each of its steps: among them are ends of an epoch, steps after which D or G is off, and steps right
/// after the gate has switched.
fn cut_everywhere_equals_uncut(precision: &str) {
    const STEPS: u64 = 8;
    const BATCH: u64 = 4;
    let lab = Lab::new();
    let sets = format!(
        "{NERVOUS} --set train.precision={precision} --set train.batch_size={BATCH} \
         --set train.checkpoint_every=1 --set train.keep_checkpoints=100"
    );
    let train = |out: &str, steps: u64, rest: &str| {
        lab.train_into(out, &format!("{sets} --steps {steps} {rest}"))
            .exits(0);
    };
    train("whole", STEPS, "");
    for step in 1..=STEPS {
        train("cut", step, if step > 1 { "--resume" } else { "" });
    }
    let (whole, cut) = (lab.at("whole"), lab.at("cut"));
    for step in 1..=STEPS {
        assert_eq!(tensors(&cut, step), tensors(&whole, step), "step {step}");
    }

    // What the cuts met.
    let gates = |key| column(&whole, key).into_iter().map(|v| v.as_bool());
    let gates: Vec<_> = gates("gate.train_d")
        .zip(gates("gate.train_g"))
        .map(|(d, g)| (d.unwrap(), g.unwrap()))
        .collect();
    let cuts = &gates[..STEPS as usize - 1];
    assert!(
        cuts.iter().any(|gate| !gate.0),
        "D was always on: {gates:?}"
    );
    assert!(
        cuts.windows(2).any(|pair| pair[0] != pair[1]),
        "no switch: {gates:?}"
    );
    assert_eq!(u64::from(TRAIN) % BATCH, 0, "no step ends an epoch");
    assert!(u64::from(TRAIN) / BATCH < STEPS, "no epoch ends");
}

#[test]
fn cut_after_every_step_equals_uncut_in_single_precision() {
    cut_everywhere_equals_uncut("fp32");
}

#[test]
fn cut_after_every_step_equals_uncut_in_bf16() {
    cut_everywhere_equals_uncut("bf16");
}

#[test]
fn a_run_keeps_its_passes_of_the_discriminator() {
    let lab = Lab::trained(2);
    lab.train("--resume --steps 4 --set train.discriminator_passes=one")
        .refuses(&["train.discriminator_passes: there \"paper\", here \"one\""]);

    // A run from before there was the key goes on as it began.
    let file = lab.run_dir().join("experiment.toml");
    let text = fs::read_to_string(&file).unwrap();
    let older: String = text
        .lines()
        .filter(|l| !l.starts_with("discriminator_passes"))
        .map(|l| format!("{l}\n"))
        .collect();
    assert_ne!(older, text);
    fs::write(&file, older).unwrap();
    lab.train("--resume --steps 3").exits(0);
}

/// The comparison above can fail: another seed, and another start of the same data, differ.
#[test]
fn another_seed_is_another_run() {
    let lab = Lab::new();
    lab.train_into("one", "--steps 2").exits(0);
    lab.train_into("same", "--steps 2").exits(0);
    lab.train_into("other", "--steps 2 --set train.seed=2")
        .exits(0);
    let (one, same, other) = (lab.at("one"), lab.at("same"), lab.at("other"));
    assert_eq!(tensors(&one, 2), tensors(&same, 2));
    assert_eq!(losses(&one), losses(&same));
    for (stem, bytes) in tensors(&other, 2) {
        assert_ne!(bytes, tensors(&one, 2)[stem], "{stem}");
    }
    assert_ne!(losses(&one)[0], losses(&other)[0]);
    let another = "--resume --steps 4 --set train.seed=2";
    lab.train_into("one", another)
        .refuses(&["train.seed: there 1, here 2"]);
}

/// The weights that a resumed run starts from are those of the checkpoint, all of them: with one
/// tensor's moments zeroed (and the manifest made to agree) the continuation differs.
#[test]
fn adam_s_moments_matter_to_the_continuation() {
    let lab = Lab::trained(4);
    let spoilt = lab.at("spoilt");
    files::copy(&lab.run_dir(), &spoilt);
    let at = files::checkpoint(&spoilt, 4);
    let file = at.join("state.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let n = bytes.len();
    bytes[n - 4096..].fill(0);
    fs::write(&file, &bytes).unwrap();
    let mut manifest = Checkpoint::open(&files::checkpoint(&lab.run_dir(), 4))
        .unwrap()
        .manifest;
    let entry = manifest.files.get_mut("state.safetensors").unwrap();
    entry.blake3 = deepsim_experiment::hash::hash_file(&file).unwrap();
    fs::write(at.join("manifest.json"), manifest.sealed().unwrap()).unwrap();
    for out in ["run", "spoilt"] {
        lab.train_into(out, "--steps 6 --resume").exits(0);
    }
    assert_ne!(tensors(&spoilt, 6), tensors(&lab.run_dir(), 6));
}

#[test]
fn killed_at_any_moment_it_loses_nothing_but_the_steps_since_the_last_checkpoint() {
    const STEPS: u64 = 60;
    let lab = Lab::new();
    let sets = [
        "train.checkpoint_every=1",
        "train.sample_every=7",
        "train.steps=60",
    ];
    let rest = sets.map(|set| format!("--set {set}")).join(" ");
    lab.train_into("whole", &rest).exits(0);

    let mut moments = Vec::new();
    for _ in 0..5 {
        let before = checkpoint_steps(&lab.run_dir())
            .last()
            .copied()
            .unwrap_or(0);
        let mut running = lab.start(&format!("{rest} --resume"));
        let pid = running.pid();
        running.until(|| {
            checkpoint_steps(&lab.run_dir())
                .last()
                .is_some_and(|&s| s > before)
        });
        // A different moment of a step, mostly within the writing of a checkpoint, each time.
        let micros = RandomState::new().hash_one(before) % 120_000;
        std::thread::sleep(Duration::from_micros(micros));
        let ran = running.signal(Signal::KILL);
        assert_ne!(
            ran.code,
            Some(0),
            "it was done before it was killed: raise STEPS"
        );
        moments.push((before, micros));

        // What is visible is whole; what is not, is nobody's; and the dead hold no lock.
        let visible = checkpoint_steps(&lab.run_dir());
        let newest = *visible.last().unwrap();
        for &step in &visible {
            Checkpoint::open(&files::checkpoint(&lab.run_dir(), step))
                .unwrap_or_else(|e| panic!("after {moments:?}: {e}"));
        }
        assert_eq!(
            fs::read_to_string(lab.at("run/lock")).unwrap().trim(),
            pid.to_string()
        );
        let experiment = Experiment::load(&lab.experiment(), &sets.map(str::to_owned)).unwrap();
        let (_run, start) = RunDir::open(&lab.run_dir(), &experiment, Intent::Resume, 1).unwrap();
        match start {
            // A checkpoint that was whole and not yet visible becomes visible when the run is opened.
            Start::From(checkpoint) => {
                let opened = checkpoint.manifest.step;
                assert!(
                    opened == newest || opened == newest + 1,
                    "after {moments:?}: {opened}"
                );
                assert_eq!(checkpoint_steps(&lab.run_dir()).last(), Some(&opened));
            }
            other => panic!("after {moments:?}: {other:?}"),
        }
        let names = names(&lab.at("run/checkpoints"));
        assert!(
            !names.iter().any(|name| name.starts_with(".partial-")),
            "half-written checkpoints go when the run is opened: {names:?}"
        );
    }
    lab.train(&format!("{rest} --resume")).exits(0);
    assert_eq!(
        tensors(&lab.run_dir(), STEPS),
        tensors(&lab.at("whole"), STEPS),
        "killed at {moments:?}"
    );
    assert_eq!(
        losses(&lab.run_dir()),
        losses(&lab.at("whole")),
        "killed at {moments:?}"
    );
}

/// The commit of step 3 ends at each of its moments in turn (the removal of step 2 for the last).
#[test]
fn a_crash_at_any_point_of_a_commit_loses_at_most_that_checkpoint() {
    let lab = Lab::new();
    let rest = "--set train.checkpoint_every=1 --set train.keep_checkpoints=1 --steps 4";
    lab.train_into("whole", rest).exits(0);
    for point in CRASH_POINTS {
        let out = format!("at-{point}");
        let step = match point {
            "older-hidden" => 2,
            _ => 3,
        };
        let asked = format!("{point}@{step}");
        lab.crash(&out, rest, &asked);
        let dir = lab.at(&out);
        let visible = checkpoint_steps(&dir);
        // From the rename on the new one counts; before, the old one is untouched.
        let renamed = ["renamed", "parent-synced", "older-hidden"].contains(&point);
        assert_eq!(
            visible.last(),
            Some(if renamed { &3 } else { &2 }),
            "{asked}"
        );
        for &step in &visible {
            Checkpoint::open(&files::checkpoint(&dir, step))
                .unwrap_or_else(|e| panic!("{asked}: {e}"));
        }
        lab.train_into(&out, &format!("{rest} --resume")).exits(0);
        assert_eq!(tensors(&dir, 4), tensors(&lab.at("whole"), 4), "{asked}");
        assert_eq!(losses(&dir), losses(&lab.at("whole")), "{asked}");
    }
}

/// With a rate at which products of a few layers overflow: it stops and says which loss, or goes back
/// and on at lower rates, and both leave checkpoints that can be used.
#[test]
fn numbers_that_are_not_finite_stop_it_or_lower_the_rate() {
    let lab = Lab::new();
    let wild = "--set optimizer.generator.lr=30 --set train.checkpoint_every=1000";
    lab.train_into("stops", &format!("{wild} --steps 4"))
        .exits(1)
        .says(&["is", "there is no checkpoint yet", "not_finite=halve"]);

    // The loss is finite, its weighted gradient is not: it stops at that step, not at the next one.
    lab.train_into("steep", "--set loss.img=1e38 --steps 4")
        .exits(1)
        .says(&["step 1: the generator's gradient is"]);
    assert!(checkpoint_steps(&lab.at("steep")).is_empty());

    let halve = format!("{wild} --set train.not_finite=halve");
    let ran = lab
        .train_into("lowers", &format!("{halve} --steps 4"))
        .exits(0);
    let ran = ran.says(&["back to the last checkpoint", "half the learning rates"]);
    let lowers = lab.at("lowers");
    let rates: Vec<f64> = column(&lowers, "lr")
        .iter()
        .map(|v| v.as_f64().unwrap())
        .collect();
    assert!(rates.last().unwrap() <= &15.0, "{rates:?}\n{}", ran.stderr);
    for step in checkpoint_steps(&lowers) {
        Checkpoint::open(&files::checkpoint(&lowers, step)).unwrap();
    }
    // What was lowered stays so.
    lab.train_into("lowers", &format!("{halve} --resume --steps 5"))
        .exits(0);
    let after = column(&lowers, "lr").last().unwrap().as_f64().unwrap();
    assert!(after <= *rates.last().unwrap());
}

/// Going back writes the checkpoint once more, with the lowered rates: the only good one is replaced, and at no moment
/// is there none.
#[test]
fn a_crash_while_a_checkpoint_is_replaced_leaves_one_of_the_two() {
    for (point, halvings) in [("mode-set", 1), ("renamed", 2), ("parent-synced", 2)] {
        let lab = Lab::new();
        let rest = "--set optimizer.generator.lr=60 --steps 4 --set train.checkpoint_every=1000 \
                    --set train.not_finite=halve --resume";
        let crash = |at: &str| {
            lab.crash("run", rest, &format!("{at}@0"));
            let dir = lab.run_dir();
            assert_eq!(checkpoint_steps(&dir), [0], "{at}");
            let checkpoint = Checkpoint::open(&files::checkpoint(&dir, 0)).unwrap();
            checkpoint.state().unwrap().1["halvings"]
        };
        // The first time there is none to replace.
        assert_eq!(crash("parent-synced"), 1);
        assert_eq!(crash(point), halvings, "{point}");
        lab.train(rest).exits(0);
        let names = names(&lab.at("run/checkpoints"));
        assert!(names.iter().all(|n| n.starts_with("step-")), "{names:?}");
    }
}

#[test]
fn half_written_checkpoints_are_never_read_and_go() {
    let lab = Lab::trained(2);
    let half = lab.at("run/checkpoints/.partial-step-000000004-abcdef");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("generator.safetensors"), "half").unwrap();
    lab.train("--steps 4 --resume")
        .says(&["resumed at step 2 of 4"])
        .exits(0);
    assert!(!half.exists());
    assert_eq!(checkpoint_steps(&lab.run_dir()), [2, 4]);
}

/// Found by thinking: a run that passed over a damaged newest checkpoint and kept only one
/// deleted each good one as it was written, because the damaged one counted as newer.
#[test]
fn a_damaged_checkpoint_is_passed_over_and_does_not_cost_the_good_ones() {
    let lab = Lab::trained(4);
    files::flip_a_byte(&files::checkpoint(&lab.run_dir(), 4).join("generator.safetensors"));
    let keep_one = "--steps 3 --resume --set train.keep_checkpoints=1";
    lab.train(keep_one).exits(0).says(&[
        "passed over",
        "step-000000004",
        "generator.safetensors is damaged",
        "resumed at step 2 of 3",
    ]);
    Checkpoint::open(&files::checkpoint(&lab.run_dir(), 3)).unwrap();

    // And the damaged one is replaced when its step comes, by what it should have been.
    lab.train("--steps 4 --resume").exits(0);
    let fresh = Lab::trained(4);
    assert_eq!(tensors(&lab.run_dir(), 4), tensors(&fresh.run_dir(), 4));
}

//! Iterations that are recorded once and replayed, on a CPU: there what was recorded is computed again, from the tensors in
//! which a recording keeps its inputs, and nothing else of it is used. `cuda.rs` holds CUDA graphs against the same.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod experiments;
mod replays;

use deepsim_experiment::Experiment;
use deepsim_train::method::Captured;
use deepsim_train::method::captured::WARM_UP;
use deepsim_train::method::gate::Gate;
use experiments::{saved, shipped, values};
use replays::{BOTH, Run, TURNS};
use tch::Device;

/// Steps before an iteration is replayed, where the gate stays.
const WARM: u64 = WARM_UP as u64;

fn small(sets: &str) -> Experiment {
    let small = "encoder.net=alexnet encoder.weights=random:1 comparator.net=alexnet comparator.weights=random:1 \
                 data.crop=64 generator.width=0.1 train.precision=fp32";
    shipped("conv5.toml", &format!("{small} {sets}"))
}

fn recording() -> Captured {
    Captured::on(Device::Cpu).unwrap()
}

#[test]
fn replays_are_the_iterations_bit_for_bit_whatever_the_gate_does() {
    let steps = 3 * (WARM + 2);
    for passes in ["paper", "one"] {
        let experiment = small(&format!("train.discriminator_passes={passes}"));
        let of = |captured| {
            let mut run = Run::new(&experiment, Device::Cpu, captured);
            run.advance(steps, &TURNS);
            run
        };
        let (plain, replayed) = (of(Captured::off()), of(recording()));
        assert_eq!(replayed.losses, plain.losses, "{passes}");
        // Counters, too.
        assert!(values(&replayed.state) == values(&plain.state), "{passes}");
        let updates = 2 * (WARM + 2);
        assert_eq!(replayed.state.updates(), [updates, updates, 0], "{passes}");
        let gates = [(true, true), (false, true), (true, false)];
        let gates = gates.map(|(train_d, train_g)| Gate { train_d, train_g });
        assert_eq!(replayed.captured.recorded(), gates, "{passes}");
        assert!(plain.captured.recorded().is_empty());
    }
}

#[test]
fn an_iteration_is_recorded_when_it_is_warm_and_anew_with_other_rates() {
    let experiment = small("");
    let mut replayed = Run::new(&experiment, Device::Cpu, recording());
    let mut plain = Run::new(&experiment, Device::Cpu, Captured::off());
    let both = |run: &mut Run, to| {
        run.advance(to, &[BOTH]);
        run.captured.recorded().len()
    };
    assert_eq!(both(&mut replayed, WARM), 0);
    assert_eq!(both(&mut replayed, WARM + 2), 1);
    both(&mut plain, WARM + 2);
    for run in [&mut replayed, &mut plain] {
        run.state.halvings += 1;
    }
    assert_eq!(both(&mut replayed, WARM + 3), 0);
    assert_eq!(both(&mut replayed, 2 * WARM + 4), 1);
    both(&mut plain, 2 * WARM + 4);
    assert_eq!(replayed.losses, plain.losses);
    assert!(values(&replayed.state) == values(&plain.state));
}

#[test]
fn a_resumed_state_is_recorded_anew_and_ends_where_the_whole_run_ends() {
    let experiment = small("");
    let (half, end) = (WARM + 2, 2 * WARM + 4);
    let mut whole = Run::new(&experiment, Device::Cpu, recording());
    whole.advance(half, &[BOTH]);
    let folder = tempfile::tempdir().unwrap();
    let saved = saved(folder.path(), &experiment, &whole.perception, &whole.state);
    // A recording of other tensors must not be used, even if it is there.
    let other = std::mem::replace(&mut whole.captured, recording());
    let mut resumed = Run::resumed(&experiment, Device::Cpu, other, &saved);
    assert_eq!(resumed.captured.recorded().len(), 1);
    resumed.advance(half + 1, &[BOTH]);
    assert!(resumed.captured.recorded().is_empty());
    resumed.advance(end, &[BOTH]);
    assert_eq!(resumed.captured.recorded().len(), 1);
    whole.advance(end, &[BOTH]);
    assert!(values(&resumed.state) == values(&whole.state));
}

/// Averages of weights follow in a replay, too, and a stage without the discriminator is another iteration, which opens the
/// gate before it is looked up.
#[test]
fn averages_follow_replays_and_a_stage_is_recorded_anew() {
    let begins = 3 * (WARM + 1);
    let stage = format!("ema.decay=0.9 stage=[{{from={begins},loss={{adv=0}}}}]");
    let experiment = small(&stage);
    let of = |captured| {
        let mut run = Run::new(&experiment, Device::Cpu, captured);
        run.advance(begins, &TURNS);
        let before = run.captured.recorded().len();
        run.advance(begins + WARM + 2, &TURNS);
        (run, before)
    };
    let (plain, _) = of(Captured::off());
    let (replayed, before) = of(recording());
    assert_eq!(
        (before, replayed.captured.recorded()),
        (3, vec![Gate::open()])
    );
    let terms = |run: &Run| -> Vec<_> { run.losses.iter().map(|l| l.terms.clone()).collect() };
    assert_eq!(terms(&replayed), terms(&plain));
    assert!(values(&replayed.state) == values(&plain.state));
}

#[test]
fn what_the_host_has_a_part_in_is_not_recorded() {
    for sets in [
        "train.accumulate=2",
        "schedule.warmup=2",
        "schedule.decay=cosine schedule.until=9",
        "ema.decay=0.9 ema.warmup=true",
        "adversary.augment.color=true",
    ] {
        let experiment = small(sets);
        let mut run = Run::new(&experiment, Device::Cpu, recording());
        run.advance(WARM + 2, &[BOTH]);
        assert!(run.captured.recorded().is_empty(), "{sets}");
    }
}

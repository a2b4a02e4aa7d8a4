//! What is left of a learning rate.

use std::f64::consts::PI;

use deepsim_experiment::config::{Decay, Schedule};

/// The factor of a network's learning rate at its next update: after `step` iterations of the run, `updates` of which
/// have updated it, and so many halvings because a number was not finite.
///
/// Warm-up and halvings go by the network's own updates, as Adam's moments do: they are what a warm-up waits for, and a
/// network that the gate pauses, or that begins late, has made fewer. The cosine goes by the run's steps. Were it to go by
/// updates, that of a network that pauses would never reach its end.
pub fn rate(schedule: &Schedule, halvings: u64, step: u64, updates: u64) -> f64 {
    let halve_at = schedule.halve_at.iter();
    let passed = halve_at.filter(|&&at| updates >= at).count() as u64;
    let halved = 0.5f64.powi(i32::try_from(halvings + passed).unwrap_or(i32::MAX));
    halved * warmed_up(schedule, updates) * fallen(schedule, step)
}

/// Linear: `1/warmup` at the first update, 1 at that of number `warmup`.
fn warmed_up(schedule: &Schedule, updates: u64) -> f64 {
    if updates >= schedule.warmup {
        return 1.0;
    }
    (updates + 1) as f64 / schedule.warmup as f64
}

fn fallen(schedule: &Schedule, step: u64) -> f64 {
    let (Decay::Cosine, Some(until)) = (schedule.decay, schedule.until) else {
        return 1.0;
    };
    let length = until.saturating_sub(schedule.warmup).max(1);
    let gone = step.saturating_sub(schedule.warmup).min(length);
    let left = 0.5 * (1.0 + (PI * gone as f64 / length as f64).cos());
    schedule.min + (1.0 - schedule.min) * left
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Schedule = Schedule {
        halve_at: Vec::new(),
        warmup: 0,
        decay: Decay::None,
        until: None,
        min: 0.0,
    };

    #[test]
    fn rates_halve_at_a_network_s_own_updates() {
        let schedule = Schedule {
            halve_at: vec![300, 500, 700],
            ..NONE
        };
        let rate = |halvings, updates| rate(&schedule, halvings, 9_999, updates);
        assert_eq!(rate(0, 299), 1.0);
        assert_eq!(rate(0, 300), 0.5);
        assert_eq!(rate(0, 699), 0.25);
        assert_eq!(rate(0, 10_000), 0.125);
        assert_eq!(rate(2, 300), 0.125);
    }

    #[test]
    fn a_network_warms_up_by_its_updates_and_cools_down_by_the_steps_of_the_run() {
        let schedule = Schedule {
            warmup: 4,
            decay: Decay::Cosine,
            until: Some(104),
            min: 0.1,
            ..NONE
        };
        let rate = |step, updates| rate(&schedule, 0, step, updates);
        let all: Vec<f64> = (0..6).map(|n| rate(n, n)).collect();
        assert_eq!(all[..5], [0.25, 0.5, 0.75, 1.0, 1.0]);
        assert!(all[5] < 1.0);
        assert!((rate(54, 54) - 0.55).abs() < 1e-12);
        assert!((rate(104, 104) - 0.1).abs() < 1e-12);
        assert_eq!(rate(104, 104), rate(1_000_000, 9_000));
        // One that was paused for fifty steps, and one that begins there.
        assert_eq!(rate(54, 4), rate(54, 54));
        assert!((rate(54, 0) - 0.25 * 0.55).abs() < 1e-12);
    }
}

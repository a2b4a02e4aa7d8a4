//! Trainings that end by time: each for so many seconds of the run's own clock, which counts from the first step's
//! preparation to the checkpoint, and not the opening of weights and images.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use deepsim_tools::programs::Programs;
use deepsim_tools::training::{self, Outcome, Training};
use deepsim_tools::workspace::Workspace;

/// A run whose time differs from its own by no more than this share has had it.
const TOLERANCE: f64 = 0.02;
/// The share of a lone first start's seconds that is given to a training: what is read for the first time takes longer than
/// ever again, and a training that had too much time cannot be used.
const COLD: f64 = 0.5;
/// How often a training is started for the time that it lacks.
const STARTS: usize = 6;

/// Stops trainings when their time is over.
#[derive(Debug, Default)]
pub struct Clock {
    /// The shortest that a start took, seconds; of the first one, the share [`COLD`].
    start: Option<f64>,
}

/// Seconds that a run has been trained for; 0 before its first checkpoint.
///
/// # Errors
/// A manifest that cannot be read.
pub fn seconds(ws: &Workspace, training: &Training) -> Result<f64> {
    let manifest = training::newest_manifest(&ws.path(&training.run))?;
    Ok(manifest.and_then(|m| m["seconds"].as_f64()).unwrap_or(0.0))
}

/// Whether a run has had its time.
///
/// # Errors
/// A run that has had more.
pub fn is_done(training: &Training, had: f64, budget: f64) -> Result<bool> {
    if had > (1.0 + TOLERANCE) * budget {
        bail!(
            "{} has been trained for {had:.1} s of {budget:.1}: delete it, and it is trained again",
            training.run.display()
        );
    }
    Ok(had >= (1.0 - TOLERANCE) * budget)
}

impl Clock {
    /// Trains until the run has had `budget` seconds. One that has had them is left alone.
    ///
    /// # Errors
    /// A failed or interrupted training; one whose steps are done before its time is over, that gains no time, or that had
    /// more than its own.
    pub fn train(
        &mut self,
        ws: &Workspace,
        programs: &Programs,
        training: &Training,
        budget: f64,
    ) -> Result<()> {
        for _ in 0..STARTS {
            let before = seconds(ws, training)?;
            if is_done(training, before, budget)? {
                return Ok(());
            }
            let begun = Instant::now();
            let room = budget - before + self.start.unwrap_or(0.0);
            let deadline = begun + Duration::from_secs_f64(room);
            if training.run(ws, programs, Some(deadline))? == Outcome::Finished {
                bail!(
                    "{} did all of its steps before its time was over",
                    training.run.display()
                );
            }
            let gained = seconds(ws, training)? - before;
            let took = (begun.elapsed().as_secs_f64() - gained).max(0.0);
            self.start = Some(self.start.map_or(COLD * took, |least| least.min(took)));
        }
        let had = seconds(ws, training)?;
        if is_done(training, had, budget)? {
            return Ok(());
        }
        bail!(
            "{} has been trained for {had:.0} s of {budget:.0} after {STARTS} starts",
            training.run.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deepsim_tools::testing::{stand_in, workspace};

    fn training() -> Training {
        Training {
            experiment: "experiments/quickstart.toml".to_owned(),
            run: "runs/x".into(),
            extra: Vec::new(),
            again: String::new(),
        }
    }

    /// A trainer that has had so many seconds after its first, second, … start, and is stopped by SIGTERM. It is stopped
    /// between two commands, or before it has done anything.
    fn trainer(folder: &std::path::Path, seconds: &str) -> Programs {
        let script = format!(
            r#"trap 'exit 143' TERM
echo x >> starts
mkdir -p runs/x/checkpoints/step-000000001
set -- {seconds}
shift $(($(wc -l < starts) - 1))
echo "{{\"seconds\": $1}}" > runs/x/checkpoints/step-000000001/manifest.json
while true; do sleep 0.01; done"#
        );
        stand_in(folder, "deepsim-train", &script);
        Programs::at(folder, &["deepsim-train"]).unwrap()
    }

    fn starts(ws: &Workspace) -> usize {
        let text = std::fs::read_to_string(ws.path("starts")).unwrap_or_default();
        text.lines().count()
    }

    #[test]
    fn a_run_goes_on_until_it_has_had_its_time_and_is_left_alone_then() {
        let (folder, ws) = workspace();
        let programs = trainer(folder.path(), "0.2 0.4 0.4 0.4 0.4 0.4");
        let mut clock = Clock::default();
        clock.train(&ws, &programs, &training(), 0.4).unwrap();
        let needed = starts(&ws);
        assert!(needed >= 2);
        clock.train(&ws, &programs, &training(), 0.4).unwrap();
        assert_eq!(starts(&ws), needed);
        assert!(clock.start.is_some());
    }

    #[test]
    fn a_run_that_had_more_than_its_time_is_none_of_the_comparison() {
        let done = |had| is_done(&training(), had, 0.4);
        assert!(done(0.4).unwrap() && done(0.395).unwrap() && done(0.405).unwrap());
        assert!(!done(0.3).unwrap());
        let error = done(0.5).unwrap_err().to_string();
        assert!(
            error.contains("runs/x") && error.contains("delete it"),
            "{error}"
        );
    }

    #[test]
    fn a_training_that_gains_no_time_is_given_up() {
        let (folder, ws) = workspace();
        let programs = trainer(folder.path(), "0 0 0 0 0 0");
        let error = Clock::default().train(&ws, &programs, &training(), 0.1);
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("runs/x") && error.contains("6 starts"),
            "{error}"
        );
        assert!(starts(&ws) <= STARTS);
    }
}

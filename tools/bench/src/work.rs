//! The training works: which experiment each of them takes, at which size.

use std::path::Path;

use anyhow::Result;
use deepsim_experiment::Experiment;

/// A training work: one iteration of an experiment that ships with the project, with random
/// weights (the same for every contender), at a batch size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Training {
    /// The name on the command line.
    pub name: &'static str,
    file: &'static str,
    text: &'static str,
    /// What is inverted, where it is not what the file says.
    tap: Option<&'static str>,
    batch: usize,
    /// `train.discriminator_passes`.
    passes: &'static str,
    /// `data.crop`, where it is not what the file says.
    crop: Option<u32>,
    /// `generator.width`, where it is not what the file says.
    width: Option<f64>,
}

/// Sizes that differ from those of a work.
#[derive(Debug, Clone, Copy, Default, PartialEq, clap::Args)]
pub struct Sizes {
    /// Images of a step
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Side of the images, pixels
    #[arg(long, value_name = "PIXELS")]
    pub crop: Option<u32>,
    /// Multiplies the channels of the generator
    #[arg(long, value_name = "FACTOR")]
    pub width: Option<f64>,
}

macro_rules! experiment {
    ($file:literal) => {
        (
            concat!("experiments/", $file),
            include_str!(concat!("../../../experiments/", $file)),
        )
    };
}
const FC6: (&str, &str) = experiment!("fc6.toml");
const SAMPLE: (&str, &str) = experiment!("quickstart.toml");

const fn work(name: &'static str, from: (&'static str, &'static str), batch: usize) -> Training {
    Training {
        name,
        file: from.0,
        text: from.1,
        tap: None,
        batch,
        passes: "paper",
        crop: None,
        width: None,
    }
}

const fn one_pass(
    name: &'static str,
    from: (&'static str, &'static str),
    batch: usize,
) -> Training {
    Training {
        passes: "one",
        ..work(name, from, batch)
    }
}

/// The paper's CONV5: `experiments/conv5.toml` is `fc6.toml` but for what is inverted.
const fn conv5(work: Training) -> Training {
    Training {
        tap: Some("pool5"),
        ..work
    }
}

/// All of them.
pub const TRAINING: [Training; 7] = [
    work("fc6_b64", FC6, 64),
    conv5(work("conv5_b64", FC6, 64)),
    one_pass("fc6_b64_one_pass", FC6, 64),
    conv5(one_pass("conv5_b64_one_pass", FC6, 64)),
    work("fc6_b16", FC6, 16),
    conv5(work("conv5_b16", FC6, 16)),
    work("sample", SAMPLE, 8),
];

impl Training {
    /// The work of this name.
    pub fn find(name: &str) -> Option<&'static Training> {
        TRAINING.iter().find(|work| work.name == name)
    }

    /// The same work at other sizes.
    pub fn sized(&self, sizes: &Sizes) -> Training {
        Training {
            batch: sizes.batch.unwrap_or(self.batch),
            crop: sizes.crop.or(self.crop),
            width: sizes.width.or(self.width),
            ..*self
        }
    }

    /// The experiment as it ships, but for the batch size, the random weights of its frozen
    /// networks, the arithmetic (fp32, tf32 or bf16), cuDNN's choice by trial, and a gate that never closes: every iteration is one step of D
    /// and one of G.
    ///
    /// # Errors
    /// An experiment file that is not valid.
    pub fn experiment(&self, precision: &str) -> Result<Experiment> {
        let (precision, tf32) = match precision {
            "tf32" => ("fp32", "on"),
            given => (given, "off"),
        };
        let mut sets = vec![
            "encoder.weights=random:1".to_owned(),
            "comparator.weights=random:1".to_owned(),
            format!("train.batch_size={}", self.batch),
            format!("train.precision={precision}"),
            format!("train.tf32={tf32}"),
            "train.deterministic=false".to_owned(),
            format!("train.discriminator_passes={}", self.passes),
            "gate.d_off_below=-1.0".to_owned(),
            "gate.g_off_above=1e300".to_owned(),
        ];
        sets.extend(self.tap.map(|tap| format!("encoder.tap={tap}")));
        sets.extend(self.crop.map(|crop| format!("data.crop={crop}")));
        // With a decimal point: it is no whole number to TOML.
        let width = self.width.map(|width| format!("generator.width={width:?}"));
        sets.extend(width);
        Ok(Experiment::parse(self.text, Path::new(self.file), &sets)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deepsim_train::method::gate::Gate;

    #[test]
    fn conv5_is_the_experiment_of_that_name() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/conv5.toml");
        let work = Training::find("conv5_b64").unwrap();
        let mut timed = work.experiment("fp32").unwrap();
        let mut sets = timed.overrides.clone();
        sets.retain(|set| !set.starts_with("encoder.tap="));
        let shipped = Experiment::load(&file, &sets).unwrap();
        timed.config.name.clone_from(&shipped.config.name);
        assert_eq!(timed.config, shipped.config);
    }

    #[test]
    fn sizes_change_what_they_name_and_nothing_else() {
        let work = Training::find("conv5_b16").unwrap();
        assert_eq!(work.sized(&Sizes::default()), *work);
        let other = work.sized(&Sizes {
            batch: Some(1),
            crop: Some(64),
            width: Some(2.0),
        });
        let config = other.experiment("bf16").unwrap().config;
        assert_eq!((config.train.batch_size, config.data.crop), (1, 64));
        assert_eq!(config.generator.width, 2.0);
        let too_large = work.sized(&Sizes {
            crop: Some(512),
            ..Sizes::default()
        });
        assert!(too_large.experiment("fp32").is_err());
    }

    #[test]
    fn every_work_is_a_valid_experiment_whose_gate_stays_open() {
        for work in TRAINING {
            let experiment = work.experiment("fp32").unwrap();
            assert_eq!(experiment.config.train.batch_size, work.batch);
            for (d, adv) in [(0.0, 1e9), (1e9, 1e-9), (1.0, 0.0)] {
                let mut gate = Gate::open();
                gate.update(&experiment.config.gate.unwrap(), d, d, adv);
                // adv = 0 gives an infinite ratio; cross entropies are never exactly 0.
                assert!(
                    gate == Gate::open() || adv == 0.0,
                    "{}: {gate:?}",
                    work.name
                );
            }
        }
        assert!(Training::find("fc6_b64").is_some());
        assert!(Training::find("fc7_b64").is_none());
    }
}

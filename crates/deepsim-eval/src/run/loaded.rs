//! A trained run, opened for reading.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use deepsim_data::terminal::path as shown;
use deepsim_data::{Augment, Dataset, Flow, Overlap, shared_images};
use deepsim_experiment::measure::{self, Images};
use deepsim_experiment::{Checkpoint, Consent, Experiment, ModelWeights, Perception, run_dir};
use deepsim_nets::Generator;
use tch::Device;

use crate::error::{EvalError, Result};
use crate::run::catalog;

/// A run with its networks: the generator of its newest checkpoint, with averaged weights where it keeps some and no others
/// were asked for, and the frozen networks, checked to be those that it was trained with.
#[derive(Debug)]
pub struct Loaded {
    /// The run directory.
    pub path: PathBuf,
    /// Its experiment.
    pub experiment: Experiment,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Encoder and comparator.
    pub perception: Perception,
    /// The generator.
    pub generator: Generator,
    /// Where it computes.
    pub device: Device,
    weights: ModelWeights,
}

/// Held-out images that are measured.
pub struct HeldOutImages {
    /// All that there are.
    pub data: Dataset,
    /// Which of them.
    pub chosen: Vec<usize>,
    /// How they are cut.
    pub augment: Augment,
    /// Where to compute.
    pub device: Device,
}

impl HeldOutImages {
    /// For a measurement.
    pub fn images(&self) -> Images<'_> {
        Images {
            data: &self.data,
            augment: &self.augment,
            chosen: &self.chosen,
            device: self.device,
        }
    }
}

impl Loaded {
    /// Opens a run directory.
    ///
    /// # Errors
    /// No experiment or checkpoint there; damaged files; an experiment file or weights that changed since; TorchScript
    /// modules without consent.
    pub fn open(path: &Path, consent: &Consent, device: Device) -> Result<Loaded> {
        catalog::check(path)?;
        let (experiment, checkpoint) = run_dir::read(path)?;
        let permit = consent.on_run(path, &checkpoint.manifest);
        let mut perception = Perception::open(&experiment, &permit, device)?;
        let then = &checkpoint.manifest;
        for (table, is) in perception.hashes() {
            let was = then.sources().find(|(known, _)| *known == table);
            let was = was.map_or("nothing", |(_, was)| was);
            same(path, &format!("{table}.weights"), was, is)?;
        }
        let weights = consent.weights();
        perception.restore(&checkpoint, weights)?;
        let generator = checkpoint.generator_of(weights, device)?;
        Ok(Loaded {
            path: path.to_owned(),
            experiment,
            checkpoint,
            perception,
            generator,
            device,
            weights,
        })
    }

    /// The held-out images, checked to be those of the training.
    ///
    /// # Errors
    /// Missing or changed images.
    pub fn test_data(&self) -> Result<Dataset> {
        let data = Dataset::open_and_tell(&self.experiment.config.data.test)?;
        same(
            &self.path,
            "data.test",
            &self.checkpoint.manifest.test_data,
            &data.digest(),
        )?;
        Ok(data)
    }

    /// The held-out images to measure: all, or `limit` of them spread evenly.
    ///
    /// # Errors
    /// As [`Loaded::test_data`].
    pub fn held_out(&self, limit: usize) -> Result<HeldOutImages> {
        Ok(self.images_of(self.test_data()?, limit))
    }

    /// Images of another dataset to measure in place of the held-out ones, cut as those: all, or `limit` of them spread
    /// evenly.
    ///
    /// # Errors
    /// Images that are not there.
    pub fn images_at(&self, path: &Path, limit: usize) -> Result<HeldOutImages> {
        Ok(self.images_of(Dataset::open_and_tell(path)?, limit))
    }

    fn images_of(&self, data: Dataset, limit: usize) -> HeldOutImages {
        HeldOutImages {
            chosen: measure::chosen(&data, limit),
            data,
            augment: self.experiment.augment(),
            device: self.device,
        }
    }

    /// How many of the held-out images are training images too; none where the training images are not there
    /// any more. Where there are some, `warn` is told.
    ///
    /// # Errors
    /// Images that cannot be read.
    pub fn overlap(
        &self,
        of: &HeldOutImages,
        mut warn: impl FnMut(String),
    ) -> Result<Option<usize>> {
        let found = self.shared(of)?;
        if let Some(count) = found.filter(|n| *n > 0) {
            let n = of.chosen.len();
            let which = if count == n {
                format!("all {n} held-out images are")
            } else {
                format!("{count} of {n} held-out images are also")
            };
            warn(format!(
                "{}: {which} training images: errors are not those of unseen images",
                shown(&self.path)
            ));
        }
        Ok(found)
    }

    /// How many of the images are training images, without a word.
    fn shared(&self, of: &HeldOutImages) -> Result<Option<usize>> {
        // What the training counted holds where both sets are the same.
        let then = &self.checkpoint.manifest;
        if then.held_out_overlap == Some(0) && then.test_data == of.data.digest() {
            return Ok(Some(0));
        }
        let Ok(train) = self.train_data() else {
            return Ok(None);
        };
        Ok(match shared_images(&train, &of.data, &|| Flow::Continue)? {
            Overlap::Images(shared) => {
                let is_shared = |i: &&usize| shared.binary_search(i).is_ok();
                Some(of.chosen.iter().filter(is_shared).count())
            }
            Overlap::NotComparable(_) => None,
        })
    }

    /// What processes that evaluate it must agree on, by name: its name, the digest of its checkpoint, whose manifest
    /// says which experiment, weights and images are the run's, and which of the weights are taken.
    ///
    /// # Errors
    /// None of ours.
    pub fn facts(&self) -> Result<BTreeMap<String, String>> {
        let manifest = self.checkpoint.manifest.sealed();
        let manifest = manifest.map_err(|e| EvalError::Format(e.to_string()))?;
        let digest = blake3::hash(&manifest).to_hex().to_string();
        Ok(BTreeMap::from([
            ("the run".to_owned(), catalog::name(&self.path)),
            ("the checkpoint of the run".to_owned(), digest),
            (
                "the choice of its weights".to_owned(),
                self.weights.name().to_owned(),
            ),
        ]))
    }

    /// The training images, checked to be those of the training.
    ///
    /// # Errors
    /// Missing or changed images.
    pub fn train_data(&self) -> Result<Dataset> {
        let data = Dataset::open_and_tell(&self.experiment.config.data.train)?;
        same(
            &self.path,
            "data.train",
            &self.checkpoint.manifest.train_data,
            &data.digest(),
        )?;
        Ok(data)
    }
}

pub(crate) fn same(run: &Path, what: &str, was: &str, is: &str) -> Result<()> {
    if was == is {
        return Ok(());
    }
    let cut = |s: &str| s.chars().take(16).collect();
    Err(EvalError::InputChanged {
        run: run.to_owned(),
        what: what.to_owned(),
        was: cut(was),
        is: cut(is),
    })
}

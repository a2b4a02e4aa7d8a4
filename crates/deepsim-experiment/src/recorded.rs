//! Recorded features as an encoder: which of them belongs to which image, and their scale.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use deepsim_data::names::{canonical, visible};
use deepsim_data::{Dataset, DatasetKind, Part};
use tch::{Device, Kind, Tensor};

use crate::checkpoint::{Checkpoint, SCALE_FILE};
use crate::config::Normalize;
use crate::error::{ExperimentError, Result, few};
use crate::features_file::FeaturesFile;
use crate::source::RecordedSource;

/// Features of the images of an experiment, by name.
#[derive(Debug)]
pub struct Recorded {
    file: FeaturesFile,
    normalize: Normalize,
    scale: Option<Scale>,
    device: Device,
}

/// What recorded features are moved and divided by: (features − offset) / divisor.
#[derive(Debug)]
pub struct Scale {
    offset: Tensor,
    divisor: Tensor,
}

impl Scale {
    /// The scale in a checkpoint, where its run has one.
    ///
    /// # Errors
    /// A damaged file.
    pub fn of(checkpoint: &Checkpoint) -> Result<Option<Scale>> {
        let file = format!("{SCALE_FILE}.safetensors");
        if !checkpoint.manifest.files.contains_key(&file) {
            return Ok(None);
        }
        let mut tensors = checkpoint.tensors(SCALE_FILE)?;
        match (tensors.remove("offset"), tensors.remove("divisor")) {
            (Some(offset), Some(divisor)) => Ok(Some(Scale { offset, divisor })),
            _ => Err(ExperimentError::Checkpoint {
                path: checkpoint.path.clone(),
                reason: format!("{file} needs `offset` and `divisor`"),
            }),
        }
    }

    /// What a checkpoint keeps.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        vec![
            ("offset".to_owned(), self.offset.shallow_clone()),
            ("divisor".to_owned(), self.divisor.shallow_clone()),
        ]
    }

    /// Features `[N,…]` as the generator takes them.
    ///
    /// # Errors
    /// Features of another shape.
    pub fn apply(&self, features: &Tensor) -> Result<Tensor> {
        let (offset, divisor) = (
            self.offset.f_to_device(features.device())?,
            self.divisor.f_to_device(features.device())?,
        );
        Ok(features.f_sub(&offset)?.f_div(&divisor)?)
    }

    /// From the training images' features, in double precision.
    fn measure(how: Normalize, all: &[&Tensor], path: &Path) -> Result<Option<Scale>> {
        let mean = |of: &dyn Fn(&Tensor) -> Result<Tensor>| -> Result<Tensor> {
            let mut sum = Tensor::f_zeros([], (Kind::Double, Device::Cpu))?;
            for x in all {
                sum = sum.f_add(&of(&x.f_to_kind(Kind::Double)?)?)?;
            }
            Ok(sum.f_div_scalar(all.len() as f64)?)
        };
        let (offset, divisor) = match how {
            Normalize::None => return Ok(None),
            Normalize::Rms => {
                let square = mean(&|x| Ok(x.f_square()?.f_mean(Kind::Double)?))?;
                if square.f_double_value(&[])? <= 0.0 {
                    return Err(ExperimentError::Recorded {
                        path: path.to_owned(),
                        problems: vec!["all features of training images are 0".to_owned()],
                    });
                }
                (square.f_zeros_like()?, square.f_sqrt()?)
            }
            Normalize::Zscore => {
                let centre = mean(&|x| Ok(x.shallow_clone()))?;
                let variance = mean(&|x| Ok(x.f_sub(&centre)?.f_square()?))?;
                let one = variance.f_ones_like()?;
                let deviation = variance.f_sqrt()?;
                let silent = deviation.f_le(0.0)?;
                (centre, one.f_where_self(&silent, &deviation)?)
            }
        };
        Ok(Some(Scale {
            offset: offset.f_to_kind(Kind::Float)?,
            divisor: divisor.f_to_kind(Kind::Float)?,
        }))
    }
}

impl Recorded {
    /// Reads the file.
    ///
    /// # Errors
    /// What [`FeaturesFile::read`] refuses, and features of another shape than the experiment says.
    pub fn load(source: &RecordedSource, device: Device) -> Result<Recorded> {
        let file = FeaturesFile::read(&source.file)?;
        let wanted = source.shape.sizes();
        if file.sizes != wanted {
            return Err(ExperimentError::Recorded {
                path: source.file.clone(),
                problems: vec![format!(
                    "one image's features are {:?}, but encoder.shape says {wanted:?}",
                    file.sizes
                )],
            });
        }
        Ok(Recorded {
            file,
            normalize: source.normalize,
            scale: None,
            device,
        })
    }

    /// Checks that the file holds the features of all images and of nothing else, and takes the
    /// scale from the training images.
    ///
    /// # Errors
    /// [`ExperimentError::Recorded`] with the first few of all that is wrong.
    pub fn prepare(&mut self, train: &Dataset, test: &Dataset) -> Result<()> {
        let mut owners: BTreeMap<String, String> = BTreeMap::new();
        let (mut missing, mut shared, mut idle) = (vec![], vec![], BTreeSet::new());
        let mut sides = vec![(Part::Train, train)];
        if train.digest() != test.digest() {
            sides.push((Part::Test, test));
        }
        for (part, data) in sides {
            for i in 0..data.len() {
                let full = format!("{}/{}", part.name(), data.name(i));
                match self.key(part, data.name(i)) {
                    None => missing.push(full),
                    Some(key) => {
                        if let Some(other) = owners.insert(key.to_owned(), full.clone()) {
                            shared.push(format!("{key} ({other}, {full})"));
                        }
                    }
                }
            }
            // Images that the preparation left out may have features.
            if let DatasetKind::Prepared(manifest) = data.kind() {
                let twins = manifest.duplicates.iter().map(|d| &d.path);
                let broken = manifest.quarantined.iter().map(|q| &q.path);
                for path in twins.chain(broken) {
                    idle.extend(self.key(part, path).map(str::to_owned));
                }
            }
        }
        let strangers: Vec<String> = self
            .file
            .entries
            .keys()
            .filter(|k| !owners.contains_key(*k) && !idle.contains(*k))
            .cloned()
            .collect();
        let mut problems = Vec::new();
        for (what, names) in [
            ("images have no features", missing),
            (
                "names mean more than one image; begin them with train/ and test/, or give whole paths",
                shared,
            ),
            ("names belong to no image", strangers),
        ] {
            if !names.is_empty() {
                problems.push(few(what, &names));
            }
        }
        if !problems.is_empty() {
            problems.push(
                "names are images' paths as in the data's manifest (or in the plain folder), or \
                 file names, with or without their ending, where only one image has it"
                    .to_owned(),
            );
            return Err(ExperimentError::Recorded {
                path: self.file.path.clone(),
                problems,
            });
        }
        let mut all = Vec::with_capacity(train.len());
        for i in 0..train.len() {
            all.push(self.raw(Part::Train, train.name(i))?);
        }
        self.scale = Scale::measure(self.normalize, &all, &self.file.path)?;
        Ok(())
    }

    /// The scale, where there is one.
    pub fn scale(&self) -> Option<&Scale> {
        self.scale.as_ref()
    }

    /// Takes the scale that a run was trained with.
    pub fn set_scale(&mut self, scale: Option<Scale>) {
        self.scale = scale;
    }

    /// Features of images of one side, `[N,…]`, as the generator takes them.
    ///
    /// # Errors
    /// An image without features.
    pub fn features(&self, part: Part, data: &Dataset, indices: &[usize]) -> Result<Tensor> {
        let mut rows = Vec::with_capacity(indices.len());
        for &i in indices {
            rows.push(self.raw(part, data.name(i))?);
        }
        let all = Tensor::f_stack(&rows, 0)?.f_to_device(self.device)?;
        match &self.scale {
            Some(scale) => scale.apply(&all),
            None => Ok(all),
        }
    }

    fn raw(&self, part: Part, name: &str) -> Result<&Tensor> {
        let found = self.key(part, name).and_then(|k| self.file.entries.get(k));
        found.ok_or_else(|| ExperimentError::Recorded {
            path: self.file.path.clone(),
            problems: vec![format!("{}/{} has no features", part.name(), visible(name))],
        })
    }

    /// The name under which an image's features are: the most particular one that is there.
    fn key(&self, part: Part, name: &str) -> Option<&str> {
        let name = &*canonical(name);
        let path = Path::new(name);
        let file = path.file_name().and_then(|n| n.to_str());
        let bare = path.with_extension("");
        let stem = path.file_stem().and_then(|n| n.to_str());
        let particular = format!("{}/{name}", part.name());
        [
            Some(particular.as_str()),
            Some(name),
            bare.to_str(),
            file,
            stem,
        ]
        .into_iter()
        .flatten()
        .find_map(|candidate| Some(self.file.entries.get_key_value(candidate)?.0.as_str()))
    }
}

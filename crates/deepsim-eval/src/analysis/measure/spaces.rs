//! Distances between two sets of images as distributions, in the features of a network.

use std::path::Path;

use clap::ValueEnum;
use deepsim_data::terminal::path as shown;
use deepsim_experiment::hash::hash_file;
use deepsim_experiment::{Consent, Experiment, networks};
use deepsim_nets::images::rgb_to_caffe;
use deepsim_nets::metrics::{
    Inception, Moments, Resizing, bicubic, frechet_of_moments, kernel_distance_of_subsets,
    precision_recall, rows_of,
};
use deepsim_nets::{NetKind, Tap};
use tch::{Device, Kind, Tensor};

use super::brain::{self, Features, OfPairs};
use super::protocol::{Protocol, SHARED, Value, Weights};
use crate::error::{EvalError, Result};

/// FID's network in the folder of weights.
const INCEPTION: &str = "inception-fid.safetensors";
/// Subsets of the kernel distance, and rows of each.
const SUBSETS: u64 = 100;
const SUBSET: i64 = 1000;
/// Neighbours of precision and recall.
const NEIGHBOURS: i64 = 3;
/// Images of a side with which distributions are compared at all. Of fewer the numbers say nothing; of as few as a small
/// held-out set has they say little, and that is told.
const LEAST: usize = 10;

/// Values of FID's features, by pytorch-fid's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Length {
    /// The last layer: what FID is.
    #[default]
    #[value(name = "2048")]
    Whole,
    /// In front of the auxiliary classifier.
    #[value(name = "768")]
    Middle,
    /// The second max pool.
    #[value(name = "192")]
    Second,
    /// The first max pool.
    #[value(name = "64")]
    First,
}

impl Length {
    fn tap(self) -> Tap {
        match self {
            Length::Whole => Tap::Pooled,
            Length::Middle => Tap::named("mixed_6e"),
            Length::Second => Tap::Pool2,
            Length::First => Tap::Pool1,
        }
    }
}

/// Whose resizing comes before FID's network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Resize {
    /// Bilinear, without antialiasing.
    #[default]
    PytorchFid,
    /// Pillow's bicubic filter in floating point.
    CleanFid,
}

impl Resize {
    fn resizing(self) -> Resizing {
        match self {
            Resize::PytorchFid => Resizing::PytorchFid,
            Resize::CleanFid => Resizing::CleanFid,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Resize::PytorchFid => {
                "bilinear to 299x299 without antialiasing, then 2x/255 - 1 (pytorch-fid 0.3.0)"
            }
            Resize::CleanFid => {
                "Pillow's bicubic to 299x299 in floating point, clipped, then (x - 128)/128 (clean-fid)"
            }
        }
    }
}

/// What is measured of two sets of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Frechet,
    Kernel,
    PrecisionAndRecall,
    OfPairs(OfPairs),
}

/// What the features of an experiment's encoder are taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Fréchet and kernel distance; maps are averaged over positions.
    Distributions,
    /// Two-way identification and correlation distance of pairs, in all values.
    Pairs,
}

/// What of it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// FID.
    pub fid: bool,
    /// KID.
    pub kid: bool,
    /// Precision and recall.
    pub precision_recall: bool,
    /// Layer of FID's network.
    pub length: Length,
    /// Resizing in front of it.
    pub resize: Resize,
}

/// A network, and what is measured in its features.
pub struct Space {
    features: Option<Features>,
    /// The network of ours that they are of, where it is one.
    net: Option<NetKind>,
    wanted: Vec<Number>,
    /// Of the encoder of an experiment: its numbers have other names.
    encoder: bool,
    protocol: Protocol,
}

/// Features of both sides so far.
#[derive(Debug, Default)]
pub struct Gathered {
    moments: [Moments; 2],
    /// All rows, where they are needed.
    rows: [Vec<Tensor>; 2],
    /// Some of them are infinite or not a number.
    not_finite: bool,
}

impl Space {
    /// FID's network; none where nothing is asked of it.
    ///
    /// # Errors
    /// Weights that are there and damaged.
    pub fn inception(asked: Asked, folder: &Path, device: Device) -> Result<Option<Space>> {
        let wanted: Vec<Number> = [
            (asked.fid, Number::Frechet),
            (asked.kid, Number::Kernel),
            (asked.precision_recall, Number::PrecisionAndRecall),
        ]
        .into_iter()
        .filter_map(|(is, number)| is.then_some(number))
        .collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let info = NetKind::InceptionFid.info();
        let tap = asked.length.tap();
        let mut protocol = Protocol {
            network: Some(format!("{}, {tap}", info.label)),
            resize: Some(asked.resize.words().to_owned()),
            ..Protocol::default()
        };
        let file = folder.join(INCEPTION);
        let features = if file.is_file() {
            protocol.weights = vec![Weights {
                file: file.display().to_string(),
                blake3: hash_file(&file)?,
            }];
            let net = Inception::load(&file, tap, device)?;
            let resizing = asked.resize.resizing();
            let of: Features = Box::new(move |rgb| Ok(net.features(rgb, resizing)?));
            Some(of)
        } else {
            let (kind, from) = info.import.unwrap_or_default();
            let name = shown(&file);
            protocol.reason = Some(format!(
                "no {name}: download {from} from the releases of pytorch-fid, then `cargo run -p deepsim-weights -- \
                 import {kind} {from} {name}`"
            ));
            None
        };
        Ok(Some(Space {
            features,
            net: Some(NetKind::InceptionFid),
            wanted,
            encoder: false,
            protocol,
        }))
    }

    /// The encoder of an experiment, whatever network that is.
    ///
    /// # Errors
    /// Missing or wrong weights; a TorchScript module without consent; an encoder that learns or is no frozen network.
    pub fn encoder(
        experiment: &Experiment,
        purpose: Purpose,
        consent: &Consent,
        device: Device,
    ) -> Result<Space> {
        if experiment.config.latent.is_some() {
            let reason = "its encoder learns ([latent]), so the file alone has no features: name an experiment whose \
                          encoder is a frozen network";
            return Err(EvalError::usage(
                "--encoder",
                shown(&experiment.path),
                reason,
            ));
        }
        let source = &experiment.encoder;
        let permit = consent.at_first(&experiment.path);
        let net = networks::open("encoder", source, &permit, device)?;
        let blake3 = net.own_hash().map(str::to_owned);
        let blake3 = blake3.map_or_else(|| source.hash(), Ok)?;
        let crop = i64::from(experiment.config.data.crop);
        let (wanted, maps) = match purpose {
            Purpose::Distributions => (
                vec![Number::Frechet, Number::Kernel],
                "averaged over positions",
            ),
            Purpose::Pairs => (
                brain::OF_ENCODER.map(Number::OfPairs).to_vec(),
                "with all their values",
            ),
        };
        let protocol = Protocol {
            network: Some(source.to_string()),
            weights: vec![Weights {
                file: source.origin(),
                blake3,
            }],
            resize: Some(format!(
                "images of another size: Pillow's bicubic to {crop}x{crop} in floating point; maps {maps}"
            )),
            ..Protocol::default()
        };
        let features: Features = Box::new(move |rgb| {
            let fits = rgb.size().get(2..) == Some([crop, crop].as_slice());
            let resized = if fits {
                rgb.shallow_clone()
            } else {
                bicubic(rgb, crop)?
            };
            let found = net.features(&rgb_to_caffe(&resized)?)?;
            match purpose {
                Purpose::Distributions => Ok(rows_of(&found)?),
                Purpose::Pairs => Ok(found.f_flatten(1, -1)?),
            }
        });
        Ok(Space {
            features: Some(features),
            net: source.network().map(|network| network.net),
            wanted,
            encoder: true,
            protocol,
        })
    }

    /// The networks of brain decoding's customary metrics; what is not in `folder` cannot be measured, and says why.
    ///
    /// # Errors
    /// Weights that are there and damaged.
    pub fn of_brain_decoding(folder: &Path, device: Device) -> Result<Vec<Space>> {
        let all = brain::customary(folder, device)?.into_iter();
        let space = |customary: brain::Customary| Space {
            features: customary.features,
            net: customary.net,
            wanted: vec![Number::OfPairs(customary.of)],
            encoder: false,
            protocol: customary.protocol,
        };
        Ok(all.map(space).collect())
    }

    /// Digests of its weights.
    pub fn digests(&self) -> impl Iterator<Item = &str> {
        self.protocol.weights.iter().map(|w| w.blake3.as_str())
    }

    /// Makes it fair to a run that was trained with these networks of ours, and with weights of these digests. In FID's
    /// network, or one of its family, nothing is measured then. An encoder that the user names is measured in, and told.
    pub fn beside(&mut self, used: &[NetKind], digests: &[&str]) {
        let of_family = |net: NetKind| used.iter().any(|b| net.info().family == b.info().family);
        if !self.encoder {
            if self.net.is_some_and(of_family) {
                self.features = None;
                self.protocol.reason = Some(SHARED.to_owned());
            }
            return;
        }
        let is_same = self.net.is_some_and(|net| used.contains(&net));
        if is_same || self.digests().any(|digest| digests.contains(&digest)) {
            self.protocol.remark = Some("the run was trained with this network".to_owned());
        }
    }

    /// Features of images, row by row behind their length; nothing where the weights are not there.
    ///
    /// # Errors
    /// What the network refuses.
    pub fn numbers(&self, rgb: &Tensor) -> Result<Vec<f64>> {
        let Some(features) = &self.features else {
            return Ok(Vec::new());
        };
        let _guard = tch::no_grad_guard();
        let rows = features(rgb)?;
        let length = rows.size().get(1).copied().unwrap_or_default();
        let rows = rows.f_to_kind(Kind::Double)?.f_to_device(Device::Cpu)?;
        let mut numbers = vec![length as f64];
        numbers.extend(Vec::<f64>::try_from(rows.f_flatten(0, -1)?)?);
        Ok(numbers)
    }

    /// Adds what [`Space::numbers`] gave of images of a side.
    ///
    /// # Errors
    /// Features of another length.
    pub fn add(&self, gathered: &mut Gathered, side: usize, numbers: &[f64]) -> Result<()> {
        let Some((length, values)) = numbers.split_first() else {
            return Ok(());
        };
        gathered.not_finite |= values.iter().any(|value| !value.is_finite());
        let rows = Tensor::f_from_slice(values)?.f_view([-1, *length as i64])?;
        if self.wanted.contains(&Number::Frechet) {
            gathered.moments[side].add(&rows)?;
        }
        if self.wanted.iter().any(|number| *number != Number::Frechet) {
            gathered.rows[side].push(rows.f_to_kind(Kind::Float)?);
        }
        Ok(())
    }

    /// The numbers of both sides, of which A is the reference.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn values(&self, gathered: &Gathered, seed: u64) -> Result<Vec<Value>> {
        let mut values = Vec::new();
        for number in &self.wanted {
            values.extend(match number {
                Number::Frechet => vec![self.frechet(gathered)?],
                Number::Kernel => vec![self.kernel(gathered, seed)?],
                Number::PrecisionAndRecall => self.precision_recall(gathered)?,
                Number::OfPairs(of) => vec![self.of_pairs(gathered, *of)?],
            });
        }
        Ok(values)
    }

    fn value(&self, key: &'static str, label: &'static str, definition: String) -> Value {
        Value {
            key,
            label,
            value: None,
            protocol: Protocol {
                definition,
                equals: if self.encoder {
                    "its definition"
                } else {
                    "pytorch-fid 0.3.0 and clean-fid have these features"
                },
                ..self.protocol.clone()
            },
        }
    }

    /// Whether there are features to measure in. Where some are not finite, the values get that as their reason.
    fn measures(&self, gathered: &Gathered, values: &mut [Value]) -> bool {
        if gathered.not_finite {
            values.iter_mut().for_each(not_finite);
        }
        self.features.is_some() && !gathered.not_finite
    }

    fn frechet(&self, gathered: &Gathered) -> Result<Value> {
        let (key, label) = if self.encoder {
            ("encoder_frechet", "Fréchet distance (encoder)")
        } else {
            ("fid", "FID")
        };
        let definition = "squared Fréchet distance; fp64, covariances with n - 1, root by eigenvalues, no epsilon";
        let mut value = self.value(key, label, definition.to_owned());
        if !self.encoder {
            value.protocol.equals = "pytorch-fid 0.3.0, calculate_frechet_distance";
        }
        if !self.measures(gathered, std::slice::from_mut(&mut value)) {
            return Ok(value);
        }
        let [a, b] = &gathered.moments;
        set(&mut value, frechet_of_moments(a, b)?);
        if a.is_singular() || b.is_singular() {
            let length = a.length().unwrap_or_default();
            value.protocol.add_remark(format!(
                "singular covariance: {} and {} images, while {length} features need {} images; few images \
                 make it larger: compare it with numbers of as many images alone",
                a.count(),
                b.count(),
                length + 1
            ));
        }
        Ok(value)
    }

    fn kernel(&self, gathered: &Gathered, seed: u64) -> Result<Value> {
        let (key, label) = if self.encoder {
            ("encoder_kernel", "kernel distance (encoder)")
        } else {
            ("kid", "KID")
        };
        let [a, b] = joined(gathered)?;
        let size = match self.features {
            Some(_) => SUBSET.min(rows(&a)).min(rows(&b)),
            None => SUBSET,
        };
        let definition = format!(
            "unbiased squared MMD, kernel (x.y/d + 1)^3; mean over {SUBSETS} subsets of {size} drawn by seed {seed}"
        );
        let mut value = self.value(key, label, definition);
        if !self.encoder {
            value.protocol.equals =
                "clean-fid's and torch-fidelity's KID, but for the draws of subsets";
        }
        if !self.measures(gathered, std::slice::from_mut(&mut value)) {
            return Ok(value);
        }
        let [mean, deviation] = kernel_distance_of_subsets(&a, &b, SUBSETS, size, seed)?;
        set(&mut value, mean);
        value.protocol.deviation = Some(deviation).filter(|d| d.is_finite());
        if size < SUBSET {
            value.protocol.add_remark(format!(
                "fewer than {SUBSET} images: subsets of {size}; it varies much from sample to sample"
            ));
        }
        Ok(value)
    }

    fn of_pairs(&self, gathered: &Gathered, of: OfPairs) -> Result<Value> {
        let mut value = self.value(of.key, of.label, of.definition().to_owned());
        if !self.encoder {
            value.protocol.equals = "MindEye2's evaluation, but for the rounding of its pictures";
        }
        if !self.measures(gathered, std::slice::from_mut(&mut value)) {
            return Ok(value);
        }
        let [a, b] = joined(gathered)?;
        let number = of.number(&a, &b)?;
        if number.is_finite() {
            value.value = Some(number);
        } else {
            let reason = "it takes two images at least, and features that are not all equal";
            value.protocol.reason = Some(reason.to_owned());
        }
        Ok(value)
    }

    fn precision_recall(&self, gathered: &Gathered) -> Result<Vec<Value>> {
        let definition = |of: &str, set: &str| {
            format!(
                "share of {of} that is as near to an image of {set} as that one's nearest {NEIGHBOURS} other images of \
                 {set}, or nearer"
            )
        };
        let (precision, recall) = (definition("B", "A"), definition("A", "B"));
        let mut values = vec![
            self.value("precision", "precision", precision),
            self.value("recall", "recall", recall),
        ];
        for value in &mut values {
            value.protocol.equals = "Kynkäänniemi et al. 2019 in its k and its <=, in these features as ADM's evaluator";
        }
        if !self.measures(gathered, &mut values) {
            return Ok(values);
        }
        let [a, b] = joined(gathered)?;
        let found = precision_recall(&a, &b, NEIGHBOURS)?;
        for (value, found) in values.iter_mut().zip(found) {
            set(value, found);
        }
        Ok(values)
    }
}

fn not_finite(value: &mut Value) {
    value.protocol.reason = Some("the features are not finite".to_owned());
}

/// A number, or why it is none.
fn set(value: &mut Value, number: f64) {
    if number.is_finite() {
        value.value = Some(number);
    } else {
        not_finite(value);
    }
}

fn rows(x: &Tensor) -> i64 {
    x.size().first().copied().unwrap_or_default()
}

/// All rows of both sides.
fn joined(gathered: &Gathered) -> Result<[Tensor; 2]> {
    let all = |rows: &Vec<Tensor>| -> Result<Tensor> {
        Ok(match rows.as_slice() {
            [] => Tensor::f_zeros([0, 0], (Kind::Float, Device::Cpu))?,
            rows => Tensor::f_cat(rows, 0)?,
        })
    };
    let [a, b] = &gathered.rows;
    Ok([all(a)?, all(b)?])
}

/// Fails where a side has too few images for a distance of distributions that can be measured.
///
/// # Errors
/// [`EvalError::Usage`].
pub fn check(spaces: &[Space], counts: [usize; 2]) -> Result<()> {
    let of_pairs = |number: &Number| matches!(number, Number::OfPairs(_));
    let measures = spaces
        .iter()
        .any(|space| space.features.is_some() && !space.wanted.iter().all(of_pairs));
    if !measures || counts.into_iter().all(|n| n >= LEAST) {
        return Ok(());
    }
    let [n, m] = counts;
    Err(EvalError::usage(
        "distances of distributions",
        format!("of {n} and {m} images"),
        format!(
            "they say nothing: at least {LEAST} images of each side are needed, and more than the features have values \
             (FID: 2048) for covariances with an inverse"
        ),
    ))
}

#[cfg(test)]
mod tests;

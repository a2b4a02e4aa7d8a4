//! What each source of features answers, and how one is read from its section of an experiment file.

use std::fmt;
use std::path::Path;

use deepsim_nets::{DiscriminatorSpec, FeatureShape, NetError};
use tch::{Device, Tensor};

use crate::config::check::{Checked, Complaint};
use crate::config::{KEYS, Network};
use crate::consent::Allowed;
use crate::error::{ExperimentError, Result};
use crate::hash::hash_file;
use crate::script::Through;

/// Which side of the experiment a source serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its features are inverted.
    Encoder,
    /// Images are compared in them.
    Comparator,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Encoder => "encoder",
            Role::Comparator => "comparator",
        }
    }
}

/// A validated source of features: what an experiment says of it. Displayed as tables and figures name it.
pub trait FeatureSource: fmt::Display {
    /// The file or folder that must be there, and its key.
    fn file(&self) -> Option<(&'static str, &Path)> {
        None
    }

    /// All files that must be there, each with its key.
    fn files(&self) -> Vec<(&'static str, &Path)> {
        self.file().into_iter().collect()
    }

    /// How to get the file, for people.
    fn help(&self, _file: &Path) -> String {
        "  docs/guide/your-own-representation.md shows how to record features".to_owned()
    }

    /// Where its features come from, for people: a file, `random:SEED`, or `trained along`.
    fn origin(&self) -> String {
        self.file()
            .map_or_else(String::new, |(_, path)| path.display().to_string())
    }

    /// Whether it learned from data, or learns: everything but random weights.
    fn learned(&self) -> bool {
        true
    }

    /// Shape of one image's features, for crops of `crop` pixels a side; of an encoder that gives codes alone, a vector
    /// of any length.
    ///
    /// # Errors
    /// The key at fault: a layer that crops of this size do not reach, a factor that does not divide the crop, or a source
    /// whose features have no shape of their own.
    fn feature_shape(&self, _crop: i64) -> std::result::Result<FeatureShape, Complaint> {
        Err(without_shape(self))
    }

    /// Whether it can compare the images of an experiment with this crop and discriminator, for the section `table`.
    ///
    /// # Errors
    /// The key at fault.
    fn check_comparator(
        &self,
        _table: &str,
        _crop: i64,
        _discriminator: Option<&DiscriminatorSpec>,
    ) -> Checked {
        Ok(())
    }

    /// blake3 of what it is made of: of the file's bytes, or of words such as `random:SEED`.
    ///
    /// # Errors
    /// An unreadable file.
    fn hash(&self) -> Result<String> {
        match self.file() {
            Some((_, path)) => hash_file(path),
            None => Ok(blake3::hash(self.origin().as_bytes()).to_hex().to_string()),
        }
    }

    /// Loads it, with the module that was allowed where it is one.
    ///
    /// # Errors
    /// Missing, damaged or wrong weights; sources that are no frozen network.
    fn open(&self, module: Option<Allowed>, device: Device) -> Result<Box<dyn Features>>;
}

/// A frozen source, loaded.
pub trait Features: fmt::Debug {
    /// Features of images `[N,3,H,W]` in Caffe units. Gradients pass to the images.
    ///
    /// # Errors
    /// Images of an illegal size.
    fn features(&self, caffe: &Tensor) -> Result<Tensor>;

    /// What is compared of images, where this is a comparator: [`Features::features`], or several of them.
    ///
    /// # Errors
    /// Images of an illegal size.
    fn compared(&self, caffe: &Tensor) -> Result<Vec<Tensor>> {
        Ok(vec![self.features(caffe)?])
    }

    /// The distances `[N]` of images of which [`Features::compared`] has found these, for a comparator with a distance of
    /// its own.
    ///
    /// # Errors
    /// Other features than those.
    fn own_distance(&self, _found: &[Tensor], _target: &[Tensor]) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// blake3 of what was loaded, where it is other than what [`FeatureSource::hash`] says of the source.
    fn own_hash(&self) -> Option<&str> {
        None
    }

    /// Tries it on images of `crop` pixels a side, where others have made it.
    ///
    /// # Errors
    /// What it does that no frozen network may do.
    fn probe(&self, _crop: i64, _through: Through, _device: Device) -> Result<()> {
        Ok(())
    }

    /// The same with batches of these sizes.
    ///
    /// # Errors
    /// As [`Features::probe`].
    fn try_batches(
        &self,
        _sizes: &[i64],
        _crop: i64,
        _through: Through,
        _device: Device,
    ) -> Result<()> {
        Ok(())
    }

    /// Takes its weights to fp64, in place.
    ///
    /// # Errors
    /// What libtorch refuses.
    fn widen(&self) -> std::result::Result<(), NetError> {
        Ok(())
    }
}

/// What is known of a kind of source: a row of the table in [`super`].
pub(super) struct KindInfo {
    /// Keys that an encoder has besides `net`, or why it cannot be one.
    pub encoder: std::result::Result<&'static [&'static str], &'static str>,
    /// The same of a comparator.
    pub comparator: std::result::Result<&'static [&'static str], &'static str>,
}

/// A section that is being read.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub role: Role,
    /// Its name in the file.
    pub table: &'a str,
    pub section: &'a Network,
}

impl Given<'_> {
    /// A complaint about a key.
    pub fn bad(&self, key: &str, reason: impl Into<String>) -> Complaint {
        (format!("{}.{key}", self.table), reason.into())
    }

    /// A complaint about a key that is not there.
    pub fn missing(&self, key: &str, why: &str) -> Complaint {
        let name = self.section.net.to_string();
        self.bad(key, format!("is missing: {name} needs {why}"))
    }

    /// Refuses a source that this side cannot have, and keys that mean nothing for it.
    pub fn check_keys(&self, info: &KindInfo) -> Checked {
        let allowed = match self.role {
            Role::Encoder => info.encoder,
            Role::Comparator => info.comparator,
        };
        let allowed = allowed.map_err(|reason| self.bad("net", reason))?;
        let section = self.section;
        let given = |key: &str| match key {
            "tap" => section.tap.is_some(),
            "taps" => section.taps.is_some(),
            "distance" => section.distance.is_some(),
            "heads" => section.heads.is_some(),
            "weights" => section.weights.is_some(),
            "tokens" => section.tokens.is_some(),
            "features" => section.features.is_some(),
            "shape" => section.shape.is_some(),
            "factor" => section.factor.is_some(),
            "width" => section.width.is_some(),
            "normalize" => section.normalize.is_some(),
            "units" => section.units.is_some(),
            "trust_code" => section.trust_code.is_some(),
            _ => false,
        };
        match KEYS.iter().find(|k| given(k) && !allowed.contains(*k)) {
            Some(key) => {
                let (side, net) = (self.role.name(), section.net);
                Err(self.bad(
                    key,
                    format!("means nothing for the {side} {net}; remove it"),
                ))
            }
            None => Ok(()),
        }
    }
}

/// A complaint about a section whose network cannot be built.
pub(super) fn unusable(table: &str, error: &NetError) -> Complaint {
    (table.to_owned(), format!("cannot be used: {error}"))
}

/// A complaint about an encoder whose features have no shape that is known.
pub(super) fn without_shape(source: &(impl fmt::Display + ?Sized)) -> Complaint {
    let unknown = NetError::Spec(format!(
        "the shape of the features of {source} is not known"
    ));
    unusable("encoder", &unknown)
}

/// More values than any representation of an image has; keeps products of them far from overflow.
const MAX_SIDE: i64 = 1 << 20;

/// `shape`, as a generator takes it.
pub(super) fn shape(section: &Network) -> std::result::Result<FeatureShape, String> {
    let Some(sizes) = &section.shape else {
        let reason = "is missing: the shape of one image's features, [LENGTH] or [CHANNELS, SIZE, SIZE]; \
                      the generator is built for it";
        return Err(reason.to_owned());
    };
    if sizes.iter().any(|d| !(1..=MAX_SIDE).contains(d)) {
        return Err(format!(
            "must hold sizes from 1 to {MAX_SIDE}, not {sizes:?}"
        ));
    }
    match sizes.as_slice() {
        [length] => Ok(FeatureShape::Vector(*length)),
        [channels, height, width] if height == width => Ok(FeatureShape::Map {
            channels: *channels,
            size: *height,
        }),
        other => Err(format!(
            "must be [LENGTH] or [CHANNELS, SIZE, SIZE], not {other:?}"
        )),
    }
}

/// A source that cannot be loaded by itself.
pub(super) fn not_loadable(file: &Path) -> ExperimentError {
    ExperimentError::NoEncoder {
        path: file.to_owned(),
    }
}

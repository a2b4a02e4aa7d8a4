//! Where features come from: one source a file. A new source is a file here, a variant of [`Source`] with its line in
//! [`Source::validate`] and [`Source::source`], and a name in the configuration's `net`.

mod discriminator;
mod downsampled;
mod kind;
pub(crate) mod network;
mod perceptual;
mod recorded;
pub(crate) mod taps;
mod torchscript;
mod vaegan;

use std::fmt;
use std::ops::Deref;

pub use discriminator::{DiscriminatorSource, FrozenDiscriminatorSource};
pub use downsampled::DownsampledSource;
pub use kind::{FeatureSource, Features, Role};
pub use network::{NetSource, Weights};
pub use perceptual::PerceptualSource;
pub use recorded::RecordedSource;
pub use taps::TapsSource;
pub use vaegan::VaeGanSource;

pub use crate::script::source::ScriptSource;

use crate::config::check::Complaint;
use crate::config::{Network, SourceKind};
use kind::Given;

/// A validated source of features. What all of them answer is [`FeatureSource`], to which it dereferences.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A network of ours.
    Network(NetSource),
    /// A network of ours at several taps (comparators only).
    Taps(TapsSource),
    /// A metric that was learnt (comparators only).
    Perceptual(PerceptualSource),
    /// A TorchScript module.
    Script(ScriptSource),
    /// Recorded features (encoders only).
    Recorded(RecordedSource),
    /// The image, made smaller (encoders only).
    Downsampled(DownsampledSource),
    /// The encoder of VAE/GAN, which learns (encoders only).
    VaeGan(VaeGanSource),
    /// The discriminator that trains along (comparators only).
    Discriminator(DiscriminatorSource),
    /// The discriminator of an earlier run (comparators only).
    FrozenDiscriminator(FrozenDiscriminatorSource),
}

impl Source {
    /// Validates the section `table` of an experiment file.
    ///
    /// # Errors
    /// The key that is missing, superfluous or impossible, and why.
    pub fn validate(role: Role, table: &str, section: &Network) -> Result<Source, Complaint> {
        let given = Given {
            role,
            table,
            section,
        };
        given.check_keys(&match section.net {
            SourceKind::Network(_) => network::INFO,
            SourceKind::TorchScript => torchscript::INFO,
            SourceKind::Recorded => recorded::INFO,
            SourceKind::Downsampled => downsampled::INFO,
            SourceKind::VaeGan => vaegan::INFO,
            SourceKind::Discriminator => discriminator::INFO,
            SourceKind::Perceptual(_) => perceptual::INFO,
        })?;
        Ok(match section.net {
            SourceKind::Network(net) => match &section.taps {
                None => Source::Network(network::parse(&given, net)?),
                Some(taps) => Source::Taps(taps::parse(&given, net, taps)?),
            },
            SourceKind::Perceptual(metric) => {
                Source::Perceptual(perceptual::parse(&given, metric)?)
            }
            SourceKind::TorchScript => Source::Script(torchscript::parse(&given)?),
            SourceKind::Recorded => Source::Recorded(recorded::parse(&given)?),
            SourceKind::Downsampled => Source::Downsampled(downsampled::parse(&given)?),
            SourceKind::VaeGan => Source::VaeGan(vaegan::parse(&given)),
            SourceKind::Discriminator => match discriminator::parse(&given)? {
                (tap, None) => Source::Discriminator(DiscriminatorSource { tap }),
                (tap, Some(run)) => {
                    Source::FrozenDiscriminator(FrozenDiscriminatorSource { run, tap })
                }
            },
        })
    }

    /// What all sources answer.
    pub fn source(&self) -> &(dyn FeatureSource + 'static) {
        match self {
            Source::Network(source) => source,
            Source::Taps(source) => source,
            Source::Perceptual(source) => source,
            Source::Script(source) => source,
            Source::Recorded(source) => source,
            Source::Downsampled(source) => source,
            Source::VaeGan(source) => source,
            Source::Discriminator(source) => source,
            Source::FrozenDiscriminator(source) => source,
        }
    }

    /// The network of ours, where it is one; of several taps at the deepest.
    pub fn network(&self) -> Option<&NetSource> {
        match self {
            Source::Network(source) => Some(source),
            Source::Taps(source) => Some(&source.net),
            _ => None,
        }
    }

    /// The network of ours that it is or stands on, with its weights.
    pub fn trunk(&self) -> Option<&NetSource> {
        match self {
            Source::Perceptual(source) => Some(&source.trunk),
            other => other.network(),
        }
    }

    /// The TorchScript module, where it is one.
    pub fn script(&self) -> Option<&ScriptSource> {
        match self {
            Source::Script(source) => Some(source),
            _ => None,
        }
    }
}

impl Deref for Source {
    type Target = dyn FeatureSource;

    fn deref(&self) -> &Self::Target {
        self.source()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source().fmt(f)
    }
}

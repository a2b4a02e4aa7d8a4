//! The networks in which brain decoding customarily measures pairs of images, and what it measures in them.

use std::path::Path;

use deepsim_data::terminal::path as shown;
use deepsim_experiment::hash::hash_file;
use deepsim_nets::images::rgb_to_caffe;
use deepsim_nets::metrics::{bilinear_antialiased, correlations, two_way_identification};
use deepsim_nets::{FeatureNet, NetError, NetKind, Tap};
use tch::{Device, Tensor};

use super::protocol::{Protocol, Weights};
use crate::error::Result;

/// Side to which all images are brought first.
pub(super) const FIRST_SIDE: i64 = 256;

/// Features `[N,D]` of RGB images `[N,3,H,W]` in 0–255.
pub(super) type Features = Box<dyn Fn(&Tensor) -> Result<Tensor>>;

/// A number of pairs of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    TwoWay,
    CorrelationDistance,
}

/// The same with its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OfPairs {
    /// In JSON.
    pub key: &'static str,
    /// For people.
    pub label: &'static str,
    measure: Measure,
}

const fn two_way(key: &'static str, label: &'static str) -> OfPairs {
    OfPairs {
        key,
        label,
        measure: Measure::TwoWay,
    }
}

const fn distance(key: &'static str, label: &'static str) -> OfPairs {
    OfPairs {
        key,
        label,
        measure: Measure::CorrelationDistance,
    }
}

/// What is measured in the encoder of an experiment.
pub(super) const OF_ENCODER: [OfPairs; 2] = [
    two_way("encoder_two_way", "two-way identification (encoder)"),
    distance(
        "encoder_correlation_distance",
        "correlation distance (encoder)",
    ),
];

impl OfPairs {
    /// What it is.
    pub fn definition(self) -> &'static str {
        match self.measure {
            Measure::TwoWay => {
                "share of the other originals whose features correlate less (Pearson, strictly) with a \
                 reconstruction's than its own original's do; mean over reconstructions; chance 0.5; higher is better"
            }
            Measure::CorrelationDistance => {
                "1 - Pearson's r of the features of each pair; mean over pairs; lower is better"
            }
        }
    }

    /// The number, of rows of the same index; not finite where there is none.
    ///
    /// # Errors
    /// Rows of different shapes.
    pub fn number(self, a: &Tensor, b: &Tensor) -> Result<f64> {
        Ok(match self.measure {
            Measure::TwoWay => two_way_identification(a, b)?,
            Measure::CorrelationDistance => {
                let all = correlations(a, b)?;
                all.iter().map(|r| 1.0 - r).sum::<f64>() / all.len() as f64
            }
        })
    }
}

/// A network of ours.
struct Ours {
    net: NetKind,
    tap: Tap,
    /// In the folder of weights.
    file: &'static str,
    /// How to get it.
    obtain: &'static str,
}

/// A customary network.
struct Entry {
    of: OfPairs,
    network: &'static str,
    /// Side of its images.
    side: i64,
    /// None where it is not among the networks here.
    ours: Option<Ours>,
}

const fn alexnet(of: OfPairs, tap: Tap, network: &'static str) -> Entry {
    Entry {
        of,
        network,
        side: FIRST_SIDE,
        ours: Some(Ours {
            net: NetKind::AlexNet,
            tap,
            file: "alexnet-lpips.safetensors",
            obtain: "`cargo xtask setup --only judges` fetches it",
        }),
    }
}

const fn elsewhere(of: OfPairs, network: &'static str, side: i64) -> Entry {
    Entry {
        of,
        network,
        side,
        ours: None,
    }
}

/// As papers list them, behind pixel correlation and SSIM.
static ENTRIES: [Entry; 6] = [
    alexnet(
        two_way("alexnet_2", "AlexNet(2) identification"),
        Tap::Relu2,
        "torchvision's AlexNet, features.4 (relu2)",
    ),
    alexnet(
        two_way("alexnet_5", "AlexNet(5) identification"),
        Tap::Relu5,
        "torchvision's AlexNet, features.11 (relu5)",
    ),
    elsewhere(
        two_way("inception", "Inception identification"),
        "torchvision's Inception v3, avgpool",
        342,
    ),
    elsewhere(
        two_way("clip", "CLIP identification"),
        "OpenAI's CLIP ViT-L/14, image embedding",
        224,
    ),
    elsewhere(
        distance("efficientnet", "EfficientNet distance"),
        "torchvision's EfficientNet-B1, avgpool",
        255,
    ),
    Entry {
        of: distance("swav", "SwAV distance"),
        network: "SwAV's ResNet-50, avgpool",
        side: 224,
        ours: Some(Ours {
            net: NetKind::ResNet50,
            tap: Tap::Pooled,
            file: "swav-resnet50.safetensors",
            obtain: "in Python, torch.save(torch.hub.load('facebookresearch/swav:main', 'resnet50').state_dict(), FILE), \
                     then `cargo run -p deepsim-weights -- import torchvision FILE OUT`",
        }),
    },
];

/// A network in which pairs are measured.
pub(super) struct Customary {
    /// What is measured.
    pub of: OfPairs,
    /// None where the protocol has a reason.
    pub features: Option<Features>,
    /// The network of ours.
    pub net: Option<NetKind>,
    /// How, without a definition.
    pub protocol: Protocol,
}

/// The customary networks. What is not in `folder` cannot be measured.
///
/// # Errors
/// Weights that are there and damaged.
pub(super) fn customary(folder: &Path, device: Device) -> Result<Vec<Customary>> {
    let all = ENTRIES.iter();
    all.map(|entry| entry.open(folder, device)).collect()
}

impl Entry {
    fn open(&self, folder: &Path, device: Device) -> Result<Customary> {
        let side = self.side;
        let mut protocol = Protocol {
            network: Some(self.network.to_owned()),
            resize: Some(format!(
                "to {FIRST_SIDE}x{FIRST_SIDE}, then {side}x{side}: bilinear, antialiased where smaller; no crop"
            )),
            ..Protocol::default()
        };
        let mut features: Option<Features> = None;
        match &self.ours {
            None => {
                let reason = "the network is not among those here: an experiment whose encoder it is, as a TorchScript \
                              module, measures in it by --encoder";
                protocol.reason = Some(reason.to_owned());
            }
            Some(ours) => {
                let path = folder.join(ours.file);
                if path.is_file() {
                    protocol.weights = vec![Weights {
                        file: path.display().to_string(),
                        blake3: hash_file(&path)?,
                    }];
                    features = Some(ours.features(side, &path, device)?);
                } else {
                    protocol.reason = Some(format!("no {}: {}", shown(&path), ours.obtain));
                }
            }
        }
        Ok(Customary {
            of: self.of,
            features,
            net: self.ours.as_ref().map(|ours| ours.net),
            protocol,
        })
    }
}

impl Ours {
    fn features(&self, side: i64, path: &Path, device: Device) -> Result<Features> {
        let tap = self.tap;
        let net = FeatureNet::load(self.net, tap, path, device)?;
        let of: Features = Box::new(move |rgb: &Tensor| {
            let first = bilinear_antialiased(rgb, FIRST_SIDE)?;
            let resized = bilinear_antialiased(&first, side)?;
            let found = net.features(&rgb_to_caffe(&resized)?, &[tap])?.pop();
            let found = found.ok_or_else(|| NetError::Spec(format!("no features at {tap}")))?;
            Ok(found.f_flatten(1, -1)?)
        });
        Ok(of)
    }
}

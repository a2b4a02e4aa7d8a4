//! Metrics of pairs of images: each gives a number of each pair.

use std::path::Path;

use deepsim_experiment::hash::hash_file;
use deepsim_nets::loss::ssim::ms_ssim;
use deepsim_nets::metrics::{Dists, Lpips, bilinear_antialiased, correlations, grey, psnr, ssim};
use deepsim_nets::{NetError, NetKind};
use tch::{Device, Kind, Tensor};

use super::brain::FIRST_SIDE;
use super::protocol::{Protocol, SHARED, Weights};
use crate::error::Result;
use crate::measure::metrics::LPIPS;

/// Weights of DISTS, in the folder of weights; they belong to VGG16's.
const DISTS: &str = "dists.safetensors";
/// Scales of MS-SSIM; smaller images have fewer and other numbers.
const SCALES: usize = 5;

type Numbers = std::result::Result<Vec<f64>, NetError>;

/// Numbers of pairs of RGB images `[N,3,H,W]` in 0–255.
type Of = Box<dyn Fn(&Tensor, &Tensor) -> Numbers>;

/// A metric of pairs.
pub struct Metric {
    /// In JSON.
    pub key: &'static str,
    /// For people.
    pub label: &'static str,
    /// Whose number it is.
    pub protocol: Protocol,
    /// The network that it is measured with.
    pub net: Option<NetKind>,
    /// What images it needs.
    needs: &'static str,
    of: Option<Of>,
}

impl Metric {
    /// Numbers of pairs of one size; NaN for images that are too small. None where the metric cannot be measured: its
    /// protocol says why.
    ///
    /// # Errors
    /// What the networks refuse.
    pub fn numbers(&self, a: &Tensor, b: &Tensor) -> Result<Option<Vec<f64>>> {
        let Some(of) = &self.of else {
            return Ok(None);
        };
        let _guard = tch::no_grad_guard();
        Ok(Some(match of(a, b) {
            Err(NetError::TooSmall { .. }) => vec![f64::NAN; a.size()[0] as usize],
            numbers => numbers?,
        }))
    }

    /// Why a mean is no number.
    pub fn reason(&self, mean: f64) -> String {
        if mean.is_nan() {
            format!("some images do not suit it: it takes {}", self.needs)
        } else {
            "some pairs are equal: it is infinite".to_owned()
        }
    }

    /// Leaves it out because its network, or one of its family, is one that the run was trained with.
    pub fn silence(&mut self, used: &[NetKind]) {
        let is_used = |net: NetKind| used.iter().any(|b| net.info().family == b.info().family);
        if self.net.is_some_and(is_used) {
            self.of = None;
            self.protocol.reason = Some(SHARED.to_owned());
        }
    }
}

/// All metrics of pairs; those whose weights are not in `folder` cannot be measured.
///
/// # Errors
/// Weights that are there and damaged.
pub fn metrics(folder: &Path, device: Device) -> Result<Vec<Metric>> {
    let mut all = vec![
        plain(
            "psnr",
            "PSNR",
            "decibels of each pair, 10 log10(255^2 / mean squared difference); mean over pairs",
            "its definition",
            "any",
            Box::new(psnr),
        ),
        plain(
            "ssim",
            "SSIM",
            "11x11 Gaussian windows of deviation 1.5, whole ones alone; mean over positions, channels and pairs",
            "pytorch-msssim 1.0.0, ssim(data_range=255)",
            "at least 11 pixels a side",
            Box::new(ssim),
        ),
        plain(
            "ms_ssim",
            "MS-SSIM",
            "five scales; mean over channels and pairs",
            "pytorch-msssim 1.0.0, ms_ssim(data_range=255)",
            "more than 160 pixels a side",
            Box::new(|a: &Tensor, b: &Tensor| {
                let found = ms_ssim(a, b)?;
                if found.scales < SCALES {
                    return Ok(vec![f64::NAN; a.size()[0] as usize]);
                }
                numbers(&found.similarity)
            }),
        ),
    ];
    // AlexNet's first, as people report them.
    for (net, weights, heads) in LPIPS.into_iter().rev() {
        let (key, label, equals) = match net {
            NetKind::Vgg16 => (
                "lpips_vgg16",
                "LPIPS (VGG16)",
                "lpips 0.1.4, LPIPS(net=\"vgg\")",
            ),
            _ => (
                "lpips_alex",
                "LPIPS (AlexNet)",
                "lpips 0.1.4, LPIPS(net=\"alex\")",
            ),
        };
        let loaded = learned(folder, [weights, heads], |[weights, heads]| {
            let lpips = Lpips::load(net, weights, heads, device)?;
            let of: Of = Box::new(move |a: &Tensor, b: &Tensor| numbers(&lpips.distance(a, b)?));
            Ok(of)
        })?;
        all.push(loaded.metric(key, label, net, "version 0.1; mean over pairs", equals));
    }
    let vgg16 = LPIPS.iter().find(|(net, ..)| *net == NetKind::Vgg16);
    let vgg16 = vgg16.map_or("", |(_, weights, _)| *weights);
    let loaded = learned(folder, [vgg16, DISTS], |[vgg16, own]| {
        let dists = Dists::load(vgg16, own, device)?;
        let of: Of = Box::new(move |a: &Tensor, b: &Tensor| numbers(&dists.distance(a, b)?));
        Ok(of)
    })?;
    let how = "images at their size; mean over pairs";
    let equals = "DISTS-pytorch 0.1, without its resizing";
    all.push(loaded.metric("dists", "DISTS", NetKind::Vgg16, how, equals));
    Ok(all)
}

/// Side at which brain decoding compares pixels.
const PIXELS_SIDE: i64 = 425;

/// Brain decoding's metrics of pairs without a network.
pub fn of_brain_decoding() -> Vec<Metric> {
    let resized = |x: &Tensor| -> std::result::Result<Tensor, NetError> {
        bilinear_antialiased(&bilinear_antialiased(x, FIRST_SIDE)?, PIXELS_SIDE)
    };
    let all = [
        plain(
            "pixel_correlation",
            "pixel correlation",
            "Pearson's r of all values of each pair; mean over pairs; higher is better",
            "MindEye2's PixCorr",
            "images of more than one colour",
            Box::new(move |a: &Tensor, b: &Tensor| correlations(&resized(a)?, &resized(b)?)),
        ),
        plain(
            "grey_ssim",
            "SSIM (grey)",
            "of grey images (0.2125 R + 0.7154 G + 0.0721 B), 11x11 Gaussian windows of deviation 1.5, population \
             covariances; mean over positions and pairs; higher is better",
            "MindEye2's SSIM; scikit-image 0.22, structural_similarity(gaussian_weights=True, sigma=1.5, \
             use_sample_covariance=False, data_range=1)",
            "any",
            Box::new(move |a: &Tensor, b: &Tensor| {
                ssim(&grey(&resized(a)?)?, &grey(&resized(b)?)?)
            }),
        ),
    ];
    let how = format!(
        "to {FIRST_SIDE}x{FIRST_SIDE}, then {PIXELS_SIDE}x{PIXELS_SIDE}: bilinear, antialiased where smaller"
    );
    all.into_iter()
        .map(|mut metric| {
            metric.protocol.resize = Some(how.clone());
            metric
        })
        .collect()
}

/// A metric without a network.
fn plain(
    key: &'static str,
    label: &'static str,
    definition: &str,
    equals: &'static str,
    needs: &'static str,
    of: Of,
) -> Metric {
    Metric {
        key,
        label,
        protocol: Protocol {
            definition: definition.to_owned(),
            equals,
            ..Protocol::default()
        },
        net: None,
        needs,
        of: Some(of),
    }
}

/// What was read of two files, if they are there.
struct Learned {
    weights: Vec<Weights>,
    reason: Option<String>,
    of: Option<Of>,
}

fn learned(
    folder: &Path,
    names: [&str; 2],
    load: impl FnOnce([&Path; 2]) -> std::result::Result<Of, NetError>,
) -> Result<Learned> {
    let files = names.map(|name| folder.join(name));
    if let Some(missing) = files.iter().find(|file| !file.is_file()) {
        let name = deepsim_data::terminal::path(missing);
        return Ok(Learned {
            weights: Vec::new(),
            reason: Some(format!(
                "no {name}: `cargo xtask setup --only judges` fetches it"
            )),
            of: None,
        });
    }
    let of = load(files.each_ref().map(std::path::PathBuf::as_path))?;
    let mut weights = Vec::with_capacity(files.len());
    for file in &files {
        weights.push(Weights {
            file: file.display().to_string(),
            blake3: hash_file(file)?,
        });
    }
    Ok(Learned {
        weights,
        reason: None,
        of: Some(of),
    })
}

impl Learned {
    fn metric(
        self,
        key: &'static str,
        label: &'static str,
        net: NetKind,
        definition: &str,
        equals: &'static str,
    ) -> Metric {
        Metric {
            key,
            label,
            protocol: Protocol {
                definition: definition.to_owned(),
                equals,
                network: Some(net.info().label.to_owned()),
                weights: self.weights,
                reason: self.reason,
                ..Protocol::default()
            },
            net: Some(net),
            needs: match net {
                NetKind::Vgg16 => "at least 16 pixels a side",
                _ => "at least 31 pixels a side",
            },
            of: self.of,
        }
    }
}

/// One number of each image.
fn numbers(each: &Tensor) -> Numbers {
    let each = each.f_to_kind(Kind::Double)?.f_to_device(Device::Cpu)?;
    Ok(Vec::<f64>::try_from(each)?)
}

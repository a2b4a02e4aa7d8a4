//! Metrics of reconstructions that the paper lacks. A metric of a network that the run was trained with favours the run:
//! it is not given, and the table says `shared`.

use std::path::{Path, PathBuf};

use deepsim_experiment::Experiment;
use deepsim_experiment::hash::hash_file;
use deepsim_experiment::source::Source;
use deepsim_nets::images::caffe_to_rgb;
use deepsim_nets::metrics::{Lpips, WINDOW, classify, psnr, ssim};
use deepsim_nets::{FeatureNet, NetKind, Tap};
use serde::{Serialize, Serializer};
use tch::{Device, Kind, Tensor};

use crate::error::{EvalError, Result};
use crate::measure::scale::mean;

/// Value of a metric.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Score {
    /// It was not asked for, or its network's weights are not there.
    #[default]
    Missing,
    /// Its network is one that the run was trained with.
    Shared,
    /// A mean over images.
    Value(f64),
}

impl Serialize for Score {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Score::Missing => to.serialize_none(),
            Score::Shared => to.serialize_str("shared"),
            Score::Value(v) => to.serialize_f64(*v),
        }
    }
}

impl Score {
    /// For a table: so many decimals.
    pub fn text(self, decimals: usize) -> String {
        match self {
            Score::Missing => "-".to_owned(),
            Score::Shared => "shared".to_owned(),
            Score::Value(v) => format!("{v:.decimals$}"),
        }
    }
}

/// The metrics of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MetricValues {
    /// LPIPS by [`MetricValues::lpips_net`]; 0 is the same image.
    pub lpips: Score,
    /// The network of LPIPS.
    pub lpips_net: Option<NetKind>,
    /// Structural similarity; 1 is the same image.
    pub ssim: Score,
    /// Peak signal-to-noise ratio, decibels.
    pub psnr: Score,
    /// Share of reconstructions that EfficientNet-Lite0 gives the label that it gives the
    /// image.
    pub label_top1: Score,
    /// Share whose five best labels have it.
    pub label_top5: Score,
}

/// EfficientNet-Lite0's own side; smaller crops are enlarged to it.
const CLASSIFIER_SIDE: i64 = 224;

/// The metrics whose weights are there.
#[derive(Debug)]
pub struct Metrics {
    lpips: Vec<(NetKind, Lpips)>,
    classifier: Option<FeatureNet>,
    /// Weights that are there.
    files: Vec<PathBuf>,
    /// Weights that are not there.
    pub missing: Vec<PathBuf>,
}

/// Networks that LPIPS has heads for, the preferred one first, with weights and heads.
pub const LPIPS: [(NetKind, &str, &str); 2] = [
    (
        NetKind::Vgg16,
        "vgg16-lpips.safetensors",
        "lpips-vgg16.safetensors",
    ),
    (
        NetKind::AlexNet,
        "alexnet-lpips.safetensors",
        "lpips-alexnet.safetensors",
    ),
];
const CLASSIFIER: &str = "efficientnet-lite0.safetensors";

/// LPIPS by a network of another family than all that had a part in the run, where there is one: the preferred one first.
fn lpips_for(used: &[NetKind]) -> Option<NetKind> {
    let is_used = |a: NetKind| used.iter().any(|b| a.info().family == b.info().family);
    let all = LPIPS.iter().map(|(net, _, _)| *net);
    all.into_iter().find(|net| !is_used(*net))
}

impl Metrics {
    /// Loads the metrics whose weights are in `folder`.
    ///
    /// # Errors
    /// Weights that are there and damaged.
    pub fn load(folder: &Path, device: Device) -> Result<Metrics> {
        let mut metrics = Metrics {
            lpips: Vec::new(),
            classifier: None,
            files: Vec::new(),
            missing: Vec::new(),
        };
        let mut there = |name: &str| {
            let path = folder.join(name);
            let is = path.is_file();
            let list = if is {
                &mut metrics.files
            } else {
                &mut metrics.missing
            };
            list.push(path.clone());
            is.then_some(path)
        };
        let mut found = Vec::new();
        for (net, weights, heads) in LPIPS {
            if let (Some(weights), Some(heads)) = (there(weights), there(heads)) {
                found.push((net, weights, heads));
            }
        }
        let classifier = there(CLASSIFIER);
        for (net, weights, heads) in found {
            metrics
                .lpips
                .push((net, Lpips::load(net, &weights, &heads, device)?));
        }
        if let Some(path) = classifier {
            let net = NetKind::EfficientNetLite0;
            metrics.classifier = Some(FeatureNet::load(net, Tap::Logits, &path, device)?);
        }
        Ok(metrics)
    }

    /// Digest of the weights that are there.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    pub fn digest(&self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        for path in &self.files {
            let name = path.file_name().unwrap_or_default();
            hasher.update(name.as_encoded_bytes());
            hasher.update(hash_file(path)?.as_bytes());
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Begins to measure a trained run.
    pub fn of(&self, experiment: &Experiment) -> Measuring<'_> {
        self.beside(&used(experiment))
    }

    /// Begins to measure what was made by the experiment's encoder alone.
    pub fn of_encoder(&self, experiment: &Experiment) -> Measuring<'_> {
        let used: Vec<NetKind> = kind(&experiment.encoder).into_iter().collect();
        self.beside(&used)
    }

    fn beside(&self, used: &[NetKind]) -> Measuring<'_> {
        Measuring {
            metrics: self,
            lpips_net: lpips_for(used),
            classifier_shared: used.contains(&NetKind::EfficientNetLite0),
            values: Default::default(),
        }
    }

    fn labels(&self, net: &FeatureNet, rgb: &Tensor, k: usize) -> Result<Vec<Vec<i64>>> {
        let size = rgb.size();
        let (h, w) = (size[2].max(CLASSIFIER_SIDE), size[3].max(CLASSIFIER_SIDE));
        let x = rgb.f_upsample_bicubic2d([h, w], false, None, None)?;
        let caffe = deepsim_nets::images::rgb_to_caffe(&x.f_clamp(0.0, 255.0)?)?;
        Ok(classify(&features_at(net, Tap::Logits, &caffe)?, k)?)
    }
}

/// Features of images in Caffe units at one tap of a network.
///
/// # Errors
/// A tap that it does not have, or images of an illegal size.
pub fn features_at(net: &FeatureNet, tap: Tap, caffe: &Tensor) -> Result<Tensor> {
    let found = net.features(caffe, &[tap])?.pop();
    found.ok_or_else(|| EvalError::Format(format!("no features at {tap}")))
}

/// Runs that began with each other's weights, further back than anybody goes.
const GENERATIONS: usize = 16;

/// The networks of ours that a run was trained with, and the runs whose weights it began with, where these still are. The
/// encoder's comes first, if it is one of ours.
pub fn used(experiment: &Experiment) -> Vec<NetKind> {
    let own =
        |e: &Experiment| -> Vec<NetKind> { e.sources().filter_map(|(_, s)| kind(s)).collect() };
    let mut all = own(experiment);
    let mut began = experiment.config.generator.weights.clone();
    for _ in 0..GENERATIONS {
        let earlier = began.as_deref().and_then(run_of);
        let Some(Ok(earlier)) = earlier.map(|file| Experiment::load(&file, &[])) else {
            break;
        };
        all.extend(own(&earlier));
        began.clone_from(&earlier.config.generator.weights);
    }
    all
}

/// The experiment of the run that these weights are of: they are its directory, a checkpoint's, or a file of one.
fn run_of(weights: &Path) -> Option<PathBuf> {
    const TO_A_FILE: usize = 4; // RUN/checkpoints/STEP/FILE
    let folders = weights.ancestors().take(TO_A_FILE);
    let mut files = folders.map(|folder| folder.join("experiment.toml"));
    files.find(|file| file.is_file())
}

/// The network of ours that a source is or stands on, if it is one: only those are networks of metrics.
fn kind(source: &Source) -> Option<NetKind> {
    source.trunk().map(|n| n.net)
}

/// The metrics of a run, batch by batch.
#[derive(Debug)]
pub struct Measuring<'a> {
    metrics: &'a Metrics,
    lpips_net: Option<NetKind>,
    classifier_shared: bool,
    /// LPIPS, SSIM, PSNR, top 1, top 5.
    values: [Vec<f64>; 5],
}

impl Measuring<'_> {
    /// Looks at original images and their reconstructions, both `[N,3,S,S]` in Caffe units.
    ///
    /// # Errors
    /// What the networks refuse.
    pub fn add(&mut self, photos: &Tensor, made: &Tensor) -> Result<()> {
        let numbers = self.numbers(photos, made)?;
        self.take(&numbers);
        Ok(())
    }

    /// What there is to say of such images, for [`Measuring::take`]: of each metric the number of values, then they.
    ///
    /// # Errors
    /// What the networks refuse.
    pub fn numbers(&self, photos: &Tensor, made: &Tensor) -> Result<Vec<f64>> {
        let values = self.values_of(photos, made)?;
        let lists = values
            .into_iter()
            .map(|list| [vec![list.len() as f64], list].concat());
        Ok(lists.flatten().collect())
    }

    /// Counts images that were looked at, here or by another process.
    pub fn take(&mut self, numbers: &[f64]) {
        let mut rest = numbers;
        for list in &mut self.values {
            let Some((&count, after)) = rest.split_first() else {
                return;
            };
            let (own, after) = after.split_at(after.len().min(count as usize));
            list.extend_from_slice(own);
            rest = after;
        }
    }

    /// LPIPS, SSIM, PSNR, top 1 and top 5 of each image.
    fn values_of(&self, photos: &Tensor, made: &Tensor) -> Result<[Vec<f64>; 5]> {
        let _guard = tch::no_grad_guard();
        let mut values: [Vec<f64>; 5] = Default::default();
        let (a, b) = (caffe_to_rgb(photos)?, caffe_to_rgb(made)?);
        let lpips = self
            .metrics
            .lpips
            .iter()
            .find(|(n, _)| Some(*n) == self.lpips_net);
        if let Some((_, lpips)) = lpips {
            let d = lpips.distance(&a, &b)?.f_to_kind(Kind::Double)?;
            values[0].extend(Vec::<f64>::try_from(d.f_to_device(Device::Cpu)?)?);
        }
        if a.size()[2] >= WINDOW && a.size()[3] >= WINDOW {
            values[1].extend(ssim(&a, &b)?);
        }
        values[2].extend(psnr(&a, &b)?);
        if let Some(net) = self
            .metrics
            .classifier
            .as_ref()
            .filter(|_| !self.classifier_shared)
        {
            let own = self.metrics.labels(net, &a, 1)?;
            let theirs = self.metrics.labels(net, &b, 5)?;
            for (own, theirs) in own.iter().zip(&theirs) {
                let label = own.first();
                let hit = |found: bool| f64::from(u8::from(found));
                values[3].push(hit(theirs.first() == label));
                values[4].push(hit(label.is_some_and(|w| theirs.contains(w))));
            }
        }
        Ok(values)
    }

    /// The means so far.
    pub fn values(&self) -> MetricValues {
        let [lpips, ssim, psnr, top1, top5] = &self.values;
        let score = |values: &[f64]| {
            if values.is_empty() {
                Score::Missing
            } else {
                Score::Value(mean(values))
            }
        };
        let classes = |values: &[f64]| {
            if self.classifier_shared {
                Score::Shared
            } else {
                score(values)
            }
        };
        MetricValues {
            lpips: match self.lpips_net {
                None => Score::Shared,
                Some(_) => score(lpips),
            },
            lpips_net: self.lpips_net.filter(|_| !lpips.is_empty()),
            ssim: score(ssim),
            psnr: score(psnr),
            label_top1: classes(top1),
            label_top5: classes(top5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_of_a_network_that_the_run_was_trained_with_is_shared() {
        use NetKind::{AlexNet, CaffeNet, EfficientNetLite0, Vgg16};
        assert_eq!(lpips_for(&[AlexNet, AlexNet]), Some(Vgg16));
        assert_eq!(lpips_for(&[CaffeNet]), Some(Vgg16));
        assert_eq!(lpips_for(&[EfficientNetLite0, Vgg16]), Some(AlexNet));
        assert_eq!(lpips_for(&[AlexNet, Vgg16]), None);
        assert_eq!(lpips_for(&[NetKind::VideoNet]), Some(Vgg16));
        let by_file = |name: &str| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
            let experiment = Experiment::load(&root.join(name), &[]).unwrap();
            lpips_for(&used(&experiment))
        };
        // LPIPS as a loss silences its own network alone.
        assert_eq!(by_file("sample/modern.toml"), Some(Vgg16));
        assert_eq!(by_file("modern/conv5.toml"), None);
        assert_eq!(by_file("rae/dinov2-b.toml"), Some(AlexNet));
        let text = |s: Score| serde_json::to_string(&s).unwrap();
        assert_eq!(
            [
                text(Score::Missing),
                text(Score::Shared),
                text(Score::Value(0.5))
            ],
            ["null", "\"shared\"", "0.5"]
        );
    }
}

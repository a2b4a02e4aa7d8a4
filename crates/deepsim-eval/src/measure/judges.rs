//! Judges of reconstructions that the paper lacks. A judge that the run was trained with would
//! praise it for what it was paid for: such a number is not given, the table says `shared`.

use std::path::{Path, PathBuf};

use deepsim_experiment::Experiment;
use deepsim_experiment::config::Source;
use deepsim_nets::metrics::{Lpips, WINDOW, classify, psnr, ssim};
use deepsim_nets::pictures::caffe_to_rgb;
use deepsim_nets::{FeatureNet, NetKind, Tap};
use serde::{Serialize, Serializer};
use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::measure::scale::mean;

/// A judge's number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Score {
    /// Nobody asked, or the judge's weights are not there.
    #[default]
    Missing,
    /// The judge is a network that the run was trained with.
    Shared,
    /// A mean over photographs.
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

/// What the judges say of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Verdict {
    /// LPIPS by [`Verdict::lpips_net`]; 0 is the same picture.
    pub lpips: Score,
    /// The network of LPIPS.
    pub lpips_net: Option<NetKind>,
    /// Structural similarity; 1 is the same picture.
    pub ssim: Score,
    /// Peak signal-to-noise ratio, decibels.
    pub psnr: Score,
    /// Share of reconstructions that EfficientNet-Lite0 gives the label that it gives the
    /// photograph.
    pub label_top1: Score,
    /// Share whose five best labels have it.
    pub label_top5: Score,
}

/// EfficientNet-Lite0's own side; smaller crops are enlarged to it.
const CLASSIFIER_SIDE: i64 = 224;

/// The judges whose weights are there.
#[derive(Debug)]
pub struct Judges {
    lpips: Vec<(NetKind, Lpips)>,
    classifier: Option<FeatureNet>,
    /// Weights that are not there.
    pub missing: Vec<PathBuf>,
}

/// Networks that LPIPS has heads for, the preferred one first, with weights and heads.
const LPIPS: [(NetKind, &str, &str); 2] = [
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

/// LPIPS by a network that is kin to none that had a part in the run, where there is one: the preferred one first.
fn lpips_for(used: &[NetKind]) -> Option<NetKind> {
    let is_kin = |a: NetKind| used.iter().any(|b| a.info().family == b.info().family);
    let all = LPIPS.iter().map(|(net, _, _)| *net);
    all.into_iter().find(|net| !is_kin(*net))
}

impl Judges {
    /// Loads the judges whose weights are in `folder`.
    ///
    /// # Errors
    /// Weights that are there and damaged.
    pub fn load(folder: &Path, device: Device) -> Result<Judges> {
        let mut judges = Judges {
            lpips: Vec::new(),
            classifier: None,
            missing: Vec::new(),
        };
        let mut there = |name: &str| {
            let path = folder.join(name);
            let is = path.is_file();
            if !is {
                judges.missing.push(path.clone());
            }
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
            judges
                .lpips
                .push((net, Lpips::load(net, &weights, &heads, device)?));
        }
        if let Some(path) = classifier {
            let net = NetKind::EfficientNetLite0;
            judges.classifier = Some(FeatureNet::load(net, Tap::Logits, &path, device)?);
        }
        Ok(judges)
    }

    /// Begins to judge a trained run.
    pub fn of(&self, experiment: &Experiment) -> Judging<'_> {
        let mut used: Vec<NetKind> = kind(&experiment.encoder).into_iter().collect();
        if experiment.raw.loss.feat > 0.0 {
            used.extend(kind(&experiment.comparator));
        }
        self.beside(&used)
    }

    /// Begins to judge what was made by the experiment's encoder alone.
    pub fn of_encoder(&self, experiment: &Experiment) -> Judging<'_> {
        let used: Vec<NetKind> = kind(&experiment.encoder).into_iter().collect();
        self.beside(&used)
    }

    fn beside(&self, used: &[NetKind]) -> Judging<'_> {
        Judging {
            judges: self,
            lpips_net: lpips_for(used),
            classifier_shared: used.contains(&NetKind::EfficientNetLite0),
            values: Default::default(),
        }
    }

    fn labels(&self, net: &FeatureNet, rgb: &Tensor, k: usize) -> Result<Vec<Vec<i64>>> {
        let size = rgb.size();
        let (h, w) = (size[2].max(CLASSIFIER_SIDE), size[3].max(CLASSIFIER_SIDE));
        let x = rgb.f_upsample_bicubic2d([h, w], false, None, None)?;
        let caffe = deepsim_nets::pictures::rgb_to_caffe(&x.f_clamp(0.0, 255.0)?)?;
        let mut logits = net.features(&caffe, &[Tap::Logits])?;
        Ok(match logits.pop() {
            Some(logits) => classify(&logits, k)?,
            None => Vec::new(),
        })
    }
}

/// The network of ours that a source is, if it is one: only those are judges.
fn kind(source: &Source) -> Option<NetKind> {
    source.network().map(|n| n.net)
}

/// A run that is being judged, batch by batch.
#[derive(Debug)]
pub struct Judging<'a> {
    judges: &'a Judges,
    lpips_net: Option<NetKind>,
    classifier_shared: bool,
    /// LPIPS, SSIM, PSNR, top 1, top 5.
    values: [Vec<f64>; 5],
}

impl Judging<'_> {
    /// Looks at photographs and their reconstructions, both `[N,3,S,S]` in Caffe units.
    ///
    /// # Errors
    /// What the networks refuse.
    pub fn add(&mut self, photos: &Tensor, made: &Tensor) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let (a, b) = (caffe_to_rgb(photos)?, caffe_to_rgb(made)?);
        let judge = self
            .judges
            .lpips
            .iter()
            .find(|(n, _)| Some(*n) == self.lpips_net);
        if let Some((_, lpips)) = judge {
            let d = lpips.distance(&a, &b)?.f_to_kind(Kind::Double)?;
            self.values[0].extend(Vec::<f64>::try_from(d.f_to_device(Device::Cpu)?)?);
        }
        if a.size()[2] >= WINDOW && a.size()[3] >= WINDOW {
            self.values[1].extend(ssim(&a, &b)?);
        }
        self.values[2].extend(psnr(&a, &b)?);
        if let Some(net) = self
            .judges
            .classifier
            .as_ref()
            .filter(|_| !self.classifier_shared)
        {
            let own = self.judges.labels(net, &a, 1)?;
            let theirs = self.judges.labels(net, &b, 5)?;
            for (own, theirs) in own.iter().zip(&theirs) {
                let wanted = own.first();
                let hit = |found: bool| f64::from(u8::from(found));
                self.values[3].push(hit(theirs.first() == wanted));
                self.values[4].push(hit(wanted.is_some_and(|w| theirs.contains(w))));
            }
        }
        Ok(())
    }

    /// What they say.
    pub fn verdict(&self) -> Verdict {
        let [lpips, ssim, psnr, top1, top5] = &self.values;
        let score = |values: &[f64]| match values.is_empty() {
            true => Score::Missing,
            false => Score::Value(mean(values)),
        };
        let classes = |values: &[f64]| match self.classifier_shared {
            true => Score::Shared,
            false => score(values),
        };
        Verdict {
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
    fn nobody_is_judged_by_whom_it_was_trained_with() {
        use NetKind::{AlexNet, CaffeNet, EfficientNetLite0, Vgg16};
        assert_eq!(lpips_for(&[AlexNet, AlexNet]), Some(Vgg16));
        assert_eq!(lpips_for(&[CaffeNet]), Some(Vgg16));
        assert_eq!(lpips_for(&[EfficientNetLite0, Vgg16]), Some(AlexNet));
        assert_eq!(lpips_for(&[AlexNet, Vgg16]), None);
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

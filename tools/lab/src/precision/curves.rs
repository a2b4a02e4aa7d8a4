//! What a run's `metrics.jsonl` tells of its way.

use std::path::Path;

use anyhow::{Context, Result};
use deepsim_tools::files;
use serde::Serialize;
use serde_json::Value;

/// A line of losses: means over the steps since the line before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Losses {
    /// At which step.
    pub step: u64,
    /// Feature loss.
    pub feat: f64,
    /// Image loss.
    pub img: f64,
    /// Adversarial loss.
    pub adv: f64,
    /// The discriminator's.
    pub discr: f64,
}

/// An evaluation on held-out photos.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct HeldOut {
    /// At which step.
    pub step: u64,
    /// Normalised error of pixels, percent.
    pub image_error: f64,
    /// Normalised error of the inverted features, percent.
    pub feature_error: f64,
    /// Relative to the photos'.
    pub gradient_energy: f64,
}

/// Both, in the order of their steps.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Curves {
    /// While training.
    pub losses: Vec<Losses>,
    /// On held-out photos.
    pub held_out: Vec<HeldOut>,
}

impl Curves {
    /// Reads a run's metrics.
    ///
    /// # Errors
    /// A file that is not there or no list of metrics.
    pub fn read(run: &Path) -> Result<Curves> {
        let path = run.join("metrics.jsonl");
        Curves::parse(&files::text(&path)?).with_context(|| format!("in {}", path.display()))
    }

    fn parse(text: &str) -> Result<Curves> {
        let mut curves = Curves::default();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line)?;
            let step = line["step"].as_u64().context("a line without step")?;
            // A loss that was not finite is null there, and a gap in the curve.
            let value = |key: &str| line.get(key).map(|v| v.as_f64().unwrap_or(f64::NAN));
            if let (Some(feat), Some(img), Some(adv), Some(discr)) = (
                value("loss.feat"),
                value("loss.img"),
                value("loss.adv"),
                value("loss.discr"),
            ) {
                curves.losses.push(Losses {
                    step,
                    feat,
                    img,
                    adv,
                    discr,
                });
            }
            if let (Some(image_error), Some(feature_error), Some(gradient_energy)) = (
                value("eval.image_error"),
                value("eval.feature_error"),
                value("eval.gradient_energy"),
            ) {
                curves.held_out.push(HeldOut {
                    step,
                    image_error,
                    feature_error,
                    gradient_energy,
                });
            }
        }
        Ok(curves)
    }

    /// Mean of a loss over the last fifth of the lines, whose single values jump.
    pub fn at_the_end(&self, of: impl Fn(&Losses) -> f64) -> Option<f64> {
        let n = self.losses.len().div_ceil(5);
        let last = self.losses.get(self.losses.len() - n..)?;
        (n > 0).then(|| last.iter().map(of).sum::<f64>() / n as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_and_evaluations_are_told_apart() {
        let text = r#"{"step":10,"loss.feat":4.0,"loss.img":2.0,"loss.adv":0.5,"loss.discr":1.5,"lr":1}
{"step":10,"eval.image_error":50.0,"eval.feature_error":60.0,"eval.gradient_energy":0.5,"eval.n":38}
{"step":20,"loss.feat":null,"loss.img":2.0,"loss.adv":0.5,"loss.discr":1.5}
"#;
        let curves = Curves::parse(text).unwrap();
        assert_eq!((curves.losses.len(), curves.held_out.len()), (2, 1));
        assert_eq!(curves.losses[0].feat, 4.0);
        assert!(curves.losses[1].feat.is_nan());
        assert_eq!(curves.held_out[0].feature_error, 60.0);
        assert_eq!(curves.at_the_end(|l| l.img), Some(2.0));
        assert_eq!(Curves::default().at_the_end(|l| l.img), None);
        assert!(Curves::parse("{}").is_err());
    }
}

//! Encoders that learn: a feature network, and behind it heads that turn features into codes.
//!
//! With Gaussian codes these are the encoders of variational autoencoders (paper, §4.2): two heads
//! give μ and log σ² of a code's distribution, and z = μ + σ⊙ε with ε from a standard normal one.
//! Plain codes are those of an autoencoder: μ alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::{NetError, Result};
use crate::features::FeatureNet;
use crate::images;
use crate::layers::geometry::Rectifier;
use crate::layers::layer::{self, Layer, Pass};
use crate::layers::mode::Mode;
use crate::layers::op::{Op, fc};
use crate::layers::tap::Tap;
use crate::layers::trained::{self, Decays, Initial};
use crate::loss::Reduction;
use crate::params::Params;
use crate::precision::{at_least_fp32, widened};
use crate::zoo::vaegan;

/// What a code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Code {
    /// Drawn from a Gaussian that the encoder describes.
    Gaussian,
    /// What the encoder says.
    Plain,
}

/// Length and kind of the codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LatentSpec {
    /// Values of one code.
    pub size: i64,
    /// What a code is.
    pub code: Code,
}

/// The codes' distribution that an encoder gives for a batch of images, fp32.
#[derive(Debug)]
pub struct Posterior {
    /// μ `[N,size]`.
    pub mean: Tensor,
    /// log σ² `[N,size]` of Gaussian codes.
    pub log_variance: Option<Tensor>,
}

impl Posterior {
    /// Codes `[N,size]`: μ + σ⊙ε, ε drawn by libtorch's generator (seed it: [`crate::layers::init::seeded`]);
    /// μ where codes are plain.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn draw(&self) -> Result<Tensor> {
        let options = (Kind::Float, self.mean.device());
        let noise = match self.log_variance {
            Some(_) => Some(Tensor::f_randn(self.mean.size(), options)?),
            None => None,
        };
        self.at(noise.as_ref())
    }

    /// Codes `[N,size]` for ε `[N,size]`: μ + σ⊙ε, or μ where codes are plain.
    ///
    /// # Errors
    /// Gaussian codes without ε, and ε of another shape.
    pub fn at(&self, noise: Option<&Tensor>) -> Result<Tensor> {
        let Some(log_variance) = &self.log_variance else {
            return Ok(self.mean.shallow_clone());
        };
        let noise = noise
            .filter(|noise| noise.size() == self.mean.size())
            .ok_or_else(|| NetError::Spec("Gaussian codes need a draw for each value".into()))?
            .f_to_kind(self.mean.kind())?;
        let deviation = log_variance.f_mul_scalar(0.5)?.f_exp()?;
        Ok(self.mean.f_add(&deviation.f_mul(&noise)?)?)
    }

    /// The Kullback-Leibler term, Eq. 8 of the paper: ½ (‖μ‖² + ‖σ‖² − ⟨log σ², 1⟩), which is the
    /// divergence from a standard normal distribution plus half the code's length. Summed over the
    /// batch; [`Reduction::Caffe`]: per image; [`Reduction::Mean`]: per value. None for plain codes.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn kl(&self, reduction: Reduction) -> Result<Option<Tensor>> {
        let Some(log_variance) = &self.log_variance else {
            return Ok(None);
        };
        let sum = self
            .mean
            .f_square()?
            .f_add(&log_variance.f_exp()?)?
            .f_sub(log_variance)?
            .f_sum(at_least_fp32(&self.mean))?;
        let divisor = match reduction {
            Reduction::Paper => 1.0,
            Reduction::Caffe => self.mean.size()[0] as f64,
            Reduction::Mean => self.mean.numel() as f64,
        };
        Ok(Some(sum.f_mul_scalar(0.5 / divisor)?))
    }
}

/// What is in front of the heads.
#[derive(Debug)]
enum Body {
    /// A feature network up to a layer.
    Features(FeatureNet, Tap),
    /// VAE/GAN's encoder, for crops of this side.
    VaeGan(Vec<Layer>, i64),
}

/// A feature network up to a layer, or VAE/GAN's encoder, and the heads behind it. All of them learn.
#[derive(Debug)]
pub struct LearnedEncoder {
    body: Body,
    spec: LatentSpec,
    /// Values in front of the heads.
    features: i64,
    mean: Layer,
    log_variance: Option<Layer>,
    params: Params,
}

impl LearnedEncoder {
    /// From a network with the weights to begin with, for images `crop` pixels wide. The heads are
    /// `mean.*` (weights N(0, 1/fan_in), so that codes begin about as large as features are) and
    /// `log_variance.*` (zeros: σ begins at 1).
    ///
    /// # Errors
    /// A code without values, a network that cannot be trained along, or that cannot take such
    /// images.
    pub fn new(
        net: FeatureNet,
        tap: Tap,
        spec: LatentSpec,
        crop: i64,
        seed: u64,
        device: Device,
    ) -> Result<LearnedEncoder> {
        let features = net.net().feature_shape(tap, crop)?.len();
        let (net, params) = net.unfreeze()?;
        let body = (Body::Features(net, tap), features, Decays::WeightAndBias);
        LearnedEncoder::with_heads(body, params, spec, seed, device)
    }

    /// VAE/GAN's encoder for images `crop` pixels wide, with random weights; `width` multiplies its
    /// channels. The heads are as in [`LearnedEncoder::new`], but do not decay, as the authors' do not.
    ///
    /// # Errors
    /// A code without values, or a size that it is not made for.
    pub fn vae_gan(
        width: f64,
        spec: LatentSpec,
        crop: i64,
        seed: u64,
        device: Device,
    ) -> Result<LearnedEncoder> {
        let ops = vaegan::encoder(crop, width)?;
        let features = ops.iter().fold(3, |channels, op| op.channels(channels));
        let (layers, params) = trained::build("encoder", &ops, vaegan::initial, seed, device)?;
        let body = (Body::VaeGan(layers, crop), features, Decays::Nothing);
        LearnedEncoder::with_heads(body, params, spec, seed, device)
    }

    /// Puts the heads behind a body, whose weights are `params`; the body has values in front of them, and its heads
    /// decay so.
    fn with_heads(
        (body, features, decays): (Body, i64, Decays),
        mut params: Params,
        spec: LatentSpec,
        seed: u64,
        device: Device,
    ) -> Result<LearnedEncoder> {
        if spec.size < 1 {
            return Err(NetError::Spec(format!("codes of {} values", spec.size)));
        }
        let mut head = |key: &'static str, deviation: f64| -> Result<Layer> {
            let initial = |_: &Op| Initial {
                deviation,
                bias_learns: true,
                decays,
            };
            let ops = [fc(key, features, spec.size)];
            let (mut layers, weights) = trained::build("encoder", &ops, initial, seed, device)?;
            params.extend(weights);
            let built = layers.pop();
            built.ok_or_else(|| NetError::Spec(format!("no layer {key}")))
        };
        let mean = head("mean", 1.0 / (features as f64).sqrt())?;
        let log_variance = match spec.code {
            Code::Gaussian => Some(head("log_variance", 0.0)?),
            Code::Plain => None,
        };
        Ok(LearnedEncoder {
            body,
            spec,
            features,
            mean,
            log_variance,
            params,
        })
    }

    /// Checks that VAE/GAN's encoder is made for such crops and widths.
    ///
    /// # Errors
    /// A size that it is not made for.
    pub fn check_vae_gan(crop: i64, width: f64) -> Result<()> {
        vaegan::encoder(crop, width).map(drop)
    }

    /// Length and kind of the codes.
    pub fn spec(&self) -> LatentSpec {
        self.spec
    }

    /// All weights, the network's first.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The distribution of codes of images in Caffe units.
    ///
    /// # Errors
    /// Images of another size than it was built for.
    pub fn posterior(&self, caffe: &Tensor) -> Result<Posterior> {
        self.posterior_in(Mode::Evaluation, caffe)
    }

    /// As [`LearnedEncoder::posterior`]; `mode` matters for batch normalisation alone.
    ///
    /// # Errors
    /// As [`LearnedEncoder::posterior`], and a single image in training where there is batch normalisation.
    pub fn posterior_in(&self, mode: Mode, caffe: &Tensor) -> Result<Posterior> {
        let features = match &self.body {
            Body::Features(net, tap) => net
                .features(caffe, &[*tap])?
                .pop()
                .ok_or_else(|| NetError::Spec(format!("no features at {tap}")))?
                .f_flatten(1, -1)?,
            Body::VaeGan(layers, crop) => {
                images::check_size("the encoder", caffe, *crop)?;
                let x = images::caffe_to_unit(caffe)?;
                layer::forward(layers, &x, Pass::with_libtorch_fc(mode))?
            }
        };
        if features.size()[1] != self.features {
            return Err(NetError::InputShape {
                what: "the encoder's heads".to_owned(),
                expected: format!("images that give {} features", self.features),
                got: features.size(),
            });
        }
        let through = |head: &Layer| -> Result<Tensor> {
            widened(&head.forward(&features, Pass::of(mode), Rectifier::None)?)
        };
        Ok(Posterior {
            mean: through(&self.mean)?,
            log_variance: self.log_variance.as_ref().map(through).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::init::{normal, seeded};
    use crate::zoo::NetKind;

    fn encoder(code: Code) -> LearnedEncoder {
        let net = FeatureNet::random(NetKind::AlexNet, Tap::Pool2, 1, Device::Cpu).unwrap();
        let spec = LatentSpec { size: 5, code };
        LearnedEncoder::new(net, Tap::Pool2, spec, 64, 1, Device::Cpu).unwrap()
    }

    fn images() -> Tensor {
        normal("x", &[3, 3, 64, 64], 50.0, 1).unwrap()
    }

    #[test]
    fn codes_are_drawn_around_the_mean() {
        let at = encoder(Code::Gaussian).posterior(&images()).unwrap();
        assert_eq!(at.mean.size(), [3, 5]);
        let draw = |seed| seeded(seed, || at.draw()).unwrap();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        // σ begins at 1: the mean square of 200 draws of 15 values around their means.
        let spread: f64 = (0..200)
            .map(|s| {
                (draw(s) - &at.mean)
                    .square()
                    .mean(Kind::Double)
                    .double_value(&[])
            })
            .sum();
        assert!((spread / 200.0 - 1.0).abs() < 0.1, "{spread}");
    }

    #[test]
    fn plain_codes_are_the_mean_and_know_no_divergence() {
        let at = encoder(Code::Plain).posterior(&images()).unwrap();
        assert_eq!(at.draw().unwrap(), at.mean);
        assert!(at.kl(Reduction::Caffe).unwrap().is_none());
    }

    #[test]
    fn a_standard_normal_posterior_costs_half_a_unit_a_value() {
        let zero = Tensor::zeros([4, 6], (Kind::Float, Device::Cpu));
        let at = Posterior {
            mean: zero.shallow_clone(),
            log_variance: Some(zero),
        };
        for (reduction, want) in [
            (Reduction::Paper, 12.0),
            (Reduction::Caffe, 3.0),
            (Reduction::Mean, 0.5),
        ] {
            let kl = at.kl(reduction).unwrap().unwrap();
            assert_eq!(kl.double_value(&[]), want);
        }
    }

    #[test]
    fn everything_up_to_the_tap_learns() {
        let encoder = encoder(Code::Gaussian);
        let names: Vec<&str> = encoder.params().iter().map(|p| p.name.as_str()).collect();
        assert!(names.contains(&"features.0.weight") && names.contains(&"mean.weight"));
        assert!(names.contains(&"log_variance.bias"));
        let at = encoder.posterior(&images()).unwrap();
        let loss = at.kl(Reduction::Caffe).unwrap().unwrap() + at.mean.square().sum(Kind::Float);
        let weights: Vec<&Tensor> = encoder.params().iter().map(|p| &p.tensor).collect();
        for (name, g) in names
            .iter()
            .zip(Tensor::run_backward(&[loss], &weights, false, false))
        {
            let largest = g.abs().max().double_value(&[]);
            // Of log σ² = 0 the divergence has its minimum, where only bias and weight see noughts.
            assert!(largest > 0.0 || name.starts_with("log_variance"), "{name}");
        }
    }

    #[test]
    fn images_of_another_size_are_refused() {
        let x = normal("x", &[1, 3, 96, 96], 50.0, 1).unwrap();
        let error = encoder(Code::Plain).posterior(&x).unwrap_err().to_string();
        assert!(error.contains("heads"), "{error}");
    }
}

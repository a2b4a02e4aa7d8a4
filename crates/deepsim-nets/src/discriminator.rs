//! Discriminators: real image or generated. DeePSiM's, and VAE/GAN's.

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::error::{NetError, Result};
use crate::images;
use crate::kinks::rectified;
use crate::layers::convolution::{Geometry, Rectifier, convolution};
use crate::layers::init::{he_deviation, normal, zeros};
use crate::layers::shape::MAX_FEATURES;
use crate::layers::stack::{self, Layer, Mode};
use crate::params::{NamedTensors, Param, Params, check_exact, stored};
use crate::precision::{at_least_fp32, widened};
use crate::zoo::vaegan;

/// Probability of dropping a value before each fully connected layer.
pub const DROPOUT: f64 = 0.5;
/// The last map must be at least this large: an average over less is no local statistic.
const MIN_MAP: i64 = 3;

/// Which discriminator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// DeePSiM's.
    #[default]
    DeePSiM,
    /// VAE/GAN's, with batch normalisation.
    #[serde(rename = "larsen")]
    VaeGan {
        /// Multiplies its hidden channels; 1 is theirs.
        width: f64,
    },
}

impl Architecture {
    fn is_deepsim(&self) -> bool {
        *self == Architecture::DeePSiM
    }
}

/// Whether the discriminator also sees the features that are inverted (the released training
/// does, the paper's text does not).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureBranch {
    /// The image alone, as the paper says.
    Off,
    /// Features of this length go through fc 1024 and fc 512 and join the pooled image.
    Features(i64),
}

/// Everything that determines a discriminator's architecture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscriminatorSpec {
    /// Side of the images, pixels.
    pub crop: i64,
    /// The feature branch (DeePSiM's alone).
    pub features: FeatureBranch,
    /// Which one. Checkpoints from before there was a choice have DeePSiM's.
    #[serde(default, skip_serializing_if = "Architecture::is_deepsim")]
    pub architecture: Architecture,
}

/// A layer of the discriminator whose output can be taken as features. DeePSiM's: a convolution after its
/// rectifier, or the average over all positions. VAE/GAN's: a convolution, before normalisation and
/// rectifier, as the authors compare images (Dconv4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum DiscriminatorTap {
    Dconv1,
    Dconv2,
    Dconv3,
    Dconv4,
    Dconv5,
    Dpool5,
}

impl DiscriminatorTap {
    /// The name as in experiment files.
    pub fn name(self) -> &'static str {
        match self {
            DiscriminatorTap::Dconv1 => "Dconv1",
            DiscriminatorTap::Dconv2 => "Dconv2",
            DiscriminatorTap::Dconv3 => "Dconv3",
            DiscriminatorTap::Dconv4 => "Dconv4",
            DiscriminatorTap::Dconv5 => "Dconv5",
            DiscriminatorTap::Dpool5 => "Dpool5",
        }
    }
}

impl std::fmt::Display for DiscriminatorTap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A convolution: name, output channels, kernel, stride, whether it is left out where crops are
/// too small for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Conv(&'static str, i64, i64, i64);

/// Sizes are for 227×227 images. Every convolution is followed by a ReLU.
const CONVOLUTIONS: [Conv; 5] = [
    Conv("Dconv1", 32, 7, 4),  // 56
    Conv("Dconv2", 64, 5, 1),  // 52
    Conv("Dconv3", 128, 3, 2), // 25
    Conv("Dconv4", 256, 3, 1), // 23
    Conv("Dconv5", 256, 3, 2), // 11, then the average over all positions
];
const HIDDEN: i64 = 512;

impl DiscriminatorSpec {
    /// The convolutions that fit: later stride-2 layers are dropped first.
    fn convolutions(&self) -> Result<Vec<Conv>> {
        for dropped in [&[][..], &["Dconv5"], &["Dconv5", "Dconv3"]] {
            let kept: Vec<Conv> = CONVOLUTIONS
                .into_iter()
                .filter(|c| !dropped.contains(&c.0))
                .collect();
            let last = kept
                .iter()
                .try_fold(self.crop, |size, Conv(_, _, kernel, stride)| {
                    (size >= *kernel).then(|| (size - kernel) / stride + 1)
                });
            if last.is_some_and(|size| size >= MIN_MAP) {
                return Ok(kept);
            }
        }
        Err(NetError::TooSmall {
            what: "the discriminator".to_owned(),
            height: self.crop,
            width: self.crop,
            layer: "Dpool5".to_owned(),
        })
    }

    /// Checks that a discriminator of this size can be built.
    ///
    /// # Errors
    /// [`NetError::TooSmall`] or [`NetError::Spec`].
    pub fn validate(&self) -> Result<()> {
        if let FeatureBranch::Features(n) = self.features
            && !(1..=MAX_FEATURES).contains(&n)
        {
            return Err(NetError::Spec(format!(
                "the discriminator's feature branch takes 1 to {MAX_FEATURES} features, not {n}"
            )));
        }
        match (self.architecture, self.features) {
            (Architecture::DeePSiM, _) => self.convolutions().map(drop),
            (Architecture::VaeGan { width }, FeatureBranch::Off) => {
                vaegan::discriminator(self.crop, width).map(drop)
            }
            (Architecture::VaeGan { .. }, FeatureBranch::Features(_)) => Err(NetError::Spec(
                "the discriminator of Larsen et al. has no feature branch".into(),
            )),
        }
    }

    /// Names and shapes of its weights, running statistics among them, without building it.
    ///
    /// # Errors
    /// As [`DiscriminatorSpec::validate`].
    pub fn shapes(&self) -> Result<Vec<(String, Vec<i64>)>> {
        self.validate()?;
        if let Architecture::VaeGan { width } = self.architecture {
            return Ok(stack::shapes(&vaegan::discriminator(self.crop, width)?));
        }
        let of = |(name, shape, _): (&str, Vec<i64>, f64)| {
            let bias = vec![shape[0]];
            [
                (format!("{name}.weight"), shape),
                (format!("{name}.bias"), bias),
            ]
        };
        Ok(self.layers()?.into_iter().flat_map(of).collect())
    }

    /// Checks that a discriminator of this size has a layer: small crops leave out Dconv5, then
    /// Dconv3.
    ///
    /// # Errors
    /// [`NetError::Spec`] with the layers that it has, or [`NetError::TooSmall`].
    pub fn has(&self, tap: DiscriminatorTap) -> Result<()> {
        if let Architecture::VaeGan { .. } = self.architecture {
            return match tap {
                DiscriminatorTap::Dconv5 | DiscriminatorTap::Dpool5 => {
                    Err(NetError::Spec(format!(
                        "the discriminator of Larsen et al. has no `{tap}`; it has Dconv1 to Dconv4"
                    )))
                }
                _ => Ok(()),
            };
        }
        let kept = self.convolutions()?;
        if tap == DiscriminatorTap::Dpool5 || kept.iter().any(|c| c.0 == tap.name()) {
            return Ok(());
        }
        let names: Vec<&str> = kept.iter().map(|c| c.0).collect();
        Err(NetError::Spec(format!(
            "the discriminator of {}-pixel crops has no `{tap}`; it has {} and Dpool5",
            self.crop,
            names.join(", ")
        )))
    }

    /// Names, weight shapes and initialisation coefficients of all layers.
    fn layers(&self) -> Result<Vec<(&'static str, Vec<i64>, f64)>> {
        let mut out = Vec::new();
        let mut channels = 3;
        for Conv(name, output, kernel, _) in self.convolutions()? {
            let c = if name == "Dconv1" { 0.1 } else { 1.0 };
            out.push((name, vec![output, channels, kernel, kernel], c));
            channels = output;
        }
        if let FeatureBranch::Features(length) = self.features {
            out.push(("Dfeat1", vec![1024, length], 1.0));
            out.push(("Dfeat2", vec![512, 1024], 1.0));
            channels += 512;
        }
        out.push(("Dfc6", vec![HIDDEN, channels], 0.1));
        out.push(("Dfc7", vec![2, HIDDEN], 0.1));
        Ok(out)
    }
}

/// A discriminator with its weights.
#[derive(Debug)]
pub struct Discriminator {
    spec: DiscriminatorSpec,
    body: Body,
    params: Params,
}

#[derive(Debug)]
enum Body {
    DeePSiM(Vec<Conv>),
    VaeGan(Vec<Layer>),
}

impl Discriminator {
    /// The authors' initialisation: N(0, c²·2/fan_in), c = 0.1 for Dconv1, Dfc6 and Dfc7, else 1; biases
    /// zero. All weights and biases decay. VAE/GAN's: variances are kept, biases are zero, and weights
    /// decay.
    ///
    /// # Errors
    /// A crop that is too small.
    pub fn new(spec: DiscriminatorSpec, seed: u64, device: Device) -> Result<Discriminator> {
        spec.validate()?;
        if let Architecture::VaeGan { width } = spec.architecture {
            let layers = vaegan::discriminator(spec.crop, width)?;
            return Ok(Discriminator {
                params: stack::weights("discriminator", &layers, seed, device)?,
                body: Body::VaeGan(layers),
                spec,
            });
        }
        let mut params = Params::default();
        for (name, shape, c) in spec.layers()? {
            let deviation = c * he_deviation(shape[1..].iter().product());
            let weight = normal(
                &format!("discriminator.{name}.weight"),
                &shape,
                deviation,
                seed,
            )?;
            for (suffix, tensor) in [("weight", weight), ("bias", zeros(&shape[..1])?)] {
                params.push(Param {
                    name: format!("{name}.{suffix}"),
                    tensor: stored(&tensor, device)?.f_set_requires_grad(true)?,
                    trains: true,
                    decays: true,
                });
            }
        }
        Ok(Discriminator {
            body: Body::DeePSiM(spec.convolutions()?),
            spec,
            params,
        })
    }

    /// With weights from a file, whose names and shapes are compared with the spec's before anything is built: a file
    /// may ask for more than any memory holds.
    ///
    /// # Errors
    /// [`NetError::Mismatch`] listing every difference; a spec that cannot be built.
    pub fn from_values(
        spec: DiscriminatorSpec,
        values: &NamedTensors,
        what: &str,
        origin: &str,
        device: Device,
    ) -> Result<Discriminator> {
        check_exact(values, &spec.shapes()?, what, origin)?;
        let mut discriminator = Discriminator::new(spec, 0, device)?;
        discriminator.params.copy_from(values, what, origin)?;
        Ok(discriminator)
    }

    /// What it was built from.
    pub fn spec(&self) -> &DiscriminatorSpec {
        &self.spec
    }

    /// Its weights.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Freezes the weights, for a discriminator that only serves as comparator. Gradients still pass
    /// through to the images.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn freeze(&mut self) -> Result<()> {
        for p in self.params.iter() {
            let _ = p.tensor.f_set_requires_grad(false)?;
        }
        Ok(())
    }

    /// Its weights, to load values into.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    fn weight(&self, name: &str, suffix: &str) -> Result<&Tensor> {
        let name = format!("{name}.{suffix}");
        self.params
            .get(&name)
            .ok_or_else(|| NetError::Spec(format!("no tensor {name}")))
    }

    fn fc(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_linear(
            self.weight(name, "weight")?,
            Some(self.weight(name, "bias")?),
        )?)
    }

    /// The convolutions, up to `last` or all of them.
    fn convolve(
        &self,
        convolutions: &[Conv],
        caffe: &Tensor,
        last: Option<&str>,
    ) -> Result<Tensor> {
        images::check_images("the discriminator", caffe)?;
        let size = caffe.size();
        let mut x = caffe.shallow_clone();
        let (mut h, mut w) = (size[2], size[3]);
        for &Conv(name, _, kernel, stride) in convolutions {
            if h < kernel || w < kernel {
                return Err(NetError::TooSmall {
                    what: "the discriminator".to_owned(),
                    height: size[2],
                    width: size[3],
                    layer: name.to_owned(),
                });
            }
            (h, w) = ((h - kernel) / stride + 1, (w - kernel) / stride + 1);
            let (weight, bias) = (self.weight(name, "weight")?, self.weight(name, "bias")?);
            let geometry = Geometry::Convolution {
                stride,
                padding: 0,
                groups: 1,
            };
            x = convolution(&x, weight, bias, geometry, Rectifier::Leaky(0.0))?;
            if last == Some(name) {
                break;
            }
        }
        Ok(x)
    }

    /// Images `[N,3,H,W]` in Caffe units → features at a tap, `[N,C,H,W]`, or `[N,256]` at
    /// Dpool5. Nothing drops out before any of them; `mode` matters for batch normalisation alone.
    ///
    /// # Errors
    /// Images too small, or a layer that this discriminator does not have.
    pub fn features(&self, caffe: &Tensor, tap: DiscriminatorTap, mode: Mode) -> Result<Tensor> {
        self.spec.has(tap)?;
        match (&self.body, tap) {
            (Body::VaeGan(layers), conv) => self.stacked(layers, caffe, mode, Some(conv.name())),
            (Body::DeePSiM(convolutions), DiscriminatorTap::Dpool5) => {
                average(&self.convolve(convolutions, caffe, None)?)
            }
            (Body::DeePSiM(convolutions), conv) => {
                self.convolve(convolutions, caffe, Some(conv.name()))
            }
        }
    }

    /// The layers of VAE/GAN's discriminator, up to what `last` computes, or all.
    fn stacked(
        &self,
        layers: &[Layer],
        caffe: &Tensor,
        mode: Mode,
        last: Option<&str>,
    ) -> Result<Tensor> {
        images::check_size("the discriminator", caffe, self.spec.crop)?;
        let x = images::caffe_to_unit(caffe)?;
        stack::forward(layers, &self.params, &x, 0, mode, last)
    }

    /// Images `[N,3,H,W]` in Caffe units → logits `[N,2]`, index 0 = real. `features` are the
    /// inverted features of the real images, needed exactly where the spec has the branch.
    ///
    /// # Errors
    /// Images too small, or features missing or superfluous.
    pub fn forward(&self, caffe: &Tensor, features: Option<&Tensor>, mode: Mode) -> Result<Tensor> {
        let size = caffe.size();
        let convolutions = match &self.body {
            Body::DeePSiM(convolutions) => convolutions,
            Body::VaeGan(layers) => {
                if features.is_some() {
                    return Err(NetError::Spec(
                        "this discriminator has no feature branch".into(),
                    ));
                }
                // One logit says the same as two of which one is 0.
                let real = self.stacked(layers, caffe, mode, None)?;
                return Ok(Tensor::f_cat(&[&real, &real.f_zeros_like()?], 1)?);
            }
        };
        let maps = self.convolve(convolutions, caffe, None)?;
        let mut x = average(&maps)?; // [N,256]
        match (self.spec.features, features) {
            (FeatureBranch::Off, None) => {}
            (FeatureBranch::Features(length), Some(f)) => {
                let flat = f.f_flatten(1, -1)?;
                if flat.size() != [size[0], length] {
                    return Err(NetError::InputShape {
                        what: "the discriminator's feature branch".to_owned(),
                        expected: format!("[{},{length}]", size[0]),
                        got: f.size(),
                    });
                }
                let f = rectified(self.fc("Dfeat1", &flat)?, 0.0)?;
                let f = rectified(self.fc("Dfeat2", &f)?, 0.0)?;
                x = Tensor::f_cat(&[x, widened(&f)?], 1)?; // [N,768]
            }
            (FeatureBranch::Off, Some(_)) => {
                return Err(NetError::Spec(
                    "this discriminator has no feature branch".into(),
                ));
            }
            (FeatureBranch::Features(_), None) => {
                return Err(NetError::Spec(
                    "this discriminator has a feature branch and needs the features".into(),
                ));
            }
        }
        let active = mode != Mode::Evaluation;
        let x = rectified(self.fc("Dfc6", &x.f_dropout(DROPOUT, active)?)?, 0.0)?;
        self.fc("Dfc7", &x.f_dropout(DROPOUT, active)?)
    }
}

/// The mean over all positions, fp32: `[N,C,H,W]` → `[N,C]`.
fn average(maps: &Tensor) -> Result<Tensor> {
    Ok(maps.f_mean_dim([2i64, 3].as_slice(), false, at_least_fp32(maps))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    fn spec(crop: i64) -> DiscriminatorSpec {
        DiscriminatorSpec {
            crop,
            features: FeatureBranch::Off,
            architecture: Architecture::DeePSiM,
        }
    }

    #[test]
    fn small_crops_drop_strided_layers() {
        let names = |crop| -> Vec<_> {
            spec(crop)
                .convolutions()
                .unwrap()
                .iter()
                .map(|c| c.0)
                .collect()
        };
        assert_eq!(names(227).len(), 5);
        assert_eq!(names(128).len(), 5);
        assert_eq!(names(64), ["Dconv1", "Dconv2", "Dconv3", "Dconv4"]);
        assert_eq!(names(48), ["Dconv1", "Dconv2", "Dconv4"]);
        assert!(matches!(
            spec(32).validate(),
            Err(NetError::TooSmall { .. })
        ));
    }

    #[test]
    fn the_feature_branch_is_needed_exactly_where_it_is() {
        let x = Tensor::zeros([2, 3, 64, 64], (Kind::Float, Device::Cpu));
        let f = Tensor::zeros([2, 5, 1, 2], (Kind::Float, Device::Cpu));
        let plain = Discriminator::new(spec(64), 1, Device::Cpu).unwrap();
        assert_eq!(
            plain.forward(&x, None, Mode::Evaluation).unwrap().size(),
            [2, 2]
        );
        assert!(plain.forward(&x, Some(&f), Mode::Evaluation).is_err());
        let with = DiscriminatorSpec {
            features: FeatureBranch::Features(10),
            ..spec(64)
        };
        let with = Discriminator::new(with, 1, Device::Cpu).unwrap();
        assert_eq!(
            with.forward(&x, Some(&f), Mode::Evaluation).unwrap().size(),
            [2, 2]
        );
        assert!(with.forward(&x, None, Mode::Evaluation).is_err());
    }

    #[test]
    fn shapes_are_known_without_building() {
        let vae_gan = Architecture::VaeGan { width: 0.25 };
        for (crop, features, architecture) in [
            (64, FeatureBranch::Off, Architecture::DeePSiM),
            (128, FeatureBranch::Features(10), Architecture::DeePSiM),
            (64, FeatureBranch::Off, vae_gan),
        ] {
            let spec = DiscriminatorSpec {
                crop,
                features,
                architecture,
            };
            let d = Discriminator::new(spec.clone(), 1, Device::Cpu).unwrap();
            let there = d.params().iter().map(|p| (p.name.clone(), p.tensor.size()));
            assert_eq!(
                spec.shapes().unwrap(),
                there.collect::<Vec<_>>(),
                "{spec:?}"
            );
        }
        let endless = DiscriminatorSpec {
            features: FeatureBranch::Features(i64::MAX),
            ..spec(64)
        };
        assert!(endless.shapes().is_err());
    }

    #[test]
    fn dropout_follows_the_seed() {
        let d = Discriminator::new(spec(64), 1, Device::Cpu).unwrap();
        let x = Tensor::rand([2, 3, 64, 64], (Kind::Float, Device::Cpu)) * 255.0;
        let draw = |seed| {
            crate::layers::init::seeded(seed, || d.forward(&x, None, Mode::Training).unwrap())
        };
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
    }

    #[test]
    fn vaegan_discriminator_changes_statistics_in_training_alone() {
        let spec = DiscriminatorSpec {
            architecture: Architecture::VaeGan { width: 0.25 },
            ..spec(32)
        };
        let d = Discriminator::new(spec.clone(), 1, Device::Cpu).unwrap();
        let x = Tensor::rand([4, 3, 32, 32], (Kind::Float, Device::Cpu)) * 255.0 - 100.0;
        let running = || {
            let name = "Dconv4.norm.running_mean";
            d.params().get(name).unwrap().copy()
        };
        let before = running();
        let still = d.forward(&x, None, Mode::Evaluation).unwrap();
        assert_eq!(still, d.forward(&x, None, Mode::Evaluation).unwrap());
        let aside = d.forward(&x, None, Mode::Aside).unwrap();
        assert_eq!(before, running());
        let trained = d.forward(&x, None, Mode::Training).unwrap();
        assert_eq!(aside, trained);
        assert_ne!(before, running());
        assert_ne!(still, trained);
        assert_eq!(trained.size(), [4, 2]);
        assert_eq!(trained.select(1, 1).abs().max().double_value(&[]), 0.0);
        assert!(d.forward(&x.narrow(0, 0, 1), None, Mode::Training).is_err());
        assert!(
            d.forward(&x.narrow(3, 0, 24), None, Mode::Training)
                .is_err()
        );
        let at = |tap| d.features(&x, tap, Mode::Evaluation);
        assert_eq!(at(DiscriminatorTap::Dconv4).unwrap().size(), [4, 64, 4, 4]);
        assert!(at(DiscriminatorTap::Dpool5).is_err());
        assert!(spec.has(DiscriminatorTap::Dconv5).is_err());
    }
}

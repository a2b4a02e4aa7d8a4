//! Generators: from features back to images.

mod spec;
#[cfg(test)]
mod tests;

use tch::{Device, Kind, Tensor};

use crate::error::{NetError, Result};
use crate::images;
use crate::layers::convolution::{Geometry, Rectifier, convolution, to_images};
use crate::layers::init::{normal, zeros};
use crate::layers::linear::linear;
use crate::layers::shape::FeatureShape;
pub use crate::layers::shape::MAX_CROP;
use crate::layers::stack::{self, Mode};
use crate::params::{NamedTensors, Param, Params, check_exact, stored};
use crate::zoo::vaegan;
pub use spec::{GeneratorSpec, Layer, LayerOp, SLOPE, Trunk};

/// A generator with its weights.
#[derive(Debug)]
pub struct Generator {
    spec: GeneratorSpec,
    body: Body,
    params: Params,
}

#[derive(Debug)]
enum Body {
    /// DeePSiM's, and that of Dosovitskiy & Brox, CVPR 2016.
    Plain(Vec<Layer>),
    /// VAE/GAN's decoder.
    VaeGan(Vec<stack::Layer>),
}

impl Generator {
    /// The authors' initialisation: N(0, c²·2/fan_in) with c = 1.8 for doubling layers, 0.9 for
    /// 3×3 trunk layers, 1 otherwise; biases zero.
    ///
    /// # Errors
    /// A spec that cannot be built.
    pub fn new(spec: GeneratorSpec, seed: u64, device: Device) -> Result<Generator> {
        if let Some(layers) = spec.vae_gan_layers()? {
            return Ok(Generator {
                params: stack::weights("generator", &layers, seed, device)?,
                body: Body::VaeGan(layers),
                spec,
            });
        }
        let layers = spec.layers()?;
        let mut params = Params::default();
        for layer in &layers {
            let weight_name = format!("{}.weight", layer.name);
            let shape = layer.weight_shape();
            let weight = normal(
                &format!("generator.{weight_name}"),
                &shape,
                layer.deviation(),
                seed,
            )?;
            // Weight decay: the released solver has it on Rconv6–8's weights alone.
            let decays = matches!(layer.op, LayerOp::Conv { .. });
            params.push(Param {
                name: weight_name,
                tensor: stored(&weight, device)?.f_set_requires_grad(true)?,
                trains: true,
                decays,
            });
            let trains = layer.bias_trains(spec.trunk);
            params.push(Param {
                name: format!("{}.bias", layer.name),
                tensor: zeros(&[layer.output])?
                    .f_to_device(device)?
                    .f_set_requires_grad(trains)?,
                trains,
                decays: false,
            });
        }
        Ok(Generator {
            spec,
            body: Body::Plain(layers),
            params,
        })
    }

    /// With weights from a file, whose names and shapes are compared with the spec's before anything is built: a file
    /// may ask for more than any memory holds.
    ///
    /// # Errors
    /// [`NetError::Mismatch`] listing every difference; a spec that cannot be built.
    pub fn from_values(
        spec: GeneratorSpec,
        values: &NamedTensors,
        what: &str,
        origin: &str,
        device: Device,
    ) -> Result<Generator> {
        check_exact(values, &spec.shapes()?, what, origin)?;
        let mut generator = Generator::new(spec, 0, device)?;
        generator.params.copy_from(values, what, origin)?;
        Ok(generator)
    }

    /// What it was built from.
    pub fn spec(&self) -> &GeneratorSpec {
        &self.spec
    }

    /// Its weights.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Its weights, to load values into.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// Draws of noise for so many images, N(0, 1), out of libtorch's generator of random numbers: `[N,noise]`, or
    /// `[N,noise,H,W]` for a map. None where the generator takes none.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn draw_noise(&self, images: i64, device: Device) -> Result<Option<Tensor>> {
        if self.spec.noise == 0 {
            return Ok(None);
        }
        let mut shape = self.feature_shape();
        shape[0] = self.spec.noise;
        shape.insert(0, images);
        Ok(Some(Tensor::f_randn(shape, (Kind::Float, device))?))
    }

    fn feature_shape(&self) -> Vec<i64> {
        match self.spec.input {
            FeatureShape::Map { channels, size } => vec![channels, size, size],
            FeatureShape::Vector(n) => vec![n],
        }
    }

    /// Features `[N,C,H,W]` or `[N,length]` (raw activations) → images `[N,3,crop,crop]` in Caffe
    /// units, not clipped (but VAE/GAN's trunk ends in a hyperbolic tangent). Noise, where the
    /// generator takes some, is at its mean, zero.
    ///
    /// # Errors
    /// Features of another shape than the spec says.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        self.forward_in(Mode::Evaluation, features, None)
    }

    /// As [`Generator::forward`]; `mode` matters for batch normalisation alone, `noise` is as
    /// [`Generator::draw_noise`] gives it.
    ///
    /// # Errors
    /// As [`Generator::forward`], a single image in training where there is batch normalisation, and noise of
    /// another shape, or for a generator that takes none.
    pub fn forward_in(
        &self,
        mode: Mode,
        features: &Tensor,
        noise: Option<&Tensor>,
    ) -> Result<Tensor> {
        let expected = self.feature_shape();
        if features.size().get(1..) != Some(expected.as_slice()) {
            return Err(NetError::InputShape {
                what: "the generator".to_owned(),
                expected: format!(
                    "features [N,{}]",
                    expected
                        .iter()
                        .map(i64::to_string)
                        .collect::<Vec<_>>()
                        .join(",")
                ),
                got: features.size(),
            });
        }
        let layers = match &self.body {
            Body::Plain(layers) => layers,
            Body::VaeGan(layers) => {
                let side = vaegan::base(self.spec.crop, self.spec.width)?;
                let unit = stack::forward(layers, &self.params, features, side, mode, None)?;
                return images::unit_to_caffe(&unit);
            }
        };
        let mut x = self.with_noise(features, noise)?;
        let last = layers.len() - 1;
        let rectifier = Rectifier::Leaky(self.spec.trunk.slope());
        for (i, (layer, pair)) in layers.iter().zip(self.params_by_layer()).enumerate() {
            let (weight, bias) = pair;
            let geometry = match layer.op {
                LayerOp::Fc => {
                    x = linear(&x, weight, bias, rectifier)?;
                    continue;
                }
                LayerOp::Conv { pad, .. } => Geometry::Convolution {
                    stride: 1,
                    padding: pad,
                    groups: 1,
                },
                LayerOp::Double { kernel } => Geometry::Double { kernel },
                LayerOp::Keep => Geometry::Keep,
            };
            if x.dim() == 2 {
                // [N, 16·C] → [N,C,4,4]
                x = x.f_view([-1, layer.input, 4, 4])?;
            }
            x = if i == last {
                to_images(&x, weight, bias, layer.op.kernel(), self.spec.crop)?
            } else {
                convolution(&x, weight, bias, geometry, rectifier)?
            };
        }
        Ok(x)
    }

    fn with_noise(&self, features: &Tensor, noise: Option<&Tensor>) -> Result<Tensor> {
        let mut shape = features.size();
        shape[1] = self.spec.noise;
        let noise = match noise {
            None if self.spec.noise == 0 => return Ok(features.shallow_clone()),
            None => Tensor::f_zeros(shape, (features.kind(), features.device()))?,
            Some(noise) if noise.size() == shape && self.spec.noise > 0 => {
                noise.f_to_kind(features.kind())?
            }
            Some(noise) => {
                return Err(NetError::InputShape {
                    what: "the generator".to_owned(),
                    expected: format!("noise {shape:?}"),
                    got: noise.size(),
                });
            }
        };
        Ok(Tensor::f_cat(&[features, &noise], 1)?)
    }

    /// (weight, bias) of each layer, in order.
    fn params_by_layer(&self) -> impl Iterator<Item = (&Tensor, &Tensor)> {
        let mut entries = self.params.iter();
        std::iter::from_fn(move || Some((&entries.next()?.tensor, &entries.next()?.tensor)))
    }
}

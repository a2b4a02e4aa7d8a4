//! Generators: from features back to images.

mod spec;
#[cfg(test)]
mod tests;

use tch::{Device, Kind, Tensor};

use crate::error::{NetError, Result};
use crate::images;
use crate::layers::layer::{self, Layer, Pass};
use crate::layers::mode::Mode;
use crate::layers::op::Op;
pub use crate::layers::shape::MAX_CROP;
use crate::layers::trained;
use crate::params::{NamedTensors, Params, check_exact};
pub use spec::{GeneratorSpec, SLOPE, Trunk};

/// A generator with its weights.
#[derive(Debug)]
pub struct Generator {
    spec: GeneratorSpec,
    layers: Vec<Layer>,
    params: Params,
}

impl Generator {
    /// With random weights, as the authors of each trunk begin; biases are zero.
    ///
    /// # Errors
    /// A spec that cannot be built.
    pub fn new(spec: GeneratorSpec, seed: u64, device: Device) -> Result<Generator> {
        let ops = spec.layers()?;
        let initial = |op: &Op| spec.initial(op);
        let (layers, params) = trained::build("generator", &ops, initial, seed, device)?;
        Ok(Generator {
            spec,
            layers,
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
        let mut shape = self.spec.input.sizes();
        shape[0] = self.spec.noise;
        shape.insert(0, images);
        Ok(Some(Tensor::f_randn(shape, (Kind::Float, device))?))
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
        let expected = self.spec.input.sizes();
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
        let x = self.with_noise(features, noise)?;
        match self.spec.trunk {
            Trunk::VaeGan => {
                let unit = layer::forward(&self.layers, &x, Pass::with_libtorch_fc(mode))?;
                images::unit_to_caffe(&unit)
            }
            Trunk::Vit { .. } => {
                let made = layer::forward(&self.layers, &x, Pass::of(mode))?;
                images::torchvision_to_caffe(&made)
            }
            Trunk::DeePSiM | Trunk::Db { .. } => layer::forward(&self.layers, &x, Pass::of(mode)),
        }
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
}

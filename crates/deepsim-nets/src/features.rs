//! Feature networks, with a tap at every layer of their tables.

use std::path::Path;

use deepsim_terminal::path as shown;
use tch::{Device, Tensor};

use crate::error::{NetError, Result};
use crate::images;
use crate::layers::convolution::Rectifier;
use crate::layers::init::{he_deviation, untrained};
use crate::layers::layer::{self, Layer, Pass, rectifier};
use crate::layers::mode::Mode;
use crate::layers::op::{Row, learns};
use crate::layers::tap::Tap;
use crate::params::{NamedTensors, Param, Params, check_exact, read_safetensors, widen};
use crate::zoo::NetKind;

/// A network that turns images into features. Its weights take no gradient unless
/// [`FeatureNet::unfreeze`] asks for it: nothing can train it by accident. Gradients pass through to the images.
#[derive(Debug)]
pub struct FeatureNet {
    net: NetKind,
    rows: &'static [Row],
    layers: Vec<Layer>,
}

impl FeatureNet {
    /// Builds the network up to `tap` from named tensors.
    ///
    /// The tensors must be exactly those of the whole network, or, for taps below its fully
    /// connected layers, exactly those of its convolutions; layers beyond the tap are checked and not kept.
    ///
    /// # Errors
    /// [`NetError::Mismatch`] with every difference; `origin` names the weights in it.
    pub fn from_tensors(
        net: NetKind,
        tap: Tap,
        values: &NamedTensors,
        origin: &str,
        device: Device,
    ) -> Result<FeatureNet> {
        let rows = net.rows_to(tap)?;
        let convolutions = net.convolutional_rows();
        // A file without any fully connected layer is compared with the convolutions alone.
        let conv_only = NetKind::weight_shapes(convolutions);
        let has_fc = values
            .keys()
            .any(|k| !conv_only.iter().any(|(n, _)| n == k));
        let (expected, what) = if rows.len() <= convolutions.len() && !has_fc {
            (conv_only, format!("{net} (convolutions)"))
        } else {
            (NetKind::weight_shapes(net.table()), net.to_string())
        };
        check_exact(values, &expected, &what, origin)?;
        FeatureNet::build(net, rows, device, &|name, _| match values.get(name) {
            Some(t) => Ok(t.shallow_clone()),
            None => Err(NetError::Spec(format!("{origin} lost tensor {name}"))),
        })
    }

    /// Reads weights from a safetensors file.
    ///
    /// # Errors
    /// An unreadable or damaged file, or any difference from the network's tensors.
    pub fn load(net: NetKind, tap: Tap, path: &Path, device: Device) -> Result<FeatureNet> {
        let values = read_safetensors(path)?;
        FeatureNet::from_tensors(net, tap, &values, &shown(path), device)
    }

    /// Random weights N(0, 2/fan_in) and zero biases, the same for the same seed. Batch
    /// normalisation leaves values as they are.
    ///
    /// # Errors
    /// An unknown tap.
    pub fn random(net: NetKind, tap: Tap, seed: u64, device: Device) -> Result<FeatureNet> {
        FeatureNet::build(net, net.rows_to(tap)?, device, &|name, shape| {
            let inputs = shape[1..].iter().product();
            untrained(name, shape, he_deviation(inputs), seed)
        })
    }

    fn build(
        net: NetKind,
        rows: &'static [Row],
        device: Device,
        get: layer::Source,
    ) -> Result<FeatureNet> {
        let layers = layer::build(rows.iter().map(|(_, op)| op), 3, get, device)?;
        Ok(FeatureNet { net, rows, layers })
    }

    /// Makes the weights trainable and returns them by name, for an encoder that learns. It takes
    /// the network by value, so that a frozen network that is in use elsewhere is not unfrozen by
    /// accident.
    ///
    /// # Errors
    /// A network with batch normalisation, whose statistics are part of its convolutions here.
    pub fn unfreeze(self) -> Result<(FeatureNet, Params)> {
        let mut params = Params::default();
        for ((_, op), layer) in self.rows.iter().zip(&self.layers) {
            if layer.is_folded() {
                return Err(NetError::Spec(format!(
                    "{} cannot be trained along: its batch normalisation is folded into its \
                     convolutions",
                    self.net
                )));
            }
            for ((name, _), tensor) in op.tensors().into_iter().zip(layer.tensors()) {
                let trains = learns(&name);
                params.push(Param {
                    tensor: tensor.f_set_requires_grad(trains)?,
                    name,
                    trains,
                    decays: trains,
                });
            }
        }
        Ok((self, params))
    }

    /// Converts the weights to fp64, in place, to measure the effect of rounding.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn widen(&self) -> Result<()> {
        for tensor in self.layers.iter().flat_map(Layer::tensors) {
            widen(tensor)?;
        }
        Ok(())
    }

    /// Which network this is.
    pub fn kind(&self) -> NetKind {
        self.net
    }

    /// Features at several taps in one pass, in the order of `taps`: raw activations,
    /// `[N,C,H,W]` or `[N,length]`. `caffe` are images in Caffe units.
    ///
    /// # Errors
    /// A tap beyond what was built, or images of an illegal size.
    pub fn features(&self, caffe: &Tensor, taps: &[Tap]) -> Result<Vec<Tensor>> {
        images::check_images(&self.net.to_string(), caffe)?;
        let mut last = 0;
        for &tap in taps {
            let at = self.rows.iter().position(|(t, _)| *t == tap);
            last = last.max(at.ok_or_else(|| NetError::NoSuchTap {
                net: self.net.to_string(),
                tap: tap.to_string(),
                known: self.rows.iter().map(|(t, _)| t.name()).collect(),
            })?);
        }
        let size = caffe.size();
        self.net.shape_at(self.rows[last].0, size[2], size[3])?;
        let mut x = self.net.info().units.of_caffe(caffe)?;
        let pass = Pass {
            averaged_to: self.net.fc_map().averaged_to(),
            ..Pass::of(Mode::Evaluation)
        };
        let mut found: Vec<(Tap, Tensor)> = Vec::with_capacity(taps.len());
        let mut at = 0;
        while let (true, Some((tap, _)), Some(layer)) =
            (at <= last, self.rows.get(at), self.layers.get(at))
        {
            // A layer with weights and its ReLU are one operation unless what lies between is wanted.
            let follows = self.rows.get(at + 1);
            let (tap, rectifier) = match follows.and_then(|(t, op)| Some((t, rectifier(op)?))) {
                Some(after) if layer.rectifies() && !taps.contains(tap) && at < last => {
                    at += 1;
                    after
                }
                _ => (tap, Rectifier::None),
            };
            x = layer.forward(&x, pass, rectifier)?;
            if taps.contains(tap) {
                found.push((*tap, x.shallow_clone()));
            }
            at += 1;
        }
        let pick = |t: &Tap| {
            found
                .iter()
                .find(|(at, _)| at == t)
                .map(|(_, x)| x.shallow_clone())
        };
        Ok(taps.iter().filter_map(pick).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::init::normal;
    use tch::Kind;

    #[test]
    fn conv_only_weights_serve_taps_up_to_pool5_and_no_further() {
        let rows = NetKind::CaffeNet.convolutional_rows();
        let values: NamedTensors = NetKind::weight_shapes(rows)
            .into_iter()
            .map(|(n, s)| (n, Tensor::zeros(s, (Kind::Float, Device::Cpu))))
            .collect();
        assert_eq!(values.len(), 10);
        let load =
            |tap| FeatureNet::from_tensors(NetKind::CaffeNet, tap, &values, "t", Device::Cpu);
        assert!(load(Tap::Pool5).is_ok());
        assert!(load(Tap::Conv1).is_ok());
        let text = load(Tap::Fc6).unwrap_err().to_string();
        assert!(text.contains("missing: fc6.weight [4096, 9216]"), "{text}");
        assert!(text.contains("missing: fc8.bias [1000]"), "{text}");
    }

    #[test]
    fn gradients_reach_the_image_and_never_the_weights() {
        let net = FeatureNet::random(NetKind::AlexNet, Tap::Pool2, 1, Device::Cpu).unwrap();
        let x = normal("x", &[1, 3, 64, 64], 1.0, 1)
            .unwrap()
            .set_requires_grad(true);
        let y = net.features(&x, &[Tap::Relu1, Tap::Pool2]).unwrap();
        assert_eq!(y.len(), 2);
        y[1].sum(Kind::Float).backward();
        assert!(x.grad().abs().sum(Kind::Float).double_value(&[]) > 0.0);
        let weights: Vec<_> = net.layers.iter().flat_map(Layer::tensors).collect();
        assert!(weights.len() >= 4);
        assert!(weights.iter().all(|w| !w.requires_grad()));
    }
}

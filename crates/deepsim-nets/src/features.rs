//! Feature networks, with a tap at every layer of their tables.

use std::path::Path;

use deepsim_terminal::path as shown;
use tch::{Device, Tensor};

use crate::error::{NetError, Result};
use crate::images;
use crate::layers::geometry::Rectifier;
use crate::layers::init::{he_deviation, untrained};
use crate::layers::layer::{self, LAYER_NORM_EPSILON, Layer, Pass, rectifier};
use crate::layers::mode::Mode;
use crate::layers::norm::channel_norm;
use crate::layers::op::{Op, Row, learns};
use crate::layers::tap::{Tap, Tokens};
use crate::params::{NamedTensors, Param, Params, check_exact, read_safetensors_without, widen};
use crate::zoo::{Net, NetKind};

/// A network that turns images into features. Its weights take no gradient unless
/// [`FeatureNet::unfreeze`] asks for it: nothing can train it by accident. Gradients pass through to the images.
#[derive(Debug)]
pub struct FeatureNet {
    net: &'static Net,
    rows: &'static [Row],
    layers: Vec<Layer>,
    l2_pools: bool,
}

impl FeatureNet {
    /// Builds the network up to `tap` from named tensors.
    ///
    /// The tensors must be exactly those of the whole network, or, for taps below its fully
    /// connected layers, exactly those of its convolutions; layers beyond the tap are checked and not kept. Beside them
    /// there may be those that the network's entry leaves aside ([`Net::aside`]).
    ///
    /// # Errors
    /// [`NetError::Mismatch`] with every difference; `origin` names the weights in it.
    pub fn from_tensors(
        net: impl Into<&'static Net>,
        tap: Tap,
        values: &NamedTensors,
        origin: &str,
        device: Device,
    ) -> Result<FeatureNet> {
        let net = net.into();
        let own = values.iter().filter(|(name, _)| !net.leaves_aside(name));
        let own = own.map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
        let values: &NamedTensors = &own.collect();
        let rows = net.rows_to(tap)?;
        let convolutions = net.convolutional_rows();
        // A file without any fully connected layer is compared with the convolutions alone.
        let conv_only = NetKind::weight_shapes(convolutions);
        let has_fc = values
            .keys()
            .any(|k| !conv_only.iter().any(|(n, _)| n == k));
        let parts = convolutions.len() < net.table.len();
        let (expected, what) = if parts && rows.len() <= convolutions.len() && !has_fc {
            (conv_only, format!("{} (convolutions)", net.name))
        } else {
            (NetKind::weight_shapes(net.table), net.name.to_owned())
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
    pub fn load(
        net: impl Into<&'static Net>,
        tap: Tap,
        path: &Path,
        device: Device,
    ) -> Result<FeatureNet> {
        let net = net.into();
        let values = read_safetensors_without(path, &|name| net.leaves_aside(name))?;
        FeatureNet::from_tensors(net, tap, &values, &shown(path), device)
    }

    /// Random weights N(0, 2/fan_in) and zero biases, the same for the same seed. Batch
    /// normalisation leaves values as they are; scales of what a block adds are 1.
    ///
    /// # Errors
    /// An unknown tap.
    pub fn random(
        net: impl Into<&'static Net>,
        tap: Tap,
        seed: u64,
        device: Device,
    ) -> Result<FeatureNet> {
        let net = net.into();
        FeatureNet::build(net, net.rows_to(tap)?, device, &|name, shape| {
            let inputs = shape[1..].iter().product();
            untrained(name, shape, he_deviation(inputs), seed)
        })
    }

    fn build(
        net: &'static Net,
        rows: &'static [Row],
        device: Device,
        get: layer::Source,
    ) -> Result<FeatureNet> {
        let layers = layer::build(rows.iter().map(|(_, op)| op), 3, get, device)?;
        Ok(FeatureNet {
            net,
            rows,
            layers,
            l2_pools: false,
        })
    }

    /// The same network with roots of weighted means of squares in place of its max pools, as DISTS has it. Its images
    /// must be as large as the max pools need them.
    #[must_use]
    pub fn with_l2_pools(self) -> FeatureNet {
        FeatureNet {
            l2_pools: true,
            ..self
        }
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
            if op.is_folded() {
                return Err(NetError::Spec(format!(
                    "{} cannot be trained along: its batch normalisation is folded into its \
                     convolutions",
                    self.net.name
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

    /// Handles of the weights by name, none of which trains, for a network that is part of another.
    ///
    /// # Errors
    /// A network with batch normalisation, whose statistics are part of its convolutions here.
    pub(crate) fn frozen(&self, prefix: &str) -> Result<Params> {
        let mut params = Params::default();
        for ((_, op), layer) in self.rows.iter().zip(&self.layers) {
            if op.is_folded() {
                return Err(NetError::Spec(format!(
                    "{} cannot be a discriminator's network: its batch normalisation is folded into its convolutions",
                    self.net.name
                )));
            }
            for ((name, _), tensor) in op.tensors().into_iter().zip(layer.tensors()) {
                params.push(Param {
                    name: format!("{prefix}{name}"),
                    tensor: tensor.shallow_clone(),
                    trains: false,
                    decays: false,
                });
            }
        }
        Ok(params)
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
    pub fn net(&self) -> &'static Net {
        self.net
    }

    /// Features at several taps in one pass, in the order of `taps`: raw activations,
    /// `[N,C,H,W]` or `[N,length]`, or what taps make of those of several layers. `caffe` are images in Caffe units.
    ///
    /// # Errors
    /// A tap beyond what was built, or images of an illegal size.
    pub fn features(&self, caffe: &Tensor, taps: &[Tap]) -> Result<Vec<Tensor>> {
        images::check_images(self.net.name, caffe)?;
        let size = caffe.size();
        let mut wanted = Vec::with_capacity(taps.len());
        for &tap in taps {
            for layer in tap.layers() {
                wanted.push(self.row(layer.name)?);
            }
            self.net.shape_at(tap, size[2], size[3])?;
        }
        let found = self.pass(caffe, &wanted)?;
        let combine = |&tap: &Tap| self.combined(tap, &found, [size[2], size[3]]);
        taps.iter().map(combine).collect()
    }

    /// The place of a layer that was built.
    fn row(&self, layer: &str) -> Result<usize> {
        let place = self.rows.iter().position(|(t, _)| t.name() == layer);
        place.ok_or_else(|| NetError::NoSuchTap {
            net: self.net.name.to_owned(),
            tap: layer.to_owned(),
            known: self.rows.iter().map(|(t, _)| t.name()).collect(),
        })
    }

    /// What the wanted rows put out, each once, as the next row takes it.
    fn pass(&self, caffe: &Tensor, wanted: &[usize]) -> Result<Vec<(usize, Tensor)>> {
        let last = wanted.iter().copied().max().unwrap_or_default();
        let mut x = self.net.units.of_caffe(caffe)?;
        let pass = Pass {
            averaged_to: self.net.fc_map.averaged_to(),
            l2_pools: self.l2_pools,
            ..Pass::of(Mode::Evaluation)
        };
        let mut found = Vec::with_capacity(wanted.len());
        let mut at = 0;
        while let (true, Some(layer)) = (at <= last, self.layers.get(at)) {
            // A layer with weights and its ReLU are one operation unless what lies between is wanted.
            let follows = self.rows.get(at + 1);
            let rectifier = match follows.and_then(|(_, op)| rectifier(op)) {
                Some(rectifier) if layer.rectifies() && !wanted.contains(&at) && at < last => {
                    at += 1;
                    rectifier
                }
                _ => Rectifier::None,
            };
            x = layer.forward(&x, pass, rectifier)?;
            if wanted.contains(&at) {
                found.push((at, x.shallow_clone()));
            }
            at += 1;
        }
        Ok(found)
    }

    /// What a tap makes of rows' outputs, for images of this height and width.
    fn combined(&self, tap: Tap, found: &[(usize, Tensor)], size: [i64; 2]) -> Result<Tensor> {
        let layers = tap.layers();
        let mut sum: Option<Tensor> = None;
        for layer in &layers {
            let row = self.row(layer.name)?;
            let mut all = found.iter().filter(|(at, _)| *at == row);
            let (_, x) = all.next().ok_or_else(|| {
                NetError::Spec(format!("{} gave nothing at {tap}", self.net.name))
            })?;
            let mut x = as_features(&self.rows[row].1, x, tap.tokens(), size)?;
            if layer.normalised {
                x = channel_norm(&x, None, LAYER_NORM_EPSILON)?;
            }
            sum = Some(match sum {
                None => x,
                Some(sum) => sum.f_add(&x)?,
            });
        }
        let sum = sum.ok_or_else(|| NetError::Spec(format!("`{tap}` names no layer")))?;
        if tap.is_mean() {
            return Ok(sum.f_mul_scalar(1.0 / layers.len() as f64)?);
        }
        Ok(sum)
    }
}

/// What a row puts out, as features: tokens `[N,T,C]` of a transformer become a map, `[N,C,H,W]` of the patches alone or
/// `[N,C,T,1]` of all.
fn as_features(op: &Op, x: &Tensor, tokens: Tokens, [height, width]: [i64; 2]) -> Result<Tensor> {
    let Some(vit) = op.tokens() else {
        return Ok(x.shallow_clone());
    };
    let Some([rows, columns]) = vit.patches(height, width) else {
        return Err(NetError::Spec("images are not of whole patches".into()));
    };
    let (from, shape) = match tokens {
        Tokens::Patches => (vit.leading(), [-1, vit.width, rows, columns]),
        Tokens::All => (0, [-1, vit.width, vit.leading() + rows * columns, 1]),
    };
    let count = vit.leading() + rows * columns - from;
    let map = x.f_narrow(1, from, count)?.f_transpose(1, 2)?;
    // Kernels take maps whose values lie side by side.
    Ok(map.f_contiguous()?.f_view(shape)?)
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

//! Feature networks, with a tap at every layer of their tables.

use std::path::Path;

use deepsim_terminal::path as shown;
use tch::{Device, Tensor};

use crate::error::{NetError, Result};
use crate::layers::convolution::{Geometry, Rectifier, convolution};
use crate::layers::init::{he_deviation, normal, zeros};
use crate::layers::linear::{linear, max_pool};
use crate::layers::op::{FcMap, Op, Row};
use crate::layers::tap::Tap;
use crate::layers::{folded, lrn};
use crate::params::{NamedTensors, Param, Params, check_exact, read_safetensors, stored, widen};
use crate::precision::at_least_fp32;
use crate::zoo::NetKind;
use crate::{kinks, pictures};

/// A network that turns images into features. Its weights take no gradient unless
/// [`FeatureNet::unfreeze`] asks for it: nothing can train it by accident. Gradients pass through to the images.
#[derive(Debug)]
pub struct FeatureNet {
    net: NetKind,
    rows: &'static [Row],
    layers: Vec<Weights>,
}

/// Tensors of one row.
#[derive(Debug)]
enum Weights {
    None,
    Affine { weight: Tensor, bias: Tensor },
    Band(Tensor),
    Folded(Vec<folded::Folded>),
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
        // A file without any fully connected layer is held against the convolutions alone.
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
        FeatureNet::build(net, rows, device, |name, _| match values.get(name) {
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
        FeatureNet::build(net, net.rows_to(tap)?, device, |name, shape| {
            if shape.len() > 1 {
                normal(name, shape, he_deviation(shape[1..].iter().product()), seed)
            } else if name.ends_with(".weight") || name.ends_with(".running_var") {
                Ok(zeros(shape)?.f_add_scalar(1.0)?)
            } else {
                zeros(shape)
            }
        })
    }

    fn build(
        net: NetKind,
        rows: &'static [Row],
        device: Device,
        get: impl Fn(&str, &[i64]) -> Result<Tensor>,
    ) -> Result<FeatureNet> {
        let mut layers = Vec::with_capacity(rows.len());
        let mut channels = 3;
        for row in rows {
            layers.push(match row.1 {
                Op::Conv { key, output, .. } | Op::Fc { key, output, .. } => {
                    channels = output;
                    let mut found = Vec::new();
                    for (name, shape) in NetKind::weight_shapes(std::slice::from_ref(row)) {
                        found.push(stored(&get(&name, &shape)?, device)?);
                    }
                    // weight_shapes gives the bias first.
                    match (found.pop(), found.pop()) {
                        (Some(weight), Some(bias)) => Weights::Affine { weight, bias },
                        _ => return Err(NetError::Spec(format!("no tensors for layer {key}"))),
                    }
                }
                Op::Lrn => Weights::Band(lrn::band(channels, device)?),
                Op::ConvNorm(_) | Op::MbConv(_) => {
                    Weights::Folded(folded::fold(row.1.parts(), &get, device)?)
                }
                Op::Relu | Op::MaxPool(_) | Op::GlobalAverage => Weights::None,
            });
        }
        Ok(FeatureNet { net, rows, layers })
    }

    /// Lets the weights learn, and names them: for an encoder that is trained along. Consumes
    /// nothing of a frozen network by accident: it must be owned, and asked by this name.
    ///
    /// # Errors
    /// A network with batch normalisation, whose statistics are part of its convolutions here.
    pub fn unfreeze(self) -> Result<(FeatureNet, Params)> {
        let mut params = Params::default();
        for (row, weights) in self.rows.iter().zip(&self.layers) {
            let (weight, bias) = match weights {
                Weights::Affine { weight, bias } => (weight, bias),
                Weights::Folded(_) => {
                    return Err(NetError::Spec(format!(
                        "{} cannot be trained along: its batch normalisation is folded into its \
                         convolutions",
                        self.net
                    )));
                }
                Weights::None | Weights::Band(_) => continue,
            };
            // weight_shapes gives the bias first.
            let names = NetKind::weight_shapes(std::slice::from_ref(row));
            for ((name, _), tensor) in names.into_iter().zip([bias, weight]) {
                let tensor = tensor.f_set_requires_grad(true)?;
                params.push(Param {
                    name,
                    tensor,
                    trains: true,
                    decays: true,
                });
            }
        }
        Ok((self, params))
    }

    /// Takes the weights to fp64, in place: for whoever wants to know how much rounding matters.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn widen(&self) -> Result<()> {
        for weights in &self.layers {
            if let Weights::Affine { weight, bias } = weights {
                for tensor in [weight, bias] {
                    widen(tensor)?;
                }
            }
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
        pictures::check_pictures(&self.net.to_string(), caffe)?;
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
        let mut found: Vec<(Tap, Tensor)> = Vec::with_capacity(taps.len());
        let mut at = 0;
        while let (true, Some((tap, op)), Some(weights)) =
            (at <= last, self.rows.get(at), self.layers.get(at))
        {
            // A layer with weights and its ReLU are one operation unless what lies between is wanted.
            let rectified = match self.rows.get(at + 1) {
                Some((after, Op::Relu)) if !taps.contains(tap) && at < last => Some(after),
                _ => None,
            };
            let mut tap = tap;
            x = match (op, weights, rectified) {
                (Op::Conv { .. }, _, Some(after)) => {
                    tap = after;
                    at += 1;
                    self.convolve(*op, weights, &x, Rectifier::Leaky(0.0))?
                }
                (Op::Fc { .. }, _, Some(after)) => {
                    tap = after;
                    at += 1;
                    self.connect(weights, &x, Rectifier::Leaky(0.0))?
                }
                _ => self.apply(*op, weights, &x)?,
            };
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

    fn convolve(
        &self,
        op: Op,
        weights: &Weights,
        x: &Tensor,
        rectifier: Rectifier,
    ) -> Result<Tensor> {
        let (
            Op::Conv {
                stride,
                pad,
                groups,
                ..
            },
            Weights::Affine { weight, bias },
        ) = (op, weights)
        else {
            return Err(NetError::Spec(format!("no tensors for {op:?}")));
        };
        let geometry = Geometry::Convolution {
            stride,
            padding: pad,
            groups,
        };
        convolution(x, weight, bias, geometry, rectifier)
    }

    fn connect(&self, weights: &Weights, x: &Tensor, rectifier: Rectifier) -> Result<Tensor> {
        let Weights::Affine { weight, bias } = weights else {
            return Err(NetError::Spec("a layer without its tensors".into()));
        };
        let map = match (x.dim(), self.net.fc_map()) {
            (4, FcMap::AveragedTo(side)) => x.f_adaptive_avg_pool2d([side, side])?,
            _ => x.shallow_clone(),
        };
        linear(&map.f_flatten(1, -1)?, weight, bias, rectifier)
    }

    fn apply(&self, op: Op, weights: &Weights, x: &Tensor) -> Result<Tensor> {
        Ok(match (op, weights) {
            (Op::Conv { .. }, _) => self.convolve(op, weights, x, Rectifier::None)?,
            (Op::Fc { .. }, _) => self.connect(weights, x, Rectifier::None)?,
            (Op::Relu, _) => kinks::relu(x)?,
            (Op::MaxPool(window), _) => max_pool(x, window)?,
            (Op::ConvNorm(_), Weights::Folded(parts)) => folded::forward(parts, x)?,
            (Op::MbConv(block), Weights::Folded(parts)) => {
                let y = folded::forward(parts, x)?;
                if block.has_skip() { y.f_add(x)? } else { y }
            }
            // fp32 whatever the map's precision: a mean of hundreds of values deserves it.
            (Op::GlobalAverage, _) => {
                x.f_mean_dim([2i64, 3].as_slice(), false, at_least_fp32(x))?
            }
            (Op::Lrn, Weights::Band(band)) => lrn::lrn(x, band)?,
            (op, _) => return Err(NetError::Spec(format!("no tensors for {op:?}"))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let x = Tensor::randn([1, 3, 64, 64], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let y = net.features(&x, &[Tap::Relu1, Tap::Pool2]).unwrap();
        assert_eq!(y.len(), 2);
        y[1].sum(Kind::Float).backward();
        assert!(x.grad().abs().sum(Kind::Float).double_value(&[]) > 0.0);
        for w in &net.layers {
            if let Weights::Affine { weight, .. } = w {
                assert!(!weight.requires_grad());
            }
        }
    }
}

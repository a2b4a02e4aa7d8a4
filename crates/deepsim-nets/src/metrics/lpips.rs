//! LPIPS (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual
//! Metric"), version 0.1 of their package.

use std::path::Path;

use deepsim_terminal::path as shown;
use tch::{Device, Tensor};

use crate::error::{NetError, Result};
use crate::features::FeatureNet;
use crate::images::rgb_to_caffe;
use crate::layers::tap::Tap;
use crate::metrics::{check_alike, halves};
use crate::params::{NamedTensors, check_exact, read_safetensors, widen};
use crate::precision::{at_least_fp32, widened};
use crate::unit::unit_lengths;
use crate::zoo::{Net, NetKind};

const ALEXNET: [(Tap, i64); 5] = [
    (Tap::Relu1, 64),
    (Tap::Relu2, 192),
    (Tap::Relu3, 384),
    (Tap::Relu4, 256),
    (Tap::Relu5, 256),
];
const VGG16: [(Tap, i64); 5] = [
    (Tap::Relu1_2, 64),
    (Tap::Relu2_2, 128),
    (Tap::Relu3_3, 256),
    (Tap::Relu4_3, 512),
    (Tap::Relu5_3, 512),
];

/// A learnt perceptual distance: activations of five layers, divided at each position by their
/// length; squared differences weighted by channel and averaged over positions; summed.
#[derive(Debug)]
pub struct Lpips {
    net: FeatureNet,
    taps: [Tap; 5],
    heads: Vec<Tensor>,
}

fn layers(net: &Net) -> Result<[(Tap, i64); 5]> {
    match net.name {
        "alexnet" => Ok(ALEXNET),
        "vgg16" => Ok(VGG16),
        other => Err(NetError::Spec(format!(
            "LPIPS has heads for alexnet and vgg16, none for {other}"
        ))),
    }
}

impl Lpips {
    /// Reads a network (its convolutions suffice) and the heads that were learnt for it.
    ///
    /// # Errors
    /// A network other than AlexNet and VGG16, unreadable files, or any difference from the
    /// expected tensors: for the heads `lin0.weight` … `lin4.weight`, `[1,C,1,1]`.
    pub fn load(net: NetKind, weights: &Path, heads: &Path, device: Device) -> Result<Lpips> {
        let deepest = layers(net.info())?[4].0;
        let network = FeatureNet::load(net, deepest, weights, device)?;
        let values = read_safetensors(heads)?;
        Lpips::new(network, &values, &shown(heads), device)
    }

    /// Joins a network and its heads; `origin` names the heads in errors.
    ///
    /// # Errors
    /// As [`Lpips::load`].
    pub fn new(
        net: FeatureNet,
        heads: &NamedTensors,
        origin: &str,
        device: Device,
    ) -> Result<Lpips> {
        let layers = layers(net.net())?;
        let name = |i: usize| format!("lin{i}.weight");
        let expected: Vec<(String, Vec<i64>)> = layers
            .iter()
            .enumerate()
            .map(|(i, (_, channels))| (name(i), vec![1, *channels, 1, 1]))
            .collect();
        check_exact(
            heads,
            &expected,
            &format!("LPIPS heads for {}", net.net().name),
            origin,
        )?;
        let mut found = Vec::new();
        for (name, _) in &expected {
            if let Some(head) = heads.get(name) {
                found.push(head.f_to_device(device)?.f_detach()?);
            }
        }
        Ok(Lpips {
            net,
            taps: layers.map(|(tap, _)| tap),
            heads: found,
        })
    }

    /// The network whose activations are compared.
    pub fn net(&self) -> &'static Net {
        self.net.net()
    }

    /// Distances `[N]` of RGB images `[N,3,H,W]` in 0–255 from those of the same index; 0 for
    /// equal ones. Gradients pass to both; call it under `tch::no_grad_guard()` to measure.
    ///
    /// The shift and scale that LPIPS applies to images in [−1,1] are torchvision's mean and
    /// deviation in other units, so that both networks get what they were trained on.
    ///
    /// # Errors
    /// Tensors that are not images of one shape, or images too small for the network.
    pub fn distance(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        super::check_same_images("LPIPS", a, b)?;
        let both = Tensor::f_cat(&[rgb_to_caffe(a)?, rgb_to_caffe(b)?], 0)?;
        let [a, b] = halves(&self.features(&both)?)?;
        self.between(&a, &b)
    }

    /// What is compared of images `[N,3,H,W]` in Caffe units: each layer's activations, divided at each position by
    /// their length.
    ///
    /// # Errors
    /// Images too small for the network.
    pub fn features(&self, caffe: &Tensor) -> Result<Vec<Tensor>> {
        let found = self.net.features(caffe, &self.taps)?;
        found.iter().map(|x| unit_lengths(&widened(x)?)).collect()
    }

    /// [`Lpips::distance`] of what [`Lpips::features`] has found of images of one number and size.
    ///
    /// # Errors
    /// Features of other layers or shapes.
    pub fn between(&self, a: &[Tensor], b: &[Tensor]) -> Result<Tensor> {
        check_alike("LPIPS", a, b, self.heads.len())?;
        let kind = at_least_fp32(&a[0]);
        let mut total = Tensor::f_zeros([a[0].size()[0]], (kind, a[0].device()))?;
        for ((x, y), head) in a.iter().zip(b).zip(&self.heads) {
            let apart = x.f_sub(y)?;
            // A 1×1 convolution to one channel is a weighted sum over channels.
            let weighted =
                apart
                    .f_square()?
                    .f_mul(head)?
                    .f_sum_dim_intlist([1i64].as_slice(), false, kind)?;
            let mean = weighted.f_mean_dim([1i64, 2].as_slice(), false, kind)?;
            total = total.f_add(&mean)?;
        }
        Ok(total)
    }

    /// Takes its weights to fp64, in place.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn widen(&self) -> Result<()> {
        self.net.widen()?;
        self.heads.iter().try_for_each(widen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::init::normal;
    use tch::Kind;

    fn lpips() -> Lpips {
        let net = FeatureNet::random(NetKind::AlexNet, Tap::Relu5, 1, Device::Cpu).unwrap();
        let heads = ALEXNET
            .iter()
            .enumerate()
            .map(|(i, (_, c))| {
                let ones = Tensor::ones([1, *c, 1, 1], (Kind::Float, Device::Cpu));
                (format!("lin{i}.weight"), ones)
            })
            .collect();
        Lpips::new(net, &heads, "test", Device::Cpu).unwrap()
    }

    #[test]
    fn gradients_are_finite_where_features_are_zero() {
        // Biases are 0 in a random network: images of the mean colour have no activations.
        let mean = Tensor::from_slice(&[0.485f32, 0.456, 0.406]) * 255.0;
        let a = mean.view([1, 3, 1, 1]).repeat([1, 1, 64, 64]);
        let a = a.set_requires_grad(true);
        let b = Tensor::zeros([1, 3, 64, 64], (Kind::Float, Device::Cpu));
        let lpips = lpips();
        let d = lpips.distance(&a, &b).unwrap();
        d.sum(Kind::Float).backward();
        let finite = a.grad().isfinite().all().int64_value(&[]);
        assert_eq!(finite, 1);
        assert!(d.double_value(&[0]) > 0.0);
        // As a comparator: what is compared of each image by itself, in Caffe units.
        let c = normal("c", &[1, 3, 64, 64], 60.0, 1).unwrap() + 128.0;
        let of = |x: &Tensor| lpips.features(&rgb_to_caffe(x).unwrap()).unwrap();
        let apart = lpips.between(&of(&c), &of(&b)).unwrap();
        let d = lpips.distance(&c, &b).unwrap();
        let (apart, d) = (apart.double_value(&[0]), d.double_value(&[0]));
        assert!((apart - d).abs() < 1e-4 * d, "{apart} {d}");
        assert!(lpips.between(&of(&c), &of(&b)[..4]).is_err());
    }

    #[test]
    fn other_networks_and_shapes_are_refused() {
        let caffenet = FeatureNet::random(NetKind::CaffeNet, Tap::Relu5, 1, Device::Cpu).unwrap();
        let error = Lpips::new(caffenet, &NamedTensors::new(), "t", Device::Cpu).unwrap_err();
        assert!(error.to_string().contains("alexnet and vgg16"), "{error}");
        let alexnet = FeatureNet::random(NetKind::AlexNet, Tap::Relu5, 1, Device::Cpu).unwrap();
        let error = Lpips::new(alexnet, &NamedTensors::new(), "t", Device::Cpu).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("missing: lin4.weight [1, 256, 1, 1]"),
            "{error}"
        );
        let x = |side: i64| Tensor::zeros([1, 3, side, 64], (Kind::Float, Device::Cpu));
        assert!(lpips().distance(&x(64), &x(65)).is_err());
        assert!(lpips().distance(&x(20), &x(20)).is_err());
    }
}

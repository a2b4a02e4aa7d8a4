//! DISTS (Ding et al. 2020, "Image Quality Assessment: Unifying Structure and Texture Similarity").

use std::path::Path;

use deepsim_terminal::path as shown;
use tch::{Device, Kind, Tensor};

use crate::error::{NetError, Result};
use crate::features::FeatureNet;
use crate::images::{caffe_to_rgb, rgb_to_caffe};
use crate::layers::tap::Tap;
use crate::metrics::{check_alike, halves};
use crate::params::{NamedTensors, check_exact, read_safetensors, widen};
use crate::precision::{at_least_fp32, widened};
use crate::zoo::NetKind;

/// Layers of VGG16 that are compared, behind the image itself.
const TAPS: [Tap; 5] = [
    Tap::Relu1_2,
    Tap::Relu2_2,
    Tap::Relu3_3,
    Tap::Relu4_3,
    Tap::Relu5_3,
];
/// Channels of the image and of those layers.
const CHANNELS: [i64; 6] = [3, 64, 128, 256, 512, 512];
/// Added to numerators and denominators.
const STABLE: f64 = 1e-6;

/// A perceptual distance that forgives moved texture: in each channel of the image and of five layers, a similarity of
/// the means over positions (texture) and one of the deviations from them (structure), each with a learnt weight.
///
/// VGG16's max pools are replaced by roots of weighted means of squares. The weights belong to torchvision's VGG16 and
/// stay as they are where DISTS is a loss.
#[derive(Debug)]
pub struct Dists {
    net: FeatureNet,
    /// Weights of texture and structure `[1475]`; all together sum to 1.
    weights: [Tensor; 2],
}

impl Dists {
    /// Reads VGG16 (its convolutions suffice) and the weights of DISTS, `alpha` and `beta`, `[1,1475,1,1]` each.
    ///
    /// # Errors
    /// Unreadable files, or any difference from the expected tensors.
    pub fn load(vgg16: &Path, weights: &Path, device: Device) -> Result<Dists> {
        let net = FeatureNet::load(NetKind::Vgg16, Tap::Relu5_3, vgg16, device)?;
        let values = read_safetensors(weights)?;
        Dists::new(net, &values, &shown(weights), device)
    }

    /// Joins VGG16 and the weights; `origin` names the weights in errors.
    ///
    /// # Errors
    /// Another network, weights of other names or shapes, or weights without a positive sum.
    pub fn new(
        net: FeatureNet,
        values: &NamedTensors,
        origin: &str,
        device: Device,
    ) -> Result<Dists> {
        if net.net().name != NetKind::Vgg16.name {
            return Err(NetError::Spec(format!(
                "DISTS has weights for vgg16, none for {}",
                net.net().name
            )));
        }
        let names = ["alpha", "beta"];
        let shape = vec![1, CHANNELS.iter().sum::<i64>(), 1, 1];
        let expected = names.map(|name| (name.to_owned(), shape.clone()));
        check_exact(values, &expected, "DISTS", origin)?;
        let mut found = Vec::with_capacity(names.len());
        let mut sum = 0.0;
        for value in names.iter().filter_map(|name| values.get(*name)) {
            sum += value.f_sum(Kind::Double)?.f_double_value(&[])?;
            found.push(value.f_to_device(device)?.f_detach()?.f_flatten(0, -1)?);
        }
        let [alpha, beta] = found.as_slice() else {
            return Err(NetError::Spec(format!("{origin} lost weights of DISTS")));
        };
        if sum <= 0.0 {
            return Err(NetError::Spec(format!(
                "{origin}: the weights of DISTS sum to {sum}, which is not above 0"
            )));
        }
        Ok(Dists {
            net: net.with_l2_pools(),
            weights: [alpha.f_div_scalar(sum)?, beta.f_div_scalar(sum)?],
        })
    }

    /// Distances `[N]` of RGB images `[N,3,H,W]` in 0–255 from those of the same index; 0 for equal ones. Gradients pass
    /// to both; call it under `tch::no_grad_guard()` to measure. Images are taken at their size: the authors' script
    /// makes the short side 256 first where it is larger.
    ///
    /// # Errors
    /// Tensors that are not images of one shape, or images below 16 pixels.
    pub fn distance(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        super::check_same_images("DISTS", a, b)?;
        let rgb = Tensor::f_cat(&[widened(a)?, widened(b)?], 0)?;
        let [a, b] = halves(&self.maps(&rgb, &rgb_to_caffe(&rgb)?)?)?;
        self.between(&a, &b)
    }

    /// What is compared of images `[N,3,H,W]` in Caffe units: the images themselves, and the layers' activations.
    ///
    /// # Errors
    /// Images below 16 pixels.
    pub fn features(&self, caffe: &Tensor) -> Result<Vec<Tensor>> {
        let caffe = widened(caffe)?;
        self.maps(&caffe_to_rgb(&caffe)?, &caffe)
    }

    /// The same of images in both units.
    fn maps(&self, rgb: &Tensor, caffe: &Tensor) -> Result<Vec<Tensor>> {
        let mut maps = vec![rgb.f_div_scalar(255.0)?];
        maps.extend(self.net.features(caffe, &TAPS)?);
        maps.iter().map(widened).collect()
    }

    /// [`Dists::distance`] of what [`Dists::features`] has found of images of one number and size.
    ///
    /// # Errors
    /// Features of other layers or shapes.
    pub fn between(&self, a: &[Tensor], b: &[Tensor]) -> Result<Tensor> {
        check_alike("DISTS", a, b, CHANNELS.len())?;
        let kind = at_least_fp32(&a[0]);
        let over = |x: &Tensor| x.f_mean_dim([2i64, 3].as_slice(), true, kind);
        let centred = |x: &Tensor| -> Result<[Tensor; 2]> {
            let means = over(x)?;
            let centred = x.f_sub(&means)?;
            Ok([means, centred])
        };
        let mut distance = Tensor::f_zeros([a[0].size()[0]], (kind, a[0].device()))?;
        let mut from = 0;
        for ((x, y), channels) in a.iter().zip(b).zip(CHANNELS) {
            let ([ma, ca], [mb, cb]) = (centred(x)?, centred(y)?);
            let texture = unlike(
                &ma.f_sub(&mb)?.f_square()?,
                &ma.f_square()?.f_add(&mb.f_square()?)?,
            )?;
            let structure = unlike(
                &over(&ca.f_sub(&cb)?.f_square()?)?,
                &over(&ca.f_square()?)?.f_add(&over(&cb.f_square()?)?)?,
            )?;
            for (parts, weights) in [texture, structure].iter().zip(&self.weights) {
                let weighted = parts
                    .f_flatten(1, -1)?
                    .f_mul(&weights.f_narrow(0, from, channels)?)?;
                let sum = weighted.f_sum_dim_intlist([1i64].as_slice(), false, kind)?;
                distance = distance.f_add(&sum)?;
            }
            from += channels;
        }
        Ok(distance)
    }

    /// Takes its weights to fp64, in place.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn widen(&self) -> Result<()> {
        self.net.widen()?;
        self.weights.iter().try_for_each(widen)
    }
}

/// 1 − (2xy + ε) / (x² + y² + ε), which is (x − y)² / (x² + y² + ε): nothing cancels where both sides are nearly equal. The
/// weights sum to 1, so that what is left of all similarities is the sum of these.
fn unlike(difference: &Tensor, squares: &Tensor) -> Result<Tensor> {
    Ok(difference.f_div(&squares.f_add_scalar(STABLE)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::init::normal;

    fn values(alpha: f64) -> NamedTensors {
        let shape = [1, 1475, 1, 1];
        let of = |value| Tensor::full(shape, value, (Kind::Float, Device::Cpu));
        NamedTensors::from([
            ("alpha".to_owned(), of(alpha)),
            ("beta".to_owned(), of(0.5)),
        ])
    }

    fn net(net: NetKind, tap: Tap) -> FeatureNet {
        FeatureNet::random(net, tap, 1, Device::Cpu).unwrap()
    }

    #[test]
    fn equal_images_are_0_and_gradients_are_finite_where_features_are_zero() {
        let dists = Dists::new(
            net(NetKind::Vgg16, Tap::Relu5_3),
            &values(1.0),
            "t",
            Device::Cpu,
        )
        .unwrap();
        // Without biases an image of the mean colour has no activations.
        let mean = Tensor::from_slice(&[0.485f32, 0.456, 0.406]) * 255.0;
        let a = mean.view([1, 3, 1, 1]).repeat([1, 1, 32, 33]);
        let a = a.set_requires_grad(true);
        let b = Tensor::zeros([1, 3, 32, 33], (Kind::Float, Device::Cpu));
        let d = dists.distance(&a, &b).unwrap();
        d.sum(Kind::Float).backward();
        assert_eq!(a.grad().isfinite().all().int64_value(&[]), 1);
        assert!(d.double_value(&[0]) > 1e-3);
        let same = dists.distance(&b, &b).unwrap().double_value(&[0]);
        assert!(same.abs() < 1e-5, "{same}");
        // As a comparator: what is compared of each image by itself, in Caffe units.
        let c = normal("c", &[1, 3, 32, 33], 60.0, 1).unwrap() + 128.0;
        let of = |x: &Tensor| dists.features(&rgb_to_caffe(x).unwrap()).unwrap();
        let apart = dists.between(&of(&c), &of(&b)).unwrap();
        let d = dists.distance(&c, &b).unwrap();
        let (apart, d) = (apart.double_value(&[0]), d.double_value(&[0]));
        assert!((apart - d).abs() < 1e-4 * d, "{apart} {d}");
        assert!(dists.between(&of(&c), &of(&b)[..5]).is_err());
        let small = Tensor::zeros([1, 3, 15, 40], (Kind::Float, Device::Cpu));
        assert!(matches!(
            dists.distance(&small, &small),
            Err(NetError::TooSmall { .. })
        ));
    }

    #[test]
    fn other_networks_and_weights_are_refused() {
        let alexnet = net(NetKind::AlexNet, Tap::Relu5);
        let error = Dists::new(alexnet, &values(1.0), "t", Device::Cpu).unwrap_err();
        assert!(error.to_string().contains("vgg16"), "{error}");
        let vgg16 = || net(NetKind::Vgg16, Tap::Relu5_3);
        let error = Dists::new(vgg16(), &NamedTensors::new(), "t", Device::Cpu).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("missing: beta [1, 1475, 1, 1]"), "{text}");
        let error = Dists::new(vgg16(), &values(-0.5), "t", Device::Cpu).unwrap_err();
        assert!(error.to_string().contains("sum to 0"), "{error}");
    }
}

//! The features that FID, KID and precision and recall are measured in, and how images are resized for them.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use crate::error::{NetError, Result};
use crate::features::FeatureNet;
use crate::images::{check_images, rgb_to_caffe};
use crate::layers::tap::Tap;
use crate::zoo::NetKind;

/// Side of the images that Inception takes.
const SIDE: i64 = 299;

/// How images become those that Inception takes. Numbers of the two do not compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resizing {
    /// pytorch-fid's: bilinear without antialiasing; then 2x/255 − 1.
    #[default]
    PytorchFid,
    /// clean-fid's: [`bicubic`]; then (x − 128)/128.
    CleanFid,
}

/// The Inception network of FID up to a layer.
#[derive(Debug)]
pub struct Inception {
    net: FeatureNet,
    tap: Tap,
}

impl Inception {
    /// Reads the weights that `deepsim-weights import torchvision` makes of pytorch-fid's file. pytorch-fid's features
    /// of 64, 192, 768 and 2048 values are `pool1`, `pool2`, `mixed_6e` and `pooled`.
    ///
    /// # Errors
    /// An unreadable file, any difference from the network's tensors, or an unknown tap.
    pub fn load(weights: &Path, tap: Tap, device: Device) -> Result<Inception> {
        Inception::new(
            FeatureNet::load(NetKind::InceptionFid, tap, weights, device)?,
            tap,
        )
    }

    /// Of a network that is built at least up to `tap`.
    ///
    /// # Errors
    /// Another network.
    pub fn new(net: FeatureNet, tap: Tap) -> Result<Inception> {
        if net.net().name != NetKind::InceptionFid.name {
            return Err(NetError::Spec(format!(
                "FID is measured by inception-fid, not by {}",
                net.net().name
            )));
        }
        Ok(Inception { net, tap })
    }

    /// Features `[N,D]` of RGB images `[N,3,H,W]` in 0–255; maps are averaged over positions, as pytorch-fid does.
    ///
    /// # Errors
    /// A tensor of another shape.
    pub fn features(&self, rgb: &Tensor, resizing: Resizing) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let rgb = match resizing {
            Resizing::PytorchFid => bilinear(rgb, SIDE)?,
            // The network's units are 2x/255 − 1.
            Resizing::CleanFid => bicubic(rgb, SIDE)?.f_mul_scalar(127.5 / 128.0)?,
        };
        let found = self.net.features(&rgb_to_caffe(&rgb)?, &[self.tap])?.pop();
        let found = found.ok_or_else(|| NetError::Spec(format!("no features at {}", self.tap)))?;
        rows_of(&found)
    }
}

/// Features as rows `[N,D]`, fp32 at least: maps `[N,C,H,W]` are averaged over positions.
///
/// # Errors
/// Features of another rank.
pub fn rows_of(features: &Tensor) -> Result<Tensor> {
    let kind = crate::precision::at_least_fp32(features);
    match features.dim() {
        2 => Ok(features.f_to_kind(kind)?),
        4 => Ok(features.f_mean_dim([2i64, 3].as_slice(), false, kind)?),
        _ => Err(NetError::InputShape {
            what: "a distribution of features".to_owned(),
            expected: "features [N,D] or [N,C,H,W]".to_owned(),
            got: features.size(),
        }),
    }
}

/// RGB images `[N,3,H,W]` in 0–255 as squares of this side, bilinear without antialiasing, as pytorch-fid does; fp32.
///
/// # Errors
/// A tensor that is not `[N,3,H,W]`.
pub fn bilinear(rgb: &Tensor, side: i64) -> Result<Tensor> {
    check_images("resizing", rgb)?;
    let rgb = rgb.f_to_kind(Kind::Float)?;
    Ok(rgb.f_upsample_bilinear2d([side, side], false, None::<f64>, None::<f64>)?)
}

/// RGB images `[N,3,H,W]` in 0–255 as squares of this side: Pillow's bicubic filter in floating point on each channel,
/// antialiased and clipped to 0–255 but not rounded, as clean-fid does; fp32.
///
/// # Errors
/// A tensor that is not `[N,3,H,W]`.
pub fn bicubic(rgb: &Tensor, side: i64) -> Result<Tensor> {
    check_images("resizing", rgb)?;
    // Pillow adds up in double precision.
    let rgb = rgb.f_to_kind(Kind::Double)?;
    let resized =
        rgb.f_internal_upsample_bicubic2d_aa([side, side], false, None::<f64>, None::<f64>)?;
    Ok(resized.f_clamp(0.0, 255.0)?.f_to_kind(Kind::Float)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_averaged_and_other_networks_refused() {
        let x = Tensor::arange(24, (Kind::Float, Device::Cpu));
        let rows = rows_of(&x.view([2, 3, 2, 2])).unwrap();
        let values = Vec::<f32>::try_from(rows.flatten(0, -1)).unwrap();
        assert_eq!(values, [1.5, 5.5, 9.5, 13.5, 17.5, 21.5]);
        assert_eq!(rows_of(&x.view([4, 6])).unwrap(), x.view([4, 6]));
        assert!(rows_of(&x).is_err());
        let net = FeatureNet::random(NetKind::AlexNet, Tap::Relu5, 1, Device::Cpu).unwrap();
        assert!(Inception::new(net, Tap::Relu5).is_err());
    }
}

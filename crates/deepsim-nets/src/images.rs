//! Conversions between the units of images.

use tch::{Kind, Tensor};

use crate::error::{NetError, Result};
use crate::precision::widened;

/// CaffeNet's channel means, blue, green, red, in 0–255.
pub const MEAN_BGR: [f32; 3] = [104.0, 117.0, 123.0];
/// torchvision's ImageNet means, red, green, blue, of images in 0–1.
pub const TORCHVISION_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const TORCHVISION_MEAN_64: [f64; 3] = [0.485, 0.456, 0.406];
/// torchvision's ImageNet deviations, red, green, blue.
pub const TORCHVISION_STD: [f32; 3] = [0.229, 0.224, 0.225];
const TORCHVISION_STD_64: [f64; 3] = [0.229, 0.224, 0.225];
/// CLIP's means, red, green, blue, of images in 0–1.
pub const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
/// CLIP's deviations, red, green, blue.
pub const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

/// VideoNet's channel means, blue, green, red, in 0–255. Wang & Gupta subtract a mean image; these
/// are its averages over positions, in CaffeNet's order of channels: a choice of ours, since a mean
/// image would tie the network to one size.
pub const VIDEONET_MEAN_BGR: [f32; 3] = [96.6, 102.8, 108.0];
const VIDEONET_MEAN_BGR_64: [f64; 3] = [96.6, 102.8, 108.0];

/// One number for each channel, in fp32 and for images in fp64.
#[derive(Clone, Copy)]
struct Channels {
    single: [f32; 3],
    double: [f64; 3],
}

impl From<[f32; 3]> for Channels {
    /// Numbers that fp32 holds exactly.
    fn from(single: [f32; 3]) -> Channels {
        Channels {
            single,
            double: single.map(f64::from),
        }
    }
}

/// `[1,3,1,1]`. Filled on its device: a copy from the host would make the host wait for a GPU.
fn per_channel(values: impl Into<Channels>, like: &Tensor) -> Result<Tensor> {
    let Channels { single, double } = values.into();
    let (kind, values) = match like.kind() {
        Kind::Double => (Kind::Double, double),
        _ => (Kind::Float, single.map(f64::from)),
    };
    let all = Tensor::f_empty([1, 3, 1, 1], (kind, like.device()))?;
    for (channel, value) in (0..).zip(values) {
        let _ = all.f_narrow(1, channel, 1)?.f_fill_(value)?;
    }
    Ok(all)
}

/// Fails unless `x` is `[N,3,H,W]`.
///
/// # Errors
/// [`NetError::InputShape`] naming `what`.
pub fn check_images(what: &str, x: &Tensor) -> Result<()> {
    match x.size().as_slice() {
        [_, 3, _, _] => Ok(()),
        other => Err(NetError::InputShape {
            what: what.to_owned(),
            expected: "images [N,3,H,W]".to_owned(),
            got: other.to_vec(),
        }),
    }
}

/// Fails unless `x` is `[N,3,side,side]`.
///
/// # Errors
/// [`NetError::InputShape`] naming `what`.
pub fn check_size(what: &str, x: &Tensor, side: i64) -> Result<()> {
    match x.size().as_slice() {
        [_, 3, h, w] if (*h, *w) == (side, side) => Ok(()),
        other => Err(NetError::InputShape {
            what: what.to_owned(),
            expected: format!("images [N,3,{side},{side}]"),
            got: other.to_vec(),
        }),
    }
}

/// RGB 0–255 (any number type) → Caffe units, f32 (f64 stays f64).
///
/// # Errors
/// A tensor that is not `[N,3,H,W]`.
pub fn rgb_to_caffe(rgb: &Tensor) -> Result<Tensor> {
    check_images("the conversion from RGB", rgb)?;
    let bgr = widened(rgb)?.f_flip([1])?;
    Ok(bgr.f_sub(&per_channel(MEAN_BGR, rgb)?)?)
}

/// Caffe units → RGB 0–255, not clipped.
///
/// # Errors
/// A tensor that is not `[N,3,H,W]`.
pub fn caffe_to_rgb(caffe: &Tensor) -> Result<Tensor> {
    check_images("the conversion to RGB", caffe)?;
    let bgr = widened(caffe)?.f_add(&per_channel(MEAN_BGR, caffe)?)?;
    Ok(bgr.f_flip([1])?)
}

/// Caffe units → torchvision's units (RGB, 0–1, ImageNet mean and deviation).
///
/// # Errors
/// A tensor that is not `[N,3,H,W]`.
pub fn caffe_to_torchvision(caffe: &Tensor) -> Result<Tensor> {
    let [b, g, r] = MEAN_BGR;
    let (mut scale, mut shift) = (Channels::from([0.0; 3]), Channels::from([0.0; 3]));
    for (i, mean) in [r, g, b].into_iter().enumerate() {
        scale.single[i] = 1.0 / (255.0 * TORCHVISION_STD[i]);
        shift.single[i] = (mean / 255.0 - TORCHVISION_MEAN[i]) / TORCHVISION_STD[i];
        scale.double[i] = 1.0 / (255.0 * TORCHVISION_STD_64[i]);
        shift.double[i] =
            (f64::from(mean) / 255.0 - TORCHVISION_MEAN_64[i]) / TORCHVISION_STD_64[i];
    }
    reversed("a network of torchvision", caffe, scale, shift)
}

/// torchvision's units (RGB, 0–1, ImageNet mean and deviation) → Caffe units.
///
/// # Errors
/// A tensor that is not `[N,3,H,W]`.
pub fn torchvision_to_caffe(images: &Tensor) -> Result<Tensor> {
    let (mut scale, mut shift) = (Channels::from([0.0; 3]), Channels::from([0.0; 3]));
    // Of blue, green and red, which stand in reversed order in `images`.
    for (i, mean) in MEAN_BGR.into_iter().enumerate() {
        let rgb = 2 - i;
        scale.double[i] = 255.0 * TORCHVISION_STD_64[rgb];
        shift.double[i] = 255.0 * TORCHVISION_MEAN_64[rgb] - f64::from(mean);
        scale.single[i] = scale.double[i] as f32;
        shift.single[i] = shift.double[i] as f32;
    }
    reversed(
        "the conversion from torchvision's units",
        images,
        scale,
        shift,
    )
}

/// Caffe units → EfficientNet-Lite's units: RGB as (x − 127)/128.
///
/// # Errors
/// A tensor that is not `[N,3,H,W]`.
pub fn caffe_to_efficientnet(caffe: &Tensor) -> Result<Tensor> {
    let [b, g, r] = MEAN_BGR;
    let shift = [r, g, b].map(|mean| (mean - 127.0) / 128.0);
    reversed("EfficientNet-Lite0", caffe, [1.0 / 128.0; 3], shift)
}

/// Caffe units → CLIP's units (RGB, 0–1, its mean and deviation).
///
/// # Errors
/// A tensor that is not `[N,3,H,W]`.
pub fn caffe_to_clip(caffe: &Tensor) -> Result<Tensor> {
    let [b, g, r] = MEAN_BGR.map(f64::from);
    let (mut scale, mut shift) = (Channels::from([0.0; 3]), Channels::from([0.0; 3]));
    for (i, mean) in [r, g, b].into_iter().enumerate() {
        scale.double[i] = 1.0 / (255.0 * CLIP_STD[i]);
        shift.double[i] = (mean / 255.0 - CLIP_MEAN[i]) / CLIP_STD[i];
        scale.single[i] = scale.double[i] as f32;
        shift.single[i] = shift.double[i] as f32;
    }
    reversed("CLIP", caffe, scale, shift)
}

/// Caffe units → RGB in −1…1, the units of VAE/GAN's networks and of SigLIP.
///
/// # Errors
/// A tensor that is not `[N,3,H,W]`.
pub fn caffe_to_unit(caffe: &Tensor) -> Result<Tensor> {
    let [b, g, r] = MEAN_BGR;
    let scale = Channels {
        single: [1.0 / 127.5; 3],
        double: [1.0 / 127.5; 3],
    };
    let shift = Channels {
        single: [r, g, b].map(|mean| mean / 127.5 - 1.0),
        double: [r, g, b].map(|mean| f64::from(mean) / 127.5 - 1.0),
    };
    reversed("a network of Larsen et al.", caffe, scale, shift)
}

/// RGB in −1…1 → Caffe units.
///
/// # Errors
/// A tensor that is not `[N,3,H,W]`.
pub fn unit_to_caffe(unit: &Tensor) -> Result<Tensor> {
    let shift = MEAN_BGR.map(|mean| 127.5 - mean);
    reversed("the conversion from −1…1", unit, [127.5; 3], shift)
}

/// Caffe units → VideoNet's: BGR 0–255 minus its own mean.
///
/// # Errors
/// A tensor that is not `[N,3,H,W]`.
pub fn caffe_to_videonet(caffe: &Tensor) -> Result<Tensor> {
    check_images("VideoNet", caffe)?;
    let mut shift = Channels::from(MEAN_BGR);
    for i in 0..3 {
        shift.single[i] -= VIDEONET_MEAN_BGR[i];
        shift.double[i] -= VIDEONET_MEAN_BGR_64[i];
    }
    Ok(widened(caffe)?.f_add(&per_channel(shift, caffe)?)?)
}

/// Channels in reversed order, each times its `scale` plus its `shift`: one multiplication
/// and one addition, since RGB is what `caffe` holds, reversed, plus a constant.
fn reversed(
    what: &str,
    caffe: &Tensor,
    scale: impl Into<Channels>,
    shift: impl Into<Channels>,
) -> Result<Tensor> {
    check_images(what, caffe)?;
    let rgb = widened(caffe)?.f_flip([1])?;
    Ok(rgb
        .f_mul(&per_channel(scale, caffe)?)?
        .f_add(&per_channel(shift, caffe)?)?)
}

/// Clips images in Caffe units to what a screen can show (RGB 0–255).
///
/// # Errors
/// A tensor that is not `[N,3,H,W]`.
pub fn clip_caffe(caffe: &Tensor) -> Result<Tensor> {
    check_images("clipping", caffe)?;
    let mean = per_channel(MEAN_BGR, caffe)?;
    Ok(caffe.f_add(&mean)?.f_clamp(0.0, 255.0)?.f_sub(&mean)?)
}

/// The same values, stored channels-last, which oneDNN and cuDNN prefer.
///
/// # Errors
/// A tensor that is not four-dimensional.
pub fn channels_last(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_permute([0, 2, 3, 1])?
        .f_contiguous()?
        .f_permute([0, 3, 1, 2])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rgb_survives_the_round_trip_and_channels_are_reversed() {
        let rgb = Tensor::from_slice(&[200f32, 100.0, 50.0]).view([1, 3, 1, 1]);
        let caffe = rgb_to_caffe(&rgb).unwrap();
        let values = Vec::<f32>::try_from(caffe.view([3])).unwrap();
        assert_eq!(values, [50.0 - 104.0, 100.0 - 117.0, 200.0 - 123.0]);
        let back = Vec::<f32>::try_from(caffe_to_rgb(&caffe).unwrap().view([3])).unwrap();
        assert_eq!(back, [200.0, 100.0, 50.0]);
    }

    #[test]
    fn torchvision_units_equal_the_two_step_definition() {
        let rgb = Tensor::from_slice(&[200f32, 100.0, 50.0]).view([1, 3, 1, 1]);
        let got = caffe_to_torchvision(&rgb_to_caffe(&rgb).unwrap()).unwrap();
        let got = Vec::<f32>::try_from(got.view([3])).unwrap();
        for (i, v) in [200f32, 100.0, 50.0].into_iter().enumerate() {
            let expected = (v / 255.0 - TORCHVISION_MEAN[i]) / TORCHVISION_STD[i];
            assert!((got[i] - expected).abs() < 1e-5);
        }
        let there = caffe_to_torchvision(&rgb_to_caffe(&rgb).unwrap()).unwrap();
        let back = caffe_to_rgb(&torchvision_to_caffe(&there).unwrap()).unwrap();
        let far = (back - &rgb).abs().max().double_value(&[]);
        assert!(far < 1e-3, "{far}");
    }

    #[test]
    fn units_of_the_other_networks_equal_their_definitions() {
        let rgb = Tensor::from_slice(&[200f32, 100.0, 50.0]).view([1, 3, 1, 1]);
        let caffe = rgb_to_caffe(&rgb).unwrap();
        let values = |t: Tensor| Vec::<f32>::try_from(t.view([3])).unwrap();
        let lite = values(caffe_to_efficientnet(&caffe).unwrap());
        let video = values(caffe_to_videonet(&caffe).unwrap());
        let clip = values(caffe_to_clip(&caffe).unwrap());
        for (i, v) in [200f32, 100.0, 50.0].into_iter().enumerate() {
            assert!((lite[i] - (v - 127.0) / 128.0).abs() < 1e-6);
            let exact = (f64::from(v) / 255.0 - CLIP_MEAN[i]) / CLIP_STD[i];
            assert!((f64::from(clip[i]) - exact).abs() < 1e-5);
            let bgr = v - VIDEONET_MEAN_BGR[2 - i];
            assert!((video[2 - i] - bgr).abs() < 1e-4);
        }
    }

    #[test]
    fn minus_one_is_black_and_one_is_white() {
        let rgb = Tensor::from_slice(&[255f32, 0.0, 127.5]).view([1, 3, 1, 1]);
        let caffe = rgb_to_caffe(&rgb).unwrap();
        let unit = caffe_to_unit(&caffe).unwrap();
        let far = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
        let want = Tensor::from_slice(&[1f32, -1.0, 0.0]).view([1, 3, 1, 1]);
        assert!(far(&unit, &want) < 1e-6);
        assert!(far(&unit_to_caffe(&unit).unwrap(), &caffe) < 1e-4);
    }

    #[test]
    fn clipping_is_to_the_displayable_range() {
        let rgb = Tensor::from_slice(&[300f32, -20.0, 50.0]).view([1, 3, 1, 1]);
        let shown = caffe_to_rgb(&clip_caffe(&rgb_to_caffe(&rgb).unwrap()).unwrap()).unwrap();
        assert_eq!(
            Vec::<f32>::try_from(shown.view([3])).unwrap(),
            [255.0, 0.0, 50.0]
        );
    }
}

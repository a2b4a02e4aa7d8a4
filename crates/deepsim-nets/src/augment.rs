//! Differentiable augmentation of what a discriminator sees (Zhao et al., "Differentiable Augmentation for Data-Efficient
//! GAN Training", 2020), with the constants of the authors' released code.
//!
//! Draws and their use are apart: an iteration draws for its whole batch, and each part of the batch takes its images'.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::{NetError, Result};
use crate::images::{caffe_to_unit, check_images, unit_to_caffe};
use crate::precision::at_least_fp32;

fn yes() -> bool {
    true
}

fn an_eighth() -> f64 {
    0.125
}

fn half() -> f64 {
    0.5
}

/// What is changed in every image that the discriminator sees, real or generated, in each network's step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiffAugment {
    /// Whether brightness, saturation and contrast are drawn (true if left out).
    #[serde(default = "yes")]
    pub color: bool,
    /// Largest shift in each direction, as a share of the side (0.125 if left out; 0: none). Zeros come in from outside.
    #[serde(default = "an_eighth")]
    pub translation: f64,
    /// Side of a square of zeros, as a share of the side (0.5 if left out; 0: none).
    #[serde(default = "half")]
    pub cutout: f64,
}

/// What is drawn for images; nothing for what is off.
#[derive(Debug, Default)]
pub struct AugmentDraws {
    /// Uniform numbers `[N,3]` for brightness, saturation and contrast, fp32.
    pub color: Option<Tensor>,
    /// Shifts down and right `[N,2]`, whole pixels.
    pub shift: Option<Tensor>,
    /// Row and column of the square's centre `[N,2]`.
    pub hole: Option<Tensor>,
}

impl AugmentDraws {
    /// The same with another tensor in each one's place, such as a part of it.
    ///
    /// # Errors
    /// Those of `by`.
    pub fn map<E>(
        &self,
        by: impl Fn(&Tensor) -> std::result::Result<Tensor, E>,
    ) -> std::result::Result<AugmentDraws, E> {
        let some = |drawn: &Option<Tensor>| drawn.as_ref().map(&by).transpose();
        Ok(AugmentDraws {
            color: some(&self.color)?,
            shift: some(&self.shift)?,
            hole: some(&self.hole)?,
        })
    }

    /// All tensors, in the order of the fields.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let AugmentDraws { color, shift, hole } = self;
        [color, shift, hole].into_iter().flatten()
    }
}

impl DiffAugment {
    /// Pixels of a share of a side, as the authors round it.
    fn pixels(share: f64, side: i64) -> i64 {
        (side as f64 * share + 0.5) as i64
    }

    /// Draws for so many images of `side` pixels, out of libtorch's generator of random numbers, in the order of the fields.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn draw(&self, images: i64, side: i64, device: Device) -> Result<AugmentDraws> {
        let places = |low: i64, high: i64| {
            Tensor::f_randint_low(low, high, [images, 2], (Kind::Int64, device))
        };
        let color = if self.color {
            Some(Tensor::f_rand([images, 3], (Kind::Float, device))?)
        } else {
            None
        };
        let shift = if self.translation > 0.0 {
            let most = DiffAugment::pixels(self.translation, side);
            Some(places(-most, most + 1)?)
        } else {
            None
        };
        let hole = if self.cutout > 0.0 {
            let hole = DiffAugment::pixels(self.cutout, side);
            Some(places(0, side + 1 - hole % 2)?)
        } else {
            None
        };
        Ok(AugmentDraws { color, shift, hole })
    }

    /// Images `[N,3,side,side]` in Caffe units with these draws, in Caffe units. Gradients pass through, twice too. What is
    /// zero is so in −1…1, as published: the middle grey.
    ///
    /// # Errors
    /// What is no batch of images; draws of other images.
    pub fn apply(&self, caffe: &Tensor, draws: &AugmentDraws) -> Result<Tensor> {
        check_images("the augmentation", caffe)?;
        let mut x = caffe_to_unit(caffe)?;
        if let Some(color) = &draws.color {
            x = colored(&x, &matching(color, &x, 3)?)?;
        }
        if let Some(shift) = &draws.shift {
            x = shifted(&x, &matching(shift, &x, 2)?)?;
        }
        if let Some(hole) = &draws.hole {
            let side = DiffAugment::pixels(self.cutout, x.size()[2]);
            x = x.f_mul(&outside(&x, &matching(hole, &x, 2)?, side)?)?;
        }
        unit_to_caffe(&x)
    }
}

/// Draws `[N,values]`, where they are those of the images `x`.
fn matching(drawn: &Tensor, x: &Tensor, values: i64) -> Result<Tensor> {
    let expected = [x.size()[0], values];
    if drawn.size() == expected {
        return Ok(drawn.shallow_clone());
    }
    Err(NetError::InputShape {
        what: "the augmentation".to_owned(),
        expected: format!("draws {expected:?}"),
        got: drawn.size(),
    })
}

/// Brightness, then saturation, then contrast.
fn colored(x: &Tensor, drawn: &Tensor) -> Result<Tensor> {
    let kind = at_least_fp32(x);
    let drawn = drawn.f_to_kind(kind)?;
    let number = |at: i64| drawn.f_select(1, at)?.f_view([-1, 1, 1, 1]);
    let x = x.f_add(&number(0)?.f_sub_scalar(0.5)?)?;
    let grey = x.f_mean_dim([1i64].as_slice(), true, kind)?;
    let saturation = number(1)?.f_mul_scalar(2.0)?;
    let x = x.f_sub(&grey)?.f_mul(&saturation)?.f_add(&grey)?;
    let mean = x.f_mean_dim([1i64, 2, 3].as_slice(), true, kind)?;
    let contrast = number(2)?.f_add_scalar(0.5)?;
    Ok(x.f_sub(&mean)?.f_mul(&contrast)?.f_add(&mean)?)
}

/// Pixel i is what pixel i + shift was; zeros where that lies outside.
fn shifted(x: &Tensor, shift: &Tensor) -> Result<Tensor> {
    let size = x.size();
    let mut x = x.f_constant_pad_nd([1, 1, 1, 1])?;
    for (dim, at) in [(2i64, 0i64), (3, 1)] {
        let side = size[dim as usize];
        let own = Tensor::f_arange(side, (Kind::Int64, x.device()))?;
        let from = own
            .f_unsqueeze(0)?
            .f_add(&shift.f_select(1, at)?.f_unsqueeze(1)?)?
            .f_add_scalar(1i64)?
            .f_clamp(0, side + 1)?; // [N,side]
        let mut shape = [size[0], 1, 1, 1];
        shape[dim as usize] = side;
        let mut all = x.size();
        all[dim as usize] = side;
        let from = from.f_view(shape)?.f_expand(all.as_slice(), false)?;
        x = x.f_gather(dim, &from, false)?;
    }
    Ok(x)
}

/// `[N,1,H,W]`: 0 within a square of `side` pixels around the centres, 1 elsewhere.
fn outside(x: &Tensor, centre: &Tensor, side: i64) -> Result<Tensor> {
    let size = x.size();
    let within = |dim: usize, at: i64| -> Result<Tensor> {
        let own = Tensor::f_arange(size[dim], (Kind::Int64, x.device()))?.f_unsqueeze(0)?;
        let first = centre
            .f_select(1, at)?
            .f_sub_scalar(side / 2)?
            .f_unsqueeze(1)?;
        let beyond = first.f_add_scalar(side)?;
        let inside = own
            .f_ge_tensor(&first)?
            .f_logical_and(&own.f_lt_tensor(&beyond)?)?;
        let mut shape = [size[0], 1, 1, 1];
        shape[dim] = size[dim];
        Ok(inside.f_view(shape)?)
    };
    let hole = within(2, 0)?.f_logical_and(&within(3, 1)?)?;
    Ok(hole.f_logical_not()?.f_to_kind(x.kind())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::init::{normal, seeded};

    const ALL: DiffAugment = DiffAugment {
        color: true,
        translation: 0.125,
        cutout: 0.5,
    };

    fn images() -> Tensor {
        normal("x", &[3, 3, 8, 8], 60.0, 1).unwrap()
    }

    fn whole(values: &[i64]) -> Tensor {
        Tensor::from_slice(values).view([-1, 2])
    }

    fn unit(draws: &AugmentDraws) -> Tensor {
        caffe_to_unit(&ALL.apply(&images(), draws).unwrap()).unwrap()
    }

    fn far(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn draws_that_change_nothing_change_nothing() {
        let draws = AugmentDraws {
            color: Some(Tensor::full([3, 3], 0.5, (Kind::Float, Device::Cpu))),
            shift: Some(whole(&[0; 6])),
            hole: None,
        };
        assert!(far(&ALL.apply(&images(), &draws).unwrap(), &images()) < 1e-3);
    }

    #[test]
    fn an_image_moves_by_its_own_shift_and_zeros_come_in() {
        let draws = AugmentDraws {
            shift: Some(whole(&[1, 0, 0, -1, 0, 0])),
            ..AugmentDraws::default()
        };
        let (found, before) = (unit(&draws), caffe_to_unit(&images()).unwrap());
        let up = before.get(0).narrow(1, 1, 7);
        assert!(far(&found.get(0).narrow(1, 0, 7), &up) < 1e-5);
        assert!(found.get(0).narrow(1, 7, 1).abs().max().double_value(&[]) < 1e-5);
        let right = before.get(1).narrow(2, 0, 7);
        assert!(far(&found.get(1).narrow(2, 1, 7), &right) < 1e-5);
        assert!(found.get(1).narrow(2, 0, 1).abs().max().double_value(&[]) < 1e-5);
        assert!(far(&found.get(2), &before.get(2)) < 1e-5);
    }

    #[test]
    fn a_square_is_cut_out_as_far_as_it_lies_inside() {
        let draws = AugmentDraws {
            hole: Some(whole(&[4, 4, 0, 8, 8, 1])),
            ..AugmentDraws::default()
        };
        let found = unit(&draws);
        let zeros = |image: i64| {
            let empty = found.get(image).abs().lt(1e-5).all_dim(0, false);
            empty.sum(Kind::Int64).int64_value(&[])
        };
        // Rows and columns 2 to 5; rows 0 and 1, columns 6 and 7; rows 6 and 7, columns 0 to 2.
        assert_eq!([zeros(0), zeros(1), zeros(2)], [16, 4, 6]);
    }

    #[test]
    fn draws_follow_the_seed_and_stay_in_their_bounds() {
        let draw = |seed| seeded(seed, || ALL.draw(500, 8, Device::Cpu)).unwrap();
        let (a, b) = (draw(1), draw(1));
        assert_eq!(a.color, b.color);
        assert_eq!(
            (a.shift.as_ref(), a.hole.as_ref()),
            (b.shift.as_ref(), b.hole.as_ref())
        );
        assert_ne!(a.color, draw(2).color);
        let ends = |t: &Option<Tensor>| {
            let t = t.as_ref().unwrap();
            (t.min().int64_value(&[]), t.max().int64_value(&[]))
        };
        assert_eq!(ends(&a.shift), (-1, 1));
        assert_eq!(ends(&a.hole), (0, 8));
        let other = a.map(|t| t.f_narrow(0, 0, 3)).unwrap();
        assert!(ALL.apply(&images(), &other).is_ok());
        assert!(ALL.apply(&images(), &a).is_err());
    }
}

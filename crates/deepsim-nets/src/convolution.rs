//! Convolutions with the rectifier that follows them, by whichever algorithm is faster.

use deepsim_aten::{
    Bf16Convolution, Direction, Form, Output, bf16_convolution, bf16_wanted, leaky_relu, winograd,
    winograd_pays,
};
use tch::Tensor;

use crate::error::Result;

/// What follows a convolution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rectifier {
    /// Nothing.
    None,
    /// max(v, 0) + slope · min(v, 0): a ReLU for slope 0.
    Leaky(f64),
}

impl Rectifier {
    /// 1 leaves values alone.
    pub(crate) fn slope(self) -> f64 {
        match self {
            Rectifier::None => 1.0,
            Rectifier::Leaky(slope) => slope,
        }
    }
}

/// A convolution's geometry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Geometry {
    /// Weight `[out,in/groups,k,k]`.
    Convolution {
        stride: i64,
        padding: i64,
        groups: i64,
    },
    /// Transposed 3×3, stride 1, padding 1; weight `[in,out,3,3]`.
    Keep,
    /// Transposed 4×4, stride 2, padding 1; weight `[in,out,4,4]`.
    Double,
}

impl Geometry {
    /// As Winograd's algorithm knows it, where it does.
    fn winograd(self) -> Option<Form> {
        match self {
            Geometry::Convolution {
                stride: 1,
                padding,
                groups,
            } => Some(Form::Convolution { padding, groups }),
            Geometry::Convolution { .. } => None,
            Geometry::Keep => Some(Form::Keep),
            Geometry::Double => Some(Form::Double),
        }
    }
}

impl Geometry {
    /// As our bf16 kernels know it.
    fn bf16(self, rectifier: Rectifier, output: Output) -> Bf16Convolution {
        let (direction, stride, padding) = match self {
            Geometry::Convolution {
                stride,
                padding,
                groups,
            } => (Direction::Down { groups }, stride, padding),
            Geometry::Keep => (Direction::Up, 1, 1),
            Geometry::Double => (Direction::Up, 2, 1),
        };
        Bf16Convolution {
            direction,
            stride,
            padding,
            slope: rectifier.slope(),
            output,
        }
    }
}

/// Doubling transposed convolution of `x` `[N,C,H,W]` to pictures, of which the centre of `crop`
/// pixels is kept; fp32 whatever the precision of `x` where our own kernels compute it, since a
/// picture's grey levels need more than bf16's eight bits.
pub(crate) fn to_pictures(x: &Tensor, weight: &Tensor, bias: &Tensor, crop: i64) -> Result<Tensor> {
    let offset = (2 * x.size()[2] - crop) / 2; // 14 of 256 for 227
    if bf16_wanted(x)? {
        let output = Output::Fp32Window {
            top: offset,
            left: offset,
            height: crop,
            width: crop,
        };
        let with = Geometry::Double.bf16(Rectifier::None, output);
        return Ok(bf16_convolution(x, weight, Some(bias), with)?);
    }
    let whole = convolution(x, weight, bias, Geometry::Double, Rectifier::None)?;
    Ok(whole.f_narrow(2, offset, crop)?.f_narrow(3, offset, crop)?)
}

/// Convolution of `x` `[N,C,H,W]` and the rectifier behind it.
pub(crate) fn convolution(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    geometry: Geometry,
    rectifier: Rectifier,
) -> Result<Tensor> {
    if bf16_wanted(x)? {
        let with = geometry.bf16(rectifier, Output::Bf16);
        return Ok(bf16_convolution(x, weight, Some(bias), with)?);
    }
    if let Some(form) = geometry.winograd()
        && winograd_pays(x, weight, form)?
    {
        return Ok(winograd(x, weight, Some(bias), form, rectifier.slope())?);
    }
    let y = match geometry {
        Geometry::Convolution {
            stride,
            padding,
            groups,
        } => x.f_conv2d(
            weight,
            Some(bias),
            [stride, stride],
            [padding, padding],
            [1, 1],
            groups,
        )?,
        Geometry::Keep => transposed(x, weight, bias, 1)?,
        Geometry::Double => transposed(x, weight, bias, 2)?,
    };
    // In place: no convolution needs its output for its backward pass.
    Ok(match rectifier {
        Rectifier::None => y,
        Rectifier::Leaky(0.0) => {
            let mut y = y;
            y.f_relu_()?
        }
        Rectifier::Leaky(slope) => leaky_relu(y, slope)?,
    })
}

fn transposed(x: &Tensor, weight: &Tensor, bias: &Tensor, stride: i64) -> Result<Tensor> {
    let strides = [stride, stride];
    Ok(x.f_conv_transpose2d(weight, Some(bias), strides, [1, 1], [0, 0], 1, [1, 1])?)
}

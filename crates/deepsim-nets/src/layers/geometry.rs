//! What a convolution is, whichever algorithm computes it.

use deepsim_aten::{Bf16Convolution, Direction, Form, Output};
use tch::Tensor;

use crate::error::Result;
use crate::kinks::rectified;

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

    /// Applies it in place: nothing may need `y` any more.
    pub(crate) fn apply(self, y: Tensor) -> Result<Tensor> {
        match self {
            Rectifier::None => Ok(y),
            Rectifier::Leaky(slope) => rectified(y, slope),
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
    /// Transposed k×k (k = 4 or 5), stride 2, twice the size; weight `[in,out,k,k]`.
    Double { kernel: i64 },
}

impl Geometry {
    /// As Winograd's algorithm knows it, where it does.
    pub(super) fn winograd(self) -> Option<Form> {
        match self {
            Geometry::Convolution {
                stride: 1,
                padding,
                groups,
            } => Some(Form::Convolution { padding, groups }),
            Geometry::Convolution { .. } => None,
            Geometry::Keep => Some(Form::Keep),
            Geometry::Double { kernel: 4 } => Some(Form::Double),
            Geometry::Double { .. } => None,
        }
    }
}

impl Geometry {
    /// Rows and columns before the doubled map in what padding 1 gives. A 5×5 kernel has padding 2
    /// and one more row behind; our bf16 kernels pad both sides alike.
    pub(super) fn surplus(self) -> i64 {
        i64::from(matches!(self, Geometry::Double { kernel: 5 }))
    }

    /// As our bf16 kernels know it.
    pub(super) fn bf16(self, rectifier: Rectifier, output: Output) -> Bf16Convolution {
        let (direction, stride, padding) = match self {
            Geometry::Convolution {
                stride,
                padding,
                groups,
            } => (Direction::Down { groups }, stride, padding),
            Geometry::Keep => (Direction::Up, 1, 1),
            Geometry::Double { .. } => (Direction::Up, 2, 1),
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

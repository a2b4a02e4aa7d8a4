//! Convolutions to or from images, of three channels, as convolutions of many.
//!
//! Three channels fill no vector: libtorch's direct convolutions of them take two to eight times as long for a
//! multiplication as others do, most of all for the gradient of an image. So on a CPU, in fp32, blocks of pixels become
//! channels ("space to depth" and back, Shi et al. 2016, arXiv:1609.05158), and Winograd's algorithm does the rest:
//!
//! - a convolution of stride s has stride 1 on blocks of s×s pixels, s² times as many channels, and a kernel of whole
//!   blocks, in which the positions that were added are zero;
//! - a 4×4 convolution that doubles the size gives a block of 2×2 pixels for each position: four times as many channels
//!   of a 3×3 convolution that keeps it.

use deepsim_aten::{Form, winograd, winograd_pays};
use tch::{Device, Kind, Tensor};

use super::geometry::Geometry;
use crate::error::Result;

/// Most channels that are few.
const FEW: i64 = 4;
/// How much longer direct sums of few channels take than others, at least (measured with AVX-512: two to eight times).
const SLOWNESS: f64 = 3.0;
/// Channels of a vector: what a doubling convolution gives is filled up to it.
const LANES: i64 = 16;

/// The convolution and its rectifier of this slope, where one side has few channels and this way is faster.
pub(super) fn convolution(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    geometry: Geometry,
    slope: f64,
) -> Result<Option<Tensor>> {
    if x.device() != Device::Cpu || x.kind() != Kind::Float {
        return Ok(None);
    }
    match geometry {
        Geometry::Convolution {
            stride,
            padding,
            groups: 1,
        } => {
            let Some(blocks) = Blocks::of(&x.size(), &weight.size(), stride, padding) else {
                return Ok(None);
            };
            let form = Form::Convolution {
                padding: 0,
                groups: 1,
            };
            let stands_in = [blocks.maps(), blocks.kernels()];
            if !pays(x, stands_in, form, blocks.share())? {
                return Ok(None);
            }
            let (x, weight) = (blocks.image(x)?, blocks.weight(weight)?);
            Ok(Some(winograd(&x, &weight, bias, form, slope)?))
        }
        Geometry::Double { kernel: 4 } => doubled(x, weight, bias, slope),
        _ => Ok(None),
    }
}

/// Whether Winograd's algorithm on tensors of these shapes is faster than a direct convolution with this share of its
/// multiplications.
fn pays(x: &Tensor, [maps, kernels]: [[i64; 4]; 2], form: Form, share: f64) -> Result<bool> {
    // Without values: no memory is touched.
    let empty = |shape: [i64; 4]| Tensor::f_empty(shape, (Kind::Float, x.device()));
    // The kernels are made in each call. Like those that learn they are transformed in each.
    let (maps, kernels) = (empty(maps)?, empty(kernels)?.f_set_requires_grad(true)?);
    Ok(winograd_pays(&maps, &kernels, form, share * SLOWNESS)?)
}

/// A convolution from few channels, as one on blocks of pixels.
#[derive(Clone, Copy)]
struct Blocks {
    images: i64,
    channels: i64,
    sides: [i64; 2],
    outputs: i64,
    kernel: i64,
    stride: i64,
    padding: i64,
}

impl Blocks {
    /// None for many channels, and where a step is no whole block of the kernel.
    fn of(x: &[i64], weight: &[i64], stride: i64, padding: i64) -> Option<Blocks> {
        let (&[images, channels, height, width], &[outputs, of_weight, kernel, columns]) =
            (x, weight)
        else {
            return None;
        };
        let fits = channels == of_weight
            && kernel == columns
            && kernel > stride
            && kernel <= height.min(width) + 2 * padding;
        (fits && channels <= FEW && stride > 1).then_some(Blocks {
            images,
            channels,
            sides: [height, width],
            outputs,
            kernel,
            stride,
            padding,
        })
    }

    /// Blocks of the kernel along a side.
    fn of_kernel(self) -> i64 {
        (self.kernel + self.stride - 1) / self.stride
    }

    /// Blocks of the image along its sides: those that some step reads.
    fn of_image(self) -> [i64; 2] {
        let steps = |side: i64| (side + 2 * self.padding - self.kernel) / self.stride + 1;
        self.sides.map(|side| steps(side) - 1 + self.of_kernel())
    }

    fn many(self) -> i64 {
        self.stride * self.stride * self.channels
    }

    fn maps(self) -> [i64; 4] {
        let [rows, columns] = self.of_image();
        [self.images, self.many(), rows, columns]
    }

    fn kernels(self) -> [i64; 4] {
        let blocks = self.of_kernel();
        [self.outputs, self.many(), blocks, blocks]
    }

    /// How many of the kernel's positions are its own.
    fn share(self) -> f64 {
        let own = self.kernel as f64 / (self.of_kernel() * self.stride) as f64;
        own * own
    }

    /// The image `[N,C,H,W]`, padded or cut, as `[N,s²·C,H/s,W/s]`.
    fn image(self, x: &Tensor) -> Result<Tensor> {
        let ([rows, columns], s) = (self.of_image(), self.stride);
        let [after_rows, after_columns] = [rows * s, columns * s];
        let [height, width] = self.sides;
        let before = self.padding;
        let padded = x.f_constant_pad_nd([
            before,
            after_columns - width - before,
            before,
            after_rows - height - before,
        ])?;
        let pixels = padded.f_permute([0, 2, 3, 1])?.f_contiguous()?;
        let blocks = pixels
            .f_view([self.images, rows, s, columns, s * self.channels])?
            .f_permute([0, 1, 3, 2, 4])?
            .f_reshape([self.images, rows, columns, self.many()])?;
        Ok(blocks.f_permute([0, 3, 1, 2])?)
    }

    /// The weight `[out,C,k,k]` as `[out,s²·C,k/s,k/s]`.
    fn weight(self, weight: &Tensor) -> Result<Tensor> {
        let (blocks, s) = (self.of_kernel(), self.stride);
        let more = blocks * s - self.kernel;
        let whole = weight.f_constant_pad_nd([0, more, 0, more])?;
        Ok(whole
            .f_reshape([self.outputs, self.channels, blocks, s, blocks, s])?
            .f_permute([0, 3, 5, 1, 2, 4])?
            .f_reshape(self.kernels())?)
    }
}

/// A doubling 4×4 convolution to few channels, weight `[in,out,4,4]`.
fn doubled(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    slope: f64,
) -> Result<Option<Tensor>> {
    let (shape, kernel) = (x.size(), weight.size());
    let (&[images, inputs, height, width], &[of_weight, outputs, 4, 4]) =
        (shape.as_slice(), kernel.as_slice())
    else {
        return Ok(None);
    };
    if of_weight != inputs || outputs > FEW {
        return Ok(None);
    }
    let (own, all) = (4 * outputs, LANES);
    let form = Form::Convolution {
        padding: 1,
        groups: 1,
    };
    // Sixteen positions of the kernel and no zero, instead of nine for each of the channels.
    let share = (16 * outputs) as f64 / (9 * all) as f64;
    let stands_in = [[images, inputs, height, width], [all, inputs, 3, 3]];
    if !pays(x, stands_in, form, share)? {
        return Ok(None);
    }
    // Output 2a sees position a-1 by tap 3 and a by tap 1; output 2a+1 sees a by tap 2 and a+1 by tap 0. Tap 4 is zero.
    let taps = Tensor::f_from_slice(&[3i64, 1, 4, 4, 2, 0])?;
    let kernels = weight
        .f_constant_pad_nd([0, 1, 0, 1])?
        .f_index_select(2, &taps)?
        .f_index_select(3, &taps)?
        .f_view([inputs, outputs, 2, 3, 2, 3])?
        .f_permute([2, 4, 1, 0, 3, 5])?
        .f_reshape([own, inputs, 3, 3])?
        .f_constant_pad_nd([0, 0, 0, 0, 0, 0, 0, all - own])?;
    let bias = bias
        .map(|bias| bias.f_repeat([4])?.f_constant_pad_nd([0, all - own]))
        .transpose()?;
    let y = winograd(x, &kernels, bias.as_ref(), form, slope)?;
    let doubled = y
        .f_permute([0, 2, 3, 1])?
        .f_narrow(3, 0, own)?
        .f_view([images, height, width, 2, 2, outputs])?
        .f_permute([0, 1, 3, 2, 4, 5])?
        .f_reshape([images, 2 * height, 2 * width, outputs])?;
    Ok(Some(doubled.f_permute([0, 3, 1, 2])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(got: &Tensor, want: &Tensor) -> f64 {
        let difference = got.to_kind(Kind::Double) - want;
        (difference.norm() / want.norm()).double_value(&[])
    }

    fn gradients(y: &Tensor, pull: &Tensor, of: &[Tensor; 3]) -> Vec<Tensor> {
        let loss = (y * pull.to_kind(y.kind())).sum(y.kind());
        Tensor::run_backward(&[loss], of, false, false)
    }

    /// Values and all three gradients are those of libtorch's direct convolution in fp64.
    fn agrees(x: [i64; 4], weight: [i64; 4], geometry: Geometry) {
        tch::manual_seed(5);
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let outputs = match geometry {
            Geometry::Convolution { .. } => weight[0],
            _ => weight[1],
        };
        let inputs = [random(&x), random(&weight) * 0.1, random(&[outputs])];
        let of_kind = |kind| {
            inputs
                .each_ref()
                .map(|t| t.to_kind(kind).copy().set_requires_grad(true))
        };
        let (single, double) = (of_kind(Kind::Float), of_kind(Kind::Double));
        let got = convolution(&single[0], &single[1], Some(&single[2]), geometry, 1.0).unwrap();
        let got = got.unwrap_or_else(|| panic!("{x:?} {weight:?}: not this way"));
        let [x64, w64, b64] = &double;
        let want = match geometry {
            Geometry::Convolution {
                stride, padding, ..
            } => x64.conv2d(w64, Some(b64), [stride; 2], [padding; 2], [1, 1], 1),
            _ => x64.conv_transpose2d(w64, Some(b64), [2, 2], [1, 1], [0, 0], 1, [1, 1]),
        };
        assert_eq!(got.size(), want.size());
        assert!(error(&got, &want) < 5e-6, "{x:?}: {}", error(&got, &want));
        let pull = random(&want.size());
        let (own, wanted) = (
            gradients(&got, &pull, &single),
            gradients(&want, &pull, &double),
        );
        for (name, (own, wanted)) in ["x", "weight", "bias"].iter().zip(own.iter().zip(&wanted)) {
            let error = error(own, wanted);
            assert!(
                error < 1e-5,
                "gradient of {name}, {x:?} {weight:?}: {error}"
            );
        }
    }

    fn strided(stride: i64, padding: i64) -> Geometry {
        Geometry::Convolution {
            stride,
            padding,
            groups: 1,
        }
    }

    #[test]
    fn values_and_gradients_are_those_of_the_direct_convolution() {
        agrees([2, 3, 67, 71], [24, 3, 11, 11], strided(4, 0)); // CaffeNet's first
        agrees([2, 3, 64, 61], [64, 3, 11, 11], strided(4, 2)); // torchvision's AlexNet's
        agrees([2, 3, 66, 65], [32, 3, 7, 7], strided(4, 0)); // the discriminator's
        agrees([2, 3, 40, 38], [64, 3, 7, 7], strided(3, 3));
        agrees(
            [4, 32, 24, 23],
            [32, 3, 4, 4],
            Geometry::Double { kernel: 4 },
        );
        agrees(
            [2, 48, 24, 24],
            [48, 4, 4, 4],
            Geometry::Double { kernel: 4 },
        );
    }

    #[test]
    fn other_convolutions_are_left_alone() {
        let zeros = |shape: [i64; 4], kind| Tensor::zeros(shape, (kind, Device::Cpu));
        let left = |x: [i64; 4], weight: [i64; 4], geometry, kind| {
            let (x, weight) = (zeros(x, kind), zeros(weight, kind));
            let found = convolution(&x, &weight, None, geometry, 1.0).unwrap();
            assert!(found.is_none(), "{:?} {:?}", x.size(), weight.size());
        };
        let image = [2, 3, 64, 64];
        left(image, [64, 3, 11, 11], strided(4, 0), Kind::Double);
        left(image, [64, 3, 3, 3], strided(1, 1), Kind::Float);
        left([2, 64, 27, 27], [128, 64, 3, 3], strided(2, 0), Kind::Float);
        left(image, [64, 3, 2, 2], strided(4, 0), Kind::Float);
        // Transforming the kernels alone would take longer.
        left([1, 3, 31, 31], [96, 3, 11, 11], strided(4, 0), Kind::Float);
        let double = Geometry::Double { kernel: 4 };
        left([2, 64, 16, 16], [64, 32, 4, 4], double, Kind::Float);
        deepsim_aten::allow_winograd(false);
        left(image, [64, 3, 11, 11], strided(4, 0), Kind::Float);
        deepsim_aten::allow_winograd(true);
    }
}

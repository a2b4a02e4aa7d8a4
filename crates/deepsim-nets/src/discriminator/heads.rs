//! Small heads on the features of a frozen network, as the discriminators of StyleGAN-T (Sauer et al. 2023) and of
//! representation autoencoders have them: a logit for each position of each map.
//!
//! A head sees a map's positions in a row, as tokens: convolution 1, then convolution 9 with a residual, each with spectral
//! normalisation, normalisation over an image's own tokens and a leaky ReLU; then convolution 1 to one channel.

use tch::{Device, Tensor};

use crate::error::{NetError, Result};
use crate::kinks;
use crate::layers::init::untrained;
use crate::layers::op::{iterates, learns};
use crate::layers::spectral::Spectral;
use crate::params::{Param, Params, stored};
use crate::precision::widened;

/// Kernel of the second convolution; ends meet, so that a map needs as many positions.
pub(super) const KERNEL: i64 = 9;
const SLOPE: f64 = 0.2;
/// Added to variances before their root is taken.
const EPSILON: f64 = 1e-6;

/// A head on maps of so many channels.
#[derive(Debug)]
pub(super) struct Head {
    one: Block,
    nine: Block,
    last: Spectral,
}

/// A convolution over tokens, normalisation with a gain and a bias, and a rectifier.
#[derive(Debug)]
struct Block {
    conv: Spectral,
    gain: Tensor,
    bias: Tensor,
}

/// Names and shapes of a head's tensors, as the released code calls them.
pub(super) fn shapes(head: usize, channels: i64) -> Vec<(String, Vec<i64>)> {
    let conv = |name: &str, output: i64, kernel: i64| {
        [
            ("weight_orig", vec![output, channels, kernel]),
            ("bias", vec![output]),
            ("weight_u", vec![output]),
            ("weight_v", vec![channels * kernel]),
        ]
        .map(|(part, shape)| (format!("heads.{head}.{name}.{part}"), shape))
    };
    let norm = |name: &str| {
        ["weight", "bias"].map(|part| (format!("heads.{head}.{name}.{part}"), vec![channels]))
    };
    let mut all = Vec::new();
    all.extend(conv("main.0.0", channels, 1));
    all.extend(norm("main.0.1"));
    all.extend(conv("main.1.fn.0", channels, KERNEL));
    all.extend(norm("main.1.fn.1"));
    all.extend(conv("cls", 1, 1));
    all
}

impl Head {
    /// With random weights, N(0, 1/(3 fan_in)), which have the deviation of PyTorch's; biases are zero. The tensors are in
    /// the head and, named, in [`Params`].
    ///
    /// # Errors
    /// What libtorch refuses (out of memory).
    pub(super) fn new(
        head: usize,
        channels: i64,
        seed: u64,
        device: Device,
    ) -> Result<(Head, Params)> {
        let (mut tensors, mut params) = (Vec::new(), Params::default());
        for (name, shape) in shapes(head, channels) {
            let inputs: i64 = shape[1..].iter().product();
            let deviation = (1.0 / (3.0 * inputs as f64)).sqrt();
            let drawn = untrained(&format!("discriminator.{name}"), &shape, deviation, seed)?;
            let trains = learns(&name);
            let tensor = stored(&drawn, device)?.f_set_requires_grad(trains)?;
            let of_conv = !(name.contains(".main.0.1.") || name.contains(".fn.1."));
            params.push(Param {
                tensor: tensor.shallow_clone(),
                trains,
                decays: of_conv && !iterates(&name),
                name,
            });
            tensors.push(tensor);
        }
        let Ok(
            [
                weight_1,
                bias_1,
                u_1,
                v_1,
                gain_1,
                shift_1,
                weight_9,
                bias_9,
                u_9,
                v_9,
                gain_9,
                shift_9,
                weight,
                bias,
                u,
                v,
            ],
        ) = <[Tensor; 16]>::try_from(tensors)
        else {
            return Err(NetError::Spec("a head has other tensors".into()));
        };
        let spectral = |weight, bias, u, v| Spectral { bias, weight, u, v };
        let built = Head {
            one: Block {
                conv: spectral(weight_1, bias_1, u_1, v_1),
                gain: gain_1,
                bias: shift_1,
            },
            nine: Block {
                conv: spectral(weight_9, bias_9, u_9, v_9),
                gain: gain_9,
                bias: shift_9,
            },
            last: spectral(weight, bias, u, v),
        };
        Ok((built, params))
    }

    /// A map `[N,C,H,W]` → logits `[N,1,H·W]`.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub(super) fn forward(&self, map: &Tensor) -> Result<Tensor> {
        let tokens = widened(map)?.f_flatten(2, -1)?;
        let x = self.one.forward(&tokens)?;
        let y = self.nine.forward(&x)?;
        let x = y.f_add(&x)?.f_mul_scalar(std::f64::consts::FRAC_1_SQRT_2)?;
        widened(&conv(&x, &self.last)?)
    }

    /// One step of the power iterations.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub(super) fn iterate(&self) -> Result<()> {
        self.one.conv.iterate()?;
        self.nine.conv.iterate()?;
        self.last.iterate()
    }
}

impl Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = widened(&conv(x, &self.conv)?)?;
        let over_tokens = |x: &Tensor| x.f_mean_dim([2i64].as_slice(), true, x.kind());
        let centred = x.f_sub(&over_tokens(&x)?)?;
        let variance = over_tokens(&centred.f_square()?)?;
        let scale = variance.f_add_scalar(EPSILON)?.f_rsqrt()?;
        let by_channel = |t: &Tensor| t.f_view([1, -1, 1]);
        let y = centred
            .f_mul(&scale)?
            .f_mul(&by_channel(&self.gain)?)?
            .f_add(&by_channel(&self.bias)?)?;
        kinks::rectified(y, SLOPE)
    }
}

/// `x` `[N,C,L]` through a convolution that keeps the length: what is left of the first token is the last one.
fn conv(x: &Tensor, with: &Spectral) -> Result<Tensor> {
    let pad = with.weight.size()[2] / 2;
    let x = if pad > 0 {
        x.f_pad([pad, pad], "circular", None)?
    } else {
        x.shallow_clone()
    };
    let weight = with.normalised()?;
    Ok(x.f_conv1d(&weight, Some(&with.bias), [1], [0], [1], 1)?)
}

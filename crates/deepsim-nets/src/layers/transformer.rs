//! How a vision transformer's parts are computed: by libtorch's operations alone, so that whoever differentiates
//! gradients once more can. Tokens stay in fp32 at least; products are in the precision that is chosen.

use deepsim_aten::{AutocastGuard, Precision};
use tch::Tensor;

use super::decoder::{Decoder, DecoderPart};
use super::norm::layer_norm;
use super::vit::{Activation, Vit, VitPart, VitPool};
use crate::error::{NetError, Result};
use crate::precision::{at_least_fp32, widened};

/// A part's tensors, taken one after the other in the order of [`Vit::tensors`].
struct Weights<'a>(std::slice::Iter<'a, Tensor>);

/// A weight and its bias.
type Affine<'a> = (&'a Tensor, &'a Tensor);

impl<'a> Weights<'a> {
    fn tensor(&mut self) -> Result<&'a Tensor> {
        let next = self.0.next();
        next.ok_or_else(|| NetError::Spec("a tensor of a transformer is missing".into()))
    }

    fn affine(&mut self) -> Result<Affine<'a>> {
        Ok((self.tensor()?, self.tensor()?))
    }
}

/// A part's output for images `[N,3,H,W]` or tokens `[N,T,C]`.
///
/// # Errors
/// What libtorch refuses.
pub(crate) fn forward(vit: &Vit, part: VitPart, tensors: &[Tensor], x: &Tensor) -> Result<Tensor> {
    let mut weights = Weights(tensors.iter());
    let w = &mut weights;
    match part {
        VitPart::Embed => embed(vit, w, x),
        VitPart::Block(_) => block(vit, w, x),
        VitPart::Norm => normalised(vit, w, x),
        VitPart::Pool => match vit.pool {
            VitPool::Class => Ok(x.f_select(1, 0)?),
            VitPool::NormalisedClass => normalised(vit, w, &x.f_select(1, 0)?),
            VitPool::Attention => attention_pool(vit, w, x),
        },
    }
}

/// A part's output of a decoder: for maps `[N,C,H,W]` or tokens `[N,1+T,width]`, tokens or images `[N,3,H·patch,W·patch]`, red,
/// green, blue.
///
/// # Errors
/// What libtorch refuses.
pub(crate) fn decode(
    decoder: &Decoder,
    part: DecoderPart,
    tensors: &[Tensor],
    x: &Tensor,
) -> Result<Tensor> {
    let mut weights = Weights(tensors.iter());
    let w = &mut weights;
    let vit = &decoder.vit;
    match part {
        DecoderPart::Embed => {
            let tokens = x.f_flatten(2, 3)?.f_transpose(1, 2)?;
            let tokens = widened(&linear(&tokens, w.affine()?)?)?;
            let class = w.tensor()?.f_expand([x.size()[0], 1, vit.width], false)?;
            Ok(Tensor::f_cat(&[class, tokens], 1)?.f_add(w.tensor()?)?)
        }
        DecoderPart::Block(_) => block(vit, w, x),
        DecoderPart::Predict => {
            // An image's grey levels need more than bf16's eight bits.
            let _exact = AutocastGuard::new(x.device(), Precision::Fp32)?;
            let patches = x.f_narrow(1, 1, vit.grid * vit.grid)?;
            let patches = linear(&normalised(vit, w, &patches)?, w.affine()?)?;
            images(vit, &patches)
        }
    }
}

/// Patches `[N,grid²,patch·patch·3]`, each row by row and its three channels together, put where they belong.
fn images(vit: &Vit, patches: &Tensor) -> Result<Tensor> {
    let (grid, patch) = (vit.grid, vit.patch);
    let side = grid * patch;
    let pixels = patches.f_reshape([-1, grid, grid, patch, patch, 3])?;
    let pixels = pixels.f_permute([0, 5, 1, 3, 2, 4])?;
    Ok(pixels.f_reshape([-1, 3, side, side])?)
}

fn normalised(vit: &Vit, w: &mut Weights<'_>, x: &Tensor) -> Result<Tensor> {
    layer_norm(x, Some(w.affine()?), vit.epsilon)
}

fn linear(x: &Tensor, (weight, bias): Affine<'_>) -> Result<Tensor> {
    Ok(x.f_linear(weight, Some(bias))?)
}

fn embed(vit: &Vit, w: &mut Weights<'_>, x: &Tensor) -> Result<Tensor> {
    let n = x.size()[0];
    let patches = w.tensor()?;
    let bias = if vit.patch_bias {
        Some(w.tensor()?)
    } else {
        None
    };
    let step = [vit.patch; 2];
    let map = x.f_conv2d(patches, bias, step, [0, 0], [1, 1], 1)?;
    let (height, width) = (map.size()[2], map.size()[3]);
    let map = map.f_flatten(2, 3)?.f_transpose(1, 2)?;
    let mut tokens = widened(&map)?;
    let each = |token: &Tensor, count: i64| {
        token
            .f_reshape([1, count, vit.width])?
            .f_expand([n, count, vit.width], false)
    };
    if vit.class_token {
        tokens = Tensor::f_cat(&[each(w.tensor()?, 1)?, tokens], 1)?;
    }
    tokens = tokens.f_add(&positions(vit, w.tensor()?, height, width)?)?;
    if vit.registers > 0 {
        let registers = each(w.tensor()?, vit.registers)?;
        let class = i64::from(vit.class_token);
        let rest = tokens.f_narrow(1, class, height * width)?;
        tokens = Tensor::f_cat(&[tokens.f_narrow(1, 0, class)?, registers, rest], 1)?;
    }
    if vit.norm_before {
        tokens = normalised(vit, w, &tokens)?;
    }
    Ok(tokens)
}

/// Positions `[1,T,C]` for a map of this size: bicubic interpolation to the size itself, as `transformers` has it.
fn positions(vit: &Vit, all: &Tensor, height: i64, width: i64) -> Result<Tensor> {
    let all = all.f_reshape([1, -1, vit.width])?;
    if [height, width] == [vit.grid; 2] {
        return Ok(all);
    }
    let class = i64::from(vit.class_token);
    let map = all
        .f_narrow(1, class, vit.grid * vit.grid)?
        .f_reshape([1, vit.grid, vit.grid, vit.width])?
        .f_permute([0, 3, 1, 2])?;
    let size = [height, width];
    let map = if vit.antialias {
        map.f_internal_upsample_bicubic2d_aa(size, false, None::<f64>, None::<f64>)?
    } else {
        map.f_upsample_bicubic2d(size, false, None::<f64>, None::<f64>)?
    };
    let patches = map
        .f_permute([0, 2, 3, 1])?
        .f_reshape([1, height * width, vit.width])?;
    Ok(Tensor::f_cat(&[all.f_narrow(1, 0, class)?, patches], 1)?)
}

fn block(vit: &Vit, w: &mut Weights<'_>, x: &Tensor) -> Result<Tensor> {
    let y = normalised(vit, w, x)?;
    let [q, k, v] = [w.affine()?, w.affine()?, w.affine()?];
    let y = attend(vit, &linear(&y, q)?, &linear(&y, k)?, &linear(&y, v)?)?;
    let y = linear(&y, w.affine()?)?;
    let x = added(vit, w, x, y)?;
    let y = normalised(vit, w, &x)?;
    let y = perceptron(vit, w, &y)?;
    added(vit, w, &x, y)
}

/// x + y, with y scaled where the network does that.
fn added(vit: &Vit, w: &mut Weights<'_>, x: &Tensor, y: Tensor) -> Result<Tensor> {
    let y = if vit.layer_scale {
        y.f_mul(w.tensor()?)?
    } else {
        y
    };
    Ok(x.f_add(&y)?)
}

fn perceptron(vit: &Vit, w: &mut Weights<'_>, x: &Tensor) -> Result<Tensor> {
    let x = linear(x, w.affine()?)?;
    let x = match vit.activation {
        Activation::Gelu => x.f_gelu("none")?,
        Activation::GeluTanh => x.f_gelu("tanh")?,
        Activation::QuickGelu => x.f_mul(&x.f_mul_scalar(1.702)?.f_sigmoid()?)?,
    };
    linear(&x, w.affine()?)
}

/// softmax(q kᵀ / √d) v in each head of `[N,T,C]`.
fn attend(vit: &Vit, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let channels = vit.width / vit.heads;
    let heads = |x: &Tensor| {
        x.f_reshape([x.size()[0], -1, vit.heads, channels])?
            .f_transpose(1, 2)
    };
    let q = heads(&q.f_mul_scalar(1.0 / (channels as f64).sqrt())?)?;
    let scores = q.f_matmul(&heads(k)?.f_transpose(2, 3)?)?;
    let shares = scores.f_softmax(-1, at_least_fp32(&scores))?;
    let y = shares.f_matmul(&heads(v)?)?.f_transpose(1, 2)?;
    Ok(y.f_reshape([y.size()[0], -1, vit.width])?)
}

/// Attention of a learnt query, and a perceptron whose output is added: `[N,C]`.
fn attention_pool(vit: &Vit, w: &mut Weights<'_>, x: &Tensor) -> Result<Tensor> {
    let c = vit.width;
    let probe = w.tensor()?.f_expand([x.size()[0], 1, c], false)?;
    let (weight, bias) = w.affine()?;
    let through = |x: &Tensor, part: i64| -> Result<Tensor> {
        let weight = weight.f_narrow(0, part * c, c)?;
        linear(x, (&weight, &bias.f_narrow(0, part * c, c)?))
    };
    let y = attend(vit, &through(&probe, 0)?, &through(x, 1)?, &through(x, 2)?)?;
    let y = widened(&linear(&y, w.affine()?)?)?;
    let z = normalised(vit, w, &y)?;
    let y = y.f_add(&perceptron(vit, w, &z)?)?;
    Ok(y.f_select(1, 0)?)
}

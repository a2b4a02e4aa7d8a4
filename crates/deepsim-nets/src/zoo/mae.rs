//! The generator of representation autoencoders (Zheng et al. 2025, `bytetriper/RAE`): the decoder of a masked autoencoder
//! (He et al. 2022), a vision transformer. Each position of the features is a token, and each token makes a patch of the
//! image. It makes images in torchvision's units: RGB 0–1, minus ImageNet's mean, divided by its deviation. That is RAE's for
//! DINOv2 and MAE; for SigLIP it takes that encoder's own.

use crate::error::{NetError, Result};
use crate::layers::decoder::{Decoder, DecoderPart};
use crate::layers::op::Op;
use crate::layers::shape::FeatureShape;
use crate::layers::trained::{Decays, Initial};
use crate::layers::vit::{Activation, Vit, VitNames, VitPool};
use crate::zoo::scaled;

/// Most blocks, and most channels of tokens and inside perceptrons: more than any published decoder has.
const MOST_BLOCKS: i64 = 64;
const MOST_CHANNELS: i64 = 1 << 14;
/// Added to variances.
const EPSILON: f64 = 1e-12;

/// Sizes of a decoder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Channels of a token.
    pub channels: i64,
    /// Blocks.
    pub blocks: i64,
    /// Heads of attention.
    pub heads: i64,
    /// Channels inside a block's perceptron.
    pub mlp: i64,
}

/// Maps of this shape, noise among their channels → images of `crop` pixels. The map's size is checked:
/// [`crate::GeneratorSpec::layers`].
///
/// # Errors
/// [`NetError::Spec`] for vectors, for a crop that the map's side does not divide, and for sizes out of their ranges.
pub(crate) fn decoder(
    entering: FeatureShape,
    crop: i64,
    width: f64,
    sizes: Sizes,
) -> Result<Vec<Op>> {
    let refused = |reason: String| Err(NetError::Spec(format!("the trunk `vit` {reason}")));
    let FeatureShape::Map {
        channels: input,
        size: grid,
    } = entering
    else {
        return refused(format!(
            "takes maps of features, whose positions are its tokens, not vectors of {entering}"
        ));
    };
    if crop % grid != 0 {
        return refused(format!(
            "makes one patch of the image of each position of its features, and {crop} pixels are not {grid} whole \
             patches: the side of the features, {entering}, must divide the crop; choose another crop or tap"
        ));
    }
    let Sizes {
        channels,
        blocks,
        heads,
        mlp,
    } = sizes;
    if !(1..=MOST_BLOCKS).contains(&blocks) {
        return refused(format!("has 1 to {MOST_BLOCKS} blocks, not {blocks}"));
    }
    for (key, value) in [("channels", channels), ("mlp", mlp)] {
        if !(1..=MOST_CHANNELS).contains(&value) {
            return refused(format!("has `{key}` of 1 to {MOST_CHANNELS}, not {value}"));
        }
    }
    let (channels, mlp) = (scaled(channels, width), scaled(mlp, width));
    if heads < 1 || channels % heads != 0 {
        return refused(format!(
            "needs a number of `heads` that divides the {channels} channels of its tokens, not {heads}"
        ));
    }
    let decoder = Decoder {
        input,
        vit: Vit {
            names: VitNames::Mae,
            patch: crop / grid,
            grid,
            width: channels,
            heads,
            mlp,
            class_token: true,
            registers: 0,
            patch_bias: true,
            norm_before: false,
            layer_scale: false,
            activation: Activation::Gelu,
            epsilon: EPSILON,
            antialias: false,
            pool: VitPool::Class,
        },
    };
    let blocks = (0..blocks.unsigned_abs() as usize).map(DecoderPart::Block);
    let parts = std::iter::once(DecoderPart::Embed)
        .chain(blocks)
        .chain([DecoderPart::Predict]);
    Ok(parts.map(|part| Op::Decoder(decoder, part)).collect())
}

/// What training does to its weights: matrices decay. They begin as `layers::decoder_init` says.
pub(crate) fn initial() -> Initial {
    Initial {
        deviation: 0.0,
        bias_learns: true,
        decays: Decays::Weight,
    }
}

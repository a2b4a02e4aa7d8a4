//! The image tower of CLIP (Radford et al. 2021), ViT-B/32.

use super::net::{Net, Units};
use super::vit::rows;
use crate::layers::op::{FcMap, Op, Row};
use crate::layers::tap::Tap;
use crate::layers::vit::{Activation, Vit, VitNames, VitPart, VitPool};

/// ViT-B/32. Its positions are those of 224×224 images.
const VIT: &Vit = &Vit {
    names: VitNames::Clip,
    patch: 32,
    grid: 7,
    width: 768,
    heads: 12,
    mlp: 3072,
    class_token: true,
    registers: 0,
    patch_bias: false,
    norm_before: true,
    layer_scale: false,
    activation: Activation::QuickGelu,
    epsilon: 1e-5,
    antialias: false,
    pool: VitPool::NormalisedClass,
};

/// Twelve blocks, and the projection into the space of images and texts.
const TABLE: &[Row] = &rows::<15>(
    VIT,
    &[
        (Tap::Pooled, Op::Vit(VIT, VitPart::Pool)),
        (
            Tap::named("projected"),
            Op::Fc {
                key: "visual_projection",
                input: 768,
                output: 512,
                bias: false,
            },
        ),
    ],
);

/// Its entry in the registry.
pub(super) const NET: Net = Net {
    name: "clip-vit-base-patch32",
    label: "CLIP ViT-B/32",
    table: TABLE,
    fc_map: FcMap::AveragedTo(1), // it has no fully connected layer behind a map
    units: Units::Clip,
    family: "clip",
    obtain: "CLIP: get model.safetensors of openai/clip-vit-base-patch32 (docs/guide/encoders.md)",
    import: None,
    // The text tower, and counters.
    aside: &[
        "text_model.*",
        "text_projection.weight",
        "logit_scale",
        "*.position_ids",
    ],
};

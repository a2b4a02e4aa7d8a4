//! The image tower of SigLIP (Zhai et al. 2023), B/16 at 224 pixels.

use super::net::{Net, Units};
use super::vit::rows;
use crate::layers::op::{FcMap, Op, Row};
use crate::layers::tap::Tap;
use crate::layers::vit::{Activation, Vit, VitNames, VitPart, VitPool};

/// ViT-B/16 without a class token. Its positions are those of 224×224 images.
const VIT: &Vit = &Vit {
    names: VitNames::Siglip,
    patch: 16,
    grid: 14,
    width: 768,
    heads: 12,
    mlp: 3072,
    class_token: false,
    registers: 0,
    patch_bias: true,
    norm_before: false,
    layer_scale: false,
    activation: Activation::GeluTanh,
    epsilon: 1e-6,
    antialias: false,
    pool: VitPool::Attention,
};

/// Twelve blocks, normalisation of all tokens, and a head that attends to them.
const TABLE: &[Row] = &rows::<15>(
    VIT,
    &[
        (Tap::Norm, Op::Vit(VIT, VitPart::Norm)),
        (Tap::Pooled, Op::Vit(VIT, VitPart::Pool)),
    ],
);

/// Its entry in the registry.
pub(super) const NET: Net = Net {
    name: "siglip-base-patch16-224",
    label: "SigLIP B/16",
    table: TABLE,
    fc_map: FcMap::AveragedTo(1), // it has no fully connected layer
    units: Units::MinusOneToOne,
    family: "siglip",
    obtain: "SigLIP: get model.safetensors of google/siglip-base-patch16-224 (docs/guide/encoders.md)",
    import: None,
    // The text tower, and counters.
    aside: &[
        "text_model.*",
        "logit_scale",
        "logit_bias",
        "*.position_ids",
    ],
};

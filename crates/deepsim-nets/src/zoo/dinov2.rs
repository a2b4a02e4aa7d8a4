//! DINOv2's vision transformers (Oquab et al. 2023), with registers (Darcet et al. 2024) or without.

use super::net::{Net, Units};
use super::vit::rows;
use crate::layers::op::{FcMap, Op, Row};
use crate::layers::tap::Tap;
use crate::layers::vit::{Activation, Vit, VitNames, VitPart, VitPool};

/// ViT-S/14. Its positions are those of 518×518 images.
const SMALL_VIT: &Vit = &Vit {
    names: VitNames::Dinov2,
    patch: 14,
    grid: 37,
    width: 384,
    heads: 6,
    mlp: 1536,
    class_token: true,
    registers: 0,
    patch_bias: true,
    norm_before: false,
    layer_scale: true,
    activation: Activation::Gelu,
    epsilon: 1e-6,
    antialias: false,
    pool: VitPool::Class,
};
const BASE_VIT: &Vit = &Vit {
    width: 768,
    heads: 12,
    mlp: 3072,
    ..*SMALL_VIT
};
const LARGE_VIT: &Vit = &Vit {
    width: 1024,
    heads: 16,
    mlp: 4096,
    ..*SMALL_VIT
};

/// With four registers, and positions that are low-pass filtered where they become fewer.
const fn with_registers(vit: &Vit) -> Vit {
    Vit {
        registers: 4,
        antialias: true,
        ..*vit
    }
}
const REGISTERS_SMALL_VIT: &Vit = &with_registers(SMALL_VIT);
const REGISTERS_BASE_VIT: &Vit = &with_registers(BASE_VIT);
const REGISTERS_LARGE_VIT: &Vit = &with_registers(LARGE_VIT);

/// Behind the blocks: normalisation of all tokens, then the class token.
const fn end(vit: &'static Vit) -> [Row; 2] {
    [
        (Tap::Norm, Op::Vit(vit, VitPart::Norm)),
        (Tap::Pooled, Op::Vit(vit, VitPart::Pool)),
    ]
}

/// Tables of 12 and of 24 blocks.
const fn twelve(vit: &'static Vit) -> [Row; 15] {
    rows(vit, &end(vit))
}
const fn twenty_four(vit: &'static Vit) -> [Row; 27] {
    rows(vit, &end(vit))
}

/// The entry of ViT-S/14 in the registry.
pub(super) const SMALL: Net = Net {
    name: "dinov2-small",
    label: "DINOv2 ViT-S/14",
    table: &twelve(SMALL_VIT),
    fc_map: FcMap::AveragedTo(1), // it has no fully connected layer behind a map
    units: Units::ImageNet,
    family: "dinov2",
    obtain: "DINOv2 S: get model.safetensors of facebook/dinov2-small (docs/guide/encoders.md)",
    import: None,
    // Of training.
    aside: &["embeddings.mask_token"],
};
/// That of ViT-B/14.
pub(super) const BASE: Net = Net {
    name: "dinov2-base",
    label: "DINOv2 ViT-B/14",
    table: &twelve(BASE_VIT),
    obtain: "DINOv2 B: get model.safetensors of facebook/dinov2-base (docs/guide/encoders.md)",
    ..SMALL
};
/// That of ViT-L/14.
pub(super) const LARGE: Net = Net {
    name: "dinov2-large",
    label: "DINOv2 ViT-L/14",
    table: &twenty_four(LARGE_VIT),
    obtain: "DINOv2 L: get model.safetensors of facebook/dinov2-large (docs/guide/encoders.md)",
    ..SMALL
};
/// That of ViT-S/14 with registers.
pub(super) const REGISTERS_SMALL: Net = Net {
    name: "dinov2-with-registers-small",
    label: "DINOv2 ViT-S/14 with registers",
    table: &twelve(REGISTERS_SMALL_VIT),
    obtain: "DINOv2 S with registers: get model.safetensors of facebook/dinov2-with-registers-small \
             (docs/guide/encoders.md)",
    ..SMALL
};
/// That of ViT-B/14 with registers.
pub(super) const REGISTERS_BASE: Net = Net {
    name: "dinov2-with-registers-base",
    label: "DINOv2 ViT-B/14 with registers",
    table: &twelve(REGISTERS_BASE_VIT),
    obtain: "DINOv2 B with registers: get model.safetensors of facebook/dinov2-with-registers-base \
             (docs/guide/encoders.md)",
    ..SMALL
};
/// That of ViT-L/14 with registers.
pub(super) const REGISTERS_LARGE: Net = Net {
    name: "dinov2-with-registers-large",
    label: "DINOv2 ViT-L/14 with registers",
    table: &twenty_four(REGISTERS_LARGE_VIT),
    obtain: "DINOv2 L with registers: get model.safetensors of facebook/dinov2-with-registers-large \
             (docs/guide/encoders.md)",
    ..SMALL
};

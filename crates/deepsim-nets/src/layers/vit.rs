//! Vision transformers (Dosovitskiy et al. 2021) as one table: what their authors chose, and the names of their tensors
//! as the library `transformers` of Hugging Face writes them.

/// Whose names the tensors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VitNames {
    /// DINOv2, with or without registers.
    Dinov2,
    /// The image tower of CLIP; its file may hold the text tower too.
    Clip,
    /// The image tower of SigLIP.
    Siglip,
    /// The decoder of a masked autoencoder, which takes no images: [`super::decoder`].
    Mae,
}

/// What follows the first layer of a block's perceptron.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x · Φ(x).
    Gelu,
    /// GELU by its hyperbolic tangent.
    GeluTanh,
    /// x · σ(1.702 x).
    QuickGelu,
}

/// What [`VitPart::Pool`] makes of the last tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VitPool {
    /// The class token, as it is.
    Class,
    /// The class token, normalised: no other token is.
    NormalisedClass,
    /// What a learnt query attends to, and a perceptron behind it.
    Attention,
}

/// A vision transformer. Tokens are `[N,tokens,width]`: the class token, registers, then patches row by row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vit {
    /// Whose names the tensors have.
    pub names: VitNames,
    /// Pixels a side of a patch.
    pub patch: i64,
    /// Patches a side that there are positions for. For other images these are interpolated.
    pub grid: i64,
    /// Channels of a token.
    pub width: i64,
    /// Heads of attention; they divide `width`.
    pub heads: i64,
    /// Channels inside a block's perceptron.
    pub mlp: i64,
    /// Whether there is a class token. It has a position of its own.
    pub class_token: bool,
    /// Registers (Darcet et al. 2024), which have no positions.
    pub registers: i64,
    /// Whether the patches' convolution has a bias.
    pub patch_bias: bool,
    /// Whether tokens are normalised in front of the first block.
    pub norm_before: bool,
    /// Whether what a block adds is scaled for each channel.
    pub layer_scale: bool,
    /// In each perceptron.
    pub activation: Activation,
    /// Added to variances.
    pub epsilon: f64,
    /// Whether positions are low-pass filtered where they are interpolated to fewer.
    pub antialias: bool,
    /// What pooling does.
    pub pool: VitPool,
}

/// A row of a transformer's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VitPart {
    /// Images to tokens with positions.
    Embed,
    /// A block: attention, then a perceptron, each normalised before and added.
    Block(usize),
    /// Normalisation of all tokens behind the last block.
    Norm,
    /// Tokens to one vector.
    Pool,
}

/// Names and shapes of tensors.
pub(crate) type Shapes = Vec<(String, Vec<i64>)>;

impl Vit {
    /// Tokens in front of those of patches.
    pub fn leading(&self) -> i64 {
        i64::from(self.class_token) + self.registers
    }

    /// Positions, the class token's among them.
    pub(super) fn positions(&self) -> i64 {
        i64::from(self.class_token) + self.grid * self.grid
    }

    /// Rows and columns of patches of such an image; none where it does not consist of whole patches.
    pub fn patches(&self, height: i64, width: i64) -> Option<[i64; 2]> {
        let count = |size: i64| (size > 0 && size % self.patch == 0).then(|| size / self.patch);
        Some([count(height)?, count(width)?])
    }

    /// Names and shapes of a part's tensors, in the order in which [`super::transformer`] takes them.
    pub(crate) fn tensors(&self, part: VitPart) -> Shapes {
        match part {
            VitPart::Embed => self.embed(),
            VitPart::Block(at) => self.block(at),
            VitPart::Norm => self.norm(),
            VitPart::Pool => match self.pool {
                VitPool::Class => Shapes::new(),
                VitPool::NormalisedClass => self.norm(),
                VitPool::Attention => self.attention_pool(),
            },
        }
    }

    /// Patches, class token, positions, registers, normalisation: those that there are.
    fn embed(&self) -> Shapes {
        let (c, p) = (self.width, self.patch);
        let (patches, class, positions) = match self.names {
            VitNames::Dinov2 => (
                "embeddings.patch_embeddings.projection",
                ("embeddings.cls_token", vec![1, 1, c]),
                (
                    "embeddings.position_embeddings",
                    vec![1, self.positions(), c],
                ),
            ),
            VitNames::Clip | VitNames::Siglip => (
                "vision_model.embeddings.patch_embedding",
                ("vision_model.embeddings.class_embedding", vec![c]),
                (
                    "vision_model.embeddings.position_embedding.weight",
                    vec![self.positions(), c],
                ),
            ),
            VitNames::Mae => return Shapes::new(),
        };
        let mut out = vec![(format!("{patches}.weight"), vec![c, 3, p, p])];
        if self.patch_bias {
            out.push((format!("{patches}.bias"), vec![c]));
        }
        if self.class_token {
            out.push((class.0.to_owned(), class.1));
        }
        out.push((positions.0.to_owned(), positions.1));
        if self.registers > 0 {
            let shape = vec![1, self.registers, c];
            out.push(("embeddings.register_tokens".to_owned(), shape));
        }
        if self.norm_before {
            // The authors' spelling.
            out.extend(affine("vision_model.pre_layrnorm", &[c]));
        }
        out
    }

    /// Norm, query, key, value, output, scale; norm, two layers of the perceptron, scale.
    fn block(&self, at: usize) -> Shapes {
        let c = self.width;
        let (key, norms, attention, perceptron) = match self.names {
            VitNames::Dinov2 => (
                format!("encoder.layer.{at}"),
                ["norm1", "norm2"],
                [
                    "attention.attention.query",
                    "attention.attention.key",
                    "attention.attention.value",
                    "attention.output.dense",
                ],
                ["mlp.fc1", "mlp.fc2"],
            ),
            VitNames::Mae => (
                format!("decoder_layers.{at}"),
                ["layernorm_before", "layernorm_after"],
                [
                    "attention.attention.query",
                    "attention.attention.key",
                    "attention.attention.value",
                    "attention.output.dense",
                ],
                ["intermediate.dense", "output.dense"],
            ),
            VitNames::Clip | VitNames::Siglip => (
                format!("vision_model.encoder.layers.{at}"),
                ["layer_norm1", "layer_norm2"],
                [
                    "self_attn.q_proj",
                    "self_attn.k_proj",
                    "self_attn.v_proj",
                    "self_attn.out_proj",
                ],
                ["mlp.fc1", "mlp.fc2"],
            ),
        };
        let scale = |n: i64| {
            let name = format!("{key}.layer_scale{n}.lambda1");
            self.layer_scale.then(|| (name, vec![c]))
        };
        let mut out = affine(&format!("{key}.{}", norms[0]), &[c]);
        for name in attention {
            out.extend(affine(&format!("{key}.{name}"), &[c, c]));
        }
        out.extend(scale(1));
        out.extend(affine(&format!("{key}.{}", norms[1]), &[c]));
        out.extend(affine(&format!("{key}.{}", perceptron[0]), &[self.mlp, c]));
        out.extend(affine(&format!("{key}.{}", perceptron[1]), &[c, self.mlp]));
        out.extend(scale(2));
        out
    }

    fn norm(&self) -> Shapes {
        let key = match self.names {
            VitNames::Dinov2 => "layernorm",
            VitNames::Clip | VitNames::Siglip => "vision_model.post_layernorm",
            VitNames::Mae => "decoder_norm",
        };
        affine(key, &[self.width])
    }

    /// The query; weights of query, key and value in one, their biases; output; norm, two layers of the perceptron.
    fn attention_pool(&self) -> Shapes {
        let c = self.width;
        let key = "vision_model.head";
        let mut out = vec![
            (format!("{key}.probe"), vec![1, 1, c]),
            (format!("{key}.attention.in_proj_weight"), vec![3 * c, c]),
            (format!("{key}.attention.in_proj_bias"), vec![3 * c]),
        ];
        out.extend(affine(&format!("{key}.attention.out_proj"), &[c, c]));
        out.extend(affine(&format!("{key}.layernorm"), &[c]));
        out.extend(affine(&format!("{key}.mlp.fc1"), &[self.mlp, c]));
        out.extend(affine(&format!("{key}.mlp.fc2"), &[c, self.mlp]));
        out
    }
}

/// `KEY.weight` of a shape and `KEY.bias`, which has its first size.
pub(super) fn affine(key: &str, shape: &[i64]) -> Shapes {
    vec![
        (format!("{key}.weight"), shape.to_vec()),
        (format!("{key}.bias"), shape[..1].to_vec()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_whole_patches_fit_and_others_do_not() {
        let vit = Vit {
            names: VitNames::Dinov2,
            patch: 14,
            grid: 37,
            width: 384,
            heads: 6,
            mlp: 1536,
            class_token: true,
            registers: 4,
            patch_bias: true,
            norm_before: false,
            layer_scale: true,
            activation: Activation::Gelu,
            epsilon: 1e-6,
            antialias: true,
            pool: VitPool::Class,
        };
        assert_eq!(vit.patches(224, 518), Some([16, 37]));
        assert_eq!(vit.patches(227, 224), None);
        assert_eq!(vit.patches(0, 224), None);
        assert_eq!(vit.leading(), 5);
    }
}

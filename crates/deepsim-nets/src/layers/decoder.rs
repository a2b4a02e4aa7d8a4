//! The decoder of a masked autoencoder (He et al. 2022), in the form that representation autoencoders have (Zheng et al.
//! 2025, `bytetriper/RAE`): maps of features → tokens → blocks → one patch of the image for each token. Tensors are named
//! as theirs.

use super::vit::{Shapes, Vit, VitPart, affine};

/// The name of the positions, which never learn.
pub(crate) const POSITIONS: &str = "decoder_pos_embed";

/// A decoder. Its tokens are `[N,1+grid²,width]`: a class token that belongs to no patch, then patches row by row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decoder {
    /// Channels of the features.
    pub input: i64,
    /// Its blocks; `patch` is the side of a patch of the image that comes out, `grid` the side of the features' map.
    pub vit: Vit,
}

/// A row of a decoder's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecoderPart {
    /// Maps of features to tokens with positions.
    Embed,
    /// A block, as [`VitPart::Block`].
    Block(usize),
    /// Normalisation of the tokens, and a patch of the image, red, green and blue, for each.
    Predict,
}

impl DecoderPart {
    /// The prefix of its layers' names.
    pub fn name(self) -> String {
        match self {
            DecoderPart::Embed => "decoder_embed".to_owned(),
            DecoderPart::Block(at) => format!("decoder_layers.{at}"),
            DecoderPart::Predict => "decoder_pred".to_owned(),
        }
    }
}

impl Decoder {
    /// Names and shapes of a part's tensors, in the order in which [`super::transformer`] takes them.
    pub(crate) fn tensors(&self, part: DecoderPart) -> Shapes {
        let c = self.vit.width;
        match part {
            DecoderPart::Embed => {
                let mut out = affine(&part.name(), &[c, self.input]);
                out.push(("trainable_cls_token".to_owned(), vec![1, 1, c]));
                out.push((POSITIONS.to_owned(), vec![1, self.vit.positions(), c]));
                out
            }
            DecoderPart::Block(at) => self.vit.tensors(VitPart::Block(at)),
            DecoderPart::Predict => {
                let mut out = self.vit.tensors(VitPart::Norm);
                out.extend(affine(&part.name(), &[3 * self.vit.patch.pow(2), c]));
                out
            }
        }
    }
}

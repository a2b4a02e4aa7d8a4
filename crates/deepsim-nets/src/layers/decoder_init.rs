//! A decoder of patches before training, as masked autoencoders begin (`facebookresearch/mae`, `models_mae.py`): matrices by
//! Glorot's uniform rule, each by itself; gains of normalisations 1, biases 0; fixed positions.

use tch::Tensor;

use super::decoder::{Decoder, POSITIONS};
use super::init::{uniform, untrained};
use crate::error::Result;

/// Values of the tensor `name`, the same for a seed and name whatever else was drawn before.
///
/// # Errors
/// What libtorch refuses (out of memory).
pub(crate) fn initial(decoder: &Decoder, name: &str, shape: &[i64], seed: u64) -> Result<Tensor> {
    match *shape {
        [output, input] => {
            let bound = (6.0 / (input + output) as f64).sqrt();
            uniform(name, shape, bound, seed)
        }
        _ if name.ends_with(POSITIONS) => positions(decoder),
        _ => untrained(name, shape, 0.0, seed),
    }
}

/// Sines and cosines `[1,1+grid²,width]`: zeros for the class token; for a patch a quarter of the channels each are sin(x ω),
/// cos(x ω), sin(y ω), cos(y ω), x its column, y its row, ω from 1 down towards 1e-4.
fn positions(decoder: &Decoder) -> Result<Tensor> {
    let (width, grid) = (decoder.vit.width, decoder.vit.grid);
    let quarter = width / 4;
    let frequency = |i: i64| 1e4_f64.powf(-(i as f64) / quarter as f64);
    let frequencies: Vec<f64> = (0..quarter).map(frequency).collect();
    let mut values: Vec<f32> = vec![0.0; width.unsigned_abs() as usize];
    for row in 0..grid {
        for column in 0..grid {
            for at in [column, row] {
                let angles = || {
                    frequencies
                        .iter()
                        .map(move |frequency| at as f64 * frequency)
                };
                values.extend(angles().map(|angle| angle.sin() as f32));
                values.extend(angles().map(|angle| angle.cos() as f32));
            }
        }
    }
    Ok(Tensor::f_from_slice(&values)?.f_reshape([1, -1, width])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::decoder::DecoderPart;
    use crate::layers::vit::{Activation, Vit, VitNames, VitPool};

    #[test]
    fn matrices_keep_to_glorot_s_bound_and_all_else_is_known() {
        let decoder = Decoder {
            input: 6,
            vit: Vit {
                names: VitNames::Mae,
                patch: 8,
                grid: 2,
                width: 16,
                heads: 2,
                mlp: 40,
                class_token: true,
                registers: 0,
                patch_bias: true,
                norm_before: false,
                layer_scale: false,
                activation: Activation::Gelu,
                epsilon: 1e-12,
                antialias: false,
                pool: VitPool::Class,
            },
        };
        let of = |name: &str, shape: &[i64]| initial(&decoder, name, shape, 1).unwrap();
        let weights = of("a.weight", &[40, 16]);
        let largest = weights.abs().max().double_value(&[]);
        let bound = (6.0_f64 / 56.0).sqrt();
        assert!((0.95 * bound..=bound).contains(&largest), "{largest}");
        assert!(weights.mean(tch::Kind::Float).double_value(&[]).abs() < 0.05);
        let known = [("b.weight", 1.0), ("b.bias", 0.0)];
        for (name, value) in known {
            assert_eq!(
                of(name, &[3]).mean(tch::Kind::Float).double_value(&[]),
                value
            );
        }
        let token = of("trainable_cls_token", &[1, 1, 16]);
        assert_eq!(token.abs().max().double_value(&[]), 0.0);
        let names = decoder.tensors(DecoderPart::Embed);
        let (name, shape) = names.last().unwrap();
        let positions = of(name.as_str(), shape.as_slice());
        assert_eq!(positions.size(), *shape);
        // Of the second patch, whose column is 1 and whose row is 0.
        for (channel, value) in [(0, 1.0_f64.sin()), (4, 1.0_f64.cos()), (8, 0.0), (12, 1.0)] {
            let found = positions.double_value(&[0, 2, channel]);
            assert!((found - value).abs() < 1e-6, "{channel}: {found}");
        }
    }
}

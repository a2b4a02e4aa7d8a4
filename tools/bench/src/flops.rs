//! Floating-point operations of one iteration, counted from the layers' shapes.
//!
//! Only convolutions and matrix products count, two operations per multiplication with addition,
//! and only those that an iteration cannot do without: one pass of the frozen network over the
//! images, no weight gradients of frozen networks, no data gradients that nothing uses. Of a frozen transformer's attention,
//! whose products are of two activations, the second gradient is left out: a few percent at usual sizes.

use anyhow::{Context, Result, bail};
use deepsim_experiment::Experiment;
use deepsim_experiment::config;
use deepsim_experiment::source::NetSource;
use deepsim_nets::layers::decoder::{Decoder, DecoderPart};
use deepsim_nets::layers::op::Op;
use deepsim_nets::layers::shape::Extent;
use deepsim_nets::layers::vit::{Vit, VitPart, VitPool};
use deepsim_nets::{Code, LatentSpec, NetKind, Tap};

use crate::networks::network;

/// Forward operations of a network for one image, layer by layer.
type Forward = Vec<f64>;

/// GFLOP of one iteration in which every network is updated.
///
/// # Errors
/// An experiment whose sizes do not fit, or whose images are compared in what is no network.
pub fn gflop(experiment: &Experiment) -> Result<f64> {
    let train = &experiment.config.train;
    let crop = i64::from(experiment.config.data.crop);
    let encoder = network(&experiment.encoder)?;
    let read = frozen(encoder.net, encoder.tap, crop)?;
    let spec = &experiment.generator;
    let g = learned(&spec.layers()?, Extent::of(spec.entering()))?;
    // Passes of frozen networks over the photos.
    let mut photos = Vec::new();
    let mut per_image = match experiment.config.latent {
        // The gradient goes on from the generator's first layer to the encoder.
        Some(latent) => trained(&read) + 3.0 * heads(encoder, latent, crop)? + 3.0 * total(&g),
        None => {
            share(&mut photos, encoder, total(&read));
            trained(&g)
        }
    };
    if let Some(spec) = experiment.trained_discriminator() {
        let d = learned(&spec.layers()?, Extent::image(crop, crop))?;
        let again = match train.discriminator_passes {
            // Once more on generated images, for their gradient.
            config::DiscriminatorPasses::Paper => 2.0 * total(&d),
            // The pass that trains D goes on to the images: only its first layer's input is new.
            config::DiscriminatorPasses::One => first(&d),
        };
        // D on real images and on generated images; its first layer's input takes no gradient.
        per_image += 2.0 * trained(&d) + again;
    }
    for comparator in experiment.compared() {
        let source = network(&comparator.source)?;
        let forward = total(&frozen(source.net, source.tap, crop)?);
        share(&mut photos, source, forward);
        // On generated images, and their gradient.
        per_image += 2.0 * forward;
    }
    per_image += photos.iter().map(|(_, forward)| forward).sum::<f64>();
    Ok(per_image * train.batch_size as f64 / 1e9)
}

/// Adds a pass over the photos: networks with the same weights share one, up to the deeper layer.
fn share<'a>(photos: &mut Vec<(&'a NetSource, f64)>, source: &'a NetSource, forward: f64) {
    let same = |known: &NetSource| known.net == source.net && known.weights == source.weights;
    match photos.iter_mut().find(|(known, _)| same(known)) {
        Some((_, deepest)) => *deepest = deepest.max(forward),
        None => photos.push((source, forward)),
    }
}

/// Forward operations of the layers behind an encoder that learns.
fn heads(encoder: &NetSource, latent: LatentSpec, crop: i64) -> Result<f64> {
    let features = encoder.net.feature_shape(encoder.tap, crop)?.len();
    Ok(2.0 * product(&[number_of_heads(latent), features, latent.size]))
}

/// Two for codes that are drawn: mean and variance.
pub fn number_of_heads(latent: LatentSpec) -> i64 {
    match latent.code {
        Code::Gaussian => 2,
        Code::Plain => 1,
    }
}

fn total(layers: &Forward) -> f64 {
    layers.iter().sum()
}

/// Forward, weight gradients, and data gradients but for the first layer's.
fn trained(layers: &Forward) -> f64 {
    3.0 * total(layers) - first(layers)
}

fn first(layers: &Forward) -> f64 {
    layers.first().copied().unwrap_or_default()
}

fn product(values: &[i64]) -> f64 {
    values.iter().map(|&v| v as f64).product()
}

fn frozen(net: NetKind, tap: Tap, crop: i64) -> Result<Forward> {
    net.shape_at(tap, crop, crop)?;
    let mut layers = Vec::new();
    let mut x = Extent::image(crop, crop);
    for (at, op) in net.rows_to(tap)? {
        x = count(op, x, &mut layers)
            .with_context(|| format!("counting the operations of {at} of {net}"))?;
    }
    Ok(layers)
}

/// Counts an operation's convolutions and products into `layers`; gives the extent of its output.
fn count(op: &Op, x: Extent, layers: &mut Forward) -> Result<Extent> {
    let y = op.output(x).context("the image is too small")?;
    match *op {
        Op::Conv {
            input,
            kernel,
            groups,
            ..
        } => {
            let out = product(&[y.channels, y.height, y.width]);
            layers.push(2.0 * out * product(&[input / groups, kernel, kernel]));
        }
        Op::SpectralConv { input, kernel, .. } => {
            let out = product(&[y.channels, y.height, y.width]);
            layers.push(2.0 * out * product(&[input, kernel, kernel]));
        }
        Op::Fc { input, output, .. } => layers.push(2.0 * product(&[input, output])),
        Op::Branches(branches) => {
            for branch in branches {
                let mut x = x;
                for op in *branch {
                    x = count(op, x, layers)?;
                }
            }
        }
        // Every input position is multiplied with every weight, at any stride.
        Op::Double {
            input,
            output,
            kernel,
            ..
        } => {
            let positions = product(&[y.height / 2, y.width / 2]);
            layers.push(2.0 * positions * product(&[input, output, kernel, kernel]));
        }
        Op::Keep { input, output, .. } => {
            layers.push(2.0 * product(&[input, output, 3, 3, y.height, y.width]));
        }
        Op::Relu
        | Op::LeakyRelu(_)
        | Op::Tanh
        | Op::Dropout(_)
        | Op::Crop(_)
        | Op::MaxPool(_)
        | Op::MeanAround
        | Op::Lrn
        | Op::GlobalAverage => {}
        Op::ConvNorm(_) | Op::MbConv(_) | Op::Bottleneck(_) | Op::BatchNorm { .. } => {
            bail!("the benchmark does not know convolutions with batch normalisation")
        }
        // A depthwise 7×7 convolution, and two layers of four times the channels between.
        Op::ConvNext(block) => {
            let each = product(&[49 + 8 * block.channels, block.channels]);
            layers.push(2.0 * each * product(&[y.height, y.width]));
        }
        Op::LayerNorm { .. } => {}
        Op::Vit(vit, part) => layers.push(transformer(vit, part, x, y)),
        Op::Decoder(decoder, part) => layers.push(patches(&decoder, part, x)),
    }
    Ok(y)
}

/// Products of a transformer's part, whose input is `x` and whose output is `y`.
fn transformer(vit: &Vit, part: VitPart, x: Extent, y: Extent) -> f64 {
    let tokens = vit.leading() + x.height * x.width;
    let (c, mlp) = (vit.width, vit.mlp);
    match (part, vit.pool) {
        (VitPart::Embed, _) => 2.0 * product(&[y.height, y.width, c, 3, vit.patch, vit.patch]),
        (VitPart::Block(_), _) => block(vit, tokens),
        // A query, its output and its perceptron; keys and values of all tokens; the query with these.
        (VitPart::Pool, VitPool::Attention) => {
            2.0 * product(&[2 * c + 2 * mlp, c]) + 2.0 * product(&[2 * c + 2, tokens, c])
        }
        (VitPart::Pool, VitPool::Class | VitPool::NormalisedClass) | (VitPart::Norm, _) => 0.0,
    }
}

/// Query, key, value and output, the perceptron, and attention between all tokens.
fn block(vit: &Vit, tokens: i64) -> f64 {
    let (c, mlp) = (vit.width, vit.mlp);
    2.0 * product(&[tokens, c]) * (4.0 * c as f64 + 2.0 * mlp as f64)
        + 2.0 * product(&[2, tokens, tokens, c])
}

/// Products of a part of a decoder of patches, from a map `x` of its tokens.
fn patches(decoder: &Decoder, part: DecoderPart, x: Extent) -> f64 {
    let (vit, positions) = (&decoder.vit, x.height * x.width);
    match part {
        DecoderPart::Embed => 2.0 * product(&[positions, decoder.input, vit.width]),
        DecoderPart::Block(_) => block(vit, vit.leading() + positions),
        DecoderPart::Predict => 2.0 * product(&[positions, vit.width, 3, vit.patch, vit.patch]),
    }
}

/// All operations of a network that learns, in the order of its weights.
fn learned(ops: &[Op], mut x: Extent) -> Result<Forward> {
    let mut layers = Vec::new();
    for op in ops {
        x = count(op, x, &mut layers)?;
    }
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use deepsim_nets::{FeatureShape, GeneratorSpec, Trunk};

    use super::*;
    use crate::work::Training;

    fn of(work: &str) -> f64 {
        gflop(&Training::find(work).unwrap().experiment("fp32").unwrap()).unwrap()
    }

    fn of_file(name: &str) -> f64 {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
        gflop(&Experiment::load(&folder.join(name), &[]).unwrap()).unwrap()
    }

    #[test]
    fn what_takes_no_part_is_not_counted_and_an_encoder_that_learns_is() {
        let fc6 = of_file("fc6.toml");
        assert!((fc6 - of("fc6_b64")).abs() < 1e-9);
        // Neither comparator nor discriminator, then no comparator, then no discriminator.
        let image = of_file("image-loss/fc6.toml");
        let [no_feat, no_adv] = ["fc6-adv-image", "fc6-feat-image"]
            .map(|name| of_file(&format!("ablations/{name}.toml")));
        assert!(image < no_feat.min(no_adv) && no_feat.max(no_adv) < fc6);
        // Counted apart, the two leave out what the image loss alone leaves out.
        assert!(((fc6 - no_feat) + (fc6 - no_adv) - (fc6 - image)).abs() < 1e-6 * fc6);
        // Another comparator shares no pass over the photos; the learning encoder takes gradients.
        assert!(of_file("comparators/fc6-videonet.toml") > fc6);
        assert!(of_file("vae-alexnet.toml") > fc6);
    }

    #[test]
    fn alexnet_counts_as_published() {
        // Krizhevsky's convolutions at 227: 666 million multiplications; fc6: 37.7.
        let net = NetKind::CaffeNet;
        let conv = total(&frozen(net, Tap::Pool5, 227).unwrap()) / 2e6;
        assert!((conv - 665.8).abs() < 1.0, "{conv}");
        let fc6 = total(&frozen(net, Tap::Fc6, 227).unwrap()) / 2e6 - conv;
        assert!((fc6 - 37.75).abs() < 0.1, "{fc6}");
    }

    /// GMACs in the model cards of timm for `vit_base_patch14_dinov2` at 518 pixels and `convnext_tiny` at 224.
    #[test]
    fn transformers_and_convnext_count_as_published() {
        for (net, tap, crop, published) in [
            (NetKind::Dinov2Base, Tap::Block11, 518, 151.7),
            (NetKind::ConvNextTiny, Tap::Pooled, 224, 4.5),
        ] {
            let found = total(&frozen(net, tap, crop).unwrap()) / 2e9;
            assert!((found / published - 1.0).abs() < 0.02, "{net}: {found}");
        }
    }

    /// A decoder has the published transformer's blocks: RAE's of size B on 256 tokens beside its class token.
    #[test]
    fn a_decoder_of_patches_is_counted_by_its_blocks() {
        let spec = GeneratorSpec {
            input: FeatureShape::Map {
                channels: 768,
                size: 16,
            },
            crop: 224,
            width: 1.0,
            trunk: Trunk::Vit {
                channels: 768,
                blocks: 12,
                heads: 12,
                mlp: 3072,
            },
            noise: 0,
        };
        let found = learned(&spec.layers().unwrap(), Extent::of(spec.entering())).unwrap();
        assert_eq!(found.len(), 14);
        let encoder = frozen(NetKind::Dinov2Base, Tap::Block11, 224).unwrap();
        assert_eq!(found[1..13], encoder[1..13]);
        assert_eq!(found[0], 2.0 * 256.0 * 768.0 * 768.0);
        assert_eq!(found[13], 2.0 * 256.0 * 768.0 * 588.0);
    }

    #[test]
    fn a_whole_iteration_is_about_a_teraflop() {
        let (fc6, small) = (of("fc6_b64"), of("fc6_b16"));
        assert!((950.0..1250.0).contains(&fc6), "{fc6}");
        assert!((fc6 / small - 4.0).abs() < 1e-9);
        // Without fully connected layers, but 512 channels enter its trunk: a little more.
        assert!((950.0..1250.0).contains(&of("conv5_b64")));
        assert!(of("sample") < 50.0);
    }

    /// The paper's order passes the generated images forward and back through D once more; with
    /// one pass only the gradient of the first layer's input comes on top of what trains D.
    #[test]
    fn one_pass_saves_a_pass_of_the_discriminator() {
        for work in ["fc6_b64", "conv5_b64"] {
            let (paper, one) = (of(work), of(&format!("{work}_one_pass")));
            let saved = 1.0 - one / paper;
            assert!((0.02..0.2).contains(&saved), "{work}: {saved}");
        }
    }
}

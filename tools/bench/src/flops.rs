//! Floating-point operations of one iteration, counted from the layers' shapes.
//!
//! Only convolutions and matrix products count, two operations per multiplication with addition,
//! and only those that an iteration cannot do without: one pass of the frozen network over the
//! images, no weight gradients of frozen networks, no data gradients that nothing uses.

use anyhow::{Context, Result, bail};
use deepsim_experiment::Experiment;
use deepsim_experiment::config;
use deepsim_nets::generator::LayerOp;
use deepsim_nets::layers::op::Op;
use deepsim_nets::layers::shape::Extent;
use deepsim_nets::params::Params;
use deepsim_nets::{NetKind, Tap};

use crate::networks::networks;

/// A layer of the discriminator: what its weights do not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DLayer {
    /// Prefix of its tensors.
    pub name: String,
    /// Stride; 1 for the fully connected ones.
    pub stride: i64,
    /// Shape of its weight.
    pub shape: Vec<i64>,
}

/// The discriminator's layers in order.
pub fn discriminator(params: &Params) -> Vec<DLayer> {
    let weights = params
        .iter()
        .filter_map(|p| Some((p.name.strip_suffix(".weight")?, p.tensor.size())));
    weights
        .map(|(name, shape)| DLayer {
            name: name.to_owned(),
            stride: match name {
                "Dconv1" => 4,
                "Dconv3" | "Dconv5" => 2,
                _ => 1,
            },
            shape,
        })
        .collect()
}

/// Forward operations of a network for one image, layer by layer.
type Forward = Vec<f64>;

/// GFLOP of one iteration.
///
/// # Errors
/// An experiment whose sizes do not fit.
pub fn gflop(experiment: &Experiment, d: &[DLayer]) -> Result<f64> {
    let crop = i64::from(experiment.config.data.crop);
    let (e, c) = networks(experiment)?;
    let encoder = frozen(e.net, e.tap, crop)?;
    let comparator = frozen(e.net, c.tap, crop)?;
    let deeper = if total(&encoder) > total(&comparator) {
        &encoder
    } else {
        &comparator
    };
    let g = generator(experiment)?;
    let d = discriminator_layers(d, crop)?;
    let d_again = match experiment.config.train.discriminator_passes {
        // Once more on generated images, for their gradient.
        config::DiscriminatorPasses::Paper => 2.0 * total(&d),
        // The pass that trains D goes on to the images: only its first layer's input is new.
        config::DiscriminatorPasses::One => first(&d),
    };
    let per_image = total(deeper)
        + trained(&g)
        // D on real images and on generated images; its first layer's input takes no gradient.
        + 2.0 * trained(&d)
        + d_again
        // The comparator on generated images, and their gradient.
        + 2.0 * total(&comparator);
    Ok(per_image * experiment.config.train.batch_size as f64 / 1e9)
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
        Op::Fc { input, output, .. } => layers.push(2.0 * product(&[input, output])),
        Op::Branches(branches) => {
            for branch in branches {
                let mut x = x;
                for op in *branch {
                    x = count(op, x, layers)?;
                }
            }
        }
        Op::Relu | Op::MaxPool(_) | Op::Lrn | Op::GlobalAverage => {}
        Op::ConvNorm(_) | Op::MbConv(_) => {
            bail!("the benchmark does not know convolutions with batch normalisation")
        }
    }
    Ok(y)
}

fn generator(experiment: &Experiment) -> Result<Forward> {
    let spec = &experiment.generator;
    let mut side = match spec.input {
        deepsim_nets::FeatureShape::Vector(_) => 4,
        deepsim_nets::FeatureShape::Map { size, .. } => size,
    };
    let mut layers = Vec::new();
    for layer in spec.layers()? {
        let channels = product(&[layer.input, layer.output]);
        layers.push(match layer.op {
            LayerOp::Fc => 2.0 * channels,
            LayerOp::Conv { kernel, pad } => {
                side = side + 2 * pad - kernel + 1;
                2.0 * channels * product(&[kernel, kernel, side, side])
            }
            // Every input position is multiplied with every weight, at any stride.
            LayerOp::Double { kernel } => {
                side *= 2;
                2.0 * channels * product(&[kernel, kernel, side / 2, side / 2])
            }
            LayerOp::Keep => 2.0 * channels * product(&[3, 3, side, side]),
        });
    }
    Ok(layers)
}

fn discriminator_layers(layers: &[DLayer], crop: i64) -> Result<Forward> {
    let mut side = crop;
    layers
        .iter()
        .map(|layer| {
            let positions = match layer.shape.as_slice() {
                [_, _, kernel, _] => {
                    side = (side - kernel) / layer.stride + 1;
                    side * side
                }
                [_, _] => 1,
                other => {
                    return Err(anyhow::anyhow!("a weight of shape {other:?}"));
                }
            };
            Ok(2.0 * positions as f64 * product(&layer.shape))
        })
        .collect::<Result<Forward>>()
        .context("counting the discriminator's operations")
}

#[cfg(test)]
mod tests {
    use deepsim_nets::{Discriminator, DiscriminatorSpec, FeatureBranch};
    use tch::Device;

    use super::*;
    use crate::work::Training;

    fn of(work: &str) -> f64 {
        let experiment = Training::find(work).unwrap().experiment("fp32").unwrap();
        let spec = DiscriminatorSpec {
            crop: i64::from(experiment.config.data.crop),
            features: FeatureBranch::Off,
            architecture: Default::default(),
        };
        let d = Discriminator::new(spec, 1, Device::Cpu).unwrap();
        gflop(&experiment, &discriminator(d.params())).unwrap()
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

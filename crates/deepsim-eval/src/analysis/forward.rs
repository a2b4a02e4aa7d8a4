//! `forward`: one network of an experiment, tensors in, tensors out.
//!
//! At this interface images are RGB, 0–255, f32, `[N,3,H,W]`; features are raw activations, or as they were recorded; the
//! generator's images are cropped, not clipped; the discriminator gives logits `[N,2]` (of patches and heads `[N,1,…]`),
//! index 0 = real; nothing drops out.
//!
//! Input is the tensor `x`. The generator also takes a file whose only tensor is `y`: what the encoder wrote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use deepsim_data::terminal;
use deepsim_data::terminal::path as shown;
use deepsim_experiment::config::Normalize;
use deepsim_experiment::experiment::ComparatorSource;
use deepsim_experiment::measure::in_batches;
use deepsim_experiment::networks;
use deepsim_experiment::recorded::Scale;
use deepsim_experiment::source::{DiscriminatorSource, NetSource, Source, Weights};
use deepsim_experiment::{Checkpoint, Consent, Experiment, ExperimentError, Fixed, files, run_dir};
use deepsim_nets::images::{caffe_to_rgb, rgb_to_caffe};
use deepsim_nets::params::{NamedTensors, read_safetensors};
use deepsim_nets::{Discriminator, FeatureBranch, Generator, Mode};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use tch::{Device, Kind, Tensor};

use crate::error::{EvalError, Result};
use crate::measure::photos::narrowed;
use crate::show::output;

/// Which network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Net {
    /// Images → features at the tap to invert.
    Encoder,
    /// Images → features at the tap to compare; with the NAME of `[comparator.NAME]` where it has one.
    Comparator(Option<String>),
    /// Features → images.
    Generator,
    /// Images → logits.
    Discriminator,
}

impl FromStr for Net {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Net, &'static str> {
        match text {
            "encoder" => Ok(Net::Encoder),
            "comparator" => Ok(Net::Comparator(None)),
            "generator" => Ok(Net::Generator),
            "discriminator" => Ok(Net::Discriminator),
            _ => match text.strip_prefix("comparator.") {
                Some(name) if !name.is_empty() => Ok(Net::Comparator(Some(name.to_owned()))),
                _ => Err(
                    "there are encoder, comparator, comparator.NAME, generator and discriminator",
                ),
            },
        }
    }
}

/// What to run on what.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which network.
    pub net: Net,
    /// Its weights; else the experiment's, or those of the run's newest checkpoint.
    pub weights: Option<PathBuf>,
    /// Where checkpoints of the experiment are looked for.
    pub run: PathBuf,
    /// File with key `x` (and `feat` for a discriminator with the feature branch).
    pub input: PathBuf,
    /// File to write, key `y`.
    pub output: PathBuf,
    /// Which TorchScript modules may be run.
    pub consent: Consent,
}

/// Runs a network and returns the shape of its output.
///
/// # Errors
/// Missing or wrong weights, tensors of the wrong shape, files that cannot be written. `warn` is told of images that
/// seem to be in other units.
pub fn forward(
    experiment: &Experiment,
    request: &Request,
    device: Device,
    warn: impl FnOnce(String),
) -> Result<Vec<i64>> {
    let _guard = tch::no_grad_guard();
    output::check("--output", &request.output, output::Kind::Tensors)?;
    let tensors = Input::read(&request.input)?;
    let x = match request.net {
        Net::Generator => tensors.features()?,
        _ => tensors.pick("x")?,
    };
    if request.net != Net::Generator
        && let Some(warning) = units(&x)?
    {
        warn(format!(
            "--input {}: {warning}",
            terminal::path(&request.input)
        ));
    }
    let x = x.f_to_device(device)?;
    let n = x.size().first().map_or(0, |&n| n as usize);
    if n == 0 {
        return Err(deepsim_nets::NetError::InputShape {
            what: "forward".to_owned(),
            expected: "at least one sample in `x`".to_owned(),
            got: x.size(),
        }
        .into());
    }
    let apply = network(experiment, request, &tensors, device)?;
    let y = in_batches(n, |batch| apply(&narrowed(&x, &batch)?, batch.start as i64))?;
    output::write(&request.output, &output::safetensors("y", &y)?)?;
    Ok(y.size())
}

type Apply = Box<dyn Fn(&Tensor, i64) -> Result<Tensor>>;

fn network(
    experiment: &Experiment,
    request: &Request,
    tensors: &Input,
    device: Device,
) -> Result<Apply> {
    let trained = |stem: &'static str| -> Result<(NamedTensors, String)> {
        if let Some(path) = &request.weights {
            return Ok((read_safetensors(path)?, shown(path)));
        }
        match Checkpoint::newest(&request.run.join("checkpoints"))? {
            Some(c) => {
                same_networks(experiment, &request.run, &c)?;
                if stem == "discriminator" && c.manifest.discriminator.is_none() {
                    return Err(ExperimentError::NoDiscriminator { path: c.path }.into());
                }
                let stem = c.stem(stem, request.consent.weights());
                Ok((c.tensors(stem)?, shown(&c.path)))
            }
            None => Err(EvalError::NoWeights {
                net: stem,
                run: request.run.clone(),
            }),
        }
    };
    Ok(match &request.net {
        Net::Encoder | Net::Comparator(_) => {
            let (table, source) = match &request.net {
                Net::Comparator(name) => comparator(experiment, name.as_deref())?,
                _ => ("encoder", &experiment.encoder),
            };
            if let Source::Discriminator(DiscriminatorSource { tap }) = *source {
                let d = discriminator(experiment, &trained("discriminator")?, device)?;
                return Ok(Box::new(move |x, _| {
                    Ok(d.features(&rgb_to_caffe(x)?, tap, Mode::Evaluation)?)
                }));
            }
            let recorded = recorded(source, request, &experiment.path)?;
            let permit = match &recorded {
                Some((run, checkpoint)) => request.consent.on_run(run, &checkpoint.manifest),
                None => request.consent.at_first(&experiment.path),
            };
            let source = with_weights(source, request.weights.as_ref());
            let net = networks::open(table, &source, &permit, device)?;
            Box::new(move |x, _| Ok(net.features(&rgb_to_caffe(x)?)?))
        }
        Net::Generator => {
            // Recorded features come as they were recorded.
            let scale = match (&request.weights, experiment.config.encoder.normalize) {
                (_, None | Some(Normalize::None)) => None,
                (Some(_), _) => {
                    return Err(EvalError::ScaleUnknown {
                        experiment: experiment.path.clone(),
                    });
                }
                (None, _) => match Checkpoint::newest(&request.run.join("checkpoints"))? {
                    Some(checkpoint) => Scale::of(&checkpoint)?,
                    None => None,
                },
            };
            let (values, origin) = trained("generator")?;
            let spec = experiment.generator.clone();
            let g = Generator::from_values(spec, &values, "the generator", &origin, device)?;
            Box::new(move |x, _| {
                let scaled = scale.as_ref().map(|s| s.apply(x)).transpose()?;
                Ok(caffe_to_rgb(&g.forward(scaled.as_ref().unwrap_or(x))?)?)
            })
        }
        Net::Discriminator => {
            let d = discriminator(experiment, &trained("discriminator")?, device)?;
            let features = match d.spec().features {
                FeatureBranch::Off => None,
                FeatureBranch::Features(length) => {
                    let feat = tensors.pick("feat")?.f_to_device(device)?;
                    let n = tensors.pick("x")?.size()[0];
                    // Before chunks are cut: libtorch would blame the cutting.
                    if feat.size().first() != Some(&n) {
                        return Err(deepsim_nets::NetError::InputShape {
                            what: "the discriminator's feature branch".to_owned(),
                            expected: format!("`feat` [{n},{length}]"),
                            got: feat.size(),
                        }
                        .into());
                    }
                    Some(feat)
                }
            };
            Box::new(move |x, from| {
                let part = match &features {
                    Some(f) => Some(f.f_narrow(0, from, x.size()[0])?),
                    None => None,
                };
                Ok(d.forward(&rgb_to_caffe(x)?, part.as_ref(), Mode::Evaluation)?)
            })
        }
    })
}

/// A comparator's section and source, by its name. Without a name it is the only one that takes part, or the only one that
/// there is where none does.
fn comparator<'a>(experiment: &'a Experiment, name: Option<&str>) -> Result<(&'a str, &'a Source)> {
    let all = &experiment.comparators;
    if all.is_empty() {
        return Err(lacks(experiment, "comparator"));
    }
    let mut meant: Vec<&ComparatorSource> = match name {
        Some(name) => all.iter().filter(|c| c.term.name() == Some(name)).collect(),
        None => experiment.compared().collect(),
    };
    if name.is_none() && meant.is_empty() {
        meant = all.iter().collect();
    }
    if let [one] = meant.as_slice() {
        return Ok((&one.table, &one.source));
    }
    let tables: Vec<&str> = all.iter().map(|c| c.table.as_str()).collect();
    let (file, tables) = (shown(&experiment.path), tables.join(", "));
    Err(match name {
        Some(name) => {
            let reason = format!("{file} has no such section; it has {tables}");
            EvalError::usage("--net", format!("comparator.{name}"), reason)
        }
        None => {
            let reason = format!("{file} has several; give one of {tables}");
            EvalError::usage("--net", "comparator", reason)
        }
    })
}

/// The experiment's discriminator with trained weights, given with where they are from.
fn discriminator(
    experiment: &Experiment,
    (values, origin): &(NamedTensors, String),
    device: Device,
) -> Result<Discriminator> {
    let spec = experiment.discriminator.clone();
    let spec = spec.ok_or_else(|| lacks(experiment, "discriminator"))?;
    let what = "the discriminator";
    Ok(Discriminator::from_values(
        spec, values, what, origin, device,
    )?)
}

fn lacks(experiment: &Experiment, net: &'static str) -> EvalError {
    EvalError::NoNetwork {
        experiment: experiment.path.clone(),
        net,
    }
}

/// The run that has recorded which module the experiment's is, and its checkpoint: the one that is asked for, or the one
/// whose own file the experiment is. Another module than a run's own is allowed by its hash alone.
fn recorded(
    source: &Source,
    request: &Request,
    experiment: &Path,
) -> Result<Option<(PathBuf, Checkpoint)>> {
    let module = matches!(source, Source::Script(_));
    if !module || request.weights.is_some() && !request.consent.is_bare() {
        return Ok(None);
    }
    match Checkpoint::newest(&request.run.join("checkpoints"))? {
        Some(checkpoint) => Ok(Some((request.run.clone(), checkpoint))),
        None => Ok(run_dir::of_file(experiment)?),
    }
}

/// Holds the networks of an experiment against those that a run was trained with, before its weights are put into them.
fn same_networks(experiment: &Experiment, run: &Path, checkpoint: &Checkpoint) -> Result<()> {
    const TABLES: [&str; 5] = [
        "encoder.",
        "comparator.",
        "generator.",
        "discriminator.",
        "latent.",
    ];
    let Some(trained) = &checkpoint.manifest.experiment else {
        return Ok(());
    };
    let here = Fixed::of(&experiment.config).map_err(|e| EvalError::Format(e.to_string()))?;
    let mut differences = here.differences(trained);
    differences.retain(|key| TABLES.iter().any(|table| key.starts_with(table)));
    if differences.is_empty() {
        return Ok(());
    }
    Err(EvalError::OtherNetworks {
        experiment: experiment.path.clone(),
        run: run.to_owned(),
        differences,
    })
}

/// The source with other weights, where they are given.
fn with_weights(source: &Source, weights: Option<&PathBuf>) -> Source {
    match (source.clone(), weights) {
        (Source::Network(n), Some(path)) => Source::Network(NetSource {
            weights: Weights::File(path.clone()),
            ..n
        }),
        (Source::Taps(mut s), Some(path)) => {
            s.net.weights = Weights::File(path.clone());
            Source::Taps(s)
        }
        (Source::Perceptual(mut s), Some(path)) => {
            s.trunk.weights = Weights::File(path.clone());
            Source::Perceptual(s)
        }
        (Source::Script(mut s), Some(path)) => {
            s.file.clone_from(path);
            Source::Script(s)
        }
        (other, _) => other,
    }
}

/// The tensors of the input file.
struct Input {
    path: PathBuf,
    tensors: NamedTensors,
    /// Those of other types than floating-point numbers.
    others: BTreeMap<String, Dtype>,
}

impl Input {
    fn read(path: &Path) -> Result<Input> {
        let refuse = |reason: String| EvalError::usage("--input", terminal::path(path), reason);
        let bytes = files::read(path).map_err(|e| refuse(e.to_string()))?;
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|e| refuse(format!("is not a whole safetensors file: {e}")))?;
        let (mut tensors, mut others) = (NamedTensors::new(), BTreeMap::new());
        for (name, view) in file.tensors() {
            let kind = match view.dtype() {
                Dtype::F32 => Kind::Float,
                Dtype::F16 => Kind::Half,
                Dtype::BF16 => Kind::BFloat16,
                other => {
                    others.insert(name, other);
                    continue;
                }
            };
            let shape: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
            let tensor = Tensor::f_from_data_size(view.data(), &shape, kind)?;
            tensors.insert(name, tensor.f_to_kind(Kind::Float)?);
        }
        Ok(Input {
            path: path.to_owned(),
            tensors,
            others,
        })
    }

    fn pick(&self, key: &'static str) -> Result<Tensor> {
        if let Some(tensor) = self.tensors.get(key) {
            return Ok(tensor.shallow_clone());
        }
        if let Some(dtype) = self.others.get(key) {
            let reason = format!(
                "`{key}` is {dtype:?}; forward takes F32 (images as 0–255 all the same): in Python, \
                 {key}.astype(\"float32\") of numpy or {key}.float() of torch"
            );
            return Err(EvalError::usage(
                "--input",
                terminal::path(&self.path),
                reason,
            ));
        }
        let names = self.tensors.keys().chain(self.others.keys());
        Err(EvalError::NoKey {
            path: self.path.clone(),
            key,
            have: names.map(|n| terminal::one_line(n).into_owned()).collect(),
        })
    }

    /// `x`, or what the encoder wrote: a single tensor `y`.
    fn features(&self) -> Result<Tensor> {
        match (
            self.tensors.get("y"),
            self.tensors.len() + self.others.len(),
        ) {
            (Some(y), 1) => Ok(y.shallow_clone()),
            _ => self.pick("x"),
        }
    }
}

/// What is strange about images that should be RGB, 0–255. A black image is not.
fn units(x: &Tensor) -> Result<Option<String>> {
    if x.numel() == 0 {
        return Ok(None);
    }
    let (least, most) = (
        x.f_min()?.f_double_value(&[])?,
        x.f_max()?.f_double_value(&[])?,
    );
    let (range, scale) = match (least, most) {
        (0.0, 0.0) => return Ok(None),
        (0.0..=1.0, 0.0..=1.0) => ("[0, 1]", "x * 255"),
        (-1.0..=1.0, -1.0..=1.0) => ("[-1, 1]", "(x + 1) * 127.5"),
        _ => return Ok(None),
    };
    Ok(Some(format!(
        "all values of `x` lie in {range}, but images are RGB 0–255 here; if these are scaled otherwise, give {scale}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_told_by_its_section() {
        assert_eq!("encoder".parse(), Ok(Net::Encoder));
        assert_eq!("comparator".parse(), Ok(Net::Comparator(None)));
        let named = Net::Comparator(Some("deep".to_owned()));
        assert_eq!("comparator.deep".parse(), Ok(named));
        for bad in ["comparator.", "comparators", "judge", "encoder.deep", ""] {
            assert!(bad.parse::<Net>().is_err(), "{bad}");
        }
    }
}

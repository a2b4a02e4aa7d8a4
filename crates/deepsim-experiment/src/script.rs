//! TorchScript modules as frozen networks.

pub(crate) mod format;
pub(crate) mod source;
mod trial;

use std::path::PathBuf;

use deepsim_aten::{ScriptOutput, hear_scripts};
use deepsim_nets::FeatureShape;
use deepsim_nets::images::{caffe_to_rgb, caffe_to_torchvision, check_images};
use tch::{CModule, Device, IValue, Kind, Tensor};

use crate::config::{OutputTap, Units};
use crate::consent::Allowed;
use crate::error::{ExperimentError, Result};

use source::ScriptSource;

/// Most tokens in front of those of patches: a class token and four registers, as DINOv2 has them.
const MOST_LEADING: i64 = 5;

/// A frozen module: in evaluation mode, its parameters take no gradient. Gradients pass through to
/// the images.
#[derive(Debug)]
pub struct Script {
    module: CModule,
    source: ScriptSource,
    hash: String,
}

/// Whether gradients must reach the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// A comparator's must.
    Gradients,
    /// An encoder's need not.
    Values,
}

impl Script {
    /// Loads a module from the bytes that were hashed and allowed. This runs code that they hold.
    ///
    /// # Errors
    /// A file that is no TorchScript module, or made for another version of libtorch.
    pub(crate) fn load(module: Allowed, device: Device) -> Result<Script> {
        let Allowed {
            source,
            bytes,
            hash,
        } = module;
        let bad = |e: &tch::TchError| failure(&source.file, e);
        hear_scripts(show);
        // The interpreter's first runs would otherwise be profiled and later ones optimised: the
        // same step would not give the same bits before and after a resume.
        tch::jit::f_set_graph_executor_optimize(false).map_err(|e| bad(&e))?;
        let mut module =
            CModule::load_data_on_device(&mut bytes.as_slice(), device).map_err(|e| bad(&e))?;
        module.f_set_eval().map_err(|e| bad(&e))?;
        for (_, parameter) in module.named_parameters().map_err(|e| bad(&e))? {
            let _ = parameter.f_set_requires_grad(false)?;
        }
        Ok(Script {
            module,
            source,
            hash,
        })
    }

    /// blake3 of the bytes that it was loaded from.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Features of images `[N,3,H,W]` in Caffe units: `[N,length]` or `[N,C,H,W]`; tokens become a map.
    ///
    /// # Errors
    /// What the module refuses, and outputs that are no such features.
    pub fn features(&self, caffe: &Tensor) -> Result<Tensor> {
        check_images("a TorchScript module", caffe)?;
        let x = match self.source.units {
            // A copy, as the other units are: a module may work in place.
            Units::BgrCaffe => copy(caffe)?,
            Units::Rgb255 => caffe_to_rgb(caffe)?,
            Units::Rgb1 => caffe_to_rgb(caffe)?.f_mul_scalar(1.0 / 255.0)?,
            Units::RgbImagenet => caffe_to_torchvision(caffe)?,
        };
        // Again, because warnings are heard for each thread.
        hear_scripts(show);
        let made = self
            .module
            .forward_is(&[IValue::Tensor(x)])
            .map_err(|e| failure(&self.source.file, &e))?;
        let y = pick(made, &self.source.output).map_err(|reason| self.refuse(reason))?;
        let n = caffe.size().first().copied().unwrap_or(0);
        let size = y.size();
        if !matches!(
            y.kind(),
            Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16
        ) {
            return Err(self.refuse(format!(
                "its output is of the type {:?}; features are floating-point numbers",
                y.kind()
            )));
        }
        if y.is_sparse() || y.is_mkldnn() || y.device() != caffe.device() {
            return Err(self.refuse(format!(
                "its output is no dense tensor on the device of its input ({:?})",
                caffe.device()
            )));
        }
        if !matches!(size.len(), 2..=4) || size.contains(&0) {
            return Err(self.refuse(format!(
                "its output is {size:?}; features are [N, LENGTH], [N, CHANNELS, HEIGHT, WIDTH], or tokens \
                 [N, TOKENS, CHANNELS] of a square map"
            )));
        }
        if size[0] != n {
            return Err(self.refuse(format!(
                "it got {n} images and its output is {size:?}: features of {n} images begin with {n} (was it traced \
                 for one batch size? then take sizes from the input: x.shape[0], x.flatten(1))"
            )));
        }
        let y = match size.len() {
            3 => self.map_of_tokens(&y)?,
            _ => y,
        };
        let size = y.size();
        if let Some(shape) = self.source.shape
            && size[1..] != shape.sizes()
        {
            return Err(self.refuse(format!(
                "one image's features are {:?}, but encoder.shape says {:?}",
                &size[1..],
                shape.sizes()
            )));
        }
        Ok(match y.kind() {
            // The module may keep the tensor, and write into it when it is called again.
            Kind::Float => copy(&y)?,
            _ => y.f_to_kind(Kind::Float)?,
        })
    }

    /// Tokens `[N,T,C]` as the map `[N,C,S,S]` of the last S² of them, row by row: S is what `encoder.shape` says, else
    /// the largest that T has room for. Those in front of them, a class token and registers, are dropped.
    fn map_of_tokens(&self, tokens: &Tensor) -> Result<Tensor> {
        let (count, channels) = (tokens.size()[1], tokens.size()[2]);
        let (side, from_shape) = match self.source.shape {
            Some(FeatureShape::Map { size, .. }) => (size, true),
            _ => (count.isqrt(), false),
        };
        let leading = count - side.saturating_mul(side);
        if leading < 0 || (leading > MOST_LEADING && !from_shape) {
            return Err(self.refuse(format!(
                "its output is {count} tokens of {channels} channels, which is no square map of {side}x{side} behind \
                 at most {MOST_LEADING} other tokens; let the module return the patches' tokens alone, or a map"
            )));
        }
        let patches = tokens.f_narrow(1, leading, side * side)?;
        let map = patches.f_transpose(1, 2)?.f_contiguous()?;
        Ok(map.f_view([-1, channels, side, side])?)
    }

    fn refuse(&self, reason: String) -> ExperimentError {
        ExperimentError::Script {
            path: self.source.file.clone(),
            reason,
        }
    }
}

/// What a module prints is no result of ours: stdout is for those.
fn show(output: ScriptOutput<'_>) {
    match output {
        ScriptOutput::Printed(text) => tracing::info!("TorchScript module: {text}"),
        ScriptOutput::Warned(text) => tracing::info!("libtorch: {text}"),
    }
}

/// The same values in memory of their own; gradients pass.
fn copy(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_mul_scalar(1.0)?)
}

/// The interpreter's message without its tracebacks.
fn failure(path: &std::path::Path, error: &tch::TchError) -> ExperimentError {
    let text = error.to_string();
    let told = text.lines().rev().find(|l| l.contains("Error: "));
    let reason = told.or_else(|| text.lines().find(|l| !l.trim().is_empty()));
    ExperimentError::Script {
        path: PathBuf::from(path),
        reason: reason.unwrap_or("unknown error").trim().to_owned(),
    }
}

fn pick(made: IValue, tap: &OutputTap) -> std::result::Result<Tensor, String> {
    let list = |values: Vec<IValue>, key: &str| -> std::result::Result<Tensor, String> {
        let n = values.len();
        let found = key
            .parse::<usize>()
            .ok()
            .and_then(|i| values.into_iter().nth(i));
        match found {
            Some(IValue::Tensor(t)) => Ok(t),
            Some(other) => Err(format!("`{tap}` is {}, not a tensor", kind_of(&other))),
            None => Err(format!(
                "it returns {n} values, so that `{tap}` is none of output.0 to output.{}",
                n.saturating_sub(1)
            )),
        }
    };
    match (made, &tap.0) {
        (IValue::Tensor(t), None) => Ok(t),
        (IValue::Tuple(v) | IValue::GenericList(v), Some(key)) => list(v, key),
        (IValue::TensorList(v), Some(key)) => {
            list(v.into_iter().map(IValue::Tensor).collect(), key)
        }
        (IValue::GenericDict(pairs), Some(key)) => {
            let mut known = Vec::new();
            for (k, v) in pairs {
                let IValue::String(name) = k else { continue };
                match v {
                    IValue::Tensor(t) if name == *key => return Ok(t),
                    IValue::Tensor(_) => known.push(name),
                    _ => {}
                }
            }
            Err(format!(
                "it returns a dictionary without a tensor `{key}`; it has {}",
                known.join(", ")
            ))
        }
        (IValue::Tensor(_), Some(_)) => Err(format!(
            "it returns a tensor, so that the tap is `output`, not `{tap}`"
        )),
        (other, _) => Err(match parts(&other) {
            parts if parts.is_empty() => format!(
                "it returns {}, not a tensor, nor a tuple, list or dictionary of tensors",
                kind_of(&other)
            ),
            parts => format!(
                "it returns {}; take a part of it: tap = {}",
                kind_of(&other),
                parts.join(", ")
            ),
        }),
    }
}

/// Most parts that an error lists.
const LISTED: usize = 20;

/// The taps that would take a tensor out of a value.
fn parts(value: &IValue) -> Vec<String> {
    let numbered = |n: usize| (0..n).map(|i| i.to_string()).collect();
    let names: Vec<String> = match value {
        IValue::TensorList(v) => numbered(v.len()),
        IValue::Tuple(v) | IValue::GenericList(v) => {
            let tensors = v.iter().enumerate();
            let tensors = tensors.filter(|(_, v)| matches!(v, IValue::Tensor(_)));
            tensors.map(|(i, _)| i.to_string()).collect()
        }
        IValue::GenericDict(pairs) => {
            let names = pairs.iter().filter_map(|pair| match pair {
                (IValue::String(name), IValue::Tensor(_)) => Some(name.clone()),
                _ => None,
            });
            names.collect()
        }
        _ => Vec::new(),
    };
    let shown = names.iter().take(LISTED);
    shown.map(|name| format!("\"output.{name}\"")).collect()
}

fn kind_of(value: &IValue) -> &'static str {
    match value {
        IValue::Tensor(_) => "a tensor",
        IValue::Tuple(_) => "a tuple",
        IValue::TensorList(_) | IValue::GenericList(_) => "a list",
        IValue::GenericDict(_) => "a dictionary",
        IValue::Object(_) => "an object",
        _ => "something else",
    }
}

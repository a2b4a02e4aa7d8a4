//! Features to images, with a generator that is there.

use std::collections::BTreeSet;
use std::path::Path;

use deepsim_experiment::features_file::FeaturesFile;
use deepsim_experiment::measure::BATCH;
use deepsim_experiment::{Clip, ExperimentError, evaluate, sheet};
use serde::Serialize;
use tch::{Device, Tensor};

use crate::error::{Result, WhileRunning as _};
use crate::run::ready::Ready;
use crate::show::output::{Kind, check, unused, write};

/// An image made of features.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Decoded {
    /// The features' name; of a batch, with the number of its row, from 0.
    pub features: String,
    /// The PNG.
    pub picture: String,
}

/// Names listed in an error.
const FEW: usize = 3;

/// Decodes every tensor of a file: one image's features each, or a batch `[N,…]` of them.
///
/// # Errors
/// Features of another shape than the generator's, or not finite (before anything is written);
/// files that cannot be written.
pub fn decode(ready: &Ready, file: &Path, out: &Path, device: Device) -> Result<Vec<Decoded>> {
    let wanted = ready.generator.spec().input.sizes();
    let features = FeaturesFile::read_loosely(file)?;
    let mut named: Vec<(String, Tensor)> = Vec::new();
    let (mut misshapen, mut not_finite) = (Vec::new(), Vec::new());
    for (name, tensor) in &features.entries {
        let size = tensor.size();
        if tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            not_finite.push(name.clone());
        } else if size == wanted {
            named.push((name.clone(), tensor.shallow_clone()));
        } else if size.get(1..) == Some(wanted.as_slice()) {
            for row in 0..size[0] {
                named.push((format!("{name}-{row}"), tensor.f_get(row)?));
            }
        } else {
            misshapen.push(format!("{name} is {size:?}"));
        }
    }
    let mut problems = Vec::new();
    let list = |names: &[String]| {
        names
            .iter()
            .take(FEW)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ")
    };
    if !misshapen.is_empty() {
        problems.push(format!(
            "{} of its tensors do not fit ({}): this generator takes features {wanted:?}, or batches [N, …] of them",
            misshapen.len(),
            list(&misshapen)
        ));
    }
    if !not_finite.is_empty() {
        problems.push(format!(
            "{} of its tensors hold NaN or infinity: {}",
            not_finite.len(),
            list(&not_finite)
        ));
    }
    if !problems.is_empty() {
        return Err(ExperimentError::Recorded {
            path: file.to_owned(),
            problems,
        }
        .into());
    }
    let mut taken = BTreeSet::new();
    let mut paths = Vec::new();
    for (name, _) in &named {
        let path = out.join(format!("{}.png", file_name(name, &mut taken)));
        check("--out", &path, Kind::Image)?;
        paths.push(path);
    }
    let mut paths = paths.into_iter();
    std::fs::create_dir_all(out)
        .map_err(ExperimentError::io(out))
        .while_running()?;
    let mut made = Vec::new();
    let _guard = tch::no_grad_guard();
    for part in named.chunks(BATCH) {
        let tensors: Vec<&Tensor> = part.iter().map(|(_, t)| t).collect();
        let mut x = Tensor::f_stack(&tensors, 0)?.f_to_device(device)?;
        if let Some(scale) = &ready.scale {
            x = scale.apply(&x)?;
        }
        let y = evaluate::decode(&ready.generator, &x, Clip::Displayable).while_running()?;
        for ((i, (name, _)), path) in (0i64..).zip(part).zip(&mut paths) {
            let png = sheet::single(&y.f_narrow(0, i, 1)?)?;
            write(&path, &png.bytes)?;
            made.push(Decoded {
                features: name.clone(),
                picture: path.display().to_string(),
            });
        }
    }
    Ok(made)
}

/// A plain file name for a name of features, which may be a path or anything else: nothing is
/// written outside the folder, and nothing twice.
pub(crate) fn file_name(name: &str, taken: &mut BTreeSet<String>) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    let mapped: String = name
        .chars()
        .map(|c| if plain(c) { c } else { '-' })
        .take(150)
        .collect();
    let trimmed = mapped.trim_matches(['.', '-']);
    let stem = if trimmed.is_empty() {
        "features"
    } else {
        trimmed
    };
    unused(stem, taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_plain_files_of_their_own() {
        let mut taken = BTreeSet::new();
        assert_eq!(file_name("a/b.jpg", &mut taken), "a-b.jpg");
        assert_eq!(file_name("a-b.jpg", &mut taken), "a-b.jpg-2");
        assert_eq!(file_name("../../etc/x", &mut taken), "etc-x");
        assert_eq!(file_name("..", &mut taken), "features");
    }
}

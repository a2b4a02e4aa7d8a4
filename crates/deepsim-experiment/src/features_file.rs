//! Files of features that were recorded elsewhere: one tensor for each name.
//!
//! Either a `.safetensors` file with a tensor for each name; or a matrix, the only tensor of a
//! `.safetensors` file or a `.npy` file, whose rows belong to the names, one a line, in
//! `FILE.names.txt` beside it (`responses.npy`, `responses.names.txt`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use deepsim_nets::import::read_npy;
use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

use crate::error::{ExperimentError, Result};
use crate::networks::hash_file;

/// Features by name, all of one shape and finite, f32.
#[derive(Debug)]
pub struct FeaturesFile {
    /// Where they were read.
    pub path: PathBuf,
    /// Sizes of each tensor.
    pub sizes: Vec<i64>,
    /// The tensors.
    pub entries: BTreeMap<String, Tensor>,
}

/// How many names an error lists of each kind.
const FEW: usize = 3;

/// `n things: a, b, c, …`
pub(crate) fn few(what: &str, names: &[String]) -> String {
    let shown = names.iter().take(FEW).cloned().collect::<Vec<_>>();
    let more = if names.len() > FEW { ", …" } else { "" };
    format!("{} {what}: {}{more}", names.len(), shown.join(", "))
}

/// A `.npy` array.
fn matrix(path: &Path) -> Result<Tensor> {
    let (shape, values) = read_npy(path).map_err(|e| ExperimentError::Recorded {
        path: path.to_owned(),
        problems: vec![e.to_string()],
    })?;
    let shape: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
    Ok(Tensor::f_from_slice(&values)?.f_view(shape.as_slice())?)
}

/// The names beside a matrix: `responses.npy` → `responses.names.txt`.
pub fn names_file(path: &Path) -> PathBuf {
    path.with_extension("names.txt")
}

/// blake3 of the file, or of the hashes of the file and of its names.
///
/// # Errors
/// An unreadable file.
pub fn hash(path: &Path) -> Result<String> {
    let own = hash_file(path)?;
    let names = names_file(path);
    if !names.exists() {
        return Ok(own);
    }
    let both = format!("{own} {}", hash_file(&names)?);
    Ok(blake3::hash(both.as_bytes()).to_hex().to_string())
}

fn unusable(path: &Path, problems: Vec<String>) -> ExperimentError {
    ExperimentError::Recorded {
        path: path.to_owned(),
        problems,
    }
}

impl FeaturesFile {
    /// Reads a file whole.
    ///
    /// # Errors
    /// [`ExperimentError::Recorded`] with everything that is wrong with it: damage, values that are
    /// no numbers or not finite, tensors of different shapes, another number of names than of rows.
    pub fn read(path: &Path) -> Result<FeaturesFile> {
        let file = FeaturesFile::read_loosely(path)?;
        let mut problems = Vec::new();
        let mut shapes: BTreeMap<Vec<i64>, Vec<String>> = BTreeMap::new();
        let mut not_finite = Vec::new();
        for (name, tensor) in &file.entries {
            shapes.entry(tensor.size()).or_default().push(name.clone());
            if !finite(tensor)? {
                not_finite.push(name.clone());
            }
        }
        if shapes.len() > 1 {
            for (shape, names) in shapes.iter().take(FEW) {
                problems.push(few(&format!("features are {shape:?}"), names));
            }
            problems.push("all must be of one shape".to_owned());
        }
        if !not_finite.is_empty() {
            problems.push(few("features hold NaN or infinity", &not_finite));
        }
        match problems.is_empty() {
            true => Ok(file),
            false => Err(unusable(path, problems)),
        }
    }

    /// As [`FeaturesFile::read`], but shapes may differ (then `sizes` is that of the first name),
    /// and values may be anything.
    ///
    /// # Errors
    /// Damage, and values that are no numbers.
    pub fn read_loosely(path: &Path) -> Result<FeaturesFile> {
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        let beside = names_file(path);
        let entries = match ending {
            "npy" if !beside.exists() => {
                let reason = format!(
                    "the names of its rows are missing: write them, one a line, to {}",
                    beside.display()
                );
                return Err(unusable(path, vec![reason]));
            }
            "npy" => rows(path, &matrix(path)?, &beside)?,
            "safetensors" => {
                let tensors = read_safetensors(path)?;
                match (beside.exists(), tensors.len()) {
                    (false, _) => tensors,
                    (true, 1) => match tensors.values().next() {
                        Some(matrix) => rows(path, matrix, &beside)?,
                        None => tensors,
                    },
                    (true, n) => {
                        let reason = format!(
                            "it holds {n} tensors, but {} gives names to the rows of a single one",
                            beside.display()
                        );
                        return Err(unusable(path, vec![reason]));
                    }
                }
            }
            _ => {
                let reason = "features are read from .safetensors and .npy files".to_owned();
                return Err(unusable(path, vec![reason]));
            }
        };
        let Some(first) = entries.values().next() else {
            return Err(unusable(path, vec!["it holds no features".to_owned()]));
        };
        Ok(FeaturesFile {
            path: path.to_owned(),
            sizes: first.size(),
            entries,
        })
    }
}

pub(crate) fn finite(tensor: &Tensor) -> Result<bool> {
    Ok(tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? != 0)
}

/// The rows of a matrix under their names.
fn rows(path: &Path, matrix: &Tensor, beside: &Path) -> Result<BTreeMap<String, Tensor>> {
    let text = fs::read_to_string(beside).map_err(ExperimentError::io(beside))?;
    let names: Vec<&str> = text.lines().map(str::trim_end).collect();
    let n = matrix.size().first().copied().unwrap_or(0);
    if matrix.dim() < 2 || i64::try_from(names.len()).ok() != Some(n) {
        let reason = format!(
            "its tensor is {:?}, but {} holds {} names: one line for each row",
            matrix.size(),
            beside.display(),
            names.len()
        );
        return Err(unusable(path, vec![reason]));
    }
    let mut out = BTreeMap::new();
    let mut twice = Vec::new();
    for (i, name) in (0..n).zip(names) {
        if out.insert(name.to_owned(), matrix.f_get(i)?).is_some() {
            twice.push(name.to_owned());
        }
    }
    match twice.is_empty() {
        true => Ok(out),
        false => Err(unusable(path, vec![few("names stand twice", &twice)])),
    }
}

fn read_safetensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let bytes = fs::read(path).map_err(ExperimentError::io(path))?;
    let damaged = |e: safetensors::SafeTensorError| {
        unusable(
            path,
            vec![format!("it is not a whole safetensors file: {e}")],
        )
    };
    let file = SafeTensors::deserialize(&bytes).map_err(damaged)?;
    let (mut out, mut wrong) = (BTreeMap::new(), Vec::new());
    for (name, view) in file.tensors() {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F64 => Kind::Double,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            other => {
                wrong.push(format!("{name} ({other:?})"));
                continue;
            }
        };
        let shape: Vec<i64> = view
            .shape()
            .iter()
            .map(|&d| i64::try_from(d).unwrap_or(i64::MAX))
            .collect();
        let tensor = Tensor::f_from_data_size(view.data(), &shape, kind)?;
        out.insert(name, tensor.f_to_kind(Kind::Float)?);
    }
    match wrong.is_empty() {
        true => Ok(out),
        false => Err(unusable(
            path,
            vec![few("tensors are no floating-point numbers", &wrong)],
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_names_is_cut() {
        let names: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        assert_eq!(few("are bad", &names), "4 are bad: a, b, c, …");
        assert_eq!(few("are bad", &names[..2]), "2 are bad: a, b");
    }

    #[test]
    fn names_stand_beside_the_matrix() {
        assert_eq!(
            names_file(Path::new("a/responses.npy")),
            Path::new("a/responses.names.txt")
        );
    }
}

//! Named tensors, and reading them strictly from safetensors files.

use std::collections::BTreeMap;
use std::path::Path;

use deepsim_terminal::path as shown;
use deepsim_weights::digests;
use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind, Tensor};

use crate::error::{NetError, Result};

/// One weight of a network.
#[derive(Debug)]
pub struct Param {
    /// Name as in the reference weights, such as `conv1.weight`.
    pub name: String,
    /// The values, f32.
    pub tensor: Tensor,
    /// Whether training changes it.
    pub trains: bool,
    /// Whether weight decay applies to it.
    pub decays: bool,
}

/// The weights of one network, in the order of its layers.
#[derive(Debug, Default)]
pub struct Params {
    entries: Vec<Param>,
}

/// Tensors read from a file, by name.
pub type NamedTensors = BTreeMap<String, Tensor>;

impl Params {
    /// Appends a weight.
    pub fn push(&mut self, param: Param) {
        self.entries.push(param);
    }

    /// Appends all of another's weights.
    pub(crate) fn extend(&mut self, others: Params) {
        self.entries.extend(others.entries);
    }

    /// The same weights under a second handle: what is copied into one is in both.
    pub fn handles(&self) -> Params {
        let same = |p: &Param| Param {
            name: p.name.clone(),
            tensor: p.tensor.shallow_clone(),
            ..*p
        };
        Params {
            entries: self.entries.iter().map(same).collect(),
        }
    }

    /// The weights in order.
    pub fn iter(&self) -> impl Iterator<Item = &Param> {
        self.entries.iter()
    }

    /// Handles of the tensors that training changes, in order.
    pub fn trained(&self) -> Vec<&Param> {
        self.entries.iter().filter(|p| p.trains).collect()
    }

    /// A weight by name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.entries
            .iter()
            .find(|p| p.name == name)
            .map(|p| &p.tensor)
    }

    /// Converts the weights to fp64, in place, for all of their handles, to measure the effect of
    /// rounding. Optimisers that were made before cannot be used any more.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn widen(&self) -> Result<()> {
        self.entries.iter().try_for_each(|p| widen(&p.tensor))
    }

    /// Total number of values.
    pub fn count(&self) -> usize {
        self.entries.iter().map(|p| p.tensor.numel()).sum()
    }

    /// Copies values into the weights in place; names and shapes must match exactly.
    ///
    /// # Errors
    /// [`NetError::Mismatch`] listing every difference; nothing is changed then.
    pub fn copy_from(&mut self, values: &NamedTensors, what: &str, origin: &str) -> Result<()> {
        let expected: Vec<(String, Vec<i64>)> = self
            .entries
            .iter()
            .map(|p| (p.name.clone(), p.tensor.size()))
            .collect();
        check_exact(values, &expected, what, origin)?;
        let _guard = tch::no_grad_guard();
        for p in &mut self.entries {
            if let Some(value) = values.get(&p.name) {
                p.tensor.f_copy_(value)?;
            }
        }
        Ok(())
    }
}

/// Takes a weight to fp64, in place: all of its handles have the new values.
pub(crate) fn widen(tensor: &Tensor) -> Result<()> {
    let values = tensor.f_detach()?.f_to_kind(Kind::Double)?;
    Ok(tensor.shallow_clone().f_set_data(&values)?)
}

/// Checks names, shapes and finiteness of `values` against `expected`.
///
/// # Errors
/// [`NetError::Mismatch`] with one line per missing, unknown or misshapen tensor, or one that holds NaN or infinity.
pub fn check_exact(
    values: &NamedTensors,
    expected: &[(String, Vec<i64>)],
    what: &str,
    origin: &str,
) -> Result<()> {
    let mut mismatches = Vec::new();
    for (name, shape) in expected {
        match values.get(name) {
            None => mismatches.push(format!("missing: {name} {shape:?}")),
            Some(t) if &t.size() != shape => {
                mismatches.push(format!(
                    "shape: {name} is {:?}, expected {shape:?}",
                    t.size()
                ));
            }
            Some(t) => {
                if let Some((index, value)) = not_finite(t)? {
                    mismatches.push(format!(
                        "value: {name} holds {value} at position {index}; the file is damaged, or its training failed"
                    ));
                }
            }
        }
    }
    for name in values.keys() {
        if !expected.iter().any(|(n, _)| n == name) {
            mismatches.push(format!("unknown: {name}"));
        }
    }
    if mismatches.is_empty() {
        return Ok(());
    }
    Err(NetError::Mismatch {
        origin: origin.to_owned(),
        what: what.to_owned(),
        mismatches,
    })
}

/// The first value that is NaN or infinite, and where it is.
fn not_finite(tensor: &Tensor) -> Result<Option<(i64, f64)>> {
    if tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? != 0 {
        return Ok(None);
    }
    let flat = tensor.f_flatten(0, -1)?;
    let places = flat.f_isfinite()?.f_logical_not()?.f_nonzero()?;
    let index = places.f_int64_value(&[0, 0])?;
    Ok(Some((index, flat.f_double_value(&[index])?)))
}

/// A weight on a device, detached, in the memory order that the device's kernels expect. cuDNN's
/// tensor cores take channels-last maps, and a filter in another order would be copied at each use.
pub(crate) fn stored(tensor: &Tensor, device: Device) -> Result<Tensor> {
    let there = tensor.f_to_device(device)?.f_detach()?;
    match (device, there.dim()) {
        (Device::Cuda(_), 4) => Ok(crate::images::channels_last(&there)?.f_detach()?),
        _ => Ok(there),
    }
}

/// Reads a safetensors file of f32 tensors.
///
/// # Errors
/// A missing or unreadable file, a damaged one, or tensors of another type than f32.
pub fn read_safetensors(path: &Path) -> Result<NamedTensors> {
    read_safetensors_without(path, &|_| false)
}

/// The same without the tensors that are `aside` by name, of whatever type they are.
///
/// # Errors
/// As [`read_safetensors`].
pub fn read_safetensors_without(path: &Path, aside: &dyn Fn(&str) -> bool) -> Result<NamedTensors> {
    let unreadable = |source| NetError::WeightsFile {
        path: path.to_owned(),
        source,
    };
    // A pipe or a device may have no end.
    let kind = std::fs::metadata(path).map_err(unreadable)?.file_type();
    if kind.is_dir() {
        return Err(unreadable(std::io::ErrorKind::IsADirectory.into()));
    }
    if !kind.is_file() {
        return Err(unreadable(std::io::Error::other("is not a regular file")));
    }
    let bytes = deepsim_files::read(path).map_err(unreadable)?;
    digests::check(&bytes, path)?;
    parse_without(&bytes, path, aside)
}

/// Parses the bytes of a safetensors file of f32 tensors (f16 and bf16 are widened); `path` names it in errors.
///
/// # Errors
/// As [`read_safetensors`].
pub fn parse_safetensors(bytes: &[u8], path: &Path) -> Result<NamedTensors> {
    parse_without(bytes, path, &|_| false)
}

fn parse_without(bytes: &[u8], path: &Path, aside: &dyn Fn(&str) -> bool) -> Result<NamedTensors> {
    let damaged = |reason: String| NetError::NotSafetensors {
        path: path.to_owned(),
        reason,
    };
    let file = SafeTensors::deserialize(bytes).map_err(|e| damaged(e.to_string()))?;
    let mut out = NamedTensors::new();
    let mut wrong = Vec::new();
    for (name, view) in file.tensors().into_iter().filter(|(name, _)| !aside(name)) {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::F16 => Kind::Half,
            other => {
                wrong.push(format!("type: {name} is {other:?}, expected F32"));
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
    if wrong.is_empty() {
        Ok(out)
    } else {
        Err(NetError::Mismatch {
            origin: shown(path),
            what: "a network in single precision".to_owned(),
            mismatches: wrong,
        })
    }
}

/// A tensor's values as little-endian f32 bytes, row-major, as safetensors stores them.
///
/// # Errors
/// What libtorch refuses.
pub fn f32_bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let flat = tensor
        .f_detach()?
        .f_to_device(Device::Cpu)?
        .f_to_kind(Kind::Float)?
        .f_contiguous()?;
    let n = flat.numel();
    let mut values = vec![0f32; n];
    flat.f_view([-1])?.f_copy_data(&mut values, n)?;
    Ok(values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mismatch_is_listed_at_once() {
        let t = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        let values = NamedTensors::from([
            ("a.weight".to_owned(), t(&[2, 3])),
            ("b.weight".to_owned(), t(&[2])),
            ("stranger".to_owned(), t(&[1])),
        ]);
        let expected = [
            ("a.weight", vec![2, 3]),
            ("b.weight", vec![3]),
            ("c.bias", vec![4]),
        ]
        .map(|(n, s)| (n.to_owned(), s));
        let error = check_exact(&values, &expected, "a net", "file.safetensors").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("missing: c.bias [4]"), "{text}");
        assert!(
            text.contains("shape: b.weight is [2], expected [3]"),
            "{text}"
        );
        assert!(text.contains("unknown: stranger"), "{text}");
        assert!(!text.contains("a.weight"), "{text}");
    }

    #[test]
    fn values_that_are_not_finite_are_named_by_tensor_and_position() {
        let values = |v: &[f32]| {
            NamedTensors::from([("a.weight".to_owned(), Tensor::from_slice(v).view([2, 2]))])
        };
        let expected = [("a.weight".to_owned(), vec![2, 2])];
        let check = |v: &[f32]| check_exact(&values(v), &expected, "a net", "file.safetensors");
        check(&[0.0, f32::MAX, f32::MIN, 1e-45]).unwrap();
        for (bad, word) in [
            (f32::NAN, "NaN"),
            (f32::INFINITY, "inf"),
            (f32::NEG_INFINITY, "-inf"),
        ] {
            let text = check(&[0.0, 1.0, bad, f32::NAN]).unwrap_err().to_string();
            let line = format!("a.weight holds {word} at position 2");
            assert!(
                text.contains(&line) && text.contains("file.safetensors"),
                "{text}"
            );
        }
    }

    #[test]
    fn truncated_files_are_refused() {
        let error =
            parse_safetensors(&[8, 0, 0, 0, 0, 0, 0, 0, b'{'], Path::new("cut")).unwrap_err();
        assert!(matches!(error, NetError::NotSafetensors { .. }));
    }
}

//! Files of features that were recorded elsewhere: one tensor for each name.
//!
//! Either a `.safetensors` file with a tensor for each name; or a matrix, the only tensor of a
//! `.safetensors` file or a `.npy` file, whose rows belong to the names, one a line, in
//! `FILE.names.txt` beside it (`responses.npy`, `responses.names.txt`). Or a folder of bdpy's `.mat` files, one for each
//! name ([`crate::feature_folder`]).
//!
//! Values of every number format become f32: whole numbers, truth values, halves and doubles alike. Names are compared
//! as [`canonical`] has them: a byte-order mark, a leading `./` or accents stored apart make no other name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use deepsim_data::names::{canonical, visible};
use deepsim_data::terminal::path as shown;
use deepsim_weights::{FileError, ImportError, NpyError, read_npy};
use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

use crate::error::{ExperimentError, FEW, Result, few, unusable};
use crate::feature_folder;
use crate::files;
use crate::hash::hash_file;

/// Features by name, all of one shape and finite, f32.
#[derive(Debug)]
pub struct FeaturesFile {
    /// Where they were read.
    pub path: PathBuf,
    /// Sizes of each tensor.
    pub sizes: Vec<i64>,
    /// The tensors, by [`canonical`] name.
    pub entries: BTreeMap<String, Tensor>,
}

/// Where a path that is not there was looked for, and what to do about it.
pub fn tried(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    if path.is_absolute() {
        format!("there is no file {}", shown(path))
    } else {
        format!(
            "there is no file {} (relative to {}; run from the repository root, or give the full path)",
            shown(here.join(path)),
            shown(here)
        )
    }
}

/// A file that is not there; `Ok` if it is.
fn present(path: &Path) -> Result<()> {
    match path.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => Err(unusable(path, vec![tried(path)])),
        Err(source) => Err(ExperimentError::io(path)(source)),
    }
}

/// A `.npy` array. A value that cannot be used is named by its row and the row's name.
fn matrix(path: &Path, beside: &Path) -> Result<Tensor> {
    let (shape, values) =
        read_npy(path).map_err(|error| unusable(path, vec![reason(error, beside)]))?;
    let shape: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
    Ok(Tensor::f_from_slice(&values)?.f_view(shape.as_slice())?)
}

fn reason(error: ImportError, beside: &Path) -> String {
    let ImportError::File {
        reason: FileError::Npy(bad),
        ..
    } = &error
    else {
        return error.to_string();
    };
    let (index, shape, what) = match bad {
        NpyError::NotFinite {
            index,
            value,
            shape,
        } => (index, shape, format!("is {value}")),
        NpyError::TooLarge {
            index,
            value,
            shape,
        } => (index, shape, format!("is {value:e}, too large for f32")),
        other => return other.to_string(),
    };
    let length: usize = shape.iter().skip(1).product();
    let (row, value) = (index / length.max(1), index % length.max(1));
    let name = names(beside).ok().and_then(|names| names.get(row).cloned());
    let name = name.map_or_else(String::new, |name| format!(" ({})", visible(&name)));
    format!("row {}{name}, value {} {what}", row + 1, value + 1)
}

/// The names beside a matrix: `responses.npy` → `responses.names.txt`.
pub fn names_file(path: &Path) -> PathBuf {
    path.with_extension("names.txt")
}

/// blake3 of the file, or of the hashes of the file and of its names, or of those of a folder's files.
///
/// # Errors
/// An unreadable file.
pub fn hash(path: &Path) -> Result<String> {
    present(path)?;
    if path.is_dir() {
        return feature_folder::hash(path);
    }
    let own = hash_file(path)?;
    let names = names_file(path);
    if !names.exists() {
        return Ok(own);
    }
    let both = format!("{own} {}", hash_file(&names)?);
    Ok(blake3::hash(both.as_bytes()).to_hex().to_string())
}

impl FeaturesFile {
    /// Reads a file or folder whole.
    ///
    /// # Errors
    /// [`ExperimentError::Recorded`] with everything that is wrong with it: damage, values that are
    /// no numbers or not finite, tensors of different shapes, another number of names than of rows.
    pub fn read(path: &Path) -> Result<FeaturesFile> {
        let file = FeaturesFile::read_loosely(path)?;
        let mut problems = Vec::new();
        let mut shapes: BTreeMap<Vec<i64>, Vec<String>> = BTreeMap::new();
        let (mut not_finite, mut empty) = (Vec::new(), Vec::new());
        for (name, tensor) in &file.entries {
            shapes.entry(tensor.size()).or_default().push(name.clone());
            if tensor.numel() == 0 {
                empty.push(name.clone());
            }
            if !finite(tensor)? {
                let values = Vec::<f32>::try_from(&tensor.f_flatten(0, -1)?)?;
                let place = values.iter().position(|value| !value.is_finite());
                not_finite.push(format!("{name} (value {})", place.map_or(0, |at| at + 1)));
            }
        }
        if !empty.is_empty() {
            problems.push(few("features are empty", &empty));
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
        if problems.is_empty() {
            Ok(file)
        } else {
            Err(unusable(path, problems))
        }
    }

    /// As [`FeaturesFile::read`], but shapes may differ (then `sizes` is that of the first name),
    /// and values may be anything.
    ///
    /// # Errors
    /// Damage, and values that are no numbers.
    pub fn read_loosely(path: &Path) -> Result<FeaturesFile> {
        present(path)?;
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        let beside = names_file(path);
        let entries = match ending {
            _ if path.is_dir() => feature_folder::read(path)?,
            "npy" if !beside.exists() => {
                let reason = format!(
                    "the names of its rows are missing: write them, one a line, to {}",
                    shown(beside)
                );
                return Err(unusable(path, vec![reason]));
            }
            "npy" => rows(path, &matrix(path, &beside)?, &beside)?,
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
                            shown(beside)
                        );
                        return Err(unusable(path, vec![reason]));
                    }
                }
            }
            _ => {
                let reason =
                    "features are read from .safetensors and .npy files, and from folders of \
                              .mat files"
                        .to_owned();
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

/// The names in a file, one a line; empty lines at the end count for nothing.
fn names(beside: &Path) -> Result<Vec<String>> {
    let bytes = files::read(beside).map_err(ExperimentError::io(beside))?;
    let wrong = |reason: String| unusable(beside, vec![reason]);
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err(wrong("it is UTF-16: save it as UTF-8 text".to_owned()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        wrong(format!("line {line} is not UTF-8: save it as UTF-8 text"))
    })?;
    let text = text.trim_start_matches('\u{feff}').trim_end();
    let names: Vec<String> = text
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    match names.iter().position(String::is_empty) {
        Some(line) => Err(wrong(format!(
            "line {} is empty: one name a line",
            line + 1
        ))),
        None => Ok(names),
    }
}

/// The rows of a matrix under their names.
fn rows(path: &Path, matrix: &Tensor, beside: &Path) -> Result<BTreeMap<String, Tensor>> {
    let names = names(beside)?;
    let n = matrix.size().first().copied().unwrap_or(0);
    let count = i64::try_from(names.len()).unwrap_or(i64::MAX);
    if matrix.dim() < 2 || count != n {
        let transposed = matrix.dim() == 2 && matrix.size().get(1) == Some(&count);
        let hint = if transposed {
            "; it looks transposed: save matrix.T (in Python: \
                 numpy.save(FILE, numpy.ascontiguousarray(matrix.T)))"
        } else {
            ""
        };
        let reason = format!(
            "its tensor is {:?}, but {} holds {} names: one line for each row{hint}",
            matrix.size(),
            shown(beside),
            names.len()
        );
        return Err(unusable(path, vec![reason]));
    }
    let mut out = BTreeMap::new();
    let mut twice = Vec::new();
    for (i, name) in (0..n).zip(names) {
        if out
            .insert(canonical(&name).into_owned(), matrix.f_get(i)?)
            .is_some()
        {
            twice.push(name);
        }
    }
    if twice.is_empty() {
        Ok(out)
    } else {
        Err(unusable(path, vec![few("names stand twice", &twice)]))
    }
}

fn read_safetensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let bytes = files::read(path).map_err(ExperimentError::io(path))?;
    let damaged = |e: safetensors::SafeTensorError| {
        unusable(
            path,
            vec![format!("it is not a whole safetensors file: {e}")],
        )
    };
    let file = SafeTensors::deserialize(&bytes).map_err(damaged)?;
    let (mut out, mut problems) = (BTreeMap::new(), Vec::new());
    let (mut wrong, mut twice) = (Vec::new(), Vec::new());
    for (name, view) in file.tensors() {
        let shape: Vec<i64> = view
            .shape()
            .iter()
            .map(|&d| i64::try_from(d).unwrap_or(i64::MAX))
            .collect();
        let half = |kind| -> Result<Tensor> {
            Ok(Tensor::f_from_data_size(view.data(), &shape, kind)?.f_to_kind(Kind::Float)?)
        };
        let tensor = match (view.dtype(), values(view.dtype(), view.data())) {
            (Dtype::F16, _) => half(Kind::Half)?,
            (Dtype::BF16, _) => half(Kind::BFloat16)?,
            (_, Some(values)) => {
                if let Some((index, value)) = too_large(view.dtype(), view.data(), &values) {
                    let name = visible(&name);
                    problems.push(format!(
                        "{name}: value {} is {value:e}, too large for f32",
                        index + 1
                    ));
                }
                Tensor::f_from_slice(&values)?.f_view(shape.as_slice())?
            }
            (other, None) => {
                wrong.push(format!("{name} ({other:?})"));
                continue;
            }
        };
        if out.insert(canonical(&name).into_owned(), tensor).is_some() {
            twice.push(name);
        }
    }
    if !wrong.is_empty() {
        problems.push(few(
            "tensors are of number formats that are not read",
            &wrong,
        ));
    }
    if !twice.is_empty() {
        problems.push(few("names stand twice", &twice));
    }
    problems.truncate(FEW);
    if problems.is_empty() {
        Ok(out)
    } else {
        Err(unusable(path, problems))
    }
}

/// Values of a number format as f32; `None` for formats that are not read here.
fn values(dtype: Dtype, data: &[u8]) -> Option<Vec<f32>> {
    macro_rules! of {
        ($kind:ty) => {{
            let (values, _) = data.as_chunks();
            values
                .iter()
                .map(|bytes| <$kind>::from_le_bytes(*bytes) as f32)
                .collect()
        }};
    }
    Some(match dtype {
        Dtype::F32 => of!(f32),
        Dtype::F64 => of!(f64),
        Dtype::I8 => of!(i8),
        Dtype::U8 => of!(u8),
        Dtype::I16 => of!(i16),
        Dtype::U16 => of!(u16),
        Dtype::I32 => of!(i32),
        Dtype::U32 => of!(u32),
        Dtype::I64 => of!(i64),
        Dtype::U64 => of!(u64),
        Dtype::BOOL => data
            .iter()
            .map(|byte| f32::from(u8::from(*byte != 0)))
            .collect(),
        _ => return None,
    })
}

/// The first double that is finite and beyond f32.
fn too_large(dtype: Dtype, data: &[u8], values: &[f32]) -> Option<(usize, f64)> {
    if dtype != Dtype::F64 {
        return None;
    }
    let (doubles, _) = data.as_chunks();
    let pairs = values.iter().zip(doubles).enumerate();
    pairs
        .map(|(index, (value, bytes))| (index, value, f64::from_le_bytes(*bytes)))
        .find(|(_, value, double)| value.is_infinite() && double.is_finite())
        .map(|(index, _, double)| (index, double))
}

#[cfg(test)]
mod tests {
    use std::fs;

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

    /// A header and data as numpy writes them.
    fn npy(dtype: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header =
            format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let length = (header.len() as u16).to_le_bytes();
        [
            b"\x93NUMPY\x01\x00",
            length.as_slice(),
            header.as_bytes(),
            data,
        ]
        .concat()
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    /// A matrix of three rows, and its names.
    fn written(folder: &Path, matrix: &[u8], names: &[u8]) -> PathBuf {
        let path = folder.join("r.npy");
        fs::write(&path, matrix).unwrap();
        fs::write(folder.join("r.names.txt"), names).unwrap();
        path
    }

    #[test]
    fn names_match_whatever_the_editor_and_the_file_system_made_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let matrix = npy("<f4", "(3, 2)", &floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        for names in [
            "caf\u{e9}.jpg\nb.jpg\nc.jpg\n",
            "\u{feff}caf\u{e9}.jpg\r\nb.jpg\r\nc.jpg",
            "./cafe\u{301}.jpg\n./b.jpg\n.\\c.jpg\n\n\n",
        ] {
            let path = written(folder.path(), &matrix, names.as_bytes());
            let file = FeaturesFile::read(&path).unwrap();
            let found: Vec<&str> = file.entries.keys().map(String::as_str).collect();
            assert_eq!(found, ["b.jpg", "c.jpg", "caf\u{e9}.jpg"], "{names:?}");
            let row = Vec::<f32>::try_from(&file.entries["caf\u{e9}.jpg"]).unwrap();
            assert_eq!(row, [1.0, 2.0]);
        }
        for (names, words) in [
            (
                &b"cafe\xcc\x81.jpg\ncaf\xc3\xa9.jpg\nc.jpg\n"[..],
                "names stand twice: \"caf\\u{e9}.jpg\"",
            ),
            (b"a\n\nc\n", "line 2 is empty"),
            (b"a\n\xe9\nc\n", "line 2 is not UTF-8"),
            (b"\xff\xfea\0\n\0", "UTF-16"),
            (
                b"a\nb\n",
                "holds 2 names: one line for each row; it looks transposed: save matrix.T",
            ),
            (b"a\n", "holds 1 names: one line for each row"),
        ] {
            let path = written(folder.path(), &matrix, names);
            let error = FeaturesFile::read(&path).unwrap_err().to_string();
            assert!(error.contains(words), "{words} is not in: {error}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_used_is_named_by_its_row_and_place() {
        let folder = tempfile::tempdir().unwrap();
        let names = b"a.jpg\nb.jpg\nc.jpg\n";
        let mut values = [0f64; 6];
        values[3] = 1e300;
        let data: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        for (matrix, words) in [
            (
                npy(
                    "<f4",
                    "(3, 2)",
                    &floats(&[1.0, 2.0, 3.0, f32::NAN, 5.0, 6.0]),
                ),
                "row 2 (b.jpg), value 2 is NaN",
            ),
            (
                npy("<f8", "(3, 2)", &data),
                "row 2 (b.jpg), value 2 is 1e300, too large for f32",
            ),
        ] {
            let path = written(folder.path(), &matrix, names);
            let error = FeaturesFile::read(&path).unwrap_err().to_string();
            assert!(error.contains(words), "{words} is not in: {error}");
        }
    }

    #[test]
    fn a_missing_file_is_called_missing_with_the_path_that_was_tried() {
        for read in [FeaturesFile::read, FeaturesFile::read_loosely] {
            let error = read(Path::new("weights/nowhere.npy"))
                .unwrap_err()
                .to_string();
            let here = std::env::current_dir().unwrap();
            let full = here.join("weights/nowhere.npy");
            for words in [
                &*format!("there is no file {}", full.display()),
                &*format!(
                    "relative to {}; run from the repository root",
                    here.display()
                ),
            ] {
                assert!(error.contains(words), "{words} is not in: {error}");
            }
            assert!(!error.contains("names of its rows"), "{error}");
        }
        let error = hash(Path::new("weights/nowhere.npy"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("there is no file /"), "{error}");
    }

    #[test]
    fn every_number_format_of_safetensors_is_read_as_from_npy() {
        use safetensors::tensor::TensorView;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.safetensors");
        let read = |dtype: Dtype, data: &[u8]| {
            let view = TensorView::new(dtype, vec![2], data).unwrap();
            safetensors::serialize_to_file([("./a.jpg", view)], None, &path).unwrap();
            FeaturesFile::read(&path)
        };
        for (dtype, data) in [
            (Dtype::BOOL, vec![1, 0]),
            (Dtype::U8, vec![1, 0]),
            (Dtype::I8, vec![1, 0]),
            (Dtype::U16, [1u16, 0].map(u16::to_le_bytes).concat()),
            (Dtype::I16, [1i16, 0].map(i16::to_le_bytes).concat()),
            (Dtype::U32, [1u32, 0].map(u32::to_le_bytes).concat()),
            (Dtype::I32, [1i32, 0].map(i32::to_le_bytes).concat()),
            (Dtype::U64, [1u64, 0].map(u64::to_le_bytes).concat()),
            (Dtype::I64, [1i64, 0].map(i64::to_le_bytes).concat()),
            (Dtype::F16, vec![0, 0x3c, 0, 0]),
            (Dtype::BF16, vec![0x80, 0x3f, 0, 0]),
            (Dtype::F32, floats(&[1.0, 0.0])),
            (Dtype::F64, [1f64, 0.0].map(f64::to_le_bytes).concat()),
        ] {
            let file = read(dtype, &data).unwrap();
            let values = Vec::<f32>::try_from(&file.entries["a.jpg"]).unwrap();
            assert_eq!(values, [1.0, 0.0], "{dtype:?}");
        }
        let error = read(Dtype::F64, &[1.0, 1e300].map(f64::to_le_bytes).concat());
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("value 2 is 1e300, too large for f32"),
            "{error}"
        );
        let view = TensorView::new(Dtype::F32, vec![0], &[]).unwrap();
        safetensors::serialize_to_file([("a.jpg", view)], None, &path).unwrap();
        let error = FeaturesFile::read(&path).unwrap_err().to_string();
        assert!(error.contains("features are empty: a.jpg"), "{error}");
    }
}

//! Folders of features as brain decoding has them: bdpy's `LAYER/LABEL.mat`, one stimulus a file.
//!
//! Each file has the variable `feat` of the shape `[1, …]` (bdpy, `dataform/features.py`). Decoded features lie deeper, in
//! `LAYER/SUBJECT/ROI/…/LABEL.mat`: the folder that holds the files is named. The label is the image's name without its
//! ending.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use deepsim_data::names::{canonical, visible};
use deepsim_data::terminal::path as shown;
use deepsim_weights::{ImportError, read_mat};
use tch::Tensor;

use crate::error::{ExperimentError, FEW, Result, few, unusable};
use crate::hash::hash_file;

/// The variable of bdpy's files.
const VARIABLE: &str = "feat";
const ENDING: &str = "mat";

/// What a folder holds, sorted; names that begin with a dot count for nothing.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed =
        fs::read_dir(folder).and_then(|entries| entries.collect::<std::io::Result<Vec<_>>>());
    let mut paths: Vec<PathBuf> = listed
        .map_err(ExperimentError::io(folder))?
        .into_iter()
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    Ok(paths)
}

/// Label and path of each file of a layer.
fn files(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let all = entries(folder)?;
    let mut files = Vec::new();
    for path in &all {
        if path.extension().is_some_and(|ending| ending == ENDING) {
            let label = path.file_stem().and_then(|stem| stem.to_str());
            let label = label.ok_or_else(|| {
                let reason = format!("the name of {} is not UTF-8", shown(path));
                unusable(folder, vec![reason])
            })?;
            files.push((label.to_owned(), path.clone()));
        }
    }
    if files.is_empty() {
        let folders: Vec<String> = all
            .iter()
            .filter(|path| path.is_dir())
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect();
        let mut problems = vec!["it holds no .mat files".to_owned()];
        if !folders.is_empty() {
            problems.push(few("folders are in it; name one of them", &folders));
        }
        return Err(unusable(folder, problems));
    }
    Ok(files)
}

/// The features of each label, by its [`canonical`] name.
pub(crate) fn read(folder: &Path) -> Result<BTreeMap<String, Tensor>> {
    let (mut out, mut wrong, mut twice) = (BTreeMap::new(), Vec::new(), Vec::new());
    for (label, path) in files(folder)? {
        let (shape, values) = match read_mat(&path, VARIABLE) {
            Ok(array) => array,
            Err(ImportError::File { reason, .. }) => {
                wrong.push(format!("{}: {reason}", visible(&label)));
                continue;
            }
            Err(other) => {
                wrong.push(other.to_string());
                continue;
            }
        };
        // The first dimension counts stimuli.
        let own = match shape.as_slice() {
            [1, own @ ..] if !own.is_empty() => own,
            [_] => shape.as_slice(),
            _ => {
                let label = visible(&label);
                wrong.push(format!(
                    "{label}: `{VARIABLE}` is {shape:?}, but a file holds one stimulus, [1, …]"
                ));
                continue;
            }
        };
        let own: Vec<i64> = own.iter().map(|&size| size as i64).collect();
        let tensor = Tensor::f_from_slice(&values)?.f_view(own.as_slice())?;
        if out.insert(canonical(&label).into_owned(), tensor).is_some() {
            twice.push(label);
        }
    }
    if !twice.is_empty() {
        wrong.push(few("labels stand twice", &twice));
    }
    if wrong.is_empty() {
        return Ok(out);
    }
    let all = wrong.len();
    wrong.truncate(FEW);
    if all > wrong.len() {
        wrong.push(format!("and {} more", all - wrong.len()));
    }
    Err(unusable(folder, wrong))
}

/// blake3 of the files' labels and hashes.
pub(crate) fn hash(folder: &Path) -> Result<String> {
    let mut all = blake3::Hasher::new();
    for (label, path) in files(folder)? {
        all.update(format!("{} {label}\n", hash_file(&path)?).as_bytes());
    }
    Ok(all.finalize().to_hex().to_string())
}

/// The layers of a folder of layers: its subfolders, sorted.
///
/// # Errors
/// A folder that cannot be read or has none.
pub fn layers(root: &Path) -> Result<Vec<String>> {
    let layers: Vec<String> = entries(root)?
        .iter()
        .filter(|path| path.is_dir())
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    if layers.is_empty() {
        let reason = "it has no folders: one for each layer is needed, LAYER/LABEL.mat".to_owned();
        return Err(unusable(root, vec![reason]));
    }
    Ok(layers)
}

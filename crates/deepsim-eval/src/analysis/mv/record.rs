//! A finished Mahendran & Vedaldi baseline on disk.
//!
//! ```text
//! runs/NAME/
//!   mv.json                      this record: settings, images, hashes; written last
//!   mv.toml                      the experiment that says which encoder, layer and images
//!   reconstructions.safetensors  key "x", f32 [N,3,S,S], RGB, 0–255 but not clipped
//!   mv.png                       original images above reconstructions
//! ```

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use deepsim_data::Dataset;
use deepsim_experiment::{Consent, Experiment, ExperimentError, Perception, files, measure};
use deepsim_nets::images::{caffe_to_rgb, rgb_to_caffe};
use deepsim_nets::params::read_safetensors;
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};
use tempfile::TempDir;

use super::objective::Settings;
use crate::error::{EvalError, Result};
use crate::measure::photos::{picked, short_name, some};
use crate::run::loaded::{HeldOutImages, same};
use crate::show::output;
use crate::show::sheet::{Sheet, images};

/// The record's file.
pub const FILE: &str = "mv.json";
const TOML: &str = "mv.toml";
const TENSORS: &str = "reconstructions.safetensors";
const PICTURE: &str = "mv.png";
/// Images on the record's sheet.
const SHOWN: usize = 8;

/// `mv.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always `deepsim-mv`.
    pub format: String,
    /// Of this layout: 1.
    pub version: u32,
    /// `NET:TAP`.
    pub encoder: String,
    /// blake3 of the encoder's weights.
    pub encoder_weights: String,
    /// Digest of the held-out images.
    pub test_data: String,
    /// Settings of the optimisation.
    pub settings: Settings,
    /// One for each original image, in the order of the reconstructions.
    pub photos: Vec<Photo>,
    /// blake3 of each of the other files, hex.
    pub files: BTreeMap<String, String>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// An image and how well its features were met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Photo {
    /// Index in the held-out set.
    pub index: usize,
    /// Its name there.
    pub name: String,
    /// ‖Φ(x)−Φ₀‖²/‖Φ₀‖² of the noise.
    pub feature_start: f64,
    /// The same of the reconstruction.
    pub feature_end: f64,
}

/// What a record is made of.
pub struct Made<'a> {
    /// The experiment.
    pub experiment: &'a Experiment,
    /// Its networks.
    pub perception: &'a Perception,
    /// The images' dataset.
    pub data: &'a Dataset,
    /// Settings.
    pub settings: Settings,
    /// Images.
    pub photos: Vec<Photo>,
    /// They, Caffe units.
    pub originals: Tensor,
    /// Reconstructions, Caffe units.
    pub reconstructions: Tensor,
    /// Seconds.
    pub seconds: f64,
}

/// Whether a folder holds a record, by the content of its `mv.json`.
fn is_record(path: &Path) -> bool {
    let read = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).ok();
    let value = files::read(&path.join(FILE)).ok();
    value
        .and_then(|text| read(&text))
        .is_some_and(|value| value["format"] == "deepsim-mv")
}

/// Whether a record may be written to `out`, to be asked before it is made: nothing is there, or with `fresh` another
/// record, and the folder can be written to.
///
/// # Errors
/// [`EvalError::Exists`]; a folder that cannot be written to.
pub fn check(out: &Path, fresh: bool) -> Result<()> {
    if std::fs::symlink_metadata(out).is_ok() && !(fresh && is_record(out)) {
        return Err(EvalError::Exists {
            path: out.to_owned(),
        });
    }
    beside(out, fresh).map(drop)
}

/// An empty folder on the disk of `out`: in it, where it is replaced.
fn beside(out: &Path, fresh: bool) -> Result<TempDir> {
    let parent = out
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let folder = if fresh && out.is_dir() { out } else { parent };
    std::fs::create_dir_all(folder).map_err(ExperimentError::io(folder))?;
    let made = tempfile::Builder::new()
        .prefix(".partial-mv-")
        // The umask decides, as of any other folder.
        .permissions(PermissionsExt::from_mode(0o777))
        .tempdir_in(folder);
    Ok(made.map_err(ExperimentError::io(folder))?)
}

/// Writes a record to `out`: whole or not at all. With `fresh` the files of another record are replaced, and nothing else
/// that is there is touched. What came to `out` since [`check`] stays: the record is kept beside it then.
///
/// # Errors
/// Files that cannot be written; [`EvalError::Kept`].
pub fn write(out: &Path, made: &Made<'_>, fresh: bool) -> Result<()> {
    let beside = beside(out, fresh)?;
    let mut sheet = Sheet::new(&format!("Mahendran & Vedaldi, {}", made.experiment.encoder));
    let shown = deepsim_data::spread(SHOWN, made.photos.len());
    let few = |x: &Tensor| -> Result<_> { images(&picked(x, &shown)?) };
    let names = shown.iter().map(|&i| &made.photos[i]);
    sheet.columns = names.map(|p| short_name(&p.name)).collect();
    sheet.row("photo", few(&made.originals)?);
    sheet.row("M&V", few(&made.reconstructions)?);
    let mut files = BTreeMap::new();
    for (name, bytes) in [
        (TOML, made.experiment.to_toml()?.into_bytes()),
        (
            TENSORS,
            output::safetensors("x", &caffe_to_rgb(&made.reconstructions)?)?,
        ),
        (PICTURE, sheet.png()?),
    ] {
        output::write(&beside.path().join(name), &bytes)?;
        files.insert(name.to_owned(), blake3::hash(&bytes).to_hex().to_string());
    }
    let manifest = Manifest {
        format: "deepsim-mv".to_owned(),
        version: 1,
        encoder: made.experiment.encoder.to_string(),
        encoder_weights: made.perception.encoder_hash.clone(),
        test_data: made.data.digest(),
        settings: made.settings.clone(),
        photos: made.photos.clone(),
        files,
        seconds: made.seconds,
    };
    let json =
        serde_json::to_string_pretty(&manifest).map_err(|e| EvalError::Format(e.to_string()))?;
    output::write(&beside.path().join(FILE), (json + "\n").as_bytes())?;
    publish(beside, out, fresh)
}

/// Gives a finished folder its place: nobody's, or with `fresh` that of another record.
fn publish(beside: TempDir, out: &Path, fresh: bool) -> Result<()> {
    let is_free = std::fs::symlink_metadata(out).is_err();
    let done = if is_free {
        rename_new(beside.path(), out)
    } else if fresh && is_record(out) {
        replace(beside.path(), out)
    } else {
        Err(std::io::ErrorKind::AlreadyExists.into())
    };
    match done {
        Ok(()) if is_free => {
            // It has its name now, and goes with nobody.
            let _ = beside.keep();
            Ok(())
        }
        Ok(()) => Ok(()),
        Err(e) => Err(EvalError::Kept {
            path: out.to_owned(),
            reason: e.to_string(),
            kept: beside.keep(),
        }),
    }
}

/// Renames a folder to a name that nobody has, on file systems that can tell.
fn rename_new(from: &Path, to: &Path) -> std::io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => std::fs::rename(from, to),
        other => Ok(other?),
    }
}

/// Moves the files of a record into a folder that has those of another: without `mv.json`, the last, it is none.
fn replace(beside: &Path, out: &Path) -> std::io::Result<()> {
    let record = out.join(FILE);
    match std::fs::remove_file(&record) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    for name in [TOML, TENSORS, PICTURE, FILE] {
        std::fs::rename(beside.join(name), out.join(name))?;
    }
    Ok(())
}

/// A record, opened and verified.
#[derive(Debug)]
pub struct Record {
    /// Its folder.
    pub path: PathBuf,
    /// `mv.json`.
    pub manifest: Manifest,
    /// `mv.toml`.
    pub experiment: Experiment,
}

impl Record {
    /// Opens a record.
    ///
    /// # Errors
    /// Files that are missing, damaged, or of another version.
    pub fn open(path: &Path) -> Result<Record> {
        let file = path.join(FILE);
        let bad = |reason: String| EvalError::Record {
            path: file.clone(),
            reason,
        };
        let text = files::read(&file).map_err(ExperimentError::io(&file))?;
        let value: serde_json::Value =
            serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        if (&value["format"], &value["version"]) != (&"deepsim-mv".into(), &1.into()) {
            return Err(bad(format!(
                "is format {} version {}, this program reads \"deepsim-mv\" version 1",
                value["format"], value["version"]
            )));
        }
        let manifest: Manifest = serde_json::from_value(value).map_err(|e| bad(e.to_string()))?;
        for name in [TOML, TENSORS] {
            let is = deepsim_experiment::hash::hash_file(&path.join(name))?;
            if manifest.files.get(name) != Some(&is) {
                return Err(bad(format!("{name} is not the file that it was made with")));
            }
        }
        let experiment = Experiment::load(&path.join(TOML), &[])?;
        Ok(Record {
            path: path.to_owned(),
            manifest,
            experiment,
        })
    }

    /// The held-out images, checked to be those of the record.
    ///
    /// # Errors
    /// Missing or changed images.
    pub fn test_data(&self) -> Result<Dataset> {
        let data = Dataset::open_and_tell(&self.experiment.config.data.test)?;
        let then = &self.manifest.test_data;
        same(&self.path, "data.test", then, &data.digest())?;
        Ok(data)
    }

    /// The encoder, checked to be the record's.
    ///
    /// # Errors
    /// Missing or changed weights; a TorchScript module without consent.
    pub fn perception(&self, consent: &Consent, device: Device) -> Result<Perception> {
        let permit = consent.on_record(&self.path, &self.manifest.encoder_weights);
        let perception = Perception::encoder_alone(&self.experiment, &permit, device)?;
        let then = &self.manifest.encoder_weights;
        same(
            &self.path,
            "encoder.weights",
            then,
            &perception.encoder_hash,
        )?;
        Ok(perception)
    }

    /// The images to measure it on: those that any run is measured on ([`measure::chosen`]) where it has
    /// reconstructions of them all, else its own, at most `limit` of them.
    ///
    /// # Errors
    /// As [`Record::test_data`].
    pub fn held_out(&self, limit: usize, device: Device) -> Result<HeldOutImages> {
        let data = self.test_data()?;
        let mut own: Vec<usize> = self.manifest.photos.iter().map(|p| p.index).collect();
        own.sort_unstable();
        let chosen = measure::chosen(&data, limit);
        let has_all = chosen.iter().all(|i| own.binary_search(i).is_ok());
        Ok(HeldOutImages {
            chosen: if has_all { chosen } else { some(&own, limit) },
            data,
            augment: self.experiment.augment(),
            device,
        })
    }

    /// Reconstructions of images of the dataset, of all of [`Record::reconstructions`].
    ///
    /// # Errors
    /// An image that the record has none of.
    pub fn of(&self, reconstructions: &Tensor, indices: &[usize]) -> Result<Tensor> {
        let photos = &self.manifest.photos;
        let place = |&index: &usize| {
            let found = photos.iter().position(|p| p.index == index);
            found.ok_or_else(|| EvalError::Record {
                path: self.path.join(FILE),
                reason: format!("has no reconstruction of image {index}"),
            })
        };
        let places: Vec<usize> = indices.iter().map(place).collect::<Result<_>>()?;
        picked(reconstructions, &places)
    }

    /// The reconstructions, `[N,3,S,S]` in Caffe units, not clipped.
    ///
    /// # Errors
    /// A file of another shape than the record says.
    pub fn reconstructions(&self, device: Device) -> Result<Tensor> {
        let file = self.path.join(TENSORS);
        let found = read_safetensors(&file)?;
        let side = i64::from(self.experiment.config.data.crop);
        let shape = [self.manifest.photos.len() as i64, 3, side, side];
        match found.get("x") {
            Some(x) if x.size() == shape => Ok(rgb_to_caffe(&x.f_to_device(device)?)?),
            other => Err(EvalError::Record {
                path: file,
                reason: format!(
                    "should have `x` {shape:?}, has {:?}",
                    other.map(Tensor::size)
                ),
            }),
        }
    }
}

/// Folders of records below `parent` (or `parent` itself), sorted by name.
///
/// # Errors
/// A folder that cannot be read.
pub fn find(parent: &Path) -> Result<Vec<PathBuf>> {
    if parent.join(FILE).exists() {
        return Ok(vec![parent.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(parent).map_err(ExperimentError::io(parent))? {
        let path = entry.map_err(ExperimentError::io(parent))?.path();
        if path.join(FILE).exists() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_to_its_place_meanwhile_stays_and_the_result_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("mv");
        check(&out, false).unwrap();
        let finished = || {
            let beside = beside(&out, true).unwrap();
            for name in [TOML, TENSORS, PICTURE] {
                std::fs::write(beside.path().join(name), "new").unwrap();
            }
            let json = "{\"format\": \"deepsim-mv\"}";
            std::fs::write(beside.path().join(FILE), json).unwrap();
            beside
        };
        let made = finished();
        std::fs::create_dir(&out).unwrap();
        std::fs::write(out.join("theirs"), "theirs").unwrap();
        for fresh in [false, true] {
            assert!(matches!(check(&out, fresh), Err(EvalError::Exists { .. })));
        }
        let Err(EvalError::Kept { kept, .. }) = publish(made, &out, true) else {
            panic!("published over another's folder");
        };
        assert!(is_record(&kept));
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1);

        std::fs::remove_dir_all(&out).unwrap();
        publish(finished(), &out, false).unwrap();
        assert!(is_record(&out));
        std::fs::write(out.join("notes"), "mine").unwrap();
        let again = publish(finished(), &out, false);
        assert!(matches!(again, Err(EvalError::Kept { .. })));
        check(&out, true).unwrap();
        publish(finished(), &out, true).unwrap();
        assert!(out.join("notes").exists());
    }
}

//! Checkpoints: visible only when whole, verified when read.
//!
//! A checkpoint is a directory `checkpoints/step-000001000/` with `generator.safetensors`,
//! `discriminator.safetensors` (where one trains), `state.safetensors` and `manifest.json`. It is written beside
//! (`checkpoints/.partial-…`), every file is synced, the manifest with the hash and size of each
//! comes last, and one rename makes it visible. Where a checkpoint of the same step is there already, the two exchange
//! their names. What is removed is told by its name and by what is in it; whatever else lies in the folder stays.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use deepsim_data::terminal::path as shown;
use deepsim_nets::params::{NamedTensors, f32_bytes, parse_safetensors};
use deepsim_nets::{Discriminator, DiscriminatorSpec, Generator, GeneratorSpec};
use safetensors::tensor::{Dtype, TensorView};
use tch::{Device, Tensor};

use crate::error::{ExperimentError, Result};
use crate::{files, folder};

mod listing;
mod manifest;

pub use listing::{directory_name, steps, strange};
pub(crate) use listing::{is_visible, step_of};
pub(crate) use manifest::by_section;
pub use manifest::{FORMAT, FileEntry, Manifest};

/// Stem of the file in a checkpoint that holds an encoder that learned.
pub const ENCODER_FILE: &str = "encoder";
/// Stem of the checkpoint's file that holds a `recorded::Scale`.
pub const SCALE_FILE: &str = "features";
/// Stem of the file that holds the averages of the generator's weights, where the experiment has `[ema]`.
pub const AVERAGED_GENERATOR_FILE: &str = "generator-ema";
/// The same of an encoder that learned.
pub const AVERAGED_ENCODER_FILE: &str = "encoder-ema";
const GENERATOR_FILE: &str = "generator";
const MANIFEST: &str = "manifest.json";
/// Stems of the files of tensors that a checkpoint may have.
const STEMS: [&str; 7] = [
    GENERATOR_FILE,
    "discriminator",
    "state",
    ENCODER_FILE,
    SCALE_FILE,
    AVERAGED_GENERATOR_FILE,
    AVERAGED_ENCODER_FILE,
];

/// Which weights of generator and encoder are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModelWeights {
    /// Their averages, where the checkpoint keeps some (`[ema]`).
    #[default]
    Averaged,
    /// Those that train.
    Raw,
}

impl ModelWeights {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            ModelWeights::Averaged => "averaged, where there are averages",
            ModelWeights::Raw => "raw",
        }
    }
}

impl Manifest {
    /// Of networks of which nothing more is told yet.
    pub fn of(generator: GeneratorSpec, discriminator: Option<DiscriminatorSpec>) -> Manifest {
        Manifest {
            format: FORMAT,
            step: 0,
            seconds: 0.0,
            generator,
            discriminator,
            encoder_weights: String::new(),
            comparator_weights: String::new(),
            comparators: BTreeMap::new(),
            train_data: String::new(),
            test_data: String::new(),
            initial: BTreeMap::new(),
            framing: None,
            held_out_overlap: None,
            versions: BTreeMap::new(),
            experiment: None,
            files: BTreeMap::new(),
            digest: None,
        }
    }
}

/// What goes into a checkpoint besides the manifest: tensors of each file, and counters
/// (stored as I64 scalars in `state.safetensors`).
#[derive(Debug, Default)]
pub struct Snapshot {
    /// File stem (`generator`) → its tensors.
    pub files: BTreeMap<&'static str, Vec<(String, Tensor)>>,
    /// Integers of the state.
    pub counters: BTreeMap<String, i64>,
}

/// A checkpoint on disk whose files all match its manifest. They stay open: what was verified is what is read, whatever
/// becomes of the directory meanwhile (a run that is training removes its older checkpoints).
#[derive(Debug)]
pub struct Checkpoint {
    /// Its directory.
    pub path: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    files: BTreeMap<String, File>,
}

/// The moments of a commit, in order, and of the removal of an older checkpoint. At each of them a test
/// ends the process by `DEEPSIM_CRASH_POINT=NAME@STEP` and shows that nothing is lost.
pub const CRASH_POINTS: [&str; 9] = [
    "staged",
    "file-written",
    "files-written",
    "manifest-written",
    "staging-synced",
    "mode-set",
    "renamed",
    "parent-synced",
    "older-hidden",
];

/// Ends the process, as a power cut would, if this moment was asked for.
fn crash_point(name: &str, step: u64) {
    let asked = std::env::var("DEEPSIM_CRASH_POINT");
    if asked.is_ok_and(|asked| asked == format!("{name}@{step}")) {
        std::process::abort();
    }
}

/// Writes a checkpoint below `parent` and returns its directory. A complete checkpoint of the
/// same step is replaced.
///
/// # Errors
/// Anything that cannot be written: earlier checkpoints are untouched then.
pub fn write(parent: &Path, mut manifest: Manifest, snapshot: &Snapshot) -> Result<PathBuf> {
    fs::create_dir_all(parent).map_err(ExperimentError::io(parent))?;
    let name = directory_name(manifest.step);
    let staging = tempfile::Builder::new()
        .prefix(&format!(".partial-{name}-"))
        .tempdir_in(parent)
        .map_err(ExperimentError::io(parent))?;
    let step = manifest.step;
    crash_point("staged", step);
    for (stem, tensors) in &snapshot.files {
        let counters = if *stem == "state" {
            Some(&snapshot.counters)
        } else {
            None
        };
        let bytes = serialise(tensors, counters, staging.path())?;
        let file = format!("{stem}.safetensors");
        write_synced(&staging.path().join(&file), &bytes)?;
        let entry = FileEntry {
            bytes: bytes.len() as u64,
            blake3: blake3::hash(&bytes).to_hex().to_string(),
        };
        manifest.files.insert(file, entry);
        crash_point("file-written", step);
    }
    crash_point("files-written", step);
    let json = manifest.sealed().map_err(|e| ExperimentError::Checkpoint {
        path: staging.path().to_owned(),
        reason: e.to_string(),
    })?;
    write_synced(&staging.path().join("manifest.json"), &json)?;
    crash_point("manifest-written", step);
    sync_dir(staging.path())?;
    crash_point("staging-synced", step);
    // A temporary directory is private; the checkpoint gets its parent's mode (the umask's).
    let mode = fs::metadata(parent)
        .map_err(ExperimentError::io(parent))?
        .permissions();
    fs::set_permissions(staging.path(), mode).map_err(ExperimentError::io(staging.path()))?;
    crash_point("mode-set", step);
    let target = parent.join(&name);
    let staged = staging.keep();
    let replaced = fs::symlink_metadata(&target).is_ok();
    if replaced {
        exchange(&staged, &target)?;
    } else {
        fs::rename(&staged, &target).map_err(ExperimentError::io(&target))?;
    }
    crash_point("renamed", step);
    sync_dir(parent)?;
    crash_point("parent-synced", step);
    if replaced {
        if is_ours(&staged) {
            discard(&staged)?;
        } else {
            let kept = set_aside(&staged, &name)?;
            tracing::warn!(
                "{}: what had a checkpoint's name and is none is kept as {}",
                shown(&target),
                shown(kept)
            );
        }
    }
    Ok(target)
}

/// Gives what is not ours a name that is nobody's.
pub(crate) fn set_aside(path: &Path, name: &str) -> Result<PathBuf> {
    let mut kept = path.with_file_name(format!("kept-{name}"));
    let mut n = 1;
    while fs::symlink_metadata(&kept).is_ok() {
        n += 1;
        kept = path.with_file_name(format!("kept-{name}-{n}"));
    }
    fs::rename(path, &kept).map_err(ExperimentError::io(path))?;
    Ok(kept)
}

/// Whether a directory is a checkpoint that this program wrote, visible or hidden, whole or not: told by its name and
/// by all that is in it.
pub(crate) fn is_ours(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let visible = step_of(&name).is_some();
    let hidden = name
        .strip_prefix(".partial-step-")
        .and_then(|rest| rest.split_once('-'))
        .is_some_and(|(digits, _)| digits.len() >= 9 && digits.parse::<u64>().is_ok());
    let Ok(inside) = folder::names(path) else {
        return false;
    };
    let known = |name: &String| {
        name == MANIFEST
            || name
                .strip_suffix(".safetensors")
                .is_some_and(|stem| STEMS.contains(&stem))
    };
    if !(visible || hidden) || !path.is_dir() || !inside.iter().all(known) {
        return false;
    }
    match files::read(&path.join(MANIFEST)) {
        Ok(text) => match serde_json::from_slice::<serde_json::Value>(&text) {
            Ok(value) => ["format", "step", "generator"]
                .iter()
                .all(|k| value.get(k).is_some()),
            // Damaged: the files beside it say whose it is.
            Err(_) => inside.len() > 1,
        },
        // The manifest is written last.
        Err(_) => hidden,
    }
}

/// Removes a checkpoint's files, and its directory if nothing else is in it; of a link the link alone.
pub(crate) fn discard(path: &Path) -> Result<()> {
    if path.is_symlink() {
        return fs::remove_file(path).map_err(ExperimentError::io(path));
    }
    for stem in STEMS {
        let file = path.join(format!("{stem}.safetensors"));
        match fs::remove_file(&file) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(ExperimentError::io(&file)(e)),
            _ => {}
        }
    }
    let manifest = path.join(MANIFEST);
    match fs::remove_file(&manifest) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(ExperimentError::io(&manifest)(e)),
        _ => {}
    }
    fs::remove_dir(path).map_err(ExperimentError::io(path))
}

/// Puts a checkpoint in another one's place, which comes to lie in its own: one of the two is visible at any moment.
/// (A file system that cannot exchange names shows neither for the moment between two renames.)
fn exchange(staged: &Path, target: &Path) -> Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, staged, CWD, target, RenameFlags::EXCHANGE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            let old = staged.with_extension("replaced");
            fs::rename(target, &old).map_err(ExperimentError::io(target))?;
            fs::rename(staged, target).map_err(ExperimentError::io(target))?;
            fs::rename(&old, staged).map_err(ExperimentError::io(&old))
        }
        done => done.map_err(|e| ExperimentError::io(target)(e.into())),
    }
}

/// Removes a checkpoint: hidden by one rename first, so that what is visible stays whole even if
/// the process is killed on the way.
///
/// # Errors
/// A directory that cannot be renamed or removed.
pub fn remove(path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with(".partial-") {
        return discard(path);
    }
    let hidden = path.with_file_name(format!(".partial-{name}-removed"));
    if fs::symlink_metadata(&hidden).is_ok() {
        discard(&hidden)?;
    }
    fs::rename(path, &hidden).map_err(ExperimentError::io(path))?;
    if let Some(step) = step_of(&name) {
        crash_point("older-hidden", step);
    }
    discard(&hidden)
}

fn serialise(
    tensors: &[(String, Tensor)],
    counters: Option<&BTreeMap<String, i64>>,
    at: &Path,
) -> Result<Vec<u8>> {
    let bad = |e: safetensors::SafeTensorError| ExperimentError::Checkpoint {
        path: at.to_owned(),
        reason: e.to_string(),
    };
    let mut data: Vec<(String, Vec<usize>, Dtype, Vec<u8>)> = Vec::new();
    for (name, tensor) in tensors {
        let shape = tensor
            .size()
            .iter()
            .map(|&d| usize::try_from(d).unwrap_or(0))
            .collect();
        data.push((name.clone(), shape, Dtype::F32, f32_bytes(tensor)?));
    }
    for (name, value) in counters.into_iter().flatten() {
        data.push((
            name.clone(),
            vec![1],
            Dtype::I64,
            value.to_le_bytes().to_vec(),
        ));
    }
    let mut views = Vec::with_capacity(data.len());
    for (name, shape, dtype, bytes) in &data {
        views.push((
            name.as_str(),
            TensorView::new(*dtype, shape.clone(), bytes).map_err(bad)?,
        ));
    }
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(about)).map_err(bad)
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).map_err(ExperimentError::io(path))?;
    file.write_all(bytes).map_err(ExperimentError::io(path))?;
    file.sync_all().map_err(ExperimentError::io(path))
}

/// Syncs a directory, so that a rename in it survives a power loss.
///
/// # Errors
/// A directory that cannot be opened.
pub fn sync_dir(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|d| d.sync_all())
        .map_err(ExperimentError::io(path))
}

impl Checkpoint {
    /// Opens a checkpoint and verifies every file against the manifest.
    ///
    /// # Errors
    /// [`ExperimentError::Checkpoint`] naming the damaged file.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        let bad = |reason: String| ExperimentError::Checkpoint {
            path: path.to_owned(),
            reason,
        };
        let file = path.join("manifest.json");
        let text = files::read(&file).map_err(ExperimentError::io(&file))?;
        let manifest = Manifest::parse(&text).map_err(|e| bad(format!("manifest.json: {e}")))?;
        let mut files = BTreeMap::new();
        for (name, entry) in &manifest.files {
            if name.contains('/') || name.contains("..") {
                return Err(bad(format!("manifest.json names a file elsewhere: {name}")));
            }
            let at = path.join(name);
            let file = files::open(&at).map_err(ExperimentError::io(&at))?;
            let bytes = file.metadata().map_err(ExperimentError::io(&at))?.len();
            if bytes != entry.bytes {
                return Err(bad(format!(
                    "{name} has {bytes} bytes, the manifest says {}",
                    entry.bytes
                )));
            }
            if crate::hash::hash_open(&file, &at)? != entry.blake3 {
                return Err(bad(format!(
                    "{name} is damaged: its blake3 is not the manifest's"
                )));
            }
            files.insert(name.clone(), file);
        }
        Ok(Checkpoint {
            path: path.to_owned(),
            manifest,
            files,
        })
    }

    /// The newest checkpoint below `parent` that verifies; damaged newer ones, and what only looks like a checkpoint,
    /// are told on the log and passed over.
    ///
    /// # Errors
    /// Checkpoints are there but none verifies.
    pub fn newest(parent: &Path) -> Result<Option<Checkpoint>> {
        for name in strange(parent)? {
            tracing::warn!("passed over: {}/{name}", shown(parent));
        }
        let mut damaged = Vec::new();
        // Its run may write newer ones and remove older ones meanwhile: each is tried once.
        let mut tried = BTreeSet::new();
        while let Some(step) = steps(parent)?
            .into_iter()
            .rev()
            .find(|step| !tried.contains(step))
        {
            tried.insert(step);
            let path = parent.join(directory_name(step));
            match Checkpoint::open(&path) {
                Ok(checkpoint) => {
                    for error in damaged {
                        tracing::warn!("passed over: {error}");
                    }
                    return Ok(Some(checkpoint));
                }
                Err(_) if fs::symlink_metadata(&path).is_err() => {}
                Err(error) => damaged.push(error.to_string()),
            }
        }
        if damaged.is_empty() {
            return Ok(None);
        }
        Err(ExperimentError::NoWholeCheckpoint {
            path: parent.to_owned(),
            damaged,
        })
    }

    /// Stem of the file that holds these weights of a network, which is called as the file of its raw weights.
    pub fn stem(&self, network: &'static str, weights: ModelWeights) -> &'static str {
        let averaged = match (weights, network) {
            (ModelWeights::Averaged, GENERATOR_FILE) => AVERAGED_GENERATOR_FILE,
            (ModelWeights::Averaged, ENCODER_FILE) => AVERAGED_ENCODER_FILE,
            _ => return network,
        };
        let there = &self.manifest.files;
        if there.contains_key(&format!("{averaged}.safetensors")) {
            averaged
        } else {
            network
        }
    }

    /// Tensors of one file (`generator`), f32.
    ///
    /// # Errors
    /// A missing or damaged file.
    pub fn tensors(&self, stem: &str) -> Result<NamedTensors> {
        let (path, bytes) = self.bytes(stem)?;
        Ok(parse_safetensors(&bytes, &path)?)
    }

    /// Path and content of a file of tensors, as it was verified.
    fn bytes(&self, stem: &str) -> Result<(PathBuf, Vec<u8>)> {
        let name = format!("{stem}.safetensors");
        let path = self.path.join(&name);
        let (Some(file), Some(entry)) = (self.files.get(&name), self.manifest.files.get(&name))
        else {
            return Err(ExperimentError::Checkpoint {
                path: self.path.clone(),
                reason: format!("manifest.json names no {name}"),
            });
        };
        let mut bytes = vec![0; usize::try_from(entry.bytes).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, 0)
            .map_err(ExperimentError::io(&path))?;
        Ok((path, bytes))
    }

    /// Moments and counters of `state.safetensors`.
    ///
    /// # Errors
    /// A missing or damaged file.
    pub fn state(&self) -> Result<(NamedTensors, BTreeMap<String, i64>)> {
        let (path, bytes) = self.bytes("state")?;
        let bad = |reason: String| ExperimentError::Checkpoint {
            path: path.clone(),
            reason,
        };
        let file = safetensors::SafeTensors::deserialize(&bytes).map_err(|e| bad(e.to_string()))?;
        let (mut tensors, mut counters) = (NamedTensors::new(), BTreeMap::new());
        for (name, view) in file.tensors() {
            match (view.dtype(), view.data().len()) {
                (Dtype::I64, 8) => {
                    let mut word = [0; 8];
                    word.copy_from_slice(view.data());
                    counters.insert(name, i64::from_le_bytes(word));
                }
                (Dtype::F32, _) => {
                    let shape: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
                    tensors.insert(
                        name,
                        Tensor::f_from_data_size(view.data(), &shape, tch::Kind::Float)?,
                    );
                }
                (other, _) => return Err(bad(format!("{name} has the unexpected type {other:?}"))),
            }
        }
        Ok((tensors, counters))
    }

    /// The generator, rebuilt from the spec in the manifest, with averaged weights where there are some.
    ///
    /// # Errors
    /// Weights that are not the spec's.
    pub fn generator(&self, device: Device) -> Result<Generator> {
        self.generator_of(ModelWeights::Averaged, device)
    }

    /// The same with the weights that are asked for.
    ///
    /// # Errors
    /// Weights that are not the spec's.
    pub fn generator_of(&self, weights: ModelWeights, device: Device) -> Result<Generator> {
        let spec = self.manifest.generator.clone();
        let stem = self.stem(GENERATOR_FILE, weights);
        let values = self.tensors(stem)?;
        let origin = self.path.join(format!("{stem}.safetensors"));
        let origin = shown(origin);
        Ok(Generator::from_values(
            spec,
            &values,
            "the generator",
            &origin,
            device,
        )?)
    }

    /// The discriminator, rebuilt from the spec in the manifest.
    ///
    /// # Errors
    /// Weights that are not the spec's.
    pub fn discriminator(&self, device: Device) -> Result<Discriminator> {
        let spec = self.manifest.discriminator.clone();
        let spec = spec.ok_or_else(|| ExperimentError::NoDiscriminator {
            path: self.path.clone(),
        })?;
        let values = self.tensors("discriminator")?;
        let origin = shown(&self.path);
        Ok(Discriminator::from_values(
            spec,
            &values,
            "the discriminator",
            &origin,
            device,
        )?)
    }
}

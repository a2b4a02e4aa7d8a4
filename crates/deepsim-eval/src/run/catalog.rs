//! What runs there are, and which question of the paper each one answers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use deepsim_data::terminal::{self, one_line, path as shown};
use deepsim_experiment::config;
use deepsim_experiment::run_dir::{self, find_runs};
use deepsim_experiment::source::Source;
use deepsim_experiment::{Checkpoint, Consent, Experiment, suggest};
use deepsim_nets::loss::TermKind;
use deepsim_nets::{NetKind, Tap, Trunk};

use crate::analysis::mv;
use crate::error::{EvalError, Result};

/// Which terms a run's loss has (the panels of the paper's Fig. 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Image alone.
    Image,
    /// Adversarial and image.
    AdversarialImage,
    /// Feature and image.
    FeatureImage,
    /// All three.
    Full,
    /// Feature and adversarial.
    FeatureAdversarial,
    /// Feature alone.
    Feature,
    /// Adversarial alone.
    Adversarial,
}

impl Loss {
    /// Of an experiment.
    pub fn of(experiment: &Experiment) -> Loss {
        let loss = experiment.config.heaviest_loss();
        let has = |kind| loss.weight(kind) > 0.0;
        let main = [TermKind::Feature, TermKind::Adversarial, TermKind::Image];
        let [feature, adversarial, image] = main.map(has);
        match (feature, adversarial, image) {
            (false, false, _) => Loss::Image,
            (false, true, true) => Loss::AdversarialImage,
            (true, false, true) => Loss::FeatureImage,
            (true, true, true) => Loss::Full,
            (true, true, false) => Loss::FeatureAdversarial,
            (true, false, false) => Loss::Feature,
            (false, true, false) => Loss::Adversarial,
        }
    }

    /// Words for labels.
    pub fn words(self) -> &'static str {
        match self {
            Loss::Image => "image loss only",
            Loss::AdversarialImage => "adversarial + image",
            Loss::FeatureImage => "feature + image",
            Loss::Full => "full: feature + adversarial + image",
            Loss::FeatureAdversarial => "feature + adversarial (no image loss)",
            Loss::Feature => "feature loss only",
            Loss::Adversarial => "adversarial loss only",
        }
    }

    /// The method's name in Table 2: `db` is the image loss alone with the generator of Dosovitskiy &
    /// Brox, CVPR 2016.
    /// `deepsim` is every inversion by feature and adversarial terms, whatever distances and adversary they have.
    pub fn method(self, experiment: &Experiment) -> &'static str {
        match self {
            Loss::Full | Loss::FeatureAdversarial if inverts_features(experiment) => "deepsim",
            _ if !inverts(experiment) => "other",
            Loss::Image if matches!(experiment.generator.trunk, Trunk::Db { .. }) => "db",
            Loss::Image => "image-loss",
            _ => "other",
        }
    }
}

/// `conv5`, `fc6`, `fc7`, `fc8` of CaffeNet as the paper calls them, else `NET:TAP`.
pub fn layer_name(source: &Source) -> String {
    match source.network().map(|n| (n.net, n.tap)) {
        Some((NetKind::CaffeNet, Tap::Pool5)) => "conv5".to_owned(),
        Some((NetKind::CaffeNet, Tap::Relu6)) => "fc6".to_owned(),
        Some((NetKind::CaffeNet, Tap::Relu7)) => "fc7".to_owned(),
        Some((NetKind::CaffeNet, Tap::Fc8)) => "fc8".to_owned(),
        _ => source.to_string(),
    }
}

/// Whether an experiment inverts features, by whatever terms: no autoencoder, and no super-resolution.
pub fn inverts_features(experiment: &Experiment) -> bool {
    experiment.config.latent.is_none() && !matches!(experiment.encoder, Source::Downsampled(_))
}

/// Whether an experiment inverts features by the paper's terms: autoencoders, super-resolution and other
/// image losses have figures and tables of their own.
pub fn inverts(experiment: &Experiment) -> bool {
    let config = &experiment.config;
    let loss = config.heaviest_loss();
    let paper_s = loss.weight(TermKind::Image) == 0.0 || config.pixels == config::Pixels::default();
    inverts_features(experiment) && paper_s && loss.weight(TermKind::TotalVariation) == 0.0
}

/// What an experiment decodes: [`layer_name`], and for an autoencoder the length of its codes.
pub fn decoded_name(experiment: &Experiment) -> String {
    let layer = layer_name(&experiment.encoder);
    match experiment.config.latent {
        Some(latent) => format!("{layer}>{}", latent.size),
        None => layer,
    }
}

/// `NET:TAP`, and whether its weights are random.
pub fn net_name(source: &Source) -> String {
    if source.learned() {
        source.to_string()
    } else {
        format!("{source} (random weights)")
    }
}

/// Where an entry's images come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A trained generator, at this step.
    Generator(u64),
    /// A record of Mahendran & Vedaldi's method.
    MahendranVedaldi,
}

/// A run or record.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its folder.
    pub path: PathBuf,
    /// Its experiment.
    pub experiment: Experiment,
    /// What made its images.
    pub origin: Origin,
    /// Images that a record has reconstructions of; 0 of a run, which makes them of any.
    pub reconstructions: usize,
}

impl Entry {
    /// What must be equal for images to stand on one sheet: original images and crops.
    pub fn photos_key(&self) -> String {
        let d = &self.experiment.config.data;
        format!("{:?} {} {:?}", d.test, d.crop, d.scale)
    }

    /// And for losses to be compared: what is inverted.
    pub fn encoder_key(&self) -> String {
        let config = &self.experiment.config;
        format!(
            "{} {:?} {:?}",
            self.photos_key(),
            config.encoder,
            config.latent
        )
    }

    /// The method's name in Table 2.
    pub fn method(&self) -> &'static str {
        self.loss()
            .map_or("mv", |loss| loss.method(&self.experiment))
    }

    /// The loss of a trained run.
    pub fn loss(&self) -> Option<Loss> {
        match self.origin {
            Origin::Generator(_) => Some(Loss::of(&self.experiment)),
            Origin::MahendranVedaldi => None,
        }
    }
}

/// All runs with a checkpoint and all records below a folder (or the one that it is).
///
/// # Errors
/// A folder that cannot be read. What is in it and cannot be read is told through `warn`.
pub fn read(parent: &Path, mut warn: impl FnMut(String)) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for path in find_runs(parent)? {
        match run_dir::read(&path) {
            Ok((experiment, checkpoint)) => entries.push(Entry {
                experiment,
                origin: Origin::Generator(checkpoint.manifest.step),
                reconstructions: 0,
                path,
            }),
            Err(error) => warn(format!("{} left out: {error}", shown(path))),
        }
    }
    for path in mv::find(parent)? {
        match mv::Record::open(&path) {
            Ok(record) => entries.push(Entry {
                reconstructions: record.manifest.photos.len(),
                experiment: record.experiment,
                origin: Origin::MahendranVedaldi,
                path,
            }),
            Err(error) => warn(format!("{} left out: {error}", shown(path))),
        }
    }
    Ok(entries)
}

/// Those of the entries whose TorchScript modules may be run, and those without any. The others are told through `warn`.
pub fn allowed(entries: Vec<Entry>, consent: &Consent, mut warn: impl FnMut(String)) -> Vec<Entry> {
    let mut kept = Vec::new();
    for entry in entries {
        match check_permission(&entry, consent) {
            Ok(()) => kept.push(entry),
            Err(error) => warn(format!("{} left out: {error}", shown(&entry.path))),
        }
    }
    kept
}

fn check_permission(entry: &Entry, consent: &Consent) -> Result<()> {
    let e = &entry.experiment;
    if !e.needs_consent() {
        return Ok(());
    }
    let scripts = e.scripts();
    match entry.origin {
        Origin::Generator(_) => {
            if let Some(newest) = Checkpoint::newest(&entry.path.join("checkpoints"))? {
                let permit = consent.on_run(&entry.path, &newest.manifest);
                permit.modules(&scripts)?;
            }
        }
        Origin::MahendranVedaldi => {
            let record = mv::Record::open(&entry.path)?;
            let permit = consent.on_record(&entry.path, &record.manifest.encoder_weights);
            permit.modules(&scripts[..1])?;
        }
    }
    Ok(())
}

/// The entry that stands for several of a kind: the longest trained, or the record of most images; of equals the one with the
/// shortest name (variants append to it), then the first by name.
pub fn best<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Option<&'a Entry> {
    entries.into_iter().min_by_key(|e| {
        let steps = match e.origin {
            Origin::Generator(step) => step,
            Origin::MahendranVedaldi => 0,
        };
        let name = name(&e.path);
        let most = std::cmp::Reverse((steps, e.reconstructions));
        (most, name.len(), name)
    })
}

/// Experiment files below a folder that can be read, sorted by path: what could be trained.
pub fn experiments(folder: &Path) -> Vec<Experiment> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() && depth < 3 {
                folders.push((path, depth + 1));
            } else if path.extension().is_some_and(|e| e == "toml")
                && let Ok(experiment) = Experiment::load(&path, &[])
            {
                found.push(experiment);
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Runs that an error lists.
const LISTED: usize = 12;

/// Fails where a run was named that is not there, and says which there are.
///
/// # Errors
/// A folder without an experiment.
pub fn check(path: &Path) -> Result<()> {
    // A run whose experiment file is gone is told as that when it is read.
    if path.join("experiment.toml").exists() || path.join("checkpoints").is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let mut there: Vec<String> = find_runs(parent)
        .unwrap_or_default()
        .iter()
        .map(name)
        .collect();
    let folder = terminal::path(parent);
    let name = name(path);
    if let Some(at) = suggest::closest(&name, there.iter().map(String::as_str)) {
        let likely = at.to_owned();
        there.retain(|other| *other != likely);
        there.insert(0, likely);
    }
    let more = there.len().saturating_sub(LISTED);
    there.truncate(LISTED);
    let there = match (there.is_empty(), more) {
        (true, _) => format!("there is none in {folder}"),
        (false, 0) => format!("there are: {}", one_line(&there.join(", "))),
        (false, more) => format!("there are: {} and {more} more", one_line(&there.join(", "))),
    };
    let own = experiments(Path::new("experiments"))
        .into_iter()
        .find(|e| e.config.name == name);
    let advice = match own {
        Some(e) => format!(
            "train it by `cargo run -p deepsim-train -- {}`",
            terminal::quote(&e.path)
        ),
        None => "`cargo run -p deepsim-train -- EXPERIMENT.toml` trains one".to_owned(),
    };
    Err(EvalError::NoRun {
        path: path.to_owned(),
        there,
        advice,
    })
}

/// What processes that evaluate some runs must agree on: their names, in order.
pub fn facts<'a>(runs: impl IntoIterator<Item = &'a PathBuf>) -> BTreeMap<String, String> {
    let names: Vec<String> = runs.into_iter().map(name).collect();
    BTreeMap::from([("the list of runs".to_owned(), names.join(", "))])
}

/// Name of a run for files and labels: its folder's.
pub fn name(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    let last = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    last.file_name()
        .map_or("run".to_owned(), |n| n.to_string_lossy().into_owned())
}

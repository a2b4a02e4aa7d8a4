//! Source → prepared dataset.
//!
//! Nothing is visible at the output until everything is written and on the disk: the work
//! happens in `OUT.partial-…` beside it, which is renamed at the end and removed on failure.

mod holdout;
mod plan;
mod stage;
pub mod verify;

use crate::terminal::path as shown;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::DataError;
use crate::folder::{Shape, squared};
use crate::manifest::{
    Duplicate, FORMAT, Holdout, Manifest, Part, Quarantined, Sample, SourceInfo, Store, VERSION,
};
use crate::orientation::{self, Orientation};
use crate::shards::{ShardWriter, encode, expected_bytes};
use crate::source::{Entry, Layout, Listing, Skipped};
use crate::square::{Resize, check_size};
use crate::window::SquareWindow;
use plan::Plan;
use stage::{Published, Stage, Standing};

/// From this many images on, the default store is JPEG.
pub const LARGE_SOURCE: usize = 20_000;
/// Photos decoded between two progress reports and checks for an interrupt.
const CHUNK: usize = 64;
/// Files whose metadata is read between two checks for an interrupt.
const SCANNED: usize = 256;

/// What to do about an output that holds another dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    Keep,
    /// Replace it once the new one is complete.
    Replace,
}

/// What to prepare, and how.
#[derive(Clone, Debug)]
pub struct Prepare {
    /// A folder of images, a tar, or a tar of tars.
    pub source: PathBuf,
    /// The directory to create.
    pub out: PathBuf,
    /// Side of the stored images, in pixels (1 to 8192).
    pub size: u32,
    /// `None`: squash for ILSVRC-2012, short-crop otherwise.
    pub resize: Option<Resize>,
    /// What to do about photos' EXIF orientation; `None`: ignore it in ILSVRC-2012's layouts, apply it otherwise.
    pub orientation: Option<Orientation>,
    /// The window to cut out of every photo before it is scaled; `None`: the whole photo. Photos
    /// in which it does not lie whole are corrupt.
    pub window: Option<SquareWindow>,
    /// `None`: raw below [`LARGE_SOURCE`] images, JPEG from there on.
    pub store: Option<Store>,
    /// Share of the images that goes to OUT/test (strictly between 0 and 1), the rest to
    /// OUT/train; `None`: no split.
    pub holdout: Option<f64>,
    /// Seed of the split.
    pub seed: u64,
    /// Most corrupt photos that may be left out.
    pub quarantine: usize,
    /// What to do about another dataset at the output.
    pub existing: Existing,
}

impl Prepare {
    /// All images of a source, by what the source is, into a place where nothing is.
    pub fn new(source: impl Into<PathBuf>, out: impl Into<PathBuf>, size: u32) -> Prepare {
        Prepare {
            source: source.into(),
            out: out.into(),
            size,
            resize: None,
            orientation: None,
            window: None,
            store: None,
            holdout: None,
            seed: 0,
            quarantine: 0,
            existing: Existing::Keep,
        }
    }
}

/// What the caller may want to show while the work goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The source is being listed, or its files' metadata read; so many images are done. Sent for each.
    Listing {
        /// Images found so far.
        found: usize,
    },
    /// The source is listed and the settings are resolved; nothing is written yet.
    Planned {
        /// What the source is.
        layout: Layout,
        /// Its images.
        images: usize,
        /// How photos will become square.
        resize: Resize,
        /// The window that will be cut out of them before.
        window: Option<SquareWindow>,
        /// How they will be stored.
        store: Store,
        /// Expected size (exact for raw, before duplicates are dropped).
        bytes: u64,
        /// What to do about the EXIF orientation.
        orientation: Orientation,
        /// What else the source holds and is skipped, in words.
        skipped: Option<String>,
        /// Why a source with ILSVRC-2012's names in it is a collection of images all the same.
        not_ilsvrc: Option<String>,
    },
    /// The work begins, in this directory beside the output: errors from here on are no longer the request's.
    Started(PathBuf),
    /// Everything is written; the directory is about to take its place.
    Publishing,
    /// A directory that a killed run left behind.
    Leftover(PathBuf),
    /// So many photos are done.
    Progress {
        /// Photos done.
        done: usize,
        /// Photos in all.
        total: usize,
    },
    /// A corrupt photo: path and reason.
    Corrupt(String),
    /// A photo whose stored pixels equal another's.
    Duplicate {
        /// Its path.
        path: String,
        /// The path of the one that is kept.
        of: String,
    },
}

/// The caller's answer to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Stop and clean up: [`DataError::Interrupted`].
    Stop,
}

/// What `prepare` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The output already holds exactly this dataset; nothing was read or written.
    UpToDate {
        /// Images in it.
        images: usize,
        /// Of the source's images, how many were turned by their EXIF orientation.
        turned: usize,
    },
    /// The dataset was written.
    Written {
        /// Images stored (both parts of a split together).
        images: usize,
        /// Of those, held out for testing.
        test: usize,
        /// Bytes stored.
        bytes: u64,
        /// Duplicates left out.
        duplicates: usize,
        /// Corrupt photos left out.
        quarantined: usize,
        /// Photos that carry an EXIF orientation other than upright.
        oriented: usize,
    },
}

/// Writes a prepared dataset (format: [`crate::manifest`]). An existing output is replaced only if it is the
/// dataset that was there when the work began. Anything that appears there meanwhile is left alone.
///
/// # Errors
/// Those of listing (missing, unreadable or empty sources, damaged archives), impossible
/// settings, [`DataError::OtherDataset`], [`DataError::OutputOccupied`],
/// [`DataError::DiskFull`], [`DataError::CorruptImages`] naming all corrupt photos,
/// [`DataError::Unwritable`], [`DataError::OutputAppeared`], [`DataError::Interrupted`]. The output is untouched then.
pub fn prepare(
    request: &Prepare,
    events: &mut dyn FnMut(Event) -> Flow,
) -> Result<Outcome, DataError> {
    check_size(request.size)?;
    request.window.map_or(Ok(()), SquareWindow::check)?;
    let listing = Listing::of(&request.source, &mut |found| {
        go_on(events(Event::Listing { found }))
    })?;
    let images = listing.entries.len();
    let plan = Plan {
        size: request.size,
        resize: request.resize.unwrap_or_else(|| listing.layout.resize()),
        window: request.window,
        orientation: request
            .orientation
            .unwrap_or_else(|| Orientation::of_layout(listing.layout)),
        store: request.store.unwrap_or(if images < LARGE_SOURCE {
            Store::Raw
        } else {
            Store::Jpeg
        }),
        holdout: request.holdout.map(|fraction| (fraction, request.seed)),
        source: SourceInfo {
            name: source_name(&request.source),
            layout: listing.layout,
            images,
            listing: listing.digest(),
        },
        quarantine: request.quarantine,
    };
    let parts = holdout::split(&listing, plan.holdout)?;
    let bytes = expected_bytes(images, plan.store, plan.size);
    let planned = Event::Planned {
        layout: listing.layout,
        images,
        resize: plan.resize,
        window: plan.window,
        store: plan.store,
        bytes,
        orientation: plan.orientation,
        skipped: listing.skipped.describe(),
        not_ilsvrc: listing.not_ilsvrc.clone(),
    };
    go_on(events(planned))?;

    let out = stage::locate(&request.out)?;
    let mut turns = |skip: &[Quarantined]| turns_any(&listing, skip, events);
    let agreed = match stage::standing(&out, &request.source, &plan, &mut turns)? {
        Standing::Free => None,
        Standing::UpToDate { images, turned } => return Ok(Outcome::UpToDate { images, turned }),
        Standing::Other { difference } => match request.existing {
            Existing::Keep => {
                return Err(DataError::OtherDataset {
                    path: out,
                    difference,
                });
            }
            Existing::Replace => Some(stage::Replaceable::check(&out)?),
        },
    };
    for leftover in stage::leftovers(&out) {
        go_on(events(Event::Leftover(leftover)))?;
    }
    let stage = Stage::create(&out, bytes)?;
    go_on(events(Event::Started(stage.path().into())))?;
    let outcome = write(&listing, &plan, &parts, stage.path(), events)?;
    go_on(events(Event::Publishing))?;
    match stage.publish(&out, agreed.as_ref())? {
        Published::Done => Ok(outcome),
        Published::Kept(old) => {
            events(Event::Leftover(old));
            Ok(outcome)
        }
        // another process may have written the same dataset meanwhile, which is as good
        Published::Occupied => {
            let mut turns = |skip: &[Quarantined]| turns_any(&listing, skip, events);
            match stage::standing(&out, &request.source, &plan, &mut turns) {
                Ok(Standing::UpToDate { images, turned }) => {
                    Ok(Outcome::UpToDate { images, turned })
                }
                _ => Err(DataError::OutputAppeared { path: out }),
            }
        }
    }
}

/// Would any image of the source be turned, apart from those that are left out anyway?
fn turns_any(
    listing: &Listing,
    left_out: &[Quarantined],
    events: &mut dyn FnMut(Event) -> Flow,
) -> Result<bool, DataError> {
    let left_out: HashSet<&str> = left_out.iter().map(|photo| photo.path.as_str()).collect();
    for (number, chunk) in listing.entries.chunks(SCANNED).enumerate() {
        let found = number * SCANNED;
        go_on(events(Event::Listing { found }))?;
        let turns = |entry: &&Entry| {
            !left_out.contains(entry.path.as_str()) && orientation::is_oriented(listing, entry)
        };
        if chunk.par_iter().find_any(turns).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn go_on(flow: Flow) -> Result<(), DataError> {
    match flow {
        Flow::Continue => Ok(()),
        Flow::Stop => Err(DataError::Interrupted),
    }
}

fn source_name(source: &Path) -> String {
    let named = match source.file_name() {
        Some(_) => source.to_path_buf(),
        // "." and ".." say nothing; their place does
        None => source.canonicalize().unwrap_or_default(),
    };
    named
        .file_name()
        .map_or_else(|| "/".into(), |name| name.to_string_lossy().into_owned())
}

/// A photo ready to be stored.
struct Ready {
    pixels: blake3::Hash,
    stored: Vec<u8>,
    oriented: bool,
}

fn ready(listing: &Listing, plan: &Plan, entry: &Entry) -> Result<Ready, DataError> {
    let shape = Shape {
        size: plan.size,
        resize: plan.resize,
        window: plan.window,
        orientation: plan.orientation,
    };
    let squared = squared(listing, entry, shape)?;
    Ok(Ready {
        pixels: blake3::hash(&squared.pixels),
        stored: encode(squared.pixels, plan.store, plan.size)?,
        oriented: squared.oriented,
    })
}

/// One dataset directory in the making.
struct PartWriter {
    part: Option<Part>,
    directory: PathBuf,
    shards: ShardWriter,
    samples: Vec<Sample>,
    quarantined: Vec<Quarantined>,
    duplicates: Vec<Duplicate>,
}

impl PartWriter {
    fn create(part: Option<Part>, stage: &Path) -> Result<Self, DataError> {
        let directory = match part {
            None => stage.to_path_buf(),
            Some(part) => stage.join(part.name()),
        };
        stage::make_directory(&directory)?;
        Ok(Self {
            part,
            shards: ShardWriter::new(&directory),
            directory,
            samples: Vec::new(),
            quarantined: Vec::new(),
            duplicates: Vec::new(),
        })
    }

    /// `oriented` photos of the source carry an EXIF orientation.
    fn finish(
        self,
        plan: &Plan,
        oriented: usize,
        skipped: &Skipped,
    ) -> Result<Manifest, DataError> {
        if self.samples.is_empty() {
            let (images, part) = (
                plan.source.images,
                self.part.map_or("the dataset", Part::name),
            );
            let fraction = plan.holdout.map_or(0.0, |(fraction, _)| fraction);
            return Err(DataError::Holdout {
                fraction,
                images,
                part,
            });
        }
        let holdout = match (self.part, plan.holdout) {
            (Some(part), Some((fraction, seed))) => Some(Holdout {
                fraction,
                seed,
                part,
            }),
            _ => None,
        };
        // where nothing was turned the dataset is the same whatever was asked for, and so is its manifest
        let (orientation, turned) = match (plan.orientation, oriented) {
            (Orientation::Ignore, _) | (_, 0) => (Orientation::Ignore, 0),
            (Orientation::Apply, turned) => (Orientation::Apply, turned),
        };
        stage::write_skipped(&self.directory, skipped)?;
        let manifest = Manifest {
            format: FORMAT.into(),
            version: VERSION,
            size: plan.size,
            resize: plan.resize,
            window: plan.window,
            orientation,
            turned,
            store: plan.store,
            source: plan.source.clone(),
            holdout,
            count: self.samples.len(),
            quarantined: self.quarantined,
            duplicates: self.duplicates,
            shards: self.shards.finish()?,
            samples: self.samples,
        };
        stage::write_manifest(&self.directory, &manifest)?;
        Ok(manifest)
    }
}

fn write(
    listing: &Listing,
    plan: &Plan,
    parts: &[Option<Part>],
    stage: &Path,
    events: &mut dyn FnMut(Event) -> Flow,
) -> Result<Outcome, DataError> {
    let mut writers: Vec<PartWriter> = Vec::new();
    for part in plan.parts() {
        writers.push(PartWriter::create(part, stage)?);
    }
    let total = listing.entries.len();
    let mut first_with: HashMap<blake3::Hash, usize> = HashMap::new();
    let mut corrupt = Vec::new();
    let mut oriented = 0;
    for start in (0..total).step_by(CHUNK) {
        let end = (start + CHUNK).min(total);
        let chunk: Vec<Result<Ready, DataError>> = listing.entries[start..end]
            .par_iter()
            .map(|entry| ready(listing, plan, entry))
            .collect();
        for (index, result) in (start..end).zip(chunk) {
            let entry = &listing.entries[index];
            let Some(writer) = writers
                .iter_mut()
                .find(|writer| writer.part == parts[index])
            else {
                continue;
            };
            match result {
                Ok(_) if corrupt.len() > plan.quarantine => {}
                Ok(ready) => {
                    oriented += usize::from(ready.oriented);
                    if let Some(&first) = first_with.get(&ready.pixels) {
                        let of = listing.entries[first].path.clone();
                        let path = entry.path.clone();
                        writer.duplicates.push(Duplicate {
                            path: path.clone(),
                            of: of.clone(),
                        });
                        go_on(events(Event::Duplicate { path, of }))?;
                        continue;
                    }
                    first_with.insert(ready.pixels, index);
                    let (shard, offset) = writer.shards.push(&ready.stored)?;
                    writer.samples.push(Sample {
                        path: entry.path.clone(),
                        shard,
                        offset,
                        bytes: ready.stored.len() as u64,
                        blake3: blake3::hash(&ready.stored),
                        label: listing.label(entry),
                    });
                }
                // all corrupt photos are to be named, so the walk goes on after the first
                Err(DataError::BadImage { path, fault }) => {
                    let line = format!("{}: {fault}", shown(path));
                    corrupt.push(line.clone());
                    let (path, reason) = (entry.path.clone(), fault.to_string());
                    writer.quarantined.push(Quarantined { path, reason });
                    go_on(events(Event::Corrupt(line)))?;
                }
                Err(error) => return Err(error),
            }
        }
        go_on(events(Event::Progress { done: end, total }))?;
    }
    if corrupt.len() > plan.quarantine {
        return Err(DataError::CorruptImages {
            images: corrupt,
            budget: plan.quarantine,
        });
    }
    if !corrupt.is_empty() && writers.iter().all(|writer| writer.samples.is_empty()) {
        return Err(DataError::NothingWhole { images: corrupt });
    }
    let (mut images, mut test, mut bytes, mut duplicates) = (0, 0, 0, 0);
    for writer in writers {
        let part = writer.part;
        let manifest = writer.finish(plan, oriented, &listing.skipped)?;
        images += manifest.count;
        if part == Some(Part::Test) {
            test += manifest.count;
        }
        bytes += manifest.shards.iter().map(|shard| shard.bytes).sum::<u64>();
        duplicates += manifest.duplicates.len();
    }
    let quarantined = corrupt.len();
    Ok(Outcome::Written {
        images,
        test,
        bytes,
        duplicates,
        quarantined,
        oriented,
    })
}

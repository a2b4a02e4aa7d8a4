//! Source → prepared dataset, or one part of it.
//!
//! Nothing is visible at the output until everything is written and on the disk: the work
//! happens in `OUT.partial-…` beside it, which is renamed at the end and removed on failure.

mod event;
mod fault;
mod holdout;
mod merge;
mod output;
mod part;
mod plan;
mod share;
mod stage;
mod standing;
pub mod verify;
mod work;
mod writer;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::DataError;
use crate::labelled::only_measured;
use crate::manifest::{Quarantined, SourceInfo, Store};
use crate::orientation::{self, Orientation};
use crate::shards::expected_bytes;
use crate::source::{Entry, Listing};
use crate::square::{Resize, check_size};
use crate::window::SquareWindow;
use event::go_on;
use output::Product;
use part::writer::PartWriter;
use plan::{Plan, Split};
use standing::Standing;
use work::Work;
use writer::DatasetWriter;

pub use event::{Event, Flow, Outcome};
pub use fault::PartFault;
pub use merge::{Merge, merge};
pub use output::Existing;
pub(crate) use part::recognise;
pub use share::{Share, ShareFault};

/// From this many images on, the default store is JPEG.
pub const LARGE_SOURCE: usize = 20_000;
/// Files whose metadata is read between two checks for an interrupt.
const SCANNED: usize = 256;

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
    /// Share of the images that goes to OUT/val (0 < share < 1 - holdout), for the choice of settings; `None`: no such
    /// side. With it every image's name alone decides its side, and the shares are met on average.
    pub validation: Option<f64>,
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
            validation: None,
            seed: 0,
            quarantine: 0,
            existing: Existing::Keep,
        }
    }
}

/// Writes a prepared dataset (format: [`crate::manifest`]). An existing output is replaced only if it is the
/// dataset that was there when the work began. Anything that appears there meanwhile is left alone.
///
/// # Errors
/// [`DataError::OnlyMeasured`]; those of listing (missing, unreadable or empty sources, damaged archives), impossible
/// settings, [`DataError::OtherDataset`], [`DataError::OutputOccupied`],
/// [`DataError::DiskFull`], [`DataError::CorruptImages`] naming all corrupt photos,
/// [`DataError::Unwritable`], [`DataError::OutputAppeared`], [`DataError::Interrupted`]. The output is untouched then.
pub fn prepare(
    request: &Prepare,
    events: &mut dyn FnMut(Event) -> Flow,
) -> Result<Outcome, DataError> {
    run(request, None, events)
}

/// Writes one part of what [`prepare`] would write, for [`merge`](fn@merge). The whole source is listed, so that layout,
/// store and held-out images are decided as for the whole; only the part's own images are read. More corrupt photos
/// than the quarantine are refused here; of all parts together, when they are merged.
///
/// # Errors
/// Those of [`prepare`].
pub fn prepare_part(
    request: &Prepare,
    share: Share,
    events: &mut dyn FnMut(Event) -> Flow,
) -> Result<Outcome, DataError> {
    run(request, Some(share), events)
}

fn run(
    request: &Prepare,
    share: Option<Share>,
    events: &mut dyn FnMut(Event) -> Flow,
) -> Result<Outcome, DataError> {
    // A copy elsewhere would not be known for what it is.
    if only_measured(&request.source) && !only_measured(&request.out) {
        let path = request.source.clone();
        return Err(DataError::OnlyMeasured { path });
    }
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
        split: request.holdout.map(|fraction| Split {
            fraction,
            validation: request.validation,
            seed: request.seed,
        }),
        source: SourceInfo {
            name: source_name(&request.source),
            layout: listing.layout,
            images,
            listing: listing.digest(),
        },
        quarantine: request.quarantine,
    };
    let sides = holdout::sides(&listing, plan.split)?;
    let range = share.map_or(0..images, |share| share.range(images));
    let bytes = expected_bytes(range.len(), plan.store, plan.size);
    let planned = Event::Planned {
        layout: listing.layout,
        images,
        part: share.map(|share| (share, range.len())),
        resize: plan.resize,
        window: plan.window,
        store: plan.store,
        bytes,
        orientation: plan.orientation,
        skipped: listing.skipped.describe(),
        not_ilsvrc: listing.not_ilsvrc.clone(),
    };
    go_on(events(planned))?;
    let work = Work {
        listing: &listing,
        plan: &plan,
        sides: &sides,
        range,
    };
    let (source, out): (&Path, &Path) = (&request.source, &request.out);
    match share {
        None => {
            let whole = Whole {
                source,
                work,
                bytes,
            };
            output::make(&whole, out, request.existing, events)
        }
        Some(share) => {
            let part = OnePart {
                source,
                share,
                work,
                bytes,
            };
            output::make(&part, out, request.existing, events)
        }
    }
}

/// The dataset of a whole source.
struct Whole<'a> {
    source: &'a Path,
    work: Work<'a>,
    bytes: u64,
}

impl Product for Whole<'_> {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn standing(
        &self,
        out: &Path,
        events: &mut dyn FnMut(Event) -> Flow,
    ) -> Result<Standing, DataError> {
        let mut turns = |skip: &[Quarantined]| turns_any(self.work.listing, skip, events);
        standing::of_dataset(out, Some(self.source), self.work.plan, &mut turns)
    }

    fn write(
        &self,
        stage: &Path,
        events: &mut dyn FnMut(Event) -> Flow,
    ) -> Result<Outcome, DataError> {
        let mut writer = DatasetWriter::create(self.work.plan, stage)?;
        let corrupt = self.work.run(&mut writer, events)?;
        writer.finish(corrupt, &self.work.listing.skipped)
    }
}

/// One part of it.
struct OnePart<'a> {
    source: &'a Path,
    share: Share,
    work: Work<'a>,
    bytes: u64,
}

impl Product for OnePart<'_> {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn standing(
        &self,
        out: &Path,
        _: &mut dyn FnMut(Event) -> Flow,
    ) -> Result<Standing, DataError> {
        standing::of_part(out, self.source, self.share, self.work.plan)
    }

    fn write(
        &self,
        stage: &Path,
        events: &mut dyn FnMut(Event) -> Flow,
    ) -> Result<Outcome, DataError> {
        let mut writer = PartWriter::create(self.share, self.work.plan, stage)?;
        self.work.run(&mut writer, events)?;
        writer.finish(&self.work.listing.skipped)
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

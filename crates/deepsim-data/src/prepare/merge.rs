//! Parts → prepared dataset.
//!
//! The records and images of the parts are read once, in order, and go the way on which
//! [`prepare`](crate::prepare()) sends decoded images: the same writer finds duplicates by their pixels and cuts shards.
//! So the files are those of one process, byte for byte. An image is in memory at a time, and what the manifest says of
//! all, as in `prepare`.

use std::path::{Path, PathBuf};

use super::event::{Event, Flow, Outcome, go_on};
use super::fault::PartFault;
use super::output::{self, Existing, Product};
use super::part::Fate;
use super::part::reader::Reader;
use super::part::set::{Member, gather};
use super::plan::Plan;
use super::standing::{self, Standing};
use super::work::{Image, Ready, Sink};
use super::writer::DatasetWriter;
use crate::error::DataError;
use crate::source::{Fingerprint, Skipped};
use crate::terminal::path as shown;

/// Images between two progress reports and checks for an interrupt.
const CHUNK: usize = 64;

/// Which parts to merge, and where to.
#[derive(Clone, Debug)]
pub struct Merge {
    /// The directory to create.
    pub out: PathBuf,
    /// The directories that [`prepare_part`](crate::prepare_part) wrote: all of one dataset, in any order.
    pub parts: Vec<PathBuf>,
    /// Most corrupt photos that all parts together may leave out. `None`: as the parts were prepared, if they agree.
    pub quarantine: Option<usize>,
    /// What to do about another dataset at the output.
    pub existing: Existing,
}

/// Makes one dataset of all its parts, equal byte for byte to what [`prepare`](crate::prepare()) makes of their source.
/// The parts are only read. The output appears when it is complete, as with `prepare`.
///
/// # Errors
/// Every [`PartFault`] but [`PartFault::NotMerged`]; [`DataError::Missing`], [`DataError::Unreadable`] and
/// [`DataError::ShardLength`] of a part; [`DataError::BadSample`] for a damaged image; and those of `prepare` about the
/// output and about corrupt photos. The output is untouched then.
pub fn merge(request: &Merge, events: &mut dyn FnMut(Event) -> Flow) -> Result<Outcome, DataError> {
    let members = gather(&request.out, &request.parts)?;
    let [first, ..] = &members[..] else {
        return Err(PartFault::NoParts.into());
    };
    let skipped = first.head.skipped.clone();
    let quarantine = match request.quarantine {
        Some(budget) => budget,
        None => agreed_quarantine(first, &members)?,
    };
    let plan = Plan {
        quarantine,
        ..first.head.plan.clone()
    };
    let merged = Merged {
        members,
        plan,
        skipped,
    };
    go_on(events(merged.planned()))?;
    output::make(&merged, &request.out, request.existing, events)
}

fn agreed_quarantine(first: &Member, members: &[Member]) -> Result<usize, PartFault> {
    let budget = |member: &Member| member.head.plan.quarantine;
    let other = members
        .iter()
        .find(|member| budget(member) != budget(first));
    match other {
        None => Ok(budget(first)),
        Some(other) => Err(PartFault::Quarantine {
            path: other.path.clone(),
            budget: budget(other),
            other: first.path.clone(),
            other_budget: budget(first),
        }),
    }
}

/// The dataset of all parts.
struct Merged {
    members: Vec<Member>,
    plan: Plan,
    /// What the source of the first part held besides: one process there would have said so.
    skipped: Skipped,
}

impl Merged {
    fn planned(&self) -> Event {
        let plan = &self.plan;
        Event::Planned {
            layout: plan.source.layout,
            images: plan.source.images,
            part: None,
            resize: plan.resize,
            window: plan.window,
            store: plan.store,
            bytes: self.bytes(),
            orientation: plan.orientation,
            skipped: self.skipped.describe(),
            not_ilsvrc: None,
        }
    }

    /// A line for a corrupt photo.
    fn line(&self, path: &str, reason: &str) -> String {
        let path = Path::new(&self.plan.source.name).join(path);
        format!("{}: {reason}", shown(path))
    }

    /// Refuses more corrupt photos than may be left out, before any image is read; all are named.
    fn check_quarantine(&self) -> Result<(), DataError> {
        let corrupt = self.members.iter().map(|member| member.head.corrupt);
        if corrupt.sum::<usize>() <= self.plan.quarantine {
            return Ok(());
        }
        let mut images = Vec::new();
        for member in &self.members {
            let mut reader = Reader::open(&member.path, &member.head)?;
            while let Some(record) = reader.record()? {
                if let Fate::Corrupt { reason } = &record.fate {
                    images.push(self.line(&record.path, reason));
                }
            }
        }
        Err(DataError::CorruptImages {
            images,
            budget: self.plan.quarantine,
        })
    }
}

impl Product for Merged {
    fn bytes(&self) -> u64 {
        self.members.iter().map(|member| member.head.bytes()).sum()
    }

    fn standing(
        &self,
        out: &Path,
        _: &mut dyn FnMut(Event) -> Flow,
    ) -> Result<Standing, DataError> {
        let oriented = self.members.iter().any(|member| member.head.oriented > 0);
        standing::of_dataset(out, None, &self.plan, &mut |_| Ok(oriented))
    }

    fn write(
        &self,
        stage: &Path,
        events: &mut dyn FnMut(Event) -> Flow,
    ) -> Result<Outcome, DataError> {
        self.check_quarantine()?;
        let mut writer = DatasetWriter::create(&self.plan, stage)?;
        let mut fingerprint = Fingerprint::default();
        let mut corrupt = Vec::new();
        let (mut done, total) = (0, self.plan.source.images);
        for member in &self.members {
            let mut reader = Reader::open(&member.path, &member.head)?;
            while let Some(record) = reader.record()? {
                fingerprint.add(&record.path, record.size);
                let stored = reader.image(&record)?;
                let image = Image {
                    path: &record.path,
                    size: record.size,
                    side: record.side,
                    label: record.label.clone(),
                };
                let duplicate = match &record.fate {
                    Fate::Kept {
                        pixels,
                        oriented,
                        blake3,
                        ..
                    } => {
                        let ready = Ready {
                            pixels: *pixels,
                            stored,
                            checksum: *blake3,
                            oriented: *oriented,
                        };
                        writer.take(&image, &ready)?
                    }
                    Fate::Repeated { pixels, oriented } => {
                        let of = writer.repeat(&image, pixels, *oriented);
                        let lost = || {
                            let path = &record.path;
                            reader.damaged(format!("{path:?} repeats an image that is not there"))
                        };
                        Some(of.ok_or_else(lost)?)
                    }
                    Fate::Corrupt { reason } => {
                        let line = self.line(&record.path, reason);
                        corrupt.push(line.clone());
                        writer.leave_out(&image, reason.clone())?;
                        go_on(events(Event::Corrupt(line)))?;
                        None
                    }
                };
                if let Some(of) = duplicate {
                    let path = record.path.clone();
                    go_on(events(Event::Duplicate { path, of }))?;
                }
                done += 1;
                if done % CHUNK == 0 {
                    go_on(events(Event::Progress { done, total }))?;
                }
            }
        }
        go_on(events(Event::Progress { done, total }))?;
        if fingerprint.hex() != self.plan.source.listing {
            return Err(PartFault::Together.into());
        }
        writer.finish(corrupt, &self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use image::{Rgb, RgbImage};
    use tempfile::tempdir;

    use super::*;
    use crate::manifest::{MANIFEST, Manifest, Store};
    use crate::prepare::{Prepare, Share, prepare, prepare_part};

    fn files(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        for item in walkdir::WalkDir::new(root).sort_by_file_name() {
            let path = item.unwrap().into_path();
            if path.is_file() {
                let bytes = fs::read(&path).unwrap();
                files.push((path.strip_prefix(root).unwrap().to_path_buf(), bytes));
            }
        }
        files
    }

    /// Shards are small in unit tests: three raw images of 24 pixels, or some more as JPEG.
    #[test]
    fn shards_of_any_parts_are_cut_where_one_process_cuts_them() {
        let root = tempdir().unwrap();
        let source = root.path().join("photos");
        fs::create_dir(&source).unwrap();
        for index in 0..23_u32 {
            // noise, and an image that comes again
            let seed = if index == 17 { 4 } else { index };
            let noise = |x: u32, y: u32| (x * 31 + y * 57 + seed * 91).wrapping_mul(0x9E37) as u8;
            let image = RgbImage::from_fn(24, 24, |x, y| {
                Rgb([noise(x, y), noise(y, x), noise(x, x + y)])
            });
            image.save(source.join(format!("{index:02}.png"))).unwrap();
        }
        for (store, holdout) in [
            (Store::Raw, None),
            (Store::Jpeg, None),
            (Store::Raw, Some(0.3)),
        ] {
            let place = |name: String| root.path().join(format!("{}-{name}", store.name()));
            let request = |name: String| Prepare {
                store: Some(store),
                holdout,
                existing: Existing::Replace,
                ..Prepare::new(&source, place(name), 24)
            };
            let whole = request("whole".into());
            let outcome = prepare(&whole, &mut |_| Flow::Continue).unwrap();
            let expected = files(&whole.out);
            if holdout.is_none() {
                let json = fs::read(whole.out.join(MANIFEST)).unwrap();
                let manifest = Manifest::parse(&json, Path::new(MANIFEST)).unwrap();
                assert!(manifest.shards.len() > 2, "{}", manifest.shards.len());
                assert_eq!((manifest.count, manifest.duplicates.len()), (22, 1));
            }
            for of in [1, 2, 5] {
                let mut parts = Vec::new();
                for number in 1..=of {
                    let part = request(format!("part-{number}"));
                    let share = Share::new(number, of).unwrap();
                    prepare_part(&part, share, &mut |_| Flow::Continue).unwrap();
                    parts.push(part.out);
                }
                let out = place(format!("merged-{of}"));
                let merging = Merge {
                    out: out.clone(),
                    parts,
                    quarantine: None,
                    existing: Existing::Replace,
                };
                let merged = merge(&merging, &mut |_| Flow::Continue).unwrap();
                assert_eq!(merged, outcome, "{of} parts");
                assert!(files(&out) == expected, "{of} parts, {}", store.name());
            }
        }
    }
}

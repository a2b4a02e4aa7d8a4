//! A dataset in the making: images come in the source's order and go to the shards and the manifest of their side.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::event::Outcome;
use super::plan::{Plan, Split};
use super::stage;
use super::work::{Image, Ready, Sink};
use crate::error::DataError;
use crate::manifest::{Duplicate, FORMAT, Holdout, Manifest, Part, Quarantined, Sample, VERSION};
use crate::orientation::Orientation;
use crate::shards::ShardWriter;
use crate::source::Skipped;

/// A dataset without a split, or all sides of one with it.
pub(crate) struct DatasetWriter<'a> {
    plan: &'a Plan,
    sides: Vec<SideWriter>,
    /// Where the image with these pixels is: its side, and its number there.
    kept: HashMap<blake3::Hash, (usize, usize)>,
    /// Photos of the source that carry an EXIF orientation other than upright.
    oriented: usize,
}

impl<'a> DatasetWriter<'a> {
    pub fn create(plan: &'a Plan, stage: &Path) -> Result<Self, DataError> {
        let sides = plan.sides().into_iter();
        Ok(Self {
            plan,
            sides: sides
                .map(|side| SideWriter::create(side, stage))
                .collect::<Result<_, _>>()?,
            kept: HashMap::new(),
            oriented: 0,
        })
    }

    /// Takes note of a photo whose pixels are stored already, and gives the path of the one that is. Does nothing if
    /// they are not.
    pub fn repeat(
        &mut self,
        image: &Image<'_>,
        pixels: &blake3::Hash,
        oriented: bool,
    ) -> Option<String> {
        let &(side, number) = self.kept.get(pixels)?;
        let of = self.sides[side].samples[number].path.clone();
        self.oriented += usize::from(oriented);
        let own = self.side(image);
        self.sides[own].duplicates.push(Duplicate {
            path: image.path.to_owned(),
            of: of.clone(),
        });
        Some(of)
    }

    fn side(&self, image: &Image<'_>) -> usize {
        let mut sides = self.sides.iter();
        sides
            .position(|writer| writer.side == image.side)
            .unwrap_or_default()
    }

    /// Ends the dataset and brings it to the disk. `corrupt` has a line for each photo that was left out.
    pub fn finish(self, corrupt: Vec<String>, skipped: &Skipped) -> Result<Outcome, DataError> {
        if !corrupt.is_empty() && self.sides.iter().all(|side| side.samples.is_empty()) {
            return Err(DataError::NothingWhole { images: corrupt });
        }
        let (mut images, mut val, mut test, mut bytes, mut duplicates) = (0, 0, 0, 0, 0);
        for writer in self.sides {
            let side = writer.side;
            let manifest = writer.finish(self.plan, self.oriented, skipped)?;
            images += manifest.count;
            match side {
                Some(Part::Val) => val += manifest.count,
                Some(Part::Test) => test += manifest.count,
                Some(Part::Train) | None => {}
            }
            bytes += manifest.shards.iter().map(|shard| shard.bytes).sum::<u64>();
            duplicates += manifest.duplicates.len();
        }
        Ok(Outcome::Written {
            images,
            val,
            test,
            bytes,
            duplicates,
            quarantined: corrupt.len(),
            oriented: self.oriented,
        })
    }
}

impl Sink for DatasetWriter<'_> {
    fn take(&mut self, image: &Image<'_>, ready: &Ready) -> Result<Option<String>, DataError> {
        if let Some(of) = self.repeat(image, &ready.pixels, ready.oriented) {
            return Ok(Some(of));
        }
        self.oriented += usize::from(ready.oriented);
        let side = self.side(image);
        let writer = &mut self.sides[side];
        let (shard, offset) = writer.shards.push(&ready.stored)?;
        self.kept.insert(ready.pixels, (side, writer.samples.len()));
        writer.samples.push(Sample {
            path: image.path.to_owned(),
            shard,
            offset,
            bytes: ready.stored.len() as u64,
            blake3: ready.checksum,
            label: image.label.clone(),
        });
        Ok(None)
    }

    fn leave_out(&mut self, image: &Image<'_>, reason: String) -> Result<(), DataError> {
        let side = self.side(image);
        self.sides[side].quarantined.push(Quarantined {
            path: image.path.to_owned(),
            reason,
        });
        Ok(())
    }
}

/// One dataset directory in the making.
struct SideWriter {
    side: Option<Part>,
    directory: PathBuf,
    shards: ShardWriter,
    samples: Vec<Sample>,
    quarantined: Vec<Quarantined>,
    duplicates: Vec<Duplicate>,
}

impl SideWriter {
    fn create(side: Option<Part>, stage: &Path) -> Result<Self, DataError> {
        let directory = match side {
            None => stage.to_path_buf(),
            Some(side) => stage.join(side.name()),
        };
        stage::make_directory(&directory)?;
        Ok(Self {
            side,
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
                self.side.map_or("the dataset", Part::name),
            );
            let fraction = plan.split.map_or(0.0, |split| split.fraction);
            return Err(DataError::Holdout {
                fraction,
                images,
                part,
            });
        }
        let holdout = match (self.side, plan.split) {
            (
                Some(part),
                Some(Split {
                    fraction,
                    validation,
                    seed,
                }),
            ) => Some(Holdout {
                fraction,
                validation,
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

//! A dataset of as many entries as ImageNet: how long it takes to open, to order an epoch and to read a batch, and how much
//! memory.
//!
//! The images are few. Their one shard is there under many names (hard links), and the entries of each shard repeat its
//! images. The manifest is a whole one. So reads come from the page cache, and times of reading say nothing of a disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use deepsim_data::manifest::{MANIFEST, Manifest, Sample, Shard, shard_name};
use deepsim_data::sampling::permutation;
use deepsim_data::{Augment, Dataset, DatasetKind, Mirror, Place, eval_batch};
use serde_json::json;

use crate::memory;

/// Images of the one shard.
const IMAGES: usize = 500;
/// Entries of a shard: as many raw images of 256 pixels as a real shard of 1 GiB holds.
const ENTRIES_OF_A_SHARD: usize = 5461;
/// Images of a batch, and batches.
const BATCH: usize = 64;
const BATCHES: usize = 5;
const CROP: u32 = 227;

/// Writes a dataset of `entries` entries to `folder`. The images that it is made of are kept beside it.
///
/// # Errors
/// A full disk, a file system without hard links, no entries.
pub fn make(entries: usize, folder: &Path) -> Result<()> {
    if entries == 0 {
        bail!("a dataset of 0 entries does not open: give 1 or more");
    }
    let beside = folder.parent().unwrap_or(Path::new("."));
    let few = memory::dataset(IMAGES, beside)?;
    let DatasetKind::Prepared(manifest) = few.kind() else {
        bail!("{} is no prepared dataset", few.path().display());
    };
    let shard = match manifest.shards.as_slice() {
        [shard] => shard,
        more => bail!(
            "{} has {} shards, not one",
            few.path().display(),
            more.len()
        ),
    };
    let whole = enlarged(manifest, shard, entries);
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("emptying {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let from = few.path().join(&shard.file);
    for name in &whole.shards {
        let to = folder.join(&name.file);
        fs::hard_link(&from, &to)
            .with_context(|| format!("linking {} to {}", from.display(), to.display()))?;
    }
    let path: PathBuf = folder.join(MANIFEST);
    fs::write(&path, whole.to_json()?).with_context(|| format!("writing {}", path.display()))
}

/// A manifest of so many entries, all of them images of one shard.
fn enlarged(manifest: &Manifest, shard: &Shard, entries: usize) -> Manifest {
    let shards = entries.div_ceil(ENTRIES_OF_A_SHARD);
    let samples = (0..entries).map(|entry| {
        let sample = &manifest.samples[entry % manifest.samples.len()];
        Sample {
            // As long as ImageNet's names.
            path: format!("n{:08}/n{:08}_{entry:07}.JPEG", entry / 1300, entry / 1300),
            shard: entry / ENTRIES_OF_A_SHARD,
            ..sample.clone()
        }
    });
    let mut whole = manifest.clone();
    whole.samples = samples.collect();
    whole.count = entries;
    whole.source.images = entries;
    whole.shards = (0..shards)
        .map(|index| Shard {
            file: shard_name(index),
            ..shard.clone()
        })
        .collect();
    whole
}

/// Opens the dataset, orders an epoch and reads batches; prints times and memory as JSON.
///
/// # Errors
/// A dataset that does not open or read; a system without `/proc/self/status`.
pub fn run(folder: &Path) -> Result<()> {
    let before = memory::peak_mib()?;
    let begun = Instant::now();
    let data = Dataset::open(folder)?;
    let open = begun.elapsed();
    let begun = Instant::now();
    let order = permutation(1, 0, data.len());
    let ordered = begun.elapsed();
    let peak = memory::peak_mib()?;
    let augment = Augment {
        crop: CROP,
        mirror: Mirror::Off,
        place: Place::Centre,
        scale: None,
    };
    let mut fastest = f64::INFINITY;
    for batch in order.chunks(BATCH).take(BATCHES) {
        let begun = Instant::now();
        eval_batch(&data, batch, &augment)?;
        fastest = fastest.min(begun.elapsed().as_secs_f64());
    }
    let manifest = fs::metadata(folder.join(MANIFEST)).context("the manifest")?;
    println!(
        "{}",
        json!({
            "entries": data.len(),
            "manifest_mib": manifest.len() as f64 / f64::from(1 << 20),
            "open_s": open.as_secs_f64(),
            "epoch_order_s": ordered.as_secs_f64(),
            "batch_s": fastest,
            "batch": BATCH,
            "before_mib": before,
            "peak_mib": peak,
        })
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_of_more_entries_than_images_opens_and_reads() {
        let tmp = std::env::temp_dir().join(format!("deepsim-entries-{}", std::process::id()));
        let folder = tmp.join("whole");
        let entries = ENTRIES_OF_A_SHARD + 7;
        make(entries, &folder).unwrap();
        let data = Dataset::open(&folder).unwrap();
        assert_eq!(data.len(), entries);
        assert_eq!(
            data.image(0).unwrap(),
            data.image(IMAGES * 2).unwrap(),
            "entries repeat the images"
        );
        assert_eq!(
            data.image(entries - 1).unwrap(),
            data.image((entries - 1) % IMAGES).unwrap()
        );
        drop(data);
        fs::remove_dir_all(&tmp).unwrap();
        assert!(make(0, &folder).is_err());
    }
}

//! What stands at an output, compared with what is asked for.

use std::path::Path;

use super::fault::PartFault;
use super::part::{Head, PART, recognise};
use super::plan::{Plan, Split};
use super::share::Share;
use crate::dataset::{is_split_root, read};
use crate::error::DataError;
use crate::manifest::{MANIFEST, Manifest, Part, Quarantined};
use crate::orientation::Orientation;
use crate::shards::Shards;

/// What stands at the output.
pub(crate) enum Standing {
    /// Nothing, or an empty directory.
    Free,
    /// Exactly the dataset, or the part, that is asked for.
    UpToDate { images: usize, turned: usize },
    /// Another of ours.
    Other { difference: String },
}

/// What stands somewhere, by its files.
enum Found {
    Nothing,
    Dataset,
    Part(Share),
}

fn occupied(out: &Path, found: impl Into<String>) -> DataError {
    DataError::OutputOccupied {
        path: out.into(),
        found: found.into(),
    }
}

fn other(difference: impl Into<String>) -> Standing {
    Standing::Other {
        difference: difference.into(),
    }
}

/// `source`, where there is one, must not lie in what may be replaced.
fn look(out: &Path, source: Option<&Path>) -> Result<Found, DataError> {
    let Ok(metadata) = std::fs::symlink_metadata(out) else {
        return Ok(Found::Nothing);
    };
    if !metadata.is_dir() {
        return Err(occupied(out, "a file"));
    }
    let found = if out.join(MANIFEST).exists() || is_split_root(out) {
        Found::Dataset
    } else if let Some(share) = recognise(out) {
        Found::Part(share)
    } else {
        let unreadable = |source| DataError::Unreadable {
            path: out.into(),
            source,
        };
        let mut items = std::fs::read_dir(out).map_err(unreadable)?;
        return match items.next() {
            None => Ok(Found::Nothing),
            Some(_) => Err(occupied(out, "a directory with other content")),
        };
    };
    let holds = |source: &Path| {
        source
            .canonicalize()
            .is_ok_and(|source| source.starts_with(out))
    };
    if source.is_some_and(holds) {
        return Err(occupied(out, "it contains the source"));
    }
    Ok(found)
}

/// Compares the output with a dataset as planned.
/// `turns` tells whether any image of the source would be turned, apart from those given.
pub(crate) fn of_dataset(
    out: &Path,
    source: Option<&Path>,
    plan: &Plan,
    turns: &mut dyn FnMut(&[Quarantined]) -> Result<bool, DataError>,
) -> Result<Standing, DataError> {
    match look(out, source)? {
        Found::Nothing => return Ok(Standing::Free),
        Found::Dataset => {}
        Found::Part(share) => {
            return Ok(other(format!(
                "it is part {share} of one, which `deepsim-data merge` takes"
            )));
        }
    }
    let mut images = 0;
    let mut manifests = Vec::new();
    for side in plan.sides() {
        match difference(out, side, plan)? {
            Ok(manifest) => {
                images += manifest.count;
                manifests.push(manifest);
            }
            Err(difference) => return Ok(Standing::Other { difference }),
        }
    }
    // last, for files have to be opened: was the orientation ignored in a dataset that does not say so?
    let turned = manifests.first().map_or(0, |manifest| manifest.turned);
    if plan.orientation == Orientation::Apply && turned == 0 {
        let left_out: Vec<Quarantined> = manifests
            .into_iter()
            .flat_map(|manifest| manifest.quarantined)
            .collect();
        if turns(&left_out)? {
            return Ok(other(
                "made without turning images by their EXIF orientation; \
                 --orientation ignore keeps it so",
            ));
        }
    }
    Ok(Standing::UpToDate { images, turned })
}

/// The manifest of a side that is as planned, or what differs.
fn difference(
    out: &Path,
    side: Option<Part>,
    plan: &Plan,
) -> Result<Result<Manifest, String>, DataError> {
    let directory = side.map_or_else(|| out.to_path_buf(), |side| out.join(side.name()));
    let file = directory.join(MANIFEST);
    if !file.exists() {
        return Ok(Err("split differently".into()));
    }
    let manifest = match Manifest::parse(&read(&file)?, &file) {
        Ok(manifest) => manifest,
        Err(error @ DataError::ManifestVersion { .. }) => return Ok(Err(error.to_string())),
        Err(error) => {
            let found = format!("its manifest cannot be read: {error}");
            return Err(occupied(out, found));
        }
    };
    let same_split = match (&manifest.holdout, plan.split, side) {
        (None, None, None) => true,
        (
            Some(holdout),
            Some(Split {
                fraction,
                validation,
                seed,
            }),
            Some(side),
        ) => {
            let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
            let same_validation = match (holdout.validation, validation) {
                (None, None) => true,
                (Some(made), Some(asked)) => near(made, asked),
                _ => false,
            };
            holdout.part == side
                && holdout.seed == seed
                && near(holdout.fraction, fraction)
                && same_validation
        }
        _ => false,
    };
    let corrupt = manifest.quarantined.len();
    let checks = [
        (
            manifest.size != plan.size,
            format!("stored at {} px", manifest.size),
        ),
        (
            manifest.resize != plan.resize,
            format!("resized by {}", manifest.resize.name()),
        ),
        (
            manifest.window != plan.window,
            match manifest.window {
                Some(window) => format!("the window {window} of each image"),
                None => "whole images, no window of them".into(),
            },
        ),
        (
            manifest.orientation == Orientation::Apply && plan.orientation == Orientation::Ignore,
            format!(
                "{} images turned by their EXIF orientation",
                manifest.turned
            ),
        ),
        (
            manifest.store != plan.store,
            format!("stored as {}", manifest.store.name()),
        ),
        (!same_split, "split differently".into()),
        (
            manifest.source.listing != plan.source.listing
                || manifest.source.layout != plan.source.layout,
            format!(
                "made from {} images with other names or sizes",
                manifest.source.images
            ),
        ),
        (
            corrupt > plan.quarantine,
            format!("it leaves out {corrupt} corrupt photos"),
        ),
    ];
    if let Some((_, difference)) = checks.into_iter().find(|(differs, _)| *differs) {
        return Ok(Err(difference));
    }
    match Shards::open(&directory, &manifest.shards) {
        Ok(_) => Ok(Ok(manifest)),
        Err(error) => Ok(Err(format!("incomplete: {error}"))),
    }
}

/// Compares the output with a part as planned.
pub(crate) fn of_part(
    out: &Path,
    source: &Path,
    share: Share,
    plan: &Plan,
) -> Result<Standing, DataError> {
    match look(out, Some(source))? {
        Found::Nothing => return Ok(Standing::Free),
        Found::Dataset => return Ok(other("it is whole, and no part of one")),
        Found::Part(_) => {}
    }
    let head = match Head::read(out) {
        Ok(head) => head,
        Err(DataError::Part(error @ PartFault::Version { .. })) => {
            return Ok(other(error.to_string()));
        }
        Err(error) => {
            let found = format!("its {PART} cannot be read: {error}");
            return Err(occupied(out, found));
        }
    };
    if head.share != share {
        return Ok(other(format!(
            "it is part {}, and each part needs an OUT of its own",
            head.share
        )));
    }
    if let Some((option, _)) = head.plan.differing(plan) {
        return Ok(other(format!("made with {option}")));
    }
    let (made, now) = (&head.plan.source, &plan.source);
    if (&made.listing, made.layout) != (&now.listing, now.layout) {
        return Ok(other(format!(
            "made from {} images with other names or sizes",
            made.images
        )));
    }
    if made.name != now.name {
        return Ok(other(format!("made from a source called {:?}", made.name)));
    }
    if head.corrupt > plan.quarantine {
        return Ok(other(format!(
            "it leaves out {} corrupt photos",
            head.corrupt
        )));
    }
    if let Err(error) = head.check_files(out) {
        return Ok(other(format!("incomplete: {error}")));
    }
    Ok(Standing::UpToDate {
        images: head.images,
        turned: head.turned(),
    })
}

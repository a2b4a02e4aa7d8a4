//! Which images are held out for testing.

use super::plan::Split;
use crate::error::DataError;
use crate::manifest::Part;
use crate::source::Listing;

/// The side of every entry: the images with the lowest digests of (seed, path) are held out,
/// round(fraction·images) of them. Adding photos later moves few others between the sides. Names decide, so a process
/// that prepares a part, and lists the whole source, decides as one that prepares everything.
pub(crate) fn sides(
    listing: &Listing,
    split: Option<Split>,
) -> Result<Vec<Option<Part>>, DataError> {
    let images = listing.entries.len();
    let Some(Split { fraction, seed }) = split else {
        return Ok(vec![None; images]);
    };
    if !(fraction > 0.0 && fraction < 1.0) || images < 2 {
        let part = if fraction >= 1.0 { "train" } else { "test" };
        return Err(DataError::Holdout {
            fraction,
            images,
            part,
        });
    }
    let wanted = ((fraction * images as f64).round() as usize).clamp(1, images - 1);
    let mut ranked: Vec<(blake3::Hash, usize)> = Vec::with_capacity(images);
    for (index, entry) in listing.entries.iter().enumerate() {
        let mut hasher = blake3::Hasher::new_derive_key("deepsim-data v1 holdout");
        hasher
            .update(&seed.to_le_bytes())
            .update(entry.path.as_bytes());
        ranked.push((hasher.finalize(), index));
    }
    ranked.sort_unstable_by(|(a, i), (b, j)| a.as_bytes().cmp(b.as_bytes()).then(i.cmp(j)));
    let mut sides = vec![Some(Part::Train); images];
    for (_, index) in ranked.into_iter().take(wanted) {
        sides[index] = Some(Part::Test);
    }
    Ok(sides)
}

//! Which images are held out for testing.

use crate::error::DataError;
use crate::manifest::Part;
use crate::source::Listing;

/// The part of every entry: the images with the lowest digests of (seed, path) are held out,
/// round(fraction·images) of them. Adding photos later moves few others between the parts.
pub(crate) fn split(
    listing: &Listing,
    holdout: Option<(f64, u64)>,
) -> Result<Vec<Option<Part>>, DataError> {
    let images = listing.entries.len();
    let Some((fraction, seed)) = holdout else {
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
    let mut parts = vec![Some(Part::Train); images];
    for (_, index) in ranked.into_iter().take(wanted) {
        parts[index] = Some(Part::Test);
    }
    Ok(parts)
}

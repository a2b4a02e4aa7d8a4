//! Which images are held out, and which are set apart for the choice of settings.

use super::plan::Split;
use crate::error::DataError;
use crate::manifest::Part;
use crate::source::Listing;

/// The side of every entry. Names decide, so a process that prepares a part, and lists the whole source, decides as one
/// that prepares everything.
///
/// Without a share for validation the images with the lowest digests of (seed, path) are held out,
/// round(fraction·images) of them. Adding photos later moves few others between the sides.
///
/// With one, an image's own digest alone decides: as a number from 0 to 1 it is below `fraction` (test), below
/// `fraction + validation` (val) or neither (train). The shares are met on average, and no photo that is added or removed
/// moves another.
pub(crate) fn sides(
    listing: &Listing,
    split: Option<Split>,
) -> Result<Vec<Option<Part>>, DataError> {
    let images = listing.entries.len();
    let Some(Split {
        fraction,
        validation,
        seed,
    }) = split
    else {
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
    let digests = listing
        .entries
        .iter()
        .map(|entry| digest(&entry.path, seed));
    if let Some(validation) = validation {
        if !(validation > 0.0 && fraction + validation < 1.0) {
            return Err(DataError::Validation {
                fraction,
                validation,
            });
        }
        let side = |digest| Some(by_name(&digest, fraction, validation));
        return Ok(digests.map(side).collect());
    }
    let wanted = ((fraction * images as f64).round() as usize).clamp(1, images - 1);
    let mut ranked: Vec<(blake3::Hash, usize)> = digests
        .enumerate()
        .map(|(index, digest)| (digest, index))
        .collect();
    ranked.sort_unstable_by(|(a, i), (b, j)| a.as_bytes().cmp(b.as_bytes()).then(i.cmp(j)));
    let mut sides = vec![Some(Part::Train); images];
    for (_, index) in ranked.into_iter().take(wanted) {
        sides[index] = Some(Part::Test);
    }
    Ok(sides)
}

/// What decides on a photo, by its path below the source.
fn digest(path: &str, seed: u64) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_derive_key("deepsim-data v1 holdout");
    hasher.update(&seed.to_le_bytes()).update(path.as_bytes());
    hasher.finalize()
}

/// The side of a photo whose name alone decides.
fn by_name(digest: &blake3::Hash, fraction: f64, validation: f64) -> Part {
    match place(digest) {
        at if at < fraction => Part::Test,
        at if at < fraction + validation => Part::Val,
        _ => Part::Train,
    }
}

/// A digest as a number from 0 to 1, in the order of the digests.
fn place(digest: &blake3::Hash) -> f64 {
    let (head, _) = digest.as_bytes().split_at(8);
    let number = head
        .iter()
        .fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    number as f64 / 2_f64.powi(64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Earlier versions held out 38 of the sample photos by rank. These are the last that they held out and the first
    /// that they trained on: the share of the sample set lies between them, so that each stays where it was.
    #[test]
    fn sample_photos_stay_on_the_side_where_they_were() {
        let side = |path| by_name(&digest(path, 0), 0.131, 0.1);
        for (path, part) in [
            ("explore_monuments/palaisdesPapes.webp", Part::Test),
            ("explore_monuments/trierImperialBaths.webp", Part::Test),
            ("categorization/scissors4.webp", Part::Val),
            ("categorization/measuringTape1.webp", Part::Val),
        ] {
            assert_eq!(side(path), part, "{path}");
        }
    }

    #[test]
    fn places_have_the_order_of_the_digests() {
        let of = |first: u8, second: u8| {
            let mut bytes = [0; 32];
            (bytes[0], bytes[1]) = (first, second);
            place(&blake3::Hash::from_bytes(bytes))
        };
        assert_eq!([of(0, 0), of(128, 0)], [0.0, 0.5]);
        assert!(of(1, 255) < of(2, 0) && of(255, 255) <= 1.0);
    }
}

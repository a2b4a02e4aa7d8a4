//! The photos that nobody trains on.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::failure::refuse;
use crate::files;
use crate::workspace::Workspace;

/// Held-out photos that are inverted, spread evenly over the set: nobody chose them.
const IMAGES: usize = 6;

/// Where the sample photos lie, prepared: `train`, `val` (settings are chosen by these) and `test` (only judged).
pub const SAMPLE: &str = "data/debian";

/// Where earlier versions had fewer of them, without `val`. Nothing is prepared there any more; runs that began with it go
/// on with it.
pub const EARLIER_SAMPLE: &str = "data/sample";

/// Where set-up puts the labelled photos: they may be measured on, and neither shown nor trained on.
pub const LABELLED: &str = "data/labelled";

/// Source files of some held-out photos, spread evenly over the set.
pub fn held_out(ws: &Workspace, source: &Path, prepared: &str) -> Result<Vec<PathBuf>> {
    let manifest = ws.path(prepared).join("test/manifest.json");
    let json: serde_json::Value = files::json(&manifest)?;
    let samples = json["samples"].as_array().map_or(&[][..], Vec::as_slice);
    let paths: Vec<_> = samples
        .iter()
        .filter_map(|sample| sample["path"].as_str())
        .map(|path| source.join(path))
        .filter(|path| path.is_file())
        .collect();
    if paths.is_empty() {
        return Err(refuse(format!(
            "none of the held-out photos named in {} is in {} any more: put them back, or delete {prepared} and run again",
            ws.show(&manifest),
            source.display()
        )));
    }
    Ok(spread(paths, IMAGES))
}

/// `n` items at even distances; all of them where there are fewer.
fn spread<T>(items: Vec<T>, n: usize) -> Vec<T> {
    let len = items.len();
    let chosen = |i: usize| len <= n || (0..n).any(|k| i == (2 * k + 1) * len / (2 * n));
    items
        .into_iter()
        .enumerate()
        .filter(|(i, _)| chosen(*i))
        .map(|(_, item)| item)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_covers_the_set_and_gives_the_requested_number() {
        assert_eq!(spread((0..12).collect(), 6), [1, 3, 5, 7, 9, 11]);
        assert_eq!(spread((0..38).collect(), 6), [3, 9, 15, 22, 28, 34]);
        assert_eq!(spread(vec!['a', 'b'], 6), ['a', 'b']);
        for len in 6..200 {
            assert_eq!(spread((0..len).collect::<Vec<_>>(), 6).len(), 6, "of {len}");
        }
    }
}

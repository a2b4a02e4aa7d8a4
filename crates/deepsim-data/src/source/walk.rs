//! The images of a folder. Symbolic links in it are not followed (the folder itself may be
//! reached through one): a link into the folder would only repeat an image, and a link out of
//! it would break what a manifest says about its source.

use std::os::unix::fs::FileExt;
use std::path::Path;

use walkdir::WalkDir;

use super::entry::{Entry, HEAD, Location, Named, Step, is_image, named};
use super::skipped::{Skipped, Why};
use crate::error::DataError;

pub(super) fn list(root: &Path, step: Step<'_>) -> Result<(Vec<Entry>, Skipped), DataError> {
    let mut entries = Vec::new();
    let mut skipped = Skipped::default();
    let mut walk = WalkDir::new(root).into_iter();
    while let Some(item) = walk.next() {
        step(entries.len())?;
        let item = match item {
            Ok(item) => item,
            // a folder within that the system does not let us list
            Err(error) if error.depth() > 0 => {
                let path = error.path().unwrap_or(root);
                skipped.add(Why::Unreadable, &shown(root, path));
                continue;
            }
            Err(error) => return Err(unreadable(root, error)),
        };
        if item.depth() == 0 {
            continue;
        }
        let kind = item.file_type();
        let hidden = item.file_name().as_encoded_bytes().starts_with(b".");
        if hidden {
            skipped.add(Why::Hidden, &shown(root, item.path()));
            if kind.is_dir() {
                walk.skip_current_dir();
            }
            continue;
        }
        if kind.is_symlink() {
            skipped.add(Why::Link, &shown(root, item.path()));
            continue;
        }
        let Some(path) = relative(root, item.path()) else {
            // a folder of such a name is named once, not once for each file in it
            skipped.add(Why::NotUtf8, &shown(root, item.path()));
            if kind.is_dir() {
                walk.skip_current_dir();
            }
            continue;
        };
        if !kind.is_file() {
            if !kind.is_dir() {
                skipped.add(Why::Special, &path);
            }
            continue;
        }
        let taken = match named(&path) {
            Named::Image => true,
            Named::Unsaid => begins_as_an_image(item.path()),
            Named::Archive => {
                skipped.add(Why::Archive, &path);
                continue;
            }
            Named::Hidden => {
                skipped.add(Why::Hidden, &path);
                continue;
            }
            Named::Other => false,
        };
        if !taken {
            skipped.add(Why::Other, &path);
            continue;
        }
        let metadata = item.metadata().map_err(|error| unreadable(root, error))?;
        let location = Location::File(item.into_path());
        entries.push(Entry {
            path,
            bytes: metadata.len(),
            location,
        });
    }
    Ok((entries, skipped))
}

fn begins_as_an_image(path: &Path) -> bool {
    let mut head = [0; HEAD];
    let read = deepsim_files::open(path).and_then(|file| file.read_at(&mut head, 0));
    read.is_ok_and(|read| is_image(&head[..read]))
}

/// A path below the source for messages.
fn shown(root: &Path, path: &Path) -> String {
    let path = path.strip_prefix(root).unwrap_or(path);
    path.display().to_string()
}

fn relative(root: &Path, path: &Path) -> Option<String> {
    let parts: Option<Vec<&str>> = path
        .strip_prefix(root)
        .ok()?
        .iter()
        .map(|part| part.to_str())
        .collect();
    Some(parts?.join("/"))
}

fn unreadable(root: &Path, error: walkdir::Error) -> DataError {
    let path = error.path().unwrap_or(root).to_path_buf();
    let source = error
        .into_io_error()
        .unwrap_or_else(|| std::io::Error::other("a loop of symbolic links"));
    DataError::Unreadable { path, source }
}

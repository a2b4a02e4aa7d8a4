//! The images of a folder. Symbolic links in it are not followed (the folder itself may be
//! reached through one): a link into the folder would only repeat an image, and a link out of
//! it would break what a manifest says about its source.

use std::path::Path;

use walkdir::WalkDir;

use super::{Entry, Location, Named, Skipped, named};
use crate::error::DataError;

pub(super) fn list(root: &Path) -> Result<(Vec<Entry>, Skipped), DataError> {
    let mut entries = Vec::new();
    let mut skipped = Skipped::default();
    let mut walk = WalkDir::new(root).into_iter();
    while let Some(item) = walk.next() {
        let item = item.map_err(|error| unreadable(root, error))?;
        if item.depth() == 0 {
            continue;
        }
        let kind = item.file_type();
        let hidden = item.file_name().as_encoded_bytes().starts_with(b".");
        if hidden {
            skipped.hidden += 1;
            if kind.is_dir() {
                walk.skip_current_dir();
            }
            continue;
        }
        if kind.is_symlink() {
            skipped.links += 1;
            continue;
        }
        if !kind.is_file() {
            skipped.other += usize::from(!kind.is_dir());
            continue;
        }
        let Some(path) = relative(root, item.path()) else {
            return Err(DataError::NameNotUtf8 {
                path: item.into_path(),
            });
        };
        match named(&path) {
            Named::Image => {
                let metadata = item.metadata().map_err(|error| unreadable(root, error))?;
                let location = Location::File(item.into_path());
                entries.push(Entry {
                    path,
                    bytes: metadata.len(),
                    location,
                });
            }
            Named::Archive => skipped.archives += 1,
            Named::Hidden => skipped.hidden += 1,
            Named::Other => skipped.other += 1,
        }
    }
    Ok((entries, skipped))
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

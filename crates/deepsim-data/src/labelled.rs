//! Photos that may be measured on and neither shown nor trained on: those that set-up puts into `data/labelled`.

use std::ffi::OsStr;
use std::path::{Component, Path, absolute};

/// What to do with them instead.
pub const ONLY_MEASURED: &str = "photos of data/labelled may only be measured on: deepsim-eval table2 --data data/labelled/test";

/// Where set-up puts them.
const PLACE: [&str; 2] = ["data", "labelled"];

/// Is a file or folder one of `data/labelled`, or a folder that holds it? Links are followed, and no image is read.
#[must_use]
pub fn only_measured(path: &Path) -> bool {
    let as_given = absolute(path).ok();
    // `data/labelled` may itself be a link to elsewhere.
    let mut all = as_given.into_iter().chain(path.canonicalize().ok());
    all.any(|path| lies_there(&path) || holds(&path))
}

fn lies_there(path: &Path) -> bool {
    let parts: Vec<&OsStr> = path.components().map(Component::as_os_str).collect();
    parts
        .windows(PLACE.len())
        .any(|parts| parts.iter().zip(PLACE).all(|(part, name)| *part == name))
}

fn holds(path: &Path) -> bool {
    let [above, own] = PLACE;
    let within = path.join(own);
    (lies_there(&within) && within.is_dir()) || path.join(above).join(own).is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_data_labelled_and_what_holds_it_is_told_by_its_place() {
        let tmp = tempfile::tempdir().unwrap();
        let at = |name: &str| tmp.path().join(name);
        let photos = at("x/data/labelled/photos");
        for name in [
            "x/data/labelled/photos",
            "x/data/debian",
            "labelled",
            "mine",
        ] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        std::fs::write(photos.join("a.jpg"), "").unwrap();
        std::os::unix::fs::symlink(&photos, at("link")).unwrap();
        for name in [
            "x/data/labelled",
            "x/data/labelled/photos/a.jpg",
            "x/data/labelled/not-there",
            "x/data/debian/../labelled/photos",
            "x/data",
            "x",
            "link/a.jpg",
        ] {
            assert!(only_measured(&at(name)), "{name}");
        }
        for name in [
            "x/data/debian",
            "labelled",
            "mine",
            "data",
            "data/unlabelled",
        ] {
            assert!(!only_measured(&at(name)), "{name}");
        }
    }
}

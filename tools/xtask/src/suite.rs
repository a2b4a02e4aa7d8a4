//! `cargo xtask test`: set-up with the full libtorch, the whole test suite, then tidy.

use std::path::Path;

use anyhow::Result;

use crate::child::Child;
use crate::failure::refuse;
use crate::setup::{self, Wishes};
use crate::stages::{Stages, note, seconds};
use crate::workspace::Workspace;
use crate::{browser, libtorch, tidy};

/// There where the kernel has NVIDIA's driver.
const NVIDIA: &str = "/proc/driver/nvidia/version";

/// Runs it all.
///
/// # Errors
/// What set-up refuses, failed tests with cargo's exit code, broken invariants.
pub fn run(ws: &Workspace) -> Result<()> {
    let mut stages = Stages::new(setup::TESTS.len() + 2);
    let linked = libtorch::installed(ws)?.filter(|found| found.mode == libtorch::Mode::Linked);
    let torch = match linked {
        // The user's own PyTorch is not thrown away for the tests, if Python can use it.
        Some(_) if libtorch::imports(&ws.python()) => None,
        Some(_) => {
            return Err(refuse(
                "third_party/py links to a libtorch of yours, and Python cannot import torch, \
                 safetensors, numpy, PIL, tensorboard and cv2 there: the tests compare with them. \
                 Let set-up replace the link: cargo xtask setup --torch full",
            ));
        }
        None => Some("full".into()),
    };
    let wishes = Wishes {
        torch,
        photos: None,
    };
    setup::run(ws, &wishes, &setup::TESTS, &["deepsim-nets"], &mut stages)?;

    stages.next("cargo test --workspace");
    // With the variable set the page's test may not say that there is no browser.
    Child::cargo("cargo test", ws.root())
        .args(["test", "--workspace"])
        .env("PYTHONPATH", ws.python())
        .env(browser::VARIABLE, browser::ensure(ws)?)
        .run()?;
    if Path::new(NVIDIA).exists() {
        note("an NVIDIA driver is here: the tests of the GPU as well");
        Child::cargo("cargo test on the GPU", ws.root())
            .args(["test", "--package", "deepsim-train", "--test", "cuda"])
            .args(["--", "--ignored"])
            .run()?;
    }

    stages.next("tidy");
    tidy::run(ws)?;
    note(format_args!("all passed in {}", seconds(stages.elapsed())));
    Ok(())
}

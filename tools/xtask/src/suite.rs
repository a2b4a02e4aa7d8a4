//! `cargo xtask test`: set-up with the full libtorch, the whole test suite, then tidy.

use std::ffi::OsString;
use std::num::NonZero;
use std::path::Path;

use anyhow::{Result, anyhow};

use crate::parity::{self, SETTINGS, Setting};
use crate::setup::{self, Wishes};
use crate::verdict::{self, Failure, Verdict};
use crate::{browser, libtorch, tidy};
use deepsim_tools::child::Child;
use deepsim_tools::failure::refuse;
use deepsim_tools::python;
use deepsim_tools::stages::{Stages, note, seconds};
use deepsim_tools::workspace::Workspace;

pub const HELP: &str = "\
`cargo xtask parity --help` has the settings and the variables behind them,
docs/decisions.md (Comparison with PyTorch) why the bounds hold for all of
them. One test by hand, as the last lines name it:
  cargo test -p deepsim-train --test vae two_iterations_are_the_reference_s

Exit code: cargo's own (101) where tests failed.";

/// There where the kernel has NVIDIA's driver.
const NVIDIA: &str = "/proc/driver/nvidia/version";

/// Settings whose parity tests run at the same time: each program waits for its longest test with one thread.
const AT_ONCE: usize = 2;

/// What compares the first losses of short trainings with their record, as it is called by hand.
const GOLDENS: &str = "cargo xtask goldens --portable --check tools/lab/goldens.json";

/// What failed in one run of cargo, by setting.
type Failed = Vec<(&'static str, Failure)>;

/// Runs it all.
///
/// # Errors
/// What set-up refuses, failed tests with cargo's exit code, broken invariants.
pub fn run(ws: &Workspace) -> Result<()> {
    let others: Vec<&Setting> = parity::of_the_suite()
        .into_iter()
        .filter(|s| s.left_out().is_none())
        .collect();
    let mut stages = Stages::new(setup::TESTS.len() + 3 + others.len().div_ceil(AT_ONCE));
    let linked = libtorch::installed(ws)?.filter(|found| found.mode == libtorch::Mode::Linked);
    let torch = match linked {
        // The user's own PyTorch is not thrown away for the tests, if Python can use it.
        Some(_) if python::imports(&ws.python()) => None,
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
    setup::run(
        ws,
        &wishes,
        &setup::TESTS,
        &["deepsim-weights"],
        &mut stages,
    )?;

    let (mut failed, mut error) = (Failed::new(), None);
    // What PyTorch answers, for all settings.
    let answers = parity::answers(ws)?;
    stages.next("cargo test --workspace");
    // With the variable set the page's test may not say that there is no browser.
    let all = Child::cargo("cargo test", ws.root())
        .args(["test", "--workspace", "--no-fail-fast"])
        .env("RUST_TEST_THREADS", threads())
        .env("PYTHONPATH", ws.python())
        .env(parity::CACHE, answers.path())
        .env(browser::VARIABLE, browser::ensure(ws)?);
    let ended = parity::watched(all, "")?;
    take(SETTINGS[0].name, ended, &mut failed, &mut error)?;
    stages.next("the first losses of every kind of training");
    goldens(ws, &mut failed, &mut error)?;
    for settings in others.chunks(AT_ONCE) {
        let names: Vec<&str> = settings.iter().map(|setting| setting.name).collect();
        stages.next(&format!(
            "parity as on other processors: {}",
            names.join(" and ")
        ));
        let ended = std::thread::scope(|scope| {
            let start = |setting: &&'static Setting| {
                let tests = parity::tests(ws, setting, false, answers.path());
                let prefix = format!("{}: ", setting.name);
                let running = scope.spawn(move || parity::watched(tests, &prefix));
                (setting.name, running)
            };
            let running: Vec<_> = settings.iter().map(start).collect();
            let ended = running.into_iter().map(|(name, tests)| {
                let ended = tests.join();
                let ended = ended.unwrap_or_else(|_| Err(anyhow!("watching its tests failed")));
                (name, ended)
            });
            ended.collect::<Vec<_>>()
        });
        for (name, ended) in ended {
            take(name, ended?, &mut failed, &mut error)?;
        }
    }
    if Path::new(NVIDIA).exists() {
        note("an NVIDIA driver is here: the tests of the GPU as well");
        let gpu = Child::cargo("cargo test on the GPU", ws.root())
            .args(["test", "--package", "deepsim-train", "--test", "cuda"])
            .args(["--no-fail-fast", "--", "--ignored"]);
        take("GPU", parity::watched(gpu, "")?, &mut failed, &mut error)?;
    }

    stages.next("tidy");
    let tidied = tidy::run(ws);
    for setting in parity::of_the_suite() {
        let Some(why) = setting.left_out() else {
            continue;
        };
        note(format_args!(
            "not run: parity with {} ({why})",
            setting.name
        ));
    }
    if let Some(error) = error {
        if let Err(untidy) = tidied {
            note(format_args!("tidy: {untidy:#}"));
        }
        note(format_args!("failed in {}:", seconds(stages.elapsed())));
        for (setting, failure) in &failed {
            note(verdict::listed(setting, failure));
        }
        return Err(error);
    }
    tidied?;
    note(format_args!("all passed in {}", seconds(stages.elapsed())));
    Ok(())
}

/// Tests that run at the same time: one more than there are processors, since many wait for processes of theirs, or for
/// Python, and do nothing meanwhile. Whoever sets the variable decides.
fn threads() -> OsString {
    std::env::var_os("RUST_TEST_THREADS").unwrap_or_else(|| {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        (processors + 1).to_string().into()
    })
}

/// Compares the first losses of short trainings with their record, with the programs that the tests have built.
fn goldens(ws: &Workspace, failed: &mut Failed, error: &mut Option<anyhow::Error>) -> Result<()> {
    let built = ws.path("target/debug");
    let lab = built.join("deepsim-lab");
    let check = Child::new(GOLDENS, &lab, ws.root())
        .args(["--root".as_ref(), ws.root().as_os_str()])
        .args(["goldens", "--portable", "--check", "tools/lab/goldens.json"])
        .args(["--programs".as_ref(), built.as_os_str()]);
    let Err(why) = check.run() else {
        return Ok(());
    };
    if !verdict::is_failure(&why) {
        return Err(why);
    }
    let failure = Failure {
        program: GOLDENS.to_owned(),
        tests: vec!["not the losses that are recorded (see above)".to_owned()],
    };
    failed.push(("any machine", failure));
    error.get_or_insert(why);
    Ok(())
}

/// Notes what failed. The first failure's exit code is that of all.
///
/// # Errors
/// What is no failure of a test: a build that failed, an interruption.
fn take(
    setting: &'static str,
    (verdict, ended): (Verdict, Result<()>),
    failed: &mut Failed,
    error: &mut Option<anyhow::Error>,
) -> Result<()> {
    let Err(why) = ended else { return Ok(()) };
    if !verdict::of_tests(&verdict, &why) {
        return Err(why);
    }
    failed.extend(verdict.failures.into_iter().map(|f| (setting, f)));
    error.get_or_insert(why);
    Ok(())
}

//! Set-up: libtorch, photos, weights, each once; what is there already is left alone.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use deepsim_tools::failure::refuse;
use deepsim_tools::held_out::{LABELLED, SAMPLE};
use deepsim_tools::lock::Lock;
use deepsim_tools::programs;

use crate::needs::{self, Need};
use crate::{browser, build_tools, faces, labelled, libtorch, nccl, photos, prepared, weights};
use deepsim_tools::landing;
use deepsim_tools::programs::Programs;
use deepsim_tools::stages::{Stages, note};
use deepsim_tools::workspace::Workspace;

/// A part of set-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// libtorch in third_party/py.
    Torch,
    /// The photos.
    Photos,
    /// The sample comparator's weights: AlexNet.
    Weights,
    /// Weights of VGG16, LPIPS, DISTS, EfficientNet-Lite0 and SqueezeNet: metrics of results, further comparators.
    Judges,
    /// A browser without a screen: a test works the report's page with it.
    Browser,
    /// The AT&T faces, 400 images of 40 people, in data/faces; only when asked for.
    Faces,
    /// The sample photos prepared into data/debian, as all sample experiments want them; only when asked for.
    Sample,
    /// 20 labelled photos of ImageNet, a second test set, in data/labelled: to measure on, never to show; only when asked
    /// for.
    Labelled,
    /// Headers of CUDA that `--features nccl` needs beside the full libtorch, in third_party/cuda-headers; only when asked
    /// for.
    Nccl,
    /// cmake, make and nasm in third_party/build-tools, where the machine has none: libjpeg-turbo is built with them.
    Build,
}

/// What set-up is asked for; shared by every command that begins with it.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Wishes {
    /// Which libtorch: full, lite, or the folder of one that you have
    ///
    /// full: PyTorch with its CUDA libraries and the packages of the tests, 2.7 GB to fetch, 5.0 GB
    /// on disk. lite: what the Rust programs need on a CPU, 527 MB to fetch, 1.2 GB on disk. PATH:
    /// an unpacked libtorch 2.13 or site-packages/torch of a PyTorch 2.13, which is linked.
    /// Without it: what is installed stays; on a fresh machine full with an NVIDIA GPU, else lite.
    #[arg(long, value_name = "full|lite|PATH")]
    pub torch: Option<OsString>,

    /// Use the photos in DIR (only read) instead of the sample photos; remembered
    ///
    /// `sample` goes back to the sample photos.
    #[arg(long, value_name = "DIR")]
    pub photos: Option<OsString>,
}

/// What set-up made available.
#[derive(Debug)]
pub struct Ready {
    /// Whose photos.
    pub choice: photos::Choice,
    /// Their folder; `None` when photos were not asked for.
    pub photos: Option<PathBuf>,
}

/// All parts that results need.
pub const ALL: [Part; 5] = [
    Part::Torch,
    Part::Build,
    Part::Photos,
    Part::Weights,
    Part::Judges,
];

/// Those, and what only the tests need.
pub const TESTS: [Part; 6] = [
    Part::Torch,
    Part::Build,
    Part::Photos,
    Part::Weights,
    Part::Judges,
    Part::Browser,
];

/// What a first run needs.
pub const QUICK: [Part; 4] = [Part::Torch, Part::Build, Part::Photos, Part::Weights];

/// Runs the set-up of `parts`, as stages of `stages`. Where weights must be converted, `packages`
/// are built in one go: deepsim-weights, which converts, and what the caller will need anyway.
///
/// # Errors
/// A refusal naming everything the machine lacks, before anything is fetched; or what failed.
pub fn run(
    ws: &Workspace,
    wishes: &Wishes,
    parts: &[Part],
    packages: &[&str],
    stages: &mut Stages,
) -> Result<Ready> {
    for (part, wished, option) in [
        (Part::Torch, wishes.torch.is_some(), "--torch"),
        (Part::Photos, wishes.photos.is_some(), "--photos"),
    ] {
        if wished && !parts.contains(&part) {
            return Err(refuse(format!(
                "{option} says nothing to the parts that --only names: leave it out, or name that part too"
            )));
        }
    }
    let _lock = Lock::take(ws)?;
    landing::sweep(&ws.third_party())?;
    landing::sweep(&ws.downloads())?;
    landing::sweep(&ws.path("data"))?;
    landing::sweep(&ws.faces())?;
    landing::sweep(&ws.path(LABELLED))?;

    let wish = wishes.torch.clone().map(libtorch::Choice::from);
    let found = libtorch::installed(ws)?;
    let torch_ready = match &found {
        Some(found) => libtorch::satisfies(ws, found, wish.as_ref())?,
        None => false,
    };
    let photo_wish = wishes.photos.clone().map(photos::Choice::from);
    let choice = photos::choice(ws, photo_wish.as_ref())?;
    let wants = |part| parts.contains(&part);
    if wants(Part::Sample) && choice != photos::Choice::Sample {
        return Err(refuse(
            "the sample photos are asked for, but this workspace uses photos of yours: go back with \
             `cargo xtask setup --photos sample`, then run this again",
        ));
    }
    let sets = [
        (Part::Weights, weights::Set::Comparator),
        (Part::Judges, weights::Set::Judges),
    ]
    .into_iter()
    .filter(|(part, _)| wants(*part))
    .map(|(_, set)| Ok((set, weights::pending(ws, set)?)))
    .collect::<Result<Vec<_>>>()?;
    let converts = sets.iter().any(|(_, pending)| *pending);

    let mut needs = Vec::new();
    let fetches_torch =
        wants(Part::Torch) && !torch_ready && !matches!(wish, Some(libtorch::Choice::Folder(_)));
    // What is prepared is prepared with deepsim-data, which is built for that.
    let prepares = [Part::Faces, Part::Sample, Part::Labelled];
    let tools = if wants(Part::Build) || prepares.into_iter().any(wants) {
        build_tools::missing(ws)
    } else {
        Vec::new()
    };
    if fetches_torch
        || converts
        || (wants(Part::Faces) && faces::pending(ws)?)
        || (wants(Part::Labelled) && labelled::pending(ws)?)
        || (wants(Part::Nccl) && nccl::pending(ws)?)
        || tools.iter().any(|tool| !tool.is_debians())
    {
        needs.push(Need::Pip);
    }
    if wants(Part::Torch) || converts {
        needs.push(Need::Compiler);
    }
    if tools.iter().any(|tool| tool.is_debians()) {
        needs.push(Need::BuildTools);
    }
    if (wants(Part::Photos) || wants(Part::Sample)) && photos::pending(ws, &choice) {
        needs.push(Need::Apt);
    }
    if wants(Part::Browser) && browser::find(ws).is_none() {
        needs.push(Need::Browser);
    }
    needs::require(&needs)?;

    if wants(Part::Torch) {
        stages.next("libtorch");
        let installed = match found {
            Some(found) if torch_ready => found,
            _ => libtorch::install(ws, &wish.unwrap_or_else(libtorch::default_choice))?,
        };
        note(format_args!(
            "ready: {}",
            libtorch::describe(ws, &installed)
        ));
    }
    if wants(Part::Nccl) {
        stages.next("headers of CUDA, for NCCL");
        note(format_args!("ready: {}", ws.show(&nccl::ensure(ws)?)));
    }
    if wants(Part::Build) {
        stages.next("what libjpeg-turbo is built with");
        build_tools::ensure(ws)?;
    }
    let mut folder = None;
    if wants(Part::Photos) {
        stages.next("photos");
        folder = Some(photos::ensure(ws, &choice)?);
    }
    for (set, pending) in sets {
        stages.next(set.title());
        if pending {
            weights::fetch(ws, set)?;
            note("building the program that converts them (a minute the first time)");
            weights::convert(ws, &Programs::build(ws, packages)?, set)?;
        }
        for file in weights::files(ws, set)? {
            note(format_args!("ready: {}", ws.show(&file)));
        }
    }
    if wants(Part::Browser) {
        stages.next("a browser for the tests");
        note(format_args!("ready: {}", ws.show(&browser::ensure(ws)?)));
    }
    if wants(Part::Sample) {
        stages.next(
            "the sample photos, prepared: 256 px, split into photos to train, to choose settings and to judge by",
        );
        let source = photos::ensure(ws, &choice)?;
        let programs = Programs::build(ws, &programs::ALL)?;
        prepared::prepare(
            ws,
            &programs,
            &source,
            SAMPLE,
            "cargo xtask setup --only sample",
        )?;
    }
    if wants(Part::Faces) {
        stages.next("faces: images of 40 people");
        if !build_tools::missing(ws).is_empty() {
            build_tools::ensure(ws)?;
        }
        faces::ensure(ws)?;
    }
    if wants(Part::Labelled) {
        stages.next("labelled photos, to measure on");
        if !build_tools::missing(ws).is_empty() {
            build_tools::ensure(ws)?;
        }
        labelled::ensure(ws)?;
    }
    Ok(Ready {
        choice,
        photos: folder,
    })
}

//! `cargo xtask memory`: whether an evaluation of ten times as many images takes more memory.

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;

use crate::samples;
use deepsim_tools::machine::processor;
use deepsim_tools::programs::Programs;
use deepsim_tools::stages::note;
use deepsim_tools::workspace::Workspace;

/// Shown after the options.
pub const EXAMPLES: &str = "\
Examples:
  cargo xtask memory
      2,000 and 20,000 images: docs/results/memory.json
  cargo xtask memory --images 100,1000
      a trial, printed only

Synthetic images of 256 pixels, crops of 227, AlexNet's first rectifier with
random weights (193,600 features an image, more for 2,000 of them than is kept
in memory), a narrow generator. About half an hour on 2 cores.";

/// The record's name.
const NAME: &str = "memory";
/// What a record compares.
const WHOLE: [usize; 2] = [2000, 20_000];
/// How much more the larger set may take: what the allocator and the lists of names need.
const ALLOWED_MIB: f64 = 64.0;

/// Which sizes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Numbers of images, ascending, separated by commas
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = WHOLE)]
    images: Vec<usize>,
}

#[derive(Debug, Serialize)]
struct Record {
    name: &'static str,
    command: &'static str,
    commit: Option<String>,
    processor: Option<String>,
    features: &'static str,
    allowed_mib: f64,
    evaluations: Vec<Value>,
}

pub fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let programs = Programs::build(ws, &["deepsim-bench"])?;
    let folder = ws.path("target/memory");
    let mut evaluations: Vec<Value> = Vec::new();
    for &images in &args.images {
        note(format_args!("evaluating {images} synthetic images"));
        let child = programs.get(ws, "the evaluation", "deepsim-bench")?;
        let text = child
            .args([
                "memory".as_ref(),
                images.to_string().as_ref(),
                folder.as_os_str(),
            ])
            .output()?;
        let found = serde_json::from_slice(&text).context("reading the evaluation's numbers")?;
        println!("{found}");
        evaluations.push(found);
    }
    let peak = |v: &Value| v["peak_mib"].as_f64().unwrap_or(f64::NAN);
    let (Some(first), Some(last)) = (evaluations.first(), evaluations.last()) else {
        return Ok(());
    };
    let more = peak(last) - peak(first);
    println!(
        "peak of resident memory: {} MiB, then {} MiB",
        peak(first),
        peak(last)
    );
    // NaN is a failure, too.
    if more.is_nan() || more > ALLOWED_MIB {
        bail!("{more} MiB more for more images, where {ALLOWED_MIB} are allowed");
    }
    if args.images != WHOLE {
        note("no record: it is of 2,000 and 20,000 images");
        return Ok(());
    }
    samples::write(
        ws,
        NAME,
        &Record {
            name: NAME,
            command: "cargo xtask memory",
            commit: samples::commit(ws),
            processor: processor(),
            features: "alexnet:relu1, random weights, 193600 values an image",
            allowed_mib: ALLOWED_MIB,
            evaluations,
        },
    )
}

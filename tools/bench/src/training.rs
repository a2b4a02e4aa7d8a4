//! A training work: the trainer's own iteration on one batch.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use deepsim_nets::loss::TermKind;
use deepsim_train::method::Losses;
use serde_json::{Value, json};
use tch::{Device, Tensor};

use crate::serve::serve;
use crate::state::Bench;
use crate::work::Training;
use crate::{flops, inputs, paths, phases};

/// Images of the trial that chooses between fp32 and bf16.
const TRIAL: i64 = 16;
/// Iterations of it, after one to warm up.
const TRIES: usize = 3;

/// How a training work is done.
#[derive(Debug, Clone, Copy)]
pub struct Manner<'a> {
    /// fp32, tf32, bf16 or auto.
    pub precision: &'a str,
    /// Where.
    pub device: Device,
    /// Whether the phases are timed in the end, in further iterations.
    pub phases: bool,
    /// Whether iterations on a GPU may be CUDA graphs.
    pub graphs: bool,
}

/// Serves a training work.
///
/// # Errors
/// Missing inputs, and what the iteration fails with.
pub fn run(work: &Training, folder: &Path, manner: Manner) -> Result<()> {
    let Manner {
        precision,
        device,
        phases,
        graphs,
    } = manner;
    deepsim_nets::flush_denormals();
    let x = inputs::images(folder)?.f_to_device(device)?;
    let precision = match precision {
        "auto" => faster(work, &x)?,
        given => given,
    };
    let mut bench = Bench::new(work.experiment(precision)?, &x)?;
    let losses = (0..inputs::WARM_UP)
        .map(|_| Ok(as_json(&bench.iterate()?)))
        .collect::<Result<Vec<Value>>>()?;
    let mut path = paths::of(precision, device)?;
    if graphs && device.is_cuda() && bench.record()? {
        path.push_str(", CUDA graphs");
    }
    let facts = json!({
        "precision": precision,
        "threads": tch::get_num_threads(),
        "path": path,
        "checks": losses,
        "gflop": flops::gflop(&bench.experiment)?,
    });
    let bench = std::cell::RefCell::new(bench);
    serve(
        facts,
        device,
        || bench.borrow_mut().iterate().map(drop),
        || {
            if phases {
                // A replay has no phases.
                bench.borrow_mut().forget_recording();
                phases::measure(&mut bench.borrow_mut())
            } else {
                Ok(json!([]))
            }
        },
    )
}

/// The faster arithmetic on this machine: the best of some iterations on a few images.
fn faster(work: &Training, x: &Tensor) -> Result<&'static str> {
    let few = x.f_narrow(0, 0, TRIAL.min(x.size().first().copied().unwrap_or(1)))?;
    let mut trials = Vec::new();
    for precision in ["fp32", "bf16"] {
        let trial = Bench::new(work.experiment(precision)?, &few)?;
        trials.push((Duration::MAX, precision, trial));
    }
    for warm in 0..=TRIES {
        for (best, _, trial) in &mut trials {
            let begun = Instant::now();
            trial.iterate()?;
            if warm > 0 {
                *best = begun.elapsed().min(*best);
            }
        }
    }
    let best = trials.into_iter().min_by_key(|(best, ..)| *best);
    Ok(best.context("nothing was tried")?.1)
}

fn as_json(l: &Losses) -> Value {
    let sides = l.discriminator.map(|sides| (sides.real, sides.generated));
    let of = |kind| l.of(kind);
    json!({
        "feat": of(TermKind::Feature),
        "adv": of(TermKind::Adversarial),
        "img": of(TermKind::Image),
        "d_real": sides.map(|(real, _)| real),
        "d_fake": sides.map(|(_, fake)| fake),
    })
}

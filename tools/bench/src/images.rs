//! The data works: images to random crops, on one thread; then on more, to see how it scales.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use deepsim_data::prepare::Existing;
use deepsim_data::{
    Augment, BatchSpec, Dataset, Flow, Mirror, Place, Prepare, Store, prepare, training_batch,
};
use serde_json::{Value, json};
use tch::Device;

use crate::serve::serve;

const CROP: u32 = 227;
/// Epochs of one unit where decoding takes no time.
const SHARD_EPOCHS: usize = 20;
/// Units of each number of threads.
const SCALING_ROUNDS: usize = 3;

/// Serves epochs of batches of a plain folder of JPEGs.
///
/// # Errors
/// An unreadable folder or image.
pub fn run_folder(folder: &Path) -> Result<()> {
    one_thread()?;
    batches(&Dataset::open(folder)?, 1)
}

/// Serves epochs of batches of raw shards, prepared beside the folder.
///
/// # Errors
/// An unreadable folder or image, a full disk.
pub fn run_shards(folder: &Path) -> Result<()> {
    one_thread()?;
    let out = folder.with_file_name("shards");
    let request = Prepare {
        source: folder.to_owned(),
        out: out.clone(),
        size: 256,
        resize: None,
        orientation: None,
        window: None,
        store: Some(Store::Raw),
        holdout: None,
        validation: None,
        seed: 1,
        quarantine: 0,
        existing: Existing::Replace,
    };
    prepare(&request, &mut |_| Flow::Continue)?;
    batches(&Dataset::open(&out)?, SHARD_EPOCHS)
}

/// Decoding, resizing and cropping use rayon's threads.
fn one_thread() -> Result<()> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build_global()
        .context("setting up one thread")
}

/// `training_batch` is what the loader's thread calls, without its working ahead: a unit of work
/// is exactly its own batches.
fn batches(data: &Dataset, epochs: usize) -> Result<()> {
    let batch_size = data.len().min(20);
    let spec = BatchSpec {
        batch_size,
        augment: Augment {
            crop: CROP,
            mirror: Mirror::Off,
            place: Place::Random,
            scale: None,
        },
        seed: 1,
    };
    let steps = (epochs * data.len() / batch_size) as u64;
    let mut step = 0;
    let mut unit = move || -> Result<()> {
        for _ in 0..steps {
            training_batch(data, &spec, step)?;
            step += 1;
        }
        Ok(())
    };
    unit()?;
    let facts = json!({ "amount": steps * batch_size as u64, "threads": 1 });
    let mut scaled = unit.clone();
    serve(facts, Device::Cpu, unit, || scaling(&mut scaled))
}

/// Seconds of a unit on 1, 2, 4, … threads, as many as there are processors: the shortest of a few
/// each, taken in turn so that what disturbs one disturbs all.
fn scaling(unit: &mut (impl FnMut() -> Result<()> + Send)) -> Result<Value> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut pools = Vec::new();
    for threads in std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|&n| n <= processors)
    {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pools.push((threads, pool.context("setting up threads")?, f64::INFINITY));
    }
    for _ in 0..SCALING_ROUNDS {
        for (_, pool, shortest) in &mut pools {
            let begun = Instant::now();
            pool.install(&mut *unit)?;
            *shortest = shortest.min(begun.elapsed().as_secs_f64());
        }
    }
    let rows = pools.iter().map(|(threads, _, seconds)| {
        let plural = if *threads == 1 { "" } else { "s" };
        json!([format!("{threads} thread{plural}"), seconds])
    });
    Ok(rows.collect())
}

//! The data works: photographs to random crops, on one thread.

use std::path::Path;

use anyhow::{Context, Result};
use deepsim_data::prepare::Existing;
use deepsim_data::{
    Augment, BatchSpec, Dataset, Flow, Mirror, Prepare, Store, prepare, training_batch,
};
use serde_json::json;

use crate::serve::serve;

const CROP: u32 = 227;
/// Epochs of one unit where decoding takes no time.
const SHARD_EPOCHS: usize = 20;

/// Serves epochs of batches of a plain folder of JPEGs.
///
/// # Errors
/// An unreadable folder or picture.
pub fn run_folder(folder: &Path) -> Result<()> {
    one_thread()?;
    batches(&Dataset::open(folder)?, 1)
}

/// Serves epochs of batches of raw shards, prepared beside the folder.
///
/// # Errors
/// An unreadable folder or picture, a full disk.
pub fn run_shards(folder: &Path) -> Result<()> {
    one_thread()?;
    let out = folder.with_file_name("shards");
    let request = Prepare {
        source: folder.to_owned(),
        out: out.clone(),
        size: 256,
        resize: None,
        store: Some(Store::Raw),
        holdout: None,
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
            scale: None,
        },
        seed: 1,
    };
    let steps = (epochs * data.len() / batch_size) as u64;
    let mut step = 0;
    let mut unit = || -> Result<()> {
        for _ in 0..steps {
            training_batch(data, &spec, step)?;
            step += 1;
        }
        Ok(())
    };
    unit()?;
    let facts = json!({ "amount": steps * batch_size as u64, "threads": 1 });
    serve(facts, unit, || Ok(json!([])))
}

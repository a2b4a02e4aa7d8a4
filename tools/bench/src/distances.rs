//! Works on many vectors: the mean distance of all pairs, nearest neighbours.

use anyhow::Result;
use deepsim_nets::metrics::mean_pair_distance;
use deepsim_nets::neighbors::{Index, Neighbors, Settings};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::serve::serve;

const PICTURES: i64 = 2_000;
const PICTURE: i64 = 3 * 227 * 227;
const REFERENCES: i64 = 50_000;
const QUERIES: i64 = 1_000;
const LENGTH: i64 = 4_096;
const NEAREST: usize = 5;

/// Serves the mean distance over all pairs. The Python workers draw the same numbers: both are
/// libtorch's generator from seed 1.
///
/// # Errors
/// What libtorch refuses.
pub fn run_pairs() -> Result<()> {
    tch::manual_seed(1);
    let x = Tensor::f_rand([PICTURES, PICTURE], (Kind::Float, Device::Cpu))?;
    let distance = mean_pair_distance(&x)?;
    let facts = json!({
        "precision": "fp32",
        "threads": tch::get_num_threads(),
        "checks": [{ "mean distance": distance }],
    });
    let unit = || Ok(mean_pair_distance(&x).map(drop)?);
    serve(facts, unit, || Ok(json!([])))
}

/// Serves the nearest neighbours of queries, from plain rows to indices and distances: building
/// the index is part of it. The same numbers as in Python, as above.
///
/// # Errors
/// What libtorch refuses.
pub fn run_neighbours() -> Result<()> {
    tch::manual_seed(1);
    let references = rows(REFERENCES)?;
    let queries = rows(QUERIES)?;
    let search = || -> Result<Neighbors> {
        let dim = LENGTH.unsigned_abs() as usize;
        let index = Index::build(&references, dim, &Settings::default())?;
        Ok(index.search(&queries, NEAREST)?)
    };
    let found = search()?;
    let (mut indices, mut squared) = (0.0, 0.0);
    for query in 0..found.len() {
        indices += found.indices(query).iter().map(|&i| i as f64).sum::<f64>();
        squared += found.squared(query).iter().sum::<f64>();
    }
    let n = (found.len() * NEAREST) as f64;
    let facts = json!({
        "threads": tch::get_num_threads(),
        "checks": [{ "mean index": indices / n, "mean squared distance": squared / n }],
    });
    serve(facts, || search().map(drop), || Ok(json!([])))
}

fn rows(n: i64) -> Result<Vec<f32>> {
    let values = Tensor::f_randn([n, LENGTH], (Kind::Float, Device::Cpu))?;
    let mut out = vec![0f32; values.numel()];
    let count = out.len();
    values.f_view([-1])?.f_copy_data(&mut out, count)?;
    Ok(out)
}

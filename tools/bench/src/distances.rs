//! Works on many vectors or images: the mean distance of all pairs, nearest neighbours, MS-SSIM.

use anyhow::{Context, Result};
use deepsim_eval::search::{Index, Neighbors, Settings};
use deepsim_nets::loss::ssim::ms_ssim;
use deepsim_nets::metrics::mean_pair_distance;
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::serve::serve;

const IMAGES: i64 = 2_000;
const IMAGE: i64 = 3 * 227 * 227;
const REFERENCES: i64 = 50_000;
const QUERIES: i64 = 1_000;
const LENGTH: i64 = 4_096;
const NEAREST: usize = 5;
const PAIRS: i64 = 64;

/// Serves the mean distance over all pairs. The Python workers draw the same numbers: both are
/// libtorch's generator from seed 1.
///
/// # Errors
/// What libtorch refuses.
pub fn run_pairs() -> Result<()> {
    tch::manual_seed(1);
    let x = Tensor::f_rand([IMAGES, IMAGE], (Kind::Float, Device::Cpu))?;
    let distance = mean_pair_distance(&x)?;
    let facts = json!({
        "precision": "fp32",
        "threads": tch::get_num_threads(),
        "checks": [{ "mean distance": distance }],
    });
    let unit = || Ok(mean_pair_distance(&x).map(drop)?);
    serve(facts, Device::Cpu, unit, || Ok(json!([])))
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
    serve(facts, Device::Cpu, || search().map(drop), || Ok(json!([])))
}

/// Serves MS-SSIM of pairs of images and its gradient with regard to one of each pair. The same
/// numbers as in Python, as above.
///
/// # Errors
/// What libtorch refuses.
pub fn run_ms_ssim() -> Result<()> {
    let shape = [PAIRS, 3, 227, 227];
    let options = (Kind::Float, Device::Cpu);
    tch::manual_seed(1);
    let a = Tensor::f_rand(shape, options)?.f_mul_scalar(255.0)?;
    let noise = Tensor::f_randn(shape, options)?.f_mul_scalar(40.0)?;
    let b = a
        .f_add(&noise)?
        .f_clamp(0.0, 255.0)?
        .f_set_requires_grad(true)?;
    let once = || -> Result<(f64, Tensor)> {
        let value = ms_ssim(&b, &a)?.similarity.f_mean(Kind::Float)?;
        let gradient = Tensor::f_run_backward(&[&value], &[&b], false, false)?;
        let gradient = gradient.into_iter().next().context("no gradient")?;
        Ok((value.f_double_value(&[])?, gradient))
    };
    let (value, gradient) = once()?;
    let facts = json!({
        "precision": "fp32",
        "threads": tch::get_num_threads(),
        "checks": [{ "similarity": value, "gradient": gradient.f_norm()?.f_double_value(&[])? }],
    });
    serve(facts, Device::Cpu, || once().map(drop), || Ok(json!([])))
}

fn rows(n: i64) -> Result<Vec<f32>> {
    let values = Tensor::f_randn([n, LENGTH], (Kind::Float, Device::Cpu))?;
    let mut out = vec![0f32; values.numel()];
    let count = out.len();
    values.f_view([-1])?.f_copy_data(&mut out, count)?;
    Ok(out)
}

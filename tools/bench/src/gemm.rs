//! The largest rate of matrix products that libtorch reaches here: what an iteration's operations
//! are held against.

use anyhow::Result;
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::serve::{serve, wait};

const SIDE: i64 = 4096;

/// Serves products of two square matrices; `amount` is GFLOP.
///
/// # Errors
/// What libtorch refuses.
pub fn run(precision: &str, device: Device) -> Result<()> {
    deepsim_nets::flush_denormals();
    if precision == "tf32" {
        deepsim_nets::set_tf32(deepsim_nets::Tf32::Allowed)?;
    } else {
        deepsim_nets::set_tf32(deepsim_nets::Tf32::Forbidden)?;
    }
    let kind = match precision {
        "bf16" => Kind::BFloat16,
        _ => Kind::Float,
    };
    let matrix = || -> Result<Tensor> {
        Ok(Tensor::f_randn([SIDE, SIDE], (Kind::Float, device))?.f_to_kind(kind)?)
    };
    let (a, b) = (matrix()?, matrix()?);
    let mut out = a.f_empty_like()?;
    let mut product = || -> Result<()> {
        out = out.f_matmul_out(&a, &b)?;
        wait(device);
        Ok(())
    };
    product()?;
    let amount = 2.0 * (SIDE as f64).powi(3) / 1e9;
    serve(
        json!({ "amount": amount, "precision": precision }),
        device,
        product,
        || Ok(json!([])),
    )
}

//! Which code of ours computes here: what a record says beside its times.

use anyhow::Result;
use deepsim_eval::search::Candidates;
use deepsim_nets::{Bf16Code, Capability, bf16_code, capability};
use serde_json::json;
use tch::Device;

/// Prints it as JSON.
///
/// # Errors
/// A wrong word in the variable that lowers the instruction set.
pub fn run() -> Result<()> {
    let found = json!({
        "bf16": bf16(),
        "fp32": fp32()?,
        "neighbours": Candidates::Auto.resolve().to_string(),
        "threads": tch::get_num_threads(),
    });
    println!("{found}");
    Ok(())
}

/// What computes a training work in this arithmetic.
///
/// # Errors
/// As [`run`].
pub fn of(precision: &str, device: Device) -> Result<String> {
    match (device, precision) {
        (Device::Cpu, "bf16") => Ok(bf16()),
        (Device::Cpu, _) => fp32(),
        _ => Ok("cuDNN".to_owned()),
    }
}

/// What computes inside a region of bf16.
fn bf16() -> String {
    match bf16_code() {
        Bf16Code::None => "libtorch's autocast".to_owned(),
        Bf16Code::Amx => "our kernels, AMX".to_owned(),
        Bf16Code::Avx512 => "our kernels, AVX-512".to_owned(),
        Bf16Code::Plain => "our kernels, plain C++".to_owned(),
    }
}

/// What computes in fp32.
fn fp32() -> Result<String> {
    let set = match capability()? {
        Capability::Amx | Capability::Avx512Bf16 | Capability::Avx512 => "AVX-512",
        Capability::Avx2 => "AVX2",
        Capability::Default => "plain C++",
    };
    Ok(format!("our Winograd, {set}, and libtorch"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_a_name() {
        assert!(of("fp32", Device::Cpu).unwrap().contains("Winograd"));
        assert!(!of("bf16", Device::Cpu).unwrap().is_empty());
        assert_eq!(of("bf16", Device::Cuda(0)).unwrap(), "cuDNN");
    }
}

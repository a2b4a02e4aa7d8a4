//! What the chosen precision means on the machine at hand.

use deepsim_aten::{CudnnChoice, Tf32, bf16_is_fast, set_cudnn_choice, set_tf32};
use deepsim_experiment::config;
use tch::Device;

use crate::error::Result;

/// Lets GPUs multiply fp32 numbers, and cuDNN choose its algorithms, as the experiment says.
///
/// # Errors
/// What libtorch refuses.
pub fn set_products(settings: &config::Train) -> Result<()> {
    set_tf32(match settings.tf32 {
        config::Tf32::Off => Tf32::Forbidden,
        config::Tf32::On => Tf32::Allowed,
    })?;
    Ok(set_cudnn_choice(if settings.deterministic {
        CudnnChoice::Repeatable
    } else {
        CudnnChoice::Fastest
    })?)
}

/// Something that the user should know of `precision` on `device`, if anything: by how much the
/// choice costs or saves time is told in docs/performance.md.
pub fn advice(precision: config::Precision, device: Device) -> Option<&'static str> {
    match (precision, device, bf16_is_fast()) {
        (config::Precision::Bf16, Device::Cpu, false) => Some(
            "note: this processor has neither AMX nor a fast AVX-512 bf16 instruction, and bf16 is slower here than fp32 \
             (--set 'train.precision=\"fp32\"')",
        ),
        (config::Precision::Fp32, Device::Cpu, true) => Some(
            "note: this processor multiplies bf16 numbers fast, and bf16 is faster here than fp32 \
             (--set 'train.precision=\"bf16\"')",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_arithmetic_is_remarked_on_and_the_faster_is_not() {
        let both =
            [config::Precision::Fp32, config::Precision::Bf16].map(|p| advice(p, Device::Cpu));
        let remarks = both.iter().flatten().count();
        assert_eq!(remarks, 1, "{both:?}");
        assert_eq!(advice(config::Precision::Bf16, Device::Cuda(0)), None);
    }
}

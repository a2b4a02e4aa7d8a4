//! What the chosen precision means on the machine at hand.

use deepsim_aten::{Bf16Code, Tf32, bf16_code, set_tf32};
use deepsim_experiment::config::{RawPrecision, RawTf32};
use tch::Device;

use crate::error::Result;

/// Lets GPUs multiply fp32 numbers as the experiment says.
///
/// # Errors
/// What libtorch refuses.
pub fn set_products(tf32: RawTf32) -> Result<()> {
    let tf32 = match tf32 {
        RawTf32::Off => Tf32::Forbidden,
        RawTf32::On => Tf32::Allowed,
    };
    Ok(set_tf32(tf32)?)
}

/// Something that the user should know of `precision` on `device`, if anything: by how much the
/// choice costs or saves time is told in docs/performance.md.
pub fn advice(precision: RawPrecision, device: Device) -> Option<&'static str> {
    match (precision, device, bf16_code()) {
        (RawPrecision::Bf16, Device::Cpu, Bf16Code::None) => Some(
            "note: this processor has no AMX, and bf16 is slower here than fp32 \
             (--set 'train.precision=\"fp32\"')",
        ),
        (RawPrecision::Fp32, Device::Cpu, Bf16Code::Amx) => Some(
            "note: this processor has AMX, and bf16 is faster here than fp32 \
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
        let both = [RawPrecision::Fp32, RawPrecision::Bf16].map(|p| advice(p, Device::Cpu));
        let remarks = both.iter().flatten().count();
        assert_eq!(remarks, 1, "{both:?}");
        assert_eq!(advice(RawPrecision::Bf16, Device::Cuda(0)), None);
    }
}

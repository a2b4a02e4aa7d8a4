//! Which kind of candidates this processor finds fastest.

use std::sync::OnceLock;

use deepsim_aten::{CAPABILITY_VARIABLE, Capability};
use tch::{Device, Kind, Tensor};

use super::error::Result;

/// Arithmetic in which candidates are looked for. It decides how long a search takes, never what
/// it finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Candidates {
    /// What the processor does fastest: bf16 with AMX, 8-bit integers with VNNI, else fp32.
    #[default]
    Auto,
    /// bf16 products, summed in fp32.
    Bf16,
    /// 8-bit integer products, summed exactly in 32 bits.
    Int8,
    /// fp32 products.
    Fp32,
}

impl Candidates {
    /// What `Auto` means on this machine; every other value means itself.
    pub fn resolve(self) -> Candidates {
        match self {
            Candidates::Auto if flag("amx_bf16") && !lowered() => Candidates::Bf16,
            Candidates::Auto if flag("avx512_vnni") || flag("avx_vnni") => Candidates::Int8,
            Candidates::Auto => Candidates::Fp32,
            chosen => chosen,
        }
    }
}

impl std::fmt::Display for Candidates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Candidates::Auto => "auto",
            Candidates::Bf16 => "bf16",
            Candidates::Int8 => "int8",
            Candidates::Fp32 => "fp32",
        })
    }
}

/// The largest magnitude for which libtorch multiplies 8-bit integers exactly: 127, or 63 where
/// its kernels add two products in 16 bits first, or 0 where it cannot be trusted at all. Tried
/// out once, with the largest sums there are.
pub(super) fn int8_levels() -> Result<i8> {
    static LEVELS: OnceLock<i8> = OnceLock::new();
    if let Some(&levels) = LEVELS.get() {
        return Ok(levels);
    }
    let mut found = 0;
    for levels in [127i8, 63] {
        if int8_is_exact(levels)? {
            found = levels;
            break;
        }
    }
    Ok(*LEVELS.get_or_init(|| found))
}

fn int8_is_exact(levels: i8) -> Result<bool> {
    const WIDTH: usize = 512;
    let signed = |negative: bool| if negative { -levels } else { levels };
    let a: Vec<i8> = (0..64 * WIDTH)
        .map(|i| signed(i / WIDTH % 2 == 1))
        .collect();
    let b: Vec<i8> = (0..WIDTH * 32).map(|i| signed(i % 3 == 1)).collect();
    let a = Tensor::f_from_slice(&a)?.f_view([64, WIDTH as i64])?;
    let b = Tensor::f_from_slice(&b)?.f_view([WIDTH as i64, 32])?;
    let products = a.f_internal_int_mm(&b)?.f_to_kind(Kind::Double)?;
    let wanted = a
        .f_to_kind(Kind::Double)?
        .f_matmul(&b.f_to_kind(Kind::Double)?)?;
    Ok(products.f_equal(&wanted)?)
}

/// Whether our own kernels are to do without the matrix unit that the processor has.
fn lowered() -> bool {
    let set = std::env::var_os(CAPABILITY_VARIABLE).is_some_and(|value| !value.is_empty());
    set && deepsim_aten::capability().is_ok_and(|chosen| chosen < Capability::Amx)
}

/// Whether Linux names a processor feature. On other systems nothing is named, and the choice
/// falls on what always works.
fn flag(name: &str) -> bool {
    static FLAGS: OnceLock<Vec<String>> = OnceLock::new();
    FLAGS
        .get_or_init(|| {
            let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with("flags"));
            line.unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        })
        .iter()
        .any(|known| known == name)
}

/// Whether libtorch sums bf16 products in fp32, as the bound on their error takes for granted: a
/// sum of ones kept in bf16 stops growing at 256.
pub(super) fn bf16_sums_in_fp32() -> Result<bool> {
    let ones = Tensor::f_ones([64, 4096], (Kind::BFloat16, Device::Cpu))?;
    let sums = ones.f_matmul(&ones.f_transpose(0, 1)?)?;
    Ok(sums.f_to_kind(Kind::Float)?.f_min()?.double_value(&[]) == 4096.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_means_one_of_the_others() {
        assert_ne!(Candidates::Auto.resolve(), Candidates::Auto);
        assert_eq!(Candidates::Bf16.resolve(), Candidates::Bf16);
        assert!(bf16_sums_in_fp32().unwrap());
        assert!(int8_levels().unwrap() >= 63);
    }
}

//! Seeded random weights.

use tch::{Device, Kind, Tensor};

use super::op::iterates;
use crate::error::Result;

/// A seed for one purpose, derived from the experiment's seed: a pure function of its
/// arguments, so that no generator state has to be kept.
pub fn derive_seed(seed: u64, purpose: &str, index: u64) -> i64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(&index.to_le_bytes());
    hasher.update(purpose.as_bytes());
    let mut word = [0u8; 8];
    word.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    // The sign bit is dropped: libtorch reads seeds as unsigned, Python's manual_seed as signed.
    (u64::from_le_bytes(word) >> 1).cast_signed()
}

/// Runs `draw` with libtorch's generator seeded. There is one generator for the whole process, so
/// seeded regions of different threads run one after the other.
pub fn seeded<T>(seed: i64, draw: impl FnOnce() -> T) -> T {
    static GENERATOR: std::sync::Mutex<()> = std::sync::Mutex::new(());
    // A panic inside an earlier region leaves nothing behind: the next one seeds anew.
    let _turn = GENERATOR
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    tch::manual_seed(seed);
    draw()
}

/// Draws N(0, deviation²) for the tensor `name`; the same for a seed and name whatever else
/// was drawn before.
///
/// # Errors
/// What libtorch refuses (out of memory).
pub fn normal(name: &str, shape: &[i64], deviation: f64, seed: u64) -> Result<Tensor> {
    let options = (Kind::Float, Device::Cpu);
    let t = seeded(derive_seed(seed, name, 0), || {
        Tensor::f_randn(shape, options)
    })?;
    Ok(t.f_mul_scalar(deviation)?)
}

/// Draws uniformly from −`bound` to `bound` for the tensor `name`; the same for a seed and name whatever else was drawn
/// before.
///
/// # Errors
/// What libtorch refuses (out of memory).
pub(crate) fn uniform(name: &str, shape: &[i64], bound: f64, seed: u64) -> Result<Tensor> {
    let options = (Kind::Float, Device::Cpu);
    let t = seeded(derive_seed(seed, name, 0), || {
        Tensor::f_rand(shape, options)
    })?;
    Ok(t.f_mul_scalar(2.0 * bound)?.f_add_scalar(-bound)?)
}

/// Zeros of a shape.
///
/// # Errors
/// What libtorch refuses (out of memory).
pub fn zeros(shape: &[i64]) -> Result<Tensor> {
    Ok(Tensor::f_zeros(shape, (Kind::Float, Device::Cpu))?)
}

/// Values before training: N(0, deviation²) for matrices and filters (zeros if `deviation` is 0), ones for gains
/// and variances of normalisation and for scales of what a block adds, any vectors of length 1 for power iterations, zeros
/// for everything else.
///
/// # Errors
/// What libtorch refuses (out of memory).
pub(crate) fn untrained(name: &str, shape: &[i64], deviation: f64, seed: u64) -> Result<Tensor> {
    let scales = name.ends_with(".lambda1") || name.ends_with(".layer_scale");
    let ones = name.ends_with(".weight") || name.ends_with(".running_var");
    if iterates(name) {
        let drawn = normal(name, shape, 1.0, seed)?;
        let length = drawn.f_norm()?.f_clamp_min(f64::MIN_POSITIVE)?;
        Ok(drawn.f_div(&length)?)
    } else if shape.len() > 1 && deviation > 0.0 && !scales {
        normal(name, shape, deviation, seed)
    } else if scales || (shape.len() == 1 && ones) {
        Ok(zeros(shape)?.f_add_scalar(1.0)?)
    } else {
        zeros(shape)
    }
}

/// √(2/fan_in): keeps the variance of a ReLU network's activations (He et al. 2015).
pub fn he_deviation(fan_in: i64) -> f64 {
    (2.0 / fan_in as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_depend_on_seed_and_name_alone() {
        let a = normal("conv1.weight", &[3, 4], 1.0, 7).unwrap();
        let _ = seeded(3, || Tensor::randn([9], (Kind::Float, Device::Cpu)));
        assert_eq!(a, normal("conv1.weight", &[3, 4], 1.0, 7).unwrap());
        assert_ne!(a, normal("conv1.weight", &[3, 4], 1.0, 8).unwrap());
        assert_ne!(a, normal("conv2.weight", &[3, 4], 1.0, 7).unwrap());
    }
}

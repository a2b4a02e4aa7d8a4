//! MATLAB's `.mat` files: one array of numbers, by its variable's name.
//!
//! Version 5 (MATLAB's `-v6` and `-v7`, `scipy.io.savemat`) is read here. Version 7.3 is HDF5 behind a block of 512
//! bytes (MATLAB's `-v7.3`, hdf5storage) and is read by the crate `hdf5-reader`; so are plain HDF5 files. Nothing in
//! a file is executed: objects, function handles, cells and structures are refused.

mod array;
mod hdf;
mod limits;
mod v5;

use array::Array;
pub use array::MatError;

/// Larger files are not the features of one stimulus.
pub(crate) const MAX_BYTES: u64 = 1 << 30;

/// The array `variable` of a `.mat` file: its shape and values, last dimension fastest, as f32.
///
/// Whole numbers, truth values (MATLAB's, and h5py's enumeration of them) and halves, singles and doubles are read. Dimensions are as MATLAB and Python show them;
/// those of HDF5 are turned where MATLAB's class is noted beside them, and `Python.Shape`, which hdf5storage writes,
/// decides where it is there.
///
/// # Errors
/// One [`MatError`] for each way in which the bytes are not such a file.
pub fn parse(bytes: &[u8], variable: &str) -> Result<(Vec<usize>, Vec<f32>), MatError> {
    let Array { shape, values } = if hdf::is(bytes) {
        hdf::parse(bytes, variable)?
    } else {
        v5::parse(bytes, variable)?
    };
    let mut out = Vec::with_capacity(values.len());
    for (index, &value) in values.iter().enumerate() {
        let single = value as f32;
        if !single.is_finite() {
            return Err(MatError::Value { index, value });
        }
        out.push(single);
    }
    Ok((shape, out))
}

#[cfg(test)]
mod tests;

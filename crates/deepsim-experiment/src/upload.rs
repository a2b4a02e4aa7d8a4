//! Images on their way to a device.

use deepsim_nets::{images, pinned};
use ndarray::Array4;
use tch::{Device, Kind, Tensor};

use crate::error::Result;

/// RGB bytes `[N,3,H,W]` as a tensor on a device.
///
/// # Errors
/// What libtorch refuses.
pub fn upload(images: &Array4<u8>, device: Device) -> Result<Tensor> {
    let shape: Vec<i64> = images.shape().iter().map(|&d| d as i64).collect();
    let bytes = images.as_standard_layout();
    let flat = bytes.as_slice().unwrap_or(&[]);
    let host = Tensor::f_from_data_size(flat, &shape, Kind::Uint8)?;
    Ok(match device {
        // From pinned memory the copy runs beside whatever the GPU is doing; libtorch frees the
        // pinned bytes only when it is over.
        Device::Cuda(_) => pinned(&host)
            .map_err(deepsim_nets::NetError::from)?
            .f_to_device_(device, Kind::Uint8, true, false)?,
        _ => host.f_to_device(device)?,
    })
}

/// RGB bytes `[N,3,H,W]` → Caffe units on a device.
///
/// # Errors
/// What libtorch refuses.
pub fn to_caffe(images: &Array4<u8>, device: Device) -> Result<Tensor> {
    Ok(images::rgb_to_caffe(&upload(images, device)?)?)
}

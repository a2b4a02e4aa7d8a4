//! Where to compute.

use deepsim_nets::{
    CudaLoad, CudnnChoice, NetError, Tf32, load_cuda_libraries, set_cudnn_choice, set_tf32,
};
use tch::Device;

use crate::error::{ExperimentError, Result};

/// Chooses a device by its name: `auto` (the first GPU if there is one), `cpu`, `cuda` or
/// `cuda:N`.
///
/// Products on a GPU are then fp32's own and the same in each run, until a trainer is told otherwise: an
/// evaluation must not depend on the card (libtorch lets cuDNN round to TF32).
///
/// # Errors
/// An unknown name, or a GPU that is not there, with the loader's reason.
pub fn choose(asked: &str) -> Result<Device> {
    let device = find(asked)?;
    if device.is_cuda() {
        set_tf32(Tf32::Forbidden).map_err(NetError::from)?;
        set_cudnn_choice(CudnnChoice::Repeatable).map_err(NetError::from)?;
    }
    Ok(device)
}

fn find(asked: &str) -> Result<Device> {
    let refuse = |reason: String| ExperimentError::Device {
        asked: asked.to_owned(),
        reason,
    };
    let gpus = |load: &CudaLoad| match load {
        CudaLoad::Loaded if tch::Cuda::is_available() => tch::Cuda::device_count(),
        _ => 0,
    };
    match asked {
        "cpu" => Ok(Device::Cpu),
        "auto" => {
            let load = load_cuda_libraries();
            Ok(if gpus(&load) > 0 {
                Device::Cuda(0)
            } else {
                Device::Cpu
            })
        }
        other => {
            let index = match other.strip_prefix("cuda") {
                Some("") => Some(0),
                Some(rest) => rest.strip_prefix(':').and_then(|n| n.parse::<usize>().ok()),
                None => None,
            };
            let index = index.ok_or_else(|| refuse("use auto, cpu, cuda or cuda:N".into()))?;
            let load = load_cuda_libraries();
            let n = gpus(&load);
            if i64::try_from(index).is_ok_and(|i| i < n) {
                return Ok(Device::Cuda(index));
            }
            Err(refuse(match load {
                CudaLoad::Absent(why) => {
                    format!(
                        "this libtorch has no CUDA ({why}); `cargo xtask setup --torch full` installs it"
                    )
                }
                CudaLoad::Loaded => format!("{n} GPUs are visible; is the driver installed?"),
            }))
        }
    }
}

//! Which device a process of several computes on.

use deepsim_experiment::{ExperimentError, device};
use deepsim_nets::ProcessGroup;
use tch::Device;

use crate::error::Result;

/// Number of this process on its machine, as LOCAL_RANK says; none where it is not set.
///
/// # Errors
/// [`ExperimentError::Ranks`]: no number.
pub(crate) fn local(variable: impl Fn(&str) -> Option<String>) -> Result<Option<usize>> {
    let Some(text) = variable("LOCAL_RANK") else {
        return Ok(None);
    };
    match text.trim().parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(ExperimentError::Ranks("LOCAL_RANK is no number".to_owned()).into()),
    }
}

/// The device `asked` for. Of several processes on one machine each takes the GPU of its number there where `auto` or
/// `cuda` is asked for: two on one GPU cannot exchange anything.
///
/// # Errors
/// Those of [`device::choose`]: more processes than GPUs, too.
pub(crate) fn device(asked: &str, local: Option<usize>) -> Result<Device> {
    let found = device::choose(asked)?;
    Ok(match own(asked, found, local) {
        Some(name) if ProcessGroup::MOVES_CUDA => device::choose(&name)?,
        _ => found,
    })
}

/// The GPU of a process by its number on the machine, where no other one was asked for.
fn own(asked: &str, found: Device, local: Option<usize>) -> Option<String> {
    let open = matches!(asked, "auto" | "cuda") && found.is_cuda();
    local.filter(|_| open).map(|local| format!("cuda:{local}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_takes_the_gpu_of_its_number_unless_another_is_named() {
        let gpu = Device::Cuda(0);
        for asked in ["auto", "cuda"] {
            assert_eq!(own(asked, gpu, Some(3)), Some("cuda:3".to_owned()));
            assert_eq!(own(asked, gpu, None), None);
            assert_eq!(own(asked, Device::Cpu, Some(3)), None);
        }
        assert_eq!(own("cuda:0", gpu, Some(3)), None);
    }

    #[test]
    fn local_rank_is_a_number_where_it_is_set() {
        let of = |text: &str| local(|name| (name == "LOCAL_RANK").then(|| text.to_owned()));
        assert_eq!(of(" 2").unwrap(), Some(2));
        assert_eq!(local(|_| None).unwrap(), None);
        let text = of("-1").unwrap_err().to_string();
        assert!(text.contains("LOCAL_RANK is no number"), "{text}");
    }
}

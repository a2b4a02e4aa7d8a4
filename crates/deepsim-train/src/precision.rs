//! What the chosen precision means on the machine at hand.

use std::borrow::Cow;

use deepsim_aten::{
    Bf16Code, CudnnChoice, Tf32, bf16_code, bf16_is_fast, set_cudnn_choice, set_tf32,
};
use deepsim_experiment::{Experiment, Manifest, config};
use tch::Device;

use crate::error::Result;
use crate::ranks::Ranks;
use crate::request::Request;

/// Where a training computes, as far as it decides which arithmetic is faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Gpu,
    Amx,
    FastAvx512,
    Other,
}

impl Path {
    /// Of a device of this process.
    fn of(device: Device) -> Path {
        match (device, bf16_is_fast()) {
            (Device::Cuda(_), _) => Path::Gpu,
            (Device::Cpu, true) if bf16_code() == Bf16Code::Amx => Path::Amx,
            (Device::Cpu, true) => Path::FastAvx512,
            _ => Path::Other,
        }
    }
}

/// What `train.precision = "auto"` is on each path, by the measurements that docs/performance.md tells of. It is not timed:
/// a training on the same kind of processor must begin alike each time.
const AUTO: [(Path, config::Precision, &str); 4] = [
    (Path::Gpu, config::Precision::Bf16, "bf16, on a GPU"),
    (Path::Amx, config::Precision::Bf16, "bf16, with AMX"),
    (
        Path::FastAvx512,
        config::Precision::Bf16,
        "bf16, with a fast AVX-512 bf16 instruction",
    ),
    (
        Path::Other,
        config::Precision::Fp32,
        "fp32, without AMX or a fast AVX-512 bf16 instruction",
    ),
];

/// Whether an experiment leaves its arithmetic open.
pub(crate) fn is_open(experiment: &Experiment) -> bool {
    experiment.config.train.precision == config::Precision::Auto
}

/// The experiment as it is trained, with the arithmetic that it may leave open. `recorded` is what rank 0's run has told of
/// itself; rank 0 may have to `read` it. Each process finds the arithmetic by itself, and all hold theirs against rank 0's
/// before they begin.
///
/// # Errors
/// A run that cannot be read, a device that is not there; the other processes know then.
pub(crate) fn settle<'a>(
    experiment: &'a Experiment,
    request: &Request,
    recorded: Option<&Manifest>,
    read: impl FnOnce() -> Result<Option<Manifest>>,
    ranks: &Ranks,
) -> Result<Cow<'a, Experiment>> {
    if !is_open(experiment) {
        return Ok(Cow::Borrowed(experiment));
    }
    let settle = || -> Result<Cow<'a, Experiment>> {
        let own = match recorded {
            None if ranks.leads() => read()?,
            _ => None,
        };
        let device = ranks.device(&request.device)?;
        let (settled, words) = settled(experiment, recorded.or(own.as_ref()), device);
        if let (Some(words), true) = (words, ranks.leads()) {
            tracing::info!("train.precision is auto, which is {words}");
        }
        Ok(settled)
    };
    settle().inspect_err(|error| ranks.give_up(error))
}

/// The same by what is known: where the experiment leaves the arithmetic open, that of the run that goes on, which
/// `recorded` it, or that of the table. What it is comes second, where the table has decided.
fn settled<'a>(
    experiment: &'a Experiment,
    recorded: Option<&Manifest>,
    device: Device,
) -> (Cow<'a, Experiment>, Option<&'static str>) {
    if !is_open(experiment) {
        return (Cow::Borrowed(experiment), None);
    }
    let (precision, words) = match recorded.and_then(of_run) {
        Some(precision) => (precision, None),
        None => by_table(Path::of(device)),
    };
    let mut settled = experiment.clone();
    settled.config.train.precision = precision;
    (Cow::Owned(settled), words)
}

fn by_table(path: Path) -> (config::Precision, Option<&'static str>) {
    let row = AUTO.iter().find(|(known, ..)| *known == path);
    row.map_or((config::Precision::Fp32, None), |(_, precision, words)| {
        (*precision, Some(*words))
    })
}

/// What a run has recorded; builds of the first formats recorded nothing.
fn of_run(manifest: &Manifest) -> Option<config::Precision> {
    let values = &manifest.experiment.as_ref()?.values;
    let word = values.get("train.precision")?;
    serde_json::from_value(word.clone()).ok()
}

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
    use deepsim_experiment::Fixed;

    #[test]
    fn an_open_precision_is_the_run_s_or_the_table_s_and_the_same_each_time() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../experiments/quickstart.toml");
        let of = |precision: &str| {
            let sets = [format!("train.precision={precision}")];
            Experiment::load(&file, &sets).unwrap()
        };
        let open = of("auto");
        let fast = bf16_is_fast();
        let (found, words) = settled(&open, None, Device::Cpu);
        let expected = if fast { "bf16" } else { "fp32" };
        assert_eq!(found.config, of(expected).config);
        assert!(words.unwrap().starts_with(expected), "{words:?}");
        // The other one, as if the run had begun elsewhere.
        let other = if fast { "fp32" } else { "bf16" };
        let recorded = Manifest {
            experiment: Some(Fixed::of(&of(other).config).unwrap()),
            ..Manifest::of(open.generator.clone(), None)
        };
        let (found, words) = settled(&open, Some(&recorded), Device::Cpu);
        assert_eq!((found.config.clone(), words), (of(other).config, None));
        let fixed = of("fp32");
        let (found, words) = settled(&fixed, Some(&recorded), Device::Cpu);
        assert!(matches!(found, Cow::Borrowed(_)) && words.is_none());
        assert_eq!(Path::of(Device::Cuda(0)), Path::Gpu);
        for path in [Path::Gpu, Path::Amx, Path::FastAvx512, Path::Other] {
            assert!(by_table(path).1.is_some(), "{path:?} is not in the table");
        }
    }

    #[test]
    fn the_slower_arithmetic_is_remarked_on_and_the_faster_is_not() {
        let both =
            [config::Precision::Fp32, config::Precision::Bf16].map(|p| advice(p, Device::Cpu));
        let remarks = both.iter().flatten().count();
        assert_eq!(remarks, 1, "{both:?}");
        assert_eq!(advice(config::Precision::Bf16, Device::Cuda(0)), None);
    }
}

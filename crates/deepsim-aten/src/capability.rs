//! Which instruction set our own kernels use, and how many threads libtorch uses.

use std::ffi::{c_char, c_int};

use crate::{AtenError, checked};

unsafe extern "C" {
    fn deepsim_capability(
        capability: *mut c_int,
        plain: *mut c_int,
        err: *mut c_char,
        len: usize,
    ) -> c_int;
}

/// Environment variable that lowers the instruction set of our own kernels: `default` (plain C++),
/// `avx2`, `avx512`, `avx512_bf16` or `amx`; `plain` is `default`, and lets the bf16 kernels run too, in plain C++
/// (slow: for tests). Unset: the best that the processor has. Read once for each process.
/// libtorch's own kernels have `ATEN_CPU_CAPABILITY`, oneDNN's `ONEDNN_MAX_CPU_ISA`, MKL's `MKL_CBWR`.
pub const CAPABILITY_VARIABLE: &str = "DEEPSIM_CPU_CAPABILITY";

/// Instruction sets that our own kernels are compiled for, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// What every processor of the architecture has.
    Default,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512F.
    Avx512,
    /// AVX-512F, BW and VL with its bf16 instruction; fp32 kernels use AVX-512.
    Avx512Bf16,
    /// AMX with bf16; fp32 kernels use AVX-512.
    Amx,
}

/// The instruction set that our own kernels use in this process: the best of this processor, or what
/// [`CAPABILITY_VARIABLE`] says. Programs ask before they begin, so that a wrong value is an error of
/// usage and not one in the middle of the work.
///
/// # Errors
/// The variable holds no word that is known, or a set that this processor lacks.
pub fn capability() -> Result<Capability, AtenError> {
    let (mut number, mut plain) = (0, 0);
    // SAFETY: writes two integers; the shim catches exceptions.
    let asked =
        checked(|err, len| unsafe { deepsim_capability(&mut number, &mut plain, err, len) });
    match asked {
        Err(AtenError::Torch(text)) => Err(AtenError::Capability(text)),
        Err(other) => Err(other),
        Ok(()) => Ok(match number {
            4 => Capability::Amx,
            3 => Capability::Avx512Bf16,
            2 => Capability::Avx512,
            1 => Capability::Avx2,
            _ => Capability::Default,
        }),
    }
}

/// Variables by which people choose libtorch's number of threads themselves.
const CHOSEN: [&str; 2] = ["OMP_NUM_THREADS", "MKL_NUM_THREADS"];

/// Limits libtorch's threads to the processors that this process may use, by affinity and by the
/// container's quota. (libtorch itself counts the processors of the machine.) A lower number that
/// libtorch chose is kept, and so is any number that `OMP_NUM_THREADS` or `MKL_NUM_THREADS` sets. Call
/// it once, before any work.
pub fn fit_threads() {
    let own = tch::get_num_threads();
    let there = std::thread::available_parallelism().map_or(usize::MAX, usize::from);
    let chosen = CHOSEN.iter().any(|name| std::env::var_os(name).is_some());
    if let Some(fewer) = fewer(own, there, chosen) {
        tch::set_num_threads(fewer);
    }
}

/// The number of threads to set; `None` keeps libtorch's `own` number.
fn fewer(own: c_int, there: usize, chosen: bool) -> Option<c_int> {
    let there = c_int::try_from(there).unwrap_or(c_int::MAX).max(1);
    (!chosen && there < own).then_some(there)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn threads_follow_the_quota_and_never_exceed_libtorch_s_own_choice() {
        assert_eq!(fewer(64, 2, false), Some(2));
        assert_eq!(fewer(64, 2, true), None);
        assert_eq!(fewer(2, 64, false), None);
        assert_eq!(fewer(4, 4, false), None);
        assert_eq!(fewer(4, 0, false), Some(1));
    }

    /// What one of the ignored tests prints in a process of its own, with this setting.
    fn program_of(child: &str, setting: &str) -> String {
        let mut test = Command::new(std::env::current_exe().unwrap());
        let name = format!("capability::tests::{child}");
        test.args(["--exact", &name, "--ignored", "--nocapture"]);
        test.env(CAPABILITY_VARIABLE, setting);
        let output = test.output().unwrap();
        assert!(output.status.success(), "{setting:?}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find_map(|l| l.split_once("child: "));
        line.unwrap_or_else(|| panic!("{text}")).1.to_owned()
    }

    fn program(setting: &str) -> String {
        program_of("child", setting)
    }

    /// Run by the tests below in a process of its own, with a setting of its own.
    #[test]
    #[ignore = "it is the process that the tests beside it start"]
    fn child() {
        fit_threads();
        let x = tch::Tensor::ones([1, 32, 16, 16], (tch::Kind::Float, tch::Device::Cpu));
        let w = tch::Tensor::ones([32, 32, 3, 3], (tch::Kind::Float, tch::Device::Cpu));
        let form = crate::Form::Keep;
        let y = crate::winograd(&x, &w, None, form, 1.0)
            .map(|y| y.double_value(&[0, 0, 8, 8]))
            .map_err(|e| e.to_string());
        let code = crate::bf16_code();
        let threads = tch::get_num_threads();
        println!("child: {:?} {y:?} {code:?} threads={threads}", capability());
    }

    #[test]
    fn every_instruction_set_up_to_the_processor_s_runs_and_others_are_refused_by_name() {
        let best = capability().unwrap();
        for (name, set) in [
            ("default", Capability::Default),
            ("avx2", Capability::Avx2),
            ("avx512", Capability::Avx512),
            ("avx512_bf16", Capability::Avx512Bf16),
            ("amx", Capability::Amx),
        ] {
            let text = program(name);
            if set <= best {
                assert!(
                    text.starts_with(&format!("Ok({set:?}) Ok(288.0)")),
                    "{text}"
                );
            } else {
                assert!(text.contains("DEEPSIM_CPU_CAPABILITY is"), "{text}");
                assert!(text.contains(" at most"), "{text}");
                // No illegal instruction: the kernels say the same.
                assert_eq!(text.matches("at most").count(), 2, "{text}");
            }
            for (code, own) in [("Amx threads", "amx"), ("Avx512 threads", "avx512_bf16")] {
                assert_eq!(text.contains(code), name == own && set <= best, "{text}");
            }
        }
        let text = program("plain");
        assert!(text.starts_with("Ok(Default) Ok(288.0) Plain"), "{text}");
        let text = program("sse9\u{1b}[2J");
        assert!(text.contains("it must be default, avx2"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(program("").starts_with("Ok("));
    }

    /// A quota of one processor, as a container has it: cgroup files of the test's own, laid over the
    /// system's in a mount namespace of its own.
    #[test]
    fn libtorch_s_threads_follow_a_container_s_quota() {
        let folder = tempfile::tempdir().unwrap();
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        // Version 2 has one line, "0::PATH"; version 1 one for each controller, "N:cpu,cpuacct:PATH".
        let two = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let line = groups.lines().find(|line| {
            let controllers = line.split(':').nth(1).unwrap_or_default();
            if two {
                controllers.is_empty()
            } else {
                controllers.split(',').any(|c| c == "cpu")
            }
        });
        let (Some(line), 2..) = (line, tch::get_num_threads()) else {
            println!("skipped: no cgroup, or one processor");
            return;
        };
        let controllers = line.split(':').nth(1).unwrap();
        let inside = line.split(':').nth(2).unwrap().trim_start_matches('/');
        let at = folder.path().join(inside);
        std::fs::create_dir_all(&at).unwrap();
        std::fs::write(at.join("cpu.max"), "100000 100000\n").unwrap();
        std::fs::write(at.join("cpu.cfs_quota_us"), "100000\n").unwrap();
        std::fs::write(at.join("cpu.cfs_period_us"), "100000\n").unwrap();
        let over = if two {
            "/sys/fs/cgroup".to_owned()
        } else {
            format!("/sys/fs/cgroup/{controllers}")
        };
        let script = format!(
            "mount --bind {} {over} && echo mounted && exec {} --exact capability::tests::child --ignored --nocapture",
            folder.path().display(),
            std::env::current_exe().unwrap().display()
        );
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
            .env_remove(CAPABILITY_VARIABLE)
            .env_remove("OMP_NUM_THREADS")
            .env_remove("MKL_NUM_THREADS")
            .output();
        let text = output.map_or_else(
            |e| e.to_string(),
            |o| String::from_utf8_lossy(&o.stdout).into_owned(),
        );
        if !text.contains("mounted") {
            println!("skipped: no mount namespace here: {text}");
            return;
        }
        assert!(text.contains("threads=1"), "{text}");
    }

    /// Most memory that this process has held so far, in bytes.
    fn peak() -> u64 {
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = text.lines().find(|l| l.starts_with("VmHWM")).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }

    /// Run by the test below: memory that the gradient of a convolution's weights takes with 64 threads.
    #[test]
    #[ignore = "it is the process that the test beside it starts"]
    fn gradient_child() {
        let options = (tch::Kind::Float, tch::Device::Cpu);
        tch::set_num_threads(64);
        let w = (tch::Tensor::ones([512, 512, 3, 3], options) * 0.01).set_requires_grad(true);
        let x = tch::Tensor::ones([2, 512, 4, 4], options);
        let bf16 = crate::Bf16Convolution {
            direction: crate::Direction::Up,
            stride: 1,
            padding: 1,
            slope: 1.0,
            output: crate::Output::Bf16,
        };
        let y = match crate::bf16_code() {
            crate::Bf16Code::None => crate::winograd(&x, &w, None, crate::Form::Keep, 1.0).unwrap(),
            _ => crate::bf16_convolution(&x, &w, None, bf16).unwrap(),
        };
        let before = peak();
        let y = y.to_kind(tch::Kind::Float).sum(tch::Kind::Float);
        let gradient = tch::Tensor::run_backward(&[y], &[w], false, false).remove(0);
        // Two images of sixteen ones each, of which the corners see nine.
        assert_eq!(gradient.double_value(&[0, 0, 1, 1]), 32.0);
        println!("child: {}", peak() - before);
    }

    #[test]
    fn gradient_buffers_grow_with_the_images_and_not_with_the_threads() {
        // Transformed weights of 38 MB and packed ones of 9 MB: 64 of them would be 2.4 GB and 0.6 GB.
        for (setting, most) in [("default", 300 << 20), ("plain", 150 << 20)] {
            let taken: u64 = program_of("gradient_child", setting).parse().unwrap();
            assert!(taken < most, "{setting}: {} MB", taken >> 20);
        }
    }
}

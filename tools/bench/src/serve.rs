//! The protocol of a worker: JSON lines on standard output, commands on standard input.
//!
//! `{"ready":true,…}` once everything is loaded and warm; then for every `go` one timed unit of
//! work, answered by `{"seconds":S}`; `stop` is answered by `{"peak_mib":M,"components":[[NAME,S],…]}`.
//!
//! On a GPU a unit is over when the GPU has done all that it was asked, and M is the GPU's memory that
//! tensors held at once.

use std::io::{BufRead, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use tch::Device;

/// Exit code of a worker whose parent process has ended.
const ORPHANED: i32 = 3;

/// Answers commands until `stop`. `facts` go out with the first line, `unit` is what is timed,
/// `components` may take its time after the last round.
///
/// # Errors
/// What `unit` or `components` fails with, and a broken standard output.
pub fn serve(
    facts: Value,
    device: Device,
    mut unit: impl FnMut() -> Result<()>,
    components: impl FnOnce() -> Result<Value>,
) -> Result<()> {
    let commands = commands();
    let mut ready = match facts {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    ready.insert("ready".to_owned(), Value::Bool(true));
    forget_peak(device)?;
    say(&Value::Object(ready))?;
    for command in commands {
        match command.as_str() {
            "go" => {
                let begun = Instant::now();
                unit()?;
                say(&json!({ "seconds": begun.elapsed().as_secs_f64() }))?;
            }
            "stop" => {
                // Before the components are measured: they are no part of the work.
                let peak = peak_mib(device)?;
                return say(&json!({ "peak_mib": peak, "components": components()? }));
            }
            other => bail!("unknown command `{other}`"),
        }
    }
    Ok(())
}

/// Reads commands on a thread of its own. When the parent process has ended, the worker exits at
/// once, even within a unit.
fn commands() -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let last = line == "stop";
            if sender.send(line).is_err() || last {
                return;
            }
        }
        std::process::exit(ORPHANED);
    });
    receiver
}

fn say(line: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("writing to the benchmark")
}

/// Waits for a GPU to have done what it was asked.
pub fn wait(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(i64::try_from(index).unwrap_or(i64::MAX));
    }
}

/// Resets the kernel's record of the largest resident size, because loading and trials are not part
/// of the work. If the kernel cannot reset it, the record counts from the start.
fn forget_peak(device: Device) -> Result<()> {
    match device {
        Device::Cuda(index) => Ok(deepsim_nets::forget_cuda_peak(index)?),
        _ => {
            let _ = std::fs::write("/proc/self/clear_refs", "5");
            Ok(())
        }
    }
}

/// Largest resident size of this process since [`forget_peak`], or of its tensors on a GPU; MiB.
fn peak_mib(device: Device) -> Result<f64> {
    if let Device::Cuda(index) = device {
        return Ok(deepsim_nets::cuda_peak(index)? as f64 / f64::from(1 << 20));
    }
    let status = std::fs::read_to_string("/proc/self/status").context("reading /proc")?;
    high_water(&status).context("no VmHWM in /proc/self/status")
}

fn high_water(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_found_in_the_process_status() {
        let status = "Name:\tx\nVmPeak:\t  900 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(high_water(status), Some(2.0));
        assert_eq!(high_water("Name:\tx\n"), None);
        assert!(peak_mib(Device::Cpu).unwrap() > 1.0);
    }
}

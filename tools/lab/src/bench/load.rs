//! How much of the processors other programs take while a worker is timed.

use std::fs;
use std::time::Instant;

use deepsim_tools::machine::processor_seconds;

/// Ticks per second of the kernel's CPU times; 100 on every Linux that users meet.
const TICKS: f64 = 100.0;

/// A look at the machine's and one process's CPU time.
#[derive(Debug)]
pub struct Look {
    at: Instant,
    machine: f64,
    process: f64,
    cores: f64,
    pid: u32,
}

impl Look {
    /// Looks now; none where /proc does not tell.
    pub fn now(pid: u32) -> Option<Look> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let (machine, cores) = machine(&stat)?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Look {
            at: Instant::now(),
            machine,
            process: processor_seconds(&stat)?,
            cores,
            pid,
        })
    }

    /// Share of the processors that others have taken since then, 0 to 1.
    pub fn others(&self) -> Option<f64> {
        let now = Look::now(self.pid)?;
        let wall = now.at.duration_since(self.at).as_secs_f64();
        let others = (now.machine - self.machine) / TICKS - (now.process - self.process);
        // Ticks are coarse: a short unit says nothing.
        (wall > 0.2).then(|| (others / wall / self.cores).clamp(0.0, 1.0))
    }
}

/// Busy ticks of all processors, stolen ones among them, and how many processors there are.
fn machine(stat: &str) -> Option<(f64, f64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<f64> = line
        .split_whitespace()
        .map_while(|f| f.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; guest times are in user already
    let busy: f64 = [0, 1, 2, 5, 6, 7]
        .iter()
        .filter_map(|&i| fields.get(i))
        .sum();
    let numbered = |line: &&str| {
        line.strip_prefix("cpu")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let cores = stat.lines().filter(numbered).count();
    (cores > 0).then_some((busy, cores as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_tables_are_read() {
        let stat = "cpu  10 1 5 900 7 2 3 4 0 0\ncpu0 5 0 0 0\ncpu1 5 0 0 0\nintr 1 2\n";
        assert_eq!(machine(stat), Some((25.0, 2.0)));
        assert_eq!(machine("nothing"), None);
        assert!(Look::now(std::process::id()).is_some());
    }
}

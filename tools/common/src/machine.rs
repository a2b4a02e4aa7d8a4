//! What this machine is.

use std::path::PathBuf;

const CPUINFO: &str = "/proc/cpuinfo";

/// Whether a program is on PATH, and where.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The processor that numbers were measured on, as the kernel names it, and whether it has AMX.
pub fn processor() -> Option<String> {
    let text = std::fs::read_to_string(CPUINFO).ok()?;
    let cores = text
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let amx = cpuinfo("flags").is_some_and(|flags| flags.contains("amx_bf16"));
    let amx = if amx { "AMX" } else { "no AMX" };
    Some(format!("{cores} x {}, {amx}", cpuinfo("model name")?))
}

/// What the kernel says of the first processor by this key: `model name`, `flags`.
pub fn cpuinfo(key: &str) -> Option<String> {
    let text = std::fs::read_to_string(CPUINFO).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// User and system time out of `/proc/PID/stat`: fields 14 and 15, in ticks of a hundredth of a second, which
/// Linux shows on every machine. The name before them is in parentheses and may hold spaces.
pub fn processor_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(processor_seconds(stat), Some(3.0));
        assert_eq!(processor_seconds("7 (a) S 1"), None);
    }
}

//! What this machine is.

use std::path::PathBuf;

/// Whether a program is on PATH, and where.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The processor that numbers were measured on, as the kernel names it, and whether it has AMX.
pub fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let value = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cores = text
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let amx = value("flags").is_some_and(|flags| flags.contains("amx_bf16"));
    let amx = if amx { "AMX" } else { "no AMX" };
    Some(format!("{cores} x {}, {amx}", value("model name")?))
}

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

/// The kind of this machine's processor, which names records of speed: maker and widest instruction set, `intel-amx` or
/// `amd-avx512-bf16`. Processors of one kind run the same kernels. `other` where the kernel says nothing.
pub fn kind() -> String {
    let of = |key| cpuinfo(key).unwrap_or_default();
    kind_of(&of("vendor_id"), &of("flags"))
}

/// The first of these sets that is among the processor's flags names its kind; without any of them the kind is `plain`.
const SETS: [(&str, &str); 4] = [
    ("amx_bf16", "amx"),
    ("avx512_bf16", "avx512-bf16"),
    ("avx512f", "avx512"),
    ("avx2", "avx2"),
];

/// The same by what the kernel says of a processor. A maker that is neither Intel nor AMD is left out.
pub fn kind_of(vendor: &str, flags: &str) -> String {
    if flags.trim().is_empty() {
        return "other".to_owned();
    }
    let has = |flag: &str| flags.split_whitespace().any(|found| found == flag);
    let set = SETS.iter().find(|(flag, _)| has(flag));
    let set = set.map_or("plain", |(_, name)| name);
    match vendor.trim() {
        "GenuineIntel" => format!("intel-{set}"),
        "AuthenticAMD" => format!("amd-{set}"),
        _ => set.to_owned(),
    }
}

/// Variables that make libraries use less than the processor has: what is measured then says nothing of its kind.
const LOWERING: [&str; 4] = [
    "DEEPSIM_CPU_CAPABILITY",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "MKL_CBWR",
];

/// Those of them that are set here.
pub fn lowered() -> Vec<&'static str> {
    let set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    LOWERING.into_iter().filter(set).collect()
}

/// What the kernel says of the first processor by this key: `model name`, `flags`.
pub fn cpuinfo(key: &str) -> Option<String> {
    let text = std::fs::read_to_string(CPUINFO).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Memory that is free or can be freed, MiB; none where the kernel does not tell.
pub fn available_mib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
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
    fn kinds_are_maker_and_widest_set() {
        for (vendor, flags, kind) in [
            (
                "GenuineIntel",
                "avx2 avx512f avx512_bf16 amx_bf16",
                "intel-amx",
            ),
            (
                "GenuineIntel",
                "avx2 avx512f avx512_bf16",
                "intel-avx512-bf16",
            ),
            ("GenuineIntel", "avx2 avx512f", "intel-avx512"),
            (
                "AuthenticAMD",
                "avx512f avx512_bf16 avx2",
                "amd-avx512-bf16",
            ),
            ("AuthenticAMD", "avx avx2", "amd-avx2"),
            ("HygonGenuine", "avx2", "avx2"),
            ("AuthenticAMD", "sse2", "amd-plain"),
            ("", "", "other"),
        ] {
            assert_eq!(kind_of(vendor, flags), kind, "{vendor} {flags}");
        }
        assert!(!kind().is_empty());
    }

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(processor_seconds(stat), Some(3.0));
        assert_eq!(processor_seconds("7 (a) S 1"), None);
    }
}

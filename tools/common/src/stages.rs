//! Numbered stages with the time that has passed: `[3/7] 1m05s  preparing the photos`.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Counts stages; writes to stderr.
#[derive(Debug)]
pub struct Stages {
    total: usize,
    done: usize,
    start: Instant,
}

impl Stages {
    /// Starts the clock.
    pub fn new(total: usize) -> Self {
        Self {
            total,
            done: 0,
            start: Instant::now(),
        }
    }

    /// Announces the next stage.
    pub fn next(&mut self, title: &str) {
        self.done += 1;
        deepsim_terminal::tell(format_args!(
            "[{}/{}] {:>6}  {title}",
            self.done,
            self.total,
            seconds(self.start.elapsed())
        ));
    }

    /// Time since the first stage.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A line that belongs to the present stage.
pub fn note(text: impl std::fmt::Display) {
    for line in text.to_string().lines() {
        deepsim_terminal::tell(format_args!("               {line}"));
    }
}

/// Whether a person is watching: then programs show their progress bars.
pub fn on_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// `7s`, `1m05s`, `2h03m`.
pub fn seconds(time: Duration) -> String {
    let s = time.as_secs();
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        _ => format!("{}h{:02}m", s / 3600, s / 60 % 60),
    }
}

/// A size in bytes for people: `44 MB`, `1.2 GB`, decimal units as registries give them.
pub fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        1_000_000..1_000_000_000 => format!("{} MB", bytes.div_ceil(1_000_000)),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        let text = |s| seconds(Duration::from_secs(s));
        assert_eq!([text(7), text(65), text(7385)], ["7s", "1m05s", "2h03m"]);
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(
            [
                megabytes(1),
                megabytes(44_196_292),
                megabytes(1_234_000_000)
            ],
            ["1 kB", "45 MB", "1.2 GB"]
        );
    }
}

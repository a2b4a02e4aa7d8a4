//! A bar with an ETA on a terminal, now and then a plain line in a log.

use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

/// Time between two lines in a log.
const LINES: Duration = Duration::from_secs(10);

/// Progress in photos.
pub struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
    said: Instant,
}

impl Progress {
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            bar: None,
            started: now,
            said: now,
        }
    }

    /// So many photos are done.
    pub fn show(&mut self, done: usize, total: usize) {
        if console_is_terminal() {
            let bar = self.bar.get_or_insert_with(|| bar(total));
            bar.set_position(done as u64);
            return;
        }
        if self.said.elapsed() >= LINES && done < total {
            self.said = Instant::now();
            let spent = self.started.elapsed().as_secs_f64();
            let left = spent / done.max(1) as f64 * (total - done) as f64;
            tracing::info!(
                "{done} of {total} photos, {:.0} photos/s, about {} left",
                done as f64 / spent.max(1e-9),
                HumanDuration(Duration::from_secs_f64(left))
            );
        }
    }

    /// The work on photos begins now.
    pub fn begin(&mut self) {
        self.started = Instant::now();
    }

    /// So many images were found so far.
    pub fn listing(&mut self, found: usize) {
        if self.said.elapsed() >= LINES {
            self.said = Instant::now();
            self.note(&format!("reading the source: {found} images so far"));
        }
    }

    /// Prints a line above the progress bar.
    pub fn note(&self, line: &str) {
        tracing::info!("{line}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn console_is_terminal() -> bool {
    use std::io::IsTerminal;
    std::io::stderr().is_terminal()
}

fn bar(total: usize) -> ProgressBar {
    let template = "{wide_bar} {human_pos}/{human_len} photos, {per_sec:.0}, {eta} left";
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(total as u64).with_style(style);
    deepsim_data::terminal::log::bars().add(bar)
}

//! What a person sees: a bar with ETA on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::Instant;

use deepsim_data::terminal::tell;
use indicatif::{ProgressBar, ProgressStyle};

use crate::iteration::Losses;

/// Progress of a training, on stderr.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
    first: u64,
    begun: Instant,
}

impl Progress {
    /// Starts at `first` of `total` steps.
    pub fn new(first: u64, total: u64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total).with_position(first);
            let style = ProgressStyle::with_template("{bar:20} {pos}/{len} ETA {eta} {wide_msg}");
            if let Ok(style) = style {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.reset_eta();
            bar
        });
        Progress {
            bar,
            total,
            first,
            begun: Instant::now(),
        }
    }

    /// One more step is done.
    pub fn tick(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// New losses, at log steps.
    pub fn report(&self, step: u64, losses: &Losses, images_per_s: f64, gate: &str) {
        let mut text = format!("{images_per_s:.0} img/s");
        for (name, v) in [
            ("feat", losses.feat),
            ("img", losses.img),
            ("adv", losses.adv),
            ("D", losses.discriminator()),
        ] {
            if v.is_finite() {
                text.push_str(&format!(" {name} {}", short(v)));
            }
        }
        if gate != "G+D" {
            text.push_str(&format!(" [{gate} only]"));
        }
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None => tell(format_args!(
                "step {step}/{} ETA {} {text}",
                self.total,
                self.eta(step)
            )),
        }
    }

    /// A sentence that must be seen: above the bar, or a line.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| tell(text)),
            None => tell(text),
        }
    }

    /// Ends the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn eta(&self, step: u64) -> String {
        let done = step.saturating_sub(self.first).max(1);
        let left = self.total.saturating_sub(step);
        let seconds = self.begun.elapsed().as_secs_f64() / done as f64 * left as f64;
        let s = seconds as u64;
        match s {
            0..60 => format!("{s}s"),
            60..3600 => format!("{}m{:02}s", s / 60, s % 60),
            _ => format!("{}h{:02}m", s / 3600, s / 60 % 60),
        }
    }
}

/// Four significant digits without a long tail: `0.6931`, `12.3k`, `4.5M`.
fn short(v: f64) -> String {
    match v.abs() {
        a if a >= 1e6 => format!("{:.2}M", v / 1e6),
        a if a >= 1e4 => format!("{:.1}k", v / 1e3),
        a if a >= 100.0 => format!("{v:.0}"),
        _ => format!("{v:.3}"),
    }
}

//! What a person sees: a bar with ETA on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::method::Losses;
use crate::observe::metrics_log::Means;

/// Columns of the bar itself, where there is room for it.
const BAR: usize = 20;
/// Columns of a terminal that has not said how many it has.
const COLUMNS: usize = 80;

/// Progress of a training, on stderr.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
    first: u64,
    pace: Pace,
    /// Whether losses were shown yet.
    shown: bool,
}

impl Progress {
    /// Starts at `first` of `total` steps.
    pub fn new(first: u64, total: u64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = deepsim_data::terminal::log::bars().add(ProgressBar::new(total));
            bar.set_position(first);
            let style = ProgressStyle::with_template("{msg}");
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar
        });
        Progress {
            bar,
            total,
            first,
            pace: Pace::default(),
            shown: false,
        }
    }

    /// One more step is done; `means` are of the steps since the last line of the log.
    pub fn tick(&mut self, means: &Means) {
        self.pace.step(Instant::now());
        let Some(bar) = &self.bar else {
            return;
        };
        bar.inc(1);
        let step = bar.position();
        // From the first step on: the log's first line may be minutes away.
        if !self.shown {
            self.show(step, &terms(&means.peek(), None, ""));
        }
    }

    /// New losses, at log steps; `lr` is the generator's learning rate.
    pub fn report(&mut self, step: u64, losses: &Losses, images_per_s: f64, gate: &str, lr: f64) {
        let mut terms = terms(losses, Some(images_per_s), gate);
        terms.push(format!("lr {lr:.1e}"));
        self.shown = true;
        match &self.bar {
            Some(_) => self.show(step, &terms),
            None => tracing::info!(
                "step {step}/{} ETA {} {}",
                self.total,
                self.eta(step),
                terms.join(" ")
            ),
        }
    }

    fn show(&self, step: u64, terms: &[String]) {
        let Some(bar) = &self.bar else {
            return;
        };
        let columns = usize::from(console::Term::stderr().size_checked().map_or(0, |(_, n)| n));
        let columns = match columns {
            0 => COLUMNS,
            n => n,
        };
        bar.set_message(line(step, self.total, &self.eta(step), terms, columns));
    }

    /// Ends the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn eta(&self, step: u64) -> String {
        let left = self.total.saturating_sub(step);
        let done = step.saturating_sub(self.first);
        let Some(seconds) = self.pace.seconds(done, left) else {
            return "?".to_owned();
        };
        let s = seconds as u64;
        match s {
            0..60 => format!("{s}s"),
            60..3600 => format!("{}m{:02}s", s / 60, s % 60),
            _ => format!("{}h{:02}m", s / 3600, s / 60 % 60),
        }
    }
}

/// Measures the time of a step. The first step of a process is not counted: it allocates memory and chooses code,
/// which takes several times as long.
#[derive(Debug, Default)]
struct Pace {
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Pace {
    fn step(&mut self, now: Instant) {
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    /// Time for `left` further steps after `done`.
    fn seconds(&self, done: u64, left: u64) -> Option<f64> {
        let spent: Duration = self.last?.duration_since(self.first?);
        let steps = done.checked_sub(1).filter(|n| *n > 0)?;
        Some(spent.as_secs_f64() / steps as f64 * left as f64)
    }
}

/// What is shown of losses, the most telling first.
fn terms(losses: &Losses, images_per_s: Option<f64>, gate: &str) -> Vec<String> {
    let mut terms: Vec<String> = images_per_s
        .map(|rate| format!("{rate:.0} img/s"))
        .into_iter()
        .collect();
    for (term, &value) in losses.terms.iter() {
        terms.push(format!("{} {}", term.key(), short(value)));
    }
    if losses.discriminator.is_some() {
        terms.push(format!("D {}", short(losses.discriminator())));
    }
    if !gate.is_empty() && gate != "G+D" {
        terms.push(format!("[{gate} only]"));
    }
    terms
}

/// One line of at most so many columns (one less: the cursor has its own): whole terms alone, and the bar where there
/// is room for it.
fn line(step: u64, total: u64, eta: &str, terms: &[String], columns: usize) -> String {
    let columns = columns.saturating_sub(1);
    let mut text = format!("{step}/{total} ETA {eta}");
    for term in terms {
        if text.chars().count() + 1 + term.chars().count() > columns {
            break;
        }
        text.push(' ');
        text.push_str(term);
    }
    if text.chars().count() + BAR + 3 <= columns {
        let filled = (step as u128 * BAR as u128 / u128::from(total.max(1))) as usize;
        let bar = "=".repeat(filled.min(BAR));
        text = format!("[{bar:<BAR$}] {text}");
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Sides;
    use deepsim_nets::loss::{TermKind, Terms};

    fn losses() -> Losses {
        let mut terms = Terms::default();
        terms.set(TermKind::Feature, 12_345_678.0);
        terms.set(TermKind::Adversarial, 0.693);
        terms.set(TermKind::Image, 61_406.0);
        Losses {
            terms,
            discriminator: Some(Sides {
                real: 0.7,
                generated: 0.686,
            }),
            ratio: 2.0,
        }
    }

    #[test]
    fn no_number_is_cut_at_any_width() {
        let terms = terms(&losses(), Some(1234.0), "G");
        assert_eq!(terms.len(), 6);
        let mut seen = 0;
        for columns in 20..140 {
            let text = line(119_999, 120_000, "12h03m", &terms, columns);
            assert!(text.chars().count() < columns.max(28), "{columns}: {text}");
            let whole = terms.iter().filter(|t| text.contains(t.as_str())).count();
            let words: usize = terms[..whole].iter().map(|t| t.split(' ').count()).sum();
            let after = text.split("ETA 12h03m").nth(1).unwrap();
            assert_eq!(after.split_whitespace().count(), words, "{columns}: {text}");
            assert!(whole >= seen, "{columns}: {text}");
            seen = whole;
        }
        let at_80 = line(119_999, 120_000, "12h03m", &terms, 80);
        assert!(at_80.ends_with("D 1.386"), "{at_80}");
        let wide = line(60_000, 120_000, "12h03m", &terms, 120);
        assert!(wide.starts_with("[==========          ] 60000/"), "{wide}");
    }

    #[test]
    fn the_first_step_counts_for_nothing_in_the_time_that_is_left() {
        let mut pace = Pace::default();
        let begun = Instant::now();
        assert_eq!(pace.seconds(0, 10), None);
        // It took eight seconds, the others two each.
        pace.step(begun + Duration::from_secs(8));
        assert_eq!(pace.seconds(1, 10), None);
        pace.step(begun + Duration::from_secs(10));
        assert_eq!(pace.seconds(2, 10), Some(20.0));
        pace.step(begun + Duration::from_secs(12));
        assert_eq!(pace.seconds(3, 9), Some(18.0));
    }
}

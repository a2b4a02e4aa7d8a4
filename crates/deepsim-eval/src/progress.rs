//! A bar on stderr, where a person looks at it.

use std::io::IsTerminal;

use deepsim_experiment::Processes;
use indicatif::{ProgressBar, ProgressStyle};

/// The bar of rank 0, for things that several processes do; the others have none.
pub fn bar_among(processes: &Processes, total: u64, what: &'static str) -> ProgressBar {
    if processes.leads() {
        bar(total, what)
    } else {
        ProgressBar::hidden()
    }
}

/// A bar for `total` things to do; nothing where stderr is no terminal.
pub fn bar(total: u64, what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total).with_message(what);
    let bar = deepsim_data::terminal::log::bars().add(bar);
    if let Ok(style) = ProgressStyle::with_template("{bar:20} {pos}/{len} {msg} ETA {eta}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

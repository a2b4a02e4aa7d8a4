//! One subscriber for what all programs say while they work: `tracing` events become lines for people on stderr, or JSON.
//!
//! Programs flatten [`Options`] into their command line and call [`Options::listen`] first. Libraries only emit events; where
//! nobody listens, nothing is printed.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};
use std::sync::LazyLock;

use indicatif::{MultiProgress, ProgressDrawTarget};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::Stderr;

/// The bars on this program's stderr: lines go above them.
static BARS: LazyLock<MultiProgress> = LazyLock::new(|| {
    MultiProgress::with_draw_target(if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    })
});

/// The bars that lines go above: add yours.
pub fn bars() -> &'static MultiProgress {
    &BARS
}

/// How messages are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Lines for people
    #[default]
    People,
    /// One JSON object a line, with every field
    Json,
}

/// What a program prints of its messages.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Options {
    /// How messages on stderr are printed
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value = "people",
        help_heading = "Messages"
    )]
    log_format: Format,
    /// Say more: what is done, step by step
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "quiet",
        help_heading = "Messages"
    )]
    verbose: bool,
    /// Say only warnings and errors
    #[arg(short, long, global = true, help_heading = "Messages")]
    quiet: bool,
}

impl Options {
    /// The same, but of warnings and errors alone.
    #[must_use]
    pub fn only_warnings(self) -> Options {
        Options {
            quiet: true,
            verbose: false,
            ..self
        }
    }

    /// Begins to print events. `RUST_LOG` overrules how much.
    pub fn listen(self) {
        let level = match (self.quiet, self.verbose) {
            (true, _) => Level::WARN,
            (false, true) => Level::DEBUG,
            (false, false) => Level::INFO,
        };
        // Other libraries' messages below warnings are shown only with `RUST_LOG`.
        let usual = || {
            EnvFilter::builder()
                .with_default_directive(LevelFilter::WARN.into())
                .parse_lossy(format!("warn,{}", ours(level)))
        };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| usual());
        let registry = tracing_subscriber::registry().with(filter);
        // A second call changes nothing.
        let _ = match self.log_format {
            Format::People => registry.with(People).try_init(),
            Format::Json => registry
                .with(
                    tracing_subscriber::fmt::layer()
                        .json()
                        .log_internal_errors(false)
                        .with_writer(|| Stderr),
                )
                .try_init(),
        };
    }
}

/// The crates of the project at a level.
fn ours(level: Level) -> String {
    const CRATES: [&str; 7] = [
        "data",
        "weights",
        "nets",
        "experiment",
        "train",
        "eval",
        "terminal",
    ];
    CRATES
        .map(|name| format!("deepsim_{name}={level}"))
        .join(",")
}

/// Lines for people: the message alone, after its weight where it has any.
struct People;

impl<S: Subscriber> Layer<S> for People {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let weight = match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            Level::INFO => "",
            _ => "debug: ",
        };
        let line = format!("{weight}{}", text.message);
        BARS.suspend(|| crate::tell(line));
    }
}

/// The message of an event; its fields are for programs.
#[derive(Default)]
struct Text {
    message: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a string does not fail.
            let _ = write!(self.message, "{value:?}");
        }
    }
}

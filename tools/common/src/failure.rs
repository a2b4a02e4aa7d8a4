//! What can go wrong, by exit code: a refusal (the user can mend it) is 2, a failed child passes
//! its own code on, everything else is 1.

use std::process::ExitCode;

/// A request or a machine that set-up cannot work with; the message says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(String);

/// A refusal as an [`anyhow::Error`].
pub fn refuse(message: impl Into<String>) -> anyhow::Error {
    Refusal(message.into()).into()
}

/// A command that was started here and did not succeed; it has said why itself.
#[derive(Debug, thiserror::Error)]
#[error("{what} {ending}{hint}")]
pub struct ChildFailed {
    /// What the command was for, a sentence's subject: `training`, `pip download torch`.
    pub what: String,
    /// How it ended.
    pub ending: Ending,
    /// What to do now; empty or beginning with a separator.
    pub hint: String,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With an exit code other than 0.
    Code(u8),
    /// By a signal.
    Signal(u8),
}

impl Ending {
    /// The code that a shell would show for it.
    pub fn code(self) -> u8 {
        match self {
            Ending::Code(code) => code,
            Ending::Signal(signal) => signal.saturating_add(128),
        }
    }

    /// Whether Ctrl-C or SIGTERM ended it, by itself or after it had saved its work.
    pub fn interrupted(self) -> bool {
        matches!(self.code(), 130 | 143)
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            _ if self.interrupted() => f.write_str("was interrupted"),
            Ending::Code(code) => write!(f, "failed (exit code {code})"),
            Ending::Signal(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

/// Whether an error is a child that Ctrl-C or SIGTERM ended.
pub fn is_interrupted(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<ChildFailed>()
        .is_some_and(|child| child.ending.interrupted())
}

/// What a program's `main` gives: an error is told first, and has its exit code.
pub fn ended(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    deepsim_terminal::tell(format_args!("error: {error:#}"));
    if let Some(child) = error.downcast_ref::<ChildFailed>() {
        ExitCode::from(child.ending.code())
    } else if error.downcast_ref::<Refusal>().is_some() {
        ExitCode::from(2)
    } else {
        ExitCode::from(1)
    }
}

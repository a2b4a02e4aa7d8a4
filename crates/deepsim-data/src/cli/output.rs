//! Results and failures of the commands.

/// An error of the work itself, after the request was found to be in order.
#[derive(Debug)]
pub struct Failed(pub anyhow::Error);

impl std::fmt::Display for Failed {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(&deepsim_data::with_causes(self.0.as_ref()))
    }
}

impl std::error::Error for Failed {}

/// Prints a line of results. If the reader has closed the pipe, the program ends without an error.
pub(super) fn say(line: &str) -> anyhow::Result<()> {
    deepsim_data::terminal::print(format_args!("{line}\n")).map_err(|error| {
        Failed(anyhow::Error::from(error).context("cannot write to stdout")).into()
    })
}

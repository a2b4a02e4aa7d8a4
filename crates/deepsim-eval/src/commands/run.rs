//! What every command does for its arguments.

use deepsim_experiment::Consent;

use super::print::Result;

/// The arguments of a command.
pub(super) trait Run {
    /// Does what they ask for.
    ///
    /// # Errors
    /// What the command line names wrongly, and failures of the work.
    fn run(self, consent: &Consent) -> Result<()>;
}

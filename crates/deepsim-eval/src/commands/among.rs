//! Commands that several processes can do together.

use std::collections::BTreeMap;
use std::time::Duration;

use deepsim_data::terminal::one_line;
use deepsim_eval::EvalError;
use deepsim_experiment::{Consent, ExperimentError, Processes, rendezvous};

use super::print::{Result, warn};

/// How long processes wait for each other, half an hour.
const PATIENCE: Duration = Duration::from_secs(1800);

/// The arguments of a command that several processes can do together.
pub(super) trait RunAmong {
    /// Does what they ask for: rank 0 prints and writes, the others compute.
    ///
    /// # Errors
    /// What the command line names wrongly, failures of the work, and those of another process.
    fn run_among(self, consent: &Consent, processes: &Processes) -> Result<()>;
}

/// The processes that the environment tells of; waits until all have come. One process where it tells of none.
///
/// # Errors
/// Variables that contradict each other, a process that does not come; several processes for a command that one does alone.
pub fn join(several: bool) -> Result<Processes> {
    let Some(at) = rendezvous::read("deepsim-eval", variable)? else {
        return Ok(Processes::alone());
    };
    if !several {
        let reason = format!(
            "WORLD_SIZE is {}, but only table2, neighbors, reencode and measure can be done by several processes: start \
             this command once, without RANK and WORLD_SIZE",
            at.size
        );
        return Err(ExperimentError::Ranks(reason).into());
    }
    Ok(Processes::join(&at, PATIENCE)?)
}

/// Whether the environment calls this process one that follows rank 0 and says nothing but warnings and errors.
pub fn is_follower() -> bool {
    rendezvous::is_follower(variable)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Checks that all processes do the same with the same program: `asked` has options by their names.
pub fn agree(processes: &Processes, command: &str, asked: &[(&str, String)]) -> Result<()> {
    let capability = deepsim_nets::capability().map(|capability| format!("{capability:?}"));
    let program = [
        ("the command", command.to_owned()),
        (
            "the version of deepsim",
            env!("CARGO_PKG_VERSION").to_owned(),
        ),
        ("the version of libtorch", deepsim_nets::torch_version()),
        // Other kernels, and sums by other numbers of threads, round differently.
        (
            "the processor's instruction set",
            capability.unwrap_or_default(),
        ),
        (
            "the number of threads (OMP_NUM_THREADS)",
            tch::get_num_threads().to_string(),
        ),
    ];
    let named = |facts: &[(&str, String)]| -> BTreeMap<String, String> {
        let facts = facts.iter();
        facts
            .map(|(name, value)| ((*name).to_owned(), one_line(value).into_owned()))
            .collect()
    };
    // Another command has other options: that it is another one is what to tell.
    processes.agree::<EvalError>(&named(&program))?;
    processes.agree(&named(asked))
}

/// Remarks that all processes come to: rank 0 makes them.
pub fn warn_once(processes: &Processes) -> impl Fn(String) + use<> {
    let leads = processes.leads();
    move |text| {
        if leads {
            warn(text);
        }
    }
}

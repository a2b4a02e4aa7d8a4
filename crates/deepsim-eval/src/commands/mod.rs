//! The commands, one file each: its arguments are the request, and `run` does it.

mod among;
pub mod args;
mod ask;
mod asked;
mod attributes;
mod baseline;
mod compare;
mod decode;
mod figure;
mod forward;
mod interpolate;
mod invert;
mod losses;
mod measure;
mod neighbors;
mod preimages;
pub mod print;
mod reencode;
mod report;
mod run;
mod runs;
mod sample;
mod table1;
mod table2;

use clap::Subcommand;
use deepsim_experiment::{Consent, Processes};

use among::RunAmong;
use print::Result;
use run::Run;

pub use among::is_follower;

/// A command and what it is asked.
#[derive(Subcommand)]
pub enum Command {
    Table1(table1::Table1),
    Table2(table2::Table2),
    Figure(figure::Figure),
    Reencode(reencode::Reencode),
    Interpolate(interpolate::Interpolate),
    Sample(sample::Sample),
    Preimages(preimages::Preimages),
    Attributes(attributes::Attributes),
    Losses(losses::Losses),
    Measure(measure::Measure),
    Neighbors(neighbors::Neighbors),
    /// Methods that train no generator.
    #[command(subcommand)]
    Baseline(baseline::Baseline),
    Invert(invert::Invert),
    Decode(decode::Decode),
    Compare(compare::Compare),
    Ask(ask::Ask),
    Asked(asked::Asked),
    Report(report::Report),
    Runs(runs::Runs),
    Forward(forward::Forward),
}

impl Command {
    /// Does it, as [`Run::run`] of the command; by several processes, where they were started and it can be.
    pub fn run(self, consent: &Consent) -> Result<()> {
        let several = matches!(
            self,
            Command::Table2(_) | Command::Reencode(_) | Command::Neighbors(_) | Command::Measure(_)
        );
        let processes = among::join(several)?;
        let done = self.run_among(consent, &processes);
        // Nobody waits for one that has failed, and none is content before all are.
        processes.together(done)
    }

    fn run_among(self, consent: &Consent, processes: &Processes) -> Result<()> {
        match self {
            Command::Table1(asked) => asked.run(consent),
            Command::Table2(asked) => asked.run_among(consent, processes),
            Command::Figure(asked) => asked.run(consent),
            Command::Reencode(asked) => asked.run_among(consent, processes),
            Command::Interpolate(asked) => asked.run(consent),
            Command::Sample(asked) => asked.run(consent),
            Command::Preimages(asked) => asked.run(consent),
            Command::Attributes(asked) => asked.run(consent),
            Command::Losses(asked) => asked.run(consent),
            Command::Measure(asked) => asked.run_among(consent, processes),
            Command::Neighbors(asked) => asked.run_among(consent, processes),
            Command::Baseline(asked) => asked.run(consent),
            Command::Invert(asked) => asked.run(consent),
            Command::Decode(asked) => asked.run(consent),
            Command::Compare(asked) => asked.run(consent),
            Command::Ask(asked) => asked.run(consent),
            Command::Asked(asked) => asked.run(consent),
            Command::Report(asked) => asked.run(consent),
            Command::Runs(asked) => asked.run(consent),
            Command::Forward(asked) => asked.run(consent),
        }
    }
}

//! `baseline`: methods that train nothing.

mod icnn;
mod mv;

use clap::Subcommand;
use deepsim_experiment::Consent;

use crate::commands::print::Result;
use crate::commands::run::Run;

/// The methods.
#[derive(Subcommand)]
pub enum Baseline {
    Mv(mv::Mv),
    Icnn(Box<icnn::Icnn>),
}

impl Run for Baseline {
    fn run(self, consent: &Consent) -> Result<()> {
        match self {
            Baseline::Mv(asked) => asked.run(consent),
            Baseline::Icnn(asked) => asked.run(consent),
        }
    }
}

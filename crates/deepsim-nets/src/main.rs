//! `deepsim-nets import` of earlier versions: starts `deepsim-weights`, which has the command now.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Beside this program, or by the cargo that runs it.
fn moved() -> Option<Command> {
    let beside = std::env::current_exe()
        .ok()?
        .with_file_name("deepsim-weights");
    if beside.is_file() {
        return Some(Command::new(beside));
    }
    let mut cargo = Command::new(std::env::var_os("CARGO")?);
    cargo.args(["run", "--quiet", "--package", "deepsim-weights", "--"]);
    Some(cargo)
}

fn main() -> ExitCode {
    deepsim_terminal::tell(format_args!(
        "note: `deepsim-nets import` is `deepsim-weights import` now; the old name goes with the next release"
    ));
    let Some(mut command) = moved() else {
        deepsim_terminal::tell(format_args!(
            "error: there is no deepsim-weights beside this program: cargo run -p deepsim-weights -- import --help"
        ));
        return ExitCode::from(2);
    };
    let error = command.args(std::env::args_os().skip(1)).exec();
    deepsim_terminal::tell(format_args!(
        "error: deepsim-weights cannot be started: {error}"
    ));
    ExitCode::FAILURE
}

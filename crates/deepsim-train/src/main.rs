//! `deepsim-train EXPERIMENT.toml`

#![warn(clippy::print_stdout, clippy::print_stderr)] // they panic where nobody reads: `deepsim_data::terminal`

mod next;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use deepsim_data::terminal::{self, parse, print};
use deepsim_experiment::consent::parse_hash;
use deepsim_experiment::{Consent, Experiment, Intent};
use deepsim_train::Request;
use deepsim_train::ranks::Ranks;
use deepsim_train::signals::Stop;
use deepsim_train::train::{End, train};

/// Train an experiment: a generator that turns features back into images.
///
/// Writes runs/NAME (or --out): the resolved experiment, checkpoints, metrics.jsonl,
/// TensorBoard events and sample images. Ctrl-C saves a checkpoint and exits; --resume goes
/// on exactly there: bit for bit on the same kind of machine with the same number of threads.
#[derive(Parser)]
#[command(
    name = "deepsim-train",
    version,
    after_help = "\
Examples, after `cargo xtask quickstart`:
  cargo run -p deepsim-train -- experiments/quickstart-image-loss.toml
      the same with the image loss alone, minutes
  cargo run -p deepsim-train -- experiments/quickstart.toml --out runs/try \\
      --steps 20 --set train.log_every=1
      a short trial in a directory of its own
  cargo run -p deepsim-train -- experiments/quickstart.toml \\
      --resume --steps 2500
      go on with the finished run

With ImageNet and CaffeNet's weights (README.md says how to prepare them):
  cargo run --release -p deepsim-train -- experiments/conv5.toml

Several processes train one run together as PyTorch's do (each has its part
of every batch; rank 0 writes), by torchrun or by RANK, WORLD_SIZE, MASTER_ADDR
and MASTER_PORT:
  PYTHONPATH=third_party/py third_party/py/bin/torchrun --no-python \\
      --standalone --nproc-per-node 2 target/release/deepsim-train \\
      experiments/conv5.toml --resume
With torchrun's --max-restarts, add --resume. Where there is a GPU, add
--device cpu (a build with NCCL takes the GPU of LOCAL_RANK). torchrun gives
each process one thread, or train.threads; its own exit code is 0 or 1. A
process that does not answer is given up after train.patience seconds (120).

After `cargo xtask setup --torch full`, curves of all runs:
  PYTHONPATH=third_party/py python3 -m tensorboard.main --logdir runs

Exit codes: 0 done; 1 failed while training (what was learned is saved, where
it is worth it), or another process of it has ended or does not answer; 2 the
experiment, its inputs or the run directory cannot be used as asked, found
before the first step; 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP
and 138 after SIGUSR1 (saved)."
)]
struct Arguments {
    /// The experiment file.
    experiment: PathBuf,
    /// Total number of iterations; may grow when resuming.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    steps: Option<u64>,
    /// Go on from the newest checkpoint (from step 0 where there is none). Bit for bit the run that was
    /// never stopped, where the number of threads is the same.
    #[arg(long, conflicts_with = "fresh")]
    resume: bool,
    /// Delete this run's earlier results and start over.
    #[arg(long)]
    fresh: bool,
    /// Where to compute: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Run directory [default: runs/NAME].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Run the TorchScript modules of the experiment: such a file is a program. With hashes: only those; without: on a run,
    /// only what it was trained with.
    #[arg(
        long,
        value_name = "BLAKE3,…",
        num_args = 0..,
        require_equals = true,
        value_delimiter = ',',
        value_parser = parse_hash
    )]
    trust_code: Option<Vec<String>>,
    /// Override a key of the experiment, such as train.batch_size=16 (repeatable).
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print the complete experiment, with what it extends and all overrides, and train nothing.
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    log: terminal::log::Options,
}

fn main() -> ExitCode {
    deepsim_nets::keep_memory();
    // If the handler cannot be set, the program runs without it.
    let _ = deepsim_data::terminal::fail_at_the_file_limit();
    let arguments: Arguments = parse();
    // Rank 0 tells what all would.
    if Ranks::is_follower(|name| std::env::var(name).ok()) {
        arguments.log.only_warnings().listen();
    } else {
        arguments.log.listen();
    }
    deepsim_nets::fit_threads();
    if let Err(error) = deepsim_nets::capability() {
        tracing::error!("{error}");
        return ExitCode::from(2);
    }
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// The command that goes on.
fn again() -> String {
    let words = std::env::args_os().filter(|word| word != "--resume" && word != "--fresh");
    let mut words: Vec<_> = words.collect();
    // What follows a double dash are no options.
    let end = words.iter().position(|word| word == "--");
    words.insert(end.unwrap_or(words.len()), "--resume".into());
    terminal::command(words)
}

fn run(arguments: &Arguments) -> Result<ExitCode, deepsim_train::TrainError> {
    let mut sets = arguments.set.clone();
    sets.extend(arguments.steps.map(|n| format!("train.steps={n}")));
    let experiment = Experiment::load(&arguments.experiment, &sets)?;
    if arguments.print {
        // A reader who is gone has seen enough.
        let _ = terminal::print_data(&experiment.to_toml()?);
        return Ok(ExitCode::SUCCESS);
    }
    let out = arguments
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from("runs").join(&experiment.config.name));
    let intent = match (arguments.resume, arguments.fresh) {
        (true, _) => Intent::Resume,
        (_, true) => Intent::Fresh,
        _ => Intent::Ask,
    };
    let stop = Stop::listen().map_err(deepsim_experiment::ExperimentError::io(&out))?;
    let request = Request {
        out: out.clone(),
        intent,
        device: arguments.device.clone(),
        consent: Consent::new(arguments.trust_code.as_deref(), std::env::args_os()),
    };
    let patience = Duration::from_secs(experiment.config.train.patience);
    let ranks = Ranks::join(|name| std::env::var(name).ok(), patience)?;
    Ok(match train(&experiment, &request, &stop, &ranks)? {
        // Rank 0 says it.
        End::Done(_) if !ranks.leads() => ExitCode::SUCCESS,
        End::Stopped(_, code) if !ranks.leads() => ExitCode::from(code),
        End::Done(step) => {
            // The run is done, whoever reads it.
            let _ = print(format_args!(
                "done: step {step}, run {}\n",
                terminal::path(&out)
            ));
            tracing::info!("next: {}", next::command(&experiment, &out));
            ExitCode::SUCCESS
        }
        End::Stopped(step, code) => {
            tracing::info!(
                "stopped: saved step {step} in {}; go on with --resume:\n  {}",
                terminal::path(&out),
                again()
            );
            ExitCode::from(code)
        }
    })
}

//! `deepsim-eval`: tables, reconstructions and tensors from trained runs.

mod cli;
mod commands;
mod progress;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use deepsim_eval::format::{Format, csv, json};
use deepsim_eval::loaded::Loaded;
use deepsim_eval::{EvalError, compare, door, invert, runs, table1, table2};
use deepsim_experiment::{Clip, Experiment, device};

use cli::{Cli, Command};

fn main() -> ExitCode {
    deepsim_nets::keep_memory();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .init();
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: Command) -> Result<(), EvalError> {
    match command {
        Command::Table1 { experiment, output } => {
            let spec = match experiment {
                Some(path) => Experiment::load(&path, &[])?.generator,
                None => table1::paper_spec(),
            };
            output.put("table1", &table1::render(&spec, output.format)?)
        }
        Command::Table2 {
            runs,
            images,
            no_clip,
            output,
        } => {
            let folder = runs::folder(runs.runs)?;
            let clip = if no_clip {
                Clip::Off
            } else {
                Clip::Displayable
            };
            let options = table2::Options {
                images,
                clip,
                device: device::choose(&runs.device)?,
            };
            let bar = progress::bar(table2::count(folder.as_deref())?, "runs");
            let warn = |w| eprintln!("warning: {w}");
            let rows = table2::rows(folder.as_deref(), options, warn, |n| bar.inc(n))?;
            bar.finish_and_clear();
            if rows.iter().all(|r| r.run.is_none()) {
                eprintln!(
                    "hint: no trained runs yet; `cargo xtask quickstart` trains one on sample photos"
                );
            }
            output.put("table2", &table2::render(&rows, output.format)?)
        }
        Command::Figure {
            figure,
            runs,
            encoder,
            images,
            filter,
            format,
            out,
        } => {
            let asked = commands::DrawFigure {
                figure,
                encoder,
                images,
                filter,
                format,
                out,
            };
            commands::figure(runs, &asked)
        }
        Command::Reencode {
            photos,
            runs,
            iterations,
            images,
            show,
            format,
            out,
        } => {
            let asked = commands::Reencode {
                photos,
                iterations,
                images,
                show,
                format,
                out,
            };
            commands::reencode(runs, &asked)
        }
        Command::Interpolate {
            a,
            b,
            steps,
            runs,
            delay,
            format,
            out,
        } => {
            let asked = commands::Interpolate {
                a,
                b,
                steps,
                delay,
                format,
                out,
            };
            commands::interpolate(runs, &asked)
        }
        Command::Neighbors {
            runs,
            images,
            show,
            format,
            out,
        } => {
            let asked = commands::Neighbors {
                images,
                show,
                format,
                out,
            };
            commands::neighbors(runs, &asked)
        }
        Command::Baseline(baseline) => commands::baseline(baseline),
        Command::Invert {
            images,
            run,
            device,
            out,
            format,
        } => {
            let device = device::choose(&device)?;
            let run = Loaded::open(&run, device)?;
            let made = invert::invert(&run, &images, &out, device)?;
            print!("{}", list(&made, format)?);
            Ok(())
        }
        Command::Compare {
            runs,
            images,
            filter,
            out,
            device,
        } => {
            let names = compare::compare(&runs, images, &filter, &out, device::choose(&device)?)?;
            eprintln!("wrote {}", out.display());
            for name in names {
                println!("{name}");
            }
            Ok(())
        }
        Command::Forward {
            experiment,
            net,
            weights,
            input,
            output,
            run,
            set,
            device,
        } => {
            let experiment = Experiment::load(&experiment, &set)?;
            let run = run.unwrap_or_else(|| Path::new("runs").join(&experiment.raw.name));
            let request = door::Request {
                net,
                weights,
                run,
                input,
                output,
            };
            let shape = door::forward(&experiment, &request, device::choose(&device)?)?;
            eprintln!("wrote y {shape:?} to {}", request.output.display());
            Ok(())
        }
    }
}

fn list(made: &[invert::Inverted], format: Format) -> Result<String, EvalError> {
    match format {
        Format::Json => json(made),
        Format::Csv => csv(made),
        Format::Text => Ok(made.iter().map(|m| format!("{}\n", m.pair)).collect()),
    }
}

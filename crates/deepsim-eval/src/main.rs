//! `deepsim-eval`: tables, reconstructions and tensors from trained runs.

#![warn(clippy::print_stdout, clippy::print_stderr)] // they panic where nobody reads: `deepsim_data::terminal`

mod cli;
mod commands;
mod progress;

use std::path::Path;
use std::process::ExitCode;

use deepsim_data::terminal::{self, one_line, path as shown, tell};
use deepsim_eval::format::{Format, csv, json};
use deepsim_eval::{EvalError, ask, compare, decode, door, invert, output, table1};
use deepsim_experiment::{Consent, Experiment, device, run_dir};
use serde::Serialize;

use cli::{Cli, Command};

fn main() -> ExitCode {
    deepsim_nets::keep_memory();
    // Where no handler can be set, things are as they would be without.
    let _ = terminal::fail_at_the_file_limit();
    let _ = terminal::end_as_first_process();
    tracing_subscriber::fmt()
        .with_writer(|| deepsim_data::terminal::Stderr)
        .with_ansi(false)
        // It would panic on a stderr that is gone.
        .log_internal_errors(false)
        .with_target(false)
        .without_time()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .init();
    let cli: Cli = deepsim_data::terminal::parse();
    deepsim_nets::fit_threads();
    if let Err(error) = deepsim_nets::capability() {
        tell(format_args!("error: {error}"));
        return ExitCode::from(2);
    }
    let consent = Consent::new(cli.trust_code.as_deref(), std::env::args_os());
    match run(cli.command, consent) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: Command, consent: Consent) -> Result<(), EvalError> {
    match command {
        Command::Table1 {
            file,
            experiment,
            output,
        } => {
            let spec = match file.or(experiment) {
                Some(path) => Experiment::load(&path, &[])?.generator,
                None => table1::paper_spec(),
            };
            output.put("table1", &table1::render(&spec, output.format)?)
        }
        Command::Table2 {
            runs,
            images,
            no_clip,
            judges,
            judge_weights,
            output,
        } => commands::table2(
            runs,
            &commands::Table2 {
                consent,
                images,
                no_clip,
                judges,
                judge_weights,
                output,
            },
        ),
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
                consent,
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
                consent,
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
                consent,
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
                consent,
                images,
                show,
                format,
                out,
            };
            commands::neighbors(runs, &asked)
        }
        Command::Sample {
            runs,
            count,
            show,
            seed,
            images,
            judge_weights,
            format,
            out,
        } => {
            let asked = commands::Sample {
                consent,
                count,
                show,
                seed,
                images,
                judge_weights,
                format,
                out,
            };
            commands::sample(runs, &asked)
        }
        Command::Preimages {
            runs,
            draws,
            images,
            show,
            seed,
            device,
            format,
            out,
        } => commands::preimages(&commands::Preimages {
            consent,
            runs,
            draws,
            images,
            show,
            seed,
            device,
            format,
            out,
        }),
        Command::Attributes {
            runs,
            labels,
            attribute,
            strength,
            images,
            show,
            device,
            format,
            out,
        } => commands::attributes(&commands::Attributes {
            consent,
            runs,
            labels,
            attribute,
            strength,
            images,
            show,
            device,
            format,
            out,
        }),
        Command::Losses {
            runs,
            images,
            show,
            filter,
            judge_weights,
            format,
            out,
        } => {
            let asked = commands::Losses {
                consent,
                images,
                show,
                filter,
                judge_weights,
                format,
                out,
            };
            commands::losses(runs, &asked)
        }
        Command::Baseline(baseline) => commands::baseline(baseline, &consent),
        Command::Invert {
            images,
            generator,
            frame,
            device,
            out,
            format,
        } => {
            let device = device::choose(&device)?;
            let made = invert::invert(
                &generator.open(device)?,
                &images,
                frame,
                &out,
                &consent,
                device,
            )?;
            output::show_as(format, &list(&made, format, |m| &m.pair)?)?;
            Ok(())
        }
        Command::Decode {
            features,
            generator,
            device,
            out,
            format,
        } => {
            let device = device::choose(&device)?;
            let made = decode::decode(&generator.open(device)?, &features, &out, device)?;
            output::show_as(format, &list(&made, format, |m| &m.picture)?)?;
            Ok(())
        }
        Command::Compare {
            runs,
            images,
            filter,
            out,
            device,
        } => {
            let names = compare::compare(
                &runs,
                images,
                &filter,
                &out,
                &consent,
                device::choose(&device)?,
            )?;
            tell(format_args!("wrote {}", shown(out)));
            for name in names {
                output::show(format_args!("{}\n", one_line(&name)))?;
            }
            Ok(())
        }
        Command::Ask {
            runs,
            images,
            filter,
            out,
            device,
        } => {
            output::check("--out", &out, output::Kind::Page)?;
            let (page, questions) =
                ask::page(&runs, images, &filter, &consent, device::choose(&device)?)?;
            output::write(&out, page.as_bytes())?;
            tell(format_args!("wrote {}: {questions} questions", shown(out)));
            Ok(())
        }
        Command::Asked { answers, format } => {
            output::show_as(format, &ask::render(&ask::count(&answers)?, format)?)?;
            Ok(())
        }
        Command::Report {
            runs,
            photos,
            images,
            judge_weights,
            out,
        } => {
            let asked = commands::Report {
                consent,
                photos,
                images,
                judge_weights,
                out,
            };
            commands::report(runs, &asked)
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
            let own = run_dir::of_file(&experiment).ok().flatten();
            let experiment = Experiment::load(&experiment, &set)?;
            let run = run
                .or_else(|| own.map(|(run, _)| run))
                .unwrap_or_else(|| Path::new("runs").join(&experiment.raw.name));
            let request = door::Request {
                net,
                weights,
                run,
                input,
                output,
                consent,
            };
            let warn = |text| tell(format_args!("warning: {text}"));
            let shape = door::forward(&experiment, &request, device::choose(&device)?, warn)?;
            tell(format_args!(
                "wrote y {shape:?} to {}",
                shown(&request.output)
            ));
            Ok(())
        }
    }
}

fn list<T: Serialize + Default>(
    made: &[T],
    format: Format,
    line: impl Fn(&T) -> &String,
) -> Result<String, EvalError> {
    match format {
        Format::Json => json(made),
        Format::Csv => csv(made),
        Format::Text => Ok(made
            .iter()
            .map(|m| format!("{}\n", one_line(line(m))))
            .collect()),
    }
}

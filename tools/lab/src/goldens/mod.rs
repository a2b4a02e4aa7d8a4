//! `cargo xtask goldens`: short trainings that cover every path, bit for bit the same before and after a change of the code.

mod golden;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args as ClapArgs;
use serde_json::Value;

use crate::samples;
use deepsim_tools::failure::refuse;
use deepsim_tools::machine;
use deepsim_tools::programs::Programs;
use deepsim_tools::stages::{Stages, note, seconds};
use deepsim_tools::workspace::Workspace;
use golden::{Golden, Map, Record};

pub const EXAMPLES: &str = "\
Examples:
  cargo xtask goldens --record target/before.json
      train the cases and write what came out
  cargo xtask goldens --check target/before.json
      train them again: all must be equal bit for bit
  cargo xtask goldens --check target/before.json --only one-pass
      one case
  cargo xtask goldens --record target/before.json --programs ../old/target/debug
      with the programs of another checkout, such as one of an earlier commit
  cargo xtask goldens --check tools/lab/goldens.json --portable \\
      --programs target/debug
      the first losses within 1e-4, on any machine, with programs that are
      built (`cargo xtask test` does it)

A record of all steps holds for one processor. Exit codes: 0 equal, 1 different
(named), 2 a record of another processor, an unknown case, a file that cannot
be read.";

/// Where cases are trained; a case's folder is removed before it is trained anew.
const FOLDER: &str = "target/goldens";

/// The groups of photos that the record is of: those of the one package that every set-up has.
const GROUPS: [&str; 6] = [
    "categorization",
    "erase",
    "explore_farm_animals",
    "explore_monuments",
    "explore_world_animals",
    "explore_world_music",
];

/// What every case has in common: small, in one thread, and every step told. Epsilon is far above rounding, so that Adam
/// makes no full step of what is nearly nothing, and the first losses are those of any processor.
const COMMON: [&str; 14] = [
    "generator.width=0.125",
    "train.threads=1",
    "train.log_every=1",
    "train.checkpoint_every=30",
    "train.keep_checkpoints=1",
    "train.sample_every=0",
    "train.eval_every=15",
    "train.eval_images=8",
    "train.batch_size=4",
    "train.seed=1",
    "train.discriminator_passes=paper",
    "train.precision=fp32",
    "optimizer.generator.eps=1e-3",
    "optimizer.discriminator.eps=1e-3",
];

/// Steps of a case, and those of a record for any machine.
const STEPS: u64 = 30;
const PORTABLE_STEPS: u64 = 3;

/// What a record for any machine changes. With an epsilon far above most gradients a step follows them, and not their signs:
/// what rounding changes in a gradient changes the next losses as little.
const PORTABLE: [&str; 3] = [
    "train.eval_images=2",
    "optimizer.generator.eps=1.0",
    "optimizer.discriminator.eps=1.0",
];

/// Trainings of one thread that run at the same time for a record of the first losses.
const AT_ONCE: usize = 2;

/// How far losses may differ between machines, relative. Libraries sum in other orders on other processors; in single
/// precision that changes these losses by some 1e-6, and by more after an update or two.
const WITHIN: f64 = 1e-4;

/// The same for bfloat16, whose numbers have eight bits: where rounding in single precision falls on the other side of one, the
/// number differs by 4e-3.
const WITHIN_BF16: f64 = 1e-2;

/// The same where batches of four are normalised: a small deviation divides what rounding has changed.
const WITHIN_NORMALISED: f64 = 1e-3;

/// A training and the command that looks at what it made.
struct Case {
    name: &'static str,
    experiment: &'static str,
    /// Beside [`COMMON`]; later ones count.
    set: &'static [&'static str],
    /// Environment of the training.
    env: &'static [(&'static str, &'static str)],
    /// Whether its encoder has an optimiser.
    encoder_learns: bool,
    /// How far its losses may differ between machines, relative.
    within: f64,
    study: &'static [&'static str],
}

const TABLE: &[&str] = &["table2"];
const SAMPLE: &[&str] = &["sample", "--count", "16"];

const fn case(name: &'static str, experiment: &'static str) -> Case {
    Case {
        name,
        experiment,
        set: &[],
        env: &[],
        encoder_learns: false,
        within: WITHIN,
        study: TABLE,
    }
}

/// One for each path through a training.
const CASES: [Case; 11] = [
    case("quickstart", "experiments/quickstart.toml"),
    Case {
        set: &["train.discriminator_passes=one"],
        ..case("one-pass", "experiments/sample/pool5.toml")
    },
    case(
        "discriminator",
        "experiments/sample/pool5-discriminator.toml",
    ),
    Case {
        encoder_learns: true,
        study: SAMPLE,
        ..case("vae", "experiments/sample/vae-alexnet.toml")
    },
    Case {
        encoder_learns: true,
        ..case("ms-ssim", "experiments/sample/ae-ms-ssim.toml")
    },
    case("super-resolution", "experiments/sample/sr-deepsim.toml"),
    Case {
        set: &["encoder.features=target/goldens/responses.safetensors"],
        ..case("recorded", "experiments/sample/recorded.toml")
    },
    case("diverse", "experiments/sample/diverse.toml"),
    Case {
        set: &["encoder.width=0.125", "discriminator.width=0.125"],
        encoder_learns: true,
        within: WITHIN_NORMALISED,
        study: SAMPLE,
        ..case("vaegan", "experiments/sample/faces-vaegan.toml")
    },
    case(
        "noise-conditioned",
        "experiments/sample/noise-conditioned.toml",
    ),
    Case {
        set: &["train.precision=bf16"],
        // The same code on every processor.
        env: &[("DEEPSIM_CPU_CAPABILITY", "plain")],
        within: WITHIN_BF16,
        ..case("bf16", "experiments/quickstart.toml")
    },
];

/// What `cargo xtask goldens` takes.
#[derive(Debug, ClapArgs)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["record", "check"]))]
pub struct Args {
    /// Train and write what came out
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Train and compare with what was written
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Only this case (repeatable)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only the losses of the first three steps, which hold within 1e-4 on any machine
    #[arg(long)]
    portable: bool,
    /// Programs that are built, such as another checkout's target/debug. Nothing is set up then: a run without this
    /// option has done that
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// JSON of tensors that changed their names: "renamed" (old to new), "gone" and "added" (name to reason)
    #[arg(long, value_name = "FILE", requires = "check")]
    map: Option<PathBuf>,
}

/// Trains the cases, and writes or compares what came out.
///
/// # Errors
/// What set-up refuses, a program that fails, differences.
pub fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let cases = chosen(&args.only)?;
    let before = args.check.as_deref().map(Record::read).transpose()?;
    let map = args.map.as_deref().map(Map::read).transpose()?;
    let map = map.unwrap_or_default();
    if let Some(before) = &before {
        is_comparable(before, &cases, args.portable)?;
    }
    let (programs, photos, mut stages) = ready(ws, args, &cases)?;
    let photos = of_groups(ws, &photos)?;
    let mut record = Record {
        processor: machine::processor().unwrap_or_default(),
        portable: args.portable,
        cases: [].into(),
    };
    let mut differences = Vec::new();
    for cases in cases.chunks(if args.portable { AT_ONCE } else { 1 }) {
        let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
        stages.next(&format!("training {}", names.join(" and ")));
        let trained = std::thread::scope(|scope| {
            let running: Vec<_> = cases
                .iter()
                .map(|case| scope.spawn(|| train(ws, &programs, &photos, case, args.portable)))
                .collect();
            let ended = running.into_iter().map(|one| one.join());
            ended.collect::<Vec<_>>()
        });
        for (case, golden) in cases.iter().zip(trained) {
            let golden = golden.map_err(|_| anyhow!("training {} failed", case.name))??;
            if let Some(before) = &before {
                let within = args.portable.then_some(case.within);
                let found = golden.differences(&before.cases[case.name], &map, within);
                note(match found.len() {
                    0 => format!("{}: equal: {} values", case.name, golden.len()),
                    n => format!("{}: {n} differences", case.name),
                });
                let named = found.into_iter();
                differences.extend(named.map(|what| format!("{}: {what}", case.name)));
            }
            record.cases.insert(case.name.to_owned(), golden);
        }
    }
    if let Some(file) = &args.record {
        record.write(file)?;
        note(format_args!("written: {}", file.display()));
    }
    if differences.is_empty() {
        note(format_args!("done in {}", seconds(stages.elapsed())));
        return Ok(());
    }
    const SHOWN: usize = 20;
    let mut text = differences[..differences.len().min(SHOWN)].join("\n");
    if differences.len() > SHOWN {
        text.push_str(&format!("\n… and {} more", differences.len() - SHOWN));
    }
    bail!("not what was recorded:\n{text}")
}

/// Copies the photos of [`GROUPS`]: what other packages are installed must not change what is recorded.
fn of_groups(ws: &Workspace, photos: &Path) -> Result<PathBuf> {
    let folder = ws.path(FOLDER).join("photos");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    for group in GROUPS {
        let (from, to) = (photos.join(group), folder.join(group));
        fs::create_dir_all(&to).with_context(|| format!("making {}", to.display()))?;
        let found = fs::read_dir(&from)
            .with_context(|| format!("reading {}: cargo xtask setup brings it", from.display()))?;
        for photo in found {
            let photo = photo.with_context(|| format!("reading {}", from.display()))?;
            fs::copy(photo.path(), to.join(photo.file_name()))
                .with_context(|| format!("copying {}", photo.path().display()))?;
        }
    }
    Ok(folder)
}

/// Set-up and programs. Where the programs are given, so is what they need: nothing is fetched or built then.
fn ready(ws: &Workspace, args: &Args, cases: &[&Case]) -> Result<(Programs, PathBuf, Stages)> {
    const NAMES: [&str; 2] = ["deepsim-train", "deepsim-eval"];
    let at_once = if args.portable { AT_ONCE } else { 1 };
    let trainings = cases.len().div_ceil(at_once);
    if let Some(folder) = &args.programs {
        let programs = Programs::at(folder, &NAMES)?;
        return Ok((programs, ws.photos(), Stages::new(trainings)));
    }
    let mut stages = Stages::new(samples::STAGES + trainings);
    // Of the faces a record for any machine takes none.
    let faces = !args.portable && cases.iter().any(|case| case.name == "vaegan");
    let (programs, photos) = samples::ready(ws, &mut stages, faces)?;
    Ok((programs, photos, stages))
}

fn chosen(only: &[String]) -> Result<Vec<&'static Case>> {
    let known: Vec<&str> = CASES.iter().map(|case| case.name).collect();
    if let Some(unknown) = only.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(refuse(format!(
            "no case `{unknown}`: there are {}",
            known.join(", ")
        )));
    }
    let all = CASES.iter();
    Ok(all
        .filter(|case| only.is_empty() || only.iter().any(|name| name == case.name))
        .collect())
}

fn is_comparable(before: &Record, cases: &[&Case], portable: bool) -> Result<()> {
    if before.portable != portable {
        return Err(refuse(if portable {
            "the record is of all steps: leave out --portable"
        } else {
            "the record is of the first steps only: add --portable"
        }));
    }
    let here = machine::processor().unwrap_or_default();
    if !portable && before.processor != here {
        return Err(refuse(format!(
            "recorded on {}, this is {here}: record again here with the programs of the commit before (--programs)",
            before.processor
        )));
    }
    match cases
        .iter()
        .find(|case| !before.cases.contains_key(case.name))
    {
        Some(case) => Err(refuse(format!(
            "the record has no case {}: choose others by --only, or record again",
            case.name
        ))),
        None => Ok(()),
    }
}

/// Trains one case and reads what it left.
fn train(
    ws: &Workspace,
    programs: &Programs,
    photos: &Path,
    case: &Case,
    portable: bool,
) -> Result<Golden> {
    if case.name == "recorded" {
        record_responses(ws, photos)?;
    }
    let run = Path::new(FOLDER).join(case.name);
    let there = ws.path(&run);
    if there.exists() {
        fs::remove_dir_all(&there).with_context(|| format!("removing {}", there.display()))?;
    }
    let steps = if portable { PORTABLE_STEPS } else { STEPS };
    let mut arguments: Vec<OsString> = vec![case.experiment.into()];
    arguments.extend(["--steps".into(), steps.to_string().into()]);
    arguments.extend(["--device".into(), "cpu".into()]);
    arguments.extend(["--out".into(), run.clone().into()]);
    for set in COMMON.iter().chain(case.set) {
        arguments.extend(["--set".into(), set.into()]);
    }
    if portable {
        // The photos as set-up fetches them, so that nothing must be prepared; held-out errors are not compared.
        for key in ["data.train", "data.test"] {
            let set = format!("{key}={}", photos.display());
            arguments.extend(["--set".into(), set.into()]);
        }
        let of_encoder = case.encoder_learns.then_some("optimizer.encoder.eps=1.0");
        for set in PORTABLE.into_iter().chain(of_encoder) {
            arguments.extend(["--set".into(), set.into()]);
        }
    }
    let trainer = programs.get(ws, case.name, "deepsim-train")?;
    let trainer = case
        .env
        .iter()
        .fold(trainer, |child, (k, v)| child.env(k, v));
    trainer.args(arguments).run_quietly()?;
    let mut golden = Golden::default();
    golden.take_losses(&there)?;
    if portable {
        golden.keep_losses();
        return Ok(golden);
    }
    golden.take_tensors(&there)?;
    let study = programs
        .get(ws, case.name, "deepsim-eval")?
        .env("OMP_NUM_THREADS", "1")
        .args(case.study)
        .args([
            "--device", "cpu", "--format", "json", "--images", "8", "--runs",
        ])
        .args([&run])
        .args(["--out"])
        .args([Path::new(FOLDER).join("studies").join(case.name)])
        .output()?;
    let study: Value = serde_json::from_slice(&study)
        .with_context(|| format!("reading deepsim-eval {} as JSON", case.study[0]))?;
    golden.take("study", &study);
    Ok(golden)
}

/// Features of another program, as the sample experiment's script records them.
fn record_responses(ws: &Workspace, photos: &Path) -> Result<()> {
    let folder = ws.path(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    deepsim_tools::child::Child::new("recording features", "python3", ws.root())
        .env("PYTHONPATH", ws.python())
        .env("OMP_NUM_THREADS", "1")
        .args(["experiments/sample/record.py"])
        .args([photos])
        .args(["weights/alexnet-lpips.safetensors"])
        .args([folder.join("responses.safetensors")])
        .hint("It needs PyTorch: cargo xtask setup --torch full")
        .run_quietly()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_case_is_refused_with_those_that_exist() {
        assert_eq!(chosen(&[]).unwrap().len(), CASES.len());
        assert_eq!(chosen(&["vae".to_owned()]).unwrap().len(), 1);
        let error = chosen(&["vea".to_owned()]).err().unwrap().to_string();
        assert!(
            error.contains("`vea`") && error.contains("vaegan"),
            "{error}"
        );
    }

    #[test]
    fn a_record_that_cannot_be_compared_is_refused() {
        let record = |portable, processor: &str| Record {
            processor: processor.to_owned(),
            portable,
            cases: [("vae".to_owned(), Golden::default())].into(),
        };
        let here = machine::processor().unwrap_or_default();
        let vae = chosen(&["vae".to_owned()]).unwrap();
        let all = chosen(&[]).unwrap();
        is_comparable(&record(false, &here), &vae, false).unwrap();
        is_comparable(&record(true, "another"), &vae, true).unwrap();
        for (record, cases, portable, word) in [
            (record(false, "another"), &vae, false, "--programs"),
            (record(true, &here), &vae, false, "add --portable"),
            (record(false, &here), &vae, true, "leave out --portable"),
            (record(false, &here), &all, false, "no case quickstart"),
        ] {
            let error = is_comparable(&record, cases, portable).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}

//! Commands about models of their own: samples of variational autoencoders, training losses compared.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use deepsim_data::terminal::path as shown;
use deepsim_data::terminal::tell;
use deepsim_eval::error::WhileRunning as _;
use deepsim_eval::format::Format;
use deepsim_eval::judges::Judges;
use deepsim_eval::loaded::Loaded;
use deepsim_eval::sheet::{Sheet, images};
use deepsim_eval::{EvalError, attributes, losses, output, preimages, prior, runs};
use deepsim_experiment::{Consent, device, measure};
use tch::Tensor;

use super::{Result, at_least_one, at_least_two, put, run_name, warn, wrote};
use crate::cli::Runs;

pub struct Sample {
    pub consent: Consent,
    pub count: usize,
    pub show: usize,
    pub seed: u64,
    pub images: usize,
    pub judge_weights: PathBuf,
    pub format: Format,
    pub out: PathBuf,
}

/// Pictures of a row on a sheet of samples.
const SAMPLES_A_ROW: i64 = 8;

pub fn sample(runs: Runs, asked: &Sample) -> Result<()> {
    for (option, value) in [("--count", asked.count), ("--images", asked.images)] {
        if value < 2 {
            return Err(EvalError::Usage {
                option,
                value: value.to_string(),
                reason: "must be at least 2: distributions are compared".to_owned(),
            });
        }
    }
    at_least_one("--show", asked.show)?;
    let device = device::choose(&runs.device)?;
    let witness = prior::witness(&asked.judge_weights, device)?;
    if witness.is_none() {
        tell(format_args!(
            "hint: no {}: no distances; `cargo xtask setup` fetches it",
            shown(asked.judge_weights.join(prior::WITNESS_FILE))
        ));
    }
    let (mut all, mut without) = (Vec::new(), None);
    runs::each(runs.runs, &asked.consent, device, warn, |run| {
        if !prior::has_prior(&run.experiment) {
            without = Some(run.path.clone());
            return Ok(());
        }
        let test = run.test_data()?;
        run.train_data()?;
        run.overlap(&test, &measure::chosen(&test, asked.images), warn)?;
        let made =
            prior::draw(run, asked.show.min(asked.count), asked.seed, device).while_running()?;
        let name = run_name(run);
        let mut sheet = Sheet::new(&format!(
            "Samples of the prior ({name}, compared in {})",
            prior::compared_in(&run.experiment)
        ));
        let shown = made.size()[0];
        for from in (0..shown).step_by(SAMPLES_A_ROW as usize) {
            let part = made
                .f_narrow(0, from, (shown - from).min(SAMPLES_A_ROW))
                .map_err(deepsim_nets::NetError::from)?;
            sheet.row("", images(&part)?);
        }
        wrote(
            &asked.out.join(format!("samples-{name}.png")),
            &sheet.png()?,
        )?;
        let drawn = (asked.count, asked.seed);
        let numbers =
            prior::measure(run, drawn, asked.images, witness.as_ref(), device).while_running()?;
        all.push(numbers);
        Ok(())
    })?;
    match (all.is_empty(), without) {
        (true, Some(run)) => Err(EvalError::NoPrior { run }),
        _ => put(
            &prior::render(&all, asked.format)?,
            "samples",
            asked.format,
            &asked.out,
        ),
    }
}

pub struct Preimages {
    pub consent: Consent,
    pub runs: Vec<PathBuf>,
    pub draws: usize,
    pub images: usize,
    pub show: usize,
    pub seed: u64,
    pub device: String,
    pub format: Format,
    pub out: PathBuf,
}

pub fn preimages(asked: &Preimages) -> Result<()> {
    at_least_one("--show", asked.show)?;
    for (option, value) in [("--draws", asked.draws), ("--images", asked.images)] {
        if value < 2 {
            return Err(EvalError::Usage {
                option,
                value: value.to_string(),
                reason: "must be at least 2: distances are measured".to_owned(),
            });
        }
    }
    let device = device::choose(&asked.device)?;
    let (mut all, mut taken) = (Vec::new(), BTreeSet::new());
    for path in &asked.runs {
        let run = Loaded::open(path, &asked.consent, device)?;
        let data = run.test_data()?;
        run.overlap(&data, &measure::chosen(&data, asked.images), warn)?;
        let wanted = preimages::Wanted {
            images: asked.images,
            draws: asked.draws,
            show: asked.show,
            seed: asked.seed,
        };
        let drawn = preimages::draw(&run, wanted, device).while_running()?;
        let name = run_name(&run);
        let mut sheet = Sheet::new(&format!("Pictures of the same features ({name})"));
        let mut row = |label: &str, pictures: &Tensor| -> Result<()> {
            sheet.row(label, images(pictures)?);
            Ok(())
        };
        row("photo", &drawn.photos)?;
        row("noise zero", &drawn.mean)?;
        for (i, draw) in drawn.draws.iter().enumerate() {
            row(&format!("draw {}", i + 1), draw)?;
        }
        row(
            &format!("deviation x{}", preimages::BRIGHTER),
            &drawn.deviation()?,
        )?;
        let file = file_name(&name, &mut taken);
        wrote(&asked.out.join(format!("{file}.png")), &sheet.png()?)?;
        all.push(drawn.numbers);
    }
    put(
        &preimages::render(&all, asked.format)?,
        "preimages",
        asked.format,
        &asked.out,
    )
}

pub struct Attributes {
    pub consent: Consent,
    pub runs: Vec<PathBuf>,
    pub labels: PathBuf,
    pub attribute: Vec<String>,
    pub strength: f64,
    pub images: usize,
    pub show: usize,
    pub device: String,
    pub format: Format,
    pub out: PathBuf,
}

pub fn attributes(asked: &Attributes) -> Result<()> {
    at_least_one("--show", asked.show)?;
    at_least_one("--images", asked.images)?;
    if !asked.strength.is_finite() {
        return Err(EvalError::Usage {
            option: "--strength",
            value: asked.strength.to_string(),
            reason: "must be a number".to_owned(),
        });
    }
    let labels = deepsim_data::Attributes::read(&asked.labels)?;
    let names = match asked.attribute.is_empty() {
        true => labels.names().to_vec(),
        false => asked.attribute.clone(),
    };
    for name in &names {
        labels.index(name)?;
    }
    let device = device::choose(&asked.device)?;
    let (mut all, mut taken) = (Vec::new(), BTreeSet::new());
    for path in &asked.runs {
        let run = Loaded::open(path, &asked.consent, device)?;
        run.train_data()?;
        run.test_data()?;
        let asker = attributes::Asker::new(&run, &labels, asked.images, device).while_running()?;
        for name in &names {
            let found = match asker.ask(&labels, name, asked.strength, asked.show) {
                Ok(found) => found,
                // Of all attributes of a file, those that say something; one that was asked for by name is an error.
                Err(error @ EvalError::OneClass { .. }) if asked.attribute.is_empty() => {
                    warn(error.to_string());
                    continue;
                }
                Err(error) => return Err(error).while_running(),
            };
            let run_name = run_name(&run);
            let mut sheet = Sheet::new(&format!(
                "{name}, {} times its vector ({run_name}, held-out pictures)",
                asked.strength
            ));
            for (rows, change) in [(&found.added, "added"), (&found.removed, "taken away")] {
                let Some([photos, before, after]) = rows else {
                    continue;
                };
                sheet.row("photo", images(photos)?);
                sheet.row("reconstruction", images(before)?);
                sheet.row(&format!("{name} {change}"), images(after)?);
            }
            if found.added.is_some() || found.removed.is_some() {
                let file = format!(
                    "{}.png",
                    file_name(&format!("{run_name}-{name}"), &mut taken)
                );
                wrote(&asked.out.join(file), &sheet.png()?)?;
            } else {
                warn(format!(
                    "no held-out picture is labelled for `{name}`: no sheet"
                ));
            }
            all.push(found.numbers);
        }
    }
    put(
        &attributes::render(&all, asked.format)?,
        "attributes",
        asked.format,
        &asked.out,
    )
}

/// Letters and digits of a name; everything else becomes a dash, and a number follows where that was taken already.
fn file_name(name: &str, taken: &mut BTreeSet<String>) -> String {
    let plain: String = name
        .chars()
        .map(|c| if c.is_alphanumeric() { c } else { '-' })
        .collect();
    output::unused(&plain, taken)
}

pub struct Losses {
    pub consent: Consent,
    pub images: usize,
    pub show: usize,
    pub filter: Vec<String>,
    pub judge_weights: PathBuf,
    pub format: Format,
    pub out: PathBuf,
}

pub fn losses(runs: Runs, asked: &Losses) -> Result<()> {
    at_least_two("--images", asked.images)?;
    at_least_one("--show", asked.show)?;
    let device = device::choose(&runs.device)?;
    let judges = Judges::load(&asked.judge_weights, device)?;
    let mut all = Vec::new();
    let mut sheets: BTreeMap<(String, String), (Vec<usize>, Sheet)> = BTreeMap::new();
    runs::each(runs.runs, &asked.consent, device, warn, |run| {
        if !losses::compares(&run.experiment) {
            return Ok(());
        }
        let data = run.test_data()?;
        run.train_data()?;
        run.overlap(&data, &measure::chosen(&data, asked.images), warn)?;
        let row = losses::measure(run, &judges, asked.images, device).while_running()?;
        // Pictures stand under the photographs that they were made of.
        let key = (row.task.clone(), row.photos.clone());
        let fresh = !sheets.contains_key(&key);
        let (chosen, sheet) = match sheets.entry(key) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => {
                let chosen = deepsim_eval::photos::spread(&data, asked.show, &asked.filter)?;
                let title = format!("Trained with several losses: {}", row.task);
                place.insert((chosen, Sheet::new(&title)))
            }
        };
        let (photos, made) = losses::reconstructions(run, &data, chosen, device).while_running()?;
        if fresh {
            sheet.row("photo", images(&photos)?);
        }
        sheet.row(&row.trained_with, images(&made)?);
        all.push(row);
        Ok(())
    })?;
    if all.is_empty() {
        tell(format_args!(
            "hint: no autoencoder or super-resolution run; experiments/sample/ae-*.toml and sr-*.toml make them"
        ));
    }
    let mut taken = BTreeSet::new();
    for ((task, _), (_, sheet)) in &sheets {
        let name = file_name(task, &mut taken);
        wrote(&asked.out.join(format!("losses-{name}.png")), &sheet.png()?)?;
    }
    put(
        &losses::render(&all, asked.format)?,
        "losses",
        asked.format,
        &asked.out,
    )
}

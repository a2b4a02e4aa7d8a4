//! What the commands do with the library's results: pictures into files, numbers onto stdout.

mod models;

use std::path::{Path, PathBuf};

use deepsim_data::Dataset;
use deepsim_data::terminal::path as shown;
use deepsim_data::terminal::{quote, tell};
use deepsim_eval::catalog;
use deepsim_eval::error::WhileRunning as _;
use deepsim_eval::figures::{self, Figure};
use deepsim_eval::format::{Format, columns, csv, json};
use deepsim_eval::judges::Judges;
use deepsim_eval::loaded::Loaded;
use deepsim_eval::photos::from_files;
use deepsim_eval::scale::Scale;
use deepsim_eval::sheet::{Sheet, images, png};
use deepsim_eval::{
    EvalError, apng, interpolate, mv, neighbors, neighbors_table, output, reencode, report, runs,
    table2, table2_text,
};
use deepsim_experiment::{Clip, Consent, Experiment, Perception, device, measure, run_dir};
use serde::Serialize;

use crate::cli::{Baseline, Output, Runs};
use crate::progress::bar;

pub use models::{Attributes, Losses, Preimages, Sample, attributes, losses, preimages, sample};

type Result<T> = std::result::Result<T, EvalError>;

/// Held-out images to normalise by where the images to look at were given by name.
const SCALE: usize = 256;

fn warn(text: String) {
    tell(format_args!("warning: {text}"));
}

fn wrote(path: &Path, bytes: &[u8]) -> Result<()> {
    output::write(path, bytes)?;
    tell(format_args!("wrote {}", shown(path)));
    Ok(())
}

fn run_name(run: &Loaded) -> String {
    runs::name(&run.path)
}

/// A number from 1 on.
fn at_least_one(option: &'static str, value: usize) -> Result<()> {
    match value {
        0 => Err(EvalError::Usage {
            option,
            value: "0".to_owned(),
            reason: "must be at least 1".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// So many images that they have distances.
fn at_least_two(option: &'static str, value: usize) -> Result<()> {
    match value {
        0 | 1 => Err(EvalError::Usage {
            option,
            value: value.to_string(),
            reason: "must be at least 2: errors are relative to the distance between images"
                .to_owned(),
        }),
        _ => Ok(()),
    }
}

pub struct Table2 {
    pub consent: Consent,
    pub images: usize,
    pub no_clip: bool,
    pub judges: bool,
    pub judge_weights: PathBuf,
    pub output: Output,
}

pub fn table2(runs: Runs, asked: &Table2) -> Result<()> {
    at_least_two("--images", asked.images)?;
    let output = &asked.output;
    let named = runs.runs.clone();
    let folder = runs::folder(runs.runs)?;
    let clip = match asked.no_clip {
        true => Clip::Off,
        false => Clip::Displayable,
    };
    let device = device::choose(&runs.device)?;
    let count = table2::count(folder.as_deref())?;
    let wanted = count > 0 && (asked.judges || output.format != Format::Text);
    let bench = match wanted {
        true => Some(Judges::load(&asked.judge_weights, device)?),
        false => None,
    };
    for path in bench.iter().flat_map(|j| &j.missing) {
        tell(format_args!(
            "hint: no {}: a judge less; `cargo xtask setup` fetches it",
            shown(path)
        ));
    }
    let options = table2::Options {
        images: asked.images,
        clip,
        consent: &asked.consent,
        device,
        judges: bench.as_ref(),
    };
    let bar = bar(count, "runs");
    let rows = table2::rows(folder.as_deref(), options, warn, |n| bar.inc(n)).while_running()?;
    bar.finish_and_clear();
    if rows.iter().all(|r| r.run.is_none()) {
        if let Some(path) = folder.clone().filter(|_| count > 0) {
            return Err(EvalError::NoneUsable {
                path,
                count: usize::try_from(count).unwrap_or(usize::MAX),
                why: Vec::new(),
            });
        }
        let none = match &named {
            Some(path) => format!("no run in {} yet", shown(path)),
            None => "no trained runs yet".to_owned(),
        };
        tell(format_args!(
            "hint: {none}; `cargo xtask quickstart` trains one on sample photos"
        ));
    }
    let mut text = table2::render(&rows, output.format)?;
    if asked.judges && output.format == Format::Text {
        text.push_str(&table2_text::judges(&rows));
    }
    output.put("table2", &text)
}

pub struct Reencode {
    pub consent: Consent,
    pub photos: Vec<PathBuf>,
    pub iterations: Vec<usize>,
    pub images: usize,
    pub show: usize,
    pub format: Format,
    pub out: PathBuf,
}

/// More would never end; drift is long over.
const MAX_ITERATIONS: usize = 1000;

pub fn reencode(runs: Runs, asked: &Reencode) -> Result<()> {
    match asked.photos.is_empty() {
        true => at_least_two("--images", asked.images)?,
        false => at_least_one("--images", asked.images)?,
    }
    at_least_one("--show", asked.show)?;
    if let Some(bad) = asked
        .iterations
        .iter()
        .find(|i| !(1..=MAX_ITERATIONS).contains(*i))
    {
        return Err(EvalError::Usage {
            option: "--iterations",
            value: bad.to_string(),
            reason: format!("iterations count from 1 to {MAX_ITERATIONS}"),
        });
    }
    let device = device::choose(&runs.device)?;
    let last = asked.iterations.iter().copied().max().unwrap_or(1) as u64;
    let mut all = Vec::new();
    runs::each(runs.runs, &asked.consent, device, warn, |run| {
        let data = run.test_data()?;
        let augment = run.experiment.augment();
        let (scaled, source) = match asked.photos.is_empty() {
            true => {
                let chosen = measure::chosen(&data, asked.images);
                run.overlap(&data, &chosen, warn)?;
                (chosen.clone(), reencode::Photos::HeldOut(chosen))
            }
            false => {
                let photos = from_files(&asked.photos, data.framing(), &augment, device)?;
                (
                    measure::chosen(&data, SCALE),
                    reencode::Photos::Given(photos),
                )
            }
        };
        let scale = Scale::measure(run, &scaled, device).while_running()?;
        let bar = bar(source.len() as u64 * last, "photos × iterations");
        let made = reencode::compute(
            run,
            &source,
            (&asked.iterations, asked.show),
            Some(&scale),
            |n| bar.inc(n),
            device,
        )
        .while_running()?;
        bar.finish_and_clear();
        let name = run_name(run);
        let source = &run.experiment.encoder;
        let mut sheet = Sheet::new(&format!(
            "Re-encoding by {source} ({name}); iteration on the left"
        ));
        made.onto(&mut sheet)?;
        wrote(
            &asked.out.join(format!("reencode-{name}.png")),
            &sheet.png()?,
        )?;
        all.extend(made.drift);
        Ok(())
    })?;
    put(
        &reencode::render(&all, asked.format)?,
        "reencode",
        asked.format,
        &asked.out,
    )
}

/// Prints numbers; what is no text is kept beside the pictures, too.
fn put(text: &str, name: &str, format: Format, out: &Path) -> Result<()> {
    output::show_as(format, text)?;
    wrote(
        &out.join(format!("{name}.{}", format.extension())),
        text.as_bytes(),
    )
}

pub struct Interpolate {
    pub consent: Consent,
    pub a: PathBuf,
    pub b: PathBuf,
    pub steps: usize,
    pub delay: u16,
    pub format: Format,
    pub out: PathBuf,
}

pub fn interpolate(runs: Runs, asked: &Interpolate) -> Result<()> {
    let device = device::choose(&runs.device)?;
    let mut all = Vec::new();
    runs::each(runs.runs, &asked.consent, device, warn, |run| {
        let paths = [asked.a.clone(), asked.b.clone()];
        let data = run.test_data()?;
        let augment = run.experiment.augment();
        let photos = from_files(&paths, data.framing(), &augment, device)?;
        let (a, b) = (photos.f_narrow(0, 0, 1)?, photos.f_narrow(0, 1, 1)?);
        let bar = bar(asked.steps as u64, "frames");
        let mut made =
            interpolate::compute(run, &a, &b, asked.steps, |n| bar.inc(n)).while_running()?;
        bar.finish_and_clear();
        let folder = asked.out.join(run_name(run));
        let frames = images(&made.frames)?;
        for (i, (frame, step)) in frames.iter().zip(&mut made.steps).enumerate() {
            let file = folder.join(format!("frame-{i:03}.png"));
            output::write(&file, &png(frame)?)?;
            step.file = file.display().to_string();
        }
        let mut strip = Sheet::default();
        let mut row = images(&a)?;
        strip.columns.push("photo".to_owned());
        // A strip that can be looked at: of many frames, some.
        let shown = frames.len().min(14);
        for i in 0..shown {
            let at = i * (frames.len() - 1) / (shown - 1).max(1);
            strip.columns.push(format!("{:.2}", made.steps[at].t));
            row.push(frames[at].clone());
        }
        row.extend(images(&b)?);
        strip.columns.push("photo".to_owned());
        strip.row("", row);
        wrote(&folder.join("strip.png"), &strip.png()?)?;
        let animation = apng::encode(&apng::there_and_back(&frames, asked.delay))?;
        wrote(&folder.join("animation.png"), &animation)?;
        all.push((made.steps, made.smoothness));
        Ok(())
    })?;
    let all: Vec<_> = all.iter().map(|(s, m)| (s.as_slice(), *m)).collect();
    let text = interpolate::render(&all, asked.format)?;
    put(&text, "interpolate", asked.format, &asked.out)
}

pub struct Neighbors {
    pub consent: Consent,
    pub images: usize,
    pub show: usize,
    pub format: Format,
    pub out: PathBuf,
}

pub fn neighbors(runs: Runs, asked: &Neighbors) -> Result<()> {
    at_least_two("--images", asked.images)?;
    at_least_one("--show", asked.show)?;
    let device = device::choose(&runs.device)?;
    let mut all = Vec::new();
    runs::each(runs.runs, &asked.consent, device, warn, |run| {
        let data = run.test_data()?;
        let chosen = measure::chosen(&data, asked.images);
        run.overlap(&data, &chosen, warn)?;
        let training = run.train_data()?.len() as u64;
        let scale = Scale::measure(run, &chosen, device).while_running()?;
        let bar = bar(training, "training photos");
        let made =
            neighbors::compute(run, &chosen, 1, &scale, device, |n| bar.inc(n)).while_running()?;
        bar.finish_and_clear();
        let name = run_name(run);
        let title = format!("Nearest training photos of held-out ones ({name})");
        let sheet = made.sheet(&title, asked.show)?;
        wrote(
            &asked.out.join(format!("neighbors-{name}.png")),
            &sheet.png()?,
        )?;
        all.extend(made.rows);
        Ok(())
    })?;
    let text = neighbors_table::render(&all, asked.format)?;
    put(&text, "neighbors", asked.format, &asked.out)
}

/// A run of a figure, as it is listed.
#[derive(Default, Serialize)]
struct Listed {
    figure: u8,
    label: String,
    run: String,
    picture: String,
}

pub struct DrawFigure {
    pub consent: Consent,
    pub figure: Figure,
    pub encoder: Option<String>,
    pub images: usize,
    pub filter: Vec<String>,
    pub format: Format,
    pub out: PathBuf,
}

pub fn figure(runs: Runs, asked: &DrawFigure) -> Result<()> {
    at_least_one("--images", asked.images)?;
    let device = device::choose(&runs.device)?;
    let folder = runs::folder(runs.runs)?;
    let number = asked.figure.number();
    let entries = match &folder {
        Some(folder) => {
            let found = catalog::read(folder, warn)?;
            let count = found.len();
            let allowed = catalog::allowed(found, &asked.consent, warn);
            if allowed.is_empty() && count > 0 {
                let path = folder.clone();
                return Err(EvalError::NoneUsable {
                    path,
                    count,
                    why: Vec::new(),
                });
            }
            allowed
        }
        None => Vec::new(),
    };
    let plan = figures::plan(asked.figure, &entries, asked.encoder.as_deref());
    let files = catalog::experiments(Path::new("experiments"));
    let model = plan.panels.first().map(|p| &p.entry.experiment);
    let advice: Vec<String> = plan
        .missing
        .iter()
        .map(|m| m.advice(&files, model))
        .collect();
    if plan.panels.is_empty() {
        return Err(EvalError::NothingToDraw {
            figure: number,
            runs: folder.unwrap_or_else(|| "runs".into()),
            advice,
        });
    }
    for line in advice {
        tell(format_args!("missing: {line}"));
    }
    let bar = bar(plan.panels.len() as u64, "panels");
    let made = figures::draw(
        asked.figure,
        &plan,
        asked.images,
        &asked.filter,
        &asked.consent,
        device,
        |n| bar.inc(n),
    )
    .while_running()?;
    bar.finish_and_clear();
    for remark in &made.remarks {
        warn(remark.clone());
    }
    let file = asked.out.join(format!("figure{number}.png"));
    wrote(&file, &made.sheet.png()?)?;
    let list: Vec<Listed> = made
        .runs
        .into_iter()
        .map(|(label, run)| Listed {
            figure: number,
            label,
            run: run.display().to_string(),
            picture: file.display().to_string(),
        })
        .collect();
    let text = match asked.format {
        Format::Json => json(&list)?,
        Format::Csv => csv(&list)?,
        Format::Text => {
            let cells: Vec<Vec<String>> = list.into_iter().map(|l| vec![l.label, l.run]).collect();
            columns(&["row", "run"], &cells)
        }
    };
    output::show_as(asked.format, &text)
}

pub struct Report {
    pub consent: Consent,
    pub photos: usize,
    pub images: usize,
    pub judge_weights: PathBuf,
    pub out: PathBuf,
}

/// A page that is larger opens slowly.
const LARGE: usize = 8_000_000;

pub fn report(runs: Runs, asked: &Report) -> Result<()> {
    at_least_one("--photos", asked.photos)?;
    at_least_two("--images", asked.images)?;
    let Some(folder) = runs::folder(runs.runs)? else {
        return Err(EvalError::NoRuns {
            path: "runs".into(),
        });
    };
    let file = if asked.out.extension().is_some_and(|e| e == "html") {
        asked.out.clone()
    } else {
        asked.out.join("report.html")
    };
    output::check("--out", &file, output::Kind::Page)?;
    let device = device::choose(&runs.device)?;
    let judges = Judges::load(&asked.judge_weights, device)?;
    let options = report::Options {
        runs: &folder,
        photos: asked.photos,
        images: asked.images,
        consent: &asked.consent,
        device,
        judges: Some(&judges),
        command: report::command("deepsim-eval", std::env::args_os().skip(1)),
    };
    let mut bar = bar(0, "");
    let made = report::collect(&options, |told| match told {
        report::Progress::Begin(what, total) => {
            bar.finish_and_clear();
            bar = crate::progress::bar(total, "");
            bar.set_message(what.to_owned());
        }
        report::Progress::Did(n) => bar.inc(n),
    })
    .while_running()?;
    bar.finish_and_clear();
    for why in &made.left_out {
        warn(why.clone());
    }
    let page = report::render(&made);
    if page.len() > LARGE {
        warn(format!(
            "the page has {} MB; fewer --photos or --runs make it smaller",
            page.len() / 1_000_000
        ));
    }
    output::write(&file, page.as_bytes())?;
    output::show(format_args!("{}\n", shown(file)))?;
    match made.groups.iter().all(|group| group.runs.is_empty()) {
        true => Err(EvalError::NoneUsable {
            path: folder,
            count: made.runs.len(),
            why: Vec::new(),
        }),
        false => Ok(()),
    }
}

pub fn baseline(baseline: Baseline, consent: &Consent) -> Result<()> {
    let Baseline::Mv {
        experiment,
        set,
        images,
        batch,
        tv,
        seed,
        out,
        fresh,
        device,
    } = baseline;
    at_least_one("--batch", batch)?;
    at_least_two("--images", images)?;
    if let Some(tv) = tv.filter(|t| !(t.is_finite() && *t >= 0.0)) {
        return Err(EvalError::Usage {
            option: "--tv",
            value: tv.to_string(),
            reason: "must be a number from 0 on".to_owned(),
        });
    }
    let experiment = Experiment::load(&experiment, &set)?;
    if experiment.raw.latent.is_some() {
        return Err(EvalError::Usage {
            option: "EXPERIMENT",
            value: shown(&experiment.path),
            reason:
                "its encoder learns with the generator; give one whose features are a network's own"
                    .to_owned(),
        });
    }
    let crop = experiment.raw.data.crop;
    let source = &experiment.encoder;
    let out = out.unwrap_or_else(|| {
        Path::new("runs").join(format!(
            "mv-{}-{crop}",
            source.to_string().replace(':', "-")
        ))
    });
    mv::check(&out, fresh)?;
    let device = device::choose(&device)?;
    let data = Dataset::open_and_tell(&experiment.raw.data.test)?;
    let of_run = run_dir::of_file(&experiment.path)?;
    let permit = match &of_run {
        Some((run, checkpoint)) => consent.on_run(run, &checkpoint.manifest),
        None => consent.at_first(&experiment.path),
    };
    let perception = Perception::encoder_alone(&experiment, permit, device)?;
    let layer = source.network().map_or("", |n| n.tap.name());
    let weight = tv.unwrap_or_else(|| mv::total_variation_for(layer));
    let settings = mv::Settings::published(crop, weight, seed);
    let n = data.len().min(images);
    let bar = bar((n * settings.steps()) as u64, "photos × steps");
    let made = mv::compute(
        &experiment,
        &perception,
        &data,
        &settings,
        (images, batch),
        device,
        |n| bar.inc(n),
    )
    .while_running()?;
    bar.finish_and_clear();
    mv::write(&out, &made, fresh).while_running()?;
    let mean = |of: fn(&mv::Photo) -> f64| {
        made.photos.iter().map(of).sum::<f64>() / made.photos.len().max(1) as f64
    };
    output::show(format_args!(
        "{}: {n} photos, {:.0} s, feature term {:.3} -> {:.4}\n",
        shown(&out),
        made.seconds,
        mean(|p| p.feature_start),
        mean(|p| p.feature_end)
    ))?;
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty());
    let beside = quote(parent.unwrap_or(Path::new(".")));
    tell(format_args!(
        "errors beside other methods: cargo run -p deepsim-eval -- table2 --runs {beside}"
    ));
    Ok(())
}

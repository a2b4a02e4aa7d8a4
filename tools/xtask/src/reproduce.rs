//! The sample experiments in order, and the committed records of what they gave.
//!
//! A record is `docs/results/NAME.json`; the tables of `docs/reproduction.md` are made from the records
//! alone, so a page never says more than was run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::failure::refuse;
use crate::landing;
use crate::samples::{self, RECORDS, Record};
use crate::stages::{Stages, note, seconds};
use crate::training::{Outcome, Training};
use crate::workspace::Workspace;

/// The page whose tables are made from the records.
pub const PAGE: &str = "docs/reproduction.md";
const BEGIN: &str = "<!-- begin generated: cargo xtask reproduce -->\n";
const END: &str = "<!-- end generated -->";

/// One experiment that `reproduce` runs.
struct Experiment {
    /// Names the record; `--only` matches it.
    name: &'static str,
    file: &'static str,
    shows: &'static str,
}

/// How experiments on faces are named: their photographs are fetched only for them.
const FACES: &str = "faces-";

/// In the order of what a reader wants to see first.
const EXPERIMENTS: &[Experiment] = &[
    Experiment {
        name: "quickstart",
        file: "experiments/quickstart.toml",
        shows: "full loss from pool2",
    },
    Experiment {
        name: "sample-pool5",
        file: "experiments/sample/pool5.toml",
        shows: "full loss from pool5, the paper's layer",
    },
    Experiment {
        name: "sample-hero",
        file: "experiments/sample/hero.toml",
        shows: "the same at the paper's size: 227 pixels, whole generator",
    },
    Experiment {
        name: "sample-pool5-image",
        file: "experiments/sample/pool5-image.toml",
        shows: "pool5, image loss alone",
    },
    Experiment {
        name: "sample-pool5-feat-image",
        file: "experiments/sample/pool5-feat-image.toml",
        shows: "pool5, no adversarial loss",
    },
    Experiment {
        name: "sample-pool5-adv-image",
        file: "experiments/sample/pool5-adv-image.toml",
        shows: "pool5, no feature loss",
    },
    Experiment {
        name: "sample-pool5-feat-adv",
        file: "experiments/sample/pool5-feat-adv.toml",
        shows: "pool5, no image loss",
    },
    Experiment {
        name: "sample-pool5-vgg16",
        file: "experiments/sample/pool5-vgg16.toml",
        shows: "pool5, compared at VGG16's pool5",
    },
    Experiment {
        name: "sample-pool5-random",
        file: "experiments/sample/pool5-random.toml",
        shows: "pool5, compared with random weights",
    },
    Experiment {
        name: "sample-pool5-discriminator",
        file: "experiments/sample/pool5-discriminator.toml",
        shows: "pool5, compared in the discriminator's features",
    },
    Experiment {
        name: "sample-pooled",
        file: "experiments/sample/pooled.toml",
        shows: "EfficientNet-Lite0's pooled features, full loss",
    },
    Experiment {
        name: "sample-logits",
        file: "experiments/sample/logits.toml",
        shows: "EfficientNet-Lite0's logits, full loss",
    },
    Experiment {
        name: "sample-pooled-image",
        file: "experiments/sample/pooled-image.toml",
        shows: "pooled features, image loss alone",
    },
    Experiment {
        name: "sample-logits-image",
        file: "experiments/sample/logits-image.toml",
        shows: "logits, image loss alone",
    },
    Experiment {
        name: "quickstart-image-loss",
        file: "experiments/quickstart-image-loss.toml",
        shows: "pool2, image loss alone, as many steps",
    },
    Experiment {
        name: "sample-pool5-slow",
        file: "experiments/sample/pool5-slow.toml",
        shows: "pool5, half the learning rate",
    },
    Experiment {
        name: "sample-pool5-feat-adv-slow",
        file: "experiments/sample/pool5-feat-adv-slow.toml",
        shows: "the same without image loss",
    },
    Experiment {
        name: "sample-pool5-fast",
        file: "experiments/sample/pool5-fast.toml",
        shows: "pool5, twice the learning rate",
    },
    Experiment {
        name: "sample-pool5-feat-adv-fast",
        file: "experiments/sample/pool5-feat-adv-fast.toml",
        shows: "the same without image loss",
    },
    Experiment {
        name: "sample-vae-alexnet",
        file: "experiments/sample/vae-alexnet.toml",
        shows: "variational autoencoder in the DeePSiM loss",
    },
    Experiment {
        name: "sample-vae-squared",
        file: "experiments/sample/vae-squared.toml",
        shows: "variational autoencoder in squared error",
    },
    Experiment {
        name: "sample-vae-random",
        file: "experiments/sample/vae-random.toml",
        shows: "variational autoencoder, comparator with random weights",
    },
    Experiment {
        name: "sample-ae-l2",
        file: "experiments/sample/ae-l2.toml",
        shows: "autoencoder, squared differences",
    },
    Experiment {
        name: "sample-ae-l1",
        file: "experiments/sample/ae-l1.toml",
        shows: "autoencoder, absolute differences",
    },
    Experiment {
        name: "sample-ae-ms-ssim",
        file: "experiments/sample/ae-ms-ssim.toml",
        shows: "autoencoder, MS-SSIM",
    },
    Experiment {
        name: "sample-ae-deepsim",
        file: "experiments/sample/ae-deepsim.toml",
        shows: "autoencoder, DeePSiM loss",
    },
    Experiment {
        name: "sample-sr-l2",
        file: "experiments/sample/sr-l2.toml",
        shows: "super-resolution by 4, squared differences",
    },
    Experiment {
        name: "sample-sr-l1",
        file: "experiments/sample/sr-l1.toml",
        shows: "super-resolution by 4, absolute differences",
    },
    Experiment {
        name: "sample-sr-ms-ssim",
        file: "experiments/sample/sr-ms-ssim.toml",
        shows: "super-resolution by 4, MS-SSIM",
    },
    Experiment {
        name: "sample-sr-deepsim",
        file: "experiments/sample/sr-deepsim.toml",
        shows: "super-resolution by 4, DeePSiM loss",
    },
    Experiment {
        name: "faces-vaegan",
        file: "experiments/sample/faces-vaegan.toml",
        shows: "VAE/GAN on faces, 64 pixels",
    },
    Experiment {
        name: "faces-gan",
        file: "experiments/sample/faces-gan.toml",
        shows: "the GAN alone",
    },
    Experiment {
        name: "faces-vae",
        file: "experiments/sample/faces-vae.toml",
        shows: "the variational autoencoder in pixels alone",
    },
    Experiment {
        name: "faces-vae-dis",
        file: "experiments/sample/faces-vae-dis.toml",
        shows: "the same, compared in the trained GAN's discriminator",
    },
    Experiment {
        name: "sample-noise",
        file: "experiments/sample/noise.toml",
        shows: "pooled features and noise",
    },
    Experiment {
        name: "sample-noise-conditioned",
        file: "experiments/sample/noise-conditioned.toml",
        shows: "the same, the discriminator sees the features",
    },
    Experiment {
        name: "sample-diverse",
        file: "experiments/sample/diverse.toml",
        shows: "pooled features and noise, differing pictures rewarded",
    },
];

/// Runs what is not finished, within `minutes`, and writes records and page.
///
/// # Errors
/// A refusal when `only` matches nothing; a failed set-up, training or evaluation.
pub fn run(ws: &Workspace, only: Option<&str>, minutes: Option<f64>) -> Result<()> {
    // "nothing" regenerates the page alone; any other word that matches nothing is a typing error.
    let chosen: Vec<_> = EXPERIMENTS
        .iter()
        .filter(|experiment| only.is_none_or(|only| matches(experiment.name, only)))
        .collect();
    let unknown = only.filter(|_| only != Some("nothing")).and_then(|only| {
        let mut words = only.split(',').map(str::trim);
        words.find(|word| {
            let known = |e: &Experiment| match only.contains(',') {
                true => e.name == *word,
                false => e.name.contains(word),
            };
            word.is_empty() || !EXPERIMENTS.iter().any(known)
        })
    });
    if let Some(unknown) = unknown {
        let names: Vec<_> = EXPERIMENTS
            .iter()
            .map(|experiment| experiment.name)
            .collect();
        return Err(refuse(format!(
            "--only {unknown}: no such experiment; there are {}",
            names.join(", ")
        )));
    }
    if !chosen.is_empty() {
        train_and_record(ws, &chosen, minutes)?;
    }
    if let Some(page) = results_page(ws)? {
        landing::write(&ws.path(PAGE), page.as_bytes())?;
        note(format_args!("written: {PAGE}"));
    }
    Ok(())
}

/// Whether `--only` means this experiment: its name contains the word, or is one of several that a
/// comma separates.
fn matches(name: &str, only: &str) -> bool {
    match only.contains(',') {
        true => only.split(',').any(|one| one.trim() == name),
        false => name.contains(only),
    }
}

fn train_and_record(ws: &Workspace, chosen: &[&Experiment], minutes: Option<f64>) -> Result<()> {
    let start = Instant::now();
    let deadline = minutes.map(|minutes| start + Duration::from_secs_f64(60.0 * minutes));
    let again = "cargo xtask reproduce";
    let faces = chosen.iter().any(|e| e.name.starts_with(FACES));
    let mut stages = Stages::new(samples::STAGES + usize::from(faces) + chosen.len());
    let programs = samples::ready(ws, &mut stages, faces, again)?;

    for experiment in chosen {
        stages.next(&format!("{}: {}", experiment.name, experiment.shows));
        if !ws.path(experiment.file).is_file() {
            note(format_args!("{} is missing: left out", experiment.file));
            continue;
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            note("out of time: not run");
            continue;
        }
        let run = run_directory(ws, experiment)?;
        let training = Training {
            experiment: experiment.file.to_owned(),
            run: run.clone(),
            extra: Vec::new(),
            again: again.to_owned(),
        };
        if training.run(ws, &programs, deadline)? == Outcome::OutOfTime {
            note(format_args!(
                "out of time: saved, no record; go on with `{again}`"
            ));
            continue;
        }
        let command = format!("cargo run -p deepsim-train -- {}", experiment.file);
        let record = samples::record(ws, &programs, experiment.name, command, &run)?;
        samples::write(ws, experiment.name, &record)?;
    }
    note(format_args!("reproduced in {}", seconds(stages.elapsed())));
    Ok(())
}

fn record_file(ws: &Workspace, experiment: &Experiment) -> PathBuf {
    ws.path(RECORDS).join(format!("{}.json", experiment.name))
}

/// Where the trainer puts the experiment by itself: `runs/NAME`, the name out of its file.
fn run_directory(ws: &Workspace, experiment: &Experiment) -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let text = fs::read_to_string(ws.path(experiment.file))
        .with_context(|| format!("reading {}", experiment.file))?;
    let Named { name } =
        toml::from_str(&text).with_context(|| format!("in {}", experiment.file))?;
    Ok(Path::new("runs").join(name))
}

/// The page as the records give it; the text around its tables is kept. None without page.
///
/// # Errors
/// An unreadable record, or a page without the marks around its tables.
pub fn results_page(ws: &Workspace) -> Result<Option<String>> {
    let Ok(page) = fs::read_to_string(ws.path(PAGE)) else {
        return Ok(None);
    };
    let marks = page.find(BEGIN).zip(page.find(END));
    let Some((begin, end)) = marks.filter(|(begin, end)| begin < end) else {
        return Err(refuse(format!(
            "{PAGE} has lost its marks {} and {END}",
            BEGIN.trim()
        )));
    };
    let mut tables = String::new();
    tables.push_str("| experiment | shows | image error | feature error | gradient energy | n | step | training |\n");
    tables.push_str("|---|---|---|---|---|---|---|---|\n");
    for experiment in EXPERIMENTS {
        let record = match fs::read(record_file(ws, experiment)) {
            Ok(json) => Some(
                serde_json::from_slice::<Record>(&json)
                    .with_context(|| format!("in {RECORDS}/{}.json", experiment.name))?,
            ),
            Err(_) => None,
        };
        tables.push_str(&row(experiment, record.as_ref()));
    }
    Ok(Some(format!(
        "{}{BEGIN}{tables}{}",
        &page[..begin],
        &page[end..]
    )))
}

fn row(experiment: &Experiment, record: Option<&Record>) -> String {
    let head = format!(
        "| [`{}`](../{}) | {} |",
        experiment.name, experiment.file, experiment.shows
    );
    let Some(record) = record else {
        return format!("{head} not run | not run | not run | | | |\n");
    };
    let metrics = record.metrics.first();
    let number = |key: &str, unit: &str, digits: usize| {
        let value = metrics
            .and_then(|metrics| metrics.get(key))
            .and_then(Value::as_f64);
        value.map_or_else(
            || "not run".to_owned(),
            |value| format!("{value:.digits$}{unit}"),
        )
    };
    let time = record.seconds.map_or_else(
        || "not timed".to_owned(),
        |time| seconds(Duration::from_secs_f64(time.max(0.0))),
    );
    format!(
        "{head} {} | {} | {} | {} | {} | {time} |\n",
        number("image_error", " %", 1),
        number("feature_error", " %", 1),
        number("gradient_energy", "", 2),
        number("n", "", 0),
        record
            .step
            .map_or_else(String::new, |step| step.to_string()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_page_keeps_its_text_and_says_what_was_not_run() {
        let tmp = tempfile::tempdir().unwrap();
        fs::create_dir_all(tmp.path().join("tools/xtask")).unwrap();
        fs::create_dir_all(tmp.path().join(RECORDS)).unwrap();
        let ws = Workspace::find(Some(tmp.path())).unwrap();
        assert_eq!(results_page(&ws).unwrap(), None);

        fs::write(ws.path(PAGE), format!("# Results\n{BEGIN}old{END}\ntail\n")).unwrap();
        let record = json!({
            "name": "quickstart", "command": "", "seconds": 480.0, "commit": null, "step": 3655,
            "hashes": {}, "metrics": [{ "image_error": 35.12, "feature_error": 50.1, "gradient_energy": 0.94, "n": 38 }],
        });
        fs::write(record_file(&ws, &EXPERIMENTS[0]), record.to_string()).unwrap();
        let page = results_page(&ws).unwrap().unwrap();
        assert!(
            page.starts_with("# Results\n") && page.ends_with("\ntail\n"),
            "{page}"
        );
        assert!(
            page.contains("| 35.1 % | 50.1 % | 0.94 | 38 | 3655 | 8m00s |"),
            "{page}"
        );
        assert_eq!(
            page.matches("not run | not run").count(),
            EXPERIMENTS.len() - 1
        );
        assert!(!page.contains("old"));

        fs::write(ws.path(PAGE), "no marks").unwrap();
        assert!(results_page(&ws).is_err());
    }
}

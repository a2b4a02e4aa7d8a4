//! `deepsim-data inspect`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use deepsim_data::manifest::Holdout;
use deepsim_data::terminal::{self, one_line};
use deepsim_data::verify::{beside_parts, parts};
use deepsim_data::{Dataset, DatasetKind, Layout, Orientation, Resize, SquareWindow, Store};
use serde::Serialize;

use super::args::{Format, InspectArgs};
use super::output::say;

/// What is printed of one dataset; the JSON's fields.
#[derive(Serialize)]
struct Summary {
    path: String,
    kind: &'static str,
    count: usize,
    size: u32,
    digest: String,
    labels: usize,
    skipped: Option<String>,
    prepared: Option<Prepared>,
}

#[derive(Serialize)]
struct Prepared {
    source: String,
    layout: Layout,
    resize: Resize,
    orientation: Orientation,
    turned: usize,
    window: Option<SquareWindow>,
    store: Store,
    shards: usize,
    bytes: u64,
    holdout: Option<Holdout>,
    duplicates: usize,
    quarantined: Vec<String>,
}

pub fn run(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let mut summaries = Vec::new();
    beside_parts(&args.dataset)?
        .iter()
        .for_each(|note| tracing::info!("{note}"));
    for path in parts(&args.dataset) {
        let data = Dataset::open(&path)?;
        data.notes()
            .iter()
            .for_each(|note| tracing::info!("{note}"));
        match args.format {
            Format::Json => summaries.push(summary(&data)),
            Format::Text => say(&text(&data))?,
        }
    }
    if matches!(args.format, Format::Json) {
        say(&terminal::json(&serde_json::to_string_pretty(&summaries)?))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(data: &Dataset) -> Summary {
    let labels: BTreeSet<String> = (0..data.len())
        .filter_map(|index| data.label(index))
        .collect();
    let prepared = match data.kind() {
        DatasetKind::Folder => None,
        DatasetKind::Prepared(manifest) => Some(Prepared {
            source: manifest.source.name.clone(),
            layout: manifest.source.layout,
            resize: manifest.resize,
            orientation: manifest.orientation,
            turned: manifest.turned,
            window: manifest.window,
            store: manifest.store,
            shards: manifest.shards.len(),
            bytes: manifest.shards.iter().map(|shard| shard.bytes).sum(),
            holdout: manifest.holdout.clone(),
            duplicates: manifest.duplicates.len(),
            quarantined: manifest
                .quarantined
                .iter()
                .map(|photo| format!("{}: {}", photo.path, photo.reason))
                .collect(),
        }),
    };
    Summary {
        path: data.path().display().to_string(),
        kind: if prepared.is_some() {
            "prepared"
        } else {
            "folder"
        },
        count: data.len(),
        size: data.stored_size(),
        digest: data.digest(),
        labels: labels.len(),
        skipped: data.skipped(),
        prepared,
    }
}

fn text(data: &Dataset) -> String {
    let summary = summary(data);
    let mut lines = vec![data.describe()];
    if summary.labels > 0 {
        lines.push(format!("  labels      {}", summary.labels));
    }
    if let Some(prepared) = &summary.prepared {
        lines.push(format!(
            "  source      {} ({})",
            prepared.source,
            prepared.layout.describe()
        ));
        lines.push(format!("  shards      {}", prepared.shards));
        if let Some(holdout) = &prepared.holdout {
            let part = holdout.part.name();
            let validation = holdout
                .validation
                .map_or_else(String::new, |share| format!(", validation {share}"));
            lines.push(format!(
                "  split       {part} (holdout {}{validation}, seed {})",
                holdout.fraction, holdout.seed
            ));
        }
        if prepared.turned > 0 {
            let turned = prepared.turned;
            lines.push(format!(
                "  turned      {turned} of the source's images, by their EXIF orientation"
            ));
        }
        if prepared.duplicates > 0 {
            lines.push(format!("  duplicates  {} left out", prepared.duplicates));
        }
        for photo in &prepared.quarantined {
            lines.push(format!("  left out    {}", one_line(&photo.to_string())));
        }
    }
    lines.push(format!("  digest      {}", summary.digest));
    lines.join("\n")
}

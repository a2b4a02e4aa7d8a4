//! Table 2 for people: methods × layers, then run by run, then the paper's own.

use std::collections::BTreeMap;
use std::path::Path;

use deepsim_data::terminal::one_line;

use crate::analysis::paper;
use crate::analysis::table2::Row;
use crate::run::catalog::Loss;
use crate::show::format::{columns, number, table};

fn percent(v: Option<f64>) -> String {
    number(v, 1)
}

fn whole(v: Option<f64>) -> String {
    number(v, 0)
}

fn run_name(row: &Row) -> String {
    let run = row.run.as_deref().unwrap_or_default();
    let name = Path::new(run).file_name();
    let name = name.map_or(run.into(), |n| n.to_string_lossy());
    one_line(&name).into_owned()
}

/// The line of the methods' table in which a run stands; the number is its place.
fn line(row: &Row) -> (u8, String) {
    match (row.method.as_str(), row.loss) {
        ("mv", _) => (0, "M&V".to_owned()),
        ("db", _) => (1, "D&B".to_owned()),
        ("image-loss", _) => (2, "image loss only".to_owned()),
        ("deepsim", Some(Loss::FeatureAdversarial)) => {
            (4, format!("  no image loss, {}", row.apart))
        }
        ("deepsim", _) => (3, format!("DeePSiM, {}", row.apart)),
        (_, Some(loss)) if row.apart.is_empty() => (5, loss.words().to_owned()),
        (_, Some(loss)) => (5, format!("{}, {}", loss.words(), row.apart)),
        (other, None) => (6, other.to_owned()),
    }
}

/// The text of the whole table.
pub fn text(rows: &[Row]) -> String {
    let mut out = String::from(
        "Normalised inversion error in % (image / feature); 100 = a random other photo.\n",
    );
    let sets = sets(rows);
    for set in &sets {
        out.push_str(&methods(set));
        out.push_str(&runs(&set.rows));
    }
    if !sets.is_empty() {
        out.push_str(
            "\nenergy: gradient energy relative to the images (1 = as sharp, less = blur)\n\
             trained: the features' own network is a comparator of the run\n",
        );
    }
    if sets.len() > 1 {
        out.push_str(
            "Tables above stand on different images: compare rows within one of them only.\n",
        );
    }
    out.push_str(
        "\nThe paper's Table 2 (CaffeNet, ILSVRC-2012 validation; not measured here):\n\n",
    );
    out.push_str(&papers());
    out
}

/// Rows that stand on the same images, so that they can be compared.
pub struct Set<'a> {
    /// Which images, in words.
    pub title: String,
    /// The rows.
    pub rows: Vec<&'a Row>,
}

/// Rows of runs, those of the same images together: the largest set of every dataset first.
pub fn sets(rows: &[Row]) -> Vec<Set<'_>> {
    let ours: Vec<&Row> = rows.iter().filter(|r| r.run.is_some()).collect();
    // Where the same images lie is no difference.
    let key = |r: &Row| {
        (
            r.crop,
            r.image_set.clone(),
            r.image_set.is_none().then(|| r.data.clone()),
        )
    };
    let mut order = ours.clone();
    order.sort_by_key(|r| {
        let n = r.n.unwrap_or(0);
        (
            r.data.clone(),
            r.crop,
            std::cmp::Reverse(n),
            r.image_set.clone(),
        )
    });
    let mut keys = Vec::new();
    for row in order {
        if !keys.contains(&key(row)) {
            keys.push(key(row));
        }
    }
    let mut sets: Vec<Set<'_>> = Vec::new();
    for found in keys {
        let rows: Vec<&Row> = ours.iter().copied().filter(|r| key(r) == found).collect();
        let Some(first) = rows.first() else { continue };
        let data = first.data.as_deref().unwrap_or("-");
        let n = first.n.unwrap_or(0);
        let all_trained = rows.iter().all(|r| is_trained(r));
        let kind = if all_trained { "training" } else { "held-out" };
        let mut title = format!(
            "{n} {kind} images of {data}, {} px",
            first.crop.unwrap_or(0)
        );
        let only_records = rows.iter().all(|r| r.method == "mv");
        if only_records && sets.iter().any(|s| s.rows[0].data == first.data) {
            title.push_str(", those of a record that has no others");
        }
        sets.push(Set { title, rows });
    }
    sets
}

/// Methods × layers of one set of images, as in the paper; the paper's numbers in brackets.
fn methods(set: &Set<'_>) -> String {
    let here = &set.rows;
    let mut layers: Vec<&str> = here.iter().map(|r| r.layer.as_str()).collect();
    layers.sort_unstable();
    layers.dedup();
    let mut lines: Vec<(u8, String)> = here.iter().map(|r| line(r)).collect();
    lines.sort();
    lines.dedup();
    let (mut bracketed, mut several) = (false, Vec::new());
    let mut cells = Vec::new();
    for wanted in &lines {
        let mut row = vec![wanted.1.clone()];
        for layer in &layers {
            let fits = |r: &&&Row| r.layer == *layer && line(r) == *wanted;
            let mut all: Vec<&Row> = here.iter().filter(fits).copied().collect();
            // The longest trained; of equals the plainest name, as in figures.
            all.sort_by_key(|r| {
                let name = run_name(r);
                (std::cmp::Reverse(r.step), name.len(), name)
            });
            let Some((best, others)) = all.split_first() else {
                row.push("-".to_owned());
                continue;
            };
            let mine = format!(
                "{}/{}",
                percent(best.image_error),
                percent(best.feature_error)
            );
            row.push(match best.paper_image_error {
                None => mine,
                image => {
                    bracketed = true;
                    format!(
                        "{mine} ({}/{})",
                        whole(image),
                        whole(best.paper_feature_error)
                    )
                }
            });
            if !others.is_empty() {
                let others: Vec<String> = others.iter().map(|r| run_name(r)).collect();
                let why = if all[1].step == best.step {
                    "as long trained as others"
                } else {
                    "the longest trained"
                };
                several.push(format!(
                    "{}, {layer}: {}, {why}; not {}\n",
                    wanted.1.trim(),
                    run_name(best),
                    others.join(", ")
                ));
            }
        }
        cells.push(row);
    }
    let mut head = vec![""];
    head.extend(&layers);
    let brackets = if bracketed {
        " (in brackets: the paper)"
    } else {
        ""
    };
    let several = if several.is_empty() {
        String::new()
    } else {
        format!("\nOne run stands in each cell:\n{}", several.concat())
    };
    let table = columns(&head, &cells);
    format!("\nMeasured on {}{brackets}\n\n{table}{several}", set.title)
}

fn runs(ours: &[&Row]) -> String {
    let paper = |r: &&Row| match (r.paper_image_error, r.paper_feature_error) {
        (None, None) => "-".to_owned(),
        (i, f) => format!("{}/{}", whole(i), whole(f)),
    };
    let table = table(
        ours,
        &[
            ("run", &|r| run_name(r)),
            ("method", &|r| r.method.clone()),
            ("layer", &|r| r.layer.clone()),
            ("image", &|r| percent(r.image_error)),
            ("feature", &|r| match r.feature_error_trained {
                Some(true) => format!("{} trained", percent(r.feature_error)),
                _ => percent(r.feature_error),
            }),
            ("energy", &|r| number(r.gradient_energy, 2)),
            ("step", &|r| {
                r.step.map_or("-".to_owned(), |s| s.to_string())
            }),
            ("paper", &paper),
        ],
    );
    let mut notes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in ours {
        notes.entry(note(row)).or_default().push(run_name(row));
    }
    let alone = notes.len() == 1;
    let notes: Vec<String> = notes
        .into_iter()
        .map(|(note, runs)| {
            if alone {
                note
            } else {
                format!("  {}:\n  {note}", runs.join(", "))
            }
        })
        .collect();
    format!("\n{table}\n{}\n", notes.join("\n"))
}

/// Whether its run was trained on all of its images.
fn is_trained(r: &Row) -> bool {
    r.n.is_some() && r.held_out_overlap == r.n
}

/// What a row's numbers stand on, in words.
fn note(r: &Row) -> String {
    let n = r.n.unwrap_or(0);
    let kind = if is_trained(r) {
        "training images"
    } else {
        "held-out images"
    };
    let pairs = match r.n_pairs_from {
        Some(from) if from < n => format!("distances relative to the pairs of {from} of them"),
        _ => "distances relative to all their pairs".to_owned(),
    };
    let overlap = match r.held_out_overlap {
        Some(0) => String::new(),
        // Nothing was trained.
        None if r.method == "mv" => String::new(),
        None => "\n    whether any of them were trained on is not known".to_owned(),
        Some(all) if all == n => "\n    all of them were trained on".to_owned(),
        Some(some) => format!("\n    {some} of them were trained on"),
    };
    let weights = r.weights.as_deref().unwrap_or("-");
    let source = if r.recorded {
        "recorded responses"
    } else {
        "weights"
    };
    let clipped = match r.clipped {
        Some(true) => "clipped to 0-255",
        _ => "not clipped",
    };
    format!("  {n} {kind}, {pairs},\n    {source} {weights}, {clipped}{overlap}")
}

fn papers() -> String {
    let layers = ["conv5", "fc6", "fc7", "fc8"];
    let mut cells = Vec::new();
    for (title, method, comparator) in [
        ("M&V", "mv", ""),
        ("D&B", "db", ""),
        ("image loss only", "image-loss", ""),
        ("DeePSiM, AlexNet CONV5", "deepsim", "caffenet:pool5"),
        ("DeePSiM, VideoNet CONV5", "deepsim", "videonet:pool5"),
    ] {
        let mut line = vec![title.to_owned()];
        for layer in layers {
            let cell = paper::TABLE_2
                .iter()
                .find(|(m, c, l, _, _)| *m == method && *c == comparator && *l == layer);
            line.push(cell.map_or("-".to_owned(), |(_, _, _, i, f)| {
                format!("{}/{}", whole(*i), whole(*f))
            }));
        }
        cells.push(line);
    }
    columns(&["", "CONV5", "FC6", "FC7", "FC8"], &cells)
}

/// The metrics that the paper lacks, run by run.
pub fn metrics(rows: &[Row]) -> String {
    let mut out = String::from(
        "\nOther metrics of the same images (LPIPS: less is better; top 1, top 5: share that\n\
         EfficientNet-Lite0 gives the photo's own label; shared: had a part in the run)\n",
    );
    let sets = sets(rows);
    for set in &sets {
        let table = table(
            &set.rows,
            &[
                ("run", &|r| run_name(r)),
                ("LPIPS", &|r| r.lpips.text(3)),
                ("by", &|r| r.lpips_net.clone().unwrap_or("-".to_owned())),
                ("SSIM", &|r| r.ssim.text(3)),
                ("PSNR", &|r| r.psnr.text(1)),
                ("top 1", &|r| r.label_top1.text(2)),
                ("top 5", &|r| r.label_top5.text(2)),
            ],
        );
        if sets.len() > 1 {
            out.push_str(&format!("\n{}", set.title));
        }
        out.push_str(&format!("\n{table}"));
    }
    out
}

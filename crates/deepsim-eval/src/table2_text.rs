//! Table 2 for people: methods × layers, then run by run, then the paper's own.

use std::path::Path;

use crate::catalog::Loss;
use crate::format::columns;
use crate::paper;
use crate::table2::Row;

fn percent(v: Option<f64>) -> String {
    v.map_or("-".to_owned(), |v| format!("{v:.1}"))
}

fn whole(v: Option<f64>) -> String {
    v.map_or("-".to_owned(), |v| format!("{v:.0}"))
}

fn run_name(row: &Row) -> String {
    let run = row.run.as_deref().unwrap_or_default();
    Path::new(run)
        .file_name()
        .map_or(run.to_owned(), |n| n.to_string_lossy().into_owned())
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
    let ours: Vec<&Row> = rows.iter().filter(|r| r.run.is_some()).collect();
    if !ours.is_empty() {
        out.push_str(&methods(&ours));
        out.push_str(&runs(&ours));
    }
    out.push_str(
        "\nThe paper's Table 2 (CaffeNet, ILSVRC-2012 validation; not measured here):\n\n",
    );
    out.push_str(&papers());
    out
}

/// Methods × layers of one set of photographs, as in the paper; the paper's numbers in brackets.
fn methods(ours: &[&Row]) -> String {
    let mut out = String::new();
    let label = |r: &Row| {
        let data = r.data.as_deref().unwrap_or("-");
        format!("{data}, {} px", r.crop.unwrap_or(0))
    };
    let mut sets: Vec<String> = ours.iter().map(|r| label(r)).collect();
    sets.sort();
    sets.dedup();
    for set in sets {
        let here: Vec<&&Row> = ours.iter().filter(|r| label(r) == set).collect();
        let mut layers: Vec<&str> = here.iter().map(|r| r.layer.as_str()).collect();
        layers.sort_unstable();
        layers.dedup();
        let mut lines: Vec<(u8, String)> = here.iter().map(|r| line(r)).collect();
        lines.sort();
        lines.dedup();
        let cells: Vec<Vec<String>> = lines
            .iter()
            .map(|wanted| {
                let cell = |layer: &str| {
                    let all = here
                        .iter()
                        .filter(|r| r.layer == layer && line(r) == *wanted);
                    // The longest trained; of equals the plainest name, as in figures.
                    let best = all.min_by_key(|r| {
                        let name = run_name(r);
                        (std::cmp::Reverse(r.step), name.len(), name)
                    });
                    best.map_or("-".to_owned(), |r| {
                        let mine =
                            format!("{}/{}", percent(r.image_error), percent(r.feature_error));
                        match r.paper_image_error {
                            None => mine,
                            image => format!(
                                "{mine} ({}/{})",
                                whole(image),
                                whole(r.paper_feature_error)
                            ),
                        }
                    })
                };
                let mut row = vec![wanted.1.clone()];
                row.extend(layers.iter().map(|l| cell(l)));
                row
            })
            .collect();
        let mut head = vec![""];
        head.extend(&layers);
        out.push_str(&format!(
            "\nMeasured on {set} (in brackets: the paper)\n\n{}",
            columns(&head, &cells)
        ));
    }
    out
}

fn runs(ours: &[&Row]) -> String {
    let cells: Vec<Vec<String>> = ours
        .iter()
        .map(|r| {
            let paper = match (r.paper_image_error, r.paper_feature_error) {
                (None, None) => "-".to_owned(),
                (i, f) => format!("{}/{}", whole(i), whole(f)),
            };
            vec![
                run_name(r),
                r.method.clone(),
                r.layer.clone(),
                percent(r.image_error),
                percent(r.feature_error),
                r.gradient_energy
                    .map_or("-".to_owned(), |v| format!("{v:.2}")),
                r.step.map_or("-".to_owned(), |s| s.to_string()),
                paper,
            ]
        })
        .collect();
    let head = [
        "run", "method", "layer", "image", "feature", "energy", "step", "paper",
    ];
    let mut notes: Vec<String> = ours
        .iter()
        .map(|r| {
            format!(
                "  {} held-out photos of {}, {} px crops,\n    weights {}{}",
                r.n.unwrap_or(0),
                r.data.as_deref().unwrap_or("-"),
                r.crop.unwrap_or(0),
                r.weights.as_deref().unwrap_or("-"),
                if r.clipped == Some(true) {
                    ", clipped to 0-255"
                } else {
                    ", not clipped"
                }
            )
        })
        .collect();
    notes.sort();
    notes.dedup();
    format!(
        "\n{}\nmeasured on\n{}\n\
         energy: gradient energy relative to the photos (1 = as sharp, less = blur)\n",
        columns(&head, &cells),
        notes.join("\n")
    )
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

/// The judges that the paper lacks, run by run.
pub fn judges(rows: &[Row]) -> String {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .filter(|r| r.run.is_some())
        .map(|r| {
            vec![
                run_name(r),
                r.lpips.text(3),
                r.lpips_net.clone().unwrap_or("-".to_owned()),
                r.ssim.text(3),
                r.psnr.text(1),
                r.label_top1.text(2),
                r.label_top5.text(2),
            ]
        })
        .collect();
    let head = ["run", "LPIPS", "by", "SSIM", "PSNR", "top 1", "top 5"];
    format!(
        "\nOther judges of the same pictures (LPIPS: less is better; top 1, top 5: share that\n\
         EfficientNet-Lite0 gives the photo's own label; shared: had a part in the run)\n\n{}",
        columns(&head, &cells)
    )
}

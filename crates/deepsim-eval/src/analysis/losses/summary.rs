//! The runs of each objective together: tables of objectives by metrics, and the plane of distortion and perception.

use deepsim_data::terminal::one_line;

use super::row::Row;
use crate::measure::metrics::Score;
use crate::run::catalog;
use crate::show::format::{number, table};
use crate::show::plane::{Plane, Point, Spread};

/// Brings rows of one task next to each other, and in it those of one objective.
pub fn sort(rows: &mut [Row]) {
    rows.sort_by_key(|r| {
        let of = (r.task.clone(), r.photos.clone());
        (of, r.trained_with.clone(), r.seed, r.run.clone())
    });
}

/// Sorted rows, those of one task together.
fn tasks(rows: &[Row]) -> impl Iterator<Item = &[Row]> {
    rows.chunk_by(|a, b| a.task == b.task && a.photos == b.photos)
}

/// Sorted rows of one task, those of one objective together.
fn objectives(of_task: &[Row]) -> Vec<&[Row]> {
    let same = |a: &Row, b: &Row| a.trained_with == b.trained_with;
    of_task.chunk_by(same).collect()
}

fn name(runs: &[Row]) -> String {
    runs.first()
        .map_or_else(String::new, |r| r.trained_with.clone())
}

/// The range of a number over the runs of an objective.
fn range(runs: &[Row], of: impl Fn(&Row) -> f64, decimals: usize) -> String {
    let values: Vec<f64> = runs.iter().map(of).collect();
    range_of(&values, decimals)
}

/// The same of a metric: a word where it is silent for one of the runs.
fn heard(runs: &[Row], of: impl Fn(&Row) -> Score, decimals: usize) -> String {
    match values(runs, of) {
        Ok(values) => range_of(&values, decimals),
        Err(silent) => silent.text(decimals),
    }
}

fn range_of(values: &[f64], decimals: usize) -> String {
    let spread = Spread::of(values);
    spread.map_or("-".to_owned(), |spread| spread.text(decimals))
}

/// The metric of each run, or how it is silent.
fn values(runs: &[Row], of: impl Fn(&Row) -> Score) -> Result<Vec<f64>, Score> {
    let value = |run: &Row| match of(run) {
        Score::Value(value) => Ok(value),
        silent => Err(silent),
    };
    runs.iter().map(value).collect()
}

/// The error of the features, marked where it was trained for.
fn feature_error(runs: &[Row]) -> String {
    let all: Option<Vec<f64>> = runs.iter().map(|r| r.feature_error).collect();
    let Some(all) = all else {
        return "-".to_owned();
    };
    let trained = runs.iter().any(|r| r.feature_trained);
    let mark = if trained { " t" } else { "" };
    format!("{}{mark}", range_of(&all, 1))
}

fn class(runs: &[Row]) -> String {
    let all: Option<Vec<f64>> = runs.iter().map(|r| r.classified).collect();
    all.map_or("-".to_owned(), |all| {
        let percent: Vec<f64> = all.iter().map(|share| 100.0 * share).collect();
        format!("{} %", range_of(&percent, 0))
    })
}

/// Sorted rows as tables for each task: an objective a line, with the ranges over its runs.
pub fn text(rows: &[Row]) -> String {
    let mut out = String::new();
    for of_task in tasks(rows) {
        let all = objectives(of_task);
        let (task, n) = of_task.first().map_or(("", 0), |r| (r.task.as_str(), r.n));
        let scales = of_task.first().map_or(0, |r| r.scales);
        out.push_str(&format!(
            "{}, {n} held-out photos (MS-SSIM at {scales} scales)\n\n",
            one_line(task)
        ));
        out.push_str(&table(
            &all,
            &[
                ("trained with", &|runs| name(runs)),
                ("runs", &|runs| runs.len().to_string()),
                ("L1", &|runs| range(runs, |r| r.l1, 2)),
                ("L2", &|runs| range(runs, |r| r.l2, 2)),
                ("SSIM", &|runs| range(runs, |r| r.ssim, 3)),
                ("MS-SSIM", &|runs| range(runs, |r| r.ms_ssim, 3)),
                ("sharp", &|runs| range(runs, |r| r.gradient_energy, 2)),
            ],
        ));
        out.push('\n');
        out.push_str(&table(
            &all,
            &[
                ("trained with", &|runs| name(runs)),
                ("LPIPS alex", &|runs| heard(runs, |r| r.lpips_alex, 3)),
                ("VGG16", &|runs| heard(runs, |r| r.lpips_vgg16, 3)),
                ("DISTS", &|runs| heard(runs, |r| r.dists, 3)),
                ("kernel", &|runs| heard(runs, |r| r.kernel_distance, 2)),
                ("features %", &|runs| feature_error(runs)),
                ("class", &|runs| class(runs)),
            ],
        ));
        out.push('\n');
        out.push_str(&table(
            of_task,
            &[
                ("run", &|r| catalog::name(&r.run)),
                ("trained with", &|r| r.trained_with.clone()),
                ("seed", &|r| r.seed.to_string()),
                ("steps", &|r| r.steps.to_string()),
                ("seconds", &|r| number(Some(r.seconds), 0)),
            ],
        ));
        out.push('\n');
    }
    if !rows.is_empty() {
        out.push_str(
            "Ranges are those of the runs. L1, L2: mean absolute and root mean squared\n\
             difference, grey levels. SSIM, MS-SSIM: 1 is equal. sharp: gradient energy, 1\n\
             is as photos. LPIPS, DISTS: 0 is equal. kernel: kernel distance of all images\n\
             from all photos in EfficientNet-Lite0's features, 0 is alike. features: error\n\
             of the inverted features; t: their network is in the loss. shared: the\n\
             metric's network, or one of its family, had a part in the training. hinge, D:\n\
             the discriminator's loss, D is the paper's. What people prefer: `ask`.\n",
        );
        if let Some(chance) = rows.iter().find_map(|r| r.classified_by_chance) {
            let n = rows.iter().map(|r| r.n_classified).max().unwrap_or(0);
            out.push_str(&format!(
                "class: a linear probe on what is decoded finds the category of {n} photos\n(guessing: {:.0} %).\n",
                100.0 * chance
            ));
        }
    }
    out
}

/// For each task of sorted rows: its name, and its objectives by distortion and by perception (Blau & Michaeli 2018), by
/// metrics that none of their networks had a part in.
pub fn planes(rows: &[Row]) -> Vec<(String, Plane)> {
    tasks(rows).map(plane).collect()
}

fn plane(of_task: &[Row]) -> (String, Plane) {
    let task = of_task.first().map_or("", |r| r.task.as_str());
    let mut plane = Plane {
        title: format!("Distortion and perception: {}", one_line(task)),
        axes: [
            "root mean squared difference, grey levels".to_owned(),
            "kernel distance from photos, EfficientNet-Lite0".to_owned(),
        ],
        mark: "orange: with a discriminator".to_owned(),
        ..Plane::default()
    };
    for runs in objectives(of_task) {
        let distortion: Vec<f64> = runs.iter().map(|r| r.l2).collect();
        let perception = values(runs, |r| r.kernel_distance);
        let at = match &perception {
            Ok(perception) => Spread::of(&distortion).zip(Spread::of(perception)),
            Err(_) => None,
        };
        match (at, perception) {
            (Some((x, y)), _) => plane.points.push(Point {
                name: name(runs),
                at: [x, y],
                marked: runs.iter().any(|r| r.adversary),
            }),
            (None, silent) => {
                let why = match silent {
                    Err(Score::Shared) => "the network had a part in it",
                    _ => "not measured",
                };
                plane.without.push(format!("{}: {why}", name(runs)));
            }
        }
    }
    (task.to_owned(), plane)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(trained_with: &str, seed: u64, l2: f64, kernel: Score) -> Row {
        Row {
            run: format!("runs/{trained_with}-seed{seed}"),
            task: "alexnet:pool2".to_owned(),
            trained_with: trained_with.to_owned(),
            seed,
            l2,
            kernel_distance: kernel,
            ..Row::default()
        }
    }

    fn rows() -> Vec<Row> {
        let mut rows = vec![
            row("L2", 2, 33.0, Score::Value(0.9)),
            row("L1", 1, 34.0, Score::Value(0.8)),
            row("L2", 1, 31.5, Score::Value(0.7)),
            row("features", 1, 36.0, Score::Shared),
        ];
        rows[3].feature_error = Some(57.0);
        rows[3].feature_trained = true;
        rows[1].adversary = true;
        sort(&mut rows);
        rows
    }

    #[test]
    fn an_objective_is_a_line_with_ranges_and_silent_cells() {
        let text = text(&rows());
        let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("L2 ")).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains("31.50–33.00"), "{text}");
        assert!(lines[1].contains("0.70–0.90"), "{text}");
        let mut features = text.lines().filter(|l| l.starts_with("features "));
        let perception = features.nth(1).unwrap();
        assert!(
            perception.contains("shared") && perception.contains("57.0 t"),
            "{text}"
        );
        // Every run is named.
        assert_eq!(text.matches("-seed").count(), 4);
    }

    #[test]
    fn silent_objectives_are_named_beside_the_plot() {
        let mut all = rows();
        let mut other = row("L1", 1, 9.0, Score::Missing);
        other.task = "downsampled:4".to_owned();
        all.push(other);
        sort(&mut all);
        let planes = planes(&all);
        assert_eq!(planes.len(), 2);
        let (task, plane) = &planes[0];
        assert_eq!(task, "alexnet:pool2");
        let names: Vec<(&str, bool)> = plane
            .points
            .iter()
            .map(|p| (p.name.as_str(), p.marked))
            .collect();
        assert_eq!(names, [("L1", true), ("L2", false)]);
        assert_eq!(plane.points[1].at[0].mean, 32.25);
        assert_eq!(plane.without, ["features: the network had a part in it"]);
        assert_eq!(planes[1].1.without, ["L1: not measured"]);
        assert!(planes[1].1.points.is_empty());
    }
}

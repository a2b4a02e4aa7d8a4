//! bf16 beside the spread of fp32, metric by metric.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::run::{Precision, Run};
use crate::numbers::{mean_and_error, significant};
use deepsim_tools::stages::seconds;

/// Where bf16's mean lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Within fp32's range.
    Within,
    /// Below its smallest value.
    Below,
    /// Above its largest value.
    Above,
}

/// One metric over all runs.
#[derive(Debug, PartialEq, Serialize)]
pub struct Comparison {
    metric: &'static str,
    better: &'static str,
    fp32: Vec<f64>,
    bf16: Vec<f64>,
    fp32_min: f64,
    fp32_max: f64,
    bf16_mean: f64,
    /// bf16 minus fp32, seed by seed: the same start and the same photos in the same order.
    differences: Vec<f64>,
    /// Of bf16's mean in fp32's range.
    place: Place,
}

type Metric = (&'static str, &'static str, fn(&Run) -> Option<f64>);

/// Held-out photos first: losses of training photos say less.
const METRICS: [Metric; 5] = [
    ("image_error", "smaller", |run| metric(run, "image_error")),
    ("feature_error", "smaller", |run| {
        metric(run, "feature_error")
    }),
    ("gradient_energy", "nearer to 1", |run| {
        metric(run, "gradient_energy")
    }),
    ("train_loss_feat", "smaller", |run| {
        run.curves.at_the_end(|l| l.feat)
    }),
    ("train_loss_img", "smaller", |run| {
        run.curves.at_the_end(|l| l.img)
    }),
];

fn metric(run: &Run, key: &str) -> Option<f64> {
    run.record.metrics.first()?.get(key)?.as_f64()
}

/// Compares metric by metric; a metric that some run lacks is left out.
pub fn compare(runs: &[Run]) -> Vec<Comparison> {
    let all = METRICS.iter().filter_map(|&(metric, better, get)| {
        let of = |precision| -> Option<Vec<f64>> {
            let own = runs.iter().filter(|run| run.precision == precision);
            own.map(get).collect()
        };
        comparison(metric, better, of(Precision::Fp32)?, of(Precision::Bf16)?)
    });
    all.collect()
}

fn comparison(
    metric: &'static str,
    better: &'static str,
    fp32: Vec<f64>,
    bf16: Vec<f64>,
) -> Option<Comparison> {
    if fp32.is_empty() || bf16.is_empty() {
        return None;
    }
    let fp32_min = fp32.iter().copied().fold(f64::INFINITY, f64::min);
    let fp32_max = fp32.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let bf16_mean = bf16.iter().sum::<f64>() / bf16.len() as f64;
    let differences = fp32.iter().zip(&bf16).map(|(a, b)| b - a).collect();
    // What is not a number lies nowhere within.
    let place = match (bf16_mean >= fp32_min, bf16_mean <= fp32_max) {
        (true, true) => Place::Within,
        (false, true) => Place::Below,
        _ => Place::Above,
    };
    Some(Comparison {
        metric,
        better,
        fp32,
        bf16,
        fp32_min,
        fp32_max,
        bf16_mean,
        differences,
        place,
    })
}

/// The table for people, 80 columns at most.
pub fn table(runs: &[Run], all: &[Comparison]) -> String {
    let mut text = String::new();
    let mut line = |cells: [&str; 5]| {
        let [metric, fp32, bf16, place, difference] = cells;
        let row = format!("{metric:<18} {fp32:<18} {bf16:<10} {place:<9} {difference}");
        let _ = writeln!(text, "{}", row.trim_end());
    };
    line([
        "metric",
        "fp32, min to max",
        "bf16, mean",
        "its place",
        "by seed, bf16-fp32",
    ]);
    for c in all {
        let range = format!("{} to {}", digits(c.fp32_min), digits(c.fp32_max));
        let place = match c.place {
            Place::Within => "within",
            Place::Below => "below",
            Place::Above => "above",
        };
        let (mean, error) = mean_and_error(&c.differences);
        let difference = match error {
            Some(error) => format!("{} +- {}", significant(mean, 3), significant(error, 2)),
            None => significant(mean, 3),
        };
        line([c.metric, &range, &digits(c.bf16_mean), place, &difference]);
    }
    let time = |precision| {
        let own = runs.iter().filter(|run| run.precision == precision);
        let times: Vec<f64> = own.filter_map(|run| run.record.seconds).collect();
        let mean = times.iter().sum::<f64>() / times.len().max(1) as f64;
        seconds(Duration::from_secs_f64(mean.max(0.0)))
    };
    let seeds = runs.len() / 2;
    let _ = writeln!(
        text,
        "Seeds: {seeds} each; errors in percent on held-out photos, losses of the last steps.\n\
         By seed: the same start and photos; mean and its standard error.\n\
         A range of 3 seeds is narrow: an equally good arithmetic with other seeds would\n\
         miss it with its mean 4 times in 10.\n\
         A run took {} in fp32, {} in bf16, evaluations included.",
        time(Precision::Fp32),
        time(Precision::Bf16)
    );
    text
}

/// Four digits, without an exponent where it can be.
fn digits(value: f64) -> String {
    significant(value, 4)
}

#[cfg(test)]
pub mod tests {
    use super::super::curves::{Curves, HeldOut, Losses};
    use super::*;
    use crate::samples::Record;
    use serde_json::json;

    /// A run whose numbers follow from its own.
    pub fn run(precision: Precision, seed: u64, image_error: f64) -> Run {
        let metrics = json!({ "image_error": image_error, "feature_error": 60.0,
                              "gradient_energy": 0.875 });
        let steps = || (1..=9u64).map(|i| 100 * i);
        let fall = |step: u64| 1e3 / step as f64;
        Run {
            precision,
            seed,
            trained_at: Vec::new(),
            record: Record {
                name: "x".to_owned(),
                command: String::new(),
                seconds: Some(125.0),
                commit: None,
                step: Some(900),
                hashes: serde_json::Map::new(),
                metrics: vec![metrics.as_object().unwrap().clone()],
                processor: None,
                settings: None,
                updates: None,
                studies: std::collections::BTreeMap::new(),
            },
            curves: Curves {
                losses: steps()
                    .map(|step| Losses {
                        step,
                        feat: 1e4 * fall(step) + image_error,
                        img: 1e8 * fall(step),
                        adv: 0.7,
                        discr: 1.4,
                    })
                    .collect(),
                held_out: steps()
                    .map(|step| HeldOut {
                        step,
                        image_error: image_error + fall(step),
                        feature_error: 60.0 + fall(step),
                        gradient_energy: 0.875,
                    })
                    .collect(),
            },
        }
    }

    #[test]
    fn the_mean_is_put_beside_the_range() {
        let place = |bf16: &[f64]| {
            comparison("x", "smaller", vec![40.0, 42.0, 41.0], bf16.to_vec())
                .unwrap()
                .place
        };
        assert_eq!(place(&[39.0, 43.5]), Place::Within);
        assert_eq!(place(&[42.0]), Place::Within);
        assert_eq!(place(&[39.0, 40.0]), Place::Below);
        assert_eq!(place(&[43.0, 42.0]), Place::Above);
        assert_eq!(place(&[f64::NAN]), Place::Above);
        assert_eq!(comparison("x", "smaller", vec![], vec![1.0]), None);
    }

    #[test]
    fn the_table_fits_80_columns() {
        let runs: Vec<Run> = [(Precision::Fp32, 40.0), (Precision::Fp32, 42.0)]
            .into_iter()
            .chain([(Precision::Bf16, 41.0), (Precision::Bf16, 49.5)])
            .map(|(precision, error)| run(precision, 1, error))
            .collect();
        let all = compare(&runs);
        assert_eq!(all.len(), METRICS.len());
        let text = table(&runs, &all);
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        for part in ["40.00 to 42.00", "45.25", "above", "within", "2m05s"] {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
    }

    #[test]
    fn differences_are_taken_seed_by_seed() {
        let c = comparison("x", "smaller", vec![40.0, 42.0], vec![41.0, 41.0]);
        assert_eq!(c.unwrap().differences, [1.0, -1.0]);
    }
}

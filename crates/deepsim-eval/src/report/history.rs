//! `metrics.jsonl` of a run, as far as curves show it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use deepsim_data::terminal::path as shown;
use deepsim_experiment::config;
use deepsim_experiment::{ExperimentError, files};
use deepsim_nets::loss::{Term, TermKind, Terms};
use serde_json::Value;

use super::data::Part;

/// Points of a curve at most: more than a screen has columns for one.
const POINTS: usize = 400;
/// A longer line is none of ours.
const LINE: u64 = 1 << 16;
/// Log steps in memory at most: beyond it, neighbours are joined.
const HELD: usize = 1 << 15;

/// One log step (or the mean of several, in a long run).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logged {
    /// Iterations done.
    pub step: f64,
    /// Terms of the generator's loss that were logged, weighted.
    pub terms: Terms<f64>,
    /// The discriminator's loss over the generator's adversarial loss, which the gate looks at.
    pub ratio: Option<f64>,
    /// Share of iterations since the last log step that updated the discriminator.
    pub discriminator: Option<f64>,
    /// The same of the generator.
    pub generator: Option<f64>,
}

/// Errors of held-out images while training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluated {
    /// Iterations done.
    pub step: f64,
    /// Percent.
    pub image: Option<f64>,
    /// Percent.
    pub feature: Option<f64>,
}

/// What a run logged.
#[derive(Clone, Debug)]
pub struct History {
    /// The training.
    pub logged: Vec<Logged>,
    /// The evaluations.
    pub evaluated: Vec<Evaluated>,
    /// Thresholds of its gate.
    pub gate: config::Gate,
    /// Whether it has an adversarial term at all.
    pub adversarial: bool,
}

/// Reads a run's log. `stages` are the weights of the terms with the steps after which they begin, in their order; a term
/// is left out where it has no weight. (A log step in which a stage begins is weighed as that stage weighs.)
pub(super) fn read(path: &Path, stages: &[(u64, Terms<f64>)], gate: config::Gate) -> Part<History> {
    let all = stages.iter().flat_map(|(_, weights)| weights.iter());
    let weighed: BTreeSet<&Term> = all
        .filter(|(_, weight)| **weight > 0.0)
        .map(|(term, _)| term)
        .collect();
    let keys: Vec<String> = weighed.iter().map(|term| term.log_key()).collect();
    let file = files::open(path).map_err(|e| ExperimentError::io(path)(e).to_string())?;
    let mut reader = BufReader::new(file);
    let mut logs = Held::new(HELD);
    let mut evaluations = Held::new(HELD);
    let mut line = Vec::new();
    loop {
        line.clear();
        let n = reader
            .by_ref()
            .take(LINE)
            .read_until(b'\n', &mut line)
            .map_err(|e| ExperimentError::io(path)(e).to_string())?;
        if n == 0 {
            break;
        }
        let Ok(value) = serde_json::from_slice::<Value>(&line) else {
            continue; // cut while being written
        };
        let Some(step) = value.get("step").and_then(Value::as_u64) else {
            continue;
        };
        let number = |key: &str| {
            let v = value.get(key).and_then(Value::as_f64);
            v.filter(|v| v.is_finite())
        };
        if value.get("eval.image_error").is_some() {
            let numbers = ["eval.image_error", "eval.feature_error"].map(number);
            evaluations.add(step, numbers.to_vec(), []);
            continue;
        }
        let stage = stages.iter().rev().find(|(from, _)| *from < step);
        let weighted = |(key, term): (&String, &&Term)| {
            let weight = stage.and_then(|(_, weights)| weights.get(term));
            Some(number(key)? * weight.filter(|weight| **weight > 0.0)?)
        };
        let terms = keys.iter().zip(&weighed).map(weighted);
        let means = terms.chain([number("gate.ratio")]).collect();
        logs.add(step, means, ["updates.d", "updates.g"].map(number));
    }
    let mut logged: Vec<Logged> = logs
        .points
        .iter()
        .map(|p| {
            let mut values = p.values();
            let [discriminator, generator] = p.last;
            let terms = weighed.iter().zip(values.by_ref());
            let terms = terms.filter_map(|(term, v)| Some(((*term).clone(), v?)));
            Logged {
                step: p.step as f64,
                terms: terms.collect(),
                ratio: values.next().flatten(),
                discriminator,
                generator,
            }
        })
        .collect();
    shares(&mut logged);
    if logged.is_empty() {
        return Err(format!("{} has no log step yet", shown(path)));
    }
    let evaluated = evaluations
        .points
        .iter()
        .map(|p| {
            let mut values = p.values();
            Evaluated {
                step: p.step as f64,
                image: values.next().flatten(),
                feature: values.next().flatten(),
            }
        })
        .collect();
    Ok(History {
        logged: thin(&logged),
        evaluated,
        gate,
        adversarial: weighed.contains(&Term::from(TermKind::Adversarial)),
    })
}

/// Points of a log in the order of their steps, of which any number may come and few are held: where there are too many,
/// each two neighbours become one.
struct Held<const LAST: usize> {
    points: Vec<Point<LAST>>,
    most: usize,
    /// Lines that a point stands for, where it is full.
    size: u64,
}

/// One line, or several that follow each other.
struct Point<const LAST: usize> {
    /// Of the last of them.
    step: u64,
    lines: u64,
    /// Sums of those that have a value, and how many have.
    sums: Vec<(f64, u64)>,
    /// Counters, as the last line has them.
    last: [Option<f64>; LAST],
}

impl<const LAST: usize> Point<LAST> {
    fn values(&self) -> impl Iterator<Item = Option<f64>> {
        let sums = self.sums.iter();
        sums.map(|(sum, n)| (*n > 0).then(|| sum / *n as f64))
    }

    /// Takes the point that follows.
    fn join(&mut self, next: &Point<LAST>) {
        self.step = next.step;
        self.lines += next.lines;
        for ((sum, n), (more, count)) in self.sums.iter_mut().zip(&next.sums) {
            *sum += more;
            *n += count;
        }
        for (last, next) in self.last.iter_mut().zip(next.last) {
            *last = next.or(*last);
        }
    }
}

impl<const LAST: usize> Held<LAST> {
    fn new(most: usize) -> Held<LAST> {
        Held {
            points: Vec::new(),
            most,
            size: 1,
        }
    }

    fn add(&mut self, step: u64, means: Vec<Option<f64>>, last: [Option<f64>; LAST]) {
        // A resumed run may have logged steps twice: the last line of each counts.
        while self.points.last().is_some_and(|p| p.step >= step) {
            self.points.pop();
        }
        let next = Point {
            step,
            lines: 1,
            sums: means
                .into_iter()
                .map(|v| (v.unwrap_or(0.0), u64::from(v.is_some())))
                .collect(),
            last,
        };
        match self.points.last_mut().filter(|p| p.lines < self.size) {
            Some(point) => point.join(&next),
            None => self.points.push(next),
        }
        if self.points.len() > self.most {
            self.size *= 2;
            let mut joined: Vec<Point<LAST>> = Vec::with_capacity(self.most);
            for (i, point) in std::mem::take(&mut self.points).into_iter().enumerate() {
                match joined.last_mut().filter(|_| i % 2 == 1) {
                    Some(before) => before.join(&point),
                    None => joined.push(point),
                }
            }
            self.points = joined;
        }
    }
}

/// Counts of updates become the share of iterations that had one.
fn shares(logged: &mut [Logged]) {
    let (mut step, mut counts) = (0.0, [0.0, 0.0]);
    for one in logged {
        let length = one.step - step;
        for (value, before) in [&mut one.discriminator, &mut one.generator]
            .into_iter()
            .zip(&mut counts)
        {
            if let Some(count) = *value {
                *value = (length > 0.0).then(|| ((count - *before) / length).clamp(0.0, 1.0));
                *before = count;
            }
        }
        step = one.step;
    }
}

/// Means of neighbours, so that a long run is drawn with few points.
fn thin(logged: &[Logged]) -> Vec<Logged> {
    let size = logged.len().div_ceil(POINTS).max(1);
    let mean = |part: &[Logged], of: &dyn Fn(&Logged) -> Option<f64>| {
        let values: Vec<f64> = part.iter().filter_map(of).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let terms = |part: &[Logged]| -> Terms<f64> {
        let known: BTreeSet<&Term> = part
            .iter()
            .flat_map(|l| l.terms.iter().map(|(term, _)| term))
            .collect();
        let of = |term: &Term| mean(part, &|l| l.terms.get(term).copied());
        let all = known.into_iter();
        all.filter_map(|term| Some((term.clone(), of(term)?)))
            .collect()
    };
    logged
        .chunks(size)
        .map(|part| Logged {
            step: part.last().map_or(0.0, |l| l.step),
            terms: terms(part),
            ratio: mean(part, &|l| l.ratio),
            discriminator: mean(part, &|l| l.discriminator),
            generator: mean(part, &|l| l.generator),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATE: config::Gate = config::Gate {
        d_off_below: 0.1,
        d_on_above: 0.5,
        g_off_above: 10.0,
        g_on_below: 0.1,
    };

    fn weights([feat, adv, img]: [f64; 3]) -> Terms<f64> {
        let mut weights = Terms::default();
        weights.set(TermKind::Feature, feat);
        weights.set(TermKind::Adversarial, adv);
        weights.set(TermKind::Image, img);
        weights
    }

    /// Every term that was weighed, whichever they are.
    #[test]
    fn all_weighed_terms_are_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "{\"step\":1,\"loss.feat\":2.0,\"loss.kl\":4.0,\"loss.diversity\":-3.0,\"loss.img\":1}\n";
        std::fs::write(file.path(), text).unwrap();
        let mut all = weights([1.0, 0.0, 0.0]);
        all.set(TermKind::Kl, 0.5);
        all.set(TermKind::Diversity, 2.0);
        let made = read(file.path(), &[(0, all)], GATE).unwrap();
        let terms = made.logged[0].terms.iter();
        let found: Vec<(String, f64)> = terms.map(|(t, v)| (t.log_key(), *v)).collect();
        let wanted = [
            ("loss.feat", 2.0),
            ("loss.kl", 2.0),
            ("loss.diversity", -6.0),
        ];
        assert_eq!(found, wanted.map(|(k, v)| (k.to_owned(), v)));
    }

    #[test]
    fn lines_become_shares_and_weighted_terms() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "{\"step\":10,\"loss.feat\":2.0,\"loss.adv\":null,\"updates.d\":5,\"updates.g\":10}\n\
                    {\"step\":10,\"eval.image_error\":50.5}\n\
                    {\"step\":30,\"loss.feat\":1.0,\"updates.d\":25,\"updates.g\":20,\"gate.ratio\":0.5}\n\
                    {\"step\":40,\"loss.fe";
        std::fs::write(file.path(), text).unwrap();
        let made = read(file.path(), &[(0, weights([3.0, 1.0, 0.0]))], GATE).unwrap();
        assert_eq!(made.logged.len(), 2);
        assert_eq!(made.logged[0].terms.of(TermKind::Feature), Some(&6.0));
        assert_eq!(made.logged[0].terms.of(TermKind::Adversarial), None);
        assert_eq!(made.logged[0].discriminator, Some(0.5));
        assert_eq!(made.logged[1].discriminator, Some(1.0));
        assert_eq!(made.logged[1].generator, Some(0.5));
        assert_eq!(made.evaluated[0].image, Some(50.5));
    }

    /// A long training's log is read to its end, in little memory; lines that a resumed run wrote again count once.
    #[test]
    fn a_log_of_any_length_is_read_to_its_end() {
        let mut held: Held<1> = Held::new(100);
        for step in 1..=12_345u64 {
            let done = (step * 3) as f64;
            held.add(step, vec![Some(step as f64)], [Some(done)]);
        }
        assert!(held.points.len() <= 101);
        let last = held.points.last().unwrap();
        assert_eq!((last.step, last.last), (12_345, [Some(37_035.0)]));
        let lines: u64 = held.points.iter().map(|p| p.lines).sum();
        assert_eq!(lines, 12_345);
        let sum: f64 = held.points.iter().map(|p| p.sums[0].0).sum();
        assert_eq!(sum, 12_345.0 * 12_346.0 / 2.0);

        let mut again: Held<0> = Held::new(100);
        for step in [10, 20, 30, 20, 30, 40] {
            again.add(step, vec![Some(1.0)], []);
        }
        let steps: Vec<u64> = again.points.iter().map(|p| p.step).collect();
        assert_eq!(steps, [10, 20, 30, 40]);

        let file = tempfile::NamedTempFile::new().unwrap();
        let mut text = std::io::BufWriter::new(file.as_file());
        let lines = (1 << 20) + 1000;
        for step in 1..=lines {
            std::io::Write::write_all(
                &mut text,
                format!("{{\"step\":{step},\"loss.feat\":1}}\n").as_bytes(),
            )
            .unwrap();
        }
        drop(text);
        let made = read(file.path(), &[(0, weights([1.0, 0.0, 0.0]))], GATE).unwrap();
        assert_eq!(made.logged.last().map(|l| l.step), Some(f64::from(lines)));
    }

    /// Step 10 is the last of the first stage.
    #[test]
    fn each_stage_weighs_its_own_steps() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = |step| format!("{{\"step\":{step},\"loss.img\":2.0,\"loss.adv\":4.0}}\n");
        std::fs::write(file.path(), [10, 20].map(line).concat()).unwrap();
        let stages = [
            (0, weights([0.0, 0.0, 3.0])),
            (10, weights([0.0, 0.5, 5.0])),
        ];
        let made = read(file.path(), &stages, GATE).unwrap();
        let of = |at: usize, kind| made.logged[at].terms.of(kind).copied();
        assert_eq!(
            [of(0, TermKind::Image), of(1, TermKind::Image)],
            [Some(6.0), Some(10.0)]
        );
        assert_eq!(of(0, TermKind::Adversarial), None);
        assert_eq!(of(1, TermKind::Adversarial), Some(2.0));
        assert!(made.adversarial);
    }

    #[test]
    fn an_empty_log_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let why = read(file.path(), &[(0, weights([1.0; 3]))], GATE).unwrap_err();
        assert!(why.contains("no log step"), "{why}");
    }

    #[test]
    fn long_logs_are_thinned() {
        let many: Vec<Logged> = (0..5000)
            .map(|i| Logged {
                step: f64::from(i),
                terms: [(Term::from(TermKind::Feature), f64::from(i))]
                    .into_iter()
                    .collect(),
                ..Logged::default()
            })
            .collect();
        let few = thin(&many);
        assert!(few.len() <= POINTS);
        assert_eq!(few.last().map(|l| l.step), Some(4999.0));
        assert_eq!(few[0].terms.of(TermKind::Feature), Some(&6.0));
    }
}

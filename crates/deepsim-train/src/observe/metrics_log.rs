//! `metrics.jsonl`: one object per log step.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use deepsim_data::terminal::path as shown;
use deepsim_experiment::{ExperimentError, files};
use deepsim_nets::loss::{Term, Terms};
use serde_json::{Map, Value};

use crate::error::Result;
use crate::method::{Losses, Sides};

/// An open `metrics.jsonl`.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    /// The step of the last line with losses, when it was opened.
    last: Option<u64>,
}

impl MetricsLog {
    /// Opens the file for appending after `step`: lines of later steps, written by a run that was
    /// cut after its last checkpoint, are removed, as is a last line that was cut. A line that cannot be read stays.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn open(path: &Path, step: u64) -> Result<MetricsLog> {
        let open = || {
            // A copy of the run by hard links keeps its own log.
            if fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && m.nlink() > 1) {
                files::replace(path, &files::read(path)?)?;
            }
            let file = files::own(path)?;
            let (kept, last) = read(&file, path, step)?;
            // Lines are only ever appended: what stays is how the file begins.
            file.set_len(kept)?;
            Ok((file, last))
        };
        let (file, last) = open().map_err(ExperimentError::io(path))?;
        Ok(MetricsLog {
            path: path.to_owned(),
            file,
            last,
        })
    }

    /// Whether it held the losses of that step when it was opened.
    pub fn has_line_of(&self, step: u64) -> bool {
        self.last == Some(step)
    }

    /// Appends one object; numbers that are not finite become null.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&mut self, step: u64, entries: &[(Cow<'_, str>, Value)]) -> Result<()> {
        let mut object = Map::from_iter([("step".to_owned(), Value::from(step))]);
        object.extend(
            entries
                .iter()
                .map(|(k, v)| (k.clone().into_owned(), v.clone())),
        );
        let mut line = Value::Object(object).to_string();
        line.push('\n');
        self.file
            .write_all(line.as_bytes())
            .map_err(ExperimentError::io(&self.path))?;
        Ok(())
    }
}

/// The step of a log's last line with losses.
pub fn last_line(path: &Path) -> Option<u64> {
    read(&files::open(path).ok()?, path, u64::MAX).ok()?.1
}

/// Bytes up to the first line of a later step, or a last one that is cut; and the step of the last line with losses.
fn read(file: &File, path: &Path, step: u64) -> std::io::Result<(u64, Option<u64>)> {
    let mut reader = BufReader::new(file);
    let (mut kept, mut last, mut damaged, mut line) = (0, None, 0, Vec::new());
    loop {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line)?;
        let value: Option<Value> = serde_json::from_slice(&line).ok();
        let at = value.as_ref().and_then(|v| v.get("step")?.as_u64());
        if !line.ends_with(b"\n") || at.is_some_and(|at| at > step) {
            break;
        }
        kept += bytes as u64;
        damaged += u64::from(at.is_none());
        if value.is_some_and(|v| v.get("loss.feat").is_some()) {
            last = at;
        }
    }
    if damaged > 0 {
        tracing::warn!(
            "{}: {damaged} of its lines cannot be read, and stay",
            shown(path)
        );
    }
    Ok((kept, last))
}

/// Means of losses since the last log step.
#[derive(Clone, Debug)]
pub struct Means {
    terms: Terms<f64>,
    /// Iterations that had each of the terms.
    with: Terms<f64>,
    discriminator: Option<Sides<f64>>,
    /// Iterations that had the discriminator's losses.
    with_discriminator: f64,
    n: f64,
    last_ratio: f64,
}

impl Default for Means {
    fn default() -> Self {
        Means {
            terms: Terms::default(),
            with: Terms::default(),
            discriminator: None,
            with_discriminator: 0.0,
            n: 0.0,
            last_ratio: f64::NAN,
        }
    }
}

/// Names of the sums in a checkpoint, beside those of terms.
const REAL: &str = "discr_real";
const GENERATED: &str = "discr_fake";
const COUNT: &str = "n";
const RATIO: &str = "ratio";
/// Begins the names of numbers of iterations, of what not all iterations had.
const WITH: &str = "with.";

/// Names of the sums that older checkpoints store by position.
const PLACES: [&str; 7] = ["feat", "adv", "img", "kl", "diversity", REAL, GENERATED];

impl Means {
    /// Whether no iteration was taken yet.
    pub fn is_empty(&self) -> bool {
        self.n == 0.0
    }

    /// Takes one iteration.
    pub fn add(&mut self, losses: &Losses) {
        for (term, value) in losses.terms.iter() {
            let sum = self.terms.get(term).copied().unwrap_or(0.0);
            self.terms.set(term.clone(), sum + value);
            let with = self.with.get(term).copied().unwrap_or(0.0);
            self.with.set(term.clone(), with + 1.0);
        }
        if let Some(sides) = losses.discriminator {
            let sum = self.discriminator.unwrap_or(Sides {
                real: 0.0,
                generated: 0.0,
            });
            self.discriminator = Some(Sides {
                real: sum.real + sides.real,
                generated: sum.generated + sides.generated,
            });
            self.with_discriminator += 1.0;
        }
        self.n += 1.0;
        self.last_ratio = losses.ratio;
    }

    /// The sums, as integers of a checkpoint: a run that is cut between two log steps goes on to the same means.
    pub fn counters(&self) -> impl Iterator<Item = (String, i64)> {
        let terms = self.terms.iter().map(|(term, sum)| (term.key(), *sum));
        let sides = self.discriminator.into_iter();
        let sides = sides.flat_map(|s| [(REAL, s.real), (GENERATED, s.generated)]);
        let rest = sides.chain([(COUNT, self.n), (RATIO, self.last_ratio)]);
        let with = self.with.iter().map(|(term, n)| (term.key(), *n));
        let of_discriminator = (Cow::Borrowed(REAL), self.with_discriminator);
        let with = with.chain(self.discriminator.map(|_| of_discriminator));
        let some = with.filter(|(_, n)| *n != self.n);
        let some = some.map(|(name, n)| (Cow::Owned(format!("{WITH}{name}")), n));
        terms
            .chain(rest.map(|(name, value)| (Cow::Borrowed(name), value)))
            .chain(some)
            .map(|(name, value)| (format!("means.{name}"), value.to_bits().cast_signed()))
    }

    /// Takes them from a checkpoint; one from before they were kept holds none.
    pub fn restore(counters: &BTreeMap<String, i64>) -> Means {
        let all = counters.iter().filter_map(|(name, bits)| {
            let name = name.strip_prefix("means.")?;
            Some((name, f64::from_bits(bits.cast_unsigned())))
        });
        let mut means = Means::default();
        let (mut sides, mut with) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in all {
            let place = name
                .strip_prefix("sum")
                .and_then(|i| i.parse::<usize>().ok());
            // In older checkpoints the sum of a term that was not computed is NaN.
            let name = match place {
                Some(_) if value.is_nan() => continue,
                Some(place) => PLACES.get(place).copied().unwrap_or(name),
                None => name,
            };
            if let Some(of) = name.strip_prefix(WITH) {
                with.insert(of, value);
                continue;
            }
            match name {
                COUNT => means.n = value,
                RATIO => means.last_ratio = value,
                REAL | GENERATED => {
                    sides.insert(name, value);
                }
                key => {
                    if let Some(term) = Term::of_key(key) {
                        means.terms.set(term, value);
                    }
                }
            }
        }
        if means.n == 0.0 {
            return Means::default();
        }
        // What has no number of its own was in all of them.
        let number = |key: &str| with.get(key).copied().unwrap_or(means.n);
        means.with = means.terms.map(|term, _| number(&term.key()));
        if let (Some(&real), Some(&generated)) = (sides.get(REAL), sides.get(GENERATED)) {
            means.discriminator = Some(Sides { real, generated });
            means.with_discriminator = number(REAL);
        }
        means
    }

    /// The means over the iterations that had each, with the newest ratio; starts over.
    pub fn take(&mut self) -> Losses {
        let means = self.peek();
        *self = Means::default();
        means
    }

    /// The means, with the newest ratio.
    pub fn peek(&self) -> Losses {
        Losses {
            terms: self
                .terms
                .map(|term, sum| sum / self.with.get(term).copied().unwrap_or(self.n)),
            discriminator: self.discriminator.map(|sum| Sides {
                real: sum.real / self.with_discriminator,
                generated: sum.generated / self.with_discriminator,
            }),
            ratio: self.last_ratio,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deepsim_nets::loss::TermKind;

    fn losses(v: f64) -> Losses {
        let mut terms = Terms::default();
        terms.set(TermKind::Feature, v);
        terms.set(Term::named(TermKind::Feature, "deep"), 2.0 * v);
        terms.set(TermKind::Diversity, -v);
        Losses {
            terms,
            discriminator: Some(Sides {
                real: v,
                generated: 3.0 * v,
            }),
            ratio: 2.0 * v,
        }
    }

    #[test]
    fn means_go_on_where_they_were_cut() {
        let mut whole = Means::default();
        whole.add(&losses(0.1));
        let mut cut = Means::restore(&whole.counters().collect());
        for means in [&mut whole, &mut cut] {
            means.add(&losses(0.7));
        }
        let (whole, cut) = (whole.take(), cut.take());
        assert_eq!(whole, cut);
        assert_eq!(cut.ratio, 1.4);
        assert_eq!(cut.terms.iter().count(), 3);
        assert!(cut.of(TermKind::Image).is_nan());
        // A checkpoint from before they were kept.
        assert!(Means::restore(&BTreeMap::new()).is_empty());
    }

    /// R1 is computed now and then, and the discriminator may begin later.
    #[test]
    fn means_are_over_the_iterations_that_had_a_term() {
        let mut late = losses(0.5);
        late.terms.set(TermKind::R1, 6.0);
        let mut early = losses(0.1);
        early.discriminator = None;
        let mut means = Means::default();
        for losses in [&early, &late] {
            means.add(losses);
        }
        let mut restored = Means::restore(&means.counters().collect());
        for means in [&mut means, &mut restored] {
            means.add(&late);
            let found = means.take();
            assert_eq!(found.of(TermKind::R1), 6.0);
            assert_eq!(found.discriminator(), 2.0);
            assert!((found.of(TermKind::Feature) - 1.1 / 3.0).abs() < 1e-12);
        }
    }

    /// Format 2 as it was before terms had keys.
    #[test]
    fn sums_that_had_places_are_read_by_them() {
        let bits = |v: f64| v.to_bits().cast_signed();
        let sums = [1.0, 2.0, f64::NAN, f64::NAN, 5.0, 6.0, 7.0];
        let places = sums.iter().enumerate();
        let mut counters: BTreeMap<String, i64> = places
            .map(|(i, v)| (format!("means.sum{i}"), bits(*v)))
            .collect();
        counters.insert("means.n".to_owned(), bits(2.0));
        counters.insert("means.ratio".to_owned(), bits(9.0));
        counters.insert("step".to_owned(), 3);
        let means = Means::restore(&counters).take();
        assert_eq!(means.of(TermKind::Feature), 0.5);
        assert_eq!(means.of(TermKind::Adversarial), 1.0);
        assert!(means.of(TermKind::Image).is_nan() && means.of(TermKind::Kl).is_nan());
        assert_eq!(means.of(TermKind::Diversity), 2.5);
        assert_eq!(means.discriminator(), 6.5);
        assert_eq!(means.ratio, 9.0);
    }

    #[test]
    fn lines_after_the_resumed_step_and_cut_lines_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        fs::write(
            &path,
            "{\"step\":1,\"a\":1}\n{\"step\":2}\n{\"step\":3}\n{\"step\":1,\"cu",
        )
        .unwrap();
        let file = fs::metadata(&path).unwrap().ino();
        let mut log = MetricsLog::open(&path, 2).unwrap();
        // In place: the log of a long run does not fit on the disk twice.
        assert_eq!(fs::metadata(&path).unwrap().ino(), file);
        log.write(
            3,
            &[
                ("loss.feat".into(), Value::from(f64::NAN)),
                ("b".into(), Value::from(2.5)),
            ],
        )
        .unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "{\"step\":1,\"a\":1}\n{\"step\":2}\n{\"b\":2.5,\"loss.feat\":null,\"step\":3}\n"
        );
    }
}

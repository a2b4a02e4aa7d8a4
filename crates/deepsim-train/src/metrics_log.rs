//! `metrics.jsonl`: one object per log step.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use deepsim_data::terminal::path as shown;
use deepsim_experiment::{ExperimentError, files};
use serde_json::{Map, Value};

use crate::error::Result;
use crate::iteration::Losses;

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
    pub fn write(&mut self, step: u64, entries: &[(&str, Value)]) -> Result<()> {
        let mut object = Map::from_iter([("step".to_owned(), Value::from(step))]);
        object.extend(entries.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
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
#[derive(Clone, Debug, Default)]
pub struct Means {
    sum: [f64; 7],
    n: f64,
    last_ratio: f64,
}

impl Means {
    /// Whether no iteration was taken yet.
    pub fn is_empty(&self) -> bool {
        self.n == 0.0
    }

    /// Takes one iteration.
    pub fn add(&mut self, l: &Losses) {
        for (sum, v) in self
            .sum
            .iter_mut()
            .zip([l.feat, l.adv, l.img, l.kl, l.div, l.d_real, l.d_fake])
        {
            *sum += v;
        }
        self.n += 1.0;
        self.last_ratio = l.ratio;
    }

    /// The sums, as integers of a checkpoint: a run that is cut between two log steps goes on to the same means.
    pub fn counters(&self) -> impl Iterator<Item = (String, i64)> {
        let rest =
            [("n", self.n), ("ratio", self.last_ratio)].map(|(name, v)| (name.to_owned(), v));
        let sums = self.sum.iter().enumerate();
        sums.map(|(i, v)| (format!("sum{i}"), *v))
            .chain(rest)
            .map(|(name, v)| (format!("means.{name}"), v.to_bits().cast_signed()))
    }

    /// Takes them from a checkpoint; one from before they were kept holds none.
    pub fn restore(counters: &BTreeMap<String, i64>) -> Means {
        let of = |name: &str| {
            let bits = counters.get(&format!("means.{name}"))?;
            Some(f64::from_bits(bits.cast_unsigned()))
        };
        let restored = || {
            let mut means = Means {
                n: of("n")?,
                last_ratio: of("ratio")?,
                ..Means::default()
            };
            for (i, sum) in means.sum.iter_mut().enumerate() {
                *sum = of(&format!("sum{i}"))?;
            }
            Some(means)
        };
        restored().unwrap_or_default()
    }

    /// The means, with the newest ratio; starts over.
    pub fn take(&mut self) -> Losses {
        let means = self.peek();
        *self = Means::default();
        means
    }

    /// The means, with the newest ratio.
    pub fn peek(&self) -> Losses {
        let [feat, adv, img, kl, div, d_real, d_fake] = self.sum.map(|s| s / self.n);
        let ratio = self.last_ratio;
        Losses {
            feat,
            adv,
            img,
            kl,
            div,
            d_real,
            d_fake,
            ratio,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_go_on_where_they_were_cut() {
        let losses = |v: f64| Losses {
            feat: v,
            adv: v,
            img: f64::NAN,
            kl: v,
            div: v,
            d_real: v,
            d_fake: v,
            ratio: 2.0 * v,
        };
        let mut whole = Means::default();
        whole.add(&losses(0.1));
        let mut cut = Means::restore(&whole.counters().collect());
        for means in [&mut whole, &mut cut] {
            means.add(&losses(0.7));
        }
        let (whole, cut) = (whole.take(), cut.take());
        assert_eq!(whole.feat.to_bits(), cut.feat.to_bits());
        assert_eq!(cut.ratio, 1.4);
        assert!(cut.img.is_nan());
        // A checkpoint from before they were kept.
        assert_eq!(Means::restore(&BTreeMap::new()).n, 0.0);
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
                ("loss.feat", Value::from(f64::NAN)),
                ("b", Value::from(2.5)),
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

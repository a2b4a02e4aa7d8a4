//! `metrics.jsonl`: one object per log step.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use deepsim_experiment::ExperimentError;
use deepsim_experiment::run_dir::write_replacing;
use serde_json::{Map, Value};

use crate::error::Result;
use crate::iteration::Losses;

/// An open `metrics.jsonl`.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Opens the file for appending after `step`: lines of later steps, written by a run that was
    /// cut after its last checkpoint, are removed, as is a line cut in the middle.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn open(path: &Path, step: u64) -> Result<MetricsLog> {
        if path.exists() {
            let reader = BufReader::new(File::open(path).map_err(ExperimentError::io(path))?);
            let mut kept = Vec::new();
            for line in reader.split(b'\n') {
                let line = line.map_err(ExperimentError::io(path))?;
                let value: Option<Value> = serde_json::from_slice(&line).ok();
                let at = value.and_then(|v| v.get("step").and_then(Value::as_u64));
                if at.is_some_and(|at| at <= step) {
                    kept.extend(line);
                    kept.push(b'\n');
                }
            }
            write_replacing(path, &kept)?;
        }
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(ExperimentError::io(path))?;
        Ok(MetricsLog {
            path: path.to_owned(),
            file,
        })
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

/// Means of losses since the last log step.
#[derive(Debug, Default)]
pub struct Means {
    sum: [f64; 7],
    n: f64,
    last_ratio: f64,
}

impl Means {
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

    /// The means, with the newest ratio; starts over.
    pub fn take(&mut self) -> Losses {
        let [feat, adv, img, kl, div, d_real, d_fake] = self.sum.map(|s| s / self.n);
        let ratio = self.last_ratio;
        *self = Means::default();
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
    fn lines_after_the_resumed_step_and_cut_lines_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        fs::write(
            &path,
            "{\"step\":1,\"a\":1}\n{\"step\":2}\n{\"step\":3}\n{\"step\":1,\"cu",
        )
        .unwrap();
        let mut log = MetricsLog::open(&path, 2).unwrap();
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

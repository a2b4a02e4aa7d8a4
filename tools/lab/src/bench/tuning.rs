//! How the tuned PyTorch was set on this machine: what `tools/bench/python/tune.py` tried, and what it chose.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::numbers::significant;

/// A choice, and all that was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// Its arithmetic.
    pub precision: String,
    /// Its threads; 0: PyTorch's own number.
    pub threads: u32,
    /// Whether by torch.compile.
    pub compiled: bool,
    /// All that was tried, on few images.
    pub trials: Vec<Trial>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Its arithmetic.
    pub precision: String,
    /// Its threads; 0: PyTorch's own number.
    pub threads: u32,
    /// Whether by torch.compile.
    pub compiled: bool,
    /// The fastest of its iterations; none where it failed.
    pub seconds: Option<f64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl Tuning {
    /// The setting as arguments of train_tuned.py.
    pub fn arguments(&self) -> [String; 3] {
        let how = if self.compiled { "compiled" } else { "eager" };
        [
            self.precision.clone(),
            self.threads.to_string(),
            how.to_owned(),
        ]
    }

    /// What was tried and what was chosen, in one sentence.
    pub fn words(&self) -> String {
        let mut out = format!("chosen {}", setting(&self.precision, self.threads));
        if self.compiled {
            out.push_str(", compiled");
        }
        out.push_str("; tried");
        for (at, trial) in self.trials.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let name = setting(&trial.precision, trial.threads);
            let how = if trial.compiled { " torch.compile" } else { "" };
            let found = match (trial.seconds, &trial.failed) {
                (Some(seconds), _) => format!("{} s", significant(seconds, 3)),
                (None, Some(why)) => format!("failed: {why}"),
                (None, None) => "not timed".to_owned(),
            };
            let _ = write!(out, "{comma} {name}{how} {found}");
        }
        out
    }
}

/// `bf16 on 2 threads`.
fn setting(precision: &str, threads: u32) -> String {
    match threads {
        0 => precision.to_owned(),
        1 => format!("{precision} on 1 thread"),
        n => format!("{precision} on {n} threads"),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Four settings and a failed torch.compile.
    pub fn example() -> Tuning {
        let trial = |precision: &str, threads, seconds| Trial {
            precision: precision.to_owned(),
            threads,
            compiled: false,
            seconds: Some(seconds),
            failed: None,
        };
        Tuning {
            precision: "bf16".to_owned(),
            threads: 2,
            compiled: false,
            trials: vec![
                trial("fp32", 1, 2.5),
                trial("fp32", 2, 1.5),
                trial("bf16", 1, 1.0),
                trial("bf16", 2, 0.6),
                Trial {
                    compiled: true,
                    seconds: None,
                    failed: Some("BackendError: no compiler".to_owned()),
                    ..trial("bf16", 2, 0.0)
                },
            ],
        }
    }

    #[test]
    fn what_was_tried_is_said_failures_too() {
        assert_eq!(
            example().words(),
            "chosen bf16 on 2 threads; tried fp32 on 1 thread 2.50 s, fp32 on 2 threads 1.50 s, \
             bf16 on 1 thread 1.00 s, bf16 on 2 threads 0.600 s, \
             bf16 on 2 threads torch.compile failed: BackendError: no compiler"
        );
        assert_eq!(example().arguments(), ["bf16", "2", "eager"]);
    }

    #[test]
    fn the_script_s_answer_is_read() {
        let answer = r#"{"precision": "fp32", "threads": 0, "compiled": true, "trials": [
            {"precision": "fp32", "threads": 0, "compiled": false, "seconds": 1.5},
            {"precision": "fp32", "threads": 0, "compiled": true, "seconds": null, "failed": "TimeoutError"}]}"#;
        let read: Tuning = serde_json::from_str(answer).unwrap();
        assert_eq!(read.arguments(), ["fp32", "0", "compiled"]);
        assert_eq!(read.trials[1].failed.as_deref(), Some("TimeoutError"));
    }
}

//! libFuzzer's chatter: kept in a log, told in a line now and then, and boiled down to a few numbers.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use deepsim_tools::child::Child;
use deepsim_tools::stages::note;

/// Time between two lines to the user.
const NEWS: Duration = Duration::from_secs(20);

/// How far a run got.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct Progress {
    /// Inputs tried, seeds among them.
    pub executions: u64,
    /// Edges of the program, in the target or not, that the seeds ran through.
    pub edges_of_seeds: u64,
    /// Edges that all inputs together ran through.
    pub edges: u64,
    /// Edges, with how often and after what comparisons they were run through.
    pub features: u64,
    /// Inputs kept, because each did something new.
    pub corpus: u64,
    /// Largest size of the process, MiB.
    pub peak_mib: u64,
}

impl Progress {
    /// Takes what a line of libFuzzer says.
    ///
    /// `#4096 pulse cov: 301 ft: 455 corp: 40/2kb lim: 33 exec/s: 2048 rss: 95Mb`, and at the end
    /// `stat::number_of_executed_units: 1000000`.
    fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |word: &str| -> Option<u64> {
            let end = word.find(|c: char| !c.is_ascii_digit());
            word[..end.unwrap_or(word.len())].parse().ok()
        };
        let after = |key: &str| {
            let at = words.iter().position(|word| *word == key)?;
            words.get(at + 1).copied().and_then(number)
        };
        let tried = words.first().and_then(|word| word.strip_prefix('#'));
        if let (Some(executions), Some(edges)) = (tried.and_then(number), after("cov:")) {
            self.executions = executions;
            self.edges = edges;
            self.features = after("ft:").unwrap_or(self.features);
            self.corpus = after("corp:").unwrap_or(self.corpus);
            self.peak_mib = self.peak_mib.max(after("rss:").unwrap_or(0));
            if words.get(1) == Some(&"INITED") {
                self.edges_of_seeds = edges;
            }
        }
        self.executions = after("stat::number_of_executed_units:").unwrap_or(self.executions);
        self.peak_mib = after("stat::peak_rss_mb:").unwrap_or(self.peak_mib);
    }
}

/// The file of an input that broke something: `artifact_prefix='…/'; Test unit written to …/crash-…`.
fn written(line: &str) -> Option<&str> {
    line.split_once("Test unit written to ")
        .map(|(_, path)| path.trim())
}

/// Runs libFuzzer to its end; how it ended, how far it got, and the files of inputs that broke something.
///
/// # Errors
/// When it can't be started or the log can't be written; how it ended is no error here.
pub fn watch(
    child: Child,
    log: &Path,
    runs: Option<u64>,
) -> Result<(Result<()>, Progress, Vec<String>)> {
    let mut file = File::create(log).with_context(|| format!("writing {}", log.display()))?;
    let mut progress = Progress::default();
    let mut found = Vec::new();
    let mut told = Instant::now();
    let ended = child.lines(|pipe: &mut dyn Read| {
        for line in BufReader::new(pipe).split(b'\n') {
            let line = line.context("reading what libFuzzer says")?;
            file.write_all(&line)
                .and_then(|()| file.write_all(b"\n"))
                .with_context(|| format!("writing {}", log.display()))?;
            let line = String::from_utf8_lossy(&line);
            progress.take(&line);
            found.extend(written(&line).map(str::to_owned));
            if told.elapsed() >= NEWS {
                told = Instant::now();
                let of = runs.map_or(String::new(), |runs| format!(" of {runs}"));
                note(format_args!(
                    "{}{of} executions, {} edges",
                    progress.executions, progress.edges
                ));
            }
        }
        Ok(())
    })?;
    Ok((ended, progress, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_finding_is_recognised() {
        let line = "artifact_prefix='found/npy/'; Test unit written to found/npy/crash-da39a3";
        assert_eq!(written(line), Some("found/npy/crash-da39a3"));
        assert_eq!(written("INFO: seed corpus"), None);
    }

    #[test]
    fn lines_of_libfuzzer_are_understood() {
        let mut progress = Progress::default();
        for line in [
            "INFO: Seed: 1",
            "#3\tINITED cov: 120 ft: 130 corp: 3/1kb exec/s: 0 rss: 60Mb",
            "#4096\tpulse  cov: 301 ft: 455 corp: 40/2345b lim: 33 exec/s: 2048 rss: 95Mb",
            "#5000\tREDUCE cov: 302 ft: 460 corp: 41/2kb lim: 33 exec/s: 2048 rss: 90Mb L: 3/4 MS: 1 EraseBytes-",
            "thread panicked at # 7",
            "stat::number_of_executed_units: 6000",
            "stat::peak_rss_mb:              101",
        ] {
            progress.take(line);
        }
        let expected = Progress {
            executions: 6000,
            edges_of_seeds: 120,
            edges: 302,
            features: 460,
            corpus: 41,
            peak_mib: 101,
        };
        assert_eq!(progress, expected);
    }
}

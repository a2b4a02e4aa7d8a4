//! A contender's process: starts, waits, does one unit of work when it is told to.
//!
//! Workers end by themselves when their standard input closes, also in the middle of a unit: so
//! that none is left behind however xtask ends, Ctrl-C and kill -9 among others.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::agree::Checks;
use super::load::Look;
use super::tuning::Tuning;

/// Lines of standard error that are shown when a worker dies.
const TAIL: usize = 30;

/// A worker's first line.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    #[serde(rename = "ready")]
    _ready: bool,
    /// Its arithmetic.
    #[serde(default)]
    pub precision: Option<String>,
    /// The GPU, where it computes on one.
    #[serde(default)]
    pub device: Option<String>,
    /// Its threads.
    #[serde(default)]
    pub threads: Option<u32>,
    /// Which code of ours computed.
    #[serde(default)]
    pub path: Option<String>,
    /// Whether torch.compile was used, where there is that choice.
    #[serde(default)]
    pub compiled: Option<bool>,
    /// How the setting was found. The program that looks for it says so, not the worker.
    #[serde(skip)]
    pub tuning: Option<Tuning>,
    /// What it computed in its warm-up.
    #[serde(default)]
    pub checks: Checks,
    /// Operations of one unit, 10⁹.
    #[serde(default)]
    pub gflop: Option<f64>,
    /// Images (or 10⁹ operations) of one unit.
    #[serde(default)]
    pub amount: Option<f64>,
}

impl Ready {
    /// What a record keeps of it.
    pub fn recorded(precision: Option<String>, amount: Option<f64>, gflop: Option<f64>) -> Ready {
        Ready {
            precision,
            amount,
            gflop,
            ..Ready::default()
        }
    }
}

/// The answer to `go`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Timed {
    seconds: f64,
}

/// One timed unit of work.
#[derive(Debug, Clone, Copy)]
pub struct Unit {
    /// How long it took.
    pub seconds: f64,
    /// Share of the processors that other programs took meanwhile.
    pub others: Option<f64>,
}

/// The answer to `stop`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Farewell {
    /// Largest resident size, MiB.
    pub peak_mib: f64,
    /// Seconds of the parts of a unit, in order.
    #[serde(default)]
    pub components: Vec<(String, f64)>,
}

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    what: String,
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    complaints: Arc<Mutex<VecDeque<String>>>,
    listener: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts `command` and waits until it is loaded and warm. `what` names it in errors.
    ///
    /// # Errors
    /// A program that cannot be started or dies; its last words are in the error.
    pub fn start(what: &str, mut command: Command) -> Result<(Worker, Ready)> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {what} ({})", command.get_program().display()))?;
        let (Some(commands), Some(out), Some(err)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            bail!("{what} has no standard streams");
        };
        let complaints = Arc::new(Mutex::new(VecDeque::new()));
        let heard = Arc::clone(&complaints);
        let mut worker = Worker {
            what: what.to_owned(),
            child,
            commands: Some(commands),
            answers: BufReader::new(out),
            complaints,
            listener: Some(std::thread::spawn(move || listen(err, &heard))),
        };
        let ready = worker.answer()?;
        Ok((worker, ready))
    }

    /// One unit of work.
    ///
    /// # Errors
    /// A worker that died.
    pub fn go(&mut self) -> Result<Unit> {
        let look = Look::now(self.child.id());
        self.tell("go")?;
        let timed: Timed = self.answer()?;
        Ok(Unit {
            seconds: timed.seconds,
            others: look.and_then(|look| look.others()),
        })
    }

    /// Ends it and takes its last report.
    ///
    /// # Errors
    /// A worker that died before.
    pub fn stop(mut self) -> Result<Farewell> {
        self.tell("stop")?;
        let farewell = self.answer()?;
        self.commands = None;
        let status = self.child.wait().context("waiting for a worker")?;
        if !status.success() {
            return Err(self.died());
        }
        Ok(farewell)
    }

    fn tell(&mut self, command: &str) -> Result<()> {
        let told = match &mut self.commands {
            Some(pipe) => writeln!(pipe, "{command}").and_then(|()| pipe.flush()),
            None => Ok(()),
        };
        told.map_err(|_| self.died())
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(n) if n > 0 => serde_json::from_str(&line)
                .with_context(|| format!("{} says what is not understood: {line}", self.what)),
            _ => Err(self.died()),
        }
    }

    /// Its end, with the last lines of its standard error.
    fn died(&mut self) -> anyhow::Error {
        self.commands = None;
        let _ = self.child.kill();
        let status = self.child.wait();
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        let tail = self
            .complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let said: String = tail.iter().map(|line| format!("\n  {line}")).collect();
        let how = status.map_or_else(|e| e.to_string(), |status| status.to_string());
        anyhow::anyhow!("{} failed ({how}):{said}", self.what)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Nothing to do for one that has ended; the others must not outlive us.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(stream: impl Read, tail: &Mutex<VecDeque<String>>) {
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker in the shell, which every machine has.
    fn shell(script: &str) -> Result<(Worker, Ready)> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Worker::start("the test's worker", command)
    }

    #[test]
    fn a_worker_is_ready_works_and_says_farewell() {
        let (mut worker, ready) = shell(
            r#"echo '{"ready":true,"precision":"fp32","checks":[{"feat":1.5}]}'
            read a; echo '{"seconds":0.25}'
            read b; echo '{"peak_mib":12.5,"components":[["z",1],["a",2]]}'"#,
        )
        .unwrap();
        assert_eq!(ready.precision.as_deref(), Some("fp32"));
        assert_eq!(ready.checks[0]["feat"], 1.5);
        assert_eq!(worker.go().unwrap().seconds, 0.25);
        let farewell = worker.stop().unwrap();
        assert_eq!(farewell.peak_mib, 12.5);
        assert_eq!(farewell.components[0], ("z".to_owned(), 1.0));
    }

    #[test]
    fn a_worker_that_dies_leaves_its_last_words() {
        let error = shell("echo some words; exit 7").unwrap_err();
        assert!(error.to_string().contains("some words"), "{error}");
        let error = shell("i=0; while [ $i -lt 99 ]; do i=$((i+1)); echo line$i >&2; done; exit 7");
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains("line99") && !text.contains("line9\n"),
            "{text}"
        );
        let died = shell(r#"echo '{"ready":true}'; read a; echo oh dear >&2; exit 7"#);
        let text = died.unwrap().0.go().unwrap_err().to_string();
        assert!(text.contains("oh dear") && text.contains('7'), "{text}");
    }

    #[test]
    fn a_worker_that_is_dropped_is_gone() {
        let (worker, _) = shell(r#"echo '{"ready":true}'; exec sleep 1000"#).unwrap();
        let folder = std::path::PathBuf::from(format!("/proc/{}", worker.child.id()));
        assert!(folder.exists());
        drop(worker);
        assert!(!folder.exists());
    }
}

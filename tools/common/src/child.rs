//! Running other programs. They inherit the terminal, so that their progress bars are shown, and
//! handle Ctrl-C themselves (a training saves a checkpoint first).

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::failure::{ChildFailed, Ending};

/// How often a running child is looked at.
const POLL: Duration = Duration::from_millis(50);

/// A program to run, with what to say when it fails.
#[derive(Debug)]
pub struct Child {
    what: String,
    hint: String,
    command: Command,
    deadline: Option<Instant>,
}

impl Child {
    /// `program`, run in `folder` with no standard input. `what` is a sentence's subject.
    pub fn new(what: impl Into<String>, program: impl AsRef<OsStr>, folder: &Path) -> Self {
        let mut command = Command::new(program);
        command.current_dir(folder);
        Self::from(command, what)
    }

    /// The cargo that runs this xtask.
    pub fn cargo(what: impl Into<String>, root: &Path) -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        Self::new(what, cargo, root)
    }

    /// A command that is put together already. `what` is a sentence's subject.
    pub fn from(mut command: Command, what: impl Into<String>) -> Self {
        command.stdin(Stdio::null());
        Self {
            what: what.into(),
            hint: String::new(),
            command,
            deadline: None,
        }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Leaves environment variables out.
    pub fn without_env(mut self, keys: &[&str]) -> Self {
        for key in keys {
            self.command.env_remove(key);
        }
        self
    }

    /// What to do when it fails, a whole sentence.
    pub fn hint(mut self, hint: impl AsRef<str>) -> Self {
        self.hint = format!("\n{}", hint.as_ref());
        self
    }

    /// Sends SIGTERM once `deadline` has passed.
    pub fn until(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline;
        self
    }

    /// Drops its standard output: what it says there is not what our caller asked for.
    pub fn without_stdout(mut self) -> Self {
        self.command.stdout(Stdio::null());
        self
    }

    /// Runs it to its end, its output going where ours goes.
    ///
    /// # Errors
    /// [`ChildFailed`] unless it succeeds; another error when it cannot be started.
    pub fn run(mut self) -> Result<()> {
        let child = self.start()?;
        let status = self.wait(child)?;
        self.check(status)
    }

    /// Runs it to its end and gives its standard output; its stderr goes where ours goes.
    ///
    /// # Errors
    /// As [`Child::run`].
    pub fn output(mut self) -> Result<Vec<u8>> {
        self.command.stdout(Stdio::piped());
        let (status, [stdout, _]) = self.collected()?;
        self.check(status)?;
        Ok(stdout)
    }

    /// Runs it to its end and gives what it said on the pipes that it has: stdout, stderr.
    fn collected(&mut self) -> Result<(ExitStatus, [Vec<u8>; 2])> {
        fn read(pipe: Option<impl Read>) -> std::io::Result<Vec<u8>> {
            let mut said = Vec::new();
            if let Some(mut pipe) = pipe {
                pipe.read_to_end(&mut said)?;
            }
            Ok(said)
        }
        let mut child = self.start()?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        // This thread waits for the child and handles signals, so other threads read.
        let (status, out, err) = std::thread::scope(|scope| {
            let (out, err) = (scope.spawn(|| read(out)), scope.spawn(|| read(err)));
            (self.wait(child), out.join(), err.join())
        });
        let status = status?;
        let said = [out, err].map(|said| said.unwrap_or_else(|_| Ok(Vec::new())));
        let [out, err] =
            said.map(|s| s.with_context(|| format!("reading the output of {}", self.what)));
        Ok((status, [out?, err?]))
    }

    /// Runs it to its end. Meanwhile `read` gets its stdout and stderr, in the order of the output.
    /// Returns how it ended.
    ///
    /// # Errors
    /// As [`Child::lines`].
    pub fn together(
        mut self,
        read: impl FnOnce(&mut dyn Read) -> Result<()> + Send,
    ) -> Result<Result<()>> {
        let (pipe, writer) = std::io::pipe().context("making a pipe")?;
        let other = writer.try_clone().context("making a pipe")?;
        self.command.stdout(writer).stderr(other);
        let child = self.start()?;
        // The pipe ends when the child's handles of it do: ours must be gone.
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        self.read_output(child, pipe, read)
    }

    /// Runs it to its end. Meanwhile `read` gets its stderr. Returns how it ended.
    ///
    /// # Errors
    /// When it cannot be started, or `read` fails (it is ended then).
    pub fn lines(
        mut self,
        read: impl FnOnce(&mut dyn Read) -> Result<()> + Send,
    ) -> Result<Result<()>> {
        self.command.stderr(Stdio::piped()).stdout(Stdio::null());
        let mut child = self.start()?;
        match child.stderr.take() {
            Some(pipe) => self.read_output(child, pipe, read),
            None => self.read_output(child, std::io::empty(), read),
        }
    }

    fn read_output(
        &self,
        child: std::process::Child,
        mut pipe: impl Read + Send,
        read: impl FnOnce(&mut dyn Read) -> Result<()> + Send,
    ) -> Result<Result<()>> {
        let id = child.id();
        // This thread waits for the child and handles Ctrl-C, so another thread reads.
        let (output, status) = std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let output = read(&mut pipe);
                if output.is_err() {
                    terminate(id);
                }
                output
            });
            let status = self.wait(child);
            let output = reader
                .join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("reading its output failed")));
            (output, status)
        });
        let status = status?;
        output.map(|()| self.check(status))
    }

    /// Runs it to its end and shows its output only if it fails, for programs that chatter.
    ///
    /// # Errors
    /// As [`Child::run`].
    pub fn run_quietly(mut self) -> Result<()> {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let (status, said) = self.collected()?;
        if !status.success() {
            for said in said {
                deepsim_terminal::tell(String::from_utf8_lossy(&said).trim_end());
            }
        }
        self.check(status)
    }

    /// Runs it to its end without output, and returns whether it succeeded.
    pub fn succeeds(mut self) -> bool {
        let quiet = self.command.stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    }

    fn start(&mut self) -> Result<std::process::Child> {
        self.command.spawn().with_context(|| {
            format!(
                "starting {} ({})",
                self.what,
                self.command.get_program().display()
            )
        })
    }

    /// Waits for the child. A Ctrl-C meanwhile does not end this process before the child, which
    /// the terminal signals as well. A SIGTERM that reached only this process is passed on to the
    /// child.
    fn wait(&self, mut child: std::process::Child) -> Result<ExitStatus> {
        let signals = Signals::get()?;
        signals.idle.store(false, Ordering::SeqCst);
        let mut told = false;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) => {}
                Err(error) => break Err(error),
            }
            let late = self
                .deadline
                .is_some_and(|deadline| Instant::now() >= deadline);
            if !told && (late || signals.terminated.load(Ordering::SeqCst)) {
                told = true;
                terminate(child.id());
            }
            std::thread::sleep(POLL);
        };
        signals.idle.store(true, Ordering::SeqCst);
        // After a Ctrl-C nothing more must start, even if this child had already finished.
        let stopped = [(&signals.interrupted, 2), (&signals.terminated, 15)]
            .into_iter()
            .find(|(flag, _)| flag.load(Ordering::SeqCst));
        match (status, stopped) {
            (Ok(status), Some((_, signal))) if status.success() => Err(ChildFailed {
                what: self.what.clone(),
                ending: Ending::Signal(signal),
                hint: self.hint.clone(),
            }
            .into()),
            (status, _) => status.with_context(|| format!("waiting for {}", self.what)),
        }
    }

    fn check(&self, status: ExitStatus) -> Result<()> {
        use std::os::unix::process::ExitStatusExt;
        if status.success() {
            return Ok(());
        }
        let small = |n: i32| u8::try_from(n).unwrap_or(1);
        let ending = match (status.code(), status.signal()) {
            (Some(code), _) => Ending::Code(small(code)),
            (None, signal) => Ending::Signal(small(signal.unwrap_or(1))),
        };
        Err(ChildFailed {
            what: self.what.clone(),
            ending,
            hint: self.hint.clone(),
        }
        .into())
    }
}

/// What Ctrl-C and SIGTERM do: while a child runs they are noted, otherwise they end xtask as
/// they end any program.
struct Signals {
    idle: Arc<AtomicBool>,
    interrupted: Arc<AtomicBool>,
    terminated: Arc<AtomicBool>,
}

impl Signals {
    fn get() -> Result<&'static Self> {
        static SIGNALS: OnceLock<std::io::Result<Signals>> = OnceLock::new();
        SIGNALS
            .get_or_init(|| {
                let flag = |value| Arc::new(AtomicBool::new(value));
                let signals = Signals {
                    idle: flag(true),
                    interrupted: flag(false),
                    terminated: flag(false),
                };
                for (signal, flag) in [
                    (SIGINT, &signals.interrupted),
                    (SIGTERM, &signals.terminated),
                ] {
                    signal_hook::flag::register_conditional_default(signal, signals.idle.clone())?;
                    signal_hook::flag::register(signal, flag.clone())?;
                }
                Ok(signals)
            })
            .as_ref()
            .map_err(|error| anyhow::anyhow!("setting up Ctrl-C handling: {error}"))
    }
}

/// Signals a process and all of its descendants, because cargo does not pass signals on to the
/// tests that it runs.
fn terminate(id: u32) {
    let mut told = vec![id];
    let parents = parents();
    let mut next = 0;
    while let Some(&of) = told.get(next) {
        told.extend(parents.iter().filter(|(_, p)| *p == of).map(|(c, _)| *c));
        next += 1;
    }
    let ids: Vec<String> = told.iter().map(u32::to_string).collect();
    // `kill` is in every POSIX shell and in procps; std has only SIGKILL.
    let command = format!("kill -TERM {}", ids.join(" "));
    let _ = Command::new("sh")
        .args(["-c", &command])
        .stdin(Stdio::null())
        .status();
}

/// Every process with its parent, as Linux tells it.
fn parents() -> Vec<(u32, u32)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let id: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name before may hold anything: state and parent follow its last parenthesis.
            let (_, fields) = stat.rsplit_once(')')?;
            Some((id, fields.split_whitespace().nth(1)?.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_process_has_started_is_told_too() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", file.display());
        let mut child = Command::new("sh").args(["-c", &script]).spawn().unwrap();
        let begun = Instant::now();
        let grandchild = loop {
            let there = std::fs::read_to_string(&file).unwrap_or_default();
            if let Ok(id) = there.trim().parse::<u32>() {
                break id;
            }
            assert!(begun.elapsed() < Duration::from_secs(30));
            std::thread::sleep(POLL);
        };
        assert!(parents().contains(&(grandchild, child.id())));
        terminate(child.id());
        child.wait().unwrap();
        // Its end may be seen a moment later, as a zombie that init has yet to take.
        let lives = || {
            let stat = std::fs::read_to_string(format!("/proc/{grandchild}/stat"));
            stat.is_ok_and(|s| s.contains("sleep") && !s.contains(") Z "))
        };
        while lives() {
            assert!(begun.elapsed() < Duration::from_secs(30), "it goes on");
            std::thread::sleep(POLL);
        }
    }
}

//! The programs of this workspace as processes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything here may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(300);

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// A program of the workspace, `deepsim-train` for one, on one thread and without the caller's
/// settings. Cargo builds no other package's programs for a test, hence the hint.
pub fn program(name: &str) -> Command {
    // target/debug/deps/this-test → target/debug/NAME
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --workspace` first (`cargo xtask test` does)",
        path.display()
    );
    let mut command = Command::new(path);
    command
        .env_remove("RUST_LOG")
        .env_remove("RANK")
        .env_remove("WORLD_SIZE")
        .env("OMP_NUM_THREADS", "1")
        .stdin(Stdio::null());
    command
}

/// Python with the packages that `cargo xtask setup` put into the workspace, for a script's text.
pub fn python(script: &str) -> Command {
    let mut command = with_packages();
    command.args(["-c", script]);
    command
}

/// The same for a file of `tests/python`.
pub fn python_file(name: &str) -> Command {
    let mut command = with_packages();
    command.arg(root().join("tests/python").join(name));
    command
}

fn with_packages() -> Command {
    let mut command = Command::new("python3");
    command
        .env("PYTHONPATH", root().join("third_party/py"))
        .env("OMP_NUM_THREADS", "1")
        .stdin(Stdio::null());
    command
}

/// A command run by another one: a shell that limits it first, say.
pub fn run_by(mut other: Command, command: &Command) -> Command {
    other.arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        other.current_dir(folder);
    }
    other
}

/// What a process left when it ended.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; `None` after a signal that nothing handled.
    pub code: Option<i32>,
    /// Data.
    pub stdout: String,
    /// Remarks.
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Ran {
    command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"))
        .into()
}

impl Ran {
    /// Demands an exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Ran {
        assert_eq!(
            self.code,
            Some(code),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// Demands exit code 2, nothing on stdout, no panic, and every one of `words` on stderr.
    #[track_caller]
    pub fn refuses(self, words: &[&str]) -> Ran {
        let ran = self.exits(2).says(words);
        assert_eq!(ran.stdout, "", "{}", ran.stderr);
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        ran
    }

    /// Demands every one of `words` on stderr.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Ran {
        for word in words {
            assert!(
                self.stderr.contains(word),
                "no `{word}` in:\n{}",
                self.stderr
            );
        }
        self
    }

    /// Demands exit code 0 and returns stdout.
    #[track_caller]
    pub fn prints(self) -> String {
        self.exits(0).stdout
    }
}

/// A process at work; killed if a failing test drops it.
#[derive(Debug)]
pub struct Running(Option<Child>);

impl Running {
    /// Starts a command.
    pub fn start(command: &mut Command) -> Running {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(Some(command.spawn().unwrap()))
    }

    fn child(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }

    /// Its number.
    pub fn pid(&mut self) -> u32 {
        self.child().id()
    }

    /// Whether it is still at work.
    pub fn lives(&mut self) -> bool {
        self.child().try_wait().unwrap().is_none()
    }

    /// Waits until `ready`, while the process lives.
    #[track_caller]
    pub fn until(&mut self, mut ready: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !ready() {
            assert!(
                self.lives(),
                "it ended: {:?}",
                self.0.take().unwrap().wait_with_output()
            );
            assert!(
                begun.elapsed() < PATIENCE,
                "nothing happened for {PATIENCE:?}"
            );
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Hears nothing of it from now on: what it says finds no reader.
    pub fn deafen(&mut self) {
        let child = self.child();
        drop((child.stdout.take(), child.stderr.take()));
    }

    /// Waits for the end, which must come within a minute; `what` is what it may be waiting for.
    #[track_caller]
    pub fn ends_soon(mut self, what: &str) -> Ran {
        let begun = Instant::now();
        while self.lives() {
            let waited = begun.elapsed();
            assert!(waited < Duration::from_secs(60), "{what} is waited for");
            std::thread::sleep(Duration::from_millis(20));
        }
        self.ends()
    }

    /// Waits for the end.
    pub fn ends(mut self) -> Ran {
        let child = self.0.take().unwrap();
        child.wait_with_output().unwrap().into()
    }

    /// Sends a signal and goes on.
    pub fn tell(&mut self, signal: Signal) {
        kill_process(Pid::from_child(self.child()), signal).unwrap();
    }

    /// Sends a signal and waits for the end.
    pub fn signal(mut self, signal: Signal) -> Ran {
        let child = self.0.take().unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        child.wait_with_output().unwrap().into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

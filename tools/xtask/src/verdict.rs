//! What `cargo test --no-fail-fast` says, read line by line: which tests of which programs failed.

use std::io::{BufRead, BufReader, Read, Write};

use anyhow::{Context, Result};
use deepsim_tools::failure::{ChildFailed, is_interrupted};

/// A test program that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// As cargo takes it: `-p deepsim-train --test vae`.
    pub program: String,
    /// Names of its tests that failed; none where it ended before it could name any.
    pub tests: Vec<String>,
}

/// Reads the output of a test run.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Test programs that were run.
    pub programs: usize,
    /// Those that failed, in order.
    pub failures: Vec<Failure>,
    now: Vec<String>,
}

impl Verdict {
    /// Takes one line.
    pub fn line(&mut self, line: &str) {
        let trimmed = line.trim_start();
        if trimmed.starts_with("Running ") || trimmed.starts_with("Doc-tests ") {
            self.programs += 1;
            self.now.clear();
        } else if let Some((_, after)) = line.split_once("to rerun pass `") {
            let program = after.split('`').next().unwrap_or(after).to_owned();
            let tests = std::mem::take(&mut self.now);
            self.failures.push(Failure { program, tests });
        } else if let Some(test) = failed(line)
            && !self.now.iter().any(|known| known == test)
        {
            self.now.push(test.to_owned());
        }
    }

    /// Reads to the end, passing every line on to standard output, behind `prefix`.
    ///
    /// # Errors
    /// What cannot be read. That nobody reads our output is none.
    pub fn watch(&mut self, output: &mut dyn Read, prefix: &str) -> Result<()> {
        let mut reader = BufReader::new(output);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let n = reader.read_until(b'\n', &mut bytes);
            if n.context("reading cargo's output")? == 0 {
                return Ok(());
            }
            let mut stdout = std::io::stdout().lock();
            let written = stdout.write_all(prefix.as_bytes());
            let _ = written
                .and_then(|()| stdout.write_all(&bytes))
                .and_then(|()| stdout.flush());
            self.line(String::from_utf8_lossy(&bytes).trim_end());
        }
    }
}

/// The test that a line says has failed.
fn failed(line: &str) -> Option<&str> {
    // Something printed by a test may stand before it.
    if let Some(start) = line.strip_suffix(" ... FAILED") {
        return start.rsplit_once("test ").map(|(_, name)| name);
    }
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

/// Whether a run ended so because tests failed, and not before them or by a signal.
pub fn of_tests(verdict: &Verdict, why: &anyhow::Error) -> bool {
    !verdict.failures.is_empty() && !is_interrupted(why)
}

/// Whether a program says by its exit code, 1, that it found what it looked for: it could be started, and refused nothing.
pub fn is_failure(why: &anyhow::Error) -> bool {
    why.downcast_ref::<ChildFailed>()
        .is_some_and(|f| f.ending.code() == 1)
}

/// `vae (as the machine is): two_iterations_are_the_reference_s, …`
pub fn listed(setting: &str, failure: &Failure) -> String {
    let tests = if failure.tests.is_empty() {
        "ended before it could say which test (see above)".to_owned()
    } else {
        failure.tests.join(", ")
    };
    format!("  {} [{setting}]: {tests}", failure.program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failed_test_is_named_with_its_program() {
        let output = "\
   Compiling deepsim-nets v0.1.0
     Running tests/parity.rs (target/debug/deps/parity-1)

running 2 tests
test a_test ... ok
test another::one ... FAILED

failures:

---- another::one stdout ----
thread 'another::one' panicked at x.rs:1:
to rerun what is broken

failures:
    another::one

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out

error: test failed, to rerun pass `-p deepsim-nets --test parity`
     Running tests/vae.rs (target/debug/deps/vae-2)

running 1 test
error: test failed, to rerun pass `-p deepsim-train --test vae`

Caused by:
  process didn't exit successfully: `vae` (signal: 11, SIGSEGV: invalid memory reference)
   Doc-tests deepsim_nets
test crates/x.rs - f (line 3) ... ok
error: 2 targets failed:
    `-p deepsim-nets --test parity`
    `-p deepsim-train --test vae`
";
        let mut verdict = Verdict::default();
        output.lines().for_each(|line| verdict.line(line));
        assert_eq!(verdict.programs, 3);
        let failure = |program: &str, tests: &[&str]| Failure {
            program: program.to_owned(),
            tests: tests.iter().map(|&t| t.to_owned()).collect(),
        };
        let wanted = [
            failure("-p deepsim-nets --test parity", &["another::one"]),
            failure("-p deepsim-train --test vae", &[]),
        ];
        assert_eq!(verdict.failures, wanted);
    }

    #[test]
    fn the_last_lines_name_program_setting_and_tests() {
        let mut failure = Failure {
            program: "-p deepsim-train --test vae".into(),
            tests: vec!["one".into(), "two".into()],
        };
        assert_eq!(
            listed("avx2", &failure),
            "  -p deepsim-train --test vae [avx2]: one, two"
        );
        failure.tests.clear();
        assert!(listed("avx2", &failure).contains("ended before"));
    }
}

//! Consent to run TorchScript modules.
//!
//! Such a file is a program, and to load it is to run it. No file can allow that, least of all one that lies beside the
//! module: consent comes from the command line (`--trust-code`, or `--trust-code=BLAKE3,…`) alone. A module's bytes are read
//! once, hashed, and compared with what is allowed before libtorch sees them; libtorch gets the same bytes.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use deepsim_data::terminal;

use crate::checkpoint::{Manifest, ModelWeights};
use crate::error::{ExperimentError, Refused, Result};
use crate::script::format::check_format;
use crate::script::source::ScriptSource;

/// The flag, as it is typed.
const FLAG: &str = "--trust-code";

/// What the command line allows, and which weights it asks for, where a run is opened.
#[derive(Clone, Debug, Default)]
pub struct Consent {
    given: Given,
    command: Vec<OsString>,
    weights: ModelWeights,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Given {
    /// Nothing.
    #[default]
    Nothing,
    /// `--trust-code`: on a run, what it recorded; where nothing is recorded yet, the file that is there.
    Recorded,
    /// `--trust-code=BLAKE3,…`: these.
    Hashes(BTreeSet<String>),
}

impl Consent {
    /// Of the option's values: none if it was not given, an empty list if it was given bare. `command` is the whole
    /// command line, for advice.
    pub fn new(flag: Option<&[String]>, command: impl IntoIterator<Item = OsString>) -> Consent {
        Consent {
            given: match flag {
                None => Given::Nothing,
                Some([]) => Given::Recorded,
                Some(hashes) => Given::Hashes(hashes.iter().cloned().collect()),
            },
            command: command.into_iter().collect(),
            weights: ModelWeights::default(),
        }
    }

    /// The same with other weights asked for.
    #[must_use]
    pub fn with_weights(self, weights: ModelWeights) -> Consent {
        Consent { weights, ..self }
    }

    /// The weights that a run is to be opened with.
    pub fn weights(&self) -> ModelWeights {
        self.weights
    }

    /// No module may be run.
    pub fn none() -> Consent {
        Consent::default()
    }

    /// Whether the flag was given without hashes.
    pub fn is_bare(&self) -> bool {
        self.given == Given::Recorded
    }

    /// For an experiment of which no run is there: a first training, or an experiment file alone.
    pub fn at_first<'a>(&'a self, experiment: &'a Path) -> Permit<'a> {
        Permit {
            consent: self,
            whose: experiment,
            recorded: None,
        }
    }

    /// For a run: its manifest's hashes must be those of the files, whatever was allowed.
    pub fn on_run<'a>(&'a self, run: &'a Path, manifest: &'a Manifest) -> Permit<'a> {
        Permit {
            consent: self,
            whose: run,
            recorded: Some(manifest.sources().collect()),
        }
    }

    /// For a record of which only the encoder's hash is known.
    pub fn on_record<'a>(&'a self, record: &'a Path, encoder: &'a str) -> Permit<'a> {
        Permit {
            consent: self,
            whose: record,
            recorded: Some(vec![("encoder".to_owned(), encoder)]),
        }
    }

    /// The whole command line with these hashes allowed besides those that are already.
    fn advice(&self, hashes: &[&str]) -> String {
        let mut all: BTreeSet<&str> = hashes.iter().copied().collect();
        if let Given::Hashes(given) = &self.given {
            all.extend(given.iter().map(String::as_str));
        }
        let all: Vec<&str> = all.into_iter().collect();
        let flag = OsString::from(format!("{FLAG}={}", all.join(",")));
        // What follows a double dash are no options.
        let end = self.command.iter().position(|word| word == "--");
        let (options, rest) = self.command.split_at(end.unwrap_or(self.command.len()));
        let kept = options.iter().filter(|word| !is_flag(word));
        let words = kept.chain(std::iter::once(&flag)).chain(rest);
        terminal::command(words)
    }
}

/// A hash as it is typed: 64 hexadecimal digits.
///
/// # Errors
/// Anything else, in words.
pub fn parse_hash(text: &str) -> std::result::Result<String, String> {
    let text = text.trim().to_ascii_lowercase();
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(text)
    } else {
        Err("a blake3 hash has 64 hexadecimal digits".to_owned())
    }
}

/// Consent, and what the experiment or run in question has recorded of its modules.
#[derive(Clone, Debug)]
pub struct Permit<'a> {
    consent: &'a Consent,
    whose: &'a Path,
    /// The sections of a run's sources, each with its hash; none where there is no run.
    recorded: Option<Vec<(String, &'a str)>>,
}

/// A module that may be run: its bytes, hashed and allowed. Made by [`Permit::modules`] alone.
#[derive(Debug)]
pub struct Allowed {
    pub(crate) source: ScriptSource,
    pub(crate) bytes: Vec<u8>,
    pub(crate) hash: String,
}

impl Permit<'_> {
    /// Reads the modules of these sections and decides on them: one entry for each section, none where its source is no
    /// module.
    ///
    /// # Errors
    /// Unreadable files; files that are no TorchScript; [`ExperimentError::InputChanged`] where a run has recorded another
    /// hash; [`ExperimentError::NoConsent`] with all that were not allowed.
    pub fn modules(
        &self,
        sections: &[(String, Option<&ScriptSource>)],
    ) -> Result<Vec<Option<Allowed>>> {
        let mut found = Vec::new();
        let mut refused = Vec::new();
        for (table, source) in sections {
            let Some(source) = source else {
                found.push(None);
                continue;
            };
            let key = format!("{table}.weights");
            let bytes =
                crate::files::read(&source.file).map_err(ExperimentError::io(&source.file))?;
            let hash = blake3::hash(&bytes).to_hex().to_string();
            let recorded = self.recorded.as_ref();
            let recorded = recorded.map(|all| all.iter().find(|(known, _)| known == table));
            if let Some(Some((_, was))) = recorded
                && *was != hash
            {
                let cut = |s: &str| s.chars().take(16).collect();
                return Err(ExperimentError::InputChanged {
                    path: self.whose.to_owned(),
                    what: key,
                    was: cut(was),
                    is: cut(&hash),
                });
            }
            check_format(&source.file, &bytes)?;
            let allowed = match &self.consent.given {
                Given::Nothing => false,
                // A run binds: what it has not recorded is allowed by its hash alone.
                Given::Recorded => recorded.is_none_or(|found| found.is_some()),
                Given::Hashes(hashes) => hashes.contains(&hash),
            };
            if !allowed {
                let file = source.file.clone();
                let hash = hash.clone();
                refused.push(Refused { key, file, hash });
            }
            found.push(Some(Allowed {
                source: (*source).clone(),
                bytes,
                hash,
            }));
        }
        if refused.is_empty() {
            return Ok(found);
        }
        let hashes: Vec<&str> = refused.iter().map(|r| r.hash.as_str()).collect();
        Err(ExperimentError::NoConsent {
            path: self.whose.to_owned(),
            command: self.consent.advice(&hashes),
            modules: refused,
        })
    }
}

/// Whether a word of a command line is the option.
fn is_flag(word: &OsStr) -> bool {
    let text = word.to_string_lossy();
    text == FLAG || text.starts_with(&format!("{FLAG}="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consent(flag: Option<&[&str]>, command: &[&str]) -> Consent {
        let flag: Option<Vec<String>> = flag.map(|f| f.iter().map(|h| (*h).to_owned()).collect());
        Consent::new(flag.as_deref(), command.iter().map(OsString::from))
    }

    #[test]
    fn the_advised_command_is_the_whole_one_with_the_hashes_before_a_double_dash() {
        type Words<'a> = &'a [&'a str];
        let cases: [(Option<Words<'_>>, Words<'_>, &str); 4] = [
            (
                None,
                &["eval", "table2", "--runs", "my runs"],
                "eval table2 --runs 'my runs' --trust-code=h2",
            ),
            (
                Some(&[]),
                &["eval", "--trust-code", "table2"],
                "eval table2 --trust-code=h2",
            ),
            (
                Some(&["h1"]),
                &["eval", "--trust-code=h1", "table2"],
                "eval table2 --trust-code=h1,h2",
            ),
            (
                None,
                &["eval", "invert", "--", "--trust-code.jpg"],
                "eval invert --trust-code=h2 -- --trust-code.jpg",
            ),
        ];
        for (flag, command, advised) in cases {
            assert_eq!(consent(flag, command).advice(&["h2"]), advised);
        }
    }

    #[test]
    fn the_bare_flag_allows_what_a_run_has_recorded_and_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("module.pt");
        std::fs::write(&file, "a program").unwrap();
        let source = ScriptSource {
            file,
            output: crate::config::OutputTap(None),
            units: crate::config::Units::Rgb1,
            shape: None,
        };
        let hash = blake3::hash(b"a program").to_hex().to_string();
        let of = |table: &str| [(table.to_owned(), Some(&source))];
        let bare = consent(Some(&[]), &[]);
        let run = bare.on_record(folder.path(), &hash);
        assert!(run.modules(&of("encoder")).unwrap()[0].is_some());
        let beside = run.modules(&of("comparator.beside")).unwrap_err();
        assert!(matches!(beside, ExperimentError::NoConsent { .. }));
        let first = bare.at_first(folder.path());
        assert!(first.modules(&of("comparator.beside")).is_ok());
        let named = consent(Some(&[&hash]), &[]);
        let run = named.on_record(folder.path(), &hash);
        assert!(run.modules(&of("comparator.beside")).is_ok());
        let other = bare.on_record(folder.path(), "another");
        let changed = other.modules(&of("encoder")).unwrap_err();
        assert!(matches!(changed, ExperimentError::InputChanged { .. }));
    }

    #[test]
    fn a_hash_has_64_hexadecimal_digits() {
        let hash = "0123456789abcdef".repeat(4);
        assert_eq!(parse_hash(&hash.to_uppercase()), Ok(hash.clone()));
        for bad in ["", "true", &hash[1..], &format!("{}g", &hash[1..])] {
            assert!(parse_hash(bad).is_err(), "{bad}");
        }
    }
}

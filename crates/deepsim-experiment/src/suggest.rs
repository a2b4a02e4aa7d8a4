//! Names that were nearly right, and paths that were looked for from elsewhere.

use std::path::{Path, PathBuf};

use deepsim_data::terminal::path as shown;
use deepsim_nets::NetKind;
use serde::Deserialize;
use serde::de::IntoDeserializer;

/// The name that is most like `asked`, if one is like it at all.
pub fn closest<'a>(asked: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = asked.to_lowercase();
    let mut best: Option<(f64, &str)> = None;
    for name in names {
        let other = name.to_lowercase();
        let likeness =
            if lower != other && !lower.is_empty() && other.contains(&lower) && lower.len() > 2 {
                0.9
            } else {
                strsim::normalized_damerau_levenshtein(&lower, &other)
            };
        if likeness >= 0.6 && best.is_none_or(|(most, _)| likeness > most) {
            best = Some((likeness, name));
        }
    }
    best.map(|(_, name)| name)
}

/// ` (did you mean NAME?)`, or nothing.
pub fn hint<'a>(asked: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    closest(asked, names).map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// Names that a message lists at most.
const LISTED: usize = 32;

/// A parser's message about an unknown name, with the name that was probably meant, and without a list that nobody reads.
pub fn shortened(message: &str) -> String {
    let Some(at) = message.find("expected one of ") else {
        return message.to_owned();
    };
    let (before, rest) = message.split_at(at);
    let list = rest.lines().next().unwrap_or(rest);
    let after = &rest[list.len()..];
    let quoted = |text: &str| -> Vec<String> {
        let parts = text.split('`').skip(1).step_by(2);
        parts.map(str::to_owned).collect()
    };
    let (asked, known) = (quoted(before), quoted(list));
    let hint = asked.last().map_or_else(String::new, |asked| {
        hint(asked, known.iter().map(String::as_str))
    });
    if known.len() > LISTED {
        let end = if hint.is_empty() {
            format!(
                "none of the {} known ones (docs/configuration.md)",
                known.len()
            )
        } else {
            hint.trim_start_matches("; ").to_owned()
        };
        format!("{}; {end}{after}", before.trim_end().trim_end_matches(','))
    } else {
        format!("{before}{list}{hint}{after}")
    }
}

/// An error about an unknown tap lists the layers of all networks; this one lists those of the network that is named
/// beside it.
pub(crate) fn taps_of_the_network(text: &str, error: &str) -> String {
    of_the_network(text, error).unwrap_or_else(|| error.to_owned())
}

fn of_the_network(text: &str, error: &str) -> Option<String> {
    const EXPECTED: &str = ", expected one of ";
    let unknown = error.split_once("unknown variant `")?.1;
    let tap = unknown.split_once('`')?.0;
    let at = error.find(EXPECTED)? + EXPECTED.len();
    let end = at + error[at..].find(['\n', ';']).unwrap_or(error.len() - at);
    let table: toml::Table = text.parse().ok()?;
    let sections = ["encoder", "comparator"];
    let sections = sections
        .into_iter()
        .filter_map(|side| table.get(side)?.as_table());
    // Comparators may have names.
    let mut all = sections.flat_map(|side| {
        let named = side.values().filter_map(toml::Value::as_table);
        std::iter::once(side).chain(named)
    });
    let net = all.find_map(|side| {
        (side.get("tap")?.as_str()? == tap).then(|| side.get("net")?.as_str())?
    })?;
    let parsed: Result<NetKind, serde::de::value::Error> =
        NetKind::deserialize(net.into_deserializer());
    let layers: Vec<String> = parsed
        .ok()?
        .table()
        .iter()
        .map(|(tap, _)| format!("`{tap}`"))
        .collect();
    let (before, after) = (&error[..at], &error[end..]);
    Some(format!("{before}{} ({net}){after}", layers.join(", ")))
}

/// Where a path was looked for, in words: relative ones say from where.
pub fn tried(path: &Path) -> String {
    let cwd = std::env::current_dir().unwrap_or_default();
    if path.is_relative() && !cwd.as_os_str().is_empty() {
        format!(
            "{} (relative to {}; the paths of this project's experiments begin at its root)",
            shown(path),
            shown(cwd)
        )
    } else {
        shown(path)
    }
}

/// The experiment file that was probably meant by a path that is not there: of the same or a similar name below
/// `experiments`.
pub fn experiment_file(path: &Path) -> Option<PathBuf> {
    let stem = path.file_stem()?.to_str()?;
    let mut found: Vec<PathBuf> = Vec::new();
    let mut folders = vec![(PathBuf::from("experiments"), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && depth < 3 {
                folders.push((path, depth + 1));
            } else if path.extension().is_some_and(|e| e == "toml") {
                found.push(path);
            }
        }
    }
    // The plainest of one name.
    found.sort_by_key(|p| (p.components().count(), p.clone()));
    let stems: Vec<&str> = found
        .iter()
        .filter_map(|p| p.file_stem()?.to_str())
        .collect();
    let likely = closest(stem, stems.iter().copied())?;
    let place = stems.iter().position(|s| *s == likely)?;
    found.get(place).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nearly_right_is_found_and_what_is_not_is_left() {
        let names = ["quickstart", "faces-vaegan", "sample-recorded", "sample"];
        for (asked, found) in [
            ("quikstart", Some("quickstart")),
            ("Quickstart", Some("quickstart")),
            ("vaegan", Some("faces-vaegan")),
            // The name itself before those that hold it.
            ("sample", Some("sample")),
            ("sample-recoded", Some("sample-recorded")),
            ("x", None),
            ("unrelated", None),
            ("", None),
        ] {
            assert_eq!(closest(asked, names), found, "{asked}");
        }
        assert_eq!(hint("pool6", ["pool5"]), "; did you mean `pool5`?");
    }

    #[test]
    fn long_lists_are_cut_and_short_ones_kept() {
        let few =
            "TOML parse error at line 3\nunknown field `stepss`, expected one of `steps`, `seed`\n";
        assert_eq!(
            shortened(few),
            "TOML parse error at line 3\nunknown field `stepss`, expected one of `steps`, `seed`; did you mean \
             `steps`?\n"
        );
        let all: Vec<String> = (1..70).map(|i| format!("`pool{i}`")).collect();
        let many = format!(
            "unknown variant `poll5`, expected one of {}",
            all.join(", ")
        );
        assert_eq!(
            shortened(&many),
            "unknown variant `poll5`; did you mean `pool5`?"
        );
        assert_eq!(shortened("something else"), "something else");
    }

    #[test]
    fn relative_paths_say_from_where() {
        let text = tried(Path::new("weights/x.safetensors"));
        assert!(
            text.starts_with("weights/x.safetensors (relative to /"),
            "{text}"
        );
        assert_eq!(tried(Path::new("/a/b")), "/a/b");
    }

    #[test]
    fn an_unknown_tap_names_the_layers_of_its_network_alone() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/quickstart.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let wrong = text.replace("tap = \"pool2\"", "tap = \"pool6\"");
        assert_ne!(wrong, text);
        let in_file = crate::Experiment::parse(&wrong, &file, &[]).unwrap_err();
        let sets = ["encoder.tap=pool6".to_owned()];
        let in_set = crate::Experiment::parse(&text, &file, &sets).unwrap_err();
        for error in [in_file.to_string(), in_set.to_string()] {
            for word in ["unknown variant `pool6`", "`pool5`", "`relu3`", "(alexnet)"] {
                assert!(error.contains(word), "no {word} in {error}");
            }
            for word in ["norm1", "block", "conv5_3", "stem"] {
                assert!(!error.contains(word), "{word} in {error}");
            }
        }
        assert!(in_file.to_string().contains("tap = \"pool6\""), "{in_file}");
    }
}

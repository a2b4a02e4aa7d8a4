//! The invariants of the architecture that a machine can check; docs/ARCHITECTURE.md lists them and
//! docs/decisions.md says why they hold.
//!
//! A check yields complaints, `path: what is wrong`; all of them are shown at once.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::photos::manifest::wrongly_shown;
use crate::{circles, lab};
use deepsim_tools::child::Child;
use deepsim_tools::stages::note;
use deepsim_tools::workspace::Workspace;

/// Largest committed file, in bytes: photos and weights do not belong in git.
const MAX_BYTES: u64 = 2 << 20;
/// Longest source file, in lines.
const MAX_LINES: usize = 600;

/// Which crates of the workspace, and which torch bindings, each crate may depend on.
/// {train, eval} → experiment → nets → {aten, weights}; experiment → data; all → {terminal, files}. An arrow leads to what
/// a crate uses; nothing points back.
const DIRECTIONS: [(&str, &str); 15] = [
    ("deepsim-aten", "tch torch-sys"),
    ("deepsim-terminal", ""),
    ("deepsim-files", ""),
    (
        "deepsim-nets",
        "deepsim-aten deepsim-files deepsim-terminal deepsim-weights tch",
    ),
    ("deepsim-weights", "deepsim-files deepsim-terminal"),
    ("deepsim-data", "deepsim-files deepsim-terminal"),
    (
        "deepsim-experiment",
        "deepsim-aten deepsim-data deepsim-files deepsim-nets deepsim-weights tch",
    ),
    (
        "deepsim-train",
        "deepsim-aten deepsim-nets deepsim-data deepsim-experiment tch",
    ),
    (
        "deepsim-eval",
        "deepsim-aten deepsim-nets deepsim-data deepsim-experiment tch",
    ),
    ("deepsim-tools", "deepsim-terminal"),
    ("xtask", "deepsim-terminal deepsim-tools"),
    ("deepsim-lab", "deepsim-terminal deepsim-tools"),
    (
        "deepsim-bench",
        "deepsim-data deepsim-eval deepsim-experiment deepsim-nets deepsim-train tch",
    ),
    (
        "deepsim-fuzz",
        "deepsim-data deepsim-experiment deepsim-nets deepsim-weights tch",
    ),
    (
        "deepsim-tests",
        "deepsim-aten deepsim-nets deepsim-data deepsim-experiment deepsim-train deepsim-eval tch",
    ),
];

/// Checks everything.
///
/// # Errors
/// When anything is wrong; each complaint has been shown on stderr.
pub fn run(ws: &Workspace) -> Result<()> {
    let files = files(ws)?;
    let packages = packages(ws)?;
    let mut complaints = directions(&packages);
    for package in &packages {
        complaints.extend(package.circles()?);
    }
    for file in &files {
        let path = ws.path(file);
        let Ok(meta) = fs::metadata(&path) else {
            continue;
        }; // deleted, not yet committed
        if meta.len() > MAX_BYTES {
            complaints.push(format!(
                "{file}: {} bytes, more than {MAX_BYTES}",
                meta.len()
            ));
            continue;
        }
        let bytes = fs::read(&path).with_context(|| format!("reading {file}"))?;
        if let Ok(text) = std::str::from_utf8(&bytes) {
            complaints.extend(text_complaints(file, text));
        }
    }
    complaints.extend(wrongly_shown(ws)?);
    if !complaints.is_empty() {
        for complaint in &complaints {
            deepsim_terminal::tell(format_args!("tidy: {complaint}"));
        }
        bail!("tidy: {} complaints", complaints.len());
    }
    // It names its complaints itself.
    Child::from(lab::start(ws), "the documents' check")
        .args(["documents"])
        .run()?;
    note(format_args!("tidy: {} files in order", files.len()));
    Ok(())
}

fn text_complaints(file: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let path = Path::new(file);
    let extension = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    let lines = text.lines().count();
    if ["rs", "py", "cpp", "h", "sh", "toml"].contains(&extension) && lines > MAX_LINES {
        complaints.push(format!(
            "{file}: {lines} lines, more than {MAX_LINES}: split it by purpose"
        ));
    }
    if extension == "rs" && !file.starts_with("crates/deepsim-aten/") {
        for (number, _) in numbered(text).filter(|(_, line)| has_unsafe(line)) {
            complaints.push(format!("{file}:{number}: `unsafe` outside deepsim-aten"));
        }
    }
    if file.starts_with("experiments/")
        && extension == "toml"
        && !without_hint(text).starts_with('#')
    {
        complaints.push(format!(
            "{file}: no header comment (what it shows, its cost, the expected numbers, the command)"
        ));
    }
    // The lock file of cargo names its registry, by design.
    if file != "Cargo.lock" {
        for (number, line) in numbered(text) {
            if let Some(found) = foreign_place(line) {
                complaints.push(format!(
                    "{file}:{number}: names `{found}`, a place outside the project"
                ));
            }
        }
    }
    complaints
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, line)| (i + 1, line))
}

/// The keyword as code: not in a comment, a string's quotes or a longer word.
fn has_unsafe(line: &str) -> bool {
    let word = concat!("un", "safe");
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let joined =
            |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || "_`\"'-".contains(c));
        !joined(before) && !joined(after)
    })
}

/// A folder of some machine, or the host of a package registry.
fn foreign_place(line: &str) -> Option<&'static str> {
    // Put together here, so that this file does not name them.
    const FOLDERS: [&str; 4] = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/fa", "rm/"),
        concat!("/ho", "me/"),
    ];
    const HOSTS: [&str; 7] = [
        concat!("pypi", ".org"),
        concat!("python", "hosted.org"),
        concat!("deb.debian", ".org"),
        concat!("static.crates", ".io"),
        concat!("index.crates", ".io"),
        concat!("registry.npmjs", ".org"),
        concat!("download.pytorch", ".org"),
    ];
    let folder = FOLDERS.into_iter().find(|folder| {
        line.match_indices(folder).any(|(at, _)| {
            // `docs/work/x` and `../root/x` are paths of the project.
            !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-})".contains(c))
        })
    });
    folder.or_else(|| HOSTS.into_iter().find(|host| line.contains(host)))
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    #[serde(default)]
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

impl Package {
    /// A complaint for each circle of imports among its files.
    fn circles(&self) -> Result<Vec<String>> {
        let src = self.manifest_path.with_file_name("src");
        if !src.is_dir() {
            return Ok(Vec::new());
        }
        let all = circles::find(&src)?.into_iter();
        Ok(all
            .map(|circle| {
                format!(
                    "{}: files import each other in a circle:\n  {}",
                    self.name,
                    circle.because.join("\n  ")
                )
            })
            .collect())
    }
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
}

fn packages(ws: &Workspace) -> Result<Vec<Package>> {
    let json = Child::cargo("cargo metadata", ws.root())
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .output()?;
    let metadata: Metadata = serde_json::from_slice(&json).context("reading cargo metadata")?;
    Ok(metadata.packages)
}

/// An experiment without its first line, where that tells editors which keys there are.
fn without_hint(text: &str) -> &str {
    let hinted = text.strip_prefix("#:schema ");
    let rest = hinted.and_then(|rest| rest.split_once('\n'));
    rest.map_or(text, |(_, rest)| rest).trim_start()
}

fn directions(packages: &[Package]) -> Vec<String> {
    let guarded = |name: &str| {
        name == "tch" || name == "torch-sys" || packages.iter().any(|package| package.name == name)
    };
    let mut complaints = Vec::new();
    for package in packages {
        let Some((_, allowed)) = DIRECTIONS.iter().find(|(name, _)| *name == package.name) else {
            complaints.push(format!(
                "Cargo.toml: the crate {} has no entry in DIRECTIONS in tools/xtask/src/tidy.rs",
                package.name
            ));
            continue;
        };
        for dependency in package
            .dependencies
            .iter()
            .map(|dependency| dependency.name.as_str())
        {
            // Dev-dependencies count: a test of deepsim-data that needs libtorch is in the wrong crate.
            if guarded(dependency) && !allowed.split(' ').any(|name| name == dependency) {
                complaints.push(format!(
                    "{}: must not depend on {dependency} ({{train, eval}} → experiment → {{nets, data}}, nets → {{aten, weights}}: an arrow leads to what may be used)",
                    package.name
                ));
            }
        }
    }
    complaints
}

/// Files that are, or would be, committed.
fn files(ws: &Workspace) -> Result<Vec<String>> {
    let git = Child::new("git ls-files", "git", ws.root()).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    if deepsim_tools::machine::on_path("git").is_some() && ws.path(".git").exists() {
        let list = git.output()?;
        return Ok(String::from_utf8_lossy(&list)
            .split('\0')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect());
    }
    // An unpacked source archive: everything but what .gitignore would leave out.
    let mut files = Vec::new();
    let mut open: Vec<PathBuf> = vec![ws.root().to_path_buf()];
    while let Some(folder) = open.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        for entry in entries.flatten() {
            let name = entry
                .path()
                .strip_prefix(ws.root())?
                .to_string_lossy()
                .into_owned();
            let top = name.split('/').next().unwrap_or_default();
            let ignored = ["target", "third_party", "runs", "weights", ".git"].contains(&top)
                || (name.starts_with("data/")
                    && !name.starts_with("data/manifests")
                    && name != "data/README.md")
                || name.ends_with("__pycache__");
            match entry.file_type() {
                _ if ignored => {}
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() => files.push(name),
                _ => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[&str]) -> Package {
        let dependency = |name: &&str| Dependency {
            name: (*name).to_owned(),
        };
        Package {
            name: name.to_owned(),
            manifest_path: PathBuf::new(),
            dependencies: dependencies.iter().map(dependency).collect(),
        }
    }

    #[test]
    fn dependencies_point_one_way() {
        let good = [
            package("deepsim-data", &["image", "rayon"]),
            package("deepsim-nets", &["deepsim-aten", "tch"]),
            package(
                "deepsim-train",
                &["deepsim-experiment", "deepsim-nets", "tch"],
            ),
            package("deepsim-experiment", &["deepsim-data", "deepsim-nets"]),
            package("xtask", &["clap"]),
        ];
        assert_eq!(directions(&good), [""; 0]);
        for (name, bad) in [
            ("deepsim-data", "tch"),
            ("deepsim-nets", "deepsim-experiment"),
            ("xtask", "torch-sys"),
            ("deepsim-experiment", "deepsim-train"),
        ] {
            let mut packages = vec![package(name, &[bad])];
            packages.extend([
                package("deepsim-experiment", &[]),
                package("deepsim-train", &[]),
            ]);
            assert_eq!(directions(&packages).len(), 1, "{name} → {bad}");
        }
        assert_eq!(directions(&[package("newcomer", &[])]).len(), 1);
    }

    #[test]
    fn the_keyword_is_told_from_words_like_it() {
        let word = concat!("un", "safe");
        for code in [
            format!("{word} {{ x() }}"),
            format!("pub {word} fn f() {{}}"),
            format!("let x = {word}{{1}};"),
        ] {
            assert!(has_unsafe(&code), "{code}");
        }
        for code in [
            format!("// {word}"),
            format!("#![forbid({word}_code)]"),
            format!("\"{word}\""),
            format!("style-src '{word}-inline'"),
            "safe()".into(),
        ] {
            assert!(!has_unsafe(&code), "{code}");
        }
    }

    #[test]
    fn places_outside_the_project_are_found() {
        for line in [
            concat!("see /wo", "rk/x"),
            concat!("`/ro", "ot/.cargo`"),
            concat!("https://pypi", ".org/simple"),
        ] {
            assert!(foreign_place(line).is_some(), "{line}");
        }
        for line in [
            "docs/work/x",
            "network/work",
            "../root/x",
            "{}/root/",
            "crates.io",
        ] {
            assert_eq!(foreign_place(line), None, "{line}");
        }
    }

    #[test]
    fn texts_are_checked_by_their_kind() {
        let long = "x\n".repeat(MAX_LINES + 1);
        assert_eq!(text_complaints("crates/a/src/b.rs", &long).len(), 1);
        assert_eq!(text_complaints("tools/python/full.txt", &long).len(), 0);
        assert_eq!(text_complaints("experiments/x.toml", "[train]\n").len(), 1);
        assert_eq!(
            text_complaints("experiments/x.toml", "\n# What it shows\n").len(),
            0
        );
    }
}

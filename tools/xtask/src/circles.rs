//! Which files of a crate import each other in a circle. A reader of such files can begin with none of them.
//!
//! Paths are read as they stand in the code, without test modules: `use` items, and `crate::…`, `self::…`, `super::…` or a
//! child module's name anywhere else. What a file passes on by `pub use` belongs to the file that it comes from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use deepsim_tools::files;

/// A module's path within its crate; the root's is empty.
type Module = Vec<String>;

/// One circle: its files and why each leads on.
#[derive(Debug, PartialEq, Eq)]
pub struct Circle {
    /// Files, below the folder that was read.
    pub files: BTreeSet<PathBuf>,
    /// One import for each pair: `a.rs takes crate::b::C of b.rs`.
    pub because: Vec<String>,
}

/// The circles among the files of a crate's `src`.
///
/// # Errors
/// A file that cannot be read.
pub fn find(src: &Path) -> Result<Vec<Circle>> {
    let sources = Sources::read(src)?;
    let edges = sources.edges();
    let modules: Vec<&Module> = sources.files.keys().collect();
    let next = |module: &Module| -> Vec<&Module> {
        let of = edges.get(module).into_iter().flat_map(|all| all.keys());
        of.filter_map(|to| sources.files.get_key_value(to).map(|(to, _)| to))
            .collect()
    };
    let mut circles: Vec<Circle> = Vec::new();
    for &module in &modules {
        let within: BTreeSet<&Module> = reached(module, &next)
            .into_iter()
            .filter(|other| reached(other, &next).contains(module))
            .collect();
        let files: BTreeSet<PathBuf> = within
            .iter()
            .map(|module| sources.files[*module].path.clone())
            .collect();
        if within.is_empty() || circles.iter().any(|circle| circle.files == files) {
            continue;
        }
        let name = |module: &Module| sources.files[module].path.display().to_string();
        let mut because = Vec::new();
        for from in &within {
            for (to, path) in edges.get(*from).into_iter().flatten() {
                if within.contains(to) {
                    because.push(format!("{} takes {path} of {}", name(from), name(to)));
                }
            }
        }
        circles.push(Circle { files, because });
    }
    Ok(circles)
}

/// What can be reached from a module; itself only by a way round.
fn reached<'a>(from: &Module, next: &impl Fn(&Module) -> Vec<&'a Module>) -> BTreeSet<&'a Module> {
    let mut found = BTreeSet::new();
    let mut open = next(from);
    while let Some(module) = open.pop() {
        if found.insert(module) {
            open.extend(next(module));
        }
    }
    found
}

/// One file.
struct File {
    path: PathBuf,
    /// Paths that it names, whole.
    named: Vec<Vec<String>>,
    /// What it passes on: the name, and where from.
    exports: BTreeMap<String, Vec<String>>,
}

/// The files of a crate by their modules.
struct Sources {
    files: BTreeMap<Module, File>,
}

impl Sources {
    fn read(src: &Path) -> Result<Self> {
        let is_library = src.join("lib.rs").is_file();
        let mut files = BTreeMap::new();
        let mut open = vec![src.to_path_buf()];
        while let Some(folder) = open.pop() {
            let context = || format!("reading {}", folder.display());
            for entry in fs::read_dir(&folder).with_context(context)? {
                let path = entry.with_context(context)?.path();
                if path.is_dir() {
                    open.push(path);
                    continue;
                }
                let below = path.strip_prefix(src)?;
                if let Some(module) = module_of(below, is_library) {
                    let text = files::text(&path)?;
                    let (named, exports) = paths(&tokens(&text));
                    let path = below.to_path_buf();
                    files.insert(
                        module,
                        File {
                            path,
                            named,
                            exports,
                        },
                    );
                }
            }
        }
        Ok(Self { files })
    }

    /// For each module the modules that it takes from, each with one path.
    fn edges(&self) -> BTreeMap<Module, BTreeMap<Module, String>> {
        let mut edges = BTreeMap::new();
        for (module, file) in &self.files {
            let mut to = BTreeMap::new();
            for path in &file.named {
                let whole = self.whole(module, path);
                if let Some(found) = whole.and_then(|whole| self.resolve(&whole, 0))
                    && found != *module
                {
                    to.entry(found).or_insert_with(|| path.join("::"));
                }
            }
            edges.insert(module.clone(), to);
        }
        edges
    }

    /// A path from the crate's root; none where it begins elsewhere.
    fn whole(&self, module: &Module, path: &[String]) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let mut at = module.clone();
        match first.as_str() {
            "crate" => return Some(rest.to_vec()),
            "self" => {
                at.extend_from_slice(rest);
                return Some(at);
            }
            "super" => {
                at.pop();
                let mut rest = rest;
                while let Some((more, next)) = rest.split_first()
                    && more == "super"
                {
                    at.pop();
                    rest = next;
                }
                at.extend_from_slice(rest);
                return Some(at);
            }
            _ => at.push(first.clone()),
        }
        // A child module by its bare name.
        self.files.contains_key(&at).then(|| {
            at.extend_from_slice(rest);
            at
        })
    }

    /// The module that something is defined in.
    fn resolve(&self, whole: &[String], depth: usize) -> Option<Module> {
        const DEEPEST: usize = 8;
        let known = (0..=whole.len()).rev();
        let n = known
            .into_iter()
            .find(|&n| self.files.contains_key(&whole[..n]))?;
        let module = whole[..n].to_vec();
        let export = whole
            .get(n)
            .and_then(|name| self.files[&module].exports.get(name));
        let Some(from) = export.filter(|_| depth < DEEPEST) else {
            return Some(module);
        };
        let mut on = self.whole(&module, from)?;
        on.extend_from_slice(&whole[n + 1..]);
        self.resolve(&on, depth + 1)
    }
}

/// `a/b.rs` and `a/b/mod.rs` are `a::b`. Tests are no part of it, nor a program beside a library.
fn module_of(below: &Path, is_library: bool) -> Option<Module> {
    if below.extension()? != "rs" {
        return None;
    }
    let stem = below.with_extension("");
    let mut module: Module = stem
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if module.iter().any(|part| part == "tests") || module.first()? == "bin" {
        return None;
    }
    match module.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["main"] if is_library => return None,
        ["lib" | "main"] => return Some(Module::new()),
        [.., "mod"] => {
            module.pop();
        }
        _ => {}
    }
    Some(module)
}

/// Names and marks of the code before its tests: no comments, no text in quotes.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").map_or("", |(_, after)| after);
        } else if c.is_alphabetic() || c == '_' {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
            let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
            rest = after;
            // r"…", r#"…"#
            if word.ends_with('r')
                && word.len() <= 2
                && rest.starts_with(['"', '#'])
                && let Some(raw) = raw_text(rest)
            {
                rest = raw;
                continue;
            }
            tokens.push(word.to_owned());
            if word == "tests"
                && tokens
                    .iter()
                    .rev()
                    .nth(1)
                    .is_some_and(|before| before == "mod")
            {
                break;
            }
        } else if c == '"' {
            rest = after_quote(&rest[1..]);
        } else if c == '\'' {
            // A character, or a lifetime.
            let mut inside = rest[1..].char_indices();
            let first = inside.next().map_or(' ', |(_, c)| c);
            rest = match (first, inside.next()) {
                ('\\', _) => rest[3..].split_once('\'').map_or("", |(_, after)| after),
                (_, Some((at, '\''))) => &rest[1 + at + 1..],
                _ => &rest[1..],
            };
        } else if let Some(after) = rest.strip_prefix("::") {
            tokens.push("::".to_owned());
            rest = after;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            rest = &rest[c.len_utf8()..];
        }
    }
    tokens
}

fn after_quote(mut rest: &str) -> &str {
    loop {
        let Some(at) = rest.find(['"', '\\']) else {
            return "";
        };
        if rest[at..].starts_with('"') {
            return &rest[at + 1..];
        }
        let skipped = rest[at + 1..].chars().next().map_or(0, char::len_utf8);
        rest = &rest[at + 1 + skipped..];
    }
}

/// What follows a raw text, of which the `r` was taken.
fn raw_text(rest: &str) -> Option<&str> {
    let marks = rest.len() - rest.trim_start_matches('#').len();
    let inside = rest[marks..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(marks));
    Some(inside.split_once(&end).map_or("", |(_, after)| after))
}

type Exports = BTreeMap<String, Vec<String>>;

/// The paths that tokens name, and what they pass on.
fn paths(tokens: &[String]) -> (Vec<Vec<String>>, Exports) {
    let is_name = |at: usize| {
        let first = tokens.get(at).and_then(|t| t.chars().next());
        first.is_some_and(|c| c.is_alphabetic() || c == '_')
    };
    let (mut named, mut exports) = (Vec::new(), Exports::new());
    let mut at = 0;
    while at < tokens.len() {
        // `use<…>` says what a type captures.
        if tokens[at] == "use" && tokens.get(at + 1).is_none_or(|next| next != "<") {
            let public = at > 0 && (tokens[at - 1] == "pub" || tokens[at - 1] == ")");
            let mut found = Vec::new();
            at = tree(tokens, at + 1, &mut Vec::new(), &mut found);
            for (path, name) in found {
                if public {
                    exports.insert(name, path);
                } else {
                    named.push(path);
                }
            }
            continue;
        }
        let begins = is_name(at) && (at == 0 || tokens[at - 1] != "::");
        let mut end = at + 1;
        while begins && tokens.get(end).is_some_and(|t| t == "::") && is_name(end + 1) {
            end += 2;
        }
        if end > at + 1 {
            let path = tokens[at..end].iter().step_by(2);
            named.push(path.cloned().collect());
        }
        at = end;
    }
    (named, exports)
}

/// Reads one tree of a `use` item: each path with the name that it gets. Gives where it ends.
fn tree(
    tokens: &[String],
    mut at: usize,
    before: &mut Vec<String>,
    found: &mut Vec<(Vec<String>, String)>,
) -> usize {
    let depth = before.len();
    while let Some(token) = tokens.get(at) {
        match token.as_str() {
            "::" => at += 1,
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|t| t != "}") {
                    // What is no tree is passed over.
                    at = tree(tokens, at, before, found).max(at + 1);
                    if tokens.get(at).is_some_and(|t| t == ",") {
                        at += 1;
                    }
                }
                before.truncate(depth);
                return at + 1;
            }
            "," | "}" | ";" => break,
            "as" => {
                let name = tokens.get(at + 1).cloned().unwrap_or_default();
                found.push((before.clone(), name));
                before.truncate(depth);
                return at + 2;
            }
            name => {
                before.push(name.to_owned());
                at += 1;
            }
        }
    }
    if before.len() > depth {
        let name = before.last().cloned().unwrap_or_default();
        found.push((before.clone(), name));
    }
    before.truncate(depth);
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<Circle> {
        let tmp = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = tmp.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        find(tmp.path()).unwrap()
    }

    #[test]
    fn a_circle_of_three_is_found_with_its_reasons() {
        let found = circles(&[
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::{b::{B, other}, c};\nuse std::fs;"),
            ("b.rs", "fn f() -> crate::c::C { todo() }"),
            ("c.rs", "use super::a::A as Other;"),
        ]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].files.len(), 3);
        let because = &found[0].because;
        assert!(
            because.contains(&"c.rs takes super::a::A of a.rs".to_owned()),
            "{because:?}"
        );
    }

    #[test]
    fn what_is_passed_on_belongs_to_where_it_comes_from() {
        let shared = [
            ("lib.rs", "mod parent;"),
            ("parent/held.rs", "pub struct Held;"),
            ("parent/child.rs", "use super::Held;"),
        ];
        let through = [(
            "parent/mod.rs",
            "mod child; mod held; pub use held::Held; fn f() { child::g() }",
        )];
        assert_eq!(circles(&[&shared[..], &through].concat()), []);
        let own = [(
            "parent/mod.rs",
            "mod child; mod held; pub struct Held; fn f() { child::g() }",
        )];
        assert_eq!(circles(&[&shared[..], &own].concat()).len(), 1);
    }

    #[test]
    fn tests_comments_and_texts_import_nothing() {
        let a = "// use crate::b;\nconst T: &str = \"crate::b \\\" x\"; const C: char = '\"';\nfn f<'a>(x: &'a str) {}\n\
                 const R: &str = r#\"use crate::b;\"#;\n#[cfg(test)]\nmod tests { use crate::b; }";
        let found = circles(&[("lib.rs", ""), ("a.rs", a), ("b.rs", "use crate::a::f;")]);
        assert_eq!(found, []);
    }

    #[test]
    fn what_a_type_captures_is_no_import() {
        let a = "fn f() -> impl Fn() + use<> { let x = 1; move || () }\nuse crate::b::{;}; use crate::b::B;";
        let found = circles(&[("lib.rs", ""), ("a.rs", a), ("b.rs", "use crate::a::f;")]);
        assert_eq!(found.len(), 1, "the import behind it counts");
    }

    #[test]
    fn a_program_beside_a_library_and_files_of_tests_do_not_count() {
        let found = circles(&[
            ("lib.rs", "pub mod a;"),
            ("main.rs", "use crate::a;"),
            ("a.rs", "mod tests;"),
            ("a/tests.rs", "use super::*; use crate::b;"),
            ("b.rs", "use crate::a;"),
        ]);
        assert_eq!(found, []);
    }
}

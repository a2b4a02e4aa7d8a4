//! `docs/configuration.md` and `experiments/experiment.schema.json` are made from the types of the configuration. To renew
//! them: `DEEPSIM_WRITE_DOCS=1 cargo test -p deepsim-experiment --test reference`.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;
use std::path::Path;

use deepsim_experiment::config::schema;
use serde_json::{Map, Value};

/// Tables in the order of the page; tables of one form stand together.
const TABLES: [&[&str]; 21] = [
    &[""],
    &["data"],
    &["encoder", "comparator"],
    &["latent"],
    &["generator"],
    &["discriminator"],
    &["adversary"],
    &["adversary.adaptive"],
    &["adversary.r1"],
    &["adversary.lecam"],
    &["adversary.augment"],
    &["vaegan"],
    &["diversity"],
    &["loss"],
    &["pixels"],
    &["optimizer"],
    &[
        "optimizer.generator",
        "optimizer.discriminator",
        "optimizer.encoder",
    ],
    &["schedule"],
    &["ema"],
    &["gate"],
    &["train"],
];

fn table<'a>(schema: &'a Value, path: &str) -> &'a Value {
    let keys = path.split('.').filter(|key| !key.is_empty());
    keys.fold(schema, |at, key| &at["properties"][key])
}

/// Dotted paths of all tables below one.
fn tables(at: &Value, path: &str, found: &mut Vec<String>) {
    found.push(path.to_owned());
    for (key, value) in at["properties"].as_object().unwrap() {
        if value["properties"].is_object() {
            let dot = if path.is_empty() { "" } else { "." };
            tables(value, &format!("{path}{dot}{key}"), found);
        }
    }
}

/// What a key's value is, in words.
fn kind(schema: &Map<String, Value>) -> String {
    if let Some(value) = schema.get("const") {
        return value.to_string();
    }
    for key in ["oneOf", "anyOf"] {
        if let Some(Value::Array(all)) = schema.get(key) {
            let all = all.iter().map(|one| kind(one.as_object().unwrap()));
            let mut kinds: Vec<String> = all.collect();
            kinds.dedup();
            return listed(&kinds);
        }
    }
    if let Some(Value::Array(values)) = schema.get("enum") {
        let values: Vec<String> = values.iter().map(Value::to_string).collect();
        return listed(&values);
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => "table".to_owned(),
        Some("integer") => "whole number".to_owned(),
        Some("boolean") => "true or false".to_owned(),
        Some("array") => format!("list of {}s", kind(schema["items"].as_object().unwrap())),
        Some(other) => other.to_owned(),
        None => panic!("what is {schema:?}?"),
    }
}

/// `a, b or c`
fn listed(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

fn description(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn page() -> String {
    let schema = schema::of_config();
    let mut page = String::from(
        "# Experiment files\n\nEvery key of an experiment file, made from the types in \
         `crates/deepsim-experiment/src/config/`. Keys that are marked optional may be left out.\n\n\
         `extends = \"FILE.toml\"`, at the top, takes everything from another file; then a file states only what it changes. \
         FILE is relative to the folder of the file that extends it, and must be complete itself. Tables are merged key \
         by key. An `[encoder]` or `[comparator]` that sets `net` replaces the whole section of the extended file: then \
         write every key. `[comparator.NAME]` sections replace a single `[comparator]`. A key of FILE can be changed, not removed. `deepsim-train EXPERIMENT.toml --print` prints the \
         complete result, and a run keeps it as its `experiment.toml`.\n\n\
         `[comparator]` is one network. Several have names, as `[comparator.NAME]` with the same keys, and the loss weighs \
         each: `loss.feat = { NAME = 0.01, OTHER = 0.002 }`, or `--set loss.feat.NAME=0.01`. Networks with the same weights \
         share a pass.\n\n\
         A section is needed only where its term weighs something: `[comparator]` where `loss.feat` is above 0; \
         `[discriminator]`, `optimizer.discriminator` and `[gate]` where `loss.adv` is, at first or in a `[[stage]]`.\n\n\
         `--set KEY=VALUE` overrides a key from the command line, such as `--set train.steps=100`.\n\n\
         Editors with support for TOML complete and check keys by `experiments/experiment.schema.json`, which the first \
         line of each experiment names.\n",
    );
    for paths in TABLES {
        let section = table(&schema, paths[0]);
        let names: Vec<String> = paths.iter().map(|path| format!("`[{path}]`")).collect();
        let title = if paths == [""] {
            "Top level".to_owned()
        } else {
            listed(&names).replace(" or ", " and ")
        };
        writeln!(page, "\n## {title}").unwrap();
        writeln!(page, "\n| key | value | |\n|---|---|---|").unwrap();
        let required = section["required"].as_array();
        let must =
            |key: &str| required.is_some_and(|all| all.iter().any(|one| one.as_str() == Some(key)));
        let keys = section["properties"].as_object().unwrap();
        let (first, last): (Vec<_>, Vec<_>) = keys.iter().partition(|(key, _)| must(key));
        for (key, value) in first.into_iter().chain(last) {
            let optional = if must(key) { "" } else { " (optional)" };
            let kind = kind(value.as_object().unwrap());
            writeln!(
                page,
                "| `{key}` | {kind}{optional} | {} |",
                description(value)
            )
            .unwrap();
        }
    }
    page
}

fn is_up_to_date(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(file);
    if std::env::var_os("DEEPSIM_WRITE_DOCS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == text,
        "{file} is not up to date; renew it: \
         DEEPSIM_WRITE_DOCS=1 cargo test -p deepsim-experiment --test reference"
    );
}

#[test]
fn the_reference_page_is_what_the_code_says() {
    is_up_to_date("docs/configuration.md", &page());
}

#[test]
fn the_reference_page_has_every_table() {
    let mut found = Vec::new();
    tables(&schema::of_config(), "", &mut found);
    let mut known: Vec<&str> = TABLES.iter().copied().flatten().copied().collect();
    known.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, known);
}

#[test]
fn the_schema_of_editors_is_what_the_code_says() {
    let text = serde_json::to_string_pretty(&schema::for_editors()).unwrap();
    is_up_to_date("experiments/experiment.schema.json", &format!("{text}\n"));
}

/// The schema knows every key that an experiment is written with, and says what is required as the reader does.
#[test]
fn the_schema_has_the_keys_of_a_resolved_experiment() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/quickstart.toml");
    let experiment = deepsim_experiment::Experiment::load(&file, &[]).unwrap();
    let written: toml::Table = experiment.to_toml().unwrap().parse().unwrap();
    let schema = schema::of_config();
    for (section, value) in &written {
        let known = &schema["properties"][section];
        assert!(known.is_object(), "{section}");
        for key in value.as_table().into_iter().flat_map(|table| table.keys()) {
            assert!(known["properties"][key].is_object(), "{section}.{key}");
        }
    }
    for key in schema["required"].as_array().unwrap() {
        let key = key.as_str().unwrap();
        let mut without = written.clone();
        without.remove(key);
        let text = toml::to_string(&without).unwrap();
        let error = deepsim_experiment::Experiment::parse(&text, Path::new("x.toml"), &[]);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(&format!("missing field `{key}`")), "{error}");
    }
}

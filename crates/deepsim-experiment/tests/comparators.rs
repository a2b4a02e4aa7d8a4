//! Comparators by name, and sections that a loss without their term leaves out.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use deepsim_experiment::fixed::Fixed;
use deepsim_experiment::{Experiment, ExperimentError, Perception};
use deepsim_nets::init::normal;
use deepsim_nets::loss::{Term, TermKind};
use tch::Device;

const NAMED: &str = "\
[comparator.deep]
net = \"alexnet\"
tap = \"pool5\"
weights = \"random:1\"

[comparator.early]
net = \"vgg16\"
tap = \"pool1\"
weights = \"random:2\"

";

fn quickstart() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/quickstart.toml");
    std::fs::read_to_string(file).unwrap()
}

/// A file without the lines from one section to the next.
fn without(text: &str, section: &str) -> String {
    let from = text.find(&format!("[{section}]\n")).unwrap();
    let to = text[from + 1..].find("\n[").unwrap();
    format!("{}{}", &text[..from], &text[from + to + 2..])
}

/// The quickstart with two comparators by name.
fn named() -> String {
    let text = without(&quickstart(), "comparator");
    let at = text.find("[generator]").unwrap();
    let text = format!("{}{NAMED}{}", &text[..at], &text[at..]);
    assert!(text.contains("feat = 0.06\n"), "{text}");
    text.replace("feat = 0.06\n", "feat = { deep = 0.01, early = 0.002 }\n")
}

fn parse(text: &str, sets: &[&str]) -> Result<Experiment, ExperimentError> {
    let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
    Experiment::parse(text, Path::new("x.toml"), &sets)
}

#[track_caller]
fn refused(text: &str, sets: &[&str], words: &[&str]) {
    let error = parse(text, sets).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

#[test]
fn comparators_by_name_have_weights_by_name() {
    let e = parse(&named(), &["loss.feat.deep=0.5"]).unwrap();
    let term = |name: &str| Term::named(TermKind::Feature, name);
    let weights = e.weights();
    assert_eq!(weights.get(&term("deep")), Some(&0.5));
    assert_eq!(weights.get(&term("early")), Some(&0.002));
    assert_eq!(weights.get(&Term::from(TermKind::Feature)), None);
    assert_eq!(e.config.loss.weight(TermKind::Feature), 0.502);
    assert_eq!(
        e.compared_in(ToString::to_string),
        "alexnet:pool5 + vgg16:pool1"
    );
    let tables: Vec<&str> = e.sources().map(|(table, _)| table).collect();
    assert_eq!(tables, ["encoder", "comparator.deep", "comparator.early"]);
    let again = parse(&e.to_toml().unwrap(), &[]).unwrap();
    assert_eq!(again.config, e.config);
    // One that weighs nothing takes no part.
    let one = parse(&named(), &["loss.feat.early=0"]).unwrap();
    assert_eq!(one.compared_in(ToString::to_string), "alexnet:pool5");
}

#[test]
fn a_single_comparator_stands_in_the_file_as_it_always_did() {
    let text = parse(&quickstart(), &[]).unwrap().to_toml().unwrap();
    assert!(
        text.contains("\n[comparator]\nnet = \"alexnet\"\n"),
        "{text}"
    );
    assert!(text.contains("\nfeat = 0.06\n"), "{text}");
}

#[test]
fn names_that_do_not_fit_are_refused() {
    let text = named();
    refused(
        &text,
        &["loss.feat=0.01"],
        &["comparator.deep", "no weight"],
    );
    refused(
        &text,
        &["loss.feat.late=0.01"],
        &["loss.feat.late", "[comparator.late]"],
    );
    refused(
        &quickstart(),
        &["loss.feat={ deep = 0.01 }"],
        &["loss.feat.deep", "a number"],
    );
    refused(&text, &["loss.feat.deep=-1"], &["loss.feat.deep"]);
    refused(&text, &["comparator.net=alexnet"], &["single comparator"]);
    refused(
        &text,
        &["comparator.deep.tap=pool9"],
        &["pool9", "did you mean", "pool5"],
    );
    refused(
        &text,
        &["comparator.deep.factor=2"],
        &["comparator.deep.factor", "means nothing"],
    );
    refused(&text, &["comparator.deep.tapp=pool1"], &["tapp"]);
    for misspelt in [
        "comparator.factr=2",
        "comparator.layer=pool5",
        "comparator.a=true",
    ] {
        let words = ["unknown field", "`factor`"];
        refused(&quickstart(), &[misspelt], &words);
    }
    let nett = quickstart().replace("[comparator]\nnet =", "[comparator]\nnett =");
    refused(&nett, &[], &["nett"]);
    refused(&text, &["loss.feat={}"], &["names no comparator"]);
    refused(&text, &["loss.adv=\"much\""], &["much", "f64"]);
    refused(&text, &["loss.feat=\"much\""], &["much", "f64"]);
    let odd = text.replace("comparator.deep", "comparator.\"a b\"");
    refused(
        &odd.replace("deep =", "\"a b\" ="),
        &[],
        &["a b", "letters"],
    );
}

#[test]
fn a_section_is_needed_only_where_its_term_weighs_something() {
    let whole = quickstart();
    for (section, key) in [
        ("comparator", "loss.feat"),
        ("discriminator", "loss.adv"),
        ("gate", "loss.adv"),
    ] {
        let text = without(&whole, section);
        let named = format!("`{section}`");
        refused(&text, &[], &[&named, "is missing", key]);
        let set = format!("{key}=0");
        let e = parse(&text, &[&set]).unwrap();
        assert!(!e.to_toml().unwrap().contains(&format!("[{section}]")));
    }
    let adam = whole
        .lines()
        .filter(|l| !l.starts_with("discriminator = {"));
    let text: String = adam.flat_map(|l| [l, "\n"]).collect();
    assert!(text.len() < whole.len());
    refused(&text, &[], &["optimizer.discriminator", "is missing"]);
    let e = parse(&text, &["loss.adv=0"]).unwrap();
    assert_eq!(e.trained_discriminator(), None);
}

/// What loading a file says that extends [`named`].
fn extended(own: &str) -> Result<Experiment, ExperimentError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("base.toml"), named()).unwrap();
    let file = folder.path().join("own.toml");
    std::fs::write(&file, format!("extends = \"base.toml\"\n{own}")).unwrap();
    Experiment::load(&file, &[])
}

#[test]
fn a_file_that_extends_named_comparators_changes_a_weight_and_a_tap() {
    let own =
        "name = \"own\"\n[loss]\nfeat = { deep = 0.5 }\n[comparator.early]\ntap = \"pool2\"\n";
    let found = extended(own).unwrap();
    let sets = [
        "name=own",
        "loss.feat.deep=0.5",
        "comparator.early.tap=pool2",
    ];
    assert_eq!(found.config, parse(&named(), &sets).unwrap().config);
    // What is not named stays.
    let weight = |name: &str| {
        *found
            .weights()
            .get(&Term::named(TermKind::Feature, name))
            .unwrap()
    };
    assert_eq!((weight("deep"), weight("early")), (0.5, 0.002));
    assert_eq!(
        found.compared_in(ToString::to_string),
        "alexnet:pool5 + vgg16:pool2"
    );
    assert_eq!(
        found.differences(&parse(&named(), &[]).unwrap().config),
        [
            "comparator.early.tap: there \"pool1\", here \"pool2\"",
            "loss.feat.deep: there 0.01, here 0.5",
        ]
    );
    // What a run keeps is complete.
    let kept = found.to_toml().unwrap();
    assert_eq!(parse(&kept, &[]).unwrap().config, found.config);
}

#[test]
fn a_file_that_extends_named_comparators_replaces_a_network_or_all_of_them() {
    // Another network brings its own keys: the base's weights are not its weights.
    let own = "name = \"own\"\n[comparator.early]\nnet = \"discriminator\"\ntap = \"Dconv4\"\n";
    let found = extended(own).unwrap();
    assert_eq!(
        found.compared_in(ToString::to_string),
        "alexnet:pool5 + discriminator:Dconv4"
    );
    // One more, with its weight.
    let late = "[comparator.late]\nnet = \"alexnet\"\ntap = \"pool1\"\nweights = \"random:3\"\n";
    let own = format!("name = \"own\"\n[loss]\nfeat = {{ late = 0.1 }}\n{late}");
    let found = extended(&own).unwrap();
    assert_eq!(found.comparators.len(), 3);
    // A single one instead.
    let single = late.replace(".late", "");
    let own = format!("name = \"own\"\n[loss]\nfeat = 0.1\n{single}");
    let found = extended(&own).unwrap();
    assert_eq!(found.compared_in(ToString::to_string), "alexnet:pool1");
    // What its own lines leave unmatched is said of them.
    for (own, words) in [
        (format!("name = \"own\"\n{late}"), "comparator.late"),
        (
            "name = \"own\"\n[loss]\nfeat = { late = 1.0 }\n".to_owned(),
            "loss.feat.late",
        ),
    ] {
        let error = extended(&own).unwrap_err().to_string();
        assert!(
            error.contains("own.toml: ") && error.contains(words),
            "{error}"
        );
    }
}

/// A run of an earlier version has sections that its loss does not use. Its file may lose them.
#[test]
fn sections_that_take_no_part_are_no_difference() {
    let of = |text: &str, sets: &[&str]| Fixed::of(&parse(text, sets).unwrap().config).unwrap();
    let whole = of(&quickstart(), &["loss.adv=0"]);
    let text = without(&without(&quickstart(), "discriminator"), "gate");
    let short = of(&text, &["loss.adv=0"]);
    assert_eq!(short.differences(&whole), [""; 0]);
    assert_eq!(whole.differences(&short), [""; 0]);
    let pixels = without(&quickstart(), "comparator");
    let pixels = of(&pixels, &["loss.feat=0"]);
    let before = of(&quickstart(), &["loss.feat=0"]);
    assert_eq!(pixels.differences(&before), [""; 0]);
    // Where it takes part, each key counts.
    let other = of(
        &quickstart(),
        &["gate.d_off_below=0.2", "comparator.tap=pool1"],
    );
    let keys: Vec<String> = other
        .differences(&of(&quickstart(), &[]))
        .iter()
        .map(|line| line.split(':').next().unwrap().to_owned())
        .collect();
    assert_eq!(keys, ["comparator.tap", "gate.d_off_below"]);
    let other = of(&named(), &["loss.feat.deep=0.5"]);
    assert_eq!(
        other.differences(&of(&named(), &[])),
        ["loss.feat.deep: there 0.01, here 0.5"]
    );
    // One that weighs nothing takes no part, whatever its tap.
    let idle = ["loss.feat.early=0", "comparator.early.tap=pool2"];
    let idle = of(&named(), &idle);
    let before = of(&named(), &["loss.feat.early=0"]);
    assert_eq!(idle.differences(&before), [""; 0]);
    // Weights lie somewhere; digests tell whether they are the same.
    let moved = of(&named(), &["comparator.deep.weights=a.safetensors"]);
    let there = of(&named(), &["comparator.deep.weights=b.safetensors"]);
    assert_eq!(moved.differences(&there), [""; 0]);
}

const TAPS: &str = "\
[comparator]
net = \"alexnet\"
weights = \"random:1\"
distance = \"unit\"
taps = { relu1 = 0.5, pool2 = 2.0 }

";

/// The quickstart with another `[comparator]`.
fn with(section: &str) -> String {
    let text = without(&quickstart(), "comparator");
    let at = text.find("[generator]").unwrap();
    format!("{}{section}{}", &text[..at], &text[at..])
}

#[test]
fn several_taps_have_weights_and_a_distance() {
    let e = parse(&with(TAPS), &[]).unwrap();
    let name = e.compared_in(ToString::to_string);
    assert_eq!(name, "alexnet:pool2,relu1 (unit)");
    let kept = e.to_toml().unwrap();
    assert_eq!(parse(&kept, &[]).unwrap().config, e.config, "{kept}");
    for (set, words) in [
        ("comparator.taps.relu1=0", ["taps.relu1", "above 0"]),
        ("comparator.taps.relu9=1", ["taps.relu9", "relu9"]),
        ("comparator.tap=relu1", ["comparator.taps", "beside tap"]),
        ("comparator.distance=cubic", ["distance", "cubic"]),
        ("comparator.heads=x", ["comparator.heads", "means nothing"]),
        (
            "encoder.distance=unit",
            ["encoder.distance", "means nothing"],
        ),
    ] {
        refused(&with(TAPS), &[set], &words);
    }
    let empty = TAPS.replace("relu1 = 0.5, pool2 = 2.0", "");
    refused(&with(&empty), &[], &["comparator.taps", "no layer"]);
    // Each weight is what a run keeps; a file without a distance has the paper's.
    let of = |text: &str, sets: &[&str]| Fixed::of(&parse(text, sets).unwrap().config).unwrap();
    let other = of(&with(TAPS), &["comparator.taps.relu1=0.25"]);
    assert_eq!(
        other.differences(&of(&with(TAPS), &[])),
        ["comparator.taps.relu1: there 0.5, here 0.25"]
    );
    let squared = of(&quickstart(), &["comparator.distance=squared"]);
    assert_eq!(squared.differences(&of(&quickstart(), &[])), [""; 0]);
    let idle = ["loss.feat=0", "comparator.taps.relu1=0.25"];
    let before = of(&with(TAPS), &["loss.feat=0"]);
    assert_eq!(of(&with(TAPS), &idle).differences(&before), [""; 0]);
}

#[test]
fn the_distance_of_several_taps_is_the_sum_of_theirs() {
    let sum = distance_in(TAPS);
    let one = |tap: &str| {
        let taps = "taps = { relu1 = 0.5, pool2 = 2.0 }";
        distance_in(&TAPS.replace(taps, &format!("tap = \"{tap}\"")))
    };
    let expected = 0.5 * one("relu1") + 2.0 * one("pool2");
    assert!(expected > 0.0);
    assert!((sum - expected).abs() < 1e-5 * expected, "{sum} {expected}");
}

/// How far two images of noise are apart in a comparator.
fn distance_in(section: &str) -> f64 {
    let e = parse(&with(section), &["encoder.weights=random:1"]).unwrap();
    let perception = Perception::load(&e, Device::Cpu).unwrap();
    let noise = |seed| normal("x", &[2, 3, 128, 128], 60.0, seed).unwrap();
    let found = perception.compare(&noise(1)).unwrap();
    let target = perception.compare(&noise(2)).unwrap();
    let term = Term::from(TermKind::Feature);
    let (found, target) = (found.get(&term).unwrap(), target.get(&term).unwrap());
    let apart = perception.distance(&term, found, target, e.config.loss.reduction);
    apart.unwrap().double_value(&[])
}

#[test]
fn metrics_are_comparators_with_two_files() {
    let dists =
        "[comparator]\nnet = \"dists\"\nweights = \"w.safetensors\"\nheads = \"h.safetensors\"\n\n";
    let e = parse(&with(dists), &[]).unwrap();
    assert_eq!(e.compared_in(ToString::to_string), "dists");
    let source = &e.compared().next().unwrap().source;
    assert!(source.network().is_none());
    assert_eq!(source.trunk().unwrap().net.to_string(), "vgg16");
    let message = e.check_inputs().unwrap_err().to_string();
    for word in [
        "comparator.weights",
        "w.safetensors",
        "comparator.heads",
        "h.safetensors",
        "--only judges",
    ] {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
    let set = "comparator.tap=pool1";
    refused(&with(dists), &[set], &["comparator.tap", "means nothing"]);
    let bare = dists.replace("heads = \"h.safetensors\"\n", "");
    refused(&with(&bare), &[], &["comparator.heads", "is missing"]);
    let encoder = "encoder={net=\"dists\",weights=\"random:1\"}";
    refused(&quickstart(), &[encoder], &["encoder.net", "a metric"]);
}

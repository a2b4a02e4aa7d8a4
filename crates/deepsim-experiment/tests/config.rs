//! Experiment files: what is accepted, what is refused, and where errors point.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod parsing;

use std::path::Path;

use deepsim_experiment::config;
use deepsim_experiment::{Experiment, ExperimentError};
use deepsim_nets::FeatureShape;
use deepsim_nets::loss::{Term, TermKind};
use parsing::{message, parse, quickstart};

#[test]
fn every_committed_experiment_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    let mut seen = 0;
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "toml") {
                Experiment::load(&path, &[]).unwrap();
                seen += 1;
            }
        }
    }
    assert!(seen >= 67, "{seen}");
}

#[test]
fn the_paper_s_experiments_invert_the_paper_s_layers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    for (name, shape) in [
        (
            "conv5",
            FeatureShape::Map {
                channels: 256,
                size: 6,
            },
        ),
        ("fc6", FeatureShape::Vector(4096)),
        ("fc7", FeatureShape::Vector(4096)),
        ("fc8", FeatureShape::Vector(1000)),
    ] {
        let e = Experiment::load(&folder.join(format!("{name}.toml")), &[]).unwrap();
        assert_eq!(e.features, shape);
        assert_eq!((e.config.train.batch_size, e.config.data.crop), (64, 227));
        assert_eq!(
            (
                e.config.loss.weight(TermKind::Feature),
                e.config.loss.weight(TermKind::Adversarial),
                e.config.loss.weight(TermKind::Image)
            ),
            (0.01, 100.0, 2e-6)
        );
    }
}

#[test]
fn the_resolved_file_says_the_same() {
    let e = parse(
        &quickstart(),
        &["train.steps=7", "encoder.weights=random:3"],
    )
    .unwrap();
    let again = parse(&e.to_toml().unwrap(), &[]).unwrap();
    assert_eq!(again.config, e.config);
    assert!(e.to_toml().unwrap().contains("--set train.steps=7"));
    assert_eq!(e.config.train.steps, 7);
}

#[test]
fn photos_that_may_only_be_measured_on_are_neither_trained_nor_judged_on() {
    for key in ["data.train", "data.test"] {
        let text = message(&quickstart(), &[&format!("{key}=data/labelled/test")]);
        assert!(text.contains(key), "{text}");
        assert!(text.contains("table2 --data data/labelled/test"), "{text}");
    }
}

#[test]
fn unknown_and_mistyped_keys_are_located() {
    let unknown = quickstart().replace("crop = 128", "crop = 128\ncropp = 3");
    let text = message(&unknown, &[]);
    assert!(text.contains("cropp") && text.contains("line "), "{text}");
    let mistyped = quickstart().replace("batch_size = 8", "batch_size = \"eight\"");
    let text = message(&mistyped, &[]);
    assert!(
        text.contains("batch_size = \"eight\"") && text.contains("line "),
        "{text}"
    );
    let text = message(
        &quickstart().replace("tap = \"pool2\"", "tap = \"pool9\""),
        &[],
    );
    assert!(
        text.contains("pool9") && text.contains("did you mean `pool"),
        "{text}"
    );
}

/// What loading a file says that extends `base.toml`, each of these texts.
fn extended(base: &str, own: &str) -> Result<Experiment, ExperimentError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("below")).unwrap();
    std::fs::write(folder.path().join("base.toml"), base).unwrap();
    let file = folder.path().join("below/own.toml");
    let own = format!("extends = \"../base.toml\"\n{own}");
    std::fs::write(&file, own).unwrap();
    Experiment::load(&file, &[])
}

#[test]
fn a_file_that_extends_another_says_what_it_changes() {
    let whole = quickstart();
    let own = "name = \"own\"\n[loss]\nimg = 0.0\n[optimizer]\ngenerator.lr = 1e-3\n\
               [comparator]\nnet = \"discriminator\"\ntap = \"Dconv4\"\n";
    let mut wanted = parse(&whole, &["name=own", "loss.img=0"]).unwrap().config;
    wanted.optimizer.generator.lr = 1e-3;
    let found = extended(&whole, own).unwrap();
    // Another network brings its own keys: of the base's section nothing is left.
    assert!(found.config.comparator.only().unwrap().weights.is_none());
    wanted.comparator = found.config.comparator.clone();
    assert_eq!(found.config, wanted);
    // What a run keeps is complete.
    let kept = found.to_toml().unwrap();
    assert!(!kept.contains("extends"), "{kept}");
    assert_eq!(parse(&kept, &[]).unwrap().config, found.config);
}

#[test]
fn a_term_that_may_be_left_out_is_the_same_at_weight_zero() {
    let without = parse(&quickstart(), &[]).unwrap();
    let zero = parse(&quickstart(), &["loss.tv=0"]).unwrap();
    assert_eq!(zero.config, without.config);
    let smooth = parse(&quickstart(), &["loss.tv=0.5"]).unwrap();
    assert_eq!(
        smooth.differences(&without.config),
        ["loss.tv: there 0.0, here 0.5"]
    );
    let kept = smooth.to_toml().unwrap();
    assert_eq!(parse(&kept, &[]).unwrap().config, smooth.config);
    assert!(message(&quickstart(), &["loss.tv=-1"]).contains("`loss.tv`"));
    let gan = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/vaegan/gan.toml");
    let error = Experiment::load(&gan, &["loss.tv=1".to_owned()]).unwrap_err();
    assert!(error.to_string().contains("`loss.tv` must be 0"), "{error}");
}

#[test]
fn errors_are_located_in_the_file_that_has_the_fault() {
    let whole = quickstart();
    for (from, to, words) in [
        (
            "steps = 1950",
            "steps = \"many\"",
            ["steps = \"many\"", "line "],
        ),
        ("steps = 1950", "stepss = 1950", ["stepss", "line "]),
        ("feat = 0.06", "feat = -1.0", ["`loss.feat`", "-1"]),
        ("tap = \"pool2\"\n", "", ["`encoder.tap`", "is missing"]),
        (
            "name = ",
            "extends = \"x.toml\"\nname = ",
            ["`extends`", "one level"],
        ),
    ] {
        let base = whole.replace(from, to);
        assert_ne!(base, whole);
        let text = extended(&base, "name = \"own\"\n").unwrap_err().to_string();
        for word in words.into_iter().chain(["base.toml: "]) {
            assert!(text.contains(word), "no {word} in {text}");
        }
    }
    for (own, words) in [
        ("nam = \"own\"\n", ["line 2: ", "`nam`"]),
        (
            "[train]\nseed = 1\nsteps = \"many\"\n",
            ["line 4: ", "train.steps"],
        ),
        ("[train]\nseed = 1\nstepss = 1\n", ["line 4: ", "`steps`?"]),
        ("[loss]\nfeat = -1.0\n", ["`loss.feat`", "-1"]),
        ("[train\n", ["line 2, column 7", "unclosed table"]),
    ] {
        let text = extended(&whole, own).unwrap_err().to_string();
        for word in words.into_iter().chain(["below/own.toml: "]) {
            assert!(text.contains(word), "no {word} in {text}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.toml");
    std::fs::write(&copy, "extends = \"base.toml\"\nname = \"copy\"\n").unwrap();
    let text = Experiment::load(&copy, &[]).unwrap_err().to_string();
    for word in ["copy.toml: `extends`", "base.toml", "this file's folder"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
}

/// Numbers that TOML's parser takes and its writer refuses would make all experiments alike to a resume.
#[test]
fn numbers_above_those_of_toml_are_refused() {
    for (key, word) in [("seed", "train.seed"), ("steps", "9223372036854775807")] {
        let lines = quickstart();
        let line = lines
            .lines()
            .find(|line| line.starts_with(&format!("{key} = ")))
            .unwrap();
        let text = lines.replace(line, &format!("{key} = 18446744073709551615"));
        let message = message(&text, &[]);
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn impossible_values_name_their_key() {
    for (set, key) in [
        ("train.batch_size=0", "train.batch_size"),
        ("data.crop=20", "encoder"),
        ("data.crop=40", "comparator"),
        ("data.crop=300", "generator"),
        ("data.scale=[0.9, 0.5]", "data.scale"),
        ("loss.feat=-1", "loss.feat"),
        ("loss.kl=1", "loss.kl"),
        ("optimizer.generator.lr=0", "optimizer.generator.lr"),
        (
            "optimizer.discriminator.beta1=1",
            "optimizer.discriminator.beta1",
        ),
        ("gate.d_off_below=0.7", "gate"),
        ("encoder.weights=random:x", "encoder.weights"),
        ("encoder.tap=norm1", "encoder"),
        ("name=../up", "name"),
        ("schedule.halve_at=[5, 3]", "schedule.halve_at"),
        ("generator.width=0", "generator"),
        ("generator.weights=", "generator.weights"),
        ("discriminator.weights=", "discriminator.weights"),
        ("optimizer.generator.clip=0", "optimizer.generator.clip"),
        ("schedule.decay=cosine", "schedule.until"),
        ("schedule.until=5", "schedule.until"),
        ("schedule.min=0.1", "schedule.min"),
        ("schedule.min=2", "schedule.min"),
        ("ema.decay=1", "ema.decay"),
        ("stage=[{from=0,loss={img=1.0}}]", "stage.from"),
        (
            "stage=[{from=5,loss={img=1.0}},{from=5,loss={img=2.0}}]",
            "stage.from",
        ),
        (
            "stage=[{from=5,loss={img=1.0}},{from=4,loss={img=2.0}}]",
            "stage.from",
        ),
        ("stage=[{from=5,loss={}}]", "stage.loss"),
        ("stage=[{from=5,loss={nothing=1}}]", "stage.loss.nothing"),
        (
            "stage=[{from=5,loss={diversity=1}}]",
            "stage.loss.diversity",
        ),
        ("stage=[{from=5,loss={img=-1}}]", "stage.loss.img"),
        ("stage=[{from=5,loss={feat=0,adv=0,img=0}}]", "stage.loss"),
        (
            "stage=[{from=5,loss={feat={deep=1}}}]",
            "stage.loss.feat.deep",
        ),
        ("stage=[{from=5,loss={kl=1}}]", "loss.kl"),
    ] {
        let text = message(&quickstart(), &[set]);
        assert!(text.contains(&format!("`{key}`")), "{set}: {text}");
    }
}

/// A term that weighs something in a later stage alone needs what it needs from the beginning.
#[test]
fn a_stage_needs_the_sections_of_its_terms() {
    let text = quickstart();
    let without = |section: &str| {
        let from = text.find(&format!("[{section}]")).unwrap();
        let to = from + 1 + text[from + 1..].find("\n[").unwrap();
        format!("{}{}", &text[..from], &text[to..])
    };
    for (term, section) in [("adv", "discriminator"), ("feat", "comparator")] {
        let (off, stage) = (
            format!("loss.{term}=0"),
            format!("stage=[{{from=9,loss={{{term}=1}}}}]"),
        );
        let incomplete = without(section);
        parse(&incomplete, &[&off]).unwrap();
        let said = message(&incomplete, &[&off, &stage]);
        assert!(said.contains(&format!("`{section}` is missing")), "{said}");
        // With it, it takes part.
        let staged = parse(&text, &[&off, &stage]).unwrap();
        assert!(staged.trained_discriminator().is_some());
        assert_eq!(staged.compared().count(), 1);
        let stages = staged.stages();
        let [(from, weights)] = stages.as_slice() else {
            panic!("one stage");
        };
        let kind = Term::of_key(term).unwrap().kind();
        assert_eq!((*from, weights.weight(kind)), (9, 1.0));
        assert_eq!(staged.weights().weight(kind), 0.0);
    }
    let all = |experiment: &Experiment| experiment.to_toml().unwrap();
    let staged = parse(&text, &["stage=[{from=9,loss={adv=1.5}}]"]).unwrap();
    let again = parse(&all(&staged), &[]).unwrap();
    assert_eq!(again.config, staged.config);
    // Nothing is written of what is not there.
    assert!(!all(&parse(&text, &[]).unwrap()).contains("stage"));
}

/// The other sources of features have keys of their own, and none of a network's.
#[test]
fn sources_of_features_have_their_own_keys() {
    let comparator = |lines: &str| {
        let text = quickstart();
        let from = text.find("[comparator]").unwrap();
        let to = text.find("[generator]").unwrap();
        format!("{}[comparator]\n{lines}\n{}", &text[..from], &text[to..])
    };
    let judged = comparator("net = \"discriminator\"\ntap = \"Dconv4\"");
    let e = parse(&judged, &[]).unwrap();
    assert_eq!(e.compared_in(ToString::to_string), "discriminator:Dconv4");
    let again = parse(&e.to_toml().unwrap(), &[]).unwrap();
    assert_eq!(again.config, e.config);
    for (set, words) in [
        (
            "comparator.weights=random:1",
            ["comparator.weights", "an earlier run"],
        ),
        ("comparator.tap=pool5", ["comparator.tap", "discriminator"]),
        ("comparator.tap=Dfc6", ["Dfc6", "Dpool5"]),
        ("loss.adv=0", ["comparator.net", "never learns"]),
        ("data.crop=64", ["comparator.tap", "Dconv5"]),
        ("encoder.net=discriminator", ["encoder", "comparator"]),
        ("encoder.net=alexnett", ["alexnett", "torchscript"]),
        ("encoder.shape=[3]", ["encoder.shape", "means nothing"]),
    ] {
        let five = judged.replace("Dconv4", "Dconv5");
        let text = message(if set.contains("crop") { &five } else { &judged }, &[set]);
        assert!(words.iter().all(|w| text.contains(w)), "{set}: {text}");
    }
    let script = comparator(
        "net = \"torchscript\"\ntap = \"output.1\"\nweights = \"m.pt\"\nunits = \"rgb-imagenet\"\n\
         trust_code = true",
    );
    let e = parse(&script, &[]).unwrap();
    assert_eq!(e.compared_in(ToString::to_string), "torchscript:output.1");
    assert_eq!(parse(&e.to_toml().unwrap(), &[]).unwrap().config, e.config);
    let text = message(&script, &["comparator.trust_code=false"]);
    assert!(
        text.contains("comparator.trust_code") && text.contains("--trust-code"),
        "{text}"
    );
    let text = message(&script, &["comparator.units=rgb"]);
    assert!(text.contains("bgr-caffe"), "{text}");
}

#[test]
fn only_what_changes_the_run_counts_as_another_experiment() {
    let a = parse(&quickstart(), &[]).unwrap();
    let same = parse(
        &quickstart(),
        &["train.steps=9999", "train.threads=1", "train.log_every=3"],
    )
    .unwrap();
    assert!(a.differences(&same.config).is_empty());
    let other = parse(&quickstart(), &["train.seed=2", "loss.adv=5"]).unwrap();
    let text = a.differences(&other.config).join("; ");
    assert!(
        text.contains("train.seed: there 2, here 1") && text.contains("loss.adv"),
        "{text}"
    );
}

/// Another number of micro-batches changes nothing but rounding: a run may go on with it.
#[test]
fn micro_batches_are_one_unless_said_otherwise_and_may_change() {
    let whole = parse(&quickstart(), &[]).unwrap();
    assert_eq!(whole.config.train.accumulate, 1);
    let split = parse(&quickstart(), &["train.accumulate=3"]).unwrap();
    assert!(split.differences(&whole.config).is_empty());
    let batch = whole.config.train.batch_size;
    for (number, words) in [
        (0, "train.accumulate".to_owned()),
        (
            batch + 1,
            format!("must be at most train.batch_size ({batch})"),
        ),
    ] {
        let text = message(&quickstart(), &[&format!("train.accumulate={number}")]);
        assert!(text.contains(&words), "{text}");
    }
    let normalised = ["discriminator.architecture=larsen", "train.accumulate=2"];
    let text = message(&quickstart(), &normalised);
    assert!(
        text.contains("`train.accumulate` must be 1 here: batch normalisation"),
        "{text}"
    );
}

/// A key that came later than the first runs: left out it means what they did, and a run that has
/// begun keeps it.
#[test]
fn the_discriminator_s_passes_are_the_paper_s_unless_said_otherwise() {
    let paper = parse(&quickstart(), &[]).unwrap();
    assert_eq!(
        paper.config.train.discriminator_passes,
        config::DiscriminatorPasses::Paper
    );
    let resolved = paper.to_toml().unwrap();
    assert!(
        resolved.contains("discriminator_passes = \"paper\""),
        "{resolved}"
    );
    let one = parse(&quickstart(), &["train.discriminator_passes=one"]).unwrap();
    assert_eq!(
        one.config.train.discriminator_passes,
        config::DiscriminatorPasses::One
    );
    assert_eq!(
        one.differences(&paper.config),
        ["train.discriminator_passes: there \"paper\", here \"one\""]
    );
    let written = quickstart().replace(
        "batch_size = 8",
        "discriminator_passes = \"one\"\nbatch_size = 8",
    );
    assert_eq!(parse(&written, &[]).unwrap().config, one.config);

    let text = message(&quickstart(), &["train.discriminator_passes=two"]);
    assert!(text.contains("paper") && text.contains("one"), "{text}");
    let text = message(&quickstart(), &["train.discriminator_passses=one"]);
    assert!(text.contains("discriminator_passses"), "{text}");
}

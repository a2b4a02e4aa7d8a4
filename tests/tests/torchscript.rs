//! TorchScript modules, made by PyTorch, as encoder and comparator: the same values and gradients
//! as in PyTorch, frozen, and refused with a reason where they are no feature networks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use deepsim_experiment::Consent;
use deepsim_experiment::config::{OutputTap, Units};
use deepsim_experiment::hash::hash_file;
use deepsim_experiment::networks;
use deepsim_experiment::source::{Features, ScriptSource, Source};
use deepsim_nets::images::rgb_to_caffe;
use deepsim_nets::params::read_safetensors;
use deepsim_tests::files::{self, column, tensors};
use deepsim_tests::lab::Lab;
use deepsim_tests::process::{Ran, python_file, run};
use tch::{Device, Kind, Tensor};

/// Modules of `tests/python/scripts.py`, made once: most of the time PyTorch is imported.
fn made() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        // Nothing removes what a static holds: the same place each time.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("torchscript-modules");
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        fs::create_dir_all(&folder).unwrap();
        let mut command = python_file("scripts.py");
        command.arg(&folder).env("PYTHONDONTWRITEBYTECODE", "1");
        run(&mut command).exits(0);
        folder
    };
    MADE.get_or_init(make)
}

/// The modules in a folder of a test's own, and what PyTorch computes with them.
fn modules(folder: &Path) -> BTreeMap<String, Tensor> {
    for entry in fs::read_dir(made()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    read_safetensors(&folder.join("parity.safetensors")).unwrap()
}

fn load(folder: &Path, name: &str, output: Option<&str>, units: Units) -> Box<dyn Features> {
    let source = Source::Script(ScriptSource {
        file: folder.join(format!("{name}.pt")),
        output: OutputTap(output.map(str::to_owned)),
        units,
        shape: None,
    });
    let consent = Consent::new(Some(&[]), []);
    networks::open("encoder", &source, &consent.at_first(folder), Device::Cpu).unwrap()
}

#[track_caller]
fn close(found: &Tensor, wanted: &Tensor, tolerance: f64) {
    assert_eq!(found.size(), wanted.size());
    let error = (found - wanted).norm().double_value(&[]) / wanted.norm().double_value(&[]);
    assert!(error <= tolerance, "{error:.1e}");
}

#[test]
fn values_and_gradients_are_pytorch_s_in_all_units() {
    let folder = tempfile::tempdir().unwrap();
    let r = modules(folder.path());
    for (name, units) in [
        ("rgb-0-255", Units::Rgb255),
        ("rgb-0-1", Units::Rgb1),
        ("rgb-imagenet", Units::RgbImagenet),
        ("bgr-caffe", Units::BgrCaffe),
    ] {
        let net = load(folder.path(), name, None, units);
        let rgb = r["rgb"].copy().set_requires_grad(true);
        let y = net.features(&rgb_to_caffe(&rgb).unwrap()).unwrap();
        close(&y, &r[&format!("y/{name}")], 1e-5);
        (&y * &r["up"]).sum(Kind::Float).backward();
        close(&rgb.grad(), &r[&format!("gx/{name}")], 1e-4);
    }
    // Other units are another network: a comparison that passes everywhere would show nothing.
    let wrong = load(folder.path(), "rgb-0-1", None, Units::BgrCaffe);
    let y = wrong.features(&rgb_to_caffe(&r["rgb"]).unwrap()).unwrap();
    let off = (&y - &r["y/rgb-0-1"]).norm() / r["y/rgb-0-1"].norm();
    assert!(off.double_value(&[]) > 0.1);
}

#[test]
fn modules_are_frozen_and_parts_of_their_output_can_be_taken() {
    let folder = tempfile::tempdir().unwrap();
    let r = modules(folder.path());
    let x = rgb_to_caffe(&r["rgb"]).unwrap();
    let y = |name, output| {
        load(folder.path(), name, output, Units::Rgb1)
            .features(&x)
            .unwrap()
    };
    let wanted = &r["y/traced"];
    // No dropout, running statistics: a module saved in training mode is set to evaluation.
    for name in ["traced", "training"] {
        close(&y(name, None), wanted, 1e-5);
        assert!(
            !y(name, None).requires_grad(),
            "{name}: parameters ask for gradients"
        );
    }
    let pooled = wanted.mean_dim([2i64, 3].as_slice(), false, Kind::Float);
    close(&y("parts", Some("0")), wanted, 1e-5);
    close(&y("parts", Some("1")), &pooled, 1e-5);
    close(&y("named", Some("map")), wanted, 1e-5);
    close(&y("named", Some("pooled")), &pooled, 1e-5);
    // Tokens become the map that they are, without those in front of it.
    for name in ["tokens0", "tokens1", "tokens5"] {
        close(&y(name, None), wanted, 1e-5);
    }
}

/// Both sides of the tiny experiment by a module.
fn experiment(lab: &Lab, encoder: &str, comparator: &str) {
    let text = lab.toml();
    let side = |name: &str, lines: &str| {
        format!(
            "[{name}]\nnet = \"torchscript\"\n{lines}\nunits = \"rgb-0-1\"\ntrust_code = true\n"
        )
    };
    let old = |name: &str, tap: &str| {
        format!("[{name}]\nnet = \"alexnet\"\ntap = \"{tap}\"\nweights = \"random:1\"\n")
    };
    let (e, c) = (old("encoder", "pool2"), old("comparator", "relu3"));
    assert!(text.contains(&e) && text.contains(&c));
    let text = text
        .replace(&e, &side("encoder", encoder))
        .replace(&c, &side("comparator", comparator));
    fs::write(lab.experiment(), text).unwrap();
}

const NAMED: &str = "tap = \"output.pooled\"\nweights = \"named.pt\"\nshape = [8]";
const TRACED: &str = "tap = \"output\"\nweights = \"traced.pt\"";

#[test]
fn a_generator_is_trained_with_modules_on_both_sides_and_continued_bit_for_bit() {
    let lab = Lab::new();
    modules(lab.path());
    experiment(&lab, NAMED, TRACED);
    for precision in ["fp32", "bf16"] {
        let sets = format!("--set train.precision={precision} --trust-code");
        let train = |out: &str, rest: &str| {
            lab.train_into(&format!("{precision}-{out}"), &format!("{sets} {rest}"))
                .exits(0)
        };
        train("whole", "--steps 4").says(&["torchscript:output.pooled", "torchscript:output"]);
        train("cut", "--steps 2");
        train("cut", "--steps 4 --resume");
        let (whole, cut) = (
            lab.at(&format!("{precision}-whole")),
            lab.at(&format!("{precision}-cut")),
        );
        assert_eq!(tensors(&cut, 4), tensors(&whole, 4));
        for key in ["loss.feat", "eval.feature_error"] {
            let values = column(&whole, key);
            assert!(
                values.iter().all(|v| v.as_f64().unwrap() > 0.0),
                "{key}: {values:?}"
            );
        }
    }
    lab.eval("invert test/12.jpg --run fp32-whole --trust-code")
        .exits(0);
    let csv = lab
        .eval("table2 --runs fp32-whole --format csv --trust-code")
        .prints();
    assert!(
        csv.lines()
            .nth(1)
            .unwrap()
            .contains("torchscript:output.pooled"),
        "{csv}"
    );

    // Another module in its place is noticed.
    fs::copy(lab.at("parts.pt"), lab.at("traced.pt")).unwrap();
    let resume = "--steps 6 --resume --trust-code";
    lab.train_into("fp32-whole", resume).exits(2);
    fs::copy(lab.at("training.pt"), lab.at("traced.pt")).unwrap();
    lab.train_into("fp32-whole", resume)
        .refuses(&["comparator.weights", "changed"]);
}

#[test]
fn modules_that_are_no_feature_networks_are_refused_before_anything_is_written() {
    let lab = Lab::new();
    modules(lab.path());
    fs::write(lab.at("junk.pt"), b"PK\x03\x04 no module").unwrap();
    for (file, tap, words) in [
        ("three", "output", ["61 tokens", "7x7"]),
        ("batch", "output", ["it got 2 images", "[1, 6]"]),
        ("fixed", "output", ["batch of 1", "it got 1 images"]),
        (
            "fixed4",
            "output",
            ["it got 2 images", "traced for one batch size"],
        ),
        (
            "dropping",
            "output",
            ["from one pass to the next", "net.eval()"],
        ),
        (
            "norm",
            "output",
            ["other images of its batch", "net.eval()"],
        ),
        (
            "weights",
            "output",
            [
                "holds weights only",
                "torch.jit.save(torch.jit.trace(net, x)",
            ],
        ),
        (
            "old-weights",
            "output",
            [
                "holds weights only",
                "torch.jit.save(torch.jit.trace(net, x)",
            ],
        ),
        ("integers", "output", ["Int64", "floating-point"]),
        ("nan", "output", ["NaN", "infinity"]),
        ("detached", "output", ["gradients", "comparator"]),
        (
            "fails",
            "output",
            ["RuntimeError", "this module always fails"],
        ),
        ("parts", "output", ["a tuple", "\"output.0\", \"output.1\""]),
        (
            "named",
            "output",
            ["a dictionary", "\"output.map\", \"output.pooled\""],
        ),
        ("parts", "output.2", ["2 values", "output.1"]),
        ("named", "output.nothing", ["`nothing`", "map, pooled"]),
        ("traced", "output.0", ["a tensor", "`output`"]),
        ("junk", "output", ["TorchScript module", "junk.pt"]),
    ] {
        let lines = format!("tap = \"{tap}\"\nweights = \"{file}.pt\"");
        experiment(&lab, NAMED, &lines);
        let ran = lab.train("--trust-code").refuses(&words);
        assert!(ran.stderr.contains(&format!("{file}.pt")), "{}", ran.stderr);
        assert!(ran.stderr.lines().count() <= 2, "{}", ran.stderr);
        assert!(!lab.run_dir().exists());
    }
    // A detached encoder is one that serves.
    experiment(
        &lab,
        "tap = \"output\"\nweights = \"detached.pt\"\nshape = [3]",
        TRACED,
    );
    lab.train("--steps 1 --trust-code").exits(0);
    experiment(
        &lab,
        "tap = \"output\"\nweights = \"traced.pt\"\nshape = [8]",
        TRACED,
    );
    lab.train_into("other", "--trust-code")
        .refuses(&["encoder.shape says [8]", "[8, 14, 14]"]);
}

#[test]
fn a_module_that_works_in_place_or_keeps_its_output_changes_nothing_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let r = modules(folder.path());
    let x = rgb_to_caffe(&r["rgb"]).unwrap();
    for units in [
        Units::BgrCaffe,
        Units::Rgb255,
        Units::Rgb1,
        Units::RgbImagenet,
    ] {
        let before = x.copy();
        let _ = load(folder.path(), "inplace", None, units)
            .features(&x)
            .unwrap();
        assert_eq!(x, before, "{units:?}: the images were overwritten");
    }
    // The same memory at each call: features of the first images must outlive the second.
    let net = load(folder.path(), "kept", None, Units::BgrCaffe);
    let first = net.features(&x).unwrap();
    let values = first.copy();
    let _ = net.features(&(&x * 2.0)).unwrap();
    assert_eq!(first, values, "features were overwritten by the next call");
    // Gradients pass through what works in place.
    let net = load(folder.path(), "inplace", None, Units::BgrCaffe);
    let leaf = x.copy().set_requires_grad(true);
    net.features(&leaf).unwrap().sum(Kind::Float).backward();
    let wanted = (x * 2.0).abs().le(300.0).to_kind(Kind::Float) * (2.0 / 64.0);
    close(&leaf.grad(), &wanted, 1e-6);
}

#[test]
fn features_of_every_floating_type_become_single_precision() {
    let folder = tempfile::tempdir().unwrap();
    let r = modules(folder.path());
    let x = rgb_to_caffe(&r["rgb"]).unwrap();
    let wanted = x.avg_pool2d([8, 8], [8, 8], [0, 0], false, true, None::<i64>);
    for (name, tolerance) in [("double", 1e-6), ("half", 1e-3), ("bfloat16", 1e-2)] {
        let y = load(folder.path(), name, None, Units::BgrCaffe)
            .features(&x)
            .unwrap();
        assert_eq!(y.kind(), Kind::Float, "{name}");
        close(&y, &wanted, tolerance);
    }
    // And such modules train.
    let lab = Lab::new();
    modules(lab.path());
    experiment(
        &lab,
        "tap = \"output\"\nweights = \"half.pt\"\nshape = [3, 8, 8]",
        "tap = \"output\"\nweights = \"bfloat16.pt\"",
    );
    lab.train("--steps 1 --trust-code").exits(0);
}

/// What a module prints when it is loaded or called.
const WITNESS: &str = "THE MODULE RUNS";

/// Refused, and no module was heard.
#[track_caller]
fn unheard(ran: Ran) -> Ran {
    assert!(!ran.stderr.contains(WITNESS), "{}", ran.stderr);
    ran
}

/// What a module prints and warns of is on stderr, escaped; stdout is for results.
#[track_caller]
fn heard(ran: Ran) -> Ran {
    let ran = ran.exits(0).says(&[
        &format!("TorchScript module: {WITNESS} \\u{{1b}}[31mred"),
        "libtorch: THE MODULE WARNS \\u{1b}[31mred",
    ]);
    assert!(!ran.stdout.contains("THE MODULE"), "{}", ran.stdout);
    assert!(!ran.stderr.contains('\x1b'), "{}", ran.stderr);
    ran
}

fn noisy(lab: &Lab) {
    experiment(
        lab,
        "tap = \"output\"\nweights = \"noisy.pt\"\nshape = [3, 8, 8]",
        "tap = \"output\"\nweights = \"noisy.pt\"",
    );
}

fn hash_of(lab: &Lab, file: &str) -> String {
    hash_file(&lab.at(file)).unwrap()
}

/// Runs the command that a refusal advises.
fn advised(lab: &Lab, refusal: &Ran) -> Ran {
    let command = refusal.stderr.trim_end().lines().last().unwrap().trim();
    let mut shell = Command::new("bash");
    shell
        .args(["-c", command])
        .current_dir(lab.path())
        .env("OMP_NUM_THREADS", "1");
    run(&mut shell)
}

#[test]
fn no_code_runs_before_the_command_line_allows_its_hash() {
    let lab = Lab::new();
    modules(lab.path());
    noisy(&lab);
    let hash = hash_of(&lab, "noisy.pt");
    let other = hash_of(&lab, "traced.pt");
    // A first training.
    let flag = format!("--trust-code={hash}");
    let words = [
        "encoder.weights",
        "comparator.weights",
        "noisy.pt",
        "--trust-code=",
        &hash,
    ];
    for given in ["", &format!("--trust-code={other}")] {
        let refused = lab.train(&format!("--steps 2 {given}"));
        let refused = unheard(refused.refuses(&words));
        assert!(!lab.run_dir().exists());
        assert!(refused.stderr.contains("--steps 2"), "{}", refused.stderr);
    }
    lab.train("--trust-code=yes")
        .refuses(&["64 hexadecimal digits"]);
    let refused = lab.train("--steps 2").refuses(&words);
    let trained = heard(advised(&lab, &refused));
    assert!(
        trained.stdout.contains("done: step 2"),
        "{}",
        trained.stdout
    );
    // `trust_code = true` is in the run's own file.
    let own = fs::read_to_string(lab.run_dir().join("experiment.toml")).unwrap();
    assert!(own.contains("trust_code = true"));

    // A finished run needs no consent to say so, and one that is there is not run to say that.
    let done = lab.train("--steps 2").exits(0);
    assert!(done.stdout.starts_with("done: step 2"), "{}", done.stdout);
    lab.train("--steps 4").refuses(&["--resume", "--fresh"]);
    unheard(
        lab.train("--steps 4 --resume")
            .refuses(&["encoder.weights", &flag]),
    );

    // Every command that opens the run or its experiment.
    let photo = lab.text("test/12.jpg");
    fs::create_dir(lab.at("runs")).unwrap();
    fs::rename(lab.run_dir(), lab.at("runs/noisy")).unwrap();
    let in_ = lab.text("in.safetensors");
    let x = Tensor::rand([2, 3, 64, 64], (Kind::Float, Device::Cpu)) * 255.0;
    Tensor::write_safetensors(&[("x", x)], &in_).unwrap();
    let toml = lab.text("tiny.toml");
    let forward = |experiment: &str, net: &str| {
        format!("forward {experiment} --net {net} --input {in_} --output out.safetensors")
    };
    let invert = format!("invert {photo} --run runs/noisy");
    for command in [
        invert.as_str(),
        &forward(&toml, "encoder"),
        &forward(&toml, "comparator"),
        "reencode --runs runs/noisy",
        &format!("interpolate {photo} {photo} --runs runs/noisy"),
        "neighbors --runs runs/noisy",
        "sample --runs runs/noisy",
        "losses --runs runs/noisy",
        "compare runs/noisy",
        "preimages runs/noisy",
        &format!("baseline mv {toml}"),
    ] {
        let refused = unheard(lab.eval(command).refuses(&["is not allowed to run", &flag]));
        let last = refused.stderr.trim_end().lines().last().unwrap();
        let name = command.split_whitespace().next().unwrap();
        assert!(last.contains(name) && last.contains(&flag), "{last}");
        let denied = lab.eval(&format!("{command} --trust-code={other}"));
        unheard(denied.refuses(&[&hash]));
    }
    // Commands over many runs leave it out and go on.
    for command in [
        "table2 --runs runs",
        "report --runs runs",
        "figure 1 --runs runs",
    ] {
        unheard(lab.eval(command).says(&["runs/noisy", "left out", &flag]));
    }
    // What only reads the TOML, and what needs no encoder, asks for nothing.
    lab.eval("table1 --experiment runs/noisy/experiment.toml")
        .exits(0);

    // Bare, and by hash, on a run.
    let refused = lab.eval(&invert).exits(2);
    heard(advised(&lab, &refused));
    let table = |format: &str| {
        let table = format!("table2 --runs runs --trust-code --format {format}");
        heard(lab.eval(&table)).stdout
    };
    assert!(table("csv").contains("runs/noisy"));
    let json: serde_json::Value = serde_json::from_str(&table("json")).unwrap();
    assert!(json.to_string().contains("runs/noisy"));

    // Another file in the module's place: not even an explicit hash makes it the run's.
    fs::copy(lab.at("inplace.pt"), lab.at("noisy.pt")).unwrap();
    let now = hash_of(&lab, "noisy.pt");
    for flag in ["--trust-code".to_owned(), format!("--trust-code={now}")] {
        let inverted = lab.eval(&format!("{invert} {flag}"));
        unheard(inverted.refuses(&["encoder.weights", "changed"]));
        lab.train_into("runs/noisy", &format!("--steps 4 --resume {flag}"))
            .refuses(&["encoder.weights", "changed"]);
    }
    // Nor by the run's own file, beside its weights or through a link.
    let weights = files::checkpoint(&lab.at("runs/noisy"), 2).join("generator.safetensors");
    let own = lab.text("runs/noisy/experiment.toml");
    std::os::unix::fs::symlink(&own, lab.at("linked.toml")).unwrap();
    for file in [own, lab.text("linked.toml")] {
        let inverted = lab.eval(&format!(
            "invert {photo} --frame 64 --experiment {file} --weights {} --trust-code",
            weights.display()
        ));
        unheard(inverted.refuses(&["encoder.weights", "changed"]));
        let forward = lab.eval(&format!("{} --trust-code", forward(&file, "encoder")));
        unheard(forward.refuses(&["encoder.weights"]));
    }
}

#[test]
fn consent_is_no_key_of_a_file_and_units_are_never_guessed() {
    let lab = Lab::new();
    experiment(&lab, NAMED, TRACED);
    let text = fs::read_to_string(lab.experiment()).unwrap();
    for (line, words) in [
        ("units = \"rgb-0-1\"\n", ["units", "rgb-imagenet"]),
        ("shape = [8]\n", ["encoder.shape", "[CHANNELS, SIZE, SIZE]"]),
        ("tap = \"output.pooled\"\n", ["encoder.tap", "output.KEY"]),
    ] {
        fs::write(lab.experiment(), text.replace(line, "")).unwrap();
        lab.train("").refuses(&words);
    }
    // The key is not needed; `false` is a refusal.
    let without = text.replace("trust_code = true\n", "");
    for given in [&without, &text] {
        fs::write(lab.experiment(), given).unwrap();
        lab.train("")
            .refuses(&["encoder.weights: no file named.pt", "torch.jit.save"]);
    }
    let denied = text.replace("trust_code = true", "trust_code = false");
    fs::write(lab.experiment(), denied).unwrap();
    lab.train("--trust-code")
        .refuses(&["encoder.trust_code", "is false"]);
    let alexnet = lab
        .toml()
        .replace("net = \"alexnet\"", "net = \"alexnet\"\ntrust_code = true");
    fs::write(lab.experiment(), alexnet).unwrap();
    lab.train("")
        .refuses(&["encoder.trust_code", "means nothing"]);
}

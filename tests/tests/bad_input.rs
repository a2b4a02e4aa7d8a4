//! What a user can get wrong before training begins: exit code 2, a message that says what,
//! where and what to do, nothing on stdout, nothing written, nothing lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::fs;

use deepsim_experiment::{Experiment, ExperimentError, Intent, RunDir};
use deepsim_tests::files::{self, assert_unchanged, checkpoint_steps, column, contents};
use deepsim_tests::lab::Lab;
use deepsim_tests::photos;
use deepsim_tests::process::{program, root, run};

#[test]
fn images_that_are_not_there() {
    let lab = Lab::trained(2);
    let before = contents(&lab.run_dir());
    fs::create_dir(lab.at("empty")).unwrap();
    photos::folder(&lab.at("few"), 0, 3);
    photos::folder(&lab.at("one"), 0, 1);
    let set = |key: &str, name: &str| format!("--set {key}={}", lab.text(name));
    // --fresh throughout: what cannot begin must not delete either.
    let refused = |sets: &str, words: &[&str]| {
        lab.train(&format!("--fresh {sets}")).refuses(words);
        lab.train_into("new", sets).refuses(words);
        assert!(!lab.at("new").exists());
    };
    refused(
        &format!(
            "{} {}",
            set("data.train", "nowhere"),
            set("data.test", "sample-gone")
        ),
        &[
            "data.train",
            &lab.text("nowhere"),
            "deepsim-data -- prepare",
            "data.test",
            "sample-gone",
            "cargo xtask setup",
        ],
    );
    refused(
        &set("data.train", "empty"),
        &["no image in", &lab.text("empty")],
    );
    refused(
        &set("data.train", "few"),
        &[
            &lab.text("few"),
            "has 3 images",
            "batch needs 4",
            "lower the batch size",
        ],
    );
    refused(
        &set("data.test", "one"),
        &["data.test", "at least 2", &lab.text("one")],
    );
    refused(
        &set("data.train", "tiny.toml"),
        &[&lab.text("tiny.toml"), "not a folder"],
    );
    assert_eq!(checkpoint_steps(&lab.run_dir()), [2]);
    assert_unchanged(&lab.run_dir(), &before);
}

#[test]
fn corrupt_images_are_named_and_counted_where_allowed() {
    for name in ["00.jpg", "01.png"] {
        let lab = Lab::new();
        let photo = lab.at("train").join(name);
        files::cut(&photo, 0.6);
        lab.train("--set train.batch_size=12")
            .refuses(&[photo.to_str().unwrap()]);
        assert_eq!(checkpoint_steps(&lab.run_dir()), [0; 0]);

        let ran = lab.train("--steps 4 --set data.quarantine=1");
        assert_eq!(
            ran.prints(),
            format!("done: step 4, run {}\n", lab.run_dir().display())
        );
        let counts = column(&lab.run_dir(), "data.quarantined");
        assert_eq!(counts.last().unwrap(), 1, "{counts:?}");
    }
    let lab = Lab::new();
    for name in ["00.jpg", "01.png"] {
        files::cut(&lab.at("train").join(name), 0.6);
    }
    lab.train("--set train.batch_size=12 --set data.quarantine=1")
        .refuses(&["2 corrupt", "00.jpg", "01.png", "1 allowed"]);
}

#[test]
fn what_the_training_left_out_is_left_out_of_its_training_images_later() {
    let lab = Lab::new();
    let photo = lab.at("train/01.png");
    files::cut(&photo, 0.6);
    lab.train("--steps 4 --set data.quarantine=1").exits(0);
    let command = "neighbors --runs run --images 2 --format json";
    let ran = lab.eval(&format!("{command} --out nn")).exits(0);
    let words = ["left out, as in the training", photo.to_str().unwrap()];
    assert!(serde_json::from_str::<serde_json::Value>(&ran.stdout).is_ok());
    let ran = ran.says(&words);
    assert_eq!(ran.stderr.matches("left out").count(), 1, "{}", ran.stderr);
    // It was allowed one: data that changed is another matter.
    files::cut(&lab.at("train/00.jpg"), 0.6);
    lab.eval(command)
        .says(&["data.train is not what this run was trained with"]);
}

#[test]
fn keys_of_the_experiment_file() {
    let lab = Lab::new();
    let whole = lab.toml();
    // What stands there, what stands there instead, the text whose line is named, the words.
    for (from, to, place, words) in [
        (
            "crop = 64",
            "crop = 64\ncorp = 32",
            "corp",
            &["column 1", "unknown field `corp`", "`crop`"][..],
        ),
        (
            "seed = 1",
            "seed = \"one\"",
            "seed",
            &["column 8", "seed = \"one\"", "invalid type", "u64"],
        ),
        ("seed = 1", "seed = -1", "seed", &["column 8", "seed = -1"]),
        ("seed = 1\n", "", "[train]", &["missing field `seed`"]),
        (
            "tap = \"pool2\"",
            "tap = \"pool9\"",
            "tap",
            &["column 7", "unknown variant `pool9`", "`pool5`"],
        ),
        ("[data]", "[data", "[data", &["column 6"]),
    ] {
        assert!(whole.contains(from));
        let altered = whole.replace(from, to);
        let line = 1 + altered.lines().position(|l| l.starts_with(place)).unwrap();
        fs::write(lab.experiment(), altered).unwrap();
        let located = format!("line {line}, ");
        lab.train("")
            .refuses(&[words, &["tiny.toml", &located]].concat());
    }
    fs::write(
        lab.experiment(),
        whole.replace("name = \"tiny\"", "name = \"../tiny\""),
    )
    .unwrap();
    lab.train("")
        .refuses(&["tiny.toml", "`name`", "letters, digits"]);
    fs::remove_file(lab.experiment()).unwrap();
    lab.train("").refuses(&["tiny.toml", "no experiment file"]);
    assert!(!lab.run_dir().exists());
}

#[test]
fn overrides() {
    let lab = Lab::new();
    for (set, words) in [
        ("train.steps", &["--set train.steps", "KEY=VALUE"][..]),
        ("=1", &["--set =1", "the key is empty"]),
        (
            "train.stepz=1",
            &["--set train.stepz=1", "unknown field `stepz`", "`steps`"],
        ),
        ("train.seed=one", &["--set train.seed=one", "invalid type"]),
        (
            "train.seed.low=1",
            &["--set train.seed.low=1", "`seed` is a value"],
        ),
        ("train.steps=0", &["`train.steps`", "at least 1"]),
        ("train.batch_size=0", &["`train.batch_size`", "at least 1"]),
        (
            "train.batch_size=1000000000000",
            &["a batch needs 1000000000000"],
        ),
        ("train.threads=1000000000", &["`train.threads`"]),
        (
            "train.eval_images=1",
            &["`train.eval_images`", "at least 2"],
        ),
        ("loss.kl=1.0", &["`loss.kl`", "must be 0"]),
        ("loss.adv=-1.0", &["`loss.adv`", "-1"]),
        ("loss.feat=nan", &["`loss.feat`", "NaN"]),
        (
            "optimizer.generator.lr=0.0",
            &["`optimizer.generator.lr`", "above 0"],
        ),
        (
            "gate.d_off_below=0.9",
            &["`gate`", "d_off_below <= d_on_above"],
        ),
        ("data.scale=[0.9,0.5]", &["`data.scale`", "[0.9, 0.5]"]),
        (
            "encoder.weights=random:x",
            &["`encoder.weights`", "random:1"],
        ),
    ] {
        lab.train(&format!("--set {set}")).refuses(words);
    }
    lab.train("--device gpu")
        .refuses(&["device `gpu`", "auto, cpu, cuda or cuda:N"]);
    assert!(!lab.run_dir().exists());
}

#[test]
fn sizes_that_no_network_can_have() {
    let lab = Lab::new();
    for (sets, words) in [
        (
            "--set data.crop=36",
            &["`discriminator`", "36x36", "too small", "larger crop"][..],
        ),
        (
            "--set data.crop=9",
            &["`encoder`", "9x9", "larger crop or an earlier tap"],
        ),
        ("--set data.crop=300", &["`generator`", "8 to 256", "300"]),
        (
            "--set encoder.net=caffenet --set encoder.tap=relu6",
            &["`encoder`", "fc6", "64x64", "use crop 227"],
        ),
        (
            "--set encoder.tap=norm1",
            &["`encoder`", "no tap `norm1`", "pool2"],
        ),
        (
            "--set encoder.tap=relu1 --set generator.width=9",
            &["`generator`", "width", "9"],
        ),
        (
            "--set generator.width=1 --set generator.trunk={vit={channels=32,blocks=2,heads=4,mlp=64}}",
            &[
                "`generator`",
                "`vit`",
                "64 pixels are not 3 whole patches",
                "192x3x3",
            ],
        ),
    ] {
        lab.train(sets).refuses(words);
    }
    assert!(!lab.run_dir().exists());
}

#[test]
fn the_paper_s_experiment_without_its_data() {
    let lab = Lab::new();
    for name in ["conv5", "fc6", "fc7", "fc8"] {
        let file = root().join(format!("experiments/{name}.toml"));
        run(program("deepsim-train").current_dir(lab.path()).arg(&file)).refuses(&[
            "data.train: no folder data/ilsvrc2012-train",
            "ILSVRC2012_img_train.tar",
            "data.test: no folder data/ilsvrc2012-val",
            "ILSVRC2012_img_val.tar",
            "image-net.org",
            "encoder.weights: no file weights/caffenet.safetensors",
            "deepsim-weights -- import caffemodel bvlc_reference_caffenet.caffemodel weights/caffenet.safetensors",
            "cargo xtask quickstart",
            "experiments/sample/pool5.toml",
        ]);
    }
    assert!(!lab.at("runs").exists());
}

#[test]
fn no_room_for_the_checkpoints() {
    let lab = Lab::trained(2);
    let before = contents(&lab.run_dir());
    let hoard = "--set train.keep_checkpoints=1000000000 --set train.checkpoint_every=1";
    for word in ["--resume", "--fresh"] {
        let ran = lab.train(&format!("{hoard} --steps 1000000000 {word}"));
        ran.refuses(&[&lab.text("run"), "MB free", "train.keep_checkpoints"]);
    }
    let longer = Experiment::load(&lab.experiment(), &["train.steps=9".to_owned()]).unwrap();
    for intent in [Intent::Resume, Intent::Fresh] {
        let error = RunDir::open(&lab.run_dir(), &longer, intent, u64::MAX).unwrap_err();
        assert!(matches!(error, ExperimentError::DiskFull { .. }), "{error}");
    }
    assert_unchanged(&lab.run_dir(), &before);
}

#[test]
fn run_directories_that_cannot_be_used() {
    let lab = Lab::new();
    let below_a_file = lab.text("tiny.toml/run");
    let mut command = program("deepsim-train");
    command.arg(lab.experiment()).args(["--out", &below_a_file]);
    run(&mut command).refuses(&[&below_a_file]);
    // Refused to root too.
    let mut command = program("deepsim-train");
    command
        .arg(lab.experiment())
        .args(["--out", "/proc/deepsim-run"]);
    run(&mut command).refuses(&["/proc/deepsim-run"]);

    // Somebody's folder is not taken for a run, whatever the flag.
    let before = contents(&lab.at("train"));
    for flag in ["", "--resume", "--fresh"] {
        lab.train_into("train", flag).refuses(&[
            &lab.text("train"),
            "holds no experiment.toml",
            "--out",
        ]);
    }
    assert_eq!(contents(&lab.at("train")), before);

    // Nor are folders of the names that a run has, nor a project of an experiment.
    let project = lab.at("project");
    for folder in ["samples", "checkpoints", "tensorboard"] {
        fs::create_dir_all(project.join(folder)).unwrap();
        fs::write(project.join(folder).join("mine"), "irreplaceable").unwrap();
    }
    for file in [None, Some("experiment.toml")] {
        if let Some(file) = file {
            fs::copy(lab.experiment(), project.join(file)).unwrap();
        }
        let before = contents(&project);
        for flag in ["", "--resume", "--fresh"] {
            lab.train_into("project", flag)
                .refuses(&["project is not empty", "--out"]);
        }
        assert_eq!(contents(&project), before);
    }

    fs::create_dir(lab.run_dir()).unwrap();
    fs::write(lab.at("run/lock"), "").unwrap();
    fs::write(lab.at("run/experiment.toml"), "name = ").unwrap();
    lab.train("--resume")
        .refuses(&["run/experiment.toml", "line 1"]);
}

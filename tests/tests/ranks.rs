//! Several processes that train one run: the run of one process, and what happens when one of them is wrong or gone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use deepsim_tests::faces;
use deepsim_tests::files::{checkpoint, checkpoint_steps, column, names};
use deepsim_tests::lab::{ENDLESS, Lab};
use deepsim_tests::process::{Ran, Running, python_file, root, run};
use deepsim_tests::ranks::{begun, bits, free_port, placed, started, trained};
use rustix::process::Signal;
use safetensors::SafeTensors;

/// Smooth steps: Adam's would amplify rounding where a gradient is nearly zero.
const SMOOTH: &str = "--set optimizer.generator.eps=1 --set optimizer.discriminator.eps=1";
/// Losses of the same batch, added up in another order.
const TOLERANCE: f64 = 1e-4;

#[track_caller]
fn losses_agree(found: &Path, expected: &Path) {
    losses_are_near(found, expected, TOLERANCE);
}

#[track_caller]
fn losses_are_near(found: &Path, expected: &Path, tolerance: f64) {
    for key in [
        "loss.feat",
        "loss.adv",
        "loss.img",
        "loss.discr_real",
        "gate.train_d",
        "gate.train_g",
    ] {
        let (found, expected) = (column(found, key), column(expected, key));
        assert_eq!(found.len(), expected.len(), "{key}");
        for (found, expected) in found.iter().zip(&expected) {
            let same = match (found.as_f64(), expected.as_f64()) {
                (Some(found), Some(expected)) => {
                    (found - expected).abs() <= tolerance * expected.abs()
                }
                _ => found == expected,
            };
            assert!(same, "{key}: {found} is not {expected}");
        }
    }
}

/// How far weights of the newest checkpoints lie apart, all of a network's together, relative.
fn weights_apart(found: &Path, expected: &Path) -> Vec<(String, f64)> {
    let (found, expected) = (bits(found).1, bits(expected).1);
    let numbers = |bytes: &[u8]| -> Vec<f64> {
        let tensors = SafeTensors::deserialize(bytes).unwrap();
        let mut tensors = tensors.tensors();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        let values = tensors
            .iter()
            .flat_map(|(_, tensor)| tensor.data().chunks_exact(4));
        let values = values.map(|four| f32::from_le_bytes(four.try_into().unwrap()));
        values.map(f64::from).collect()
    };
    let networks = expected
        .iter()
        .filter(|(file, _)| *file != "state.safetensors");
    networks
        .map(|(file, bytes)| {
            let (found, expected) = (numbers(&found[file]), numbers(bytes));
            assert_eq!(found.len(), expected.len(), "{file}");
            let pairs = found.iter().zip(&expected);
            let squares: f64 = pairs.map(|(a, b)| (a - b).powi(2)).sum();
            let norm: f64 = expected.iter().map(|b| b * b).sum();
            (file.clone(), (squares / norm).sqrt())
        })
        .collect()
}

/// Micro-batches and processes together are the same batch.
#[test]
fn weights_after_eight_steps_are_those_of_one_process() {
    let codes = "--set latent.size=6 --set latent.code=gaussian --set loss.kl=0.01 \
         --set optimizer.encoder.lr=1e-3 --set optimizer.encoder.beta1=0.9 --set optimizer.encoder.beta2=0.999 \
         --set optimizer.encoder.eps=1e-8 --set optimizer.encoder.weight_decay=0";
    let image =
        "--set loss.feat=0 --set loss.adv=0 --set loss.img=500 --set pixels.distance=ms-ssim";
    let lab = Lab::new();
    for (name, sets) in [
        ("paper", "--set train.discriminator_passes=paper"),
        ("one", "--set train.discriminator_passes=one"),
        ("codes", codes),
        ("ms-ssim", image),
    ] {
        let arguments = format!("{sets} --steps 8");
        let whole = format!("{name}-whole");
        lab.train_into(&whole, &arguments).exits(0);
        for (size, parts) in [(4, 1), (2, 2)] {
            let out = format!("{name}-{size}-{parts}");
            let arguments = format!("{arguments} --set train.accumulate={parts}");
            for ran in trained(&lab, &out, size, &arguments) {
                ran.exits(0);
            }
            for (file, far) in weights_apart(&lab.at(&out), &lab.at(&whole)) {
                assert!(far < 2e-4, "{out}: {file} {far:.1e}");
            }
        }
    }
}

#[test]
fn processes_that_train_together_make_the_run_of_one() {
    let lab = Lab::new();
    // Splits evenly among two, and unevenly among three.
    for (sets, passes) in [("", "paper"), ("--set train.accumulate=2", "one")] {
        let arguments =
            format!("{SMOOTH} {sets} --set train.discriminator_passes={passes} --steps 6");
        let whole = format!("whole-{passes}");
        lab.train_into(&whole, &arguments).exits(0);
        for size in [2, 3] {
            let out = format!("{passes}-{size}");
            for (rank, ran) in trained(&lab, &out, size, &arguments)
                .into_iter()
                .enumerate()
            {
                let printed = ran.prints();
                // Rank 0 alone says and writes what there is.
                assert_eq!(printed.contains("done: step 6"), rank == 0, "{printed}");
            }
            losses_agree(&lab.at(&out), &lab.at(&whole));
            // The log says what the sums of a step take, where there are any.
            let sums = column(&lab.at(&out), "sums_s");
            assert_eq!(sums.len(), 6);
            assert!(sums.iter().all(|s| s.as_f64().is_some_and(|s| s > 0.0)));
            assert!(column(&lab.at(&whole), "sums_s").is_empty());
            assert_eq!(names(&lab.at(&out)), names(&lab.at(&whole)));
        }
    }
}

/// Gradients lose digits in bf16, and losses do not: the first step's are those of fp32.
#[test]
fn gradients_may_be_exchanged_in_bf16() {
    let lab = Lab::new();
    let in_bf16 = "--set train.reduce=bf16";
    for (out, arguments) in [
        ("fp32", format!("{SMOOTH} --steps 6")),
        ("bf16", format!("{SMOOTH} {in_bf16} --steps 6")),
        ("one-fp32", format!("{SMOOTH} --steps 1")),
        ("one-bf16", format!("{SMOOTH} {in_bf16} --steps 1")),
    ] {
        for ran in trained(&lab, out, 2, &arguments) {
            ran.exits(0);
        }
    }
    losses_are_near(&lab.at("bf16"), &lab.at("fp32"), 0.02);
    let same = |key: &str, one: &str, other: &str| {
        column(&lab.at(one), key) == column(&lab.at(other), key)
    };
    // The adversarial one is that of the updated discriminator.
    for key in ["loss.feat", "loss.img", "loss.discr_real"] {
        assert!(same(key, "one-bf16", "one-fp32"), "{key}");
    }
    let all = ["loss.feat", "loss.adv", "loss.img", "loss.discr_real"];
    assert!(!all.into_iter().all(|key| same(key, "bf16", "fp32")));
    // One process exchanges nothing, and may go on with it; a run keeps it.
    lab.train_into("bf16", &format!("{SMOOTH} {in_bf16} --steps 7 --resume"))
        .exits(0);
    lab.train_into("bf16", &format!("{SMOOTH} --steps 8 --resume"))
        .refuses(&["train.reduce: there \"bf16\", here \"fp32\""]);
}

#[test]
fn the_number_of_processes_may_change_at_a_resume() {
    let lab = Lab::new();
    lab.train_into("whole", &format!("{SMOOTH} --steps 6"))
        .exits(0);
    for (steps, size) in [(2, 2), (4, 1), (6, 4)] {
        let arguments = format!("{SMOOTH} --steps {steps} --resume");
        for ran in trained(&lab, "changed", size, &arguments) {
            ran.exits(0);
        }
    }
    losses_agree(&lab.at("changed"), &lab.at("whole"));
    for (file, far) in weights_apart(&lab.at("changed"), &lab.at("whole")) {
        assert!(far < 2e-4, "{file} {far:.1e}");
    }
    // A finished run stays finished, for all.
    for ran in trained(&lab, "changed", 2, &format!("{SMOOTH} --steps 6 --resume")) {
        ran.exits(0);
    }
}

/// Batch normalisation has the statistics of the whole batch, also where the parts are uneven. One step: with four images,
/// rounding that moves a value over a kink changes the next one by some per cent, on any two processors as well. Gradients
/// are held in double precision (`deepsim-train/tests/micro_batches.rs`).
#[test]
fn vaegan_of_several_processes_begins_as_that_of_one() {
    let lab = faces::lab("vaegan");
    let one_step = "--steps 1 --set train.precision=fp32";
    lab.train_into("whole", one_step).exits(0);
    for size in [2, 3] {
        let out = format!("of-{size}");
        for ran in trained(&lab, &out, size, one_step) {
            ran.exits(0);
        }
        losses_agree(&lab.at(&out), &lab.at("whole"));
    }
}

/// Codes that are drawn, an autoencoder's image loss, noise with diversity: each process takes its images' part.
#[test]
fn every_draw_is_that_of_its_image() {
    let lab = Lab::new();
    let autoencoder = "--set latent.size=6 --set latent.code=gaussian --set loss.kl=0.01 \
         --set optimizer.encoder.lr=1e-3 --set optimizer.encoder.beta1=0.9 --set optimizer.encoder.beta2=0.999 \
         --set optimizer.encoder.eps=1 --set optimizer.encoder.weight_decay=0";
    let diverse = "--set generator.noise=5 --set diversity.weight=300 --set diversity.limit=1000";
    for (name, sets) in [("codes", autoencoder), ("diverse", diverse)] {
        let arguments = format!("{SMOOTH} {sets} --steps 3");
        let whole = format!("whole-{name}");
        lab.train_into(&whole, &arguments).exits(0);
        for ran in trained(&lab, name, 2, &arguments) {
            ran.exits(0);
        }
        losses_agree(&lab.at(name), &lab.at(&whole));
    }
}

/// All go back together, and rank 0 says so.
#[test]
fn losses_that_are_not_finite_halve_the_rates_of_all() {
    let lab = Lab::new();
    let arguments = "--set optimizer.generator.lr=30 --set train.checkpoint_every=1000 \
         --set train.not_finite=halve --steps 4";
    let said = "half the learning rates";
    for (rank, ran) in trained(&lab, "high", 2, arguments).into_iter().enumerate() {
        assert_eq!(
            ran.stderr.contains(said),
            rank == 0,
            "rank {rank}: {}",
            ran.stderr
        );
        ran.exits(0);
    }
}

#[test]
fn torchrun_starts_them() {
    let lab = Lab::new();
    let arguments = format!("{SMOOTH} --steps 4");
    lab.train_into("whole", &arguments).exits(0);
    let train = lab.train_command("launched", &arguments);
    let packages = root().join("third_party/py");
    let mut command = Command::new("python3");
    command
        .args(["-m", "torch.distributed.run", "--no-python", "--standalone"])
        .args(["--nproc-per-node", "2"])
        .arg(train.get_program())
        .args(train.get_args())
        .current_dir(lab.path())
        .env("PYTHONPATH", packages)
        .env_remove("RANK")
        .env_remove("WORLD_SIZE");
    let ran = Running::start(&mut command).ends_soon("torchrun").exits(0);
    assert_eq!(
        ran.stdout.matches("done: step 4").count(),
        1,
        "{}",
        ran.stdout
    );
    losses_agree(&lab.at("launched"), &lab.at("whole"));
}

#[test]
fn a_signal_to_one_stops_all_after_the_same_step_which_is_saved() {
    let lab = Lab::new();
    let mut ranks = begun(&lab, "run", &[ENDLESS.to_owned(), ENDLESS.to_owned()]);
    let log = lab.run_dir().join("metrics.jsonl");
    ranks[0].until(|| std::fs::read_to_string(&log).is_ok_and(|text| text.lines().count() > 2));
    ranks[1].tell(Signal::TERM);
    for rank in ranks {
        rank.ends_soon("a rank").exits(143);
    }
    assert_eq!(checkpoint_steps(&lab.run_dir()).len(), 1);
}

#[test]
fn a_process_that_dies_ends_the_others_with_words() {
    let lab = Lab::new();
    let mut ranks = begun(&lab, "run", &[ENDLESS.to_owned(), ENDLESS.to_owned()]);
    let log = lab.run_dir().join("metrics.jsonl");
    ranks[0].until(|| std::fs::read_to_string(&log).is_ok_and(|text| text.lines().count() > 2));
    ranks[1].tell(Signal::KILL);
    let first = ranks.remove(0).ends_soon("rank 0");
    first
        .exits(1)
        .says(&["another process of this training has ended or does not answer"]);
}

#[test]
fn a_process_that_hangs_ends_the_others_in_time() {
    let lab = Lab::new();
    let arguments = format!("{ENDLESS} --set train.patience=15");
    let mut ranks = begun(&lab, "run", &[arguments.clone(), arguments]);
    let log = lab.run_dir().join("metrics.jsonl");
    ranks[0].until(|| std::fs::read_to_string(&log).is_ok_and(|text| text.lines().count() > 2));
    let hung = Instant::now();
    ranks[1].tell(Signal::STOP);
    let first = ranks.remove(0).ends_soon("rank 0");
    assert!(
        hung.elapsed() < Duration::from_secs(50),
        "{:?}",
        hung.elapsed()
    );
    first
        .exits(1)
        .says(&["another process of this training has ended or does not answer"]);
}

#[test]
fn processes_that_would_train_something_else_are_refused() {
    let lab = Lab::new();
    let short = "--steps 2 --set train.patience=20";
    let ranks = [short.to_owned(), format!("{short} --set train.seed=7")];
    let mut ended: Vec<Ran> = begun(&lab, "run", &ranks)
        .into_iter()
        .map(|rank| rank.ends_soon("a rank"))
        .collect();
    ended
        .remove(1)
        .refuses(&["train.seed is 7 here (rank 1), and 1 in rank 0"]);
    ended
        .remove(0)
        .exits(1)
        .says(&["it trains something else, and its message says what"]);
    // One that cannot begin ends the other, too.
    let ranks = [
        short.to_owned(),
        format!("{short} --set data.train=nowhere"),
    ];
    let mut ended: Vec<Ran> = begun(&lab, "other", &ranks)
        .into_iter()
        .map(|rank| rank.ends_soon("a rank"))
        .collect();
    ended.remove(1).refuses(&["nowhere"]);
    ended
        .remove(0)
        .exits(1)
        .says(&["it cannot begin, and its message says why"]);
}

/// Rank 0 says what its run was trained with: the others need no run directory, and run nothing else.
#[test]
fn modules_of_a_resumed_run_are_those_that_rank_0_has_recorded() {
    let lab = Lab::new();
    let mut modules = python_file("scripts.py");
    modules.arg(lab.path()).env("PYTHONDONTWRITEBYTECODE", "1");
    run(&mut modules).exits(0);
    let text = lab.toml();
    let old = "[encoder]\nnet = \"alexnet\"\ntap = \"pool2\"\nweights = \"random:1\"\n";
    let module = "[encoder]\nnet = \"torchscript\"\ntap = \"output.pooled\"\nweights = \"named.pt\"\n\
                  shape = [8]\nunits = \"rgb-0-1\"\n";
    assert!(text.contains(old));
    fs::write(lab.experiment(), text.replace(old, module)).unwrap();
    for ran in trained(&lab, "run", 2, "--trust-code --steps 2") {
        ran.exits(0);
    }
    let resumed = |sets: &str| -> [Ran; 2] {
        let again = "--trust-code --resume --steps 4";
        let first = lab.train_command("run", again);
        let second = lab.train_command("elsewhere", &format!("{again} {sets}"));
        let mut ended = started(vec![first, second]).into_iter();
        [0, 1].map(|_| ended.next().unwrap().ends_soon("a rank"))
    };
    // The second one has another file in the module's place.
    let other = format!("--set encoder.weights={}", lab.text("parts.pt"));
    let [first, second] = resumed(&other);
    second.refuses(&["encoder.weights changed since this run began"]);
    first
        .exits(1)
        .says(&["it cannot begin, and its message says why"]);
    for ran in resumed("") {
        ran.exits(0);
    }
    assert!(!lab.at("elsewhere").exists());
    let steps = checkpoint_steps(&lab.run_dir());
    assert_eq!(steps, [2, 4]);
    // What is recorded cannot be read.
    for step in steps {
        let file = checkpoint(&lab.run_dir(), step).join("generator.safetensors");
        fs::write(file, "").unwrap();
    }
    let [first, second] = resumed("");
    first.refuses(&["none of its checkpoints is whole"]);
    second
        .exits(1)
        .says(&["rank 0 has ended, and its message says why"]);
}

#[test]
fn what_cannot_be_a_world_is_refused_at_once() {
    let lab = Lab::new();
    let refused = |rank: usize, size: usize, words: &[&str]| {
        let command = lab.train_command("run", "--steps 2 --set train.patience=2");
        Running::start(&mut placed(command, rank, size, free_port()))
            .ends_soon("a rank")
            .refuses(words);
    };
    refused(2, 2, &["RANK is 2 and WORLD_SIZE 2"]);
    // Nobody else comes.
    refused(0, 2, &["rank 0 of 2 cannot join the others at 127.0.0.1:"]);
    // Something else listens there.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let command = lab.train_command("run", "--steps 2 --set train.patience=5");
    Running::start(&mut placed(command, 0, 2, port))
        .ends_soon("a rank")
        .refuses(&[&format!(
            "port {port} is in use already: take another MASTER_PORT"
        )]);
    let mut alone = lab.train_command("run", "--steps 2");
    alone.env("WORLD_SIZE", "2");
    Running::start(&mut alone)
        .ends_soon("a rank")
        .refuses(&["WORLD_SIZE is 2, but RANK is not set"]);
    for ran in trained(&lab, "run", 2, "--steps 2 --set train.batch_size=1") {
        ran.refuses(&["train.batch_size is 1, for 2 processes"]);
    }
    assert!(!lab.run_dir().exists());
}

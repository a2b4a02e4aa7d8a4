//! Deterministic shards: the bits of a training do not depend on the number of processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use deepsim_tests::faces;
use deepsim_tests::lab::{Lab, TODAY};
use deepsim_tests::ranks::{SHARDS, bits, same_bits, trained};

/// Four shards of two or one images.
const UNEVEN: &str = "--set train.batch_size=6 --steps 3";

#[test]
fn inversions_have_the_same_bits() {
    let lab = Lab::new();
    for passes in ["paper", "one"] {
        let arguments = format!("{UNEVEN} --set train.discriminator_passes={passes}");
        same_bits(&lab, passes, &[2, 4], &arguments);
    }
    same_bits(
        &lab,
        "bf16",
        &[4],
        &format!("{UNEVEN} --set train.precision=bf16"),
    );
}

#[test]
fn codes_noise_and_other_image_losses_have_the_same_bits() {
    let lab = Lab::new();
    let variational = "--set latent.size=6 --set latent.code=gaussian --set loss.kl=0.01 \
         --set optimizer.encoder.lr=1e-3 --set optimizer.encoder.beta1=0.9 --set optimizer.encoder.beta2=0.999 \
         --set optimizer.encoder.eps=1e-8 --set optimizer.encoder.weight_decay=0";
    let plain = variational.replace("gaussian", "plain");
    let plain = plain.replace("loss.kl=0.01", "loss.kl=0");
    let diverse = "--set generator.noise=5 --set diversity.weight=300 --set diversity.limit=1000";
    let image =
        "--set loss.feat=0 --set loss.adv=0 --set loss.img=500 --set pixels.distance=ms-ssim";
    for (name, sets) in [
        ("variational", variational),
        ("plain", plain.as_str()),
        ("diverse", diverse),
        ("ms-ssim", image),
    ] {
        same_bits(&lab, name, &[4], &format!("{UNEVEN} {sets}"));
    }
}

/// Power iterations, averages, penalties and weights by gradients are the whole batch's.
#[test]
fn today_s_adversary_has_the_same_bits() {
    let lab = Lab::new();
    same_bits(&lab, "today", &[2, 4], &format!("{UNEVEN} {TODAY}"));
    let batch = TODAY.replace("norm=spectral", "norm=batch");
    let (before, after) = batch.split_once("--set adversary.r1.weight").unwrap();
    let (_, after) = after.split_once("--set adversary.lecam").unwrap();
    let normalised = format!("{before}--set adversary.lecam{after}");
    let bf16 = format!("{UNEVEN} {normalised} --set train.precision=bf16");
    same_bits(&lab, "normalised-bf16", &[2], &bf16);
    let heads = "discriminator.architecture=heads --set discriminator.network=alexnet \
         --set discriminator.network_weights=random:2 --set discriminator.taps=[\"relu1\",\"relu2\"]";
    let (before, after) = TODAY
        .split_once("discriminator.architecture=patchgan")
        .unwrap();
    let (_, after) = after.split_once("discriminator.width=0.125").unwrap();
    same_bits(
        &lab,
        "heads",
        &[2],
        &format!("{UNEVEN} {before}{heads}{after}"),
    );
}

#[test]
fn super_resolution_has_the_same_bits() {
    let lab = Lab::new();
    let alexnet = "net = \"alexnet\"\ntap = \"pool2\"\nweights = \"random:1\"";
    let toml = lab.toml();
    assert!(toml.contains(alexnet));
    let toml = toml.replacen(alexnet, "net = \"downsampled\"\nfactor = 4", 1);
    std::fs::write(lab.experiment(), toml).unwrap();
    same_bits(&lab, "larger", &[4], UNEVEN);
}

/// With batch normalisation, whose statistics are those of the whole batch.
#[test]
fn vaegan_and_its_relatives_have_the_same_bits() {
    let lab = faces::lab("vaegan");
    for (name, sets) in [
        ("plain", "--steps 3"),
        ("accumulated", "--steps 3 --set train.accumulate=2"),
    ] {
        same_bits(&lab, name, &[2, 4], sets);
    }
    // Micro-batches of a process are its shards, however many are asked for.
    let [plain, accumulated] = ["plain-2", "accumulated-2"].map(|name| bits(&lab.at(name)));
    assert!(plain == accumulated);
    for which in ["gan", "vae"] {
        same_bits(
            &faces::lab(which),
            which,
            &[4],
            "--steps 3 --set train.batch_size=7",
        );
    }
}

/// Phases go back through what earlier phases made, in threads of their own, and autocast keeps casts for all threads.
#[test]
fn batch_normalisation_in_the_paper_s_iteration_has_the_same_bits() {
    let lab = Lab::new();
    let in_d = "--set discriminator.architecture=larsen --set discriminator.width=0.25";
    let diverse = "--set generator.noise=5 --set diversity.weight=300 --set diversity.limit=1000";
    let in_g = "--set generator.trunk=larsen --set train.discriminator_passes=one --set latent.size=6 \
         --set latent.code=plain --set optimizer.encoder.lr=1e-3 --set optimizer.encoder.beta1=0.9 \
         --set optimizer.encoder.beta2=0.999 --set optimizer.encoder.eps=1e-8 --set optimizer.encoder.weight_decay=0";
    for (name, sets) in [
        ("in-d", in_d.to_owned()),
        ("in-d-bf16", format!("{in_d} --set train.precision=bf16")),
        ("in-d-diverse", format!("{in_d} {diverse}")),
        ("in-g-one-pass", in_g.to_owned()),
    ] {
        same_bits(&lab, name, &[4], &format!("{UNEVEN} {sets}"));
    }
}

#[test]
fn the_number_of_processes_changes_no_bit_at_a_resume() {
    let small = "--set train.keep_checkpoints=9";
    for lab in [Lab::new(), faces::lab("vaegan")] {
        let train = |out: &str, size: usize, rest: &str| {
            for ran in trained(&lab, out, size, &format!("{SHARDS} {small} {rest}")) {
                ran.exits(0);
            }
        };
        train("whole", 1, "--steps 6");
        for (steps, size) in [(2, 2), (4, 1), (6, 4)] {
            train("changed", size, &format!("--steps {steps} --resume"));
        }
        let (found, expected) = (bits(&lab.at("changed")), bits(&lab.at("whole")));
        assert_eq!(found.0, expected.0);
        assert!(found.1 == expected.1);
    }
}

#[test]
fn shards_that_cannot_be_dealt_out_and_other_shards_at_a_resume_are_refused() {
    let lab = Lab::new();
    for ran in trained(&lab, "run", 3, &format!("{SHARDS} --steps 2")) {
        ran.refuses(&["train.deterministic_shards is 4, for 3 processes: it must be a multiple"]);
    }
    assert!(!lab.run_dir().exists());
    lab.train_into("run", "--steps 2 --set train.deterministic_shards=5")
        .refuses(&[
            "train.deterministic_shards",
            "must be at most train.batch_size (4)",
        ]);
    lab.train_into("run", &format!("{SHARDS} --steps 2"))
        .exits(0);
    lab.train_into(
        "run",
        "--steps 3 --resume --set train.deterministic_shards=2",
    )
    .refuses(&["train.deterministic_shards", "4", "2"]);
}

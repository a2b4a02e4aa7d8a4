//! `[adversary]` and discriminators with several logits: what is accepted, what is refused.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod parsing;

use std::path::Path;

use deepsim_experiment::Experiment;
use parsing::{message, parse, quickstart};

const HEADS: [&str; 4] = [
    "discriminator.architecture=heads",
    "discriminator.network=alexnet",
    "discriminator.network_weights=random:3",
    "discriminator.taps=[\"relu1\",\"pool2\"]",
];

#[test]
fn heads_stand_on_a_network_that_is_a_source_of_its_own() {
    let with = parse(&quickstart(), &HEADS).unwrap();
    let kept = with.to_toml().unwrap();
    assert_eq!(parse(&kept, &[]).unwrap().config, with.config);
    let tables = |e: &Experiment| -> Vec<String> {
        e.sources()
            .map(|(table, source)| format!("{table} {source}"))
            .collect()
    };
    let expected = [
        "encoder alexnet:pool2",
        "comparator alexnet:pool5",
        "discriminator alexnet:pool2",
    ];
    assert_eq!(tables(&with), expected);
    let idle = parse(&quickstart(), &[&HEADS[..], &["loss.adv=0"]].concat()).unwrap();
    assert_eq!(tables(&idle), expected[..2]);
    // Checkpoints hold the network: where its file lies is no difference, and what is drawn is.
    let file = "discriminator.network_weights=a.safetensors";
    let other = parse(&quickstart(), &[&HEADS[..], &[file]].concat()).unwrap();
    let moved = parse(
        &quickstart(),
        &[&HEADS[..], &["discriminator.network_weights=b.safetensors"]].concat(),
    );
    assert_eq!(moved.unwrap().differences(&other.config), [""; 0]);
    assert_eq!(with.differences(&other.config).len(), 1);
}

const OPEN: [&str; 4] = [
    "gate.d_off_below=0",
    "gate.d_on_above=0",
    "gate.g_off_above=inf",
    "gate.g_on_below=inf",
];

/// Left out, an adversary is the paper's: nothing of it is written, and what is written as left out is no difference.
#[test]
fn an_adversary_that_says_nothing_is_the_paper_s() {
    let paper = parse(&quickstart(), &[]).unwrap();
    assert!(!paper.to_toml().unwrap().contains("adversary"));
    let same = [
        "adversary.loss=cross-entropy",
        "adversary.discriminator_from=0",
        "adversary.generator_from=0",
    ];
    let same = parse(&quickstart(), &same).unwrap();
    assert_eq!(same.config, paper.config);
    let hinge = parse(
        &quickstart(),
        &[&OPEN[..], &["adversary.loss=hinge"]].concat(),
    )
    .unwrap();
    assert!(
        hinge
            .differences(&paper.config)
            .contains(&"adversary.loss: there \"cross-entropy\", here \"hinge\"".to_owned())
    );
    let kept = hinge.to_toml().unwrap();
    assert_eq!(parse(&kept, &[]).unwrap().config, hinge.config);
    // Without a gate, too.
    let table = kept.split("[gate]").collect::<Vec<_>>();
    let (before, after) = (table[0], table[1].split_once("\n[").unwrap().1);
    let without = parse(&format!("{before}[{after}"), &[]).unwrap();
    assert!(without.config.gate.is_none());
    assert_eq!(without.differences(&hinge.config), [""; 0]);
    let stage = "[[stage]]\nfrom = 5\nloss = { img = 1.0 }\n";
    let staged = |text: &str| parse(&format!("{text}\n{stage}"), &[]).unwrap();
    let (with, without) = (staged(&kept), staged(&without.to_toml().unwrap()));
    assert_eq!(without.differences(&with.config), [""; 0]);
}

#[test]
fn what_an_adversary_cannot_be_is_refused() {
    let patches = "discriminator.architecture=patchgan";
    let one = "train.discriminator_passes=one";
    let refused: &[(&[&str], &str)] = &[
        (
            &["adversary.loss=hinge"],
            "`gate` must be open with adversary.loss = \"hinge\"",
        ),
        (&["adversary.loss=wasserstein"], "hinge"),
        (
            &["adversary.discriminator_from=5"],
            "`adversary.generator_from` must be at least",
        ),
        (
            &["adversary.generator_from=5", one],
            "`train.discriminator_passes` must be \"paper\" with [adversary]",
        ),
        (&[patches, one], "another factor at each logit"),
        (
            &["adversary.r1.weight=0"],
            "`adversary.r1.weight` must be a number above 0",
        ),
        (
            &["adversary.r1.weight=1", "adversary.r1.every=0"],
            "`adversary.r1.every` must be at least 1",
        ),
        (
            &["adversary.r1.weight=1", patches],
            "`adversary.r1` needs a discriminator without batch normalisation",
        ),
        (
            &["adversary.lecam.weight=1", "adversary.lecam.decay=1"],
            "`adversary.lecam.decay` must be from 0 to below 1",
        ),
        (
            &["adversary.augment.cutout=1.5"],
            "`adversary.augment.cutout` must be from 0 to 1",
        ),
        (
            &["adversary.adaptive.limit=0"],
            "`adversary.adaptive.limit` must be a number above 0",
        ),
        (
            &["adversary.adaptive.limit=9", "loss.feat=0", "loss.img=0"],
            "`adversary.adaptive` needs loss.feat or loss.img above 0",
        ),
        (
            &["adversary.generator_from=5", "loss.feat=0", "loss.img=0"],
            "`adversary.generator_from` must be at most 0",
        ),
        (
            &[
                HEADS[0],
                "discriminator.network=resnet50",
                HEADS[2],
                HEADS[3],
            ],
            "`discriminator.network` cannot be resnet50: its batch normalisation is folded",
        ),
        (
            &["adversary.generator_from=5", "loss.adv=0"],
            "`adversary` means nothing where loss.adv is 0",
        ),
        (
            &["discriminator.architecture=heads"],
            "`discriminator.network` is missing",
        ),
        (
            &["discriminator.taps=[\"relu1\"]"],
            "`discriminator.taps` means something for the discriminator heads alone",
        ),
        (
            &[HEADS[0], HEADS[1], HEADS[2], "discriminator.taps=[]"],
            "1 to 5 taps are possible, not 0",
        ),
        (
            &[
                HEADS[0],
                HEADS[1],
                HEADS[2],
                "discriminator.taps=[\"norm1\"]",
            ],
            "norm1",
        ),
        (
            &[HEADS[0], HEADS[1], HEADS[2], "discriminator.taps=[\"fc6\"]"],
            "needs a map of at least 9 positions",
        ),
        (
            &["discriminator.norm=spectral"],
            "`discriminator.norm` means something for the discriminator patchgan alone",
        ),
        (&[patches, "discriminator.layers=9"], "1 to 5 layers, not 9"),
        (
            &[patches, "discriminator.features=true"],
            "the discriminator of patches has no feature branch",
        ),
        (
            &[patches, "train.accumulate=2"],
            "`train.accumulate` must be 1 here: batch normalisation",
        ),
    ];
    for (sets, words) in refused {
        let text = message(&quickstart(), sets);
        assert!(text.contains(words), "{sets:?}: {text}");
    }
    let gan = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/vaegan/gan.toml");
    for (set, words) in [
        (
            "adversary.loss=hinge",
            "`adversary` means nothing with [vaegan]",
        ),
        (patches, "cannot be patchgan or heads with [vaegan]"),
    ] {
        let error = Experiment::load(&gan, &[set.to_owned()])
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error}");
    }
    let fine: &[&[&str]] = &[
        &[
            patches,
            "discriminator.norm=spectral",
            "adversary.r1.weight=1",
            "train.accumulate=2",
        ],
        &[
            patches,
            "discriminator.norm=none",
            "discriminator.width=0.5",
            "discriminator.layers=2",
        ],
        &[
            "adversary.generator_from=5",
            "adversary.lecam.weight=0.3",
            "adversary.augment.color=false",
        ],
    ];
    for sets in fine {
        parse(&quickstart(), sets).unwrap();
    }
}

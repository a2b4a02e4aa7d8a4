//! Transformers in experiment files: taps of several layers, tokens, sizes of images.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use deepsim_experiment::{Experiment, ExperimentError};
use deepsim_nets::FeatureShape;

/// Quickstart with DINOv2 S for an encoder, at 8×8 patches.
const DINOV2: [&str; 4] = [
    "data.crop=112",
    "encoder.net=dinov2-small",
    "encoder.tap=block3",
    "encoder.weights=random:1",
];

fn parse(sets: &[&str]) -> Result<Experiment, ExperimentError> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/quickstart.toml");
    let text = std::fs::read_to_string(file).unwrap();
    let sets: Vec<String> = DINOV2.iter().chain(sets).map(|s| (*s).to_owned()).collect();
    Experiment::parse(&text, Path::new("x.toml"), &sets)
}

#[track_caller]
fn refused(sets: &[&str], words: &[&str]) {
    let error = parse(sets).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

#[test]
fn blocks_are_maps_of_patches_alone_or_summed() {
    let map = FeatureShape::Map {
        channels: 384,
        size: 8,
    };
    for tap in [
        "block3",
        "layernorm(block11)",
        "block3+block7",
        "mean(layernorm(block3) + layernorm(norm))",
    ] {
        let e = parse(&[&format!("encoder.tap={tap}")]).unwrap();
        assert_eq!(e.features, map, "{tap}");
        let named = format!("dinov2-small:{}", tap.replace(' ', ""));
        assert_eq!(e.encoder.to_string(), named);
    }
}

#[test]
fn all_tokens_are_one_vector() {
    let e = parse(&["encoder.tokens=all"]).unwrap();
    assert_eq!(e.features, FeatureShape::Vector(384 * (1 + 8 * 8)));
    let patches = parse(&["encoder.tokens=patches"]).unwrap();
    assert_eq!(patches.features, parse(&[]).unwrap().features);
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    refused(
        &["data.crop=128"],
        &["multiples of 14", "128x128", "126 and 140"],
    );
    refused(&["encoder.tap=block12"], &["encoder", "block12"]);
    refused(&["encoder.tap=block3+blok7"], &["unknown variant `blok7`"]);
    refused(&["encoder.tap=block3+pooled"], &["different shapes"]);
    refused(
        &["comparator.tokens=all"],
        &["comparator.tokens", "alexnet", "has none"],
    );
    refused(
        &["encoder.tap=pooled", "encoder.tokens=all"],
        &["has no tokens"],
    );
    let latent = [
        "encoder.net=resnet50",
        "encoder.tap=pooled",
        "latent.size=8",
        "latent.code=plain",
    ];
    refused(&latent, &["encoder.net", "resnet50", "batch normalisation"]);
}

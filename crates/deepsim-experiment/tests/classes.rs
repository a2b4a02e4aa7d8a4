//! Whole classifiers with their trained weights on photographs of animals: units, padding, colours
//! and normalisation must all be right for one to name them.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use deepsim_data::{Resize, decode_rgb8, square};
use deepsim_nets::images::rgb_to_caffe;
use deepsim_nets::metrics::classify;
use deepsim_nets::{FeatureNet, NetKind, Tap};
use tch::{Device, Kind, Tensor};

/// Photographs below data/photos with one clear animal, and its class in ILSVRC-2012.
const CLEAR: [(&str, i64); 11] = [
    ("erase/gorilla.webp", 366),
    ("erase/cheetah.webp", 293),
    ("erase/red_panda.webp", 387),
    ("erase/gibbon.webp", 368),
    ("erase/chamaeleon.webp", 47),
    ("erase/meerkats.webp", 299),
    ("explore_world_animals/koala.webp", 105),
    ("explore_world_animals/bison.webp", 347),
    ("explore_world_animals/jaguar.webp", 290),
    ("explore_world_animals/panda.webp", 388),
    ("explore_world_animals/polar_bear.webp", 296),
];

/// At least `least` of them, and for all but one the class among the five likeliest.
fn names_the_animals(net: NetKind, side: u32, least: i32) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let weights = root.join(format!("weights/{net}.safetensors"));
    assert!(
        weights.exists(),
        "no {}: run cargo xtask setup first",
        weights.display()
    );
    let classifier = FeatureNet::load(net, Tap::Logits, &weights, Device::Cpu).unwrap();
    let (mut right, mut likely) = (0, 0);
    for (name, class) in CLEAR {
        let photo = decode_rgb8(&root.join("data/photos").join(name)).unwrap();
        let image = square(&photo, side, Resize::ShortCrop).unwrap();
        let shape = [1, i64::from(side), i64::from(side), 3];
        let rgb = Tensor::from_data_size(image.as_raw(), &shape, Kind::Uint8).permute([0, 3, 1, 2]);
        let _guard = tch::no_grad_guard();
        let caffe = rgb_to_caffe(&rgb).unwrap();
        let logits = classifier
            .features(&caffe, &[Tap::Logits])
            .unwrap()
            .remove(0);
        let top = classify(&logits, 5).unwrap().remove(0);
        println!("{name}: {class}, found {top:?}");
        right += i32::from(top[0] == class);
        likely += i32::from(top.contains(&class));
    }
    let all = CLEAR.len();
    assert!(right >= least, "only {right} of {all} named by {net}");
    assert!(likely >= 10, "only {likely} of {all} likely to {net}");
}

#[test]
fn efficientnet_names_the_animals() {
    names_the_animals(NetKind::EfficientNetLite0, 224, 10);
}

#[test]
fn squeezenet_names_the_animals() {
    names_the_animals(NetKind::SqueezeNet, 227, 9);
}

//! EfficientNet-Lite0 with its trained weights on photographs of animals: units, padding, colours
//! and normalisation must all be right for it to name them.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use deepsim_data::{Resize, decode_rgb8, square};
use deepsim_nets::metrics::classify;
use deepsim_nets::pictures::rgb_to_caffe;
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

#[test]
fn efficientnet_names_the_animals() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let weights = root.join("weights/efficientnet-lite0.safetensors");
    assert!(
        weights.exists(),
        "no {}: run cargo xtask setup first",
        weights.display()
    );
    let net = FeatureNet::load(
        NetKind::EfficientNetLite0,
        Tap::Logits,
        &weights,
        Device::Cpu,
    )
    .unwrap();
    let mut right = 0;
    for (name, class) in CLEAR {
        let photo = decode_rgb8(&root.join("data/photos").join(name)).unwrap();
        let picture = square(&photo, 224, Resize::ShortCrop).unwrap();
        let rgb = Tensor::from_data_size(picture.as_raw(), &[1, 224, 224, 3], Kind::Uint8)
            .permute([0, 3, 1, 2]);
        let _guard = tch::no_grad_guard();
        let caffe = rgb_to_caffe(&rgb).unwrap();
        let logits = net.features(&caffe, &[Tap::Logits]).unwrap().remove(0);
        let top = classify(&logits, 5).unwrap().remove(0);
        println!("{name}: {class}, found {top:?}");
        right += i32::from(top[0] == class);
    }
    assert!(right >= 10, "only {right} of {} named", CLEAR.len());
}

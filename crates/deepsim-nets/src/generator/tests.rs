//! Sizes, names and counts of generators.

use super::*;
use crate::layers::op::conv;
use crate::layers::shape::FeatureShape;

fn spec(input: FeatureShape, crop: i64) -> GeneratorSpec {
    GeneratorSpec {
        input,
        crop,
        width: 1.0,
        trunk: Trunk::DeePSiM,
        noise: 0,
    }
}

/// A small decoder of patches.
const VIT: Trunk = Trunk::Vit {
    channels: 32,
    blocks: 2,
    heads: 4,
    mlp: 64,
};

fn millions(spec: &GeneratorSpec) -> f64 {
    let shapes = spec.shapes().unwrap();
    let n: i64 = shapes
        .iter()
        .map(|(_, shape)| shape.iter().product::<i64>())
        .sum();
    (n as f64 / 1e4).round() / 100.0
}

#[test]
fn parameter_counts_are_those_of_the_released_models() {
    assert_eq!(millions(&spec(FeatureShape::Vector(4096), 227)), 56.10);
    assert_eq!(millions(&spec(FeatureShape::Vector(1000), 227)), 43.42);
    assert_eq!(
        millions(&spec(
            FeatureShape::Map {
                channels: 256,
                size: 6
            },
            227
        )),
        12.70
    );
}

#[test]
fn front_ends_fit_their_maps() {
    for (size, front, kernel, pad) in [
        (6, 512, 3, 0),
        (3, 512, 2, 1),
        (5, 512, 2, 0),
        (7, 512, 2, 1),
        (13, 256, 2, 2),
    ] {
        let layers = spec(
            FeatureShape::Map {
                channels: 256,
                size,
            },
            227,
        )
        .layers()
        .unwrap();
        let rconv8 = layers.iter().find(|op| op.key() == Some("Rconv8")).unwrap();
        let expected = conv("Rconv8", (front, front), (kernel, 1, pad), 1);
        assert_eq!(*rconv8, expected, "map of {size}");
    }
}

#[test]
fn smaller_crops_drop_the_end_of_the_trunk() {
    let names = |crop| -> Vec<_> {
        spec(FeatureShape::Vector(10), crop)
            .layers()
            .unwrap()
            .iter()
            .filter_map(Op::key)
            .skip(3)
            .collect()
    };
    assert_eq!(
        names(128),
        [
            "deconv5", "conv5_1", "deconv4", "conv4_1", "deconv3", "conv3_1", "deconv2", "deconv0"
        ]
    );
    assert_eq!(
        names(64),
        [
            "deconv5", "conv5_1", "deconv4", "conv4_1", "deconv3", "conv3_1", "deconv0"
        ]
    );
    assert_eq!(spec(FeatureShape::Vector(10), 100).uncropped(), 128);
}

#[test]
fn every_legal_size_gives_images_of_the_crop() {
    let db = |kernel| Trunk::Db { kernel, slope: 0.2 };
    let map = |channels, size| FeatureShape::Map { channels, size };
    let sizes = [
        (map(5, 1), 16),
        (map(5, 7), 100),
        (map(5, 15), 64),
        (FeatureShape::Vector(3), 33),
    ];
    for trunk in [Trunk::DeePSiM, db(4), db(5)] {
        for (input, crop) in sizes {
            let spec = GeneratorSpec {
                input,
                crop,
                width: 0.05,
                trunk,
                noise: 0,
            };
            let g = Generator::new(spec, 1, Device::Cpu).unwrap();
            let mut shape = vec![2];
            match input {
                FeatureShape::Map { channels, size } => shape.extend([channels, size, size]),
                FeatureShape::Vector(n) => shape.push(n),
            }
            let x = Tensor::ones(shape, (tch::Kind::Float, Device::Cpu));
            assert_eq!(g.forward(&x).unwrap().size(), [2, 3, crop, crop]);
        }
    }
}

#[test]
fn impossible_sizes_are_refused() {
    assert!(spec(FeatureShape::Vector(0), 64).layers().is_err());
    assert!(spec(FeatureShape::Vector(9), 300).layers().is_err());
    assert!(
        spec(
            FeatureShape::Map {
                channels: 3,
                size: 63
            },
            64
        )
        .layers()
        .is_err()
    );
    let wide = GeneratorSpec {
        width: f64::NAN,
        ..spec(FeatureShape::Vector(9), 64)
    };
    assert!(wide.layers().is_err());
    let odd = GeneratorSpec {
        trunk: Trunk::Db {
            kernel: 3,
            slope: 0.2,
        },
        ..spec(FeatureShape::Vector(9), 64)
    };
    assert!(odd.layers().unwrap_err().to_string().contains("kernel"));
}

#[test]
fn shapes_are_known_without_building() {
    let map = |size| FeatureShape::Map { channels: 24, size };
    let db = Trunk::Db {
        kernel: 5,
        slope: 0.2,
    };
    let cases = [
        (FeatureShape::Vector(10), Trunk::DeePSiM, 3),
        (map(6), Trunk::DeePSiM, 0),
        (map(13), db, 2),
        (FeatureShape::Vector(12), Trunk::VaeGan, 0),
        (map(4), VIT, 3),
    ];
    for (input, trunk, noise) in cases {
        let spec = GeneratorSpec {
            width: 0.25,
            trunk,
            noise,
            ..spec(input, 64)
        };
        let g = Generator::new(spec.clone(), 1, Device::Cpu).unwrap();
        let there = g.params().iter().map(|p| (p.name.clone(), p.tensor.size()));
        assert_eq!(
            spec.shapes().unwrap(),
            there.collect::<Vec<_>>(),
            "{spec:?}"
        );
    }
}

#[test]
fn impossible_features_are_refused_before_anything_is_calculated_with_them() {
    let map = |channels, size| FeatureShape::Map { channels, size };
    for input in [
        FeatureShape::Vector(i64::MAX),
        FeatureShape::Vector(i64::MIN),
        FeatureShape::Vector(1 << 25),
        map(i64::MAX, 1),
        map(i64::MIN, 3),
        map(1, i64::MAX),
        map(1, i64::MIN),
        map(1 << 20, 8),
        map(i64::MAX, 0),
    ] {
        for trunk in [Trunk::DeePSiM, Trunk::VaeGan, VIT] {
            let spec = GeneratorSpec {
                trunk,
                noise: i64::from(trunk.is_deepsim()),
                ..spec(input, 64)
            };
            assert!(spec.validate().is_err(), "{spec:?}");
            assert!(spec.shapes().is_err(), "{spec:?}");
        }
    }
}

#[test]
fn vaegan_decoder_takes_no_noise() {
    let spec = GeneratorSpec {
        width: 0.25,
        trunk: Trunk::VaeGan,
        ..spec(FeatureShape::Vector(5), 32)
    };
    let g = Generator::new(spec, 1, Device::Cpu).unwrap();
    let x = Tensor::ones([2, 5], (tch::Kind::Float, Device::Cpu));
    let made = |noise| g.forward_in(Mode::Evaluation, &x, noise);
    assert_eq!(made(None).unwrap().size(), [2, 3, 32, 32]);
    assert!(made(Some(&x)).is_err());
}

#[test]
fn decoder_of_patches_makes_images_and_all_but_its_positions_learn() {
    let input = FeatureShape::Map {
        channels: 5,
        size: 4,
    };
    let spec = GeneratorSpec {
        trunk: VIT,
        noise: 2,
        ..spec(input, 32)
    };
    let g = Generator::new(spec, 1, Device::Cpu).unwrap();
    let x = Tensor::ones([3, 5, 4, 4], (tch::Kind::Float, Device::Cpu));
    let noise = g.draw_noise(3, Device::Cpu).unwrap().unwrap();
    let images = g.forward_in(Mode::Training, &x, Some(&noise)).unwrap();
    assert_eq!(images.size(), [3, 3, 32, 32]);
    assert_ne!(images, g.forward(&x).unwrap());
    for p in g.params().iter() {
        assert_eq!(p.trains, p.name != "decoder_pos_embed", "{}", p.name);
        let matrix = p.tensor.dim() == 2;
        assert_eq!(p.decays, matrix, "{}", p.name);
    }
    // By whose gradients terms are weighed against each other.
    let trained = g.params().trained();
    let last = trained.iter().rfind(|p| p.tensor.dim() > 1).unwrap();
    assert_eq!(last.name, "decoder_pred.weight");
}

#[test]
fn decoder_of_patches_refuses_what_it_cannot_be_made_for() {
    let map = |size| FeatureShape::Map { channels: 5, size };
    let vit = |blocks, heads, mlp| Trunk::Vit {
        channels: 32,
        blocks,
        heads,
        mlp,
    };
    for (input, trunk, width, words) in [
        (FeatureShape::Vector(12), VIT, 1.0, "takes maps"),
        (map(3), VIT, 1.0, "32 pixels are not 3 whole patches"),
        (map(64), VIT, 1.0, "32 pixels are not 64 whole patches"),
        (map(4), vit(0, 4, 64), 1.0, "1 to 64 blocks"),
        (map(4), vit(i64::MAX, 4, 64), 1.0, "1 to 64 blocks"),
        (map(4), vit(2, 5, 64), 1.0, "divides the 32 channels"),
        (map(4), vit(2, 0, 64), 1.0, "divides the 32 channels"),
        (map(4), vit(2, 4, i64::MAX), 1.0, "`mlp` of 1 to"),
        (map(4), VIT, f64::NAN, "width"),
    ] {
        let spec = GeneratorSpec {
            trunk,
            width,
            ..spec(input, 32)
        };
        let error = spec.validate().unwrap_err().to_string();
        assert!(error.contains(words), "no {words} in {error}");
    }
}

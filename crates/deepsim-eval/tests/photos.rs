//! An image from a file is cut as the images of its run were.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use deepsim_data::{
    Augment, Dataset, Flow, Mirror, Place, Prepare, Resize, SquareWindow, Store, prepare,
};
use deepsim_eval::measure::photos::{from_data, from_files};
use image::RgbImage;
use tch::Device;

#[test]
fn a_file_is_framed_as_the_dataset_s_images() {
    let folder = tempfile::tempdir().unwrap();
    let photos = folder.path().join("photos");
    std::fs::create_dir(&photos).unwrap();
    let photo = photos.join("a.png");
    RgbImage::from_fn(300, 200, |x, y| {
        let wave = |f: f32| (127.0 + 120.0 * (f * (x as f32 + 1.7 * y as f32)).sin()) as u8;
        image::Rgb([wave(0.05), wave(0.11), (x * y % 251) as u8])
    })
    .save(&photo)
    .unwrap();
    let window: SquareWindow = "15,40,148".parse().unwrap();
    let mut seen = Vec::new();
    for (i, (size, resize, window)) in [
        (64, Resize::ShortCrop, None),
        (64, Resize::Squash, None),
        (64, Resize::ShortCrop, Some(window)),
        (96, Resize::ShortCrop, None),
    ]
    .into_iter()
    .enumerate()
    {
        let out = folder.path().join(format!("set{i}"));
        let request = Prepare {
            resize: Some(resize),
            window,
            store: Some(Store::Raw),
            ..Prepare::new(&photos, &out, size)
        };
        prepare(&request, &mut |_| Flow::Continue).unwrap();
        let data = Dataset::open(&out).unwrap();
        for scale in [None, Some((0.5, 1.0)), Some((0.5, 0.9))] {
            let augment = Augment {
                crop: 48,
                mirror: Mirror::Off,
                place: Place::Random,
                scale,
            };
            let held = from_data(&data, &[0], &augment, Device::Cpu).unwrap();
            let paths = [photo.clone()];
            let file = from_files(&paths, data.framing(), &augment, Device::Cpu).unwrap();
            let apart = (&held - &file).abs().max().double_value(&[]);
            assert_eq!(apart, 0.0, "size {size}, {resize:?}, {window:?}, {scale:?}");
            seen.push(held);
        }
    }
    // The settings do show.
    assert_ne!(seen[0], seen[3]);
    assert_ne!(seen[0], seen[6]);
}

#[test]
fn photos_that_may_only_be_measured_on_are_not_reconstructed() {
    let folder = tempfile::tempdir().unwrap();
    let photo = folder.path().join("data/labelled/photos/a.png");
    std::fs::create_dir_all(photo.parent().unwrap()).unwrap();
    RgbImage::new(64, 64).save(&photo).unwrap();
    let link = folder.path().join("mine.png");
    std::os::unix::fs::symlink(&photo, &link).unwrap();
    let augment = Augment {
        crop: 48,
        mirror: Mirror::Off,
        place: Place::Random,
        scale: None,
    };
    let framing = Dataset::open(photo.parent().unwrap()).unwrap().framing();
    for file in [photo, link] {
        let error = from_files(&[file], framing, &augment, Device::Cpu).unwrap_err();
        assert!(error.to_string().contains("only be measured on"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}

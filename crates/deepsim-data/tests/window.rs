//! `prepare --window`: which pixels come out, which photos it does not fit, and when a dataset
//! made with it is up to date.
// clippy.toml allows these in #[test] functions but not in the helpers beside them
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::Path;

use common::command::{contents, deepsim_data, names, no_partial_is_left, open, prepare, run};
use common::photo;
use deepsim_data::{DataError, Dataset, Flow, Prepare, Resize, SquareWindow, square};
use image::{Rgb, RgbImage, imageops};
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::{TempDir, tempdir};

/// CelebA's shape and the window that is customary for it.
const SHAPE: (u32, u32) = (178, 218);
const WINDOW: &str = "15,40,148";

fn faces(root: &TempDir, count: u32) {
    let folder = root.path().join("faces");
    fs::create_dir(&folder).unwrap();
    for index in 0..count {
        let (width, height) = SHAPE;
        photo(width, height, index + 1)
            .save(folder.join(format!("{index:06}.png")))
            .unwrap();
    }
}

/// Red is the column and green the row, so that a pixel says where it comes from.
#[test]
fn the_stored_pixels_are_the_windows() {
    let root = tempdir().unwrap();
    fs::create_dir(root.path().join("faces")).unwrap();
    let map = RgbImage::from_fn(SHAPE.0, SHAPE.1, |x, y| Rgb([x as u8, y as u8, 7]));
    map.save(root.path().join("faces/map.png")).unwrap();
    // stored at the window's own side nothing is scaled; the resize changes nothing either
    for (set, resize) in [("a", "squash"), ("b", "short-crop")] {
        let settings = format!("--size 148 --window {WINDOW} --resize {resize}");
        prepare(&root, &format!("faces {set} {settings}")).success();
        let picture = open(&root, set).image(0).unwrap();
        for (x, y, pixel) in picture.enumerate_pixels() {
            assert_eq!(pixel.0, [15 + x as u8, 40 + y as u8, 7], "{x}, {y}");
        }
    }
}

#[test]
fn the_resize_sees_nothing_beyond_the_window() {
    let root = tempdir().unwrap();
    fs::create_dir(root.path().join("faces")).unwrap();
    let inside = photo(148, 148, 3);
    let mut whole = RgbImage::from_pixel(SHAPE.0, SHAPE.1, Rgb([255, 0, 255]));
    imageops::replace(&mut whole, &inside, 15, 40);
    whole.save(root.path().join("faces/0.png")).unwrap();
    prepare(&root, &format!("faces set --size 64 --window {WINDOW}"))
        .success()
        .stderr(contains("window 15,40,148 (left, top, side) of each"));
    let expected = square(&inside, 64, Resize::ShortCrop).unwrap();
    assert_eq!(open(&root, "set").image(0).unwrap(), expected);
}

#[test]
fn a_photo_that_lacks_the_window_is_corrupt() {
    let root = tempdir().unwrap();
    faces(&root, 3);
    // one row too few, and the other way round
    photo(178, 187, 8)
        .save(root.path().join("faces/low.png"))
        .unwrap();
    photo(162, 218, 9)
        .save(root.path().join("faces/narrow.png"))
        .unwrap();
    let settings = format!("faces set --size 32 --window {WINDOW}");
    prepare(&root, &settings)
        .code(1)
        .stderr(contains("2 corrupt images"))
        .stderr(contains(
            "faces/low.png: it is 178x187 pixels and the window 15,40,148",
        ))
        .stderr(contains("faces/narrow.png: it is 162x218 pixels"));
    assert!(!root.path().join("set").exists());
    no_partial_is_left(&root);
    prepare(&root, &format!("{settings} --quarantine 2"))
        .success()
        .stdout(contains("2 corrupt photos left out"));
    let set = open(&root, "set");
    assert_eq!(names(&set), ["000000.png", "000001.png", "000002.png"]);
    run(&root, "inspect set")
        .stdout(contains("(window 15,40,148, short-crop, raw"))
        .stdout(contains("left out    low.png: it is 178x187 pixels"));
}

#[test]
fn the_window_is_part_of_what_a_dataset_is() {
    let root = tempdir().unwrap();
    faces(&root, 3);
    let cut = |set: &str, more: &str| prepare(&root, &format!("faces {set} --size 32 {more}"));
    let window = format!("--window {WINDOW}");
    cut("set", &window).success();
    let before = contents(&root.path().join("set"));
    cut("set", &window)
        .success()
        .stdout("up to date: 3 images in set\n");
    for other in ["--window 15,41,148", ""] {
        cut("set", other)
            .code(2)
            .stderr(contains("the window 15,40,148 of each image").and(contains("--force")));
    }
    assert_eq!(contents(&root.path().join("set")), before);
    cut("whole", "").success();
    cut("whole", &window)
        .code(2)
        .stderr(contains("whole images, no window of them"));
    cut("whole", &format!("{window} --force")).success();
    assert_eq!(open(&root, "whole").digest(), open(&root, "set").digest());

    let output = deepsim_data(&root, "inspect set --format json")
        .output()
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let window = &json[0]["prepared"]["window"];
    assert_eq!(
        *window,
        serde_json::json!({"left": 15, "top": 40, "side": 148})
    );
}

#[test]
fn manifests_without_a_window_do_not_speak_of_one() {
    let root = tempdir().unwrap();
    faces(&root, 2);
    prepare(&root, "faces set --size 32").success();
    let text = fs::read_to_string(root.path().join("set/manifest.json")).unwrap();
    assert!(!text.contains("window"), "{text}");
    prepare(&root, &format!("faces cut --size 32 --window {WINDOW}")).success();
    let file = root.path().join("cut/manifest.json");
    let text = fs::read_to_string(&file).unwrap();
    let field = "\"window\": {\"left\":15,\"top\":40,\"side\":148}";
    assert!(text.contains(field), "{text}");
    let manifest = deepsim_data::Manifest::parse(text.as_bytes(), &file).unwrap();
    assert_eq!(manifest.to_json().unwrap(), text.as_bytes());
    // a window that no image has is a lie, and a field more is none of ours
    for lie in [
        "\"side\":0",
        "\"side\":4294967295",
        "\"side\":148,\"turn\":9",
    ] {
        fs::write(&file, text.replace("\"side\":148", lie)).unwrap();
        assert!(Dataset::open(&root.path().join("cut")).is_err(), "{lie}");
    }
}

#[test]
fn what_is_no_window_is_refused() {
    let root = tempdir().unwrap();
    faces(&root, 1);
    for window in ["15,40", "15,40,0", "-1,40,148", "a,b,c", "15,40,148,0", ""] {
        deepsim_data(&root, "prepare faces set --window")
            .arg(window)
            .assert()
            .code(2)
            .stderr(contains("give LEFT,TOP,SIDE in pixels, such as 15,40,148"));
    }
    assert!(!root.path().join("set").exists());
    run(&root, "prepare --help")
        .success()
        .stdout(contains("--window 15,40,148").and(contains("--window 50,50,150")));

    // the library refuses as the program does
    let window = SquareWindow {
        left: 0,
        top: 0,
        side: 0,
    };
    let request = Prepare {
        window: Some(window),
        ..Prepare::new(root.path().join("faces"), root.path().join("set"), 32)
    };
    let error = deepsim_data::prepare(&request, &mut |_| Flow::Continue).unwrap_err();
    assert!(matches!(error, DataError::Window { .. }), "{error}");
    assert!(!Path::new(&request.out).exists());
}

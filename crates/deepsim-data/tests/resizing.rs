//! The resize filter against vectors that Pillow made (tests/golden/resize.py): no Python needed.
// clippy.toml allows these in #[test] functions but not in the helpers beside them
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{distance, mean_distance};
use deepsim_data::{Resize, square};
use image::RgbImage;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    filter: String,
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
struct Case {
    width: u32,
    height: u32,
    mode: Resize,
    size: u32,
}

/// The pattern of resize.py.
fn pattern(width: u32, height: u32) -> RgbImage {
    let value = |x: u32, y: u32, c: u32| -> u8 {
        if (x / 6 + y / 5).is_multiple_of(3) {
            return 255 * ((x + y + c) % 2) as u8;
        }
        if (x * 7 + y * 3).is_multiple_of(29) {
            return (255 - 100 * c) as u8;
        }
        ((x * 11 + y * 5 + c * 80) % 256) as u8
    };
    RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([value(x, y, 0), value(x, y, 1), value(x, y, 2)])
    })
}

#[test]
fn the_filter_is_pillows_bicubic_but_for_roundings() {
    let golden: Golden = serde_json::from_str(include_str!("golden/resize.json")).unwrap();
    assert_eq!(golden.filter, "BICUBIC");
    let mut rest = include_bytes!("golden/resize.rgb").as_slice();
    let (mut same, mut near, mut all) = (0, 0, 0);
    for case in &golden.cases {
        let (pixels, next) = rest.split_at(3 * (case.size * case.size) as usize);
        rest = next;
        let expected = RgbImage::from_raw(case.size, case.size, pixels.to_vec()).unwrap();
        let found = square(&pattern(case.width, case.height), case.size, case.mode).unwrap();
        let (off, mean) = (
            distance(&found, &expected),
            mean_distance(&found, &expected),
        );
        // 15 bits a weight here, 22 in Pillow: a value near a half may be rounded the other way,
        // once in each pass, and the second pass may double what the first did. A single pixel's
        // mean says nothing.
        assert!(off <= 2, "{case:?}: off by {off}");
        assert!(case.size == 1 || mean < 0.02, "{case:?}: {mean} on average");
        all += pixels.len();
        let pairs = || found.as_raw().iter().zip(pixels);
        same += pairs().filter(|(a, b)| a == b).count();
        near += pairs().filter(|(a, b)| a.abs_diff(**b) <= 1).count();
    }
    assert!(rest.is_empty());
    assert!(same * 100 >= all * 99, "{same} of {all} values are equal");
    let far = all - near;
    assert!(
        far * 10_000 <= all,
        "{far} of {all} values are two levels off"
    );
}

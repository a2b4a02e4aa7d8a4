//! Photos are the right way up, as every viewer shows them, where the benchmark's tools do not say otherwise.
// clippy.toml allows these in #[test] functions but not in the helpers beside them
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::Path;

use common::command::{contents, open, prepare, run};
use common::photo;
use deepsim_data::{decode_rgb8, decode_upright};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, RgbImage};
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::tempdir;

/// An EXIF block with nothing in it but the orientation; `order` is II or MM.
fn exif(order: &[u8; 2], orientation: u16) -> Vec<u8> {
    let little = order == b"II";
    let two = |n: u16| {
        if little {
            n.to_le_bytes()
        } else {
            n.to_be_bytes()
        }
    };
    let four = |n: u32| {
        if little {
            n.to_le_bytes()
        } else {
            n.to_be_bytes()
        }
    };
    let mut block = order.to_vec();
    block.extend(two(42));
    block.extend(four(8));
    block.extend(two(1));
    block.extend([two(0x0112), two(3)].concat());
    block.extend(four(1));
    block.extend([two(orientation), two(0)].concat());
    block.extend(four(0));
    block
}

fn jpeg(image: &RgbImage, exif: &[u8]) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image
        .write_to(&mut bytes, image::ImageFormat::Jpeg)
        .unwrap();
    let bytes = bytes.into_inner();
    let length = (exif.len() as u16 + 8).to_be_bytes();
    let app1 = [&[0xFF, 0xE1], length.as_slice(), b"Exif\0\0", exif].concat();
    [&bytes[..2], &app1, &bytes[2..]].concat()
}

fn png(image: &RgbImage, exif: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = PngEncoder::new(&mut bytes);
    encoder.set_exif_metadata(exif.to_vec()).unwrap();
    let (width, height) = image.dimensions();
    encoder
        .write_image(image, width, height, ExtendedColorType::Rgb8)
        .unwrap();
    bytes
}

fn webp(image: &RgbImage, exif: &[u8]) -> Vec<u8> {
    let (width, height) = image.dimensions();
    let plain = webp::Encoder::from_rgb(image, width, height).encode_lossless();
    let chunk = |kind: &[u8; 4], data: &[u8]| {
        let length = u32::try_from(data.len()).unwrap().to_le_bytes();
        [kind, &length[..], data, &[0][..data.len() % 2]].concat()
    };
    let side = |pixels: u32| (pixels - 1).to_le_bytes();
    let header = [&[8, 0, 0, 0][..], &side(width)[..3], &side(height)[..3]].concat();
    // The lossless image's own chunk lies behind the container's head.
    let parts = [
        chunk(b"VP8X", &header),
        plain[12..].to_vec(),
        chunk(b"EXIF", exif),
    ]
    .concat();
    let length = u32::try_from(parts.len() + 4).unwrap().to_le_bytes();
    [b"RIFF", &length[..], b"WEBP", &parts].concat()
}

/// One strip, nothing compressed.
fn tiff(image: &RgbImage, orientation: u16) -> Vec<u8> {
    const SHORT: u16 = 3;
    tiff_of(image, (SHORT, 1, u32::from(orientation)))
}

/// The same with this type of number, so many of them, and these bytes.
fn tiff_of(image: &RgbImage, (kind, count, value): (u16, u32, u32)) -> Vec<u8> {
    let (width, height) = image.dimensions();
    let entries: [(u16, u16, u32, u32); 10] = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, 8 + 2 + 10 * 12 + 4),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8 + 2 + 10 * 12 + 4 + 6),
        (274, kind, count, value),
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, image.as_raw().len() as u32),
    ];
    let mut bytes = b"II*\0\x08\0\0\0\x0a\0".to_vec();
    for (tag, kind, count, value) in entries {
        bytes.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
        bytes.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
    }
    bytes.extend([0, 0, 0, 0, 8, 0, 8, 0, 8, 0]);
    bytes.extend(image.as_raw());
    bytes
}

/// What a viewer shows, from the definition of the eight orientations.
fn upright(stored: &RgbImage, orientation: u16) -> RgbImage {
    let (w, h) = stored.dimensions();
    let (width, height) = if orientation >= 5 { (h, w) } else { (w, h) };
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = match orientation {
            2 => (w - 1 - x, y),
            3 => (w - 1 - x, h - 1 - y),
            4 => (x, h - 1 - y),
            5 => (y, x),
            6 => (y, h - 1 - x),
            7 => (w - 1 - y, h - 1 - x),
            8 => (w - 1 - y, x),
            _ => (x, y),
        };
        *stored.get_pixel(x, y)
    })
}

#[test]
fn all_eight_orientations_of_all_formats_are_turned() {
    let root = tempdir().unwrap();
    let image = photo(37, 23, 4);
    for orientation in 1..=8 {
        let (little, big) = (exif(b"II", orientation), exif(b"MM", orientation));
        for (name, bytes) in [
            ("a.jpg", jpeg(&image, &little)),
            ("b.jpg", jpeg(&image, &big)),
            ("c.png", png(&image, &little)),
            ("d.webp", webp(&image, &big)),
            ("e.tif", tiff(&image, orientation)),
        ] {
            let path = root.path().join(name);
            fs::write(&path, bytes).unwrap();
            let stored = decode_rgb8(&path).unwrap();
            assert_eq!(stored.dimensions(), (37, 23), "{name}");
            let found = decode_upright(&path).unwrap();
            assert_eq!(
                found,
                upright(&stored, orientation),
                "{name}, {orientation}"
            );
        }
    }
}

/// Pillow turns these, too.
#[test]
fn an_orientation_of_another_type_or_with_more_behind_it_counts() {
    let root = tempdir().unwrap();
    let image = photo(37, 23, 4);
    let path = root.path().join("a.tif");
    // BYTE, SHORT, LONG, SSHORT, SLONG; two SHORTs.
    for number in [
        (1, 1, 6),
        (3, 1, 6),
        (4, 1, 6),
        (8, 1, 6),
        (9, 1, 6),
        (3, 2, 6 | 3 << 16),
    ] {
        fs::write(&path, tiff_of(&image, number)).unwrap();
        let stored = decode_rgb8(&path).unwrap();
        let found = decode_upright(&path).unwrap();
        assert_eq!(found, upright(&stored, 6), "{number:?}");
    }
    // No orientation at all.
    for number in [(8, 1, 0xFFFA), (3, 1, 9), (11, 1, 0x40C0_0000)] {
        fs::write(&path, tiff_of(&image, number)).unwrap();
        assert_eq!(
            decode_upright(&path).unwrap(),
            decode_rgb8(&path).unwrap(),
            "{number:?}"
        );
    }
}

/// Writers differ in how they wrap the block.
#[test]
fn a_block_with_a_prefix_or_behind_an_empty_segment_is_found() {
    let root = tempdir().unwrap();
    let image = photo(37, 23, 4);
    let block = exif(b"MM", 6);
    let named = [b"Exif\0\0".as_slice(), &block].concat();
    let empty = [0xFF, 0xE1, 0, 8, b'E', b'x', b'i', b'f', 0, 0];
    let whole = jpeg(&image, &block);
    let behind = [&whole[..2], &empty, &whole[2..]].concat();
    for (name, bytes) in [
        ("a.png", png(&image, &named)),
        ("b.webp", webp(&image, &named)),
        ("c.jpg", behind),
    ] {
        let path = root.path().join(name);
        fs::write(&path, bytes).unwrap();
        let stored = decode_rgb8(&path).unwrap();
        assert_eq!(
            decode_upright(&path).unwrap(),
            upright(&stored, 6),
            "{name}"
        );
    }
}

/// Programs do not agree which of the two counts.
#[test]
fn a_png_with_two_blocks_is_refused() {
    let root = tempdir().unwrap();
    let image = photo(37, 23, 4);
    let [first, second] = [6, 3].map(|orientation| png(&image, &exif(b"MM", orientation)));
    let at = |bytes: &[u8]| bytes.windows(4).position(|w| w == b"eXIf").unwrap() - 4;
    let (here, there) = (at(&first), at(&second));
    // A length, a name and a sum around the block.
    let chunk = &second[there..there + 12 + exif(b"MM", 3).len()];
    let path = root.path().join("a.png");
    fs::write(&path, [&first[..here], chunk, &first[here..]].concat()).unwrap();
    let error = decode_upright(&path).unwrap_err().to_string();
    assert!(error.contains("two eXIf chunks"), "{error}");
}

#[test]
fn metadata_that_cannot_be_read_counts_as_upright() {
    let root = tempdir().unwrap();
    let image = photo(30, 20, 5);
    let path = root.path().join("a.jpg");
    let mut blocks: Vec<Vec<u8>> = [0, 9, 0xFFFF].map(|number| exif(b"II", number)).into();
    let good = exif(b"MM", 6);
    blocks.extend((0..good.len() - 6).map(|cut| good[..cut].to_vec()));
    blocks.extend([
        b"garbage".to_vec(),
        vec![0xFF; 300],
        b"II*\0\xff\xff\xff\xff".to_vec(),
    ]);
    for block in blocks {
        fs::write(&path, jpeg(&image, &block)).unwrap();
        let found = decode_upright(&path).unwrap();
        assert_eq!(found, decode_rgb8(&path).unwrap(), "{block:?}");
    }
}

/// Three photos, two of which lie on their side.
fn photos(root: &Path, folder: &str) {
    let folder = root.join(folder);
    fs::create_dir_all(&folder).unwrap();
    for (index, orientation) in [6, 1, 8].into_iter().enumerate() {
        let image = photo(48, 32, index as u32);
        let bytes = jpeg(&image, &exif(b"II", orientation));
        fs::write(folder.join(format!("{index}.JPEG")), bytes).unwrap();
    }
}

#[test]
fn prepare_turns_photos_says_how_many_and_records_it() {
    let root = tempdir().unwrap();
    photos(root.path(), "photos");
    let manifest = |set: &str| -> serde_json::Value {
        let file = root.path().join(set).join("manifest.json");
        serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
    };
    prepare(&root, "photos set --size 256")
        .success()
        .stdout(contains("2 turned by their EXIF orientation"));
    assert_eq!(manifest("set")["orientation"], "apply");
    assert_eq!(manifest("set")["turned"], 2);
    let (set, plain) = (open(&root, "set"), open(&root, "photos"));
    for index in 0..3 {
        // a plain folder gives what prepare stores, and so does a photo from elsewhere
        assert_eq!(set.image(index).unwrap(), plain.image(index).unwrap());
        let file = root.path().join(format!("photos/{index}.JPEG"));
        assert_eq!(set.image(index).unwrap(), set.squared(&file).unwrap());
    }
    assert!(
        plain.notes()[0].contains("2 images are turned upright"),
        "{:?}",
        plain.notes()
    );
    prepare(&root, "photos set --size 256")
        .success()
        .stdout(contains("up to date").and(contains("2 turned")));
    prepare(&root, "photos set --size 256 --orientation ignore")
        .code(2)
        .stderr(contains("2 images turned by their EXIF orientation"));

    prepare(&root, "photos flat --orientation ignore")
        .success()
        .stdout(contains("2 with an EXIF orientation that was ignored"));
    // without the field, as older versions wrote it
    assert_eq!(manifest("flat").get("orientation"), None);
    prepare(&root, "photos flat --orientation ignore")
        .success()
        .stdout(contains("up to date"));
    prepare(&root, "photos flat")
        .code(2)
        .stderr(contains("made without turning images").and(contains("--orientation ignore")));
    assert_ne!(open(&root, "flat").image(0).unwrap(), set.image(0).unwrap());
    assert_eq!(open(&root, "flat").image(1).unwrap(), set.image(1).unwrap());
}

#[test]
fn where_nothing_is_turned_the_dataset_is_the_same_whatever_was_asked_for() {
    let root = tempdir().unwrap();
    common::folder(root.path(), 3);
    prepare(&root, "photos a --orientation apply").success();
    prepare(&root, "photos b --orientation ignore").success();
    let files = |set: &str| -> Vec<Vec<u8>> {
        let all = contents(&root.path().join(set));
        all.into_iter().map(|(_, bytes)| bytes).collect()
    };
    assert_eq!(files("a"), files("b"));
    for orientation in ["apply", "ignore"] {
        prepare(&root, &format!("photos a --orientation {orientation}"))
            .success()
            .stdout(contains("up to date"));
    }
}

#[test]
fn ilsvrc_stays_as_its_tools_had_it_unless_asked_for() {
    let root = tempdir().unwrap();
    photos(root.path(), "train/n01440764");
    prepare(&root, "train set").success().stdout(contains(
        "2 with an EXIF orientation that was ignored (--orientation apply turns them)",
    ));
    let set = open(&root, "set");
    let plain = open(&root, "train");
    assert!((0..3).all(|index| set.image(index).unwrap() == plain.image(index).unwrap()));
    prepare(&root, "train upright --orientation apply")
        .success()
        .stdout(contains("2 turned by their EXIF orientation"));
    let upright = open(&root, "upright");
    assert_ne!(upright.image(0).unwrap(), set.image(0).unwrap());
    run(&root, "inspect upright")
        .success()
        .stdout(contains("turned      2 of the source's images"));
}

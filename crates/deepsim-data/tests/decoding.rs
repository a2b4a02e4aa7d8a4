//! Strict decoding: right colours, whole images, and an error for everything else.
// clippy.toml allows these in #[test] functions but not in the helpers beside them
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};

use common::{decoded, distance, mean_distance, photo, python, raw};
use deepsim_data::{DataError, ImageFault, Resize, decode_rgb8, square};
use image::{DynamicImage, RgbImage};
use proptest::prelude::*;
use tempfile::tempdir;

fn fault(path: &Path) -> ImageFault {
    decoded(path).expect_err("no image was expected")
}

/// One file of every kind, and what Pillow makes of each (`NAME.rgb`, 50×41).
const FIXTURES: &str = r#"
import sys, io
from PIL import Image
out, source = sys.argv[1], sys.argv[2]
image = Image.open(source).convert("RGB")
def save(name, picture, expected=None, **options):
    picture.save(f"{out}/{name}", **options)
    shown = expected or Image.open(f"{out}/{name}").convert("RGB")
    open(f"{out}/{name}.rgb", "wb").write(shown.tobytes())
save("baseline.jpg", image, quality=92)
save("chroma444.jpg", image, quality=92, subsampling=0)
save("progressive.jpg", image, quality=92, progressive=True)
save("grey.jpg", image.convert("L"), quality=92)
save("cmyk.jpg", image.convert("CMYK"), quality=92)
save("rgb.png", image)
save("grey.png", image.convert("L"))
save("palette.png", image.quantize(32))
save("bilevel.png", image.convert("1"))
save("lossy.webp", image, quality=80)
save("lossless.webp", image, lossless=True)
save("plain.bmp", image)
save("palette.gif", image.quantize(64))
save("plain.tiff", image)
save("lzw.tif", image, compression="tiff_lzw")
save("plain.ppm", image)
save("plain.pgm", image.convert("L"))
alpha = Image.linear_gradient("L").resize(image.size)
clear = image.convert("RGBA"); clear.putalpha(alpha)
white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), clear).convert("RGB")
save("alpha.png", clear, white)
save("alpha.webp", clear, white, lossless=True)
# Adobe's YCCK: the same data under the transform code 2
data = bytearray(open(f"{out}/cmyk.jpg", "rb").read())
at = data.index(b"Adobe"); assert data[at + 11] == 0; data[at + 11] = 2
open(f"{out}/ycck.jpg", "wb").write(data)
open(f"{out}/ycck.jpg.rgb", "wb").write(Image.open(f"{out}/ycck.jpg").convert("RGB").tobytes())
"#;

const KINDS: [&str; 20] = [
    "baseline.jpg",
    "chroma444.jpg",
    "progressive.jpg",
    "grey.jpg",
    "cmyk.jpg",
    "ycck.jpg",
    "rgb.png",
    "grey.png",
    "palette.png",
    "bilevel.png",
    "alpha.png",
    "lossy.webp",
    "lossless.webp",
    "alpha.webp",
    "plain.bmp",
    "palette.gif",
    "plain.tiff",
    "lzw.tif",
    "plain.ppm",
    "plain.pgm",
];

fn fixtures(root: &Path) -> Vec<PathBuf> {
    let source = root.join("source.png");
    photo(50, 41, 7).save(&source).unwrap();
    python(FIXTURES, &[root, &source]);
    KINDS.iter().map(|kind| root.join(kind)).collect()
}

#[test]
fn every_kind_decodes_as_pillow_does() {
    let root = tempdir().unwrap();
    for path in fixtures(root.path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let expected = raw(&path.with_file_name(format!("{name}.rgb")), 50, 41);
        let allowed = match name {
            "alpha.png" | "alpha.webp" => 1,
            _ => 0,
        };
        let found = distance(&decode_rgb8(&path).unwrap(), &expected);
        assert!(found <= allowed, "{name}: {found} grey levels from Pillow");
    }
}

#[test]
fn a_cut_file_is_an_error_wherever_it_is_cut() {
    let root = tempdir().unwrap();
    for path in fixtures(root.path()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let whole = std::fs::read(&path).unwrap();
        let cut_file = root.path().join(format!("cut-{name}"));
        let picture = decode_rgb8(&path).unwrap();
        let mut accepted = 0;
        let len = whole.len();
        let cuts = (0..len).step_by(len / 60 + 1).chain(len - 8..len);
        for cut in cuts {
            std::fs::write(&cut_file, &whole[..cut]).unwrap();
            match decode_rgb8(&cut_file) {
                Err(_) => drop(fault(&cut_file)),
                // a GIF's last bytes end its blocks and carry no pixels
                Ok(found) => {
                    assert!(
                        name.ends_with(".gif") && found == picture,
                        "{name} cut at {cut}"
                    );
                    accepted += 1;
                }
            }
        }
        assert!(accepted <= 4, "{name}: {accepted} cuts were accepted");
    }
}

#[test]
fn the_content_decides_and_not_the_extension() {
    let root = tempdir().unwrap();
    let picture = photo(20, 30, 1);
    let path = root.path().join("n02105855_2933.JPEG");
    picture
        .save_with_format(&path, image::ImageFormat::Png)
        .unwrap();
    assert_eq!(decode_rgb8(&path).unwrap(), picture);
}

#[test]
fn sixteen_bits_become_eight() {
    let root = tempdir().unwrap();
    let path = root.path().join("deep.png");
    let picture = photo(20, 30, 2);
    DynamicImage::ImageRgb8(picture.clone())
        .into_rgb16()
        .save(&path)
        .unwrap();
    assert_eq!(decode_rgb8(&path).unwrap(), picture);
}

#[test]
fn no_image_is_an_error_that_says_why() {
    let root = tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = root.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    assert!(matches!(fault(&file("empty.jpg", b"")), ImageFault::Empty));
    assert!(matches!(
        fault(&file("text.jpg", b"no image")),
        ImageFault::UnknownFormat
    ));
    let nothing = root.path().join("nothing.jpg");
    assert!(matches!(
        decode_rgb8(&nothing),
        Err(DataError::Missing { .. })
    ));
    assert!(matches!(
        decode_rgb8(root.path()),
        Err(DataError::NotAFile { .. })
    ));
}

/// A PNG whose header promises this size.
fn png_of(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8], data: &[u8]| {
        png.extend((data.len() as u32).to_be_bytes());
        let body = [kind, data].concat();
        png.extend(&body);
        png.extend(crc32fast::hash(&body).to_be_bytes());
    };
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    chunk(b"IHDR", &[size.as_slice(), &[8, 2, 0, 0, 0]].concat());
    chunk(b"IDAT", &[0x78, 0x9C, 3, 0, 0, 0, 0, 1]);
    chunk(b"IEND", &[]);
    png
}

#[test]
fn bombs_are_refused_by_their_header() {
    let root = tempdir().unwrap();
    let path = root.path().join("bomb.png");
    for (width, height) in [(20_001, 10), (10, 20_001), (15_000, 15_000)] {
        std::fs::write(&path, png_of(width, height)).unwrap();
        assert!(
            matches!(fault(&path), ImageFault::TooLarge { .. }),
            "{width}x{height}"
        );
    }
    // beyond what the decoder itself accepts: its refusal or ours
    std::fs::write(&path, png_of(u32::MAX / 2, 3)).unwrap();
    assert!(matches!(
        fault(&path),
        ImageFault::TooLarge { .. } | ImageFault::Refused(_)
    ));
    std::fs::write(&path, png_of(0, 10)).unwrap();
    let refusal = fault(&path).to_string();
    assert!(
        refusal.contains("0x10") || refusal.contains("not supported"),
        "{refusal}"
    );

    // a JPEG with its height and width overwritten
    let jpeg = root.path().join("bomb.jpg");
    photo(16, 16, 1).save(&jpeg).unwrap();
    let mut bytes = std::fs::read(&jpeg).unwrap();
    let frame = bytes
        .windows(2)
        .position(|pair| pair == [0xFF, 0xC0])
        .unwrap();
    for (size, expected) in [
        ([0xFF, 0xFF, 0xFF, 0xFF], "65535"),
        ([0x3A, 0x98, 0x3A, 0x98], "15000x15000"),
    ] {
        bytes[frame + 5..frame + 9].copy_from_slice(&size);
        std::fs::write(&jpeg, &bytes).unwrap();
        let refusal = fault(&jpeg).to_string();
        assert!(refusal.contains(expected), "{refusal}");
    }
}

/// Each scan of a progressive JPEG may be a few bytes that cost a pass over the whole image.
#[test]
fn a_jpeg_has_so_many_scans_and_no_more() {
    let root = tempdir().unwrap();
    fixtures(root.path());
    let whole = std::fs::read(root.path().join("progressive.jpg")).unwrap();
    let begin = whole.windows(2).position(|m| m == [0xFF, 0xDA]).unwrap();
    // Entropy-coded data ends at a marker that is neither a stuffed 0xFF nor a restart.
    let marker = |m: &[u8]| m[0] == 0xFF && !matches!(m[1], 0x00 | 0xD0..=0xD7);
    let end = begin + 2 + whole[begin + 2..].windows(2).position(marker).unwrap();
    let path = root.path().join("scans.jpg");
    let with = |times: usize| {
        let scans = whole[begin..end].repeat(times);
        let file = [&whole[..begin], &scans, &whole[end..]].concat();
        std::fs::write(&path, file).unwrap();
        decode_rgb8(&path).map_err(|_| fault(&path).to_string())
    };
    assert!(with(1).is_ok()); // sixty-four that all bring something: decoding_matrix.rs
    let refusal = with(101).unwrap_err();
    assert!(refusal.contains("more than 100 scans"), "{refusal}");
}

#[test]
fn resizing_is_pillows_bicubic_and_no_other_filter() {
    let root = tempdir().unwrap();
    let script = r#"
import sys
from PIL import Image
image = Image.open(sys.argv[1]).convert("RGB")
side = min(image.size); x = (image.width - side) // 2; y = (image.height - side) // 2
for name, box in [("squash", (0, 0, *image.size)), ("short-crop", (x, y, x + side, y + side))]:
    for size in (64, 256):
        for kind, filter in [("", Image.BICUBIC), ("-bilinear", Image.BILINEAR), ("-lanczos", Image.LANCZOS)]:
            left, top, right, bottom = box
            # columns first, whatever the shape: see golden/resize.py
            narrow = image.resize((size, image.height), filter, box=(left, 0, right, image.height))
            data = narrow.resize((size, size), filter, box=(0, top, size, bottom)).tobytes()
            open(f"{sys.argv[2]}/{name}-{size}{kind}", "wb").write(data)
"#;
    for (width, height) in [(301, 200), (120, 333), (77, 91)] {
        let picture = photo(width, height, width);
        let path = root.path().join("photo.png");
        picture.save(&path).unwrap();
        python(script, &[&path, root.path()]);
        for mode in [Resize::Squash, Resize::ShortCrop] {
            for size in [64, 256] {
                let expected = root.path().join(format!("{}-{size}", mode.name()));
                let expected = raw(&expected, size, size);
                let found = square(&picture, size, mode).unwrap();
                let (off, mean) = (
                    distance(&found, &expected),
                    mean_distance(&found, &expected),
                );
                let case = format!("{width}x{height} {mode:?} {size}");
                assert!(
                    off <= 2 && mean < 0.05,
                    "{case}: off by {off} at most, {mean} on average"
                );
                // the bound tells this filter from its neighbours
                for wrong in ["bilinear", "lanczos"] {
                    let other = root.path().join(format!("{}-{size}-{wrong}", mode.name()));
                    let mean = mean_distance(&found, &raw(&other, size, size));
                    assert!(mean > 0.3, "{case}: {mean} from Pillow's {wrong}");
                }
            }
        }
    }
}

#[test]
fn squash_and_short_crop_differ_in_what_they_keep() {
    // left third red, middle white, right third blue: only the squash keeps the ends
    let flag = RgbImage::from_fn(300, 100, |x, _| {
        image::Rgb([[255, 0, 0], [255, 255, 255], [0, 0, 255]][x as usize / 100])
    });
    let squash = square(&flag, 90, Resize::Squash).unwrap();
    assert_eq!(squash.get_pixel(5, 45).0, [255, 0, 0]);
    assert_eq!(squash.get_pixel(85, 45).0, [0, 0, 255]);
    let crop = square(&flag, 90, Resize::ShortCrop).unwrap();
    // at the border the filter looks beyond the square, as Pillow's does
    let mut inside = crop
        .enumerate_pixels()
        .filter(|(x, _, _)| (3..87).contains(x));
    assert!(
        inside.all(|(_, _, pixel)| pixel.0 == [255; 3]),
        "the middle square is white"
    );
    assert!(matches!(
        square(&flag, 0, Resize::Squash),
        Err(DataError::Size { size: 0 })
    ));
    assert!(matches!(
        square(&flag, 9000, Resize::Squash),
        Err(DataError::Size { .. })
    ));
    assert!(square(&RgbImage::new(0, 5), 10, Resize::Squash).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever is done to a file, decoding ends in an image or an error.
    #[test]
    fn damaged_files_never_panic(
        kind in 0_usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let root = tempdir().unwrap();
        let path = root.path().join(["a.jpg", "a.png", "a.webp", "a.gif"][kind]);
        let whole = photo(33, 21, 3);
        let mut bytes = if kind == 2 {
            webp::Encoder::from_rgb(&whole, 33, 21).encode(80.0).to_vec()
        } else {
            whole.save(&path).unwrap();
            std::fs::read(&path).unwrap()
        };
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        std::fs::write(&path, &bytes).unwrap();
        match decode_rgb8(&path) {
            Ok(picture) => prop_assert!(picture.width() > 0 && picture.height() > 0),
            Err(error) => prop_assert!(error.to_string().contains(path.to_str().unwrap())),
        }
    }

    /// Any shape becomes a square of the size asked for.
    #[test]
    fn squares_are_square(width in 1_u32..200, height in 1_u32..200, size in 1_u32..100) {
        for mode in [Resize::Squash, Resize::ShortCrop] {
            let square = square(&photo(width, height, 1), size, mode).unwrap();
            prop_assert_eq!(square.dimensions(), (size, size));
        }
    }
}

//! Images and folders for the tests, made here.
#![allow(dead_code)] // every test binary uses its own part

pub mod command;

use std::path::{Path, PathBuf};
use std::process::Command;

use deepsim_data::{DataError, ImageFault, decode_rgb8};
use image::{Rgb, RgbImage};

/// Something photographic: gradients, an edge and noise, different for every seed.
pub fn photo(width: u32, height: u32, seed: u32) -> RgbImage {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    let mut noise = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state % 31) as i32 - 15
    };
    let (fw, fh) = (width.max(2) - 1, height.max(2) - 1);
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (x.min(fw), y.min(fh));
        let sky = if (x * (seed % 5 + 2)) / width == 1 {
            60
        } else {
            0
        };
        let base = [
            (x * 200 / fw) as i32 + sky,
            (y * 200 / fh) as i32 + (seed * 37 % 50) as i32,
            ((x + y) * 120 / (fw + fh)) as i32 + (seed * 11 % 90) as i32,
        ];
        Rgb(base.map(|value| (value + noise()).clamp(0, 255) as u8))
    })
}

/// A folder of `count` photos `00.jpg`, `sub/01.png`, … of various shapes.
pub fn folder(root: &Path, count: u32) -> PathBuf {
    let folder = root.join("photos");
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    for index in 0..count {
        let name = match index % 2 {
            0 => format!("{index:02}.jpg"),
            _ => format!("sub/{index:02}.png"),
        };
        photo(90 + index * 7 % 40, 80 + index * 5 % 50, index + 1)
            .save(folder.join(name))
            .unwrap();
    }
    folder
}

/// Runs Python with Pillow and NumPy; `arguments` are `sys.argv[1:]`.
pub fn python(script: &str, arguments: &[&Path]) -> String {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../third_party/py");
    let output = Command::new("python3")
        .args(["-c", script])
        .args(arguments)
        .env("PYTHONPATH", packages)
        .output()
        .expect("python3 is needed: cargo xtask setup");
    assert!(
        output.status.success(),
        "Python failed (Pillow is needed: cargo xtask setup)\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Raw bytes of a file as an RGB image.
pub fn raw(path: &Path, width: u32, height: u32) -> RgbImage {
    RgbImage::from_raw(width, height, std::fs::read(path).unwrap()).unwrap()
}

/// Largest difference between two images of one shape.
pub fn distance(a: &RgbImage, b: &RgbImage) -> u8 {
    assert_eq!(a.dimensions(), b.dimensions());
    a.as_raw()
        .iter()
        .zip(b.as_raw())
        .map(|(a, b)| a.abs_diff(*b))
        .max()
        .unwrap()
}

/// Mean difference between two images of one shape, in grey levels.
pub fn mean_distance(a: &RgbImage, b: &RgbImage) -> f64 {
    let total: u64 = a
        .as_raw()
        .iter()
        .zip(b.as_raw())
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum();
    total as f64 / a.as_raw().len() as f64
}

/// Cuts a file in half.
pub fn halve(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

/// An image, or what is wrong with it.
pub fn decoded(path: &Path) -> Result<RgbImage, ImageFault> {
    decode_rgb8(path).map_err(|error| match error {
        DataError::BadImage { path: named, fault } => {
            assert_eq!(named, path);
            fault
        }
        other => panic!("{}: {other:?}", path.display()),
    })
}

/// A named pipe.
pub fn pipe(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

//! Images for the tests, made here: gradients, a disc and noise.

use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};

/// An image that differs from that of every other seed.
pub fn photo(width: u32, height: u32, seed: u32) -> RgbImage {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    let mut noise = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state % 41) as f32 - 20.0
    };
    let angle = seed as f32 * 0.7;
    let centre = (0.5 + 0.3 * angle.sin(), 0.5 + 0.3 * angle.cos());
    RgbImage::from_fn(width, height, |x, y| {
        let (u, v) = (x as f32 / width as f32, y as f32 / height as f32);
        let inside = (u - centre.0).hypot(v - centre.1) < 0.25;
        let slope = u * angle.cos() + v * angle.sin();
        let ground = [128.0 + 90.0 * slope, 220.0 * v, 200.0 - 120.0 * u];
        let disc = [
            250.0 - 40.0 * (seed % 5) as f32,
            60.0,
            30.0 + 50.0 * (seed % 4) as f32,
        ];
        let colour = if inside { disc } else { ground };
        Rgb(colour.map(|c| (c + noise()).clamp(0.0, 255.0) as u8))
    })
}

/// Writes images number `from`..`to`, 96×80 pixels, JPEG and PNG in turn.
pub fn folder(path: &Path, from: u32, to: u32) -> PathBuf {
    std::fs::create_dir_all(path).unwrap();
    for n in from..to {
        let ending = if n % 2 == 0 { "jpg" } else { "png" };
        photo(96, 80, n + 1)
            .save(path.join(format!("{n:02}.{ending}")))
            .unwrap();
    }
    path.to_owned()
}

//! Animated PNG: what every browser plays, in all colours (a GIF has 256).

use image::RgbImage;

use crate::error::{EvalError, Result};

/// A frame and how long it is shown, in milliseconds.
pub type Frame<'a> = (&'a RgbImage, u16);

/// Frames as an animation that repeats for ever. Viewers that know no animations show the first.
///
/// # Errors
/// No frames, or frames of different sizes.
pub fn encode(frames: &[Frame<'_>]) -> Result<Vec<u8>> {
    let bad = |e: &dyn std::fmt::Display| EvalError::Format(format!("animated PNG: {e}"));
    let Some((first, _)) = frames.first() else {
        return Err(bad(&"no frames"));
    };
    let same = |(f, _): &Frame<'_>| f.dimensions() == first.dimensions();
    if !frames.iter().all(same) {
        return Err(bad(&"frames of different sizes"));
    }
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, first.width(), first.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let count = u32::try_from(frames.len()).map_err(|e| bad(&e))?;
    encoder.set_animated(count, 0).map_err(|e| bad(&e))?;
    let mut writer = encoder.write_header().map_err(|e| bad(&e))?;
    for (frame, milliseconds) in frames {
        writer
            .set_frame_delay(*milliseconds, 1000)
            .and_then(|()| writer.write_image_data(frame.as_raw()))
            .map_err(|e| bad(&e))?;
    }
    writer.finish().map_err(|e| bad(&e))?;
    Ok(out)
}

/// Frames forth and back, so that a repeating animation does not jump; it rests at both ends.
pub fn there_and_back(frames: &[RgbImage], milliseconds: u16) -> Vec<Frame<'_>> {
    let rest = milliseconds.saturating_mul(6);
    let last = frames.len().saturating_sub(1);
    let forth = frames.iter().enumerate().map(|(i, frame)| {
        let ends = i == 0 || i == last;
        (frame, if ends { rest } else { milliseconds })
    });
    let back = frames.iter().rev().skip(1).take(last.saturating_sub(1));
    forth.chain(back.map(|f| (f, milliseconds))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{AnimationDecoder, Rgb, codecs::png::PngDecoder};

    #[test]
    fn another_decoder_finds_every_frame() {
        let frames: Vec<RgbImage> = [10, 90, 170]
            .map(|v| RgbImage::from_pixel(5, 4, Rgb([v, v / 2, 0])))
            .to_vec();
        let bytes = encode(&there_and_back(&frames, 80)).unwrap();
        let decoder = PngDecoder::new(std::io::Cursor::new(&bytes)).unwrap();
        assert!(decoder.is_apng().unwrap());
        let found: Vec<u8> = decoder
            .apng()
            .unwrap()
            .into_frames()
            .map(|f| f.unwrap().buffer().get_pixel(2, 2).0[0])
            .collect();
        assert_eq!(found, [10, 90, 170, 90]);
        assert!(encode(&[]).is_err());
    }
}

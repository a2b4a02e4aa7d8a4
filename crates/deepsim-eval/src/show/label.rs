//! Text in images.

use ab_glyph::{Font, FontRef, Glyph, PxScale, ScaleFont, point};
use image::{Rgb, RgbImage};

use crate::error::{EvalError, Result};

/// Height of a line, pixels.
pub const LINE: u32 = 20;
/// Size of the letters, pixels.
const SIZE: f32 = 16.0;

/// Writes black text. The font's bytes come with a crate: a bare machine has no fonts.
#[derive(Debug)]
pub struct Pen {
    font: FontRef<'static>,
}

impl Pen {
    /// A pen.
    ///
    /// # Errors
    /// A font that cannot be read (never the one that comes along).
    pub fn new() -> Result<Pen> {
        let font = FontRef::try_from_slice(epaint_default_fonts::UBUNTU_LIGHT)
            .map_err(|e| EvalError::Format(format!("the font for labels: {e}")))?;
        Ok(Pen { font })
    }

    fn glyphs(&self, text: &str) -> (Vec<Glyph>, f32) {
        let scaled = self.font.as_scaled(PxScale::from(SIZE));
        let (mut at, mut glyphs, mut before) = (0.0, Vec::new(), None);
        for c in text.chars() {
            let id = scaled.glyph_id(c);
            if let Some(before) = before {
                at += scaled.kern(before, id);
            }
            glyphs.push(id.with_scale_and_position(SIZE, point(at, scaled.ascent())));
            at += scaled.h_advance(id);
            before = Some(id);
        }
        (glyphs, at)
    }

    /// Width of a line of text, pixels.
    pub fn width(&self, text: &str) -> u32 {
        self.glyphs(text).1.ceil() as u32
    }

    /// A line of text with its left upper corner at (x, y). What lies outside is cut off.
    pub fn write(&self, image: &mut RgbImage, (x, y): (u32, u32), text: &str) {
        for glyph in self.glyphs(text).0 {
            let Some(outline) = self.font.outline_glyph(glyph) else {
                continue;
            };
            let corner = outline.px_bounds().min;
            outline.draw(|dx, dy, cover| {
                let (px, py) = (
                    x as i64 + corner.x as i64 + i64::from(dx),
                    y as i64 + corner.y as i64 + i64::from(dy),
                );
                let (Ok(px), Ok(py)) = (u32::try_from(px), u32::try_from(py)) else {
                    return;
                };
                if let Some(Rgb(pixel)) = image.get_pixel_mut_checked(px, py) {
                    // The font is a light one: strokes are made darker than they cover.
                    let keep = 1.0 - (1.6 * cover).clamp(0.0, 1.0);
                    *pixel = pixel.map(|v| (f32::from(v) * keep) as u8);
                }
            });
        }
    }

    /// Text in lines of at most `width` pixels, broken at spaces; a longer word is broken after
    /// its colons (`efficientnet-lite0:` `pooled`), and cut where that is not enough.
    pub fn wrap(&self, text: &str, width: u32) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        let words = text.split_whitespace().flat_map(|word| {
            let fits = self.width(word) <= width;
            let parts: Vec<&str> = if fits {
                vec![word]
            } else {
                word.split_inclusive(':').collect()
            };
            parts
        });
        for word in words {
            let word = self.cut(word, width);
            if let Some(last) = lines.last_mut() {
                let joined = format!("{last} {word}");
                if self.width(&joined) <= width {
                    *last = joined;
                    continue;
                }
            }
            lines.push(word);
        }
        lines
    }

    /// Text that fits into `width` pixels, with an ellipsis where it was longer.
    pub fn cut(&self, text: &str, width: u32) -> String {
        if self.width(text) <= width {
            return text.to_owned();
        }
        let mut kept: String = text.to_owned();
        while kept.pop().is_some() {
            let short = format!("{kept}…");
            if self.width(&short) <= width {
                return short;
            }
        }
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_dark_and_stay_inside() {
        let pen = Pen::new().unwrap();
        let mut image = RgbImage::from_pixel(60, LINE, Rgb([255; 3]));
        pen.write(&mut image, (2, 0), "Wij g");
        let dark = image.pixels().filter(|p| p.0[0] < 100).count();
        assert!((40..600).contains(&dark), "{dark}");
        let right = (0..LINE).all(|y| image.get_pixel(59, y).0 == [255; 3]);
        assert!(right && pen.width("Wij g") < 57);
        // Off the edge: cut, no panic.
        pen.write(&mut image, (50, 15), "long text beyond");
    }

    #[test]
    fn lines_are_no_wider_than_asked() {
        let pen = Pen::new().unwrap();
        let lines = pen.wrap(
            "feature, adversarial and image loss of extraordinarylength",
            90,
        );
        assert!(lines.len() > 2, "{lines:?}");
        assert!(lines.iter().all(|l| pen.width(l) <= 90), "{lines:?}");
        assert!(lines.iter().any(|l| l.ends_with('…')), "{lines:?}");
        let layer = pen.wrap("efficientnet-lite0:pooled", 150);
        assert_eq!(layer, ["efficientnet-lite0:", "pooled"]);
    }
}

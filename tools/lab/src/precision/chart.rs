//! What every drawn chart needs: a font and a PNG.

use std::sync::Once;

use anyhow::{Context, Result, anyhow};
use plotters::style::{FontStyle, register_font};

/// The font that [`provide_font`] brings.
pub const FONT: &str = "ours";

/// plotters draws no text without a font, and a bare machine has none.
pub fn provide_font() -> Result<()> {
    static ONCE: Once = Once::new();
    let mut refused = false;
    ONCE.call_once(|| {
        let bytes = epaint_default_fonts::UBUNTU_LIGHT;
        refused = register_font(FONT, FontStyle::Normal, bytes).is_err();
    });
    if refused {
        Err(anyhow!("the font that xtask brings cannot be read"))
    } else {
        Ok(())
    }
}

/// RGB pixels as the bytes of a PNG.
///
/// # Errors
/// None that is known of.
pub fn encode(pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header().context("writing the figure")?;
    writer
        .write_image_data(pixels)
        .context("writing the figure")?;
    writer.finish().context("writing the figure")?;
    Ok(bytes)
}

//! What every drawn figure needs: a font, axes and a PNG.

use std::ops::Range;
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use crate::numbers::significant;

/// The font that [`figure`] brings.
pub const FONT: &str = "ours";

/// A figure or a part of one.
pub type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// Axes that curves are drawn between.
pub type Chart<'a> =
    ChartContext<'a, BitMapBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// A white figure with what `paint` draws on it, as the bytes of a PNG.
///
/// # Errors
/// None that is known of.
pub fn figure(
    (width, height): (u32, u32),
    paint: impl FnOnce(&Area) -> Result<()>,
) -> Result<Vec<u8>> {
    provide_font()?;
    let mut pixels = vec![0u8; (width * height * 3) as usize];
    {
        let root = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        root.fill(&WHITE)?;
        paint(&root)?;
        root.present()?;
    }
    encode(&pixels, width, height)
}

/// Axes with their labels.
///
/// # Errors
/// None that is known of.
pub fn axes<'a>(
    area: &Area<'a>,
    title: &str,
    x_name: &str,
    x: Range<f64>,
    y: Range<f64>,
) -> Result<Chart<'a>> {
    let span = y.end - y.start;
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 18))
        .margin(8)
        .margin_right(18)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(0xdd, 0xdd, 0xdd))
        .x_desc(x_name)
        .axis_desc_style((FONT, 14))
        .x_labels(6)
        .y_labels(6)
        .label_style((FONT, 14))
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| label(*y, span))
        .draw()?;
    Ok(chart)
}

/// Axes of logarithms to base 2 with labels of the values themselves: a power of the size is a straight line.
///
/// # Errors
/// None that is known of.
pub fn log_axes<'a>(
    area: &Area<'a>,
    title: &str,
    x_name: &str,
    x: Range<f64>,
    y: Range<f64>,
) -> Result<Chart<'a>> {
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 18))
        .margin(8)
        .margin_right(18)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(0xdd, 0xdd, 0xdd))
        .x_desc(x_name)
        .axis_desc_style((FONT, 14))
        .x_labels(5)
        .y_labels(6)
        .label_style((FONT, 14))
        .x_label_formatter(&|x| significant(x.exp2(), 2))
        .y_label_formatter(&|y| significant(y.exp2(), 2))
        .draw()?;
    Ok(chart)
}

/// `45`, `45.2`, `1.2e8`: as many digits as tell the labels of an axis of this span apart.
fn label(y: f64, span: f64) -> String {
    match span {
        1e5.. => format!("{y:.1e}"),
        10.0.. => format!("{y:.0}"),
        1.0.. => format!("{y:.1}"),
        _ => format!("{y:.2}"),
    }
}

/// plotters draws no text without a font, and a bare machine has none.
fn provide_font() -> Result<()> {
    static TAKEN: LazyLock<bool> = LazyLock::new(|| {
        register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT).is_ok()
    });
    ensure!(*TAKEN, "the font that xtask brings cannot be read");
    Ok(())
}

/// RGB pixels as the bytes of a PNG.
fn encode(pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>> {
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

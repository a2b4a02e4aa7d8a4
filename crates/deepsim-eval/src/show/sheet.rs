//! Sheets of images with words: rows with a label on the left, columns with one above.

use deepsim_nets::NetError;
use deepsim_nets::images::{caffe_to_rgb, check_images};
use image::{Rgb, RgbImage, imageops};
use tch::{Device, Kind, Tensor};

use crate::error::{EvalError, Result};
use crate::show::label::{LINE, Pen};

/// Pixels between images.
const GAP: u32 = 4;
/// Pixels around the sheet.
const MARGIN: u32 = 8;
/// Widest label of a row, pixels.
const LABEL: u32 = 150;
/// Largest side of a sheet: beyond it viewers give up.
const MAX_SIDE: u32 = 30_000;

/// One row.
#[derive(Clone, Debug)]
pub struct Row {
    /// What stands on the left.
    pub label: String,
    /// Its images; without any, the label is a heading over the whole width.
    pub cells: Vec<RgbImage>,
}

/// A sheet before it is drawn.
#[derive(Clone, Debug, Default)]
pub struct Sheet {
    /// What stands above, if anything.
    pub title: String,
    /// What stands above each column, if anything.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
}

impl Sheet {
    /// An empty sheet with a title.
    pub fn new(title: &str) -> Sheet {
        Sheet {
            title: title.to_owned(),
            ..Sheet::default()
        }
    }

    /// Adds a row.
    pub fn row(&mut self, label: &str, cells: Vec<RgbImage>) {
        self.rows.push(Row {
            label: label.to_owned(),
            cells,
        });
    }

    /// Adds a heading.
    pub fn heading(&mut self, label: &str) {
        self.row(label, Vec::new());
    }

    /// Draws the sheet, black on white.
    ///
    /// # Errors
    /// No images, or more than an image file may hold.
    pub fn draw(&self) -> Result<RgbImage> {
        let pen = Pen::new()?;
        let all = || self.rows.iter().flat_map(|r| &r.cells);
        let (Some(cell), Some(columns)) = (
            all().map(RgbImage::width).max(),
            self.rows.iter().map(|r| r.cells.len()).max(),
        ) else {
            return Err(EvalError::Format("a sheet without images".to_owned()));
        };
        let labels: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|r| pen.wrap(&r.label, LABEL))
            .collect();
        let label_width = self
            .rows
            .iter()
            .zip(&labels)
            .filter(|(r, _)| !r.cells.is_empty())
            .flat_map(|(_, lines)| lines.iter().map(|l| pen.width(l)))
            .max()
            .map_or(0, |w| if w > 0 { w + 2 * GAP } else { 0 });
        let left = MARGIN + label_width;
        let columns = u32::try_from(columns).unwrap_or(u32::MAX);
        let width = columns
            .saturating_mul(cell.saturating_add(GAP))
            .saturating_add(left + MARGIN - GAP);
        let inner = width.saturating_sub(2 * MARGIN);
        let title = pen.wrap(&self.title, inner);
        let height_of = |row: &Row, lines: &[String]| {
            let text = u32::try_from(lines.len()).unwrap_or(0) * LINE;
            match row.cells.iter().map(RgbImage::height).max() {
                Some(cells) => cells.max(text) + GAP,
                None => pen.wrap(&row.label, inner).len() as u32 * LINE + GAP,
            }
        };
        let head = title.len() as u32 * LINE + if self.columns.is_empty() { 0 } else { LINE };
        let height = self
            .rows
            .iter()
            .zip(&labels)
            .map(|(r, l)| height_of(r, l))
            .fold(2 * MARGIN - GAP + head, u32::saturating_add);
        if width > MAX_SIDE || height > MAX_SIDE {
            return Err(EvalError::Format(format!(
                "the sheet would be {width}x{height} pixels; ask for fewer images"
            )));
        }
        let mut image = RgbImage::from_pixel(width, height, Rgb([255; 3]));
        let mut y = MARGIN;
        for line in &title {
            pen.write(&mut image, (MARGIN, y), line);
            y += LINE;
        }
        if !self.columns.is_empty() {
            for (i, name) in (0u32..).zip(&self.columns) {
                let name = pen.cut(name, cell);
                let centred = cell.saturating_sub(pen.width(&name)) / 2;
                pen.write(&mut image, (left + i * (cell + GAP) + centred, y), &name);
            }
            y += LINE;
        }
        for (row, lines) in self.rows.iter().zip(&labels) {
            let height = height_of(row, lines);
            if row.cells.is_empty() {
                for (i, line) in (0u32..).zip(pen.wrap(&row.label, inner)) {
                    pen.write(&mut image, (MARGIN, y + i * LINE), &line);
                }
            } else {
                let text = lines.len() as u32 * LINE;
                let top = y + (height - GAP).saturating_sub(text) / 2;
                for (i, line) in (0u32..).zip(lines) {
                    pen.write(&mut image, (MARGIN, top + i * LINE), line);
                }
                for (i, shown) in (0i64..).zip(&row.cells) {
                    let x = i64::from(left) + i * i64::from(cell + GAP);
                    imageops::replace(&mut image, shown, x, i64::from(y));
                }
            }
            y += height;
        }
        Ok(image)
    }

    /// The sheet as a PNG file.
    ///
    /// # Errors
    /// As [`Sheet::draw`].
    pub fn png(&self) -> Result<Vec<u8>> {
        png(&self.draw()?)
    }
}

/// An image as a PNG file.
///
/// # Errors
/// What the encoder refuses.
pub fn png(image: &RgbImage) -> Result<Vec<u8>> {
    let mut out = std::io::Cursor::new(Vec::new());
    image
        .write_to(&mut out, image::ImageFormat::Png)
        .map_err(|e| EvalError::Format(format!("PNG: {e}")))?;
    Ok(out.into_inner())
}

/// Images `[N,3,H,W]` in Caffe units as images, clipped to 0–255.
///
/// # Errors
/// A tensor of another shape.
pub fn images(caffe: &Tensor) -> Result<Vec<RgbImage>> {
    check_images("a sheet", caffe)?;
    let size = caffe.size();
    let bytes = caffe_to_rgb(caffe)?
        .f_round()?
        .f_clamp(0.0, 255.0)?
        .f_to_kind(Kind::Uint8)?
        .f_to_device(Device::Cpu)?
        .f_permute([0, 2, 3, 1])?
        .f_contiguous()?;
    let mut flat = vec![0u8; bytes.numel()];
    let n = flat.len();
    bytes.f_view([-1])?.f_copy_data(&mut flat, n)?;
    let (h, w) = (size[2] as u32, size[3] as u32);
    flat.chunks_exact(3 * (h * w) as usize)
        .map(|one| {
            RgbImage::from_raw(w, h, one.to_vec())
                .ok_or_else(|| NetError::Spec("an image of the wrong size".into()).into())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(v: u8) -> RgbImage {
        RgbImage::from_pixel(40, 30, Rgb([v, 0, 0]))
    }

    #[test]
    fn pictures_stand_right_of_labels_and_below_titles() {
        let mut sheet = Sheet::new("A title");
        sheet.columns = vec!["a".into(), "b".into()];
        sheet.row("first", vec![plain(10), plain(20)]);
        sheet.heading("a heading");
        sheet.row("second", vec![plain(30)]);
        let image = sheet.draw().unwrap();
        let pen = Pen::new().unwrap();
        let left = MARGIN + pen.width("second") + 2 * GAP;
        assert_eq!(image.width(), left + 2 * 40 + GAP + MARGIN);
        let top = MARGIN + 2 * LINE;
        assert_eq!(image.get_pixel(left, top).0, [10, 0, 0]);
        assert_eq!(image.get_pixel(left + 44, top + 29).0, [20, 0, 0]);
        assert_eq!(image.get_pixel(left + 41, top).0, [255; 3]);
        let second = top + 34 + LINE + GAP;
        assert_eq!(image.get_pixel(left, second).0, [30, 0, 0]);
        assert_eq!(image.height(), second + 30 + MARGIN);
        let decoded = image::load_from_memory(&sheet.png().unwrap()).unwrap();
        assert_eq!(decoded.to_rgb8(), image);
    }

    #[test]
    fn empty_and_enormous_sheets_are_refused() {
        assert!(Sheet::new("x").draw().is_err());
        let mut sheet = Sheet::new("x");
        sheet.row("", vec![plain(1); 1000]);
        let text = sheet.draw().unwrap_err().to_string();
        assert!(text.contains("fewer images"), "{text}");
    }
}

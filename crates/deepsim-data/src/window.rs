//! A square window of source images, cut out before they are scaled.
//!
//! Images of face datasets show more than the face, and users cut the same window out of every
//! image: 15,40,148 out of CelebA's aligned images (178×218), 50,50,150 out of LFW's funneled ones
//! (250×250). The window is cut out before it is scaled, so that the resize filter reads no pixels
//! beyond it. The result is square whatever [`Resize`] says.
//!
//! [`Resize`]: crate::square::Resize

use std::fmt;
use std::str::FromStr;

use image::{RgbImage, imageops};
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::fault::ImageFault;
use crate::limits::MAX_SIDE;

/// A square window of an image, in the image's pixels; `15,40,148` as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SquareWindow {
    /// Columns left of it.
    pub left: u32,
    /// Rows above it.
    pub top: u32,
    /// Width and height, at least 1.
    pub side: u32,
}

impl SquareWindow {
    /// Refuses a window that no image has: one without pixels, or behind the largest image
    /// that is decoded.
    pub(crate) fn check(self) -> Result<(), DataError> {
        let fits = |start: u32| {
            let end = u64::from(start) + u64::from(self.side);
            end <= MAX_SIDE as u64
        };
        if self.side > 0 && fits(self.left) && fits(self.top) {
            Ok(())
        } else {
            Err(DataError::Window {
                text: self.to_string(),
            })
        }
    }

    /// Cuts the window out of an image.
    pub(crate) fn cut(self, image: &RgbImage) -> Result<RgbImage, ImageFault> {
        let (width, height) = image.dimensions();
        let fits = |start: u32, len: u32| {
            start
                .checked_add(self.side)
                .is_some_and(|end| self.side > 0 && end <= len)
        };
        if !fits(self.left, width) || !fits(self.top, height) {
            return Err(ImageFault::OutsideWindow {
                width,
                height,
                window: self.to_string(),
            });
        }
        let (left, top, side) = (self.left, self.top, self.side);
        Ok(imageops::crop_imm(image, left, top, side, side).to_image())
    }
}

impl fmt::Display for SquareWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.left, self.top, self.side)
    }
}

impl FromStr for SquareWindow {
    type Err = DataError;

    /// Reads `LEFT,TOP,SIDE`.
    ///
    /// # Errors
    /// [`DataError::Window`] for anything but three whole numbers, a side of 0, or a window
    /// behind the largest image that is decoded.
    fn from_str(text: &str) -> Result<Self, DataError> {
        let wrong = || DataError::Window { text: text.into() };
        let numbers: Vec<u32> = text
            .splitn(4, ',')
            .map(|number| number.trim().parse().map_err(|_| wrong()))
            .collect::<Result<_, _>>()?;
        let [left, top, side] = numbers[..] else {
            return Err(wrong());
        };
        let window = Self { left, top, side };
        window.check()?;
        Ok(window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_window_are_the_same() {
        let window: SquareWindow = "15,40,148".parse().unwrap();
        let (left, top, side) = (15, 40, 148);
        assert_eq!(window, SquareWindow { left, top, side });
        assert_eq!(window.to_string(), "15,40,148");
        assert_eq!(" 15, 40 ,148".parse::<SquareWindow>().unwrap(), window);
    }

    #[test]
    fn what_is_no_window_is_refused_with_an_example() {
        for text in [
            "",
            "148",
            "15,40",
            "15,40,",
            "15,40,148,2",
            "15,40,0",
            "-1,40,148",
            "1.5,40,148",
            "15;40;148",
            "4294967295,0,1",
            "0,19999,2",
        ] {
            let message = text.parse::<SquareWindow>().unwrap_err().to_string();
            assert!(message.contains(&format!("{text:?}")), "{message}");
            assert!(message.contains("15,40,148"), "{message}");
        }
    }

    #[test]
    fn a_window_lies_whole_in_the_image_or_is_a_fault() {
        let image = RgbImage::from_fn(5, 4, |x, y| image::Rgb([x as u8, y as u8, 9]));
        let cut = |left, top, side| SquareWindow { left, top, side }.cut(&image);
        let inside = cut(2, 1, 3).unwrap();
        assert_eq!(inside.dimensions(), (3, 3));
        assert_eq!(inside.get_pixel(0, 0).0, [2, 1, 9]);
        assert_eq!(inside.get_pixel(2, 2).0, [4, 3, 9]);
        for (left, top, side) in [(3, 1, 3), (2, 2, 3), (0, 0, 5), (0, 0, 0), (u32::MAX, 0, 2)] {
            let fault = cut(left, top, side).unwrap_err().to_string();
            assert!(fault.contains("5x4"), "{fault}");
            assert!(fault.contains(&format!("{left},{top},{side}")), "{fault}");
        }
    }
}

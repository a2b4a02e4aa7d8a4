//! How images of any size become those of a dataset: what must be known to treat another image the same way.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::orientation::{Orientation, decode_upright};
use crate::source::is_ilsvrc_name;
use crate::square::{MAX_SIZE, Resize, square};
use crate::window::SquareWindow;

/// The window that is cut out, the side that images are stored with, and how they become square.
///
/// As text `256`, `256:squash` or `64:short-crop:15,40,148`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Framing {
    /// Side of the stored images, in pixels.
    pub size: u32,
    /// How an image becomes square.
    pub resize: Resize,
    /// What is cut out of it before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<SquareWindow>,
    /// Whether images are turned upright; of ILSVRC-2012's ([`Orientation::Ignore`]) those that have a name of its kind
    /// are not.
    pub orientation: Orientation,
}

impl Framing {
    /// What a plain folder of images has, and what `prepare` does where it is told nothing else.
    pub const USUAL: Framing = Framing {
        size: 256,
        resize: Resize::ShortCrop,
        window: None,
        orientation: Orientation::Apply,
    };

    /// An image file as a dataset of this framing would hold it.
    ///
    /// # Errors
    /// Those of [`decode_rgb8`](crate::decode_rgb8); an image in which the window does not lie whole.
    pub fn read(&self, path: &Path) -> Result<RgbImage, DataError> {
        let stays = self.orientation == Orientation::Ignore;
        let image = if stays && is_ilsvrc_name(&path.to_string_lossy()) {
            crate::decode_rgb8(path)?
        } else {
            decode_upright(path)?
        };
        self.apply(image, path)
    }

    /// The same of a decoded image; `path` names it in errors.
    ///
    /// # Errors
    /// An image in which the window does not lie whole, or without pixels.
    fn apply(&self, mut image: RgbImage, path: &Path) -> Result<RgbImage, DataError> {
        if let Some(window) = self.window {
            image = window.cut(&image).map_err(|fault| DataError::BadImage {
                path: path.into(),
                fault,
            })?;
        }
        square(&image, self.size, self.resize)
    }
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.size, self.resize.name())?;
        match self.window {
            Some(window) => write!(f, ":{window}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Framing {
    type Err = String;

    fn from_str(text: &str) -> Result<Framing, String> {
        let mut parts = text.splitn(3, ':');
        let size = parts.next().unwrap_or_default();
        let size = size
            .parse()
            .ok()
            .filter(|size| (1..=MAX_SIZE).contains(size))
            .ok_or_else(|| format!("`{size}` is no size: write SIZE[:squash|short-crop[:LEFT,TOP,SIDE]], 256 for one"))?;
        let resize = match parts.next() {
            None => Resize::ShortCrop,
            Some(name) => [Resize::Squash, Resize::ShortCrop]
                .into_iter()
                .find(|resize| resize.name() == name)
                .ok_or_else(|| format!("`{name}` is neither squash nor short-crop"))?,
        };
        let window = match parts.next() {
            None => None,
            Some(window) => Some(window.parse::<SquareWindow>().map_err(|e| e.to_string())?),
        };
        Ok(Framing {
            size,
            resize,
            window,
            orientation: Orientation::Apply,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_as_it_is_written() {
        for text in ["256:short-crop", "64:squash", "64:short-crop:15,40,148"] {
            assert_eq!(text.parse::<Framing>().unwrap().to_string(), text);
        }
        assert_eq!("256".parse::<Framing>().unwrap(), Framing::USUAL);
        for text in ["", "0", "x", "9999999", "256:crop", "256:squash:1,2"] {
            assert!(text.parse::<Framing>().is_err(), "{text}");
        }
    }
}

//! Which of how many parts of a dataset: `3/16`.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One of the parts that several processes prepare of one dataset; `3/16` as text, the third of sixteen.
///
/// A part is a stretch of the source's sorted list of images. The stretches differ by one image at most. With more
/// parts than images the last parts are empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Share {
    /// Counted from 1.
    number: u32,
    of: u32,
}

/// Why a text is no [`Share`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ShareFault {
    /// Not two whole numbers and a slash.
    #[error("{text:?} is no part: give NUMBER/OF, such as 3/16 for the third of sixteen")]
    Form {
        /// The text as given.
        text: String,
    },
    /// A dataset of no parts.
    #[error(
        "a dataset has at least one part: give NUMBER/OF, such as 3/16 for the third of sixteen"
    )]
    NoParts,
    /// A number that no part has.
    #[error("there is no part {number} of {of}: parts are counted from 1 to {of}")]
    Outside {
        /// The number as given.
        number: u32,
        /// How many parts there are.
        of: u32,
    },
}

impl Share {
    /// Part `number` of `of`, counted from 1.
    ///
    /// # Errors
    /// [`ShareFault::NoParts`], [`ShareFault::Outside`].
    pub fn new(number: u32, of: u32) -> Result<Self, ShareFault> {
        match (number, of) {
            (_, 0) => Err(ShareFault::NoParts),
            (number, of) if number == 0 || number > of => Err(ShareFault::Outside { number, of }),
            (number, of) => Ok(Self { number, of }),
        }
    }

    /// Which part it is, counted from 1.
    #[must_use]
    pub fn number(self) -> u32 {
        self.number
    }

    /// How many parts there are.
    #[must_use]
    pub fn of(self) -> u32 {
        self.of
    }

    /// Its stretch of so many images: the first parts have one more where the images do not divide.
    pub(crate) fn range(self, images: usize) -> Range<usize> {
        let (of, before) = (self.of as usize, self.number as usize - 1);
        let (each, more) = (images / of, images % of);
        let start = before * each + before.min(more);
        start..start + each + usize::from(before < more)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl FromStr for Share {
    type Err = ShareFault;

    /// Reads `NUMBER/OF`.
    ///
    /// # Errors
    /// A [`ShareFault`] that says what to give.
    fn from_str(text: &str) -> Result<Self, ShareFault> {
        let number = |text: &str| text.trim().parse::<u32>().ok();
        let numbers = text.split_once('/');
        let numbers = numbers.and_then(|(a, b)| Some((number(a)?, number(b)?)));
        match numbers {
            Some((number, of)) => Self::new(number, of),
            None => Err(ShareFault::Form { text: text.into() }),
        }
    }
}

impl TryFrom<String> for Share {
    type Error = ShareFault;

    fn try_from(text: String) -> Result<Self, ShareFault> {
        text.parse()
    }
}

impl From<Share> for String {
    fn from(share: Share) -> Self {
        share.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_as_text_is_the_part() {
        let share: Share = "3/16".parse().unwrap();
        assert_eq!((share.number(), share.of()), (3, 16));
        assert_eq!(share.to_string(), "3/16");
        assert_eq!(serde_json::to_string(&share).unwrap(), "\"3/16\"");
        assert_eq!(serde_json::from_str::<Share>("\"3/16\"").unwrap(), share);
        assert!(serde_json::from_str::<Share>("\"17/16\"").is_err());
    }

    #[test]
    fn what_is_no_part_is_refused_with_what_to_give() {
        for (text, expected) in [
            ("0/4", "counted from 1 to 4"),
            ("5/4", "counted from 1 to 4"),
            ("1/0", "at least one part"),
            ("0/0", "at least one part"),
            ("x", "such as 3/16"),
            ("", "such as 3/16"),
            ("3", "such as 3/16"),
            ("3/", "such as 3/16"),
            ("/16", "such as 3/16"),
            ("3/16/2", "such as 3/16"),
            ("-1/4", "such as 3/16"),
            ("1.5/4", "such as 3/16"),
            ("1/99999999999", "such as 3/16"),
        ] {
            let message = text.parse::<Share>().unwrap_err().to_string();
            assert!(message.contains(expected), "{text:?}: {message}");
        }
    }

    #[test]
    fn parts_of_any_number_are_all_images_once() {
        for images in [0, 1, 2, 7, 16, 100] {
            for of in [1, 2, 3, 7, 16, 101] {
                let ranges: Vec<_> = (1..=of)
                    .map(|number| Share::new(number, of).unwrap().range(images))
                    .collect();
                let all: Vec<usize> = ranges.iter().cloned().flatten().collect();
                assert_eq!(all, (0..images).collect::<Vec<_>>(), "{images} in {of}");
                let sizes = ranges.iter().map(ExactSizeIterator::len);
                let (least, most) = (sizes.clone().min().unwrap(), sizes.max().unwrap());
                assert!(most - least <= 1, "{images} in {of}");
            }
        }
    }
}

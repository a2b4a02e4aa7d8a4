//! What a source is: ILSVRC-2012 in one of its two forms, or any collection of images.
//!
//! A few stray images do not change that. If a single image, or one in a hundred, is not ILSVRC-2012's (a cover
//! beside the synset folders), the source still counts as ILSVRC-2012, and the stray images are skipped and named.
//! With more of them the source is a collection of images, and the reason is reported.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use crate::error::DataError;
use crate::square::Resize;

/// Strays that a message names.
const NAMED: usize = 3;

/// What a source was recognised as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Any images.
    Images,
    /// ILSVRC-2012 training: every image lies in a folder named by its synset (`n01440764`).
    IlsvrcTrain,
    /// ILSVRC-2012 validation: every image is called `ILSVRC2012_val_NNNNNNNN`.
    IlsvrcVal,
}

impl Layout {
    /// In words.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Images => "a collection of images",
            Self::IlsvrcTrain => "ILSVRC-2012 training images",
            Self::IlsvrcVal => "ILSVRC-2012 validation images",
        }
    }

    /// The usual way to make its images square: ILSVRC was squashed by the Caffe tools.
    #[must_use]
    pub fn resize(self) -> Resize {
        match self {
            Self::Images => Resize::ShortCrop,
            Self::IlsvrcTrain | Self::IlsvrcVal => Resize::Squash,
        }
    }
}

/// What [`recognise`] found.
pub(super) struct Recognised {
    pub layout: Layout,
    /// Images that are not taken because they are not ILSVRC-2012's, by index, ascending.
    pub strays: Vec<usize>,
    pub not_ilsvrc: Option<String>,
}

pub(super) fn recognise(root: &Path, entries: &[Entry]) -> Result<Recognised, DataError> {
    // validation images may be sorted into synset folders as well
    let is_val = |entry: &Entry| is_validation(&entry.path);
    let is_train = |entry: &Entry| synset(root, &entry.path).is_some() && !is_val(entry);
    let val = entries.iter().find(|entry| is_val(entry));
    let train = entries.iter().find(|entry| is_train(entry));
    if let (Some(train), Some(val)) = (train, val) {
        let (train, val) = (train.path.clone(), val.path.clone());
        return Err(DataError::MixedLayout {
            path: root.into(),
            train,
            val,
        });
    }
    let (layout, reason) = match (train, val) {
        (None, None) => {
            return Ok(Recognised {
                layout: Layout::Images,
                strays: Vec::new(),
                not_ilsvrc: None,
            });
        }
        (Some(_), _) => (Layout::IlsvrcTrain, "lie outside the synset folders"),
        (None, Some(_)) => (Layout::IlsvrcVal, "are not called ILSVRC2012_val_NNNNNNNN"),
    };
    let is_its = |entry: &Entry| match layout {
        Layout::IlsvrcTrain => is_train(entry),
        _ => is_val(entry),
    };
    let strays: Vec<usize> = (0..entries.len())
        .filter(|&index| !is_its(&entries[index]))
        .collect();
    let own = entries.len() - strays.len();
    if strays.len() <= (own / 100).max(1) && strays.len() < own {
        return Ok(Recognised {
            layout,
            strays,
            not_ilsvrc: None,
        });
    }
    let mut names: Vec<&str> = strays
        .iter()
        .map(|&index| entries[index].path.as_str())
        .collect();
    names.truncate(NAMED);
    let more = if strays.len() > NAMED { ", …" } else { "" };
    let not_ilsvrc = format!(
        "not {}, which {own} of {} images look like: {} {reason} ({}{more})",
        layout.describe(),
        entries.len(),
        strays.len(),
        names.join(", ")
    );
    Ok(Recognised {
        layout: Layout::Images,
        strays: Vec::new(),
        not_ilsvrc: Some(not_ilsvrc),
    })
}

/// Is it one of ILSVRC-2012's validation images, by its name?
fn is_validation(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or_default();
    let stem = file.split('.').next().unwrap_or_default();
    let number = stem.strip_prefix("ILSVRC2012_val_");
    number.is_some_and(|digits| digits.len() == 8 && all_digits(digits))
}

/// Is it called as one of ILSVRC-2012's images, for training or validation?
pub(crate) fn is_ilsvrc_name(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or_default();
    let synset = file.split('_').next().unwrap_or_default();
    is_validation(path) || (file.contains('_') && is_synset(synset))
}

/// The synset whose folder an image lies in; the source itself may be that folder.
pub(super) fn synset(root: &Path, path: &str) -> Option<String> {
    let folder = match path.rsplit_once('/') {
        Some((folders, _)) => folders.rsplit('/').next()?.to_owned(),
        None => root.file_stem()?.to_str()?.to_owned(),
    };
    is_synset(&folder).then_some(folder)
}

fn is_synset(name: &str) -> bool {
    name.strip_prefix('n')
        .is_some_and(|digits| digits.len() == 8 && all_digits(digits))
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

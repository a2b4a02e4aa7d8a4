//! `[data]`: the images.

use std::path::PathBuf;

use deepsim_data::{BadImages, ONLY_MEASURED, only_measured};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Checked, at_least_one, complain};

/// `[data]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Training images: a prepared dataset or a folder of images.
    pub train: PathBuf,
    /// Held-out images, the same way.
    pub test: PathBuf,
    /// Side of the square crops, pixels.
    pub crop: u32,
    /// Whether half of the training crops are mirrored left to right.
    pub mirror: bool,
    /// Side of the window that becomes a crop, as a fraction of the stored image, drawn from
    /// this range (and resized to `crop`). Without it the window is `crop` pixels, as in the paper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<[f32; 2]>,
    /// How many unreadable images to leave out (and count) before giving up; 0 fails at the
    /// first.
    #[serde(default)]
    pub quarantine: usize,
}

impl Data {
    pub(super) fn check(&self) -> Checked {
        at_least_one(&[("data.crop", u64::from(self.crop))])?;
        for (key, path) in [("data.train", &self.train), ("data.test", &self.test)] {
            if only_measured(path) {
                return complain(key, ONLY_MEASURED);
            }
        }
        if let Some([lo, hi]) = self.scale
            && !(lo > 0.0 && lo <= hi && hi <= 1.0)
        {
            let reason = format!("must be [low, high] with 0 < low <= high <= 1, not [{lo}, {hi}]");
            return complain("data.scale", reason);
        }
        Ok(())
    }

    /// Recorded features belong to one image: nothing random may be done to it.
    pub(crate) fn check_recorded(&self) -> Checked {
        let recorded = "the features were recorded of the whole image";
        if self.mirror {
            let reason = format!(
                "must be false for a recorded encoder: {recorded}, not of its mirror image"
            );
            return complain("data.mirror", reason);
        }
        match self.scale {
            None | Some([1.0, 1.0]) => Ok(()),
            Some(_) => {
                let reason = format!(
                    "must be left out for a recorded encoder (the crop is the centre of the image), or be \
                     [1.0, 1.0] (the crop is all of it): {recorded}, not of random windows"
                );
                complain("data.scale", reason)
            }
        }
    }

    /// What to do with unreadable images.
    #[must_use]
    pub fn bad_images(&self) -> BadImages {
        match self.quarantine {
            0 => BadImages::Fail,
            budget => BadImages::Quarantine { budget },
        }
    }
}

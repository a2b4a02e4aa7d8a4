//! The losses. [`terms`] has the equations of the paper and the table of terms; the other modules have the distances
//! that the terms use.

pub mod adversarial;
mod compared;
pub mod distances;
mod diversity;
pub mod penalties;
pub mod ssim;
pub mod terms;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use adversarial::{AdversarialLoss, Label, SharedPass, cross_entropy, scores};
pub use compared::{FeatureDistance, feature_distance, over_images};
pub use distances::{PixelDistance, pixel_distance, squared_distance};
pub use diversity::diversity;
pub use terms::{KINDS, KindInfo, Term, TermKind, Terms, WeightKey};

/// How a sum of squares over a batch becomes a number. Weights of the loss terms are only
/// comparable under the same reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reduction {
    /// 1/(2N) Σ‖a−b‖²: half the squared distance, averaged over the N images of the batch,
    /// as Caffe's EuclideanLoss. The authors' training used this. Cross entropy: batch mean.
    Caffe,
    /// Σ‖a−b‖² over the batch, as the paper prints it. Cross entropy: batch sum.
    Paper,
    /// Mean over all elements of the batch. Cross entropy: batch mean.
    Mean,
}

//! The numbers of one run.

use serde::Serialize;

use crate::measure::metrics::Score;

/// What is said of one run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// Run directory.
    pub run: String,
    /// What is decoded: features (`NET:TAP`), codes (`NET:TAP>LENGTH`) or small images (`downsampled:FACTOR`).
    pub task: String,
    /// The training loss, such as `L1`, `DeePSiM (alexnet:pool5)` or `MS-SSIM + hinge`.
    pub trained_with: String,
    /// Whether a discriminator trained along.
    pub adversary: bool,
    /// Seed of the training.
    pub seed: u64,
    /// Steps that were trained.
    pub steps: u64,
    /// Seconds that they took.
    pub seconds: f64,
    /// Held-out images.
    pub n: usize,
    /// Which ones, and how they are cut: runs are comparable where this is the same.
    #[serde(skip)]
    pub photos: String,
    /// Mean absolute difference of pixels, grey levels.
    pub l1: f64,
    /// Root of the mean squared difference of pixels, grey levels.
    pub l2: f64,
    /// Structural similarity; 1 is the same image.
    pub ssim: f64,
    /// The same over scales.
    pub ms_ssim: f64,
    /// Scales of it that the images allow.
    pub scales: usize,
    /// LPIPS; 0 is the same image. By VGG16, or by AlexNet where VGG16's family had a part in the run.
    pub lpips: Score,
    /// LPIPS by AlexNet.
    pub lpips_alex: Score,
    /// LPIPS by VGG16.
    pub lpips_vgg16: Score,
    /// DISTS; 0 is the same image.
    pub dists: Score,
    /// Kernel distance of what was made from the photos, in EfficientNet-Lite0's pooled features: whether they look like
    /// photos, not whether each looks like its own. 0 is one distribution; with few images also a little below.
    pub kernel_distance: Score,
    /// Normalised error of pixels, percent.
    pub image_error: f64,
    /// Normalised error of the inverted features, percent; none where nothing is inverted.
    pub feature_error: Option<f64>,
    /// Whether the encoder's own network is also in the loss: then `feature_error` was trained for.
    pub feature_trained: bool,
    /// Gradient energy relative to the images'.
    pub gradient_energy: f64,
    /// Share of held-out images whose category a linear probe reads from what is decoded.
    pub classified: Option<f64>,
    /// Share that always guessing the commonest category would get.
    pub classified_by_chance: Option<f64>,
    /// Those images: their categories have at least five training images.
    pub n_classified: usize,
    /// Images whose pairs `image_error` is relative to.
    pub n_pairs_from: usize,
}

//! The experiment file, key by key, as TOML has it.

use std::path::PathBuf;

use deepsim_nets::{AdamOptions, LatentSpec, PixelDistance, Reduction, Trunk};
use serde::{Deserialize, Serialize};

use crate::source::{RawKind, RawNet};

/// An experiment file, key by key. Every hyper-parameter must be written out: two files can be
/// compared line by line, and no default hides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// Name of the run: `runs/NAME` unless `--out` says otherwise.
    pub name: String,
    /// Photographs.
    pub data: RawData,
    /// The network whose features are inverted.
    pub encoder: RawNet,
    /// Makes an autoencoder of it: the encoder learns, and its codes are these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latent: Option<LatentSpec>,
    /// The network in whose feature space pictures are compared.
    pub comparator: RawNet,
    /// The generator.
    pub generator: RawGenerator,
    /// The discriminator.
    pub discriminator: RawDiscriminator,
    /// Makes a VAE/GAN of it (Larsen et al.): their iteration instead of the paper's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vaegan: Option<RawVaeGan>,
    /// Rewards pictures of the same features for being different.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diversity: Option<RawDiversity>,
    /// Weights of the loss terms.
    pub loss: RawLoss,
    /// How the image loss compares pixels.
    #[serde(default, skip_serializing_if = "RawPixels::is_paper_s")]
    pub pixels: RawPixels,
    /// Adam (or RMSProp), per network.
    pub optimizer: RawOptimizer,
    /// Learning-rate schedule.
    pub schedule: RawSchedule,
    /// When each network pauses.
    pub gate: RawGate,
    /// The run itself.
    pub train: RawTrain,
}

impl Raw {
    /// Whether one of its networks normalises batches.
    pub(crate) fn normalises_batches(&self) -> bool {
        self.discriminator.architecture == RawArchitecture::Larsen
            || self.generator.trunk == Trunk::Larsen
            || self.encoder.net == RawKind::Larsen
    }
}

/// `[data]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawData {
    /// Training photographs: a prepared dataset or a folder of images.
    pub train: PathBuf,
    /// Held-out photographs, the same way.
    pub test: PathBuf,
    /// Side of the square crops, pixels.
    pub crop: u32,
    /// Whether half of the training crops are mirrored left to right.
    pub mirror: bool,
    /// Side of the window that becomes a crop, as a fraction of the stored picture, drawn from
    /// this range (and resized to `crop`). Without it the window is `crop` pixels, as in the paper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<[f32; 2]>,
    /// How many unreadable photographs to leave out (and count) before giving up; 0 fails at the
    /// first.
    #[serde(default)]
    pub quarantine: usize,
}

/// `[generator]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawGenerator {
    /// Multiplies the channels of the hidden layers; 1 is the paper's.
    pub width: f64,
    /// "deepsim", or `{ db = { kernel = 5, slope = 0.2 } }`: the generator of Dosovitskiy & Brox, CVPR
    /// 2016, whose rows in Table 2 are "D&B"; or "larsen": the decoder of Larsen et al., for codes.
    #[serde(default = "Trunk::deepsim", skip_serializing_if = "Trunk::is_deepsim")]
    pub trunk: Trunk,
    /// Random numbers that enter beside the features, drawn anew for each picture: several pictures of the same
    /// features. 0 (if left out) is the paper's.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub noise: i64,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// `[discriminator]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawDiscriminator {
    /// Whether it also sees the inverted features (as the released training; not in the paper).
    pub features: bool,
    /// "deepsim" (if left out), or "larsen": that of Larsen et al., with batch normalisation.
    #[serde(default, skip_serializing_if = "RawArchitecture::is_deepsim")]
    pub architecture: RawArchitecture,
    /// Larsen: multiplies its hidden channels; 1 (if left out) is theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<f64>,
}

/// Which discriminator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RawArchitecture {
    /// DeePSiM's.
    #[default]
    DeePSiM,
    /// That of Larsen et al.
    Larsen,
}

impl RawArchitecture {
    fn is_deepsim(&self) -> bool {
        *self == RawArchitecture::DeePSiM
    }
}

/// `[vaegan]`: all three networks learn from one look at a batch. The encoder follows the KL, feature and image
/// losses; the decoder `gamma` times the feature and image losses, and 1 − `gamma` times the discriminator's loss,
/// upwards; the discriminator its own alone. With `loss.feat` and `loss.img` 0 it is a GAN: nothing is encoded.
/// Thresholds of `[gate]` do not act.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawVaeGan {
    /// Weight of the reconstruction against the discriminator in the decoder's gradient, from 0 to 1.
    pub gamma: f64,
    /// Weight of photographs in the discriminator's loss; generated pictures have the rest, from 0 to 1.
    pub real_weight: f64,
    /// Where the discriminator's two losses are at home.
    pub equilibrium: f64,
    /// The discriminator pauses while one of its losses is further below the equilibrium than this, the decoder while
    /// one is further above it. Where both would pause, both learn. Decided for each batch by itself.
    pub margin: f64,
}

/// `[diversity]`
///
/// The term of Yang et al. (ICLR 2019), for a generator that takes noise: of each training picture a second one
/// is made with other noise, and their mean absolute difference, in grey levels by unit of noise, is to be large.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawDiversity {
    /// Weight of the term in the generator's loss.
    pub weight: f64,
    /// Differences beyond this count no further; grey levels (0-255) by unit of noise.
    pub limit: f64,
}

/// `[loss]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawLoss {
    /// Weight of the feature loss.
    pub feat: f64,
    /// Weight of the adversarial loss (and of the discriminator's own).
    pub adv: f64,
    /// Weight of the image loss.
    pub img: f64,
    /// Weight of the KL term (variational autoencoders; 0 for everything else).
    pub kl: f64,
    /// How sums over a batch become numbers.
    pub reduction: Reduction,
}

/// `[pixels]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPixels {
    /// "squared" (the paper's; if left out), "absolute", "ssim" or "ms-ssim": what `loss.img` weighs. The
    /// similarities are 0 for equal pictures and about 1 for unrelated ones, whatever their size.
    #[serde(default)]
    pub distance: PixelDistance,
}

impl RawPixels {
    fn is_paper_s(&self) -> bool {
        *self == RawPixels::default()
    }
}

/// `[optimizer]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawOptimizer {
    /// The generator's.
    pub generator: AdamOptions,
    /// The discriminator's.
    pub discriminator: AdamOptions,
    /// The encoder's, where it learns (`[latent]`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<AdamOptions>,
}

/// `[schedule]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSchedule {
    /// Updates of a network after which its learning rate halves.
    pub halve_at: Vec<u64>,
}

/// `[gate]`: thresholds on r = (L_D real + L_D fake) / L_adv, unweighted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawGate {
    /// The discriminator pauses below this.
    pub d_off_below: f64,
    /// A paused discriminator continues above this.
    pub d_on_above: f64,
    /// The generator pauses above this.
    pub g_off_above: f64,
    /// A paused generator continues below this.
    pub g_on_below: f64,
}

/// Arithmetic of convolutions and matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RawPrecision {
    /// Single precision.
    Fp32,
    /// bfloat16 products; weights, losses and Adam in single precision.
    Bf16,
}

/// Whether a GPU may multiply fp32 numbers with ten bits of mantissa.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RawTf32 {
    /// All 23 bits.
    #[default]
    Off,
    /// TF32 in convolutions and matrix products.
    On,
}

/// How often an iteration passes its generated pictures through the discriminator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RawPasses {
    /// Before the discriminator's update for its own loss, after it for the generator's.
    #[default]
    Paper,
    /// Once, before the update, for both.
    One,
}

/// What to do when a loss or a weight is no finite number any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RawNotFinite {
    /// Stop; the last good checkpoint stays.
    #[default]
    Stop,
    /// Go back to it and on with half the learning rates.
    Halve,
}

fn yes() -> bool {
    true
}

/// `[train]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawTrain {
    /// Iterations in all.
    pub steps: u64,
    /// Pictures per iteration.
    pub batch_size: usize,
    /// Seed of everything random.
    pub seed: u64,
    /// Threads of libtorch and of the decoder; 0: as many as the process may use processors for (affinity and a container's
    /// quota count; `OMP_NUM_THREADS` overrules). A resumed run is the uninterrupted one bit for bit only with the same number.
    #[serde(default)]
    pub threads: usize,
    /// Arithmetic.
    pub precision: RawPrecision,
    /// Whether a GPU may multiply fp32 numbers in TF32, which is faster and keeps ten bits of their
    /// mantissa. Nothing changes on a CPU.
    #[serde(default)]
    pub tf32: RawTf32,
    /// Whether a GPU must give the same bits in each run, so that a resumed run equals an uninterrupted one:
    /// cuDNN's algorithms are then those whose sums have one order. If false, the fastest are found by
    /// a trial. The CPU is always so.
    #[serde(default = "yes")]
    pub deterministic: bool,
    /// Passes of the discriminator over the generated pictures of an iteration. "paper": one for
    /// its own update, and the updated one passes over them again for the generator's. "one": a
    /// single pass before the update serves both, which is faster and another order than the
    /// paper's. A run keeps what it began with.
    #[serde(default)]
    pub discriminator_passes: RawPasses,
    /// What to do when a loss or a weight is no finite number any more. "stop" (if left out): the last good
    /// checkpoint stays. "halve": go back to it and on with half the learning rates, eight times at most.
    #[serde(default)]
    pub not_finite: RawNotFinite,
    /// Steps between lines of metrics.
    pub log_every: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Steps between sample pictures; 0: only at the end.
    pub sample_every: u64,
    /// Steps between evaluations on held-out photographs; 0: only at the end.
    pub eval_every: u64,
    /// Held-out photographs of such an evaluation, at most.
    pub eval_images: usize,
    /// Checkpoints to keep.
    pub keep_checkpoints: usize,
}

//! Networks, losses, metrics and optimisers of DeepSim: pure functions of tensors.
//!
//! Nothing here reads a file other than weights, reads a clock, or draws randomness that the
//! caller did not seed.
//!
//! # Units
//! Images are float tensors `[N,3,H,W]` in one of two units, and every function says which:
//! - **RGB**: red, green, blue, 0–255. What people and the command line use.
//! - **Caffe**: blue, green, red, 0–255 minus the mean (104, 117, 123). What the generator puts
//!   out and what CaffeNet and the discriminator take. [`images`] converts.

pub mod augment;
mod clip;
pub mod discriminator;
pub mod error;
pub mod features;
pub mod generator;
pub mod images;
mod kinks;
pub mod layers;
pub mod learned;
pub mod loss;
pub mod metrics;
pub mod optim;
pub mod params;
pub mod precision;
pub mod sides;
mod unit;
pub mod zoo;

pub use augment::{AugmentDraws, DiffAugment};
pub use deepsim_aten::{
    AtenError, AutocastGuard, Bf16Code, CAPABILITY_VARIABLE, Capability, CudaLoad, CudnnChoice,
    GroupError, Precision, ProcessGroup, Rendezvous, Tf32, allow_winograd, bf16_code, capability,
    cuda_peak, fit_threads, flush_denormals, forget_cuda_peak, in_turns, keep_memory,
    load_cuda as load_cuda_libraries, over_group, pinned, set_cudnn_choice, set_tf32, sum_in_order,
    take_failure, torch_version, without_winograd,
};
pub use discriminator::{
    Architecture, Discriminator, DiscriminatorSpec, FeatureBranch, PatchNorm, Taps,
};
pub use error::NetError;
pub use features::FeatureNet;
pub use generator::{Generator, GeneratorSpec, Trunk};
pub use layers::init;
pub use layers::mode::Mode;
pub use layers::shape::FeatureShape;
pub use layers::tap::{Tap, Tokens};
pub use learned::{Code, LatentSpec, LearnedEncoder, Posterior};
pub use loss::{AdversarialLoss, FeatureDistance, PixelDistance, Reduction};
pub use optim::{Adam, AdamOptions, Rule};
pub use params::{Param, Params};
pub use zoo::{NETS, Net, NetKind};

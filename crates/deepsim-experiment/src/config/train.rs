//! `[train]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Checked, at_least_one, complain};

/// More threads than any machine that this runs on has cores.
const MAX_THREADS: usize = 1024;

/// Arithmetic of convolutions and matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    Fp32,
    /// bfloat16 products; weights, losses and Adam in single precision.
    Bf16,
    /// The faster of the two on the processor that the run begins on.
    Auto,
}

/// Whether a GPU may multiply fp32 numbers with ten bits of mantissa.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tf32 {
    /// All 23 bits.
    #[default]
    Off,
    /// TF32 in convolutions and matrix products.
    On,
}

/// How often an iteration passes its generated images through the discriminator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DiscriminatorPasses {
    /// Before the discriminator's update for its own loss, after it for the generator's.
    #[default]
    Paper,
    /// Once, before the update, for both.
    One,
}

/// In what several processes exchange gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reduce {
    /// Single precision.
    #[default]
    Fp32,
    /// bfloat16: half of the bytes, and eight bits of mantissa, to which sums are rounded after each addition.
    Bf16,
}

/// What to do when a loss or a weight is no finite number any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnNotFinite {
    /// Stop; the last good checkpoint stays.
    #[default]
    Stop,
    /// Go back to it and on with half the learning rates.
    Halve,
}

fn yes() -> bool {
    true
}

fn two_minutes() -> u64 {
    120
}

fn one() -> usize {
    1
}

/// `[train]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// Iterations in all.
    pub steps: u64,
    /// Images per iteration.
    pub batch_size: usize,
    /// Micro-batches that an iteration's images are split into. They pass one after the other, and their gradients add
    /// up to the whole batch's, but for rounding: with K of them the networks hold about a K-th of the images at a time.
    /// In the paper's order of passes, images are generated twice for that. Networks with batch normalisation take 1,
    /// or `deterministic_shards`. Those decide then what passes at a time, whatever this says.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Shards that a batch is split into, for a training whose bits do not depend on the number of processes: each shard
    /// passes forward and back alone, and all sums over a batch are added in the order of shards. 0: none, and another
    /// number of processes rounds otherwise. The number of processes must divide it. It costs time and memory: smaller
    /// passes, and each process keeps the gradients of all its shards; with batch normalisation its shards pass side by side,
    /// so that it needs the memory of all of them. A run keeps what it began with.
    #[serde(default)]
    pub deterministic_shards: usize,
    /// Seed of everything random.
    pub seed: u64,
    /// Threads of libtorch and of the decoder; 0: as many as the process may use processors for (affinity and a container's
    /// quota count; `OMP_NUM_THREADS` overrules). A resumed run is the uninterrupted one bit for bit only with the same number.
    #[serde(default)]
    pub threads: usize,
    /// Arithmetic: "fp32"; "bf16" (bfloat16 products; weights, losses and Adam in single precision); or "auto": the faster of
    /// the two for the kind of processor that the run begins on, which is bf16 on a GPU and on processors with AMX or a fast
    /// AVX-512 bf16 instruction, and fp32 on others. The run keeps what it was, on other processors too.
    pub precision: Precision,
    /// Whether a GPU may multiply fp32 numbers in TF32, which is faster and keeps ten bits of their
    /// mantissa. Nothing changes on a CPU.
    #[serde(default)]
    pub tf32: Tf32,
    /// Whether a GPU must give the same bits in each run, so that a resumed run equals an uninterrupted one:
    /// cuDNN's algorithms are then those whose sums have one order. If false, the fastest are found by
    /// a trial. The CPU is always so.
    #[serde(default = "yes")]
    pub deterministic: bool,
    /// Passes of the discriminator over the generated images of an iteration. "paper": one for
    /// its own update, and the updated one passes over them again for the generator's. "one": a
    /// single pass before the update serves both, which is faster and another order than the
    /// paper's. A run keeps what it began with.
    #[serde(default)]
    pub discriminator_passes: DiscriminatorPasses,
    /// In what several processes exchange gradients: "fp32" (if left out), or "bf16", which halves the bytes and rounds the
    /// sums to eight bits of mantissa. Losses are exchanged in fp32 in any case. A run keeps what it began with.
    #[serde(default)]
    pub reduce: Reduce,
    /// Seconds that one of several processes waits for another that does not answer: until all have come, and in each
    /// exchange. Then it ends with an error. One that has ended is noticed at once. A process that opens its inputs, and
    /// rank 0 while it saves or evaluates, may take longer, as long as they are alive.
    #[serde(default = "two_minutes")]
    pub patience: u64,
    /// What to do when a loss or a weight is no finite number any more. "stop" (if left out): the last good
    /// checkpoint stays. "halve": go back to it and on with half the learning rates, eight times at most.
    #[serde(default)]
    pub not_finite: OnNotFinite,
    /// Steps between lines of metrics.
    pub log_every: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Steps between sample images; 0: only at the end.
    pub sample_every: u64,
    /// Steps between evaluations on held-out images; 0: only at the end.
    pub eval_every: u64,
    /// Held-out images of such an evaluation, at most.
    pub eval_images: usize,
    /// Checkpoints to keep.
    pub keep_checkpoints: usize,
}

impl Train {
    /// Shards that a batch is split into, if it is.
    pub fn shards(&self) -> Option<usize> {
        Some(self.deterministic_shards).filter(|shards| *shards > 0)
    }

    pub(super) fn check(&self) -> Checked {
        at_least_one(&[
            ("train.steps", self.steps),
            ("train.batch_size", self.batch_size as u64),
            ("train.accumulate", self.accumulate as u64),
            ("train.log_every", self.log_every),
            ("train.checkpoint_every", self.checkpoint_every),
            ("train.keep_checkpoints", self.keep_checkpoints as u64),
            ("train.eval_images", self.eval_images as u64),
            ("train.patience", self.patience),
        ])?;
        if self.accumulate > self.batch_size {
            let reason = format!(
                "must be at most train.batch_size ({}): a micro-batch holds an image at least",
                self.batch_size
            );
            return complain("train.accumulate", reason);
        }
        if self.deterministic_shards > self.batch_size {
            let reason = format!(
                "must be at most train.batch_size ({}): a shard holds an image at least",
                self.batch_size
            );
            return complain("train.deterministic_shards", reason);
        }
        if self.shards().is_some() && self.reduce == Reduce::Bf16 {
            let reason = "must be \"fp32\" with train.deterministic_shards: sums in bf16 depend on the number of processes";
            return complain("train.reduce", reason);
        }
        // TOML's numbers are signed. The parser takes larger ones all the same, and could not write them again.
        if self.seed > i64::MAX as u64 {
            return complain("train.seed", format!("must be at most {}", i64::MAX));
        }
        // Both thread pools start what they are told to; far too many end the process.
        if self.threads > MAX_THREADS {
            let reason =
                format!("must be at most {MAX_THREADS}; 0 takes as many as the machine has");
            return complain("train.threads", reason);
        }
        if self.eval_images < 2 {
            let reason = "must be at least 2: errors are relative to the distance between images";
            return complain("train.eval_images", reason);
        }
        Ok(())
    }
}

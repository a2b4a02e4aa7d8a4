//! The works, and who does them.

/// A work of the benchmark. The quickest feedback is not first: the paper's batch is what matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Work {
    /// Training iteration of experiments/fc6.toml, batch 64
    Fc6B64,
    /// Training iteration of experiments/conv5.toml, batch 64
    Conv5B64,
    /// fc6_b64 with one pass of the discriminator over generated images
    Fc6B64OnePass,
    /// conv5_b64 with one pass of the discriminator over generated images
    Conv5B64OnePass,
    /// The same as fc6_b64 at batch 16
    Fc6B16,
    /// The same as conv5_b64 at batch 16
    Conv5B16,
    /// Training iteration of experiments/quickstart.toml: AlexNet, 128 pixels, batch 8
    Sample,
    /// JPEGs of 500x375 to random crops of 227 pixels, on one thread
    Data,
    /// Prepared raw shards to random crops of 227 pixels, on one thread; ours alone
    Shards,
    /// 5 nearest of 50,000 vectors of 4,096 values for 1,000 queries, against faiss
    Neighbours,
    /// Mean distance over all pairs of 2,000 images of 3x227x227, against torch.cdist
    Pairs,
    /// MS-SSIM of 64 images of 3x227x227 and its gradient, against pytorch-msssim
    MsSsim,
}

/// Who does a work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// This project.
    Ours,
    /// PyTorch, or another library, at its best.
    Tuned,
    /// PyTorch as it is usually written.
    Naive,
    /// This project on a GPU without CUDA graphs.
    Uncaptured,
    /// The tuned PyTorch on a GPU by torch.compile with CUDA graphs.
    Compiled,
}

/// Those with a column in the table, in its order.
pub const COLUMNS: [Contender; 3] = [Contender::Ours, Contender::Tuned, Contender::Naive];

/// Those that have a part on GPUs alone.
pub const ON_GPUS: [Contender; 2] = [Contender::Uncaptured, Contender::Compiled];

/// All of them.
pub fn contenders() -> impl Iterator<Item = Contender> {
    COLUMNS.into_iter().chain(ON_GPUS)
}

impl Contender {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Contender::Ours => "ours",
            Contender::Tuned => "torch tuned",
            Contender::Naive => "torch naive",
            Contender::Uncaptured => "ours uncaptured",
            Contender::Compiled => "torch compiled",
        }
    }

    /// Its name in JSON.
    pub fn key(self) -> &'static str {
        match self {
            Contender::Ours => "ours",
            Contender::Tuned => "torch_tuned",
            Contender::Naive => "torch_naive",
            Contender::Uncaptured => "ours_uncaptured",
            Contender::Compiled => "torch_compiled",
        }
    }
}

/// How a work's rate is best told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds of one unit of work.
    Seconds,
    /// Images per second.
    ImagesPerSecond,
}

impl Work {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Work::Fc6B64 => "fc6_b64",
            Work::Conv5B64 => "conv5_b64",
            Work::Fc6B64OnePass => "fc6_b64_one_pass",
            Work::Conv5B64OnePass => "conv5_b64_one_pass",
            Work::Fc6B16 => "fc6_b16",
            Work::Conv5B16 => "conv5_b16",
            Work::Sample => "sample",
            Work::Data => "data",
            Work::Shards => "shards",
            Work::Neighbours => "neighbours",
            Work::Pairs => "pairs",
            Work::MsSsim => "ms_ssim",
        }
    }

    /// Whether it is a training iteration.
    pub fn trains(self) -> bool {
        match self {
            Work::Fc6B64
            | Work::Conv5B64
            | Work::Fc6B64OnePass
            | Work::Conv5B64OnePass
            | Work::Fc6B16
            | Work::Conv5B16
            | Work::Sample => true,
            Work::Data | Work::Shards | Work::Neighbours | Work::Pairs | Work::MsSsim => false,
        }
    }

    /// The Python program of a contender, with its arguments; none where it has no part.
    pub fn script(self, contender: Contender) -> Option<&'static [&'static str]> {
        match (self, contender) {
            (_, Contender::Ours | Contender::Uncaptured) => None,
            (work, Contender::Compiled) => {
                let tuned = work.script(Contender::Tuned);
                tuned.filter(|_| work.trains())
            }
            (Work::Shards, _) | (Work::Neighbours | Work::MsSsim, Contender::Naive) => None,
            (Work::MsSsim, Contender::Tuned) => Some(&["ms_ssim.py"]),
            (Work::Data, Contender::Tuned) => Some(&["data.py", "crop-aware"]),
            (Work::Data, Contender::Naive) => Some(&["data.py", "torchvision"]),
            (Work::Neighbours, Contender::Tuned) => Some(&["neighbours.py"]),
            (Work::Pairs, Contender::Tuned) => Some(&["pairs.py", "gram"]),
            (Work::Pairs, Contender::Naive) => Some(&["pairs.py", "cdist"]),
            (Work::Fc6B64OnePass | Work::Conv5B64OnePass, Contender::Tuned) => {
                Some(&["train_tuned.py", "one-pass"])
            }
            // Whoever writes the usual script writes the paper's order.
            (Work::Fc6B64OnePass | Work::Conv5B64OnePass, Contender::Naive) => None,
            (_, Contender::Tuned) => Some(&["train_tuned.py"]),
            (_, Contender::Naive) => Some(&["train_naive.py"]),
        }
    }

    /// What the column of a contender means here, where it is not what its name says.
    pub fn footnote(self) -> Option<&'static str> {
        match self {
            Work::Data => Some(
                "data: a folder of JPEGs of 500x375, read from the page cache. Ours and tuned \
                 (Pillow) resize the centre square to 256x256 by antialiased bicubic and cut 227; \
                 naive is torchvision's Resize(256), which is Pillow's antialiased bilinear on the \
                 whole image, and RandomCrop(227). The threads are rayon's, ours alone",
            ),
            Work::Shards => Some(
                "shards: raw RGB of 256x256 (prepared by the same bicubic), read from the page \
                 cache and checked by blake3; 227 is cut from them without resizing",
            ),
            Work::Fc6B64OnePass | Work::Conv5B64OnePass => Some(
                "one_pass: D passes over the generated images once in an iteration, for its own \
                 gradient and the generator's; all other works keep the paper's order. The naive \
                 script has no such order and no part",
            ),
            Work::MsSsim => Some("ms_ssim: tuned is the package pytorch-msssim"),
            Work::Neighbours => Some("neighbours: tuned is faiss, IndexFlatL2"),
            Work::Pairs => Some(
                "pairs: naive is torch.cdist, tuned is a product of the upper triangle's blocks",
            ),
            _ => None,
        }
    }

    /// Whether it needs what third_party/bench-py holds.
    pub fn needs_extra_packages(self) -> bool {
        matches!(self, Work::Data | Work::Neighbours)
    }

    /// Whether it reads the sample photos.
    pub fn needs_photos(self) -> bool {
        matches!(self, Work::Data | Work::Shards)
    }

    /// Rounds of a default run, which must stay below half an hour on two cores, trials of the tuned PyTorch included.
    pub fn rounds(self) -> u32 {
        match self {
            Work::Fc6B64 | Work::Conv5B64 | Work::Fc6B64OnePass | Work::Conv5B64OnePass => 5,
            Work::Fc6B16 | Work::Conv5B16 => 9,
            Work::Sample => 25,
            Work::Data | Work::Shards => 9,
            Work::Neighbours | Work::Pairs | Work::MsSsim => 3,
        }
    }

    /// Memory that a contender may take, MiB: all of them are loaded at once.
    pub fn megabytes(self) -> u64 {
        match self {
            Work::Fc6B64 | Work::Conv5B64 | Work::Fc6B64OnePass | Work::Conv5B64OnePass => 6_500,
            Work::Fc6B16 | Work::Conv5B16 => 3_000,
            Work::Sample | Work::Data | Work::Shards => 1_500,
            Work::Neighbours | Work::MsSsim => 3_000,
            Work::Pairs => 5_000,
        }
    }

    /// How its rate is told.
    pub fn unit(self) -> Unit {
        match self {
            Work::Data | Work::Shards => Unit::ImagesPerSecond,
            _ => Unit::Seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn names_on_the_command_line_and_in_the_records_are_the_same() {
        for &work in Work::value_variants() {
            assert_eq!(Work::from_str(work.name(), false), Ok(work));
        }
    }

    #[test]
    fn every_script_is_there() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/python");
        for name in ["tune.py", "paths.py", "photos.py"] {
            assert!(folder.join(name).is_file(), "{name}");
        }
        for &work in Work::value_variants() {
            for contender in contenders() {
                let script = work.script(contender).and_then(|script| script.first());
                assert!(
                    script.is_none_or(|name| folder.join(name).is_file()),
                    "{script:?}"
                );
            }
        }
    }
}

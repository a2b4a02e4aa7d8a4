//! What the commands are asked.

use std::path::PathBuf;

use clap::ValueEnum;
use deepsim_data::{Orientation, Resize, Share, SquareWindow, Store};

/// Makes a dataset: every photo decoded, made square, and stored in shards with a manifest.
///
/// SOURCE is a folder of images (searched recursively), a .tar, or a tar of tars. The folders
/// and archives of ILSVRC-2012 are recognised: n01440764/*.JPEG (the folder is the label),
/// ILSVRC2012_val_*.JPEG, ILSVRC2012_img_train.tar. Nothing is unpacked.
///
/// OUT appears only when it is complete. If it already holds exactly this dataset (by the
/// source's names and sizes and by the settings), nothing is done.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples (`deepsim-data` is `cargo run --release -p deepsim-data --`):
  a folder of photos, a tenth of them held out for testing (writes OUT/train and
  OUT/test):
    deepsim-data prepare ~/photos data/mine --holdout 0.1
  and another tenth by which settings are chosen (writes OUT/val too):
    deepsim-data prepare ~/photos data/mine --holdout 0.1 --validation 0.1
  ILSVRC-2012 as the paper has it (squashed to 256x256), from the archives as
  downloaded:
    deepsim-data prepare ILSVRC2012_img_train.tar data/ilsvrc-train
    deepsim-data prepare ILSVRC2012_img_val.tar data/ilsvrc-val
  allow up to 20 corrupt photos, which the manifest will list:
    deepsim-data prepare ~/photos data/mine --quarantine 20
  faces: the part of the image that is customary, at 64x64; CelebA's aligned
  images (178x218), and LFW's funneled ones (250x250):
    deepsim-data prepare celeba data/celeba --size 64 --window 15,40,148
    deepsim-data prepare lfw data/lfw --size 64 --window 50,50,150
  in four parts, each by a process of its own, on one machine or on several that
  see the same source; merge then makes the dataset of them:
    for n in 1 2 3 4; do
      deepsim-data prepare ~/photos parts/$n --holdout 0.1 --part $n/4 &
    done; wait
    deepsim-data merge data/mine parts/*
  the same as a job array of Slurm, `sbatch --array=0-15`:
    n=$((SLURM_ARRAY_TASK_ID + 1))
    deepsim-data prepare ILSVRC2012_img_train.tar parts/$n --part $n/16

Space at 256 px: raw takes 197 kB an image (252 GB for ILSVRC-2012), jpeg about
a quarter.

Whatever SOURCE holds that is not taken is counted and named: files of other
kinds by their ending, links, hidden files, members of archives. A single image
that is not ILSVRC-2012's among its images, or one in a hundred, is skipped;
with more the source is a collection of images.")]
pub(super) struct PrepareArgs {
    /// A folder of images, a .tar, or a tar of tars
    pub source: PathBuf,
    /// The directory to create
    pub out: PathBuf,
    /// Side of the stored images in pixels
    #[arg(long, default_value_t = 256, value_name = "PIXELS")]
    pub size: u32,
    /// How photos become square [default: squash for ILSVRC-2012, otherwise short-crop]
    #[arg(long, value_enum)]
    pub resize: Option<ResizeArg>,
    /// The EXIF orientation of photos [default: ignore for ILSVRC-2012, otherwise apply]
    #[arg(long, value_enum)]
    pub orientation: Option<OrientationArg>,
    /// Cut this square out of every photo before it is scaled, in the photo's pixels
    ///
    /// The rest of the photo is not looked at, and --resize changes nothing. A photo in which the
    /// window does not lie whole is corrupt (see --quarantine).
    #[arg(long, value_name = "LEFT,TOP,SIDE", allow_hyphen_values = true)]
    pub window: Option<SquareWindow>,
    /// How images are stored [default: raw below 20000 images, jpeg from there on]
    #[arg(long, value_enum)]
    pub store: Option<StoreArg>,
    /// Hold out this share of the images (between 0 and 1): writes OUT/train and OUT/test
    #[arg(long, value_name = "FRACTION")]
    pub holdout: Option<f64>,
    /// Also set this share of the images apart for the choice of settings: writes OUT/val too
    ///
    /// --holdout and --validation are then met on average: every image's name alone decides its part, so
    /// that none changes its part when images are added or removed. Choose settings by OUT/val, and
    /// measure on OUT/test what was chosen.
    #[arg(long, value_name = "FRACTION", requires = "holdout")]
    pub validation: Option<f64>,
    /// Seed of the choice of held-out images
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    /// Leave out up to this many corrupt photos instead of failing
    #[arg(long, default_value_t = 0, value_name = "BUDGET")]
    pub quarantine: usize,
    /// Prepare one of several parts of the dataset only: 3/16 is the third of sixteen
    ///
    /// OUT then holds a part, which is no dataset yet: `deepsim-data merge` makes one of all parts, equal
    /// byte for byte to what is prepared without --part. Give all parts the same SOURCE and options, and
    /// each an OUT of its own. Every process lists the whole SOURCE, so that --store's default and the
    /// images that --holdout holds out are those of the whole, but reads its own images only. --quarantine
    /// counts for the whole dataset: a part that exceeds it alone fails, merge sees to the sum.
    #[arg(long, value_name = "NUMBER/OF", allow_hyphen_values = true)]
    pub part: Option<Share>,
    /// Replace another dataset, or part of one, at OUT (never anything else)
    #[arg(long)]
    pub force: bool,
    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

/// Makes a dataset of its parts, which `prepare --part` wrote.
///
/// OUT is equal byte for byte to what `prepare` makes of the same source with the same options and
/// without --part. It appears only when it is complete. If it already holds exactly this dataset,
/// nothing is done. The parts are only read, and kept; every image is compared with its checksum on the
/// way. The disk needs room for the dataset beside its parts.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples (`deepsim-data` is `cargo run --release -p deepsim-data --`):
  parts that four processes prepare, each with a --part of its own:
    for n in 1 2 3 4; do
      deepsim-data prepare ~/photos parts/$n --holdout 0.1 --part $n/4 &
    done; wait
    deepsim-data merge data/mine parts/*
  one of them failed: prepare it again, with the same options, then merge:
    deepsim-data prepare ~/photos parts/3 --holdout 0.1 --part 3/4
    deepsim-data merge data/mine parts/*

All parts must be there, each once and in any order, made of one source with the
same options; what is missing or does not fit is named.")]
pub(super) struct MergeArgs {
    /// The directory to create
    pub out: PathBuf,
    /// The parts of the dataset, all of them, in any order
    #[arg(required = true, value_name = "PART")]
    pub parts: Vec<PathBuf>,
    /// Most corrupt photos that the parts together may leave out [default: as they were prepared]
    #[arg(long, value_name = "BUDGET")]
    pub quarantine: Option<usize>,
    /// Replace another dataset, or part of one, at OUT (never anything else)
    #[arg(long)]
    pub force: bool,
}

/// Says what a dataset, or a folder of images, holds.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples, after `cargo xtask quickstart`:
  cargo run --release -p deepsim-data -- inspect data/debian
  cargo run --release -p deepsim-data -- inspect data/debian --format json

JSON is a list: one object for a dataset, two (train, test) for one prepared
with --holdout, three (train, val, test) with --validation as well.")]
pub(super) struct InspectArgs {
    /// A prepared dataset, the root of a split one, or a folder of images
    pub dataset: PathBuf,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Compares every byte of a dataset with its checksums and decodes every image.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example, after `cargo xtask quickstart`:
  cargo run --release -p deepsim-data -- verify data/debian && echo whole

Prints one line for all that is broken and exits 1 if anything is. A plain
folder of images has no checksums; its photos are decoded strictly, as training
would.")]
pub(super) struct VerifyArgs {
    /// A prepared dataset, the root of a split one, or a folder of images
    pub dataset: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ResizeArg {
    /// Both sides scaled to the size; the aspect ratio is lost
    Squash,
    /// The largest centred square, scaled
    ShortCrop,
}

impl From<ResizeArg> for Resize {
    fn from(arg: ResizeArg) -> Self {
        match arg {
            ResizeArg::Squash => Self::Squash,
            ResizeArg::ShortCrop => Self::ShortCrop,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum OrientationArg {
    /// Turn photos as every viewer does
    Apply,
    /// Take the pixels as they are stored, as the ILSVRC tools did
    Ignore,
}

impl From<OrientationArg> for Orientation {
    fn from(arg: OrientationArg) -> Self {
        match arg {
            OrientationArg::Apply => Self::Apply,
            OrientationArg::Ignore => Self::Ignore,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum StoreArg {
    /// JPEG of quality 95
    Jpeg,
    /// The pixels themselves
    Raw,
}

impl From<StoreArg> for Store {
    fn from(arg: StoreArg) -> Self {
        match arg {
            StoreArg::Jpeg => Self::Jpeg,
            StoreArg::Raw => Self::Raw,
        }
    }
}

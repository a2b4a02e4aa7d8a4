//! A temporary directory with images and an experiment that trains in a second.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::photos;
use crate::process::{Ran, Running, program, run};

/// Images to train on.
pub const TRAIN: u32 = 12;
/// Held-out images: as many as a sample sheet shows.
pub const TEST: u32 = 8;

/// Trains until it is told to stop, and saves only then.
pub const ENDLESS: &str = "--steps 1000000 --resume --set train.checkpoint_every=1000000";

/// Today's adversary instead of the paper's: the hinge loss on patches with spectral normalisation, and all that can be
/// beside it.
pub const TODAY: &str = "--set gate.d_off_below=0 --set gate.d_on_above=0 --set gate.g_off_above=inf \
     --set gate.g_on_below=inf --set discriminator.architecture=patchgan --set discriminator.norm=spectral \
     --set discriminator.width=0.125 --set loss.adv=0.1 --set adversary.loss=hinge --set adversary.generator_from=1 \
     --set adversary.r1.weight=0.5 --set adversary.r1.every=2 --set adversary.lecam.weight=0.3 \
     --set adversary.augment.color=true --set adversary.adaptive.limit=10000";

/// The experiment, complete; `{dir}` stands for the laboratory.
const TINY: &str = r#"name = "tiny"

[data]
train = "{dir}/train"
test = "{dir}/test"
crop = 64
mirror = true

[encoder]
net = "alexnet"
tap = "pool2"
weights = "random:1"

[comparator]
net = "alexnet"
tap = "relu3"
weights = "random:1"

[generator]
width = 0.05

[discriminator]
features = false

[loss]
feat = 0.01
adv = 100.0
img = 2e-6
kl = 0.0
reduction = "caffe"

[optimizer]
generator = { lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 4e-4 }
discriminator = { lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 4e-4 }

[schedule]
halve_at = [5]

[gate]
d_off_below = 0.1
d_on_above = 0.5
g_off_above = 10.0
g_on_below = 0.1

[train]
steps = 6
batch_size = 4
seed = 1
threads = 1
precision = "fp32"
log_every = 1
checkpoint_every = 2
sample_every = 0
eval_every = 0
eval_images = 8
keep_checkpoints = 2
"#;

/// The directory and what is in it: `train/`, `test/` (plain folders), `tiny.toml`, `run/`.
#[derive(Debug)]
pub struct Lab {
    dir: TempDir,
}

impl Lab {
    /// Makes images and experiment.
    pub fn new() -> Lab {
        let lab = Lab {
            dir: TempDir::new().unwrap(),
        };
        photos::folder(&lab.at("train"), 0, TRAIN);
        photos::folder(&lab.at("test"), TRAIN, TRAIN + TEST);
        std::fs::write(lab.experiment(), lab.toml()).unwrap();
        lab
    }

    /// The same with a run `run/` of so many steps.
    #[track_caller]
    pub fn trained(steps: u64) -> Lab {
        let lab = Lab::new();
        lab.train(&format!("--steps {steps}")).exits(0);
        lab
    }

    /// A path in the laboratory.
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same as text, for arguments.
    pub fn text(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    /// The laboratory itself.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The experiment's text.
    pub fn toml(&self) -> String {
        TINY.replace("{dir}", self.dir.path().to_str().unwrap())
    }

    /// The experiment file.
    pub fn experiment(&self) -> PathBuf {
        self.at("tiny.toml")
    }

    /// The run directory that [`Lab::train`] writes.
    pub fn run_dir(&self) -> PathBuf {
        self.at("run")
    }

    /// A program's command in the laboratory. Arguments are what would be typed: here and below, none has a space in it.
    pub fn command(&self, name: &str, arguments: &str) -> Command {
        let mut command = program(name);
        command
            .current_dir(self.path())
            .args(arguments.split_whitespace());
        command
    }

    /// The command of [`Lab::train_into`].
    pub fn train_command(&self, out: &str, arguments: &str) -> Command {
        let mut command = self.command("deepsim-train", "");
        command
            .arg(self.experiment())
            .arg("--out")
            .arg(self.at(out))
            .args(arguments.split_whitespace());
        command
    }

    /// Trains the experiment into `run/`.
    pub fn train(&self, arguments: &str) -> Ran {
        self.train_into("run", arguments)
    }

    /// Trains the experiment into another directory.
    pub fn train_into(&self, out: &str, arguments: &str) -> Ran {
        run(&mut self.train_command(out, arguments))
    }

    /// Begins to train the experiment into `run/`.
    pub fn start(&self, arguments: &str) -> Running {
        Running::start(&mut self.train_command("run", arguments))
    }

    /// Trains into a directory until it ends at a crash point, which it must reach.
    #[track_caller]
    pub fn crash(&self, out: &str, arguments: &str, at: &str) {
        let mut command = self.train_command(out, arguments);
        let ran = run(command.env("DEEPSIM_CRASH_POINT", at));
        assert_eq!(ran.code, None, "{at} was not reached: {}", ran.stderr);
    }

    /// Evaluates.
    pub fn eval(&self, arguments: &str) -> Ran {
        run(&mut self.command("deepsim-eval", arguments))
    }

    /// Evaluates and returns the rows that are printed as JSON.
    #[track_caller]
    pub fn rows(&self, arguments: &str) -> Vec<Value> {
        let printed = self.eval(&format!("{arguments} --format json")).prints();
        serde_json::from_str(&printed).unwrap()
    }
}

impl Default for Lab {
    fn default() -> Lab {
        Lab::new()
    }
}

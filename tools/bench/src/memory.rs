//! How much memory a held-out evaluation takes: synthetic images at the paper's size, a network whose features are many
//! and cheap, random weights.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use deepsim_data::prepare::Existing;
use deepsim_data::{Dataset, Flow, Prepare, Resize, Store, prepare};
use deepsim_experiment::evaluate::held_out;
use deepsim_experiment::{Clip, Experiment, Perception};
use deepsim_nets::Generator;
use serde_json::json;
use tch::Device;

/// Side of the files that the images are made of; they are stored at 256 pixels.
const SIDE: usize = 64;
/// The first rectifier of AlexNet at 227 pixels: 193,600 features an image, more than are kept in memory for 2,000.
const EXPERIMENT: &str = r#"name = "memory"
[data]
train = "unused"
test = "unused"
crop = 227
mirror = false
[encoder]
net = "alexnet"
tap = "relu1"
weights = "random:1"
[comparator]
net = "alexnet"
tap = "relu1"
weights = "random:1"
[generator]
width = 0.03
[discriminator]
features = false
[loss]
feat = 1.0
adv = 0.0
img = 1.0
kl = 0.0
reduction = "caffe"
[optimizer]
generator = { lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.0 }
discriminator = { lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.0 }
[schedule]
halve_at = []
[gate]
d_off_below = 0.1
d_on_above = 0.5
g_off_above = 10.0
g_on_below = 0.1
[train]
steps = 1
batch_size = 2
seed = 1
threads = 0
precision = "fp32"
log_every = 1
checkpoint_every = 1
sample_every = 0
eval_every = 0
eval_images = 2
keep_checkpoints = 1
"#;

/// Evaluates `images` synthetic images below `folder`, which keeps them, and prints a JSON object: the numbers, and the
/// peak of resident memory of this process.
///
/// # Errors
/// A full disk, or a system without `/proc/self/status`.
pub fn run(images: usize, folder: &Path) -> Result<()> {
    let data = dataset(images, folder)?;
    let experiment = Experiment::parse(EXPERIMENT, Path::new("memory.toml"), &[])?;
    let perception = Perception::load(&experiment, Device::Cpu)?;
    let generator = Generator::new(experiment.generator.clone(), 1, Device::Cpu)?;
    let before = peak_mib()?;
    let begun = Instant::now();
    let found = held_out(
        &data,
        &experiment.augment(),
        &perception,
        &generator,
        images,
        Clip::Displayable,
        Device::Cpu,
    )?;
    println!(
        "{}",
        json!({
            "images": found.n,
            "n_pairs_from": found.norm.pairs_from,
            "peak_mib": peak_mib()?.round(),
            "before_mib": before.round(),
            "seconds": (10.0 * begun.elapsed().as_secs_f64()).round() / 10.0,
            "image_error": found.image_error,
            "feature_error": found.feature_error,
        })
    );
    Ok(())
}

/// The images, prepared; those of an earlier call are taken again.
///
/// # Errors
/// A full disk.
pub fn dataset(images: usize, folder: &Path) -> Result<Dataset> {
    let out = folder.join(format!("images-{images}"));
    if let Ok(there) = Dataset::open(&out) {
        return Ok(there);
    }
    let source = folder.join(format!("source-{images}"));
    fs::create_dir_all(&source).with_context(|| source.display().to_string())?;
    for i in 0..images {
        let path = source.join(format!("{i:06}.ppm"));
        write(i, &path).with_context(|| path.display().to_string())?;
    }
    let request = Prepare {
        source: source.clone(),
        out: out.clone(),
        size: 256,
        resize: Some(Resize::ShortCrop),
        window: None,
        orientation: None,
        store: Some(Store::Jpeg),
        holdout: None,
        validation: None,
        seed: 1,
        quarantine: 0,
        existing: Existing::Replace,
    };
    prepare(&request, &mut |_| Flow::Continue)?;
    fs::remove_dir_all(&source)?;
    Ok(Dataset::open(&out)?)
}

/// An image that differs from that of every other number: two waves in three colours.
fn write(number: usize, path: &PathBuf) -> Result<()> {
    let mut file = fs::File::create(path)?;
    let mut bytes = format!("P6 {SIDE} {SIDE} 255\n").into_bytes();
    let turn = number as f32 * 0.7;
    let (across, down) = (0.1 + 0.3 * turn.sin().abs(), 0.1 + 0.2 * turn.cos().abs());
    for y in 0..SIDE {
        for x in 0..SIDE {
            let wave = (across * x as f32 + turn).sin() + (down * y as f32 + 2.0 * turn).cos();
            for colour in 0..3 {
                let phase = (turn * (colour + 1) as f32).sin();
                bytes.push((127.0 + 60.0 * wave * phase).clamp(0.0, 255.0) as u8);
            }
        }
    }
    // The number itself, so that no two images are the same.
    for bit in 0..24 {
        let place = bytes.len() - 3 * SIDE * SIDE + 3 * bit;
        let value = if number >> bit & 1 == 1 { 250 } else { 5 };
        bytes[place..place + 3].fill(value);
    }
    Ok(file.write_all(&bytes)?)
}

/// Largest resident memory of this process so far, MiB.
///
/// # Errors
/// A system without `/proc/self/status`.
pub fn peak_mib() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    Ok(kib.context("no VmHWM in /proc/self/status")? / 1024.0)
}

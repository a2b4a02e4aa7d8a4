//! What the model says of the paper's networks on GPUs: its numbers, where they are from, and the tables.
//!
//! Counted: operations and weights, from the experiment files (`deepsim-bench counts`). Measured: a GPU's rate and a
//! loader's, from committed records. Everything else is an assumption, and the output calls it so.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::model::{Cluster, Load, Step, side_by_side, step};
use crate::documents::Records;
use crate::numbers::significant;
use deepsim_tools::files;
use deepsim_tools::programs::Programs;
use deepsim_tools::stages::note;
use deepsim_tools::workspace::Workspace;

const BENCH: &str = "deepsim-bench";
const EXPERIMENTS: &str = "experiments";
/// The paper's networks are this experiment and all that extend it.
const BASE: &str = "experiments/fc6.toml";
/// The network that the first table is about.
const NAME: &str = "fc6";

/// The record of the loader's rate.
const LOADER: &str = "bench-intel-amx";

/// Assumed: GPUs in a host.
const GPUS_OF_A_HOST: u32 = 8;
/// Assumed: threads of a host that read and decode images.
const LOADER_THREADS: f64 = 16.0;

/// What devices are connected by: assumptions.
struct Link {
    what: &'static str,
    devices: u32,
    /// Bytes in a second.
    bandwidth: f64,
    /// Seconds.
    latency: f64,
}

const LINKS: [Link; 3] = [
    Link {
        what: "one host, NVLink",
        devices: 8,
        bandwidth: 300e9,
        latency: 5e-6,
    },
    Link {
        what: "8 hosts, fast network",
        devices: 64,
        bandwidth: 300e9,
        latency: 10e-6,
    },
    Link {
        what: "8 hosts, 100 Gbit/s",
        devices: 64,
        bandwidth: 11e9,
        latency: 20e-6,
    },
];

/// Arithmetic in which gradients are sent, and its bytes for each.
const GRADIENTS: [(&str, f64); 2] = [("fp32", 4.0), ("bf16", 2.0)];

/// What the model takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inputs {
    /// The device whose rate was measured.
    pub device: String,
    /// Seconds of its step of `fc6` at the experiment's batch, in bf16.
    pub step_s: f64,
    /// GFLOP of that step.
    pub gflop: f64,
    /// Images that a loader's thread reads in a second from a dataset of raw pixels.
    pub raw_images_per_s: f64,
    /// The same from a folder of JPEGs, which it decodes and makes smaller.
    pub jpeg_images_per_s: f64,
    /// The networks.
    pub networks: Vec<Network>,
}

/// What a step of a network's training computes and exchanges, as `deepsim-bench counts` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Its experiment file.
    pub file: PathBuf,
    /// Its name.
    pub name: String,
    /// Images of a step.
    pub batch: u32,
    /// Steps.
    pub steps: f64,
    /// GFLOP of a step.
    pub gflop: f64,
    /// Weights that learn.
    pub weights: Weights,
}

/// Weights that learn, by network.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    /// The generator's.
    pub generator: f64,
    /// The discriminator's; 0 without one.
    pub discriminator: f64,
    /// An encoder's that learns; 0 without one.
    pub encoder: f64,
}

impl Network {
    /// What its training asks for, with gradients of so many bytes a weight.
    fn load(&self, bytes: f64) -> Load {
        let Weights {
            generator,
            discriminator,
            encoder,
        } = self.weights;
        Load {
            flop: 1e9 * self.gflop,
            bytes: bytes * (generator + discriminator + encoder),
            // The generator's with the encoder's, and before it the discriminator's.
            sums: if discriminator > 0.0 { 2.0 } else { 1.0 },
            images: f64::from(self.batch),
            steps: self.steps,
        }
    }
}

impl Inputs {
    /// Counts, and reads the committed records.
    ///
    /// # Errors
    /// A failed build, an experiment that cannot be counted, a record that is missing.
    pub fn read(ws: &Workspace) -> Result<Inputs> {
        let records = Records::read(ws)?;
        let gpu = |key: &str| format!("{NAME}_b64/bf16.{key}");
        let device = records.value("bench-cuda", &gpu("device"))?;
        Ok(Inputs {
            device: device.as_str().context("a device's name")?.to_owned(),
            step_s: records.number("bench-cuda", &gpu("ours_s"))?,
            gflop: records.number("bench-cuda", &gpu("gflop"))?,
            raw_images_per_s: records.number(LOADER, "shards.scaling.0.images_per_s")?,
            jpeg_images_per_s: records.number(LOADER, "data.scaling.0.images_per_s")?,
            networks: counted(ws)?,
        })
    }

    /// Operations that a device does in a second.
    fn rate(&self) -> f64 {
        1e9 * self.gflop / self.step_s
    }

    /// One device, with its part of a host's loader.
    fn alone(&self) -> Cluster {
        Cluster {
            devices: 1,
            rate: self.rate(),
            // Not used by one.
            bandwidth: 1.0,
            latency: 0.0,
            images_per_s: self.raw_images_per_s * LOADER_THREADS / f64::from(GPUS_OF_A_HOST),
        }
    }

    /// Devices behind a link.
    fn linked(&self, link: &Link) -> Cluster {
        let hosts = link.devices.div_ceil(GPUS_OF_A_HOST);
        Cluster {
            devices: link.devices,
            bandwidth: link.bandwidth,
            latency: link.latency,
            images_per_s: self.raw_images_per_s * LOADER_THREADS * f64::from(hosts),
            ..self.alone()
        }
    }
}

/// Operations and weights of the paper's networks.
fn counted(ws: &Workspace) -> Result<Vec<Network>> {
    let files = networks(ws)?;
    note("counting the operations of the experiments (a release build the first time)");
    let counts = Programs::for_speed(ws, &[BENCH])?
        .get(ws, "counting", BENCH)?
        .args(["counts"])
        .args(&files)
        .output()?;
    serde_json::from_slice(&counts).context("reading the counts")
}

/// The paper's experiment files, relative to the workspace: the base, and those in `experiments` and the folders there that
/// extend it.
fn networks(ws: &Workspace) -> Result<Vec<PathBuf>> {
    #[derive(Deserialize)]
    struct File {
        extends: Option<PathBuf>,
    }
    let base = ws.path(BASE);
    let base = base
        .canonicalize()
        .with_context(|| format!("resolving {}", base.display()))?;
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from(EXPERIMENTS)];
    while let Some(folder) = open.pop() {
        let path = ws.path(&folder);
        let entries =
            std::fs::read_dir(&path).with_context(|| format!("reading {}", path.display()))?;
        for entry in entries.flatten() {
            let file = folder.join(entry.file_name());
            let path = entry.path();
            if path.is_dir() {
                open.push(file);
            } else if path.extension().is_some_and(|end| end == "toml") {
                let File { extends } = files::toml(&path)?;
                let of = path.parent().unwrap_or(Path::new(""));
                let extends = extends.and_then(|other| of.join(other).canonicalize().ok());
                if path.canonicalize().is_ok_and(|own| own == base)
                    || extends.as_ref() == Some(&base)
                {
                    found.push(file);
                }
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What the model says of one number of devices.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// The network.
    pub network: String,
    /// Devices.
    pub devices: u32,
    /// What they are connected by.
    pub link: &'static str,
    /// In which the gradients are sent.
    pub gradients: &'static str,
    /// The step.
    pub step: Step,
    /// Seconds of the whole training.
    pub training_s: f64,
}

fn forecast(inputs: &Inputs, network: &Network) -> Vec<Forecast> {
    let of = |cluster: &Cluster, link, (gradients, bytes): (&'static str, f64)| {
        let load = network.load(bytes);
        let step = step(&load, cluster);
        Forecast {
            network: network.name.clone(),
            devices: cluster.devices,
            link,
            gradients,
            training_s: load.steps * step.seconds(),
            step,
        }
    };
    let mut all = vec![of(&inputs.alone(), "alone", GRADIENTS[0])];
    for link in &LINKS {
        let cluster = inputs.linked(link);
        all.extend(GRADIENTS.map(|gradients| of(&cluster, link.what, gradients)));
    }
    all
}

/// All that is forecast, for the record.
pub fn all(inputs: &Inputs) -> Vec<Forecast> {
    let networks = inputs.networks.iter();
    networks
        .flat_map(|network| forecast(inputs, network))
        .collect()
}

/// The tables, with all that they rest on.
pub fn table(inputs: &Inputs) -> String {
    [
        grounds(inputs),
        one_network(inputs),
        programme(inputs),
        LEFT_OUT.to_owned(),
    ]
    .join("\n")
}

/// What the model is, and where its numbers are from.
fn grounds(inputs: &Inputs) -> String {
    let mut out = format!(
        "model: a step takes max(compute + exchange, images)\n\
         \x20 compute   GFLOP of the step / rate / W devices\n\
         \x20 exchange  2 (W-1)/W x bytes / bandwidth, and 2 (W-1) x latency for each of the step's sums\n\
         \x20 images    of the step / those that the hosts' loaders read in a second\n\
         counted, from the experiment files\n\
         \x20 GFLOP of a step with both updates, weights that learn\n\
         measured\n\
         \x20 rate      {} TFLOP/s: a step of {NAME} takes {} ms in bf16 on one {} (docs/results/bench-cuda.json)\n\
         \x20 images    {} in a second by a thread from a dataset of raw pixels, {} from a folder of JPEGs of\n\
         \x20           500x375 (docs/results/{LOADER}.json)\n\
         assumed\n\
         \x20 every network and every part of a batch is computed at that rate\n\
         \x20 hosts     {GPUS_OF_A_HOST} GPUs each; {LOADER_THREADS} threads of a loader, as fast as those that were measured; the\n\
         \x20           dataset of raw pixels is in memory or on disks as fast\n",
        significant(inputs.rate() / 1e12, 3),
        significant(1e3 * inputs.step_s, 3),
        inputs.device,
        significant(inputs.raw_images_per_s, 3),
        significant(inputs.jpeg_images_per_s, 3),
    );
    for link in &LINKS {
        let _ = writeln!(
            out,
            "  link      {} GPUs, {}: {} GB/s each way, {} us a message",
            link.devices,
            link.what,
            significant(link.bandwidth / 1e9, 3),
            significant(1e6 * link.latency, 2),
        );
    }
    out
}

/// One network on more and more devices.
fn one_network(inputs: &Inputs) -> String {
    let mut out = format!("{NAME}, one network on W GPUs; the batch stays as it is\n");
    let mut line = |cells: [&str; 8]| {
        let [gpus, link, sent, compute, exchange, images, step, rest] = cells;
        let _ = writeln!(
            out,
            "{gpus:>4}  {link:<22}  {sent:<9}  {compute:>10}  {exchange:>11}  {images:>9}  {step:>7}  {rest}"
        );
    };
    line([
        "W",
        "",
        "gradients",
        "compute ms",
        "exchange ms",
        "images ms",
        "step ms",
        "computes  whole training",
    ]);
    let Some(network) = inputs.networks.iter().find(|network| network.name == NAME) else {
        return out;
    };
    for found in forecast(inputs, network) {
        let ms = |seconds: f64| significant(1e3 * seconds, 3);
        line([
            &found.devices.to_string(),
            found.link,
            found.gradients,
            &ms(found.step.compute_s),
            &ms(found.step.exchange_s),
            &ms(found.step.data_s),
            &ms(found.step.seconds()),
            &format!(
                "{:>6.0} %  {:>14}",
                100.0 * found.step.efficiency(),
                time(found.training_s)
            ),
        ]);
    }
    let jpegs = f64::from(network.batch) / (inputs.jpeg_images_per_s * LOADER_THREADS);
    let _ = writeln!(
        out,
        "  from JPEGs of 500x375 one host reads the images of a step in {} ms, 8 hosts in {} ms",
        significant(1e3 * jpegs, 3),
        significant(1e3 * jpegs / 8.0, 3)
    );
    out
}

/// All of the paper's networks.
fn programme(inputs: &Inputs) -> String {
    let mut out = format!(
        "all {} networks of the paper ({BASE} and what extends it)\n",
        inputs.networks.len()
    );
    let _ = writeln!(
        out,
        "{:<26}  {:>7}  {:>8}  {:>9}  {:>10}  {:>10}",
        "", "GFLOP", "MB fp32", "steps", "step ms", "on one GPU"
    );
    let alone = inputs.alone();
    let mut each = Vec::new();
    for network in &inputs.networks {
        let load = network.load(GRADIENTS[0].1);
        let step = step(&load, &alone).seconds();
        let training = load.steps * step;
        each.push(training);
        let _ = writeln!(
            out,
            "{:<26}  {:>7}  {:>8}  {:>9}  {:>10}  {:>10}",
            network.name,
            significant(network.gflop, 4),
            significant(load.bytes / 1e6, 3),
            significant(load.steps, 3),
            significant(1e3 * step, 3),
            time(training)
        );
    }
    let _ = writeln!(
        out,
        "  one after the other on one GPU: {}",
        time(each.iter().sum())
    );
    for link in &LINKS {
        let cluster = inputs.linked(link);
        let together = inputs.networks.iter().map(|network| {
            let load = network.load(GRADIENTS[0].1);
            load.steps * step(&load, &cluster).seconds()
        });
        let _ = writeln!(
            out,
            "  one after the other, each by {} GPUs ({}, fp32): {}",
            link.devices,
            link.what,
            time(together.sum())
        );
    }
    for devices in [8, 64] {
        let _ = writeln!(
            out,
            "  side by side, each by one of {devices} GPUs: {}",
            time(side_by_side(&each, devices))
        );
    }
    out
}

/// What nobody should read into the tables.
const LEFT_OUT: &str = "\
left out
  Nothing here ran on several GPUs. Small parts of a batch are computed at a lower rate than the whole: compute is too
  short for many devices. Libraries choose other ways than a ring, and may sum while they compute; the trainer does
  not. Batch normalisation, evaluations, checkpoints and start are not counted, nor that a gate skips updates.
  Memory, disks and failures are not looked at.
";

/// `3.8 h`, `2.4 days`.
fn time(seconds: f64) -> String {
    let hours = seconds / 3600.0;
    if hours < 48.0 {
        format!("{} h", significant(hours, 2))
    } else {
        format!("{} days", significant(hours / 24.0, 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str, discriminator: f64) -> Network {
        Network {
            file: PathBuf::from(format!("experiments/{name}.toml")),
            name: name.to_owned(),
            batch: 64,
            steps: 1e6,
            gflop: 1000.0,
            weights: Weights {
                generator: 56e6,
                discriminator,
                encoder: 0.0,
            },
        }
    }

    fn inputs() -> Inputs {
        Inputs {
            device: "A GPU".to_owned(),
            step_s: 0.01,
            gflop: 1000.0,
            raw_images_per_s: 5000.0,
            jpeg_images_per_s: 500.0,
            networks: vec![network("fc6", 1e6), network("fc6-image", 0.0)],
        }
    }

    #[test]
    fn gradients_of_all_networks_are_exchanged_in_one_sum_for_each_pass_back() {
        let load = network("fc6", 1e6).load(4.0);
        assert_eq!((load.flop, load.bytes, load.sums), (1e12, 57e6 * 4.0, 2.0));
        assert_eq!(network("fc6-image", 0.0).load(2.0).sums, 1.0);
    }

    #[test]
    fn every_link_is_forecast_in_both_arithmetics() {
        let inputs = inputs();
        let all = all(&inputs);
        assert_eq!(all.len(), 2 * (1 + 2 * LINKS.len()));
        assert_eq!(all[0].step.exchange_s, 0.0);
        assert!((all[0].training_s - 1e4).abs() < 1e-6);
        for pair in all[1..7].chunks(2) {
            assert_eq!((pair[0].gradients, pair[1].gradients), ("fp32", "bf16"));
            assert!(pair[1].step.exchange_s < pair[0].step.exchange_s);
            assert!(pair[0].step.efficiency() < 1.0);
        }
    }

    #[test]
    fn the_tables_name_what_is_measured_and_what_is_assumed() {
        let text = table(&inputs());
        for words in [
            "counted, from the experiment files",
            "rate      100 TFLOP/s: a step of fc6 takes 10.0 ms in bf16 on one A GPU",
            "assumed",
            "8 GPUs, one host, NVLink: 300 GB/s each way, 5.0 us a message",
            "all 2 networks of the paper",
            "one after the other on one GPU: 5.6 h",
            "side by side, each by one of 8 GPUs: 2.8 h",
            "left out",
        ] {
            assert!(text.contains(words), "{words}:\n{text}");
        }
    }

    #[test]
    fn times_are_in_hours_and_then_in_days() {
        assert_eq!(time(13_680.0), "3.8 h");
        assert_eq!(time(207_360.0), "2.4 days");
    }

    #[test]
    fn the_papers_networks_are_those_that_extend_fc6() {
        let ws = Workspace::find(None).unwrap();
        let all = networks(&ws).unwrap();
        for name in ["fc6.toml", "conv5.toml", "vae-alexnet.toml", "db/fc8.toml"] {
            let file = Path::new(EXPERIMENTS).join(name);
            assert!(all.contains(&file), "{name}: {all:?}");
        }
        for name in ["quickstart.toml", "sample/pool5.toml", "vaegan/vae.toml"] {
            assert!(!all.contains(&Path::new(EXPERIMENTS).join(name)), "{name}");
        }
    }

    #[test]
    fn the_committed_records_have_the_measured_numbers() {
        let records = Records::read(&Workspace::find(None).unwrap()).unwrap();
        for key in ["ours_s", "gflop"] {
            let key = format!("{NAME}_b64/bf16.{key}");
            assert!(records.number("bench-cuda", &key).unwrap() > 0.0, "{key}");
        }
        for work in ["data", "shards"] {
            let key = format!("{work}.scaling.0.images_per_s");
            assert!(records.number(LOADER, &key).unwrap() > 0.0, "{key}");
        }
    }
}

//! `deepsim-bench counts FILE…`: what a training step of experiments computes and exchanges, counted from their files.
//! Neither data nor weights need be there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use deepsim_experiment::Experiment;
use deepsim_nets::layers::op::Op;
use serde_json::{Value, json};

use crate::flops;
use crate::networks::network;

/// Prints a JSON list with one entry for each experiment file.
///
/// # Errors
/// A file that is no experiment, or compares in what is no network of ours.
pub fn run(files: &[PathBuf]) -> Result<()> {
    let all = files
        .iter()
        .map(|file| count(file).with_context(|| file.display().to_string()))
        .collect::<Result<Vec<Value>>>()?;
    println!("{}", Value::from(all));
    Ok(())
}

fn count(file: &Path) -> Result<Value> {
    let experiment = Experiment::load(file, &[])?;
    let train = &experiment.config.train;
    Ok(json!({
        "file": file.display().to_string(),
        "name": experiment.config.name,
        "batch": train.batch_size,
        "steps": train.steps,
        "gflop": flops::gflop(&experiment)?,
        "weights": weights(&experiment)?,
    }))
}

/// Weights that learn, of each network that takes part. The trunk biases of the paper's generators, which do not learn,
/// are among them: some two thousand numbers of fifty million.
fn weights(experiment: &Experiment) -> Result<Value> {
    let sum = |ops: &[Op]| ops.iter().map(Op::parameters).sum::<i64>();
    let discriminator = match experiment.trained_discriminator() {
        Some(spec) => sum(&spec.layers()?),
        None => 0,
    };
    let encoder = match experiment.config.latent {
        Some(latent) => {
            let source = network(&experiment.encoder)?;
            let rows = source.net.rows_to(source.tap)?;
            let body: i64 = rows.iter().map(|(_, op)| op.parameters()).sum();
            let crop = i64::from(experiment.config.data.crop);
            let features = source.net.feature_shape(source.tap, crop)?.len();
            body + flops::number_of_heads(latent) * (features + 1) * latent.size
        }
        None => 0,
    };
    Ok(json!({
        "generator": sum(&experiment.generator.layers()?),
        "discriminator": discriminator,
        "encoder": encoder,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Value {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
        count(&folder.join(name)).unwrap()
    }

    #[test]
    fn generators_have_the_published_numbers_of_weights() {
        for (name, millions) in [
            ("fc6.toml", 56.10),
            ("fc7.toml", 56.10),
            ("fc8.toml", 43.42),
            ("conv5.toml", 12.70),
        ] {
            let found = of(name)["weights"]["generator"].as_f64().unwrap() / 1e6;
            assert!((found - millions).abs() < 0.01, "{name}: {found}");
        }
    }

    #[test]
    fn networks_that_take_no_part_exchange_nothing() {
        let fc6 = of("fc6.toml");
        assert_eq!(fc6["steps"], 1_000_000);
        assert_eq!(fc6["batch"], 64);
        assert!(fc6["weights"]["discriminator"].as_i64().unwrap() > 1_000_000);
        assert_eq!(fc6["weights"]["encoder"], 0);
        let image = of("image-loss/fc6.toml");
        assert_eq!(image["weights"]["discriminator"], 0);
        assert_eq!(image["weights"]["generator"], fc6["weights"]["generator"]);
        // CaffeNet's convolutions and fc6, and two heads of 4096 by 4096.
        let encoder = &of("vae-alexnet.toml")["weights"]["encoder"];
        assert_eq!(*encoder, 2_334_080 + 37_752_832 + 2 * 4097 * 4096);
    }
}

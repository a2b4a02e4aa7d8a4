//! The sample experiments that `reproduce` runs, and which studies it makes of each run.

use super::studies::Study;

/// One experiment that `reproduce` runs.
pub struct Experiment {
    /// Names the record; `--only` matches it.
    pub name: &'static str,
    /// Its file, relative to the workspace.
    pub file: &'static str,
    /// What it shows, for the page's table.
    pub shows: &'static str,
    /// What is measured of its run beside the errors of `table2`.
    pub studies: &'static [Study],
}

/// How experiments on faces are named: their images are fetched only for them.
pub const FACES: &str = "faces-";

const fn experiment(
    name: &'static str,
    file: &'static str,
    shows: &'static str,
    studies: &'static [Study],
) -> Experiment {
    Experiment {
        name,
        file,
        shows,
        studies,
    }
}

/// In the order of what a reader wants to see first.
pub const EXPERIMENTS: &[Experiment] = &[
    experiment(
        "quickstart",
        "experiments/quickstart.toml",
        "full loss from pool2",
        &[],
    ),
    experiment(
        "sample-pool5",
        "experiments/sample/pool5.toml",
        "full loss from pool5, the paper's layer",
        &[
            Study::Neighbors,
            Study::Reencode,
            Study::Interpolate,
            Study::Mv,
        ],
    ),
    experiment(
        "sample-hero",
        "experiments/sample/hero.toml",
        "the same at the paper's size: 227 pixels, whole generator",
        &[],
    ),
    experiment(
        "sample-pool5-image",
        "experiments/sample/pool5-image.toml",
        "pool5, image loss alone",
        &[],
    ),
    experiment(
        "sample-pool5-feat-image",
        "experiments/sample/pool5-feat-image.toml",
        "pool5, no adversarial loss",
        &[],
    ),
    experiment(
        "sample-pool5-adv-image",
        "experiments/sample/pool5-adv-image.toml",
        "pool5, no feature loss",
        &[],
    ),
    experiment(
        "sample-pool5-feat-adv",
        "experiments/sample/pool5-feat-adv.toml",
        "pool5, no image loss",
        &[],
    ),
    experiment(
        "sample-pool5-vgg16",
        "experiments/sample/pool5-vgg16.toml",
        "pool5, compared at VGG16's pool5",
        &[],
    ),
    experiment(
        "sample-pool5-random",
        "experiments/sample/pool5-random.toml",
        "pool5, compared with random weights",
        &[],
    ),
    experiment(
        "sample-pool5-discriminator",
        "experiments/sample/pool5-discriminator.toml",
        "pool5, compared in the discriminator's features",
        &[],
    ),
    experiment(
        "sample-pooled",
        "experiments/sample/pooled.toml",
        "EfficientNet-Lite0's pooled features, full loss",
        &[],
    ),
    experiment(
        "sample-logits",
        "experiments/sample/logits.toml",
        "EfficientNet-Lite0's logits, full loss",
        &[],
    ),
    experiment(
        "sample-pooled-image",
        "experiments/sample/pooled-image.toml",
        "pooled features, image loss alone",
        &[],
    ),
    experiment(
        "sample-logits-image",
        "experiments/sample/logits-image.toml",
        "logits, image loss alone",
        &[],
    ),
    experiment(
        "quickstart-image-loss",
        "experiments/quickstart-image-loss.toml",
        "pool2, image loss alone, as many steps",
        &[],
    ),
    experiment(
        "sample-pool5-slow",
        "experiments/sample/pool5-slow.toml",
        "pool5, half the learning rate",
        &[],
    ),
    experiment(
        "sample-pool5-feat-adv-slow",
        "experiments/sample/pool5-feat-adv-slow.toml",
        "the same without image loss",
        &[],
    ),
    experiment(
        "sample-pool5-fast",
        "experiments/sample/pool5-fast.toml",
        "pool5, twice the learning rate",
        &[],
    ),
    experiment(
        "sample-pool5-feat-adv-fast",
        "experiments/sample/pool5-feat-adv-fast.toml",
        "the same without image loss",
        &[],
    ),
    experiment(
        "sample-vae-alexnet",
        "experiments/sample/vae-alexnet.toml",
        "variational autoencoder in the DeePSiM loss",
        &[Study::Samples],
    ),
    experiment(
        "sample-vae-squared",
        "experiments/sample/vae-squared.toml",
        "variational autoencoder in squared error",
        &[Study::Samples],
    ),
    experiment(
        "sample-vae-random",
        "experiments/sample/vae-random.toml",
        "variational autoencoder, comparator with random weights",
        &[Study::Samples],
    ),
    experiment(
        "sample-ae-l2",
        "experiments/sample/ae-l2.toml",
        "autoencoder, squared differences",
        &[Study::Losses],
    ),
    experiment(
        "sample-ae-l1",
        "experiments/sample/ae-l1.toml",
        "autoencoder, absolute differences",
        &[Study::Losses],
    ),
    experiment(
        "sample-ae-ms-ssim",
        "experiments/sample/ae-ms-ssim.toml",
        "autoencoder, MS-SSIM",
        &[Study::Losses],
    ),
    experiment(
        "sample-ae-deepsim",
        "experiments/sample/ae-deepsim.toml",
        "autoencoder, DeePSiM loss",
        &[Study::Losses],
    ),
    experiment(
        "sample-sr-l2",
        "experiments/sample/sr-l2.toml",
        "super-resolution by 4, squared differences",
        &[Study::Losses],
    ),
    experiment(
        "sample-sr-l1",
        "experiments/sample/sr-l1.toml",
        "super-resolution by 4, absolute differences",
        &[Study::Losses],
    ),
    experiment(
        "sample-sr-ms-ssim",
        "experiments/sample/sr-ms-ssim.toml",
        "super-resolution by 4, MS-SSIM",
        &[Study::Losses],
    ),
    experiment(
        "sample-sr-deepsim",
        "experiments/sample/sr-deepsim.toml",
        "super-resolution by 4, DeePSiM loss",
        &[Study::Losses],
    ),
    experiment(
        "faces-vaegan",
        "experiments/sample/faces-vaegan.toml",
        "VAE/GAN on faces, 64 pixels",
        &[Study::Samples, Study::Attributes],
    ),
    experiment(
        "faces-gan",
        "experiments/sample/faces-gan.toml",
        "the GAN alone",
        &[Study::Samples],
    ),
    experiment(
        "faces-vae",
        "experiments/sample/faces-vae.toml",
        "the variational autoencoder in pixels alone",
        &[Study::Samples, Study::Attributes],
    ),
    experiment(
        "faces-vae-dis",
        "experiments/sample/faces-vae-dis.toml",
        "the same, compared in the trained GAN's discriminator",
        &[Study::Samples, Study::Attributes],
    ),
    experiment(
        "sample-noise",
        "experiments/sample/noise.toml",
        "pooled features and noise",
        &[Study::Preimages],
    ),
    experiment(
        "sample-noise-conditioned",
        "experiments/sample/noise-conditioned.toml",
        "the same, the discriminator sees the features",
        &[Study::Preimages],
    ),
    experiment(
        "sample-diverse",
        "experiments/sample/diverse.toml",
        "pooled features and noise, differing images rewarded",
        &[Study::Preimages],
    ),
];

/// Whether an experiment's held-out errors mean anything: not those of a GAN, whose encoder stays as it began.
pub fn reconstructs(name: &str) -> bool {
    name != "faces-gan"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn only_the_gan_reconstructs_nothing() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for experiment in EXPERIMENTS {
            let toml: toml::Table =
                crate::experiment_file::read(&root.join(experiment.file)).unwrap();
            let number = |section: &str, key: &str| {
                let value = toml.get(section)?.get(key)?;
                value
                    .as_float()
                    .or_else(|| Some(value.as_integer()? as f64))
            };
            let terms = ["feat", "img"].map(|term| number("loss", term));
            let learns = terms.iter().any(|weight| *weight != Some(0.0));
            assert_eq!(reconstructs(experiment.name), learns, "{}", experiment.name);
        }
    }
}

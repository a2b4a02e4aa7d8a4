//! The sample experiments that `reproduce` runs, and which studies it makes of each run.

use super::studies::Study;

/// One experiment that `reproduce` runs.
pub struct Experiment {
    /// Names the record and the file; `--only` matches it.
    pub name: &'static str,
    /// What it shows, for the page's table.
    pub shows: &'static str,
    /// What is measured of its run beside the errors of `table2`.
    pub studies: &'static [Study],
}

/// How experiments on the sample photos are named, but for the quickstart's.
const SAMPLE: &str = "sample-";
/// How experiments on faces are named: their images are fetched only for them.
pub const FACES: &str = "faces-";

impl Experiment {
    /// Its file, relative to the workspace.
    pub fn file(&self) -> String {
        match self.name.strip_prefix(SAMPLE) {
            Some(name) => format!("experiments/sample/{name}.toml"),
            None if self.name.starts_with(FACES) => {
                format!("experiments/sample/{}.toml", self.name)
            }
            None => format!("experiments/{}.toml", self.name),
        }
    }

    /// The same with further studies of its run.
    const fn and(self, studies: &'static [Study]) -> Experiment {
        Experiment { studies, ..self }
    }
}

const fn of(name: &'static str, shows: &'static str) -> Experiment {
    Experiment {
        name,
        shows,
        studies: &[],
    }
}

/// In the order of what a reader wants to see first.
pub const EXPERIMENTS: &[Experiment] = &[
    of("quickstart", "full loss from pool2"),
    of("sample-pool5", "full loss from pool5, the paper's layer").and(&[
        Study::Neighbors,
        Study::Reencode,
        Study::Interpolate,
        Study::Mv,
    ]),
    of(
        "sample-hero",
        "the same at the paper's size: 227 pixels, whole generator",
    ),
    of("sample-pool5-image", "pool5, image loss alone"),
    of("sample-pool5-feat-image", "pool5, no adversarial loss"),
    of("sample-pool5-adv-image", "pool5, no feature loss"),
    of("sample-pool5-feat-adv", "pool5, no image loss"),
    of("sample-pool5-vgg16", "pool5, compared at VGG16's pool5"),
    of("sample-pool5-random", "pool5, compared with random weights"),
    of(
        "sample-pool5-discriminator",
        "pool5, compared in the discriminator's features",
    ),
    of(
        "sample-pooled",
        "EfficientNet-Lite0's pooled features, full loss",
    ),
    of("sample-logits", "EfficientNet-Lite0's logits, full loss"),
    of("sample-pooled-image", "pooled features, image loss alone"),
    of("sample-logits-image", "logits, image loss alone"),
    of(
        "quickstart-image-loss",
        "pool2, image loss alone, as many steps",
    ),
    of("sample-pool5-slow", "pool5, half the learning rate"),
    of("sample-pool5-feat-adv-slow", "the same without image loss"),
    of("sample-pool5-fast", "pool5, twice the learning rate"),
    of("sample-pool5-feat-adv-fast", "the same without image loss"),
    of(
        "sample-vae-alexnet",
        "variational autoencoder in the DeePSiM loss",
    )
    .and(&[Study::Samples]),
    of(
        "sample-vae-squared",
        "variational autoencoder in squared error",
    )
    .and(&[Study::Samples]),
    of(
        "sample-vae-random",
        "variational autoencoder, comparator with random weights",
    )
    .and(&[Study::Samples]),
    of("sample-ae-l2", "autoencoder, squared differences").and(&[Study::Losses]),
    of("sample-ae-l1", "autoencoder, absolute differences").and(&[Study::Losses]),
    of("sample-ae-ms-ssim", "autoencoder, MS-SSIM").and(&[Study::Losses]),
    of("sample-ae-deepsim", "autoencoder, DeePSiM loss").and(&[Study::Losses]),
    of("sample-sr-l2", "super-resolution by 4, squared differences").and(&[Study::Losses]),
    of(
        "sample-sr-l1",
        "super-resolution by 4, absolute differences",
    )
    .and(&[Study::Losses]),
    of("sample-sr-ms-ssim", "super-resolution by 4, MS-SSIM").and(&[Study::Losses]),
    of("sample-sr-deepsim", "super-resolution by 4, DeePSiM loss").and(&[Study::Losses]),
    of("faces-vaegan", "VAE/GAN on faces, 64 pixels").and(&[Study::Samples, Study::Attributes]),
    of("faces-gan", "the GAN alone").and(&[Study::Samples]),
    of("faces-vae", "the variational autoencoder in pixels alone")
        .and(&[Study::Samples, Study::Attributes]),
    of(
        "faces-vae-dis",
        "the same, compared in the trained GAN's discriminator",
    )
    .and(&[Study::Samples, Study::Attributes]),
    of("sample-noise", "pooled features and noise").and(&[Study::Preimages]),
    of(
        "sample-noise-conditioned",
        "the same, the discriminator sees the features",
    )
    .and(&[Study::Preimages]),
    of(
        "sample-diverse",
        "pooled features and noise, differing images rewarded",
    )
    .and(&[Study::Preimages]),
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
                crate::experiment_file::read(&root.join(experiment.file())).unwrap();
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

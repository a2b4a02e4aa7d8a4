//! What a run was trained for, by its experiment.

use deepsim_experiment::Experiment;
use deepsim_nets::PixelDistance;
use deepsim_nets::loss::TermKind;

use crate::analysis::recipe::is_paper_s;
use crate::analysis::sample::has_prior;
use crate::run::catalog::{decoded_name, net_name};

/// Whether a run belongs to the comparison: an inversion, an autoencoder with plain codes, or super-resolution.
pub fn compares(experiment: &Experiment) -> bool {
    !has_prior(experiment) && experiment.config.vaegan.is_none()
}

/// The training loss by its usual name: the distance of pixels, what features are compared in, and the adversary. The
/// paper's three terms are "DeePSiM"; runs of one objective have one name.
pub fn trained_with(experiment: &Experiment) -> String {
    let config = &experiment.config;
    let loss = config.heaviest_loss();
    let has = |kind| loss.weight(kind) > 0.0;
    let pixels = match config.pixels.distance {
        PixelDistance::Squared => "L2",
        PixelDistance::Absolute => "L1",
        PixelDistance::Ssim => "SSIM",
        PixelDistance::MsSsim => "MS-SSIM",
    };
    let game = config.adversary.loss;
    let compared = experiment.compared_in(net_name);
    let [image, features, adversary] =
        [TermKind::Image, TermKind::Feature, TermKind::Adversarial].map(has);
    let paper_s = image && features && adversary && is_paper_s(experiment);
    if paper_s && config.pixels.distance == PixelDistance::Squared {
        return format!("DeePSiM ({compared})");
    }
    let mut terms = Vec::new();
    if image {
        terms.push(pixels.to_owned());
    }
    if features {
        terms.push(compared);
    }
    if adversary {
        terms.push(if game.is_paper_s() {
            "D".to_owned()
        } else {
            game.name().to_owned()
        });
    }
    if has(TermKind::TotalVariation) {
        terms.push("TV".to_owned());
    }
    if config.diversity.is_some() {
        terms.push("diversity".to_owned());
    }
    terms.join(" + ")
}

/// What is decoded: only reconstructions from the same features can be compared.
pub fn task(experiment: &Experiment) -> String {
    let name = decoded_name(experiment);
    if experiment.encoder.learned() || experiment.config.latent.is_some() {
        name
    } else {
        format!("{name} (random weights)")
    }
}

/// Whether a run has an adversary.
pub fn has_adversary(experiment: &Experiment) -> bool {
    experiment.trained_discriminator().is_some()
}

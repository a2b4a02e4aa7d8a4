//! What table 2 says of how a run was trained, and which of the paper's numbers are of the same training.

use deepsim_experiment::source::Source;
use deepsim_experiment::{Experiment, config};
use deepsim_nets::PixelDistance;
use deepsim_nets::loss::TermKind;

use crate::analysis::paper;
use crate::run::catalog::{Loss, decoded_name, inverts, net_name};

/// The paper's numbers for a run: image and feature error. They are of trained weights and of the losses that it
/// prints; others are other experiments.
pub(super) fn printed(e: &Experiment) -> (Option<f64>, Option<f64>) {
    let loss = Loss::of(e);
    let trained = e.encoder.learned() && e.compared().all(|c| c.source.learned());
    let comparator = e.compared_in(ToString::to_string);
    paper::errors(loss.method(e), &comparator, &decoded_name(e))
        .filter(|_| trained && loss != Loss::FeatureAdversarial && inverts(e) && is_paper_s(e))
        .unwrap_or((None, None))
}

/// Whether it has the paper's adversary and its distance of features.
pub(super) fn is_paper_s(e: &Experiment) -> bool {
    let architecture = e.config.discriminator.as_ref().map(|d| d.architecture);
    e.config.adversary.is_paper_s()
        && architecture.is_none_or(|a| a == config::DiscriminatorKind::DeePSiM)
        && e.compared().all(|c| {
            let several = matches!(c.source, Source::Perceptual(_) | Source::Taps(_));
            c.distance.is_paper_s() && !several
        })
}

/// How pixels are compared where that is not the paper's way.
fn pixels(e: &Experiment) -> &'static str {
    match e.config.pixels.distance {
        PixelDistance::Squared => "",
        PixelDistance::Absolute => "L1",
        PixelDistance::Ssim => "SSIM",
        PixelDistance::MsSsim => "MS-SSIM",
    }
}

/// See `Row::apart`.
pub(super) fn apart(e: &Experiment) -> String {
    let (compared, loss) = (e.compared_in(net_name), e.config.heaviest_loss());
    let pixels = if loss.weight(TermKind::Image) == 0.0 {
        ""
    } else {
        pixels(e)
    };
    let smooth = if loss.weight(TermKind::TotalVariation) > 0.0 {
        "TV"
    } else {
        ""
    };
    let game = match e.config.adversary.loss {
        game if game.is_paper_s() || loss.weight(TermKind::Adversarial) == 0.0 => "",
        game => game.name(),
    };
    let all = [compared.as_str(), pixels, smooth, game];
    let told: Vec<&str> = all.into_iter().filter(|t| !t.is_empty()).collect();
    told.join(", ")
}

/// See `Row::recipe`.
pub(super) fn recipe(e: &Experiment) -> String {
    let loss = e.config.heaviest_loss();
    let has = |kind| loss.weight(kind) > 0.0;
    let mut parts: Vec<String> = e.compared().map(|c| c.words(net_name)).collect();
    if has(TermKind::Image) {
        parts.push(match pixels(e) {
            "" => "L2".to_owned(),
            other => other.to_owned(),
        });
    }
    for (kind, name) in [(TermKind::TotalVariation, "TV"), (TermKind::Kl, "KL")] {
        if has(kind) {
            parts.push(name.to_owned());
        }
    }
    if e.config.diversity.is_some() {
        parts.push("diversity".to_owned());
    }
    if has(TermKind::Adversarial) {
        parts.extend(adversary(e));
    }
    let iteration = match (
        e.config.vaegan.is_some(),
        e.config.train.discriminator_passes,
    ) {
        (true, _) => ", vaegan",
        (false, config::DiscriminatorPasses::One) => ", one-pass",
        (false, config::DiscriminatorPasses::Paper) => "",
    };
    format!("{}{iteration}", parts.join(" + "))
}

/// The adversary of a recipe: what it plays for, against which discriminator, and what is beside it.
fn adversary(e: &Experiment) -> Vec<String> {
    let (game, described) = (e.config.adversary, e.config.discriminator.as_ref());
    let against = match described.map(|d| d.architecture) {
        None | Some(config::DiscriminatorKind::DeePSiM) => "deepsim",
        Some(config::DiscriminatorKind::VaeGan) => "larsen",
        Some(config::DiscriminatorKind::PatchGan) => "patchgan",
        Some(config::DiscriminatorKind::Heads) => "heads",
    };
    let mut parts = vec![format!("{} {against}", game.loss.name())];
    for (is_there, name) in [
        (game.r1.is_some(), "R1"),
        (game.lecam.is_some(), "LeCAM"),
        (game.augment.is_some(), "DiffAugment"),
        (game.adaptive.is_some(), "adaptive weight"),
    ] {
        if is_there {
            parts.push(name.to_owned());
        }
    }
    parts
}

/// Whether the encoder's network, at whatever layer, is in the loss: as a comparator, or below a discriminator's heads.
pub(super) fn trained_on(e: &Experiment) -> bool {
    let mut others = e.sources().skip(1).map(|(_, source)| source);
    if let Some(encoder) = e.encoder.trunk() {
        let mut trunks = others.filter_map(Source::trunk);
        return trunks.any(|trunk| trunk.is_same_network(encoder));
    }
    if let Some(encoder) = e.encoder.script() {
        let mut scripts = others.filter_map(Source::script);
        return scripts.any(|script| script.file == encoder.file);
    }
    others.any(|source| *source == e.encoder)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn experiment(name: &str) -> Experiment {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
        Experiment::load(&root.join(name), &[]).unwrap()
    }

    #[test]
    fn the_papers_numbers_stand_beside_the_papers_experiments_alone() {
        for (file, expected) in [
            ("fc6.toml", (Some(55.0), Some(48.0))),
            ("comparators/fc6-videonet.toml", (Some(51.0), Some(57.0))),
            ("image-loss/fc6.toml", (Some(46.0), Some(79.0))),
            ("db/fc6.toml", (Some(51.0), None)),
            ("comparators/fc6-random.toml", (None, None)),
            ("ablations/fc6-feat-adv.toml", (None, None)),
            ("sample/pool5.toml", (None, None)),
        ] {
            assert_eq!(printed(&experiment(file)), expected, "{file}");
        }
    }

    #[test]
    fn today_s_recipe_is_deepsim_s_method_with_other_parts() {
        let modern = experiment("sample/modern.toml");
        assert_eq!(Loss::of(&modern).method(&modern), "deepsim");
        assert_eq!(printed(&modern), (None, None));
        let parts = "lpips-alexnet + L1 + hinge patchgan";
        assert_eq!(recipe(&modern), parts);
        assert_eq!(apart(&modern), "lpips-alexnet, L1, hinge");
        assert!(trained_on(&modern), "LPIPS by the encoder's own network");
        let quickstart = experiment("quickstart.toml");
        let parts = "alexnet:pool5 + L2 + cross-entropy deepsim";
        assert_eq!(recipe(&quickstart), parts);
        assert!(trained_on(&quickstart));
        assert!(!trained_on(&experiment("sample/pool5-vgg16.toml")));
        let larsen = experiment("vaegan/vaegan.toml");
        assert!(recipe(&larsen).ends_with(" larsen, vaegan"));
        assert_eq!(Loss::of(&larsen).method(&larsen), "other");
    }

    #[test]
    fn lines_of_the_table_tell_comparators_and_distances_apart() {
        for (file, expected) in [
            ("fc6.toml", "caffenet:pool5"),
            (
                "comparators/fc6-random.toml",
                "caffenet:pool5 (random weights)",
            ),
            ("image-loss/fc6.toml", ""),
            ("sample/ae-l1.toml", "L1"),
            ("sample/ae-l2.toml", ""),
            ("sample/ae-ms-ssim.toml", "MS-SSIM"),
        ] {
            assert_eq!(apart(&experiment(file)), expected, "{file}");
        }
    }
}

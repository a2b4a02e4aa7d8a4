//! What the sections of an experiment file ask of each other.

use deepsim_nets::Code;
use deepsim_nets::loss::TermKind;

use super::check::{Checked, at_least_zero, complain};
use super::discriminator::{Discriminator, DiscriminatorKind};
use super::file::Config;
use super::gate::Gate;
use super::loss::Loss;
use super::network::SourceKind;
use super::train::DiscriminatorPasses;

/// Checks each section, and what they ask of each other.
pub(crate) fn check(config: &Config) -> Checked {
    config.check()?;
    // What weighs something in any stage takes part.
    let loss = config.heaviest_loss();
    used_sections(config, &loss)?;
    feature_terms(config, &loss)?;
    latent(config, &loss)?;
    vaegan(config)?;
    adversary(config, &loss)?;
    begins_with(config)?;
    noise(config)
}

/// Sections that a term needs.
fn used_sections(config: &Config, loss: &Loss) -> Checked {
    if loss.weight(TermKind::Adversarial) == 0.0 {
        return Ok(());
    }
    let needs = "is missing: loss.adv is above 0, so a discriminator trains";
    if config.discriminator.is_none() {
        return complain("discriminator", needs);
    }
    if config.optimizer.discriminator.is_none() {
        return complain("optimizer.discriminator", needs);
    }
    let gated = config.vaegan.is_none() && config.adversary.loss.is_paper_s();
    if config.gate.is_none() && gated {
        let reason = "is missing: loss.adv is above 0, and the gate says when each network pauses";
        return complain("gate", reason);
    }
    Ok(())
}

/// Each feature term has a comparator, and each comparator a weight.
fn feature_terms(config: &Config, loss: &Loss) -> Checked {
    let weighed: Vec<&str> = loss
        .of_kind(TermKind::Feature)
        .filter_map(|(term, _)| term.name())
        .collect();
    let named: Vec<&str> = config
        .comparator
        .iter()
        .filter_map(|c| c.name.as_deref())
        .collect();
    if let Some(name) = weighed.iter().find(|name| !named.contains(name)) {
        let reason = if config.comparator.iter().any(|c| c.name.is_none()) {
            "weighs by name, but [comparator] has none: make loss.feat a number".to_owned()
        } else {
            format!("weighs a comparator that is not there: add [comparator.{name}]")
        };
        return complain(&format!("loss.feat.{name}"), reason);
    }
    if loss.weight(TermKind::Feature) == 0.0 {
        return Ok(());
    }
    if config.comparator.is_empty() {
        let reason = "is missing: loss.feat is above 0, and images are compared in its features";
        return complain("comparator", reason);
    }
    match named.iter().find(|name| !weighed.contains(name)) {
        Some(name) => {
            let reason = format!(
                "has no weight: with named comparators loss.feat is a table, such as {{ {name} = 0.01 }}"
            );
            complain(&format!("comparator.{name}"), reason)
        }
        None => Ok(()),
    }
}

/// More values than any code needs; keeps products of them far from overflow.
const MAX_CODE: i64 = 1 << 20;

/// What `[latent]`, the encoder, its Adam and the KL term must agree on.
fn latent(config: &Config, loss: &Loss) -> Checked {
    let weight = |kind| loss.weight(kind);
    let Some(spec) = config.latent else {
        if config.encoder.net == SourceKind::VaeGan {
            let reason =
                "cannot be larsen without [latent]: it learns, and codes are what it gives";
            return complain("encoder.net", reason);
        }
        if weight(TermKind::Kl) != 0.0 {
            let reason = "must be 0 without [latent]: inversion has no latent distribution";
            return complain("loss.kl", reason);
        }
        return match config.optimizer.encoder {
            None => Ok(()),
            Some(_) => {
                let reason = "means nothing without [latent]: the encoder is frozen; remove it";
                complain("optimizer.encoder", reason)
            }
        };
    };
    if !(1..=MAX_CODE).contains(&spec.size) {
        let reason = format!("must be from 1 to {MAX_CODE}, not {}", spec.size);
        return complain("latent.size", reason);
    }
    match config.encoder.net {
        SourceKind::Network(net) if !net.can_learn() => {
            let reason = format!(
                "cannot be {net} with [latent]: its batch normalisation is folded into its \
                 convolutions, which cannot learn then"
            );
            return complain("encoder.net", reason);
        }
        SourceKind::Network(_) | SourceKind::VaeGan => {}
        other => {
            let reason =
                format!("cannot be {other} with [latent]: an encoder that learns is a network");
            return complain("encoder.net", reason);
        }
    }
    if config.optimizer.encoder.is_none() {
        let reason = "is missing: with [latent] the encoder learns";
        return complain("optimizer.encoder", reason);
    }
    if spec.code == Code::Plain && weight(TermKind::Kl) != 0.0 {
        let reason = "must be 0 for plain codes, which have no distribution";
        return complain("loss.kl", reason);
    }
    Ok(())
}

/// What `[adversary]` and discriminators with several logits ask of the rest.
fn adversary(config: &Config, loss: &Loss) -> Checked {
    let discriminator = config.discriminator.as_ref();
    let several = discriminator.is_some_and(Discriminator::has_several_logits);
    let trains = loss.weight(TermKind::Adversarial) > 0.0;
    if several && config.vaegan.is_some() {
        let reason =
            "cannot be patchgan or heads with [vaegan], which knows one probability for each image";
        return complain("discriminator.architecture", reason);
    }
    if trains && several && config.train.discriminator_passes == DiscriminatorPasses::One {
        let reason = "must be \"paper\" with the discriminators patchgan and heads: the gradients of the two losses differ by \
                      another factor at each logit, so that one pass back cannot serve both";
        return complain("train.discriminator_passes", reason);
    }
    if config.adversary.is_paper_s() {
        return Ok(());
    }
    if !trains {
        let reason = "means nothing where loss.adv is 0; remove it";
        return complain("adversary", reason);
    }
    if config.vaegan.is_some() {
        let reason = "means nothing with [vaegan], which has an adversary of its own; remove it";
        return complain("adversary", reason);
    }
    if config.train.discriminator_passes == DiscriminatorPasses::One {
        let reason = "must be \"paper\" with [adversary]: one pass serves both networks with the paper's cross entropy alone";
        return complain("train.discriminator_passes", reason);
    }
    let (game, open) = (config.adversary.loss, Gate::OPEN);
    if !game.is_paper_s() && config.gate.is_some_and(|gate| gate != open) {
        let reason = format!(
            "must be open with adversary.loss = \"{}\": its thresholds are for ratios of cross entropies. Leave [gate] out, or \
             set d_off_below = 0, d_on_above = 0, g_off_above = inf and g_on_below = inf",
            game.name()
        );
        return complain("gate", reason);
    }
    let (losses, from) = (config.losses(), config.adversary.generator_from);
    let weighs = |loss: &Loss, kinds: &[TermKind]| kinds.iter().any(|k| loss.weight(*k) > 0.0);
    let alone = |(_, loss): &(u64, Loss)| {
        weighs(loss, &[TermKind::Adversarial])
            && !weighs(loss, &[TermKind::Feature, TermKind::Image])
    };
    if config.adversary.adaptive.is_some() && losses.iter().any(alone) {
        let reason = "needs loss.feat or loss.img above 0, in each stage: the adversarial term is weighed against them";
        return complain("adversary.adaptive", reason);
    }
    let idle = losses.iter().find(|stage| stage.0 < from && alone(stage));
    if let Some((begins, _)) = idle {
        let reason = format!(
            "must be at most {begins}: from step {begins} on loss.adv is the only one of feat, adv and img above 0, and until \
             step {from} the generator would have nothing to follow"
        );
        return complain("adversary.generator_from", reason);
    }
    if config.adversary.r1.is_some() && discriminator.is_some_and(Discriminator::normalises_batches)
    {
        let reason = "needs a discriminator without batch normalisation, in which an image's logits depend on all images: \
                      deepsim, heads, or patchgan with norm = \"none\" or \"spectral\"";
        return complain("adversary.r1", reason);
    }
    Ok(())
}

/// Weights to begin with lie somewhere.
fn begins_with(config: &Config) -> Checked {
    let discriminator = config.discriminator.as_ref();
    for (network, weights) in [
        ("generator", config.generator.weights.as_ref()),
        (
            "discriminator",
            discriminator.and_then(|d| d.weights.as_ref()),
        ),
    ] {
        if weights.is_some_and(|path| path.as_os_str().is_empty()) {
            let reason = "must be a safetensors file, or the directory of a run or checkpoint; remove it for random ones";
            return complain(&format!("{network}.weights"), reason);
        }
    }
    Ok(())
}

/// What noise beside and in the features, and diversity, ask of the rest.
fn noise(config: &Config) -> Checked {
    if config.generator.noise != 0 && config.latent.is_some() {
        let reason = "must be 0 with [latent]: codes have noise of their own";
        return complain("generator.noise", reason);
    }
    let feature_noise = config.generator.feature_noise;
    at_least_zero(&[("generator.feature_noise", feature_noise)])?;
    if feature_noise > 0.0 && config.vaegan.is_some() {
        let reason = "must be 0 with [vaegan], whose iteration adds none to its codes";
        return complain("generator.feature_noise", reason);
    }
    if config.diversity.is_some() && config.generator.noise == 0 {
        let reason =
            "needs generator.noise above 0: without noise the same features make the same image";
        return complain("diversity", reason);
    }
    Ok(())
}

/// What `[vaegan]` and networks that normalise batches ask of the rest.
fn vaegan(config: &Config) -> Checked {
    let normalised = config.normalises_batches();
    if normalised && config.train.batch_size < 2 {
        let reason = "must be at least 2: batch normalisation takes the statistics of a batch";
        return complain("train.batch_size", reason);
    }
    if normalised && config.train.accumulate > 1 && config.train.shards().is_none() {
        let reason = "must be 1 here: batch normalisation takes the statistics of the whole batch, \
                      which train.deterministic_shards can find over parts";
        return complain("train.accumulate", reason);
    }
    let one = DiscriminatorPasses::One;
    let discriminator = config.discriminator.as_ref();
    if config.train.discriminator_passes == one
        && (config.vaegan.is_some()
            || discriminator.is_some_and(|d| d.architecture == DiscriminatorKind::VaeGan))
    {
        let reason = "must be \"paper\" here: with batch normalisation each image's loss depends on all \
                      images, and [vaegan] has an order of its own";
        return complain("train.discriminator_passes", reason);
    }
    if config.vaegan.is_none() {
        return Ok(());
    }
    match config.latent {
        Some(spec) if spec.code == Code::Gaussian => {}
        _ => {
            let reason =
                "needs [latent] with code = \"gaussian\": its decoder takes draws of a prior";
            return complain("vaegan", reason);
        }
    }
    for (_, loss) in config.losses() {
        let weight = |kind| loss.weight(kind);
        if weight(TermKind::Adversarial) == 0.0 {
            let reason = "needs loss.adv above 0, in each stage; leave [vaegan] out for a variational autoencoder";
            return complain("vaegan", reason);
        }
        if weight(TermKind::Feature) == 0.0 && weight(TermKind::Image) == 0.0 {
            for kind in [TermKind::Kl, TermKind::TotalVariation] {
                if weight(kind) != 0.0 {
                    let reason = "must be 0 with [vaegan] where feat and img are: such a GAN encodes nothing";
                    return complain(&format!("loss.{}", kind.info().key), reason);
                }
            }
        }
    }
    if discriminator.is_some_and(|d| d.features) {
        let reason = "must be false with [vaegan]: draws of the prior belong to no image";
        return complain("discriminator.features", reason);
    }
    Ok(())
}

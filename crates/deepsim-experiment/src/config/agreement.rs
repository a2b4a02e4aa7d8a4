//! What the sections of an experiment file ask of each other.

use deepsim_nets::Code;
use deepsim_nets::loss::TermKind;

use super::check::{Checked, complain};
use super::discriminator::DiscriminatorKind;
use super::file::Config;
use super::network::SourceKind;
use super::train::DiscriminatorPasses;

/// Checks each section, and what they ask of each other.
pub(crate) fn check(config: &Config) -> Checked {
    config.check()?;
    used_sections(config)?;
    feature_terms(config)?;
    latent(config)?;
    vaegan(config)?;
    noise(config)
}

/// Sections that a term needs.
fn used_sections(config: &Config) -> Checked {
    if config.loss.weight(TermKind::Adversarial) == 0.0 {
        return Ok(());
    }
    let needs = "is missing: loss.adv is above 0, so a discriminator trains";
    if config.discriminator.is_none() {
        return complain("discriminator", needs);
    }
    if config.optimizer.discriminator.is_none() {
        return complain("optimizer.discriminator", needs);
    }
    if config.gate.is_none() && config.vaegan.is_none() {
        let reason = "is missing: loss.adv is above 0, and the gate says when each network pauses";
        return complain("gate", reason);
    }
    Ok(())
}

/// Each feature term has a comparator, and each comparator a weight.
fn feature_terms(config: &Config) -> Checked {
    let weighed: Vec<&str> = config
        .loss
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
    if config.loss.weight(TermKind::Feature) == 0.0 {
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
fn latent(config: &Config) -> Checked {
    let weight = |kind| config.loss.weight(kind);
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

/// What noise and its diversity ask of the rest.
fn noise(config: &Config) -> Checked {
    if config.generator.noise != 0 && config.latent.is_some() {
        let reason = "must be 0 with [latent]: codes have noise of their own";
        return complain("generator.noise", reason);
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
    let weight = |kind| config.loss.weight(kind);
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
    if weight(TermKind::Adversarial) == 0.0 {
        let reason = "needs loss.adv above 0; leave [vaegan] out for a variational autoencoder";
        return complain("vaegan", reason);
    }
    if weight(TermKind::Feature) == 0.0 && weight(TermKind::Image) == 0.0 {
        for kind in [TermKind::Kl, TermKind::TotalVariation] {
            if weight(kind) != 0.0 {
                let reason =
                    "must be 0 with [vaegan] where feat and img are: such a GAN encodes nothing";
                return complain(&format!("loss.{}", kind.info().key), reason);
            }
        }
    }
    if discriminator.is_some_and(|d| d.features) {
        let reason = "must be false with [vaegan]: draws of the prior belong to no image";
        return complain("discriminator.features", reason);
    }
    Ok(())
}

//! Exponential moving averages of weights, for evaluation: training does not look at them.

use deepsim_experiment::{
    AVERAGED_ENCODER_FILE, AVERAGED_GENERATOR_FILE, Experiment, Perception, config,
};
use deepsim_nets::{Generator, LearnedEncoder, Params};
use tch::Device;

use crate::error::Result;
use crate::method::gradients::Player;

/// A generator and, where it learns, an encoder whose weights are the averages of those that train.
#[derive(Debug)]
pub struct Averages {
    rule: config::Ema,
    generator: Generator,
    encoder: Option<LearnedEncoder>,
}

impl Averages {
    /// Of networks before their first step; none where the experiment has no `[ema]`.
    ///
    /// # Errors
    /// What libtorch refuses (out of memory); weights of the encoder that are gone.
    pub(crate) fn new(
        experiment: &Experiment,
        generator: &Generator,
        encoder: Option<&Params>,
        device: Device,
    ) -> Result<Option<Averages>> {
        let Some(rule) = experiment.config.ema else {
            return Ok(None);
        };
        let seed = experiment.config.train.seed;
        let averages = Averages {
            rule,
            generator: Generator::new(experiment.generator.clone(), seed, device)?,
            encoder: match encoder {
                Some(_) => Perception::learning(experiment, device)?,
                None => None,
            },
        };
        averages.begin(generator, encoder)?;
        Ok(Some(averages))
    }

    /// The generator.
    pub fn generator(&self) -> &Generator {
        &self.generator
    }

    /// The encoder, where one learns.
    pub fn encoder(&self) -> Option<&LearnedEncoder> {
        self.encoder.as_ref()
    }

    /// Begins anew with these weights.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub(crate) fn begin(&self, generator: &Generator, encoder: Option<&Params>) -> Result<()> {
        follow(self.generator.params(), generator.params(), 1.0)?;
        match (&self.encoder, encoder) {
            (Some(average), Some(weights)) => follow(average.params(), weights, 1.0),
            _ => Ok(()),
        }
    }

    /// Takes in the weights of a network after its update of number `updates`.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub(crate) fn take(&self, player: Player, weights: &Params, updates: u64) -> Result<()> {
        let average = match player {
            Player::Generator => self.generator.params(),
            Player::Encoder => match &self.encoder {
                Some(encoder) => encoder.params(),
                None => return Ok(()),
            },
            Player::Discriminator => return Ok(()),
        };
        follow(average, weights, 1.0 - kept(self.rule, updates))
    }

    /// Whether each update moves them by the same share.
    pub(crate) fn is_steady(&self) -> bool {
        !self.rule.warmup
    }

    /// The files of a checkpoint that hold them, with their weights and what they are for people.
    pub(crate) fn files(&self) -> Vec<(&'static str, &Params, &'static str)> {
        let what = "the averaged generator";
        let mut files = vec![(AVERAGED_GENERATOR_FILE, self.generator.params(), what)];
        if let Some(encoder) = &self.encoder {
            let what = "the averaged encoder";
            files.push((AVERAGED_ENCODER_FILE, encoder.params(), what));
        }
        files
    }
}

/// What an average keeps of itself at the update of number `updates`, counted from 1.
fn kept(rule: config::Ema, updates: u64) -> f64 {
    if !rule.warmup {
        return rule.decay;
    }
    let n = updates as f64;
    rule.decay.min((1.0 + n) / (10.0 + n))
}

/// Moves averages towards weights by this share. What does not train is taken over: running statistics are averages
/// already.
fn follow(averages: &Params, weights: &Params, share: f64) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let all = averages.iter().zip(weights.iter());
    for (average, weight) in all {
        let mut values = average.tensor.shallow_clone();
        if weight.trains && share < 1.0 {
            let _ = values.f_lerp_(&weight.tensor, share)?;
        } else {
            values.f_copy_(&weight.tensor)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use deepsim_nets::Param;
    use tch::{Kind, Tensor};

    fn params(values: [f64; 2]) -> Params {
        let mut params = Params::default();
        for (name, value, trains) in [("w", values[0], true), ("running_mean", values[1], false)] {
            params.push(Param {
                name: name.to_owned(),
                tensor: Tensor::full([2], value, (Kind::Float, Device::Cpu))
                    .set_requires_grad(trains),
                trains,
                decays: false,
            });
        }
        params
    }

    #[test]
    fn weights_are_averaged_and_statistics_taken_over() {
        let averages = params([1.0, 1.0]);
        follow(&averages, &params([3.0, 5.0]), 0.25).unwrap();
        let values = |params: &Params| -> Vec<f64> {
            let first = params.iter().map(|p| p.tensor.double_value(&[0]));
            first.collect()
        };
        assert_eq!(values(&averages), [1.5, 5.0]);
        follow(&averages, &params([7.0, 8.0]), 1.0).unwrap();
        assert_eq!(values(&averages), [7.0, 8.0]);
    }

    #[test]
    fn a_warm_up_keeps_less_at_first() {
        let rule = |warmup| config::Ema { decay: 0.9, warmup };
        assert_eq!(kept(rule(false), 1), 0.9);
        let found = [1, 2, 1000].map(|n| kept(rule(true), n));
        assert_eq!(found, [2.0 / 11.0, 3.0 / 12.0, 0.9]);
    }
}

//! The gate of Larsen et al.: an equilibrium of the discriminator's losses.

use deepsim_experiment::config;

use crate::method::gate::Gate;

impl Gate {
    /// The gate of Larsen et al., for the batch that these mean losses are of: the discriminator learns unless
    /// one of them is more than the margin below the equilibrium, the decoder unless one is more than it above;
    /// where neither would, both do.
    pub fn equilibrium(rule: &config::VaeGan, d_real: f64, d_fake: f64) -> Gate {
        let (low, high) = (
            rule.equilibrium - rule.margin,
            rule.equilibrium + rule.margin,
        );
        let gate = Gate {
            train_d: !(d_real < low || d_fake < low),
            train_g: !(d_real > high || d_fake > high),
        };
        if gate.train_d || gate.train_g {
            gate
        } else {
            Gate::open()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: config::VaeGan = config::VaeGan {
        gamma: 1e-6,
        real_weight: 0.5,
        equilibrium: 0.68,
        margin: 0.35,
    };

    #[test]
    fn the_gate_decides_for_each_batch_by_itself() {
        for (real, generated, train_d, train_g) in [
            (0.68, 0.68, true, true),
            (0.331, 1.029, true, true), // just inside the margins
            (0.32, 0.68, false, true),
            (0.68, 0.1, false, true),
            (0.68, 1.04, true, false),
            (2.0, 0.5, true, false),
            (0.1, 2.0, true, true), // both would pause
        ] {
            let gate = Gate::equilibrium(&RULE, real, generated);
            assert_eq!(
                (gate.train_d, gate.train_g),
                (train_d, train_g),
                "{real} {generated}"
            );
        }
    }
}

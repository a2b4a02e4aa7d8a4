//! The switching gate: neither network may run away from the other.
//!
//! The paper (§3) pauses the discriminator while the ratio of its loss to the generator's
//! adversarial loss is below 0.1. The authors' training has two more rules; all thresholds are
//! settings.

use deepsim_experiment::config;

/// Which networks are updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// The discriminator is.
    pub train_d: bool,
    /// The generator is.
    pub train_g: bool,
}

impl Gate {
    /// Both train.
    pub fn open() -> Gate {
        Gate {
            train_d: true,
            train_g: true,
        }
    }

    /// Decides for the next iteration from this one's unweighted losses, and returns the ratio
    /// r = (d_real + d_fake) / adv (infinite for adv = 0).
    ///
    /// The rules run in this order, each seeing the last one's result: D pauses (and G goes on);
    /// D goes on (and G); G goes on; G pauses (and D goes on).
    pub fn update(&mut self, thresholds: &config::Gate, d_real: f64, d_fake: f64, adv: f64) -> f64 {
        let ratio = if adv == 0.0 {
            f64::INFINITY
        } else {
            (d_real + d_fake) / adv
        };
        if self.train_d && ratio < thresholds.d_off_below {
            *self = Gate {
                train_d: false,
                train_g: true,
            };
        }
        if !self.train_d && ratio > thresholds.d_on_above {
            *self = Gate {
                train_d: true,
                train_g: true,
            };
        }
        if !self.train_g && ratio < thresholds.g_on_below {
            self.train_g = true;
        }
        if self.train_g && ratio > thresholds.g_off_above {
            *self = Gate {
                train_d: true,
                train_g: false,
            };
        }
        ratio
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: config::Gate = config::Gate {
        d_off_below: 0.1,
        d_on_above: 0.5,
        g_off_above: 10.0,
        g_on_below: 0.1,
    };

    /// (ratio, expected train_d, expected train_g), one after the other.
    #[test]
    fn a_scripted_sequence_gives_the_expected_trace() {
        let script = [
            (2.0, true, true),
            (0.09, false, true), // D off
            (0.3, false, true),  // between the thresholds: stays
            (0.05, false, true),
            (0.6, true, true),   // D on
            (10.5, true, false), // G off
            (5.0, true, false),  // stays
            (0.09, false, true), // D off, G on
            (11.0, true, false), // D on (G on), then G off
            (0.0, false, true),
        ];
        let mut gate = Gate::open();
        for (i, (ratio, d, g)) in script.into_iter().enumerate() {
            assert_eq!(gate.update(&T, ratio, 0.0, 1.0), ratio);
            assert_eq!((gate.train_d, gate.train_g), (d, g), "at {i}, r = {ratio}");
        }
    }

    #[test]
    fn no_adversarial_loss_is_an_infinite_ratio() {
        let mut gate = Gate::open();
        assert_eq!(gate.update(&T, 0.0, 0.0, 0.0), f64::INFINITY);
        assert_eq!(
            gate,
            Gate {
                train_d: true,
                train_g: false
            }
        );
    }

    #[test]
    fn the_two_are_never_both_off() {
        let mut gate = Gate::open();
        for i in 0..2000u32 {
            let r = f64::from(i.wrapping_mul(2_654_435_761) % 2000) / 100.0;
            gate.update(&T, r, 0.0, 1.0);
            assert!(gate.train_d || gate.train_g);
        }
    }
}

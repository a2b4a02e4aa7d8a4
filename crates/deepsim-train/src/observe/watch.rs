//! Checks of a running training besides its losses: whether the discriminator has collapsed, whether the gate is
//! stuck.

use std::collections::BTreeMap;

/// Notices a discriminator that has died: its loss stays at 2·ln 2 and the adversarial term at
/// ln 2, so that it calls everything "half real" and no gradient is left for the generator.
#[derive(Debug, Default)]
pub struct CollapseDetector {
    dead_for: u64,
}

impl CollapseDetector {
    /// Largest distance of a loss from chance level that counts as chance.
    const TOLERANCE: f64 = 0.03;
    /// Iterations in a row at chance level after which the discriminator counts as dead. At the
    /// beginning of a training it is at chance level too.
    pub const PATIENCE: u64 = 400;

    /// Takes one iteration's unweighted losses.
    pub fn observe(&mut self, d_loss: f64, adv: f64) {
        let ln2 = std::f64::consts::LN_2;
        let chance = (d_loss - 2.0 * ln2).abs() < 2.0 * Self::TOLERANCE
            && (adv - ln2).abs() < Self::TOLERANCE;
        self.dead_for = if chance { self.dead_for + 1 } else { 0 };
    }

    /// Whether the discriminator is dead now.
    pub fn is_dead(&self) -> bool {
        self.dead_for >= Self::PATIENCE
    }

    /// Whether to warn now: it has just been found dead, or has stayed dead for another long while.
    pub fn should_tell(&self) -> bool {
        self.is_dead() && (self.dead_for - Self::PATIENCE).is_multiple_of(10 * Self::PATIENCE)
    }
}

/// Notices a gate that is stuck: one network is updated all the time, the other hardly ever.
///
/// It counts updates, whatever rule decided on them.
#[derive(Debug)]
pub struct Balance {
    /// Updates so far of generator and discriminator.
    updates: [u64; 2],
    /// Share of the late iterations in which each was updated.
    shares: [f64; 2],
    stuck_for: u64,
}

/// The checks of a running training besides its losses. They change nothing in the training. Their counters are in
/// checkpoints, so that a resumed run gives the same warnings as an uninterrupted one.
#[derive(Debug)]
pub struct Watch {
    /// Whether the discriminator lives.
    pub collapse: CollapseDetector,
    /// Whether both networks learn.
    pub balance: Balance,
}

impl Watch {
    /// Begins the checks of a training with so many updates of generator and discriminator.
    pub fn new(updates_g: u64, updates_d: u64) -> Watch {
        Watch {
            collapse: CollapseDetector::default(),
            balance: Balance::new(updates_g, updates_d),
        }
    }

    /// Its counters, as integers of a checkpoint.
    pub fn counters(&self) -> [(String, i64); 4] {
        let [g, d] = self.balance.shares.map(|share| share.to_bits());
        [
            ("watch.dead_for", self.collapse.dead_for),
            ("watch.share_g", g),
            ("watch.share_d", d),
            ("watch.stuck_for", self.balance.stuck_for),
        ]
        .map(|(name, value)| (name.to_owned(), value.cast_signed()))
    }

    /// Restores the counters from a checkpoint. Older checkpoints do not have them.
    pub fn restore(&mut self, counters: &BTreeMap<String, i64>) {
        let of = |name: &str| counters.get(name).map(|n| n.cast_unsigned());
        if let (Some(dead), Some(g), Some(d), Some(stuck)) = (
            of("watch.dead_for"),
            of("watch.share_g"),
            of("watch.share_d"),
            of("watch.stuck_for"),
        ) {
            self.collapse.dead_for = dead;
            self.balance.shares = [g, d].map(f64::from_bits);
            self.balance.stuck_for = stuck;
        }
    }
}

/// A network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Player {
    /// The generator.
    Generator,
    /// The discriminator.
    Discriminator,
}

impl Balance {
    /// Iterations that a share remembers.
    const MEMORY: f64 = 500.0;
    /// A smaller share counts as no updates. From a share of 1 it takes 1,955 paused iterations to
    /// fall below this.
    const HARDLY: f64 = 0.02;
    /// Iterations after which the warning is repeated.
    const AGAIN: u64 = 20_000;

    /// Both have trained until now, with so many updates each.
    pub fn new(updates_g: u64, updates_d: u64) -> Balance {
        Balance {
            updates: [updates_g, updates_d],
            shares: [1.0; 2],
            stuck_for: 0,
        }
    }

    /// Takes the numbers of updates after one iteration.
    pub fn observe(&mut self, updates_g: u64, updates_d: u64) {
        let now = [updates_g, updates_d];
        for (i, share) in self.shares.iter_mut().enumerate() {
            let updated = f64::from(u8::from(now[i] > self.updates[i]));
            *share += (updated - *share) / Self::MEMORY;
        }
        self.updates = now;
        self.stuck_for = match self.paused() {
            Some(_) => self.stuck_for + 1,
            None => 0,
        };
    }

    /// The network that hardly trains any more.
    pub fn paused(&self) -> Option<Player> {
        let [g, d] = self.shares.map(|share| share < Self::HARDLY);
        match (g, d) {
            (true, _) => Some(Player::Generator),
            (false, true) => Some(Player::Discriminator),
            (false, false) => None,
        }
    }

    /// As [`Balance::paused`], at the moments at which to tell.
    pub fn should_tell(&self) -> Option<Player> {
        self.paused().filter(|_| self.stuck_for % Self::AGAIN == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_that_is_stuck_is_told_once_and_a_lively_one_never() {
        let mut balance = Balance::new(10, 10);
        let (mut g, mut d) = (10, 10);
        for step in 0..10_000 {
            g += 1;
            d += u64::from(step % 20 == 0);
            balance.observe(g, d);
            assert_eq!(balance.paused(), None, "an update in twenty, step {step}");
        }
        let mut told = Vec::new();
        for step in 1..=3000 {
            g += 1;
            balance.observe(g, d);
            told.extend(balance.should_tell().map(|player| (step, player)));
        }
        assert!(
            matches!(told[..], [(step, Player::Discriminator)] if (200..2000).contains(&step)),
            "{told:?}"
        );
        for _ in 0..30 {
            d += 1;
            balance.observe(g, d);
        }
        assert_ne!(balance.paused(), Some(Player::Discriminator));
    }

    #[test]
    fn death_needs_patience_and_life_resets_it() {
        let mut v = CollapseDetector::default();
        let ln2 = std::f64::consts::LN_2;
        for _ in 0..CollapseDetector::PATIENCE - 1 {
            v.observe(2.0 * ln2, ln2);
        }
        assert!(!v.is_dead());
        v.observe(0.9, 1.1);
        v.observe(2.0 * ln2, ln2);
        assert!(!v.is_dead());
        for _ in 0..CollapseDetector::PATIENCE {
            v.observe(2.0 * ln2 + 0.01, ln2 - 0.01);
        }
        assert!(v.is_dead());
    }
}

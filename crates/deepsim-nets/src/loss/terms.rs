//! The loss is a sum of terms. Here is one function for each equation of the paper, and the table of all kinds of terms.
//!
//! A term is a kind and perhaps a name: two feature terms can stand side by side. Values travel by term, in [`Terms`], never
//! by position. What is logged, shown, drawn, checked and kept in checkpoints iterates the table [`KINDS`].
//!
//! Equations are those of Dosovitskiy & Brox, "Generating images with perceptual similarity metrics based on deep networks"
//! (NIPS 2016).

use std::borrow::Cow;

use tch::{Device, Kind, Tensor};

use crate::error::{NetError, Result};
use crate::learned::Posterior;
use crate::loss::distances::absolute_distance;
use crate::loss::{
    AdversarialLoss, Label, PixelDistance, Reduction, pixel_distance, squared_distance,
};

/// Eq. 2: the feature loss, the squared distance of the features `[N,…]` of generated images from those of
/// real images, `target`; fp32.
///
/// # Errors
/// Features of different shapes.
pub fn feature_loss(features: &Tensor, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
    squared_distance(features, target, reduction)
}

/// Eq. 3, or the same of another adversarial loss: the discriminator's two losses, from its logits on real images and on
/// generated images. The discriminator minimises their sum.
///
/// # Errors
/// Logits of another shape than [`scores`](super::scores) takes.
pub fn discriminator_loss(
    game: AdversarialLoss,
    real: &Tensor,
    generated: &Tensor,
    reduction: Reduction,
) -> Result<[Tensor; 2]> {
    Ok([
        game.discriminating(real, Label::Real, reduction)?,
        game.discriminating(generated, Label::Fake, reduction)?,
    ])
}

/// Eq. 4, or the same of another adversarial loss: the generator's, of the discriminator's logits on generated images.
///
/// # Errors
/// Logits of another shape than [`scores`](super::scores) takes.
pub fn adversarial_loss(
    game: AdversarialLoss,
    generated: &Tensor,
    reduction: Reduction,
) -> Result<Tensor> {
    game.generating(generated, reduction)
}

/// Eq. 5: the image loss between generated and real images, both `[N,3,H,W]` in Caffe units. The paper's distance is
/// the squared one.
///
/// # Errors
/// Images of different shapes, or below 11 pixels where similarities are asked for.
pub fn image_loss(
    distance: PixelDistance,
    generated: &Tensor,
    real: &Tensor,
    reduction: Reduction,
) -> Result<Tensor> {
    pixel_distance(distance, generated, real, reduction)
}

/// Sets the terms that need no network but the generator: each whose weight is above 0, computed in the order of
/// [`TermKind`].
///
/// # Errors
/// As the terms' own functions.
pub fn image_terms(
    terms: &mut Terms<Tensor>,
    weights: &Terms<f64>,
    distance: PixelDistance,
    generated: &Tensor,
    images: &Tensor,
    reduction: Reduction,
) -> Result<()> {
    if weights.weight(TermKind::Image) > 0.0 {
        let loss = image_loss(distance, generated, images, reduction)?;
        terms.set(TermKind::Image, loss);
    }
    if weights.weight(TermKind::TotalVariation) > 0.0 {
        let loss = total_variation(generated, reduction)?;
        terms.set(TermKind::TotalVariation, loss);
    }
    Ok(())
}

/// Rudin, Osher & Fatemi (1992), in its anisotropic form: absolute differences between each pixel and its neighbours to the
/// right and below, of images `[N,3,H,W]` in 0–255 units. Summed over the batch; [`Reduction::Caffe`]: per image;
/// [`Reduction::Mean`]: the mean difference to the right plus the mean difference below. fp32.
///
/// # Errors
/// What is no batch of images, or images of a single row or column.
pub fn total_variation(images: &Tensor, reduction: Reduction) -> Result<Tensor> {
    let size = images.size();
    let &[_, 3, height, width] = size.as_slice() else {
        return Err(not_images(size));
    };
    if height < 2 || width < 2 {
        return Err(not_images(size));
    }
    let along = |dim: i64, length: i64| {
        let next = images.f_narrow(dim, 1, length - 1)?;
        absolute_distance(&next, &images.f_narrow(dim, 0, length - 1)?, reduction)
    };
    Ok(along(3, width)?.f_add(&along(2, height)?)?)
}

fn not_images(got: Vec<i64>) -> NetError {
    NetError::InputShape {
        what: "the total variation".to_owned(),
        expected: "images [N,3,H,W] of at least 2x2 pixels".to_owned(),
        got,
    }
}

/// Eq. 8: the Kullback-Leibler term of Gaussian codes; none for plain ones.
///
/// # Errors
/// What libtorch refuses.
pub fn kl_loss(posterior: &Posterior, reduction: Reduction) -> Result<Option<Tensor>> {
    posterior.kl(reduction)
}

/// The kinds of terms, in the order in which they are summed, logged and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TermKind {
    /// [`feature_loss`].
    Feature,
    /// [`adversarial_loss`].
    Adversarial,
    /// [`image_loss`].
    Image,
    /// [`kl_loss`].
    Kl,
    /// [`diversity`](super::diversity()).
    Diversity,
    /// [`total_variation`].
    TotalVariation,
    /// [`r1`](super::penalties::r1), of the discriminator.
    R1,
    /// [`lecam`](super::penalties::lecam), of the discriminator.
    LeCam,
    /// [`balance`](super::penalties::balance): no term, but the weight that the adversarial one has beside `loss.adv`.
    AdversarialWeight,
}

/// Where an experiment file gives the weight of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightKey {
    /// In `[loss]`, always.
    Required,
    /// In `[loss]`; 0 where it is left out.
    Optional,
    /// In a section of the term's own.
    OwnSection,
}

impl WeightKey {
    /// Whether it is a key of `[loss]`.
    #[must_use]
    pub fn is_in_loss(self) -> bool {
        self != WeightKey::OwnSection
    }
}

/// What is known of a kind of term.
#[derive(Clone, Copy, Debug)]
pub struct KindInfo {
    /// The kind.
    pub kind: TermKind,
    /// In logs (`loss.KEY`), checkpoints and `[loss]`.
    pub key: &'static str,
    /// For people.
    pub label: &'static str,
    /// Where it is defined.
    pub equation: &'static str,
    /// Where its weight stands.
    pub weight: WeightKey,
    /// Whether every line of a log names it, with null where it was not computed.
    pub in_every_line: bool,
}

/// The table of all kinds. Eq. 3 is no term of the generator's loss: see [`discriminator_loss`]. The last ones are numbers
/// that are logged and checked as terms are, and no part of the generator's loss.
pub const KINDS: [KindInfo; 9] = [
    KindInfo {
        kind: TermKind::Feature,
        key: "feat",
        label: "feature",
        equation: "Dosovitskiy & Brox 2016, Eq. 2",
        weight: WeightKey::Required,
        in_every_line: true,
    },
    KindInfo {
        kind: TermKind::Adversarial,
        key: "adv",
        label: "adversarial",
        equation: "Dosovitskiy & Brox 2016, Eq. 4",
        weight: WeightKey::Required,
        in_every_line: true,
    },
    KindInfo {
        kind: TermKind::Image,
        key: "img",
        label: "image",
        equation: "Dosovitskiy & Brox 2016, Eq. 5",
        weight: WeightKey::Required,
        in_every_line: true,
    },
    KindInfo {
        kind: TermKind::Kl,
        key: "kl",
        label: "Kullback-Leibler",
        equation: "Dosovitskiy & Brox 2016, Eq. 8",
        weight: WeightKey::Required,
        in_every_line: false,
    },
    KindInfo {
        kind: TermKind::Diversity,
        key: "diversity",
        label: "diversity",
        equation: "Yang et al. 2019, Eq. 2",
        weight: WeightKey::OwnSection,
        in_every_line: false,
    },
    KindInfo {
        kind: TermKind::TotalVariation,
        key: "tv",
        label: "total variation",
        equation: "Rudin, Osher & Fatemi 1992",
        weight: WeightKey::Optional,
        in_every_line: false,
    },
    KindInfo {
        kind: TermKind::R1,
        key: "r1",
        label: "R1",
        equation: "Mescheder, Geiger & Nowozin 2018, Eq. 9",
        weight: WeightKey::OwnSection,
        in_every_line: false,
    },
    KindInfo {
        kind: TermKind::LeCam,
        key: "lecam",
        label: "LeCAM",
        equation: "Tseng et al. 2021",
        weight: WeightKey::OwnSection,
        in_every_line: false,
    },
    KindInfo {
        kind: TermKind::AdversarialWeight,
        key: "adv_weight",
        label: "weight of the adversarial",
        equation: "Esser et al. 2021, Eq. 7",
        weight: WeightKey::OwnSection,
        in_every_line: false,
    },
];

impl TermKind {
    /// Its row of the table.
    #[must_use]
    pub fn info(self) -> &'static KindInfo {
        &KINDS[self as usize]
    }
}

/// One term of a loss.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    kind: TermKind,
    name: Option<String>,
}

impl From<TermKind> for Term {
    fn from(kind: TermKind) -> Self {
        Term { kind, name: None }
    }
}

impl Term {
    /// A further term of a kind, under a name of its own.
    #[must_use]
    pub fn named(kind: TermKind, name: &str) -> Self {
        Term {
            kind,
            name: Some(name.to_owned()),
        }
    }

    /// The term of a key: `feat`, or `feat.NAME`.
    #[must_use]
    pub fn of_key(key: &str) -> Option<Self> {
        let (kind, name) = match key.split_once('.') {
            Some((kind, name)) => (kind, Some(name.to_owned())),
            None => (key, None),
        };
        let info = KINDS.iter().find(|info| info.key == kind)?;
        Some(Term {
            kind: info.kind,
            name,
        })
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> TermKind {
        self.kind
    }

    /// Its own name, beside its kind's.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// For people: `feature`, or `feature NAME`.
    #[must_use]
    pub fn label(&self) -> Cow<'static, str> {
        let label = self.kind.info().label;
        match &self.name {
            None => Cow::Borrowed(label),
            Some(name) => Cow::Owned(format!("{label} {name}")),
        }
    }

    /// `feat`, or `feat.NAME`.
    #[must_use]
    pub fn key(&self) -> Cow<'static, str> {
        let key = self.kind.info().key;
        match &self.name {
            None => Cow::Borrowed(key),
            Some(name) => Cow::Owned(format!("{key}.{name}")),
        }
    }

    /// What it is called in logs: `loss.feat`, or `loss.feat.NAME`.
    #[must_use]
    pub fn log_key(&self) -> String {
        format!("loss.{}", self.key())
    }
}

/// A value for some of the terms, in the table's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms<T>(Vec<(Term, T)>);

impl<T> Default for Terms<T> {
    fn default() -> Self {
        Terms(Vec::new())
    }
}

impl<T> Terms<T> {
    /// Sets a term's value.
    pub fn set(&mut self, term: impl Into<Term>, value: T) {
        let term = term.into();
        match self.0.binary_search_by(|(known, _)| known.cmp(&term)) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (term, value)),
        }
    }

    /// Sets a term's value, where there is one.
    pub fn set_some(&mut self, term: impl Into<Term>, value: Option<T>) {
        if let Some(value) = value {
            self.set(term, value);
        }
    }

    /// A term's value.
    #[must_use]
    pub fn get(&self, term: &Term) -> Option<&T> {
        let at = self.0.binary_search_by(|(known, _)| known.cmp(term)).ok()?;
        Some(&self.0[at].1)
    }

    /// The value of a kind's term without a name.
    #[must_use]
    pub fn of(&self, kind: TermKind) -> Option<&T> {
        self.get(&Term::from(kind))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Term, &T)> {
        self.0.iter().map(|(term, value)| (term, value))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Other values for the same terms.
    #[must_use]
    pub fn map<U>(&self, mut f: impl FnMut(&Term, &T) -> U) -> Terms<U> {
        let all = self.0.iter();
        Terms(all.map(|(term, v)| (term.clone(), f(term, v))).collect())
    }
}

impl<T> FromIterator<(Term, T)> for Terms<T> {
    fn from_iter<I: IntoIterator<Item = (Term, T)>>(all: I) -> Self {
        let mut terms = Terms::default();
        for (term, value) in all {
            terms.set(term, value);
        }
        terms
    }
}

impl Terms<f64> {
    /// A term's number; 0 where it has none.
    #[must_use]
    pub fn weight(&self, kind: TermKind) -> f64 {
        self.of(kind).copied().unwrap_or(0.0)
    }

    /// Whether a term's number is above 0.
    #[must_use]
    pub fn counts(&self, term: &Term) -> bool {
        self.get(term).is_some_and(|weight| *weight > 0.0)
    }

    /// Whether that of any term of a kind is, with a name or without.
    #[must_use]
    pub fn any(&self, kind: TermKind) -> bool {
        let mut all = self.iter();
        all.any(|(term, weight)| term.kind() == kind && *weight > 0.0)
    }
}

impl Terms<Tensor> {
    /// Eq. 1: the sum of the terms by their weights. A term of weight 0 is left out of the graph.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn weighted_sum(&self, weights: &Terms<f64>, device: Device) -> Result<Tensor> {
        let mut sum = Tensor::f_zeros([], (Kind::Float, device))?;
        for (term, value) in self.iter() {
            match weights.get(term) {
                Some(&weight) if weight > 0.0 => sum = sum.f_add(&value.f_mul_scalar(weight)?)?,
                _ => {}
            }
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_its_kinds() {
        for (i, info) in KINDS.iter().enumerate() {
            assert_eq!(info.kind as usize, i);
            assert_eq!(info.kind.info().key, info.key);
            assert_eq!(Term::of_key(info.key), Some(Term::from(info.kind)));
        }
        assert_eq!(Term::of_key("nothing"), None);
    }

    #[test]
    fn terms_of_one_kind_stand_side_by_side_in_the_table_s_order() {
        let deep = Term::named(TermKind::Feature, "deep");
        assert_eq!(deep.log_key(), "loss.feat.deep");
        assert_eq!(Term::of_key("feat.deep"), Some(deep.clone()));
        let mut terms = Terms::default();
        terms.set(TermKind::Image, 1.0);
        terms.set(deep.clone(), 2.0);
        terms.set(TermKind::Feature, 3.0);
        terms.set(TermKind::Image, 4.0);
        let all: Vec<(String, f64)> = terms.iter().map(|(t, v)| (t.log_key(), *v)).collect();
        let target = [
            ("loss.feat", 3.0),
            ("loss.feat.deep", 2.0),
            ("loss.img", 4.0),
        ];
        assert_eq!(all, target.map(|(k, v)| (k.to_owned(), v)));
        assert_eq!(terms.weight(TermKind::Kl), 0.0);
    }

    #[test]
    fn a_named_term_counts_for_its_kind() {
        let deep = Term::named(TermKind::Feature, "deep");
        let mut weights = Terms::default();
        weights.set(TermKind::Feature, 0.0);
        weights.set(TermKind::Image, 1.0);
        assert!(!weights.any(TermKind::Feature) && weights.any(TermKind::Image));
        weights.set(deep.clone(), 2.0);
        assert!(weights.any(TermKind::Feature) && weights.counts(&deep));
        assert!(!weights.counts(&Term::from(TermKind::Feature)));
        assert!(!weights.counts(&Term::from(TermKind::Kl)));
    }

    #[test]
    fn the_sum_leaves_out_what_weighs_nothing() {
        let value = |v: f64| Tensor::full([], v, (Kind::Float, Device::Cpu));
        let mut terms = Terms::default();
        terms.set(TermKind::Feature, value(2.0));
        terms.set(TermKind::Adversarial, value(f64::NAN));
        terms.set(TermKind::Image, value(3.0));
        let mut weights = Terms::default();
        weights.set(TermKind::Feature, 10.0);
        weights.set(TermKind::Adversarial, 0.0);
        let sum = terms.weighted_sum(&weights, Device::Cpu).unwrap();
        assert_eq!(sum.double_value(&[]), 20.0);
    }
}

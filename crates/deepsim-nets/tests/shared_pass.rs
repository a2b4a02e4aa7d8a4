//! One backward pass of the discriminator for both losses, against two passes in double precision.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use deepsim_nets::Reduction;
use deepsim_nets::init::seeded;
use deepsim_nets::loss::{Label, SharedPass, cross_entropy};
use tch::{Device, Kind, Tensor};

const IMAGES: i64 = 4;
const VALUES: i64 = 12;
const HIDDEN: i64 = 16;

/// Added to the seed of weights and images: what is held here holds for any.
fn seed() -> i64 {
    let set = std::env::var("DEEPSIM_PARITY_SEED");
    set.map_or(0, |text| {
        text.parse().expect("DEEPSIM_PARITY_SEED is a whole number")
    })
}

/// A discriminator of two layers in some arithmetic, and images, each with biases of its own, so
/// that each image's probability of "real" can be chosen.
struct Small {
    weights: [Tensor; 2],
    x: Tensor,
    bias: Tensor,
}

impl Small {
    /// Images that are called real with these probabilities, given by their log-odds.
    fn new(log_odds: [f64; 4]) -> Small {
        let options = (Kind::Double, Device::Cpu);
        let random = |shape: &[i64]| Tensor::randn(shape, options) * 0.5;
        let small = seeded(5 + seed(), || Small {
            weights: [random(&[HIDDEN, VALUES]), random(&[2, HIDDEN])],
            x: random(&[IMAGES, VALUES]),
            bias: Tensor::zeros([IMAGES, 2], options),
        });
        let there = odds(&small.logits());
        let half = (Tensor::from_slice(&log_odds) - there) * 0.5;
        Small {
            bias: Tensor::stack(&[&half, &-&half], 1),
            ..small
        }
    }

    fn to(&self, kind: Kind) -> Small {
        let leaf = |t: &Tensor| t.to_kind(kind).copy().set_requires_grad(true);
        Small {
            weights: [leaf(&self.weights[0]), leaf(&self.weights[1])],
            x: leaf(&self.x),
            bias: self.bias.to_kind(kind),
        }
    }

    fn logits(&self) -> Tensor {
        let hidden = self.x.matmul(&self.weights[0].tr()).relu();
        hidden.matmul(&self.weights[1].tr()) + &self.bias
    }

    /// Gradients with regard to both weights and the images.
    fn gradients(&self, loss: &Tensor) -> [Tensor; 3] {
        let inputs = [&self.weights[0], &self.weights[1], &self.x];
        let found = Tensor::run_backward(&[loss], &inputs, true, false);
        found.try_into().unwrap()
    }
}

fn odds(logits: &Tensor) -> Tensor {
    logits.select(1, 0) - logits.select(1, 1)
}

/// Weight gradients of the discriminator's loss and the adversarial gradient of the images: two
/// passes in double precision through the same weights, for the log-odds `z` that the arithmetic
/// under test found (bf16 rounds logits of 9 to sixteenths, which is no matter of the passes).
fn two_passes(small: &Small, z: &Tensor) -> [Tensor; 3] {
    let exact = small.to(Kind::Double);
    // The value of z, with the graph of the exact one: d(z)/d(exact) is 1.
    let own = odds(&exact.logits());
    let z = &own - own.detach() + z.to_kind(Kind::Double).detach();
    let n = IMAGES as f64;
    let [a, b, _] = exact.gradients(&(-(-&z).log_sigmoid().sum(Kind::Double) / n));
    let [_, _, x] = exact.gradients(&(-z.log_sigmoid().sum(Kind::Double) / n));
    [a, b, x]
}

fn one_pass(small: &Small) -> (Tensor, [Tensor; 3]) {
    let logits = small.logits();
    let pass = SharedPass::new(&logits, Reduction::Caffe).unwrap();
    let [a, b, x] = small.gradients(&pass.seeded);
    let x = pass.adversarial(&x).unwrap();
    (
        odds(&logits.detach().to_kind(match small.x.kind() {
            Kind::Double => Kind::Double,
            _ => Kind::Float,
        })),
        [a, b, x],
    )
}

fn relative(found: &Tensor, expected: &Tensor) -> f64 {
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let size = expected.norm().double_value(&[]);
    (found - expected).norm().double_value(&[]) / size
}

/// The worst of the images: one that is called real surely has a gradient many orders of
/// magnitude smaller, whose error would be lost beside another's.
fn worst_image(found: &Tensor, expected: &Tensor) -> f64 {
    let each = (0..IMAGES).map(|n| relative(&found.get(n), &expected.get(n)));
    each.fold(0.0, f64::max)
}

/// ln(p / (1−p)).
fn log_odds(p: f64, not_p: f64) -> f64 {
    (p / not_p).ln()
}

#[test]
fn one_pass_gives_the_gradients_of_two() {
    let (never, ever) = (log_odds(1e-8, 1.0), log_odds(1.0, 1e-8));
    let mild = [0.0, -1.5, 2.0, 0.7];
    for (what, odds) in [
        ("undecided", mild),
        ("p = 1e-8", [never; 4]),
        ("p = 1 - 1e-8", [ever; 4]),
        ("mixed", [never, ever, 0.3, -2.0]),
        ("p = 1e-30", [log_odds(1e-30, 1.0); 4]),
        ("1 - p = 1e-30", [log_odds(1.0, 1e-30); 4]),
    ] {
        for (kind, tolerance) in [
            (Kind::Double, 1e-12),
            (Kind::Float, 1e-5),
            (Kind::BFloat16, 2e-2),
        ] {
            let small = Small::new(odds).to(kind);
            let (z, [a, b, x]) = one_pass(&small);
            let [ta, tb, tx] = two_passes(&small, &z);
            let images = worst_image(&x, &tx);
            assert!(images < tolerance, "{what}, {kind:?}: {images:.1e}");
            // Below RARE the discriminator hears more than it should, of what is nothing anyway.
            if what == "p = 1e-30" {
                let magnitude = a.abs().max().double_value(&[]);
                assert!(magnitude < 1e-17, "{magnitude:.1e}");
                continue;
            }
            for (found, expected) in [(a, ta), (b, tb)] {
                let weights = relative(&found, &expected);
                assert!(weights < tolerance, "{what}, {kind:?}: {weights:.1e}");
            }
        }
    }
}

/// Why the pass starts from the difference of the logits: the gradient of log-softmax at the
/// likelier one has lost what is small there.
#[test]
fn the_loss_s_own_gradient_is_half_gone_at_one_in_a_hundred_million() {
    let small = Small::new([log_odds(1e-8, 1.0); 4]).to(Kind::Float);
    let logits = small.logits();
    let separate = cross_entropy(&logits, Label::Fake, Reduction::Caffe).unwrap();
    let [a, _, _] = small.gradients(&separate);
    let (z, [ours, ..]) = one_pass(&small);
    let [expected, ..] = two_passes(&small, &z);
    assert!(relative(&a, &expected) > 0.1);
    assert!(relative(&ours, &expected) < 1e-5);
}

#[test]
fn everything_stays_finite_and_sums_are_sums() {
    for odds in [-3e4, -1e3, -89.0, 89.0, 1e3, 3e4] {
        for kind in [Kind::Float, Kind::BFloat16] {
            let (_, all) = one_pass(&Small::new([odds; 4]).to(kind));
            for t in all {
                assert!(bool::try_from(t.isfinite().all()).unwrap(), "{odds}");
            }
        }
    }
    let small = Small::new([0.0, -1.5, 2.0, 0.7]).to(Kind::Float);
    let value = |reduction| {
        let pass = SharedPass::new(&small.logits(), reduction).unwrap();
        pass.seeded.double_value(&[])
    };
    let (mean, sum) = (value(Reduction::Caffe), value(Reduction::Paper));
    assert!((sum - IMAGES as f64 * mean).abs() < 1e-5 * sum.abs());
    assert_eq!(mean, value(Reduction::Mean));
    assert!(SharedPass::new(&small.x, Reduction::Caffe).is_err());
}

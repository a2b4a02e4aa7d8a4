//! Generators by Winograd's algorithm where a value lies nearer to a rectifier's kink than rounding.
//!
//! A gradient jumps there, so that two correct implementations may differ by 1e-3. Between jumps it
//! is a smooth function of the sides of the kinks that the values lie on: with the same sides,
//! double precision must give what the implementation gives, to rounding.

use deepsim_aten::{Form, winograd, winograd_pays};
use deepsim_nets::Generator;
use deepsim_nets::generator::{LayerOp, SLOPE};
use tch::{Kind, Tensor};

use crate::common::{GRADIENT, OUTPUT, Reference, assert_close, gradients, relative};
use crate::{generate, generator};

/// Error of any value before a rectifier, in units of its map's RMS (2.3e-5 was seen). A value can
/// change sides only where it is nearer to zero than its own error.
const ROUNDING: f64 = 5e-5;
/// Relative L2 error of gradients with the same sides (4e-6 was seen).
const SAME_SIDES: f64 = 1e-5;

#[derive(Clone, Copy)]
enum Sums {
    /// In the order of the algorithm that the generator takes.
    Winograd,
    /// libtorch's convolutions, in the precision of the weights.
    Direct,
}

/// Weights and biases in order, in some precision.
fn weights(g: &Generator, kind: Kind) -> Vec<Tensor> {
    let leaf = |t: &Tensor, trains| t.detach().to_kind(kind).copy().set_requires_grad(trains);
    g.params()
        .iter()
        .map(|p| leaf(&p.tensor, p.trains))
        .collect()
}

/// Side of its kink for every value before a rectifier.
fn sides(values: &[Tensor]) -> Vec<Tensor> {
    values.iter().map(|v| v.gt(0.0)).collect()
}

/// The generator layer by layer: its pictures, RGB 0–255, and the values before each rectifier,
/// which follows `sides` where they are given and its own values where not.
fn walk(
    g: &Generator,
    weights: &[Tensor],
    x: &Tensor,
    sums: Sums,
    sides: Option<&[Tensor]>,
) -> (Tensor, Vec<Tensor>) {
    let layers = g.spec().layers().unwrap();
    let (mut x, mut values) = (x.shallow_clone(), Vec::new());
    for (i, (layer, pair)) in layers.iter().zip(weights.chunks(2)).enumerate() {
        let (w, b) = (&pair[0], Some(&pair[1]));
        let form = match layer.op {
            LayerOp::Fc => None,
            LayerOp::Conv { pad, .. } => Some(Form::Convolution {
                padding: pad,
                groups: 1,
            }),
            LayerOp::Keep => Some(Form::Keep),
            LayerOp::Double { .. } => Some(Form::Double),
        };
        if form.is_some() && x.dim() == 2 {
            x = x.view([-1, layer.input, 4, 4]);
        }
        let v = match (form, sums) {
            (Some(f), Sums::Winograd) if winograd_pays(&x, w, f).unwrap() => {
                winograd(&x, w, b, f, 1.0).unwrap()
            }
            (None, _) => x.linear(w, b),
            (Some(Form::Convolution { padding: p, .. }), _) => {
                x.conv2d(w, b, [1, 1], [p, p], [1, 1], 1)
            }
            (Some(f), _) => {
                let stride = if f == Form::Double { 2 } else { 1 };
                x.conv_transpose2d(w, b, [stride, stride], [1, 1], [0, 0], 1, [1, 1])
            }
        };
        if i + 1 == layers.len() {
            x = v;
            break;
        }
        let above = sides.map_or_else(|| v.gt(0.0), |s| s[i].shallow_clone());
        let factor = above.to_kind(v.kind()) * (1.0 - SLOPE) + SLOPE;
        values.push(v.detach());
        x = v * factor;
    }
    let crop = g.spec().crop;
    let from = (x.size()[2] - crop) / 2;
    let mean = Tensor::from_slice(&[104.0, 117.0, 123.0]).to_kind(x.kind());
    let pictures = (x + mean.view([1, 3, 1, 1])).flip([1]);
    (pictures.narrow(2, from, crop).narrow(3, from, crop), values)
}

/// Gradients with regard to features and trained weights in double precision, with given sides.
fn exact_gradients(g: &Generator, r: &Reference, sides: &[Tensor]) -> Vec<Tensor> {
    let x = r.get("x").to_kind(Kind::Double).set_requires_grad(true);
    let weights = weights(g, Kind::Double);
    let (y, _) = walk(g, &weights, &x, Sums::Direct, Some(sides));
    let mut inputs = vec![&x];
    inputs.extend(weights.iter().filter(|w| w.requires_grad()));
    let up = r.get("up").to_kind(Kind::Double);
    Tensor::run_backward(&[(y * up).sum(Kind::Double)], &inputs, true, false)
}

/// The generator by Winograd's algorithm against the reference: equal output, values that rounding
/// alone moves, and gradients that differ by the sides of the kinks and by nothing else.
pub fn check_winograd(case: &str, r: &Reference) {
    let g = generator(r, "w/");
    let (single, double) = (weights(&g, Kind::Float), weights(&g, Kind::Double));
    let x = r.get("x");
    let values =
        |weights: &[Tensor], x: &Tensor, sums| tch::no_grad(|| walk(&g, weights, x, sums, None).1);
    let by_winograd = values(&single, x, Sums::Winograd);
    let by_direct = values(&single, x, Sums::Direct);
    let exact = values(&double, &x.to_kind(Kind::Double), Sums::Direct);
    assert!(
        by_winograd.iter().zip(&by_direct).any(|(a, b)| a != b),
        "{case}: Winograd's algorithm was not taken"
    );
    let layers = g.spec().layers().unwrap();
    for (layer, (found, exact)) in layers.iter().zip(by_winograd.iter().zip(&exact)) {
        let rms = exact.square().mean(Kind::Double).sqrt();
        let error = ((found - exact).abs().max() / rms).double_value(&[]);
        assert!(
            error <= ROUNDING,
            "{case}: a value of {} is off by {error:.1e} of the RMS",
            layer.name
        );
    }

    let leaf = r.leaf("x");
    let (ours, y) = generate(r, &leaf);
    assert_close(&format!("{case}: output"), &y, r.get("y"), OUTPUT);
    let trained = ours.params().trained();
    let mut inputs = vec![&leaf];
    inputs.extend(trained.iter().map(|p| &p.tensor));
    let found = gradients(&y, r.get("up"), &inputs);
    let names = ["x"]
        .into_iter()
        .chain(trained.iter().map(|p| p.name.as_str()));
    let names: Vec<&str> = names.collect();
    let own = exact_gradients(&g, r, &sides(&by_winograd));
    for (name, (found, exact)) in names.iter().zip(found.iter().zip(&own)) {
        let what = format!("{case}: gradient of {name} by Winograd's algorithm, with its sides");
        assert_close(&what, found, exact, SAME_SIDES);
    }
    // The reference in PyTorch has the sides of direct sums.
    let direct = exact_gradients(&g, r, &sides(&by_direct));
    for (name, exact) in names.iter().zip(&direct) {
        let expected = match *name {
            "x" => r.get("gx"),
            name => r.get(&format!("g/{name}")),
        };
        let what = format!("{case}: the reference's gradient of {name}, with the direct sides");
        assert_close(&what, expected, exact, SAME_SIDES);
    }
}

/// That sides are to blame is believable only if a single unit on its other side shows: the one
/// nearest to the last kink, in double precision.
pub fn one_unit_shows(case: &str, r: &Reference) {
    let g = generator(r, "w/");
    let (double, x) = (weights(&g, Kind::Double), r.get("x").to_kind(Kind::Double));
    let values = tch::no_grad(|| walk(&g, &double, &x, Sums::Direct, None).1);
    let own = sides(&values);
    let mut turned = own.iter().map(Tensor::shallow_clone).collect::<Vec<_>>();
    let (last, above) = (values.last().unwrap().abs(), turned.pop().unwrap());
    let nearest = last.le_tensor(&last.min());
    turned.push(above.logical_xor(&nearest));
    let count = nearest.sum(Kind::Int64).int64_value(&[]);
    assert_eq!(count, 1, "{case}: units turned");
    let of = |sides: &[Tensor]| exact_gradients(&g, r, sides).remove(0);
    let moved = relative(&of(&turned), &of(&own));
    assert!(
        moved > GRADIENT,
        "{case}: one unit on its other side moves the gradient by {moved:.1e} only"
    );
}

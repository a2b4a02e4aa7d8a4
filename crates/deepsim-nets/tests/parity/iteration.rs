//! Whole training iterations, put together from this crate's parts in the authors' order.
//!
//! The training crate's own loop is held against the same files there; here it is shown that
//! the parts (networks, dropout, losses, Adam, which weights train and decay) are right.
//!
//! In double precision whole iterations follow the reference's with Adam's default epsilon. In single
//! precision Adam's first step turns the sign of a gradient of the size of rounding into a step of full
//! size, and the updated discriminator is another: there the step is taken with [`EPSILON`].

use deepsim_nets::images::rgb_to_caffe;
use deepsim_nets::init::seeded;
use deepsim_nets::loss::{Label, cross_entropy, squared_distance};
use deepsim_nets::{
    Adam, AdamOptions, Discriminator, FeatureNet, Generator, Mode, NetKind, Params, Reduction, Tap,
};
use tch::{Device, Kind, Tensor};

use crate::common::{Named, Reference, Values, assert_reference, assert_rounding_alone};
use crate::{adam_options, discriminator, generator};

/// Far above the rounding of these networks' gradients, which are 1e-3 and more.
const EPSILON: f64 = 1e-2;

const FEAT: f64 = 0.01;
const ADV: f64 = 100.0;
const IMG: f64 = 2e-6;

struct Networks {
    comparator: FeatureNet,
    g: Generator,
    d: Discriminator,
    adam_g: Adam,
    adam_d: Adam,
}

fn gradients_of(loss: &Tensor, params: &Params) -> Vec<Tensor> {
    let inputs: Vec<&Tensor> = params.trained().into_iter().map(|p| &p.tensor).collect();
    Tensor::run_backward(&[loss], &inputs, true, false)
}

/// Losses by the reference's names, and the gradients of D and G.
fn iterate(
    n: &mut Networks,
    x: &Tensor,
) -> (Vec<(&'static str, Tensor)>, Vec<Tensor>, Vec<Tensor>) {
    let pool5 = |x: &Tensor| n.comparator.features(x, &[Tap::Pool5]).unwrap().remove(0);
    let discriminator_loss = |d: &Discriminator, x: &Tensor, label| {
        cross_entropy(
            &d.forward(x, None, Mode::Training).unwrap(),
            label,
            Reduction::Caffe,
        )
        .unwrap()
    };
    let target = tch::no_grad(|| pool5(x));
    let fake = n.g.forward(&target).unwrap();

    let d_real = discriminator_loss(&n.d, x, Label::Real);
    let d_fake = discriminator_loss(&n.d, &fake.detach(), Label::Fake);
    let discr = (&d_real + &d_fake) * ADV;
    let grads_d = gradients_of(&discr, n.d.params());
    n.adam_d.step(n.d.params(), &grads_d, 1.0).unwrap();

    let adv = discriminator_loss(&n.d, &fake, Label::Real);
    let feat = squared_distance(&pool5(&fake), &target, Reduction::Caffe).unwrap();
    let img = squared_distance(&fake, x, Reduction::Caffe).unwrap();
    let total = &feat * FEAT + &adv * ADV + &img * IMG;
    let grads_g = gradients_of(&total, n.g.params());
    n.adam_g.step(n.g.params(), &grads_g, 1.0).unwrap();

    let losses = vec![
        ("weighted_feat", &feat * FEAT),
        ("weighted_adv", &adv * ADV),
        ("weighted_img", &img * IMG),
        ("weighted_discr", discr),
        ("feat", feat),
        ("adv", adv),
        ("img", img),
        ("d_real", d_real),
        ("d_fake", d_fake),
        ("total", total),
    ];
    (losses, grads_d, grads_g)
}

fn networks(net: NetKind, r: &Reference, kind: Kind, with: AdamOptions) -> Networks {
    let weights = r.group_in("wC/", kind);
    let comparator =
        FeatureNet::from_tensors(net, Tap::Pool5, &weights, "reference", Device::Cpu).unwrap();
    let (g, d) = (generator(r, "wG/", kind), discriminator(r, "wD/", kind));
    let (adam_g, adam_d) = (
        Adam::new(g.params(), with).unwrap(),
        Adam::new(d.params(), with).unwrap(),
    );
    Networks {
        comparator,
        g,
        d,
        adam_g,
        adam_d,
    }
}

/// All losses, the first iteration's gradients, and the networks after the last.
fn run(net: NetKind, r: &Reference, kind: Kind, with: AdamOptions) -> (Values, Networks) {
    let mut n = networks(net, r, kind, with);
    let mut values = Values::default();
    for (it, seed) in r.numbers("torch_seeds").into_iter().enumerate() {
        let x = rgb_to_caffe(&r.get(&format!("x/{it}")).to_kind(kind)).unwrap();
        let (losses, grads_d, grads_g) = seeded(seed, || iterate(&mut n, &x));
        for (name, loss) in losses {
            // The generator's losses are the updated discriminator's.
            let stepped = it > 0 || matches!(name, "adv" | "weighted_adv" | "total");
            values.lost(format!("loss/{it}/{name}"), loss.detach(), stepped);
        }
        if it > 0 {
            continue;
        }
        for (prefix, params, grads) in
            [("gD", n.d.params(), grads_d), ("gG", n.g.params(), grads_g)]
        {
            assert_eq!(
                r.group(&format!("{prefix}/")).len(),
                grads.len(),
                "{prefix}: other weights train"
            );
            let names = params
                .trained()
                .into_iter()
                .map(|p| format!("{prefix}/{}", p.name));
            let named: Named = names.zip(grads).collect();
            values.add(prefix, named);
        }
    }
    (values, n)
}

fn check(net: NetKind, options: &str) {
    let what = format!("{net}, {options}");
    let r = Reference::run(&format!("iteration --net {net} {options}"));
    let (mut own, n) = run(net, &r, Kind::Double, adam_options(&r));

    let mut decayed: Vec<&str> = r.meta("decayed").split(',').collect();
    let all = n.g.params().iter().chain(n.d.params().iter());
    let mut ours: Vec<&str> = all.filter(|p| p.decays).map(|p| p.name.as_str()).collect();
    decayed.sort_unstable();
    ours.sort_unstable();
    assert_eq!(ours, decayed, "weights that decay");

    for (name, params) in [("G", n.g.params()), ("D", n.d.params())] {
        for p in params.iter().filter(|p| !p.trains) {
            let before = r.get(&format!("w{name}/{}", p.name));
            assert_eq!(p.tensor, before.to_kind(Kind::Double), "{} moved", p.name);
        }
        let moved = params.trained().into_iter().map(|p| {
            let moved = p.tensor.detach() - r.get(&format!("w{name}/{}", p.name));
            (format!("moved{name}/{}", p.name), moved)
        });
        own.add(&format!("movement of {name}"), moved.collect::<Named>());
    }
    assert_reference(&what, &r, &own);

    let with = AdamOptions {
        eps: EPSILON,
        ..adam_options(&r)
    };
    assert_rounding_alone(&what, &|kind| run(net, &r, kind, with).0);
}

#[test]
fn an_iteration_with_caffenet_at_227() {
    check(NetKind::CaffeNet, "--crop 227 --batch 1 --iterations 1");
}

/// Adam's moments carry over, dropout is drawn anew. The large decay makes a missing one visible.
#[test]
fn two_iterations_with_alexnet_at_64() {
    let options = "--crop 64 --batch 4 --weight-decay 1 --iterations 2";
    check(NetKind::AlexNet, options);
}

//! Iterations of the training loop in either precision, for the comparisons with the reference.

use std::path::Path;

use deepsim_experiment::{Experiment, Perception, config};
use deepsim_nets::images::rgb_to_caffe;
use deepsim_nets::loss::TermKind;
use deepsim_nets::params::{NamedTensors, Params};
use deepsim_nets::{Adam, AdamOptions, Rule};
use deepsim_train::method::{Losses, Plan, iterate};
use deepsim_train::state::State;
use tch::{Device, Kind, Tensor};

use crate::common::{Named, Reference, Values, assert_reference, assert_rounding_alone, largest};
use crate::experiments::begin;

pub fn write_weights(values: &NamedTensors, path: &Path) {
    let single = |t: &Tensor| t.to_kind(Kind::Float).contiguous();
    let tensors: Vec<_> = values.iter().map(|(name, t)| (name, single(t))).collect();
    Tensor::write_safetensors(&tensors, path).unwrap();
}

/// An experiment that is to do what the reference did.
pub struct Case<'a> {
    what: String,
    r: &'a Reference,
    experiment: Experiment,
    plan: Plan,
}

/// One network of a state.
struct Network<'a> {
    letter: &'static str,
    params: &'a Params,
    adam: &'a Adam,
    options: AdamOptions,
}

impl<'a> Case<'a> {
    pub fn new(what: &str, r: &'a Reference, experiment: &Experiment) -> Case<'a> {
        let mut experiment = experiment.clone();
        // The reference's iterations have no gate, which pauses a network after losses that some seeds give. It is held
        // against the reference by itself.
        experiment.config.gate = experiment.config.gate.map(|_| config::Gate::OPEN);
        Case {
            what: what.to_owned(),
            r,
            plan: Plan::of(&experiment),
            experiment,
        }
    }

    fn options(&self) -> [Option<AdamOptions>; 3] {
        let o = &self.experiment.config.optimizer;
        [Some(o.generator), o.discriminator, o.encoder]
    }

    /// The same with a network's largest gradient for its epsilon; the moments of the first iteration are given.
    fn smooth(&self, first: &[(String, Named)]) -> [Option<AdamOptions>; 3] {
        let mut networks = first.iter();
        self.options().map(|options| {
            let options = options?;
            let (_, moments) = networks.next().expect("moments of each network");
            Some(AdamOptions {
                eps: largest(moments) / (1.0 - options.beta1),
                ..options
            })
        })
    }

    /// The reference's networks, and optimisers that begin.
    fn begun(&self, kind: Kind, [g, d, e]: [Option<AdamOptions>; 3]) -> (Perception, State) {
        let (perception, mut state) = begin(&self.experiment, Device::Cpu);
        let load = |params: &mut Params, prefix: &str| {
            let values = self.r.group(prefix);
            params.copy_from(&values, "a network", "reference").unwrap();
        };
        load(state.generator.params_mut(), "wG/");
        if let Some(discriminator) = &mut state.discriminator {
            load(discriminator.params_mut(), "wD/");
        }
        if let Some(encoder) = &mut state.encoder {
            load(&mut encoder.params, "wE/");
        }
        if kind == Kind::Double {
            perception.widen().unwrap();
            state.generator.params().widen().unwrap();
            if let Some(discriminator) = &state.discriminator {
                discriminator.params().widen().unwrap();
            }
            if let Some(encoder) = &state.encoder {
                encoder.params.widen().unwrap();
            }
        }
        state.adam_g = Adam::new(state.generator.params(), g.unwrap()).unwrap();
        let discriminator = state.discriminator.as_ref();
        state.adam_d = discriminator.map(|net| Adam::new(net.params(), d.unwrap()).unwrap());
        if let (Some(encoder), Some(options)) = (&mut state.encoder, e) {
            encoder.adam = Adam::new(&encoder.params, options).unwrap();
        }
        if let (Some(averages), Kind::Double) = (&state.averages, kind) {
            averages.generator().params().widen().unwrap();
        }
        state.begin_averages().unwrap();
        (perception, state)
    }

    fn networks<'s>(&self, state: &'s State) -> Vec<Network<'s>> {
        let [g, d, e] = self.options();
        let mut all = vec![Network {
            letter: "G",
            params: state.generator.params(),
            adam: &state.adam_g,
            options: g.unwrap(),
        }];
        if let (Some(discriminator), Some(adam)) = (&state.discriminator, &state.adam_d) {
            all.push(Network {
                letter: "D",
                params: discriminator.params(),
                adam,
                options: d.unwrap(),
            });
        }
        if let (Some(encoder), Some(options)) = (&state.encoder, e) {
            all.push(Network {
                letter: "E",
                params: &encoder.params,
                adam: &encoder.adam,
                options,
            });
        }
        all
    }

    /// All losses, and for each network the first moments of its gradients after each iteration: sums of
    /// gradients and decay. Gives the state, too.
    pub fn run(&self, kind: Kind) -> (Values, State, Vec<Losses>) {
        self.run_with(kind, self.options())
    }

    fn run_with(
        &self,
        kind: Kind,
        options: [Option<AdamOptions>; 3],
    ) -> (Values, State, Vec<Losses>) {
        let (perception, mut state) = self.begun(kind, options);
        let (mut values, mut all) = (Values::default(), Vec::new());
        for (it, seed) in self.r.numbers("torch_seeds").into_iter().enumerate() {
            let x = rgb_to_caffe(&self.r.get(&format!("x/{it}")).to_kind(kind)).unwrap();
            let l = iterate(&mut state, &perception, &x, None, &self.plan, seed).unwrap();
            let sides = l.discriminator.map(|sides| (sides.real, sides.generated));
            let (d_real, d_fake) = sides.unwrap_or((f64::NAN, f64::NAN));
            for (name, value) in [
                ("feat", l.of(TermKind::Feature)),
                ("adv", l.of(TermKind::Adversarial)),
                ("img", l.of(TermKind::Image)),
                ("kl", l.of(TermKind::Kl)),
                ("diversity", -l.of(TermKind::Diversity)),
                ("r1", l.of(TermKind::R1)),
                ("lecam", l.of(TermKind::LeCam)),
                ("adv_weight", l.of(TermKind::AdversarialWeight)),
                ("d_real", d_real),
                ("d_fake", d_fake),
                ("total", self.total(&l)),
            ] {
                if !value.is_nan() {
                    let value = Tensor::from_slice(&[value]).squeeze();
                    // The generator's losses are the updated discriminator's; what is made of gradients jumps at kinks, too.
                    let judged = matches!(
                        name,
                        "adv" | "total" | "feat" | "diversity" | "r1" | "adv_weight"
                    );
                    values.lost(format!("loss/{it}/{name}"), value, it > 0 || judged);
                }
            }
            for network in self.networks(&state) {
                let moments = network.adam.state("").into_iter();
                let moments: Named = moments
                    .filter_map(|(name, t)| Some((name.strip_prefix(".m.")?.to_owned(), t.copy())))
                    .collect();
                values.add(
                    &format!("moments of {} after {it}", network.letter),
                    moments,
                );
            }
            all.push(l);
        }
        // Running statistics, and vectors of power iterations.
        let discriminator = state.discriminator.iter();
        let kept = discriminator.flat_map(|d| d.params().iter().filter(|p| !p.trains));
        for p in kept {
            values.lost(format!("state/{}", p.name), p.tensor.copy(), true);
        }
        (values, state, all)
    }

    /// The reference's sum: without diversity; not a number where one of the paper's three terms is missing.
    fn total(&self, l: &Losses) -> f64 {
        let w = &self.plan.weights;
        let of = |kind| w.weight(kind) * l.of(kind);
        let kl = if w.weight(TermKind::Kl) > 0.0 {
            of(TermKind::Kl)
        } else {
            0.0
        };
        of(TermKind::Feature) + of(TermKind::Adversarial) + of(TermKind::Image) + kl
    }

    /// Holds double precision against the reference, and single precision against double.
    pub fn check(&self) -> Vec<Losses> {
        let (own, state, losses) = self.run(Kind::Double);
        let mut held = Values {
            outputs: own.outputs,
            stepped: own.stepped,
            ..Values::default()
        };
        let smooth = self.smooth(&own.gradients);
        let networks = self.networks(&state);
        for (network, (_, moments)) in networks.iter().zip(own.gradients) {
            // The first moment of the first step: (1 − β₁) (g + decay · w).
            let o = network.options;
            let gradients = moments.into_iter().map(|(name, m)| {
                let param = network
                    .params
                    .trained()
                    .into_iter()
                    .find(|p| p.name == name)
                    .unwrap();
                let before = self.r.get(&format!("w{}/{name}", network.letter));
                let decay = if param.decays && o.rule == Rule::Adam {
                    o.weight_decay
                } else {
                    0.0
                };
                let gradient = m / (1.0 - o.beta1) - before.to_kind(Kind::Double) * decay;
                (format!("g{}/{name}", network.letter), gradient)
            });
            let gradients: Named = gradients.collect();
            held.add(&format!("gradients of {}", network.letter), gradients);
            let moved = network.params.trained().into_iter().map(|p| {
                let before = self.r.get(&format!("w{}/{}", network.letter, p.name));
                let moved = p.tensor.detach() - before;
                (format!("moved{}/{}", network.letter, p.name), moved)
            });
            held.add(
                &format!("movement of {}", network.letter),
                moved.collect::<Named>(),
            );
        }
        if let Some(averages) = &state.averages {
            let averaged = averages.generator().params().trained().into_iter();
            let moved = averaged.map(|p| {
                let before = self.r.get(&format!("wG/{}", p.name));
                (format!("movedA/{}", p.name), p.tensor.detach() - before)
            });
            held.add("movement of the average", moved.collect::<Named>());
        }
        assert_reference(&self.what, self.r, &held);
        drop((state, held));
        assert_rounding_alone(&self.what, &|kind| self.run_with(kind, smooth).0);
        losses
    }
}

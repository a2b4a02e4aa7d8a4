//! Adam, and its relatives AdamW and RMSProp, with state that a checkpoint can hold.

use deepsim_aten::{AdamParameters, fused_adam};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::clip::clip_norm_;
use crate::error::{NetError, Result};
use crate::params::{NamedTensors, Param, Params, check_exact};

/// How moments become a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// Kingma & Ba: both moments, corrected for their beginning at zero.
    #[default]
    Adam,
    /// Loshchilov & Hutter, as in PyTorch: Adam whose decay is apart from the gradient: a weight that decays first loses
    /// lr·weight_decay of itself.
    AdamW,
    /// Tieleman & Hinton, as in PyTorch: v = β₂·v + (1 − β₂)·g², a step of lr·g/(√v + ε); no first moment
    /// (`beta1` must be 0) and no correction.
    RmsProp,
}

impl Rule {
    fn is_adam(&self) -> bool {
        *self == Rule::Adam
    }
}

/// Hyper-parameters of Adam (Kingma & Ba), AdamW or RMSProp, as experiment files name them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdamOptions {
    /// "adam" (if left out); "adamw", whose decay is apart from the gradient; or "rmsprop": then `beta2` is its decay, and
    /// `beta1` must be 0.
    #[serde(default, skip_serializing_if = "Rule::is_adam")]
    pub rule: Rule,
    /// Learning rate before the schedule.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// L2 decay in the gradient, for the weights that decay; "adamw": what they lose of themselves at each step, times the
    /// learning rate.
    pub weight_decay: f64,
    /// Largest norm of the gradients of all of the network's weights together (of all micro-batches and processes):
    /// longer gradients are shortened to it before the step. If left out, none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
}

/// The moments (both, or RMSProp's one) and the step counter of one network. The counter is the network's own: it
/// advances only when the network is updated.
#[derive(Debug)]
pub struct Adam {
    options: AdamOptions,
    names: Vec<String>,
    m: Vec<Tensor>,
    v: Vec<Tensor>,
    /// One counter for each weight, as the kernel wants them: views of one tensor, advanced at once.
    steps: Vec<Tensor>,
    all_steps: Tensor,
    count: u64,
}

impl Adam {
    /// Zero moments for every weight of `params` that trains.
    ///
    /// # Errors
    /// What libtorch refuses (out of memory).
    pub fn new(params: &Params, options: AdamOptions) -> Result<Adam> {
        let trained = params.trained();
        let zeros = || -> Result<Vec<Tensor>> {
            trained
                .iter()
                .map(|p| Ok(p.tensor.f_zeros_like()?.f_detach()?))
                .collect()
        };
        let device = trained.first().map_or(Device::Cpu, |p| p.tensor.device());
        let n = i64::try_from(trained.len()).unwrap_or(i64::MAX);
        let all_steps = Tensor::f_zeros([n], (Kind::Float, device))?;
        let steps = all_steps.f_unbind(0)?;
        if options.rule == Rule::RmsProp && options.beta1 != 0.0 {
            return Err(NetError::Spec(format!(
                "RMSProp has no first moment: beta1 must be 0, not {}",
                options.beta1
            )));
        }
        Ok(Adam {
            options,
            names: trained.iter().map(|p| p.name.clone()).collect(),
            m: match options.rule {
                Rule::Adam | Rule::AdamW => zeros()?,
                Rule::RmsProp => Vec::new(),
            },
            v: zeros()?,
            steps,
            all_steps,
            count: 0,
        })
    }

    /// Number of updates so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sets the number of updates on the host alone. On a GPU that replays updates, the counters of its kernels advance by
    /// themselves.
    pub fn set_count(&mut self, count: u64) {
        self.count = count;
    }

    /// Everything that an update changes besides the weights.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let moments = self.m.iter().chain(&self.v);
        moments.chain([&self.all_steps])
    }

    /// One update of `params` with the learning rate multiplied by `schedule`; `grads` are in
    /// the order of [`Params::trained`]. Where they are to be clipped they are shortened in place first.
    ///
    /// # Errors
    /// Another number of gradients than weights, or what libtorch refuses.
    pub fn step(&mut self, params: &Params, grads: &[Tensor], schedule: f64) -> Result<()> {
        let trained = params.trained();
        if grads.len() != trained.len() || self.v.len() != trained.len() {
            return Err(NetError::Spec(format!(
                "Adam holds the state of {} weights, got {} weights and {} gradients",
                self.v.len(),
                trained.len(),
                grads.len()
            )));
        }
        if let Some(most) = self.options.clip {
            clip_norm_(&trained, grads, most)?;
        }
        if self.options.rule == Rule::RmsProp {
            self.rms_prop(&trained, grads, schedule)?;
            self.count += 1;
            return Ok(());
        }
        let _ = self.all_steps.f_add_scalar_(1.0)?;
        // The kernel takes one decay for all its tensors: two groups.
        for decays in [false, true] {
            let pick = |list: &[Tensor]| -> Vec<Tensor> {
                let both = list.iter().zip(&trained);
                both.filter(|(_, p)| p.decays == decays)
                    .map(|(t, _)| t.shallow_clone())
                    .collect()
            };
            let tensors: Vec<Tensor> = trained.iter().map(|p| p.tensor.shallow_clone()).collect();
            let group = pick(&tensors);
            if group.is_empty() {
                continue;
            }
            let o = self.options;
            let with = AdamParameters {
                lr: o.lr * schedule,
                beta1: o.beta1,
                beta2: o.beta2,
                eps: o.eps,
                weight_decay: if decays { o.weight_decay } else { 0.0 },
                decoupled: o.rule == Rule::AdamW,
            };
            let (g, m, v, s) = (pick(grads), pick(&self.m), pick(&self.v), pick(&self.steps));
            fused_adam(&group, &g, &m, &v, &s, with)?;
        }
        self.count += 1;
        Ok(())
    }

    fn rms_prop(&mut self, trained: &[&Param], grads: &[Tensor], schedule: f64) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let o = self.options;
        for ((param, grad), v) in trained.iter().zip(grads).zip(&self.v) {
            let mut weight = param.tensor.shallow_clone();
            let decayed;
            let grad = if param.decays && o.weight_decay > 0.0 {
                decayed = grad.f_add(&weight.f_mul_scalar(o.weight_decay)?)?;
                &decayed
            } else {
                grad
            };
            let mut v = v.shallow_clone();
            let _ = v
                .f_mul_scalar_(o.beta2)?
                .f_add_(&grad.f_square()?.f_mul_scalar_(1.0 - o.beta2)?)?;
            let root = v.f_sqrt()?.f_add_scalar_(o.eps)?;
            let _ = weight.f_sub_(&grad.f_div(&root)?.f_mul_scalar_(o.lr * schedule)?)?;
        }
        Ok(())
    }

    /// The moments, for a checkpoint: `{prefix}.m.{weight}` (Adam alone) and `{prefix}.v.{weight}`.
    pub fn state(&self, prefix: &str) -> Vec<(String, Tensor)> {
        let named = |kind: &str, list: &[Tensor]| -> Vec<(String, Tensor)> {
            let both = self.names.iter().zip(list);
            both.map(|(n, t)| (format!("{prefix}.{kind}.{n}"), t.shallow_clone()))
                .collect()
        };
        let mut out = named("m", &self.m);
        out.extend(named("v", &self.v));
        out
    }

    /// Takes the moments and the counter back from a checkpoint.
    ///
    /// # Errors
    /// [`NetError::Mismatch`] if names or shapes differ in any way; nothing is changed then.
    pub fn restore(
        &mut self,
        prefix: &str,
        values: &NamedTensors,
        count: u64,
        origin: &str,
    ) -> Result<()> {
        let own: NamedTensors = values
            .iter()
            .filter(|(n, _)| n.starts_with(&format!("{prefix}.")))
            .map(|(n, t)| (n.clone(), t.shallow_clone()))
            .collect();
        let state = self.state(prefix);
        let expected: Vec<_> = state.iter().map(|(n, t)| (n.clone(), t.size())).collect();
        check_exact(
            &own,
            &expected,
            &format!("the {prefix}'s Adam state"),
            origin,
        )?;
        let _guard = tch::no_grad_guard();
        for (name, mut tensor) in state {
            if let Some(value) = own.get(&name) {
                tensor.f_copy_(value)?;
            }
        }
        // f32 counts exactly to 16.7 million updates.
        let _ = self.all_steps.f_fill_(count as f64)?;
        self.count = count;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Param;
    use tch::Device;

    fn params() -> Params {
        let mut params = Params::default();
        for (name, trains) in [("a", true), ("frozen", false), ("b", true)] {
            let tensor = Tensor::ones([3], (Kind::Float, Device::Cpu)).set_requires_grad(trains);
            params.push(Param {
                name: name.into(),
                tensor,
                trains,
                decays: name == "b",
            });
        }
        params
    }

    const OPTIONS: AdamOptions = AdamOptions {
        rule: Rule::Adam,
        lr: 0.1,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 1.0,
        clip: None,
    };

    #[test]
    fn decay_reaches_only_the_weights_that_decay() {
        let params = params();
        let mut adam = Adam::new(&params, OPTIONS).unwrap();
        let zero = || Tensor::zeros([3], (Kind::Float, Device::Cpu));
        adam.step(&params, &[zero(), zero()], 1.0).unwrap();
        let first = |n| params.get(n).unwrap().double_value(&[0]);
        assert_eq!(first("a"), 1.0);
        assert_eq!(first("frozen"), 1.0);
        assert!((first("b") - 0.9).abs() < 1e-6);
        assert_eq!(adam.count(), 1);
    }

    #[test]
    fn the_decay_of_adam_w_is_apart_from_the_gradient() {
        let params = params();
        let options = AdamOptions {
            rule: Rule::AdamW,
            ..OPTIONS
        };
        let mut adam = Adam::new(&params, options).unwrap();
        let one = || Tensor::ones([3], (Kind::Float, Device::Cpu));
        adam.step(&params, &[one(), one()], 0.5).unwrap();
        let first = |n| params.get(n).unwrap().double_value(&[0]);
        // A first step is as long as the rate, whatever the gradient; `b` loses 0.05 of itself before.
        assert!((first("a") - 0.95).abs() < 1e-6);
        assert!((first("b") - 0.9).abs() < 1e-6);
        let moments: NamedTensors = adam.state("g").into_iter().collect();
        // Adam would have 2 for a gradient.
        assert!((moments["g.m.b"].double_value(&[0]) - 0.1).abs() < 1e-7);
    }

    #[test]
    fn rms_prop_follows_its_definition_and_has_one_moment() {
        let params = params();
        let options = AdamOptions {
            rule: Rule::RmsProp,
            beta1: 0.0,
            beta2: 0.9,
            ..OPTIONS
        };
        let mut rule = Adam::new(&params, options).unwrap();
        let grad = |v: f64| Tensor::full([3], v, (Kind::Float, Device::Cpu));
        // `a` does not decay, `b` does, with 1.0 times itself.
        let (mut a, mut b, mut va, mut vb) = (1.0f64, 1.0f64, 0.0, 0.0);
        for g in [2.0, -1.0, 0.5] {
            rule.step(&params, &[grad(g), grad(g)], 0.5).unwrap();
            let of_b = g + b;
            for (w, v, g) in [(&mut a, &mut va, g), (&mut b, &mut vb, of_b)] {
                *v = 0.9 * *v + 0.1 * g * g;
                *w -= 0.05 * g / (f64::sqrt(*v) + 1e-8);
            }
            for (name, want) in [("a", a), ("b", b)] {
                let got = params.get(name).unwrap().double_value(&[1]);
                assert!((got - want).abs() < 1e-5, "{name}: {got}, {want}");
            }
        }
        assert_eq!(rule.count(), 3);
        let names: Vec<String> = rule.state("g").into_iter().map(|(n, _)| n).collect();
        assert_eq!(names, ["g.v.a", "g.v.b"]);
        assert!(
            Adam::new(
                &params,
                AdamOptions {
                    beta1: 0.5,
                    ..options
                }
            )
            .is_err()
        );
    }

    #[test]
    fn restored_state_continues_as_if_never_stopped() {
        let one_grad = |i: i64| Tensor::full([3], i as f64, (Kind::Float, Device::Cpu));
        let grad = |i| [one_grad(i), one_grad(i)];
        let (one, two) = (params(), params());
        let mut whole = Adam::new(&one, OPTIONS).unwrap();
        let mut first = Adam::new(&two, OPTIONS).unwrap();
        for i in 1..=6 {
            whole.step(&one, &grad(i), 0.5).unwrap();
            if i <= 3 {
                first.step(&two, &grad(i), 0.5).unwrap();
            }
        }
        let saved: NamedTensors = first
            .state("g")
            .into_iter()
            .map(|(n, t)| (n, t.copy()))
            .collect();
        let mut second = Adam::new(&two, OPTIONS).unwrap();
        assert!(second.restore("d", &saved, 3, "test").is_err());
        second.restore("g", &saved, 3, "test").unwrap();
        for i in 4..=6 {
            second.step(&two, &grad(i), 0.5).unwrap();
        }
        assert_eq!(one.get("a"), two.get("a"));
        assert_eq!(one.get("b"), two.get("b"));
    }
}

//! The numbers of an iteration: one read of the device, and a look whether all are finite.

use deepsim_nets::loss::{TermKind, Terms};
use tch::{Device, Kind, Tensor};
use tracing::trace_span;

use crate::error::{Result, TrainError};
use crate::method::sides::Sides;
use crate::method::sums::Sums;

/// Unweighted losses of one iteration, and what the gate made of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Losses {
    /// The terms that were computed.
    pub terms: Terms<f64>,
    /// The discriminator's losses; none without an adversarial term.
    pub discriminator: Option<Sides<f64>>,
    /// The discriminator's loss over the adversarial one; NaN where the gate did not look.
    pub ratio: f64,
}

impl Losses {
    /// A kind's term without a name; NaN where it was not computed.
    pub fn of(&self, kind: TermKind) -> f64 {
        self.terms.of(kind).copied().unwrap_or(f64::NAN)
    }

    /// The discriminator's loss: on real images plus on generated images; NaN without one.
    pub fn discriminator(&self) -> f64 {
        self.discriminator
            .map_or(f64::NAN, |sides| sides.real + sides.generated)
    }
}

/// Reads all numbers of the iteration after `step` at once, the sums of its micro-batches.
///
/// # Errors
/// [`TrainError::NotFinite`] that names the first of them that is not finite: terms, the discriminator's losses,
/// gradients.
pub(crate) fn read(step: u64, sums: &Sums, device: Device) -> Result<Losses> {
    let _phase = trace_span!("losses").entered();
    let Sums {
        terms,
        discriminator,
        gradients,
    } = sums;
    let mut norms = Vec::new();
    for of_network in gradients {
        if let Some(norm) = of_network.norm()? {
            norms.push((of_network.player, norm));
        }
    }
    let mut named: Vec<(String, &Tensor)> = terms
        .iter()
        .map(|(term, value)| (term.log_key(), value))
        .collect();
    if let Some(Sides { real, generated }) = discriminator {
        named.push(("loss.discr_real".to_owned(), real));
        named.push(("loss.discr_fake".to_owned(), generated));
    }
    for (player, norm) in &norms {
        named.push((format!("{}'s gradient", player.name()), norm));
    }
    let tensors: Vec<&Tensor> = named.iter().map(|(_, tensor)| *tensor).collect();
    let values = numbers(&tensors, device)?;
    if let Some(((name, _), &value)) = named
        .iter()
        .zip(&values)
        .find(|(_, value)| !value.is_finite())
    {
        return Err(TrainError::NotFinite {
            step: step + 1,
            term: name.clone(),
            value,
            newest: None,
        });
    }
    let mut values = values.into_iter();
    let mut next = || values.next().unwrap_or(f64::NAN);
    Ok(Losses {
        terms: terms.map(|_, _| next()),
        discriminator: discriminator.as_ref().map(|_| Sides {
            real: next(),
            generated: next(),
        }),
        ratio: f64::NAN,
    })
}

/// Numbers of one device in one read.
fn numbers(tensors: &[&Tensor], device: Device) -> Result<Vec<f64>> {
    if tensors.is_empty() {
        return Ok(Vec::new());
    }
    let _guard = tch::no_grad_guard();
    // fp32 and fp64 side by side become fp64.
    let nothing = Tensor::f_zeros([], (Kind::Float, device))?;
    let all: Vec<&Tensor> = tensors.iter().copied().chain([&nothing]).collect();
    let all = Tensor::f_stack(&all, 0)?
        .f_to_kind(Kind::Double)?
        .f_to_device(Device::Cpu)?;
    let mut values = vec![0f64; tensors.len() + 1];
    all.f_copy_data(&mut values, tensors.len() + 1)?;
    values.truncate(tensors.len());
    Ok(values)
}

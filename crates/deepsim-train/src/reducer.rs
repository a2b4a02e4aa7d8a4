//! Sums of gradients over all processes, in buffers that stay from step to step.
//!
//! Each network has one buffer, which is as large as its weights. Gradients are copied there, summed bucket by bucket, and
//! given back as parts of it.

use std::cell::{Cell, RefCell};

use deepsim_aten::{AtenError, BUCKET_BYTES, Buckets, Layout, ProcessGroup};
use tch::{Kind, Tensor};

use crate::method::Sums;
use crate::method::gradients::{Gradients, Player};

/// A network, and whether of its gradients those of the adversarial term alone.
type Whose = (Player, bool);

/// The buffers of the networks that train.
#[derive(Debug, Default)]
pub(crate) struct Reducer {
    /// Whether gradients are exchanged in bf16.
    in_bf16: Cell<bool>,
    /// One for each network, made when its first gradients come; another for those of the adversarial term alone.
    buffers: RefCell<Vec<(Whose, Buckets)>>,
}

impl Reducer {
    /// Exchanges gradients in bf16 from now on, or in their own type.
    pub(crate) fn set_bf16(&self, on: bool) {
        self.in_bf16.set(on);
        self.buffers.borrow_mut().clear();
    }

    /// Sums over all processes what a phase has found. Terms and losses keep their type, whatever gradients are exchanged
    /// in.
    ///
    /// The gradients are parts of the buffers then: the next sum of the same network's changes them.
    ///
    /// # Errors
    /// Those of [`ProcessGroup::all_reduce_start`], and what libtorch refuses.
    pub(crate) fn sum_(&self, group: &ProcessGroup, sums: &mut Sums) -> Result<(), AtenError> {
        let _guard = tch::no_grad_guard();
        let mut buffers = self.buffers.borrow_mut();
        let mut used = Vec::new();
        for gradients in &sums.gradients {
            if let Some(layout) = self.layout(gradients) {
                let at = prepared(&mut buffers, gradients.whose(), layout)?;
                buffers[at].1.take(&gradients.tensors)?;
                used.push(at);
            }
        }
        let numbers = numbers(sums)?;
        let mut all: Vec<&Tensor> = Vec::new();
        for &at in &used {
            all.extend(buffers[at].1.to_send()?);
        }
        all.extend(&numbers);
        if all.is_empty() {
            return Ok(());
        }
        group.all_reduce_start(&all)?.wait()?;
        let filled = sums.gradients.iter_mut().filter(|g| !g.tensors.is_empty());
        for (gradients, &at) in filled.zip(&used) {
            let buckets = &buffers[at].1;
            buckets.take_back()?;
            for (gradient, place) in gradients.tensors.iter_mut().zip(buckets.places()) {
                *gradient = place.f_to_kind(gradient.kind()).map_err(torch)?;
            }
        }
        match numbers {
            Some(numbers) => spread(&numbers, sums),
            None => Ok(()),
        }
    }

    /// The buffer that gradients need; none where there are none.
    fn layout(&self, gradients: &Gradients) -> Option<Layout> {
        let first = gradients.tensors.first()?;
        let kind = widest(gradients.tensors.iter());
        Some(Layout {
            shapes: gradients.tensors.iter().map(Tensor::size).collect(),
            kind,
            sent: match (self.in_bf16.get(), kind) {
                (true, Kind::Float) => Kind::BFloat16,
                _ => kind,
            },
            device: first.device(),
            bucket_bytes: BUCKET_BYTES,
        })
    }
}

/// The place of a network's buffer among those that there are; it is made, or made anew, where none fits.
fn prepared(
    buffers: &mut Vec<(Whose, Buckets)>,
    own: Whose,
    layout: Layout,
) -> Result<usize, AtenError> {
    let known = buffers.iter().position(|(whose, _)| *whose == own);
    let Some(at) = known else {
        buffers.push((own, Buckets::new(layout)?));
        return Ok(buffers.len() - 1);
    };
    if *buffers[at].1.layout() != layout {
        buffers[at].1 = Buckets::new(layout)?;
    }
    Ok(at)
}

/// Terms and losses, one behind the other; none where there are none.
fn numbers(sums: &Sums) -> Result<Option<Tensor>, AtenError> {
    let all = sums.numbers();
    if all.is_empty() {
        return Ok(None);
    }
    let kind = widest(all.iter().copied());
    let parts = all
        .into_iter()
        .map(|value| value.f_to_kind(kind)?.f_reshape([1]))
        .collect::<Result<Vec<Tensor>, _>>()
        .map_err(torch)?;
    Tensor::f_cat(&parts, 0).map(Some).map_err(torch)
}

/// Puts the sums of [`numbers`] back.
fn spread(numbers: &Tensor, sums: &mut Sums) -> Result<(), AtenError> {
    let mut at = 0;
    sums.replace_numbers(|like| {
        let number = numbers.f_select(0, at).map_err(torch)?;
        at += 1;
        number.f_to_kind(like.kind()).map_err(torch)
    })
}

/// Double precision where one of them has it, else single.
fn widest<'a>(mut tensors: impl Iterator<Item = &'a Tensor>) -> Kind {
    if tensors.any(|tensor| tensor.kind() == Kind::Double) {
        Kind::Double
    } else {
        Kind::Float
    }
}

fn torch(error: tch::TchError) -> AtenError {
    AtenError::Torch(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Sides;
    use deepsim_nets::loss::{TermKind, Terms};
    use tch::Device;

    fn gradients(player: Player, shapes: &[&[i64]]) -> Gradients {
        let ones = |shape: &&[i64]| Tensor::ones(*shape, (Kind::Float, Device::Cpu));
        Gradients::of(player, shapes.iter().map(ones).collect())
    }

    #[test]
    fn a_network_keeps_its_buffer_until_its_weights_are_others() {
        let reducer = Reducer::default();
        let place = |g: &Gradients| {
            let mut buffers = reducer.buffers.borrow_mut();
            let layout = reducer.layout(g).unwrap();
            let at = prepared(&mut buffers, g.whose(), layout).unwrap();
            buffers[at].1.places()[0].data_ptr()
        };
        let generator = gradients(Player::Generator, &[&[2, 3], &[3]]);
        let encoder = gradients(Player::Encoder, &[&[2, 3], &[3]]);
        let (first, other) = (place(&generator), place(&encoder));
        assert_ne!(first, other);
        assert_eq!((place(&generator), place(&encoder)), (first, other));
        let ones = || Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
        let adversarial = Gradients::of_adversarial(Player::Generator, vec![ones()]);
        assert_ne!(place(&adversarial), first);
        assert_eq!(place(&generator), first);
        place(&gradients(Player::Generator, &[&[7]]));
        assert_eq!(place(&encoder), other);
        assert_eq!(reducer.buffers.borrow().len(), 3);
        assert!(reducer.layout(&gradients(Player::Encoder, &[])).is_none());
    }

    #[test]
    fn gradients_alone_are_sent_in_bf16() {
        let reducer = Reducer::default();
        let found = gradients(Player::Generator, &[&[4]]);
        assert_eq!(reducer.layout(&found).unwrap().sent, Kind::Float);
        reducer.set_bf16(true);
        let layout = reducer.layout(&found).unwrap();
        assert_eq!((layout.kind, layout.sent), (Kind::Float, Kind::BFloat16));
        // Double precision is for comparisons.
        let double = Gradients::of(
            Player::Generator,
            vec![Tensor::ones([4], (Kind::Double, Device::Cpu))],
        );
        assert_eq!(reducer.layout(&double).unwrap().sent, Kind::Double);
        let mut terms = Terms::default();
        terms.set(TermKind::Image, Tensor::from_slice(&[0.1f32]).squeeze());
        let sums = Sums::new(&terms, None, vec![found]).unwrap();
        assert_eq!(numbers(&sums).unwrap().unwrap().kind(), Kind::Float);
    }

    #[test]
    fn numbers_go_back_to_where_they_came_from() {
        let number = |value: f32| Tensor::from_slice(&[value]).squeeze();
        let mut terms = Terms::default();
        terms.set(TermKind::Image, number(1.0));
        terms.set(TermKind::Kl, number(2.0));
        let sides = Sides {
            real: number(3.0),
            generated: number(4.0),
        };
        let mut sums = Sums::new(&terms, Some(&sides), Vec::new()).unwrap();
        let doubled = numbers(&sums).unwrap().unwrap() * 2.0;
        spread(&doubled, &mut sums).unwrap();
        let value = |tensor: &Tensor| tensor.double_value(&[]);
        let terms: Vec<f64> = sums.terms.iter().map(|(_, v)| value(v)).collect();
        assert_eq!(terms, [2.0, 4.0]);
        let sides = sums.discriminator.unwrap();
        assert_eq!((value(&sides.real), value(&sides.generated)), (6.0, 8.0));
    }
}

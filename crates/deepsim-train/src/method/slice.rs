//! Which images of a global batch a micro-batch holds.

use deepsim_nets::Reduction;
use deepsim_nets::loss::{Term, Terms};
use tch::Tensor;

use crate::error::Result;

/// Which images a micro-batch holds of the global batch, the one that an update is of. Its gradients, terms and losses
/// are parts: those of all micro-batches of a global batch add up to the global batch's own.
///
/// Two things make them so. A loss that is divided by the number of images ([`Reduction::Caffe`],
/// [`Reduction::Mean`]) is multiplied by the micro-batch's share ([`Slice::part`]). The codes' noise, the generator's
/// noise, the second noise of diversity and the prior's draws are drawn for the global batch and narrowed
/// ([`Slice::of`]). The draws are the same in all micro-batches where each of them begins from the same seed.
///
/// Two things are not covered. Dropout happens inside networks, which draw masks for the images that they are given:
/// other masks than for the whole batch, and the same ones in two micro-batches of one size and seed. Batch
/// normalisation takes the statistics of the micro-batch, and running statistics learn of each micro-batch.
///
/// Where the micro-batch is the whole batch nothing is multiplied and nothing narrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Position of the first image in the global batch.
    pub from: i64,
    /// Images in the micro-batch.
    pub len: i64,
    /// Images in the global batch.
    pub global: i64,
}

impl Slice {
    /// All of a batch of so many images.
    pub fn whole(images: i64) -> Slice {
        Slice {
            from: 0,
            len: images,
            global: images,
        }
    }

    /// Whether the micro-batch is the whole batch.
    pub fn is_whole(self) -> bool {
        self.from == 0 && self.len == self.global
    }

    /// The micro-batch's `[len,…]` of what was drawn for the global batch, `[global,…]`.
    ///
    /// # Errors
    /// Draws for fewer images.
    pub fn of(self, drawn: Tensor) -> Result<Tensor> {
        if self.is_whole() {
            return Ok(drawn);
        }
        Ok(drawn.f_narrow(0, self.from, self.len)?)
    }

    /// A loss over the micro-batch as a part of the loss over the global batch.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn part(self, loss: Tensor, reduction: Reduction) -> Result<Tensor> {
        // Sums are parts already.
        if self.is_whole() || reduction == Reduction::Paper {
            return Ok(loss);
        }
        Ok(loss.f_mul_scalar(self.len as f64 / self.global as f64)?)
    }

    /// All of some terms as parts.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn parts(self, terms: &Terms<Tensor>, reduction: Reduction) -> Result<Terms<Tensor>> {
        let part = |(term, loss): (&Term, &Tensor)| -> Result<(Term, Tensor)> {
            Ok((term.clone(), self.part(loss.shallow_clone(), reduction)?))
        };
        terms.iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    const PARTS: [Slice; 2] = [
        Slice {
            from: 0,
            len: 1,
            global: 4,
        },
        Slice {
            from: 1,
            len: 3,
            global: 4,
        },
    ];

    #[test]
    fn parts_of_means_and_of_sums_add_up() {
        let values = Tensor::from_slice(&[8f32, 2.0, 3.0, 7.0]);
        for reduction in [Reduction::Caffe, Reduction::Mean, Reduction::Paper] {
            let loss = |of: &Tensor| match reduction {
                Reduction::Paper => of.sum(Kind::Float),
                Reduction::Caffe | Reduction::Mean => of.mean(Kind::Float),
            };
            let parts = PARTS.map(|slice| {
                let own = slice.of(values.shallow_clone()).unwrap();
                let part = slice.part(loss(&own), reduction).unwrap();
                part.double_value(&[])
            });
            let whole = loss(&values).double_value(&[]);
            assert_eq!(parts.iter().sum::<f64>(), whole, "{reduction:?}");
        }
    }

    #[test]
    fn the_whole_batch_is_left_as_it_is() {
        let whole = Slice::whole(4);
        let drawn = Tensor::ones([4, 3], (Kind::Float, Device::Cpu));
        let found = whole.of(drawn.shallow_clone()).unwrap();
        assert_eq!(found.data_ptr(), drawn.data_ptr());
        let loss = whole.part(drawn.shallow_clone(), Reduction::Mean).unwrap();
        assert_eq!(loss.data_ptr(), drawn.data_ptr());
        assert!(PARTS.iter().all(|slice| !slice.is_whole()));
    }
}

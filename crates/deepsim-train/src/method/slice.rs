//! Which images of a global batch a micro-batch holds.

use deepsim_nets::Reduction;
use deepsim_nets::loss::{Term, Terms};
use tch::Tensor;

use crate::error::Result;

/// Which images a micro-batch holds of the global batch, the one that an update is of. Its gradients, terms and losses
/// are parts: those of all micro-batches of a global batch add up to the global batch's own.
///
/// Two things make them so. A loss that is divided by the number of images ([`Reduction::Caffe`],
/// [`Reduction::Mean`]) is multiplied by the micro-batch's share ([`Slice::part`]). Everything random is drawn for the
/// global batch and narrowed ([`Draws`](crate::method::Draws)).
///
/// One thing is not covered. Batch normalisation takes the statistics of the micro-batch, unless it stands among others
/// that have the rest ([`deepsim_nets::in_turns`], [`deepsim_nets::over_group`]).
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

    /// A batch of so many images in `parts` micro-batches, at most one for each image; the first ones may hold one image
    /// more.
    pub fn split(images: i64, parts: i64) -> Vec<Slice> {
        let parts = parts.clamp(1, images.max(1));
        let begin = |part: i64| part * (images / parts) + part.min(images % parts);
        let slice = |part: i64| Slice {
            from: begin(part),
            len: begin(part + 1) - begin(part),
            global: images,
        };
        (0..parts).map(slice).collect()
    }

    /// Those of a global batch's shards that lie in this slice, each as a part of it: [`Slice::within`] undoes that.
    pub fn shards(self, all: i64) -> Vec<Slice> {
        let shards = Slice::split(self.global, all).into_iter();
        let inside = shards.filter(|shard| {
            shard.from >= self.from && shard.from + shard.len <= self.from + self.len
        });
        let part = |shard: Slice| Slice {
            from: shard.from - self.from,
            len: shard.len,
            global: self.len,
        };
        inside.map(part).collect()
    }

    /// A part of this slice's images, in their global batch.
    pub fn within(self, part: Slice) -> Slice {
        Slice {
            from: self.from + part.from,
            len: part.len,
            global: self.global,
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
    fn a_batch_is_split_evenly_and_completely() {
        let lens = |images, parts| -> Vec<i64> {
            let slices = Slice::split(images, parts);
            let mut from = 0;
            for slice in &slices {
                assert_eq!((slice.from, slice.global), (from, images));
                from += slice.len;
            }
            assert_eq!(from, images);
            slices.iter().map(|slice| slice.len).collect()
        };
        assert_eq!(lens(64, 4), [16; 4]);
        assert_eq!(lens(7, 3), [3, 2, 2]);
        assert_eq!(lens(2, 5), [1, 1]);
        assert_eq!(Slice::split(5, 1), [Slice::whole(5)]);
    }

    #[test]
    fn a_slice_knows_its_shards() {
        let slice = Slice {
            from: 4,
            len: 3,
            global: 7,
        };
        let shards = slice.shards(4);
        let places: Vec<_> = shards.iter().map(|s| (s.from, s.len, s.global)).collect();
        assert_eq!(places, [(0, 2, 3), (2, 1, 3)]);
        assert_eq!(slice.within(shards[1]).from, 6);
        assert_eq!(Slice::whole(7).shards(3), Slice::split(7, 3));
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

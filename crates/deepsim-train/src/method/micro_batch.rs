//! What the phases of an iteration are given besides the state.

use deepsim_experiment::Perception;
use deepsim_nets::{NetError, images};
use tch::Tensor;

use crate::error::Result;
use crate::method::draws::Draws;
use crate::method::plan::Plan;
use crate::method::slice::Slice;

/// Images that one pass takes, and what is known of them and of the iteration.
#[derive(Debug)]
pub struct MicroBatch<'a> {
    /// The networks that see images.
    pub perception: &'a Perception,
    /// What the experiment says of its iterations.
    pub plan: &'a Plan,
    /// Images `[len,3,crop,crop]` in Caffe units, stored channels-last.
    pub x: Tensor,
    /// Their features, where no network of the experiment encodes them.
    pub recorded: Option<Tensor>,
    /// What is drawn for them.
    pub draws: Draws,
    /// Which images of the global batch they are.
    pub slice: Slice,
}

impl<'a> MicroBatch<'a> {
    /// Of images `x` `[len,3,crop,crop]` in Caffe units, for which an iteration has drawn their part of `draws`.
    ///
    /// # Errors
    /// Another number of images than the slice says, draws for fewer images than the global batch has, and what is no
    /// batch of images.
    pub fn new(
        perception: &'a Perception,
        plan: &'a Plan,
        draws: &Draws,
        x: &Tensor,
        recorded: Option<Tensor>,
        slice: Slice,
    ) -> Result<MicroBatch<'a>> {
        let size = x.size();
        if size.first() != Some(&slice.len) {
            return Err(NetError::InputShape {
                what: "the micro-batch".to_owned(),
                expected: format!("{} images", slice.len),
                got: size,
            }
            .into());
        }
        Ok(MicroBatch {
            perception,
            plan,
            x: images::channels_last(x)?,
            recorded,
            draws: draws.of(slice)?,
            slice,
        })
    }
}

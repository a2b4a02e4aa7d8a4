//! Gradients in one buffer that stays from step to step, and their sums over processes while other work goes on.

use std::ffi::{c_char, c_int, c_void};
use std::marker::PhantomData;

use tch::{Device, Kind, TchError, Tensor};

use crate::AtenError;
use crate::group::{GroupError, ProcessGroup, explained, raw};

unsafe extern "C" {
    fn deepsim_group_all_reduce_start(
        group: *mut c_void,
        tensors: *const *mut c_void,
        count: usize,
        out: *mut *mut c_void,
        err: *mut c_char,
        len: usize,
    ) -> c_int;
    fn deepsim_group_all_reduce_wait(works: *mut c_void, err: *mut c_char, len: usize) -> c_int;
    fn deepsim_group_works_free(works: *mut c_void);
    fn deepsim_group_backward(
        group: *mut c_void,
        loss: *mut c_void,
        weights: *const *mut c_void,
        places: *const *mut c_void,
        bucket_of: *const i64,
        count: usize,
        buckets: *const *mut c_void,
        sent: *const *mut c_void,
        bucket_count: usize,
        add: c_int,
        out: *mut *mut c_void,
        err: *mut c_char,
        len: usize,
    ) -> c_int;
}

/// Bytes of a bucket, at which it is closed: as many as PyTorch's `DistributedDataParallel` takes.
pub const BUCKET_BYTES: usize = 25 << 20;

/// Sums over the processes of a group that are under way. The tensors are being written to: nobody reads or changes them
/// before [`InFlight::wait`]. Dropping it waits, too, and says nothing of failures.
#[derive(Debug)]
#[must_use = "sums that nobody waits for have no result"]
pub struct InFlight<'g> {
    raw: *mut c_void,
    /// The group stays until the sums are done.
    _group: PhantomData<&'g ProcessGroup>,
}

impl InFlight<'_> {
    /// Waits until all sums are there.
    ///
    /// # Errors
    /// [`AtenError::Group`]: a process that has ended or does not answer. The tensors hold anything then.
    pub fn wait(self) -> Result<(), AtenError> {
        // SAFETY: a live handle, which `drop` frees after the call; the shim catches exceptions.
        explained(0, |err, len| unsafe {
            deepsim_group_all_reduce_wait(self.raw, err, len)
        })
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle came from the shim and is freed once.
        unsafe { deepsim_group_works_free(self.raw) }
    }
}

impl ProcessGroup {
    /// Starts the sums of several tensors over all processes, in place, one after the other and without waiting for any.
    /// The processes ask each other once whether they bring the same tensors. Each sum has equal bits in all processes, as
    /// those of [`ProcessGroup::all_reduce`]; whether another call has the same ones depends on the sizes.
    ///
    /// # Errors
    /// Those of [`ProcessGroup::all_reduce`]. Nothing is changed where the processes disagree.
    pub fn all_reduce_start(&self, tensors: &[&Tensor]) -> Result<InFlight<'_>, AtenError> {
        let pointers: Vec<*mut c_void> = tensors.iter().map(|tensor| raw(tensor)).collect();
        let mut out = std::ptr::null_mut();
        // SAFETY: a live group and `count` live `at::Tensor*`, of which the shim keeps copies; it catches exceptions.
        self.in_turn(|err, len| unsafe {
            deepsim_group_all_reduce_start(
                self.raw,
                pointers.as_ptr(),
                pointers.len(),
                &mut out,
                err,
                len,
            )
        })?;
        Ok(InFlight {
            raw: out,
            _group: PhantomData,
        })
    }
}

/// What a buffer of gradients holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Shapes of the weights, in their order.
    pub shapes: Vec<Vec<i64>>,
    /// Type of the gradients.
    pub kind: Kind,
    /// Type in which they are summed over processes.
    pub sent: Kind,
    /// Where they are.
    pub device: Device,
    /// Bytes at which a bucket is closed ([`BUCKET_BYTES`]).
    pub bucket_bytes: usize,
}

/// Gradients of a network's weights in one buffer, and its buckets, which are summed one by one. The last weight lies
/// first, because a backward pass finds its gradient first.
#[derive(Debug)]
pub struct Buckets {
    layout: Layout,
    /// Where each weight's gradient lies: parts of the buffer, in the weights' order.
    places: Vec<Tensor>,
    /// The bucket of each.
    bucket_of: Vec<i64>,
    /// Parts of the buffer.
    buckets: Vec<Tensor>,
    /// What is summed: the buckets, or their copies of another type.
    sent: Vec<Tensor>,
}

impl Buckets {
    /// A buffer for gradients.
    ///
    /// # Errors
    /// What libtorch refuses (out of memory).
    pub fn new(layout: Layout) -> Result<Buckets, AtenError> {
        let all = layout.shapes.iter().map(|shape| numel(shape)).sum::<i64>();
        let options = (layout.kind, layout.device);
        let flat = Tensor::f_zeros([all], options).map_err(torch)?;
        let bytes = i64::try_from(flat.kind().elt_size_in_bytes()).unwrap_or(1);
        let limit = i64::try_from(layout.bucket_bytes).unwrap_or(i64::MAX);
        let mut buckets = Vec::new();
        let (mut places, mut bucket_of) = (Vec::new(), Vec::new());
        // Of the bucket that is being filled, and of the next place.
        let (mut begin, mut at) = (0, 0);
        for shape in layout.shapes.iter().rev() {
            let values = numel(shape);
            let place = flat.f_narrow(0, at, values).map_err(torch)?;
            places.push(place.f_view(shape.as_slice()).map_err(torch)?);
            bucket_of.push(i64::try_from(buckets.len()).unwrap_or(i64::MAX));
            at += values;
            if (at - begin).saturating_mul(bytes) >= limit {
                buckets.push(flat.f_narrow(0, begin, at - begin).map_err(torch)?);
                begin = at;
            }
        }
        // Where the last places hold nothing, their bucket is empty and still there.
        let filled = i64::try_from(buckets.len()).unwrap_or(i64::MAX);
        if bucket_of.last() == Some(&filled) {
            buckets.push(flat.f_narrow(0, begin, at - begin).map_err(torch)?);
        }
        places.reverse();
        bucket_of.reverse();
        let sent = buckets.iter().map(|bucket| match layout.sent {
            kind if kind == layout.kind => Ok(bucket.shallow_clone()),
            kind => Tensor::f_zeros(bucket.size(), (kind, layout.device)).map_err(torch),
        });
        let sent = sent.collect::<Result<Vec<_>, _>>()?;
        Ok(Buckets {
            layout,
            places,
            bucket_of,
            buckets,
            sent,
        })
    }

    /// What it holds.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Where each weight's gradient lies, in the weights' order: parts of the buffer, which the next pass or
    /// [`Buckets::take`] writes to.
    pub fn places(&self) -> &[Tensor] {
        &self.places
    }

    /// Number of buckets.
    pub fn count(&self) -> usize {
        self.buckets.len()
    }

    /// Copies gradients to their places; one that lies there already is left alone.
    ///
    /// # Errors
    /// Other shapes than the weights', and what libtorch refuses.
    pub fn take(&self, gradients: &[Tensor]) -> Result<(), AtenError> {
        self.check(gradients.iter())?;
        let _guard = tch::no_grad_guard();
        for (place, gradient) in self.places.iter().zip(gradients) {
            let mut place = place.shallow_clone();
            let lies_there = place.data_ptr() == gradient.data_ptr()
                && place.kind() == gradient.kind()
                && gradient.is_contiguous();
            if !lies_there {
                place.f_copy_(gradient).map_err(torch)?;
            }
        }
        Ok(())
    }

    /// What is to be summed over all processes, bucket by bucket, of what lies in the places.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn to_send(&self) -> Result<&[Tensor], AtenError> {
        self.copied(&self.buckets, &self.sent)?;
        Ok(&self.sent)
    }

    /// Puts the sums of [`Buckets::to_send`], or of [`Buckets::backward`], into the places.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn take_back(&self) -> Result<(), AtenError> {
        self.copied(&self.sent, &self.buckets)
    }

    /// Runs the backward pass of `loss` and sums each bucket over all processes as soon as its gradients are there, while
    /// the pass goes on. With `add` gradients are added to what lies in the places. When the sums are done,
    /// [`Buckets::take_back`] puts them there.
    ///
    /// No other exchange may be made before, in any process: so it is not for networks that exchange the statistics of
    /// batch normalisation in their backward pass ([`summed`](crate::summed)), which fails then.
    ///
    /// # Errors
    /// Weights that do not train, take no part in the loss or are others than the buffer is for, a loss that is no number
    /// or has no graph, what libtorch refuses, and those of [`ProcessGroup::all_reduce`].
    pub fn backward<'g>(
        &self,
        group: &'g ProcessGroup,
        loss: &Tensor,
        weights: &[&Tensor],
        add: bool,
    ) -> Result<InFlight<'g>, AtenError> {
        self.check(weights.iter().copied())?;
        let pointers =
            |tensors: &[Tensor]| -> Vec<*mut c_void> { tensors.iter().map(raw).collect() };
        let of_weights: Vec<*mut c_void> = weights.iter().map(|weight| raw(weight)).collect();
        let places = pointers(&self.places);
        let (buckets, sent) = (pointers(&self.buckets), pointers(&self.sent));
        let mut out = std::ptr::null_mut();
        // SAFETY: a live group and live `at::Tensor*`; weights, places and their buckets are equally many (checked
        // above, and by `new`), each bucket is one of `buckets`, as many as `sent`. The shim keeps copies of what it
        // needs after the call, and catches exceptions.
        group.in_turn(|err, len| unsafe {
            deepsim_group_backward(
                group.raw,
                raw(loss),
                of_weights.as_ptr(),
                places.as_ptr(),
                self.bucket_of.as_ptr(),
                of_weights.len(),
                buckets.as_ptr(),
                sent.as_ptr(),
                buckets.len(),
                c_int::from(add),
                &mut out,
                err,
                len,
            )
        })?;
        Ok(InFlight {
            raw: out,
            _group: PhantomData,
        })
    }

    /// Checks that there is a tensor of the right shape for each place.
    fn check<'a>(&self, tensors: impl Iterator<Item = &'a Tensor>) -> Result<(), AtenError> {
        let found: Vec<Vec<i64>> = tensors.map(Tensor::size).collect();
        if found == self.layout.shapes {
            return Ok(());
        }
        Err(GroupError::Refused(format!(
            "a buffer for gradients of shapes {:?} cannot take {found:?}",
            self.layout.shapes
        ))
        .into())
    }

    /// Copies what is summed in another type than it is kept in.
    fn copied(&self, from: &[Tensor], to: &[Tensor]) -> Result<(), AtenError> {
        if self.layout.sent == self.layout.kind {
            return Ok(());
        }
        let _guard = tch::no_grad_guard();
        for (from, to) in from.iter().zip(to) {
            to.shallow_clone().f_copy_(from).map_err(torch)?;
        }
        Ok(())
    }
}

fn numel(shape: &[i64]) -> i64 {
    shape.iter().product()
}

fn torch(error: TchError) -> AtenError {
    AtenError::Torch(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(shapes: &[&[i64]], bucket_bytes: usize) -> Layout {
        Layout {
            shapes: shapes.iter().map(|shape| shape.to_vec()).collect(),
            kind: Kind::Float,
            sent: Kind::Float,
            device: Device::Cpu,
            bucket_bytes,
        }
    }

    fn sizes(buckets: &Buckets) -> Vec<i64> {
        let sizes = buckets.buckets.iter().map(|bucket| bucket.size()[0]);
        sizes.collect()
    }

    #[test]
    fn buckets_close_when_they_are_full_and_the_last_weight_comes_first() {
        let shapes: [&[i64]; 4] = [&[2, 3], &[4], &[], &[5]];
        let one = Buckets::new(layout(&shapes, BUCKET_BYTES)).unwrap();
        assert_eq!(sizes(&one), [16]);
        let several = Buckets::new(layout(&shapes, 4 * 6)).unwrap();
        assert_eq!(sizes(&several), [6, 10]);
        assert_eq!(several.bucket_of, [1, 1, 0, 0]);
        let each = Buckets::new(layout(&shapes, 1)).unwrap();
        assert_eq!(sizes(&each), [5, 1, 4, 6]);
        assert_eq!(each.bucket_of, [3, 2, 1, 0]);
        let none = Buckets::new(layout(&[], 1)).unwrap();
        assert_eq!((none.count(), none.places().len()), (0, 0));
        // A weight without values: its bucket is there.
        let empty = Buckets::new(layout(&[&[0], &[3]], 12)).unwrap();
        assert_eq!((sizes(&empty), empty.bucket_of), (vec![3, 0], vec![1, 0]));
    }

    #[test]
    fn gradients_are_taken_in_their_order_whatever_their_strides() {
        let buckets = Buckets::new(layout(&[&[2, 3], &[2]], 8)).unwrap();
        let columns = Tensor::from_slice(&[0f32, 1.0, 2.0, 3.0, 4.0, 5.0]).view([3, 2]);
        let gradients = [columns.transpose(0, 1), Tensor::from_slice(&[6f32, 7.0])];
        buckets.take(&gradients).unwrap();
        assert_eq!(buckets.places(), gradients);
        assert!(buckets.places().iter().all(Tensor::is_contiguous));
        // What lies there stays.
        let own: Vec<Tensor> = buckets.places().iter().map(Tensor::shallow_clone).collect();
        buckets.take(&own).unwrap();
        assert_eq!(buckets.places(), gradients);
        let places: Vec<_> = buckets.places().iter().map(Tensor::data_ptr).collect();
        let after: Vec<_> = own.iter().map(Tensor::data_ptr).collect();
        assert_eq!(places, after);
        let error = buckets.take(&gradients[..1]).unwrap_err().to_string();
        assert!(error.contains("cannot take [[2, 3]]"), "{error}");
    }

    #[test]
    fn another_type_is_a_copy_that_is_taken_back() {
        let mut wanted = layout(&[&[3]], BUCKET_BYTES);
        wanted.sent = Kind::BFloat16;
        let buckets = Buckets::new(wanted).unwrap();
        let values = Tensor::from_slice(&[1f32, 1.0 + 1.0 / 1024.0, -3.0]);
        buckets.take(&[values]).unwrap();
        let sent = buckets.to_send().unwrap();
        assert_eq!(sent[0].kind(), Kind::BFloat16);
        buckets.take_back().unwrap();
        assert_eq!(
            buckets.places()[0],
            Tensor::from_slice(&[1f32, 1.0, -3.0]),
            "eight bits of mantissa"
        );
    }
}

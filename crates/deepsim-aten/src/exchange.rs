//! Sums over the parts of a batch while networks run: over processes, or over the shards of each.

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use tch::Tensor;

use crate::{AtenError, GroupError, ProcessGroup, checked};

/// Elements of a shard that are gathered at once: 4 MB in fp32.
const AT_ONCE: i64 = 1 << 20;

/// Those that have the other parts of a batch, as one of them sees them.
pub(crate) trait Others {
    /// The sum over all parts. All of them ask for the same sums in the same order.
    fn sum(&self, own: &Tensor) -> Result<Tensor, AtenError>;

    /// Whether this part is the one of its process that changes what the process has once.
    fn leads(&self) -> bool;
}

thread_local! {
    static OTHERS: RefCell<Option<Rc<dyn Others>>> = const { RefCell::new(None) };
    static FAILED: RefCell<Option<GroupError>> = const { RefCell::new(None) };
}

/// Runs `body` in this thread as one of those that have parts of a batch.
pub(crate) fn among<T>(others: Option<Rc<dyn Others>>, body: impl FnOnce() -> T) -> T {
    /// Those before come back, also when `body` panics.
    struct Before(Option<Rc<dyn Others>>);
    impl Drop for Before {
        fn drop(&mut self) {
            OTHERS.set(self.0.take());
        }
    }
    FAILED.set(None);
    let _before = Before(OTHERS.replace(others));
    body()
}

/// Runs `body` in this thread with [`summed`] over all processes of a group, which all run the same.
pub fn over_group<T>(group: Option<Arc<ProcessGroup>>, body: impl FnOnce() -> T) -> T {
    among(group.map(|group| Rc::new(group) as Rc<dyn Others>), body)
}

impl Others for Arc<ProcessGroup> {
    fn sum(&self, own: &Tensor) -> Result<Tensor, AtenError> {
        let sum = own.copy();
        self.all_reduce(&sum)?;
        Ok(sum)
    }

    fn leads(&self) -> bool {
        true
    }
}

/// Whether this thread has a part of a batch alone, and others the rest.
pub fn has_others() -> bool {
    OTHERS.with_borrow(Option::is_some)
}

/// Whether this thread is the one of its process that changes what all parts share, such as running statistics.
pub fn leads() -> bool {
    OTHERS.with_borrow(|others| others.as_ref().is_none_or(|others| others.leads()))
}

/// Why the last [`summed`] of this thread failed, in a pass forward or back: libtorch turns errors of a pass back into
/// text. It is forgotten then.
pub fn take_failure() -> Option<GroupError> {
    FAILED.take()
}

pub(crate) fn set_failure(failure: Option<GroupError>) {
    FAILED.set(failure);
}

unsafe extern "C" {
    fn deepsim_summed(
        tensor: *mut c_void,
        sum: extern "C" fn(*mut c_void, *mut *mut c_void) -> c_int,
        out: *mut *mut c_void,
        err: *mut c_char,
        len: usize,
    ) -> c_int;
}

/// The sum of a tensor over all parts of a batch, as an operation of autograd: its backward pass sums gradients over all,
/// so all make it, in the same order, in threads that stand among the same others. fp32 or fp64, of the same shape in all.
///
/// # Errors
/// [`AtenError::Group`]: another one that has ended or does not answer, a thread that has no others.
pub fn summed(tensor: &Tensor) -> Result<Tensor, AtenError> {
    let (raw, mut out) = (
        tensor.as_ptr().cast::<c_void>().cast_mut(),
        std::ptr::null_mut(),
    );
    // SAFETY: a live `at::Tensor*` and a function that keeps to the shim's signature; the shim catches exceptions.
    let done = checked(|err, len| unsafe { deepsim_summed(raw, sum_of, &mut out, err, len) });
    if let (Err(_), Some(failure)) = (&done, FAILED.with_borrow(Clone::clone)) {
        return Err(failure.into());
    }
    done?;
    // SAFETY: the call succeeded: a new `at::Tensor*` that nobody else owns.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

/// What the shim calls for a sum: 0 and a new tensor, or 1.
extern "C" fn sum_of(tensor: *mut c_void, out: *mut *mut c_void) -> c_int {
    let sum = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the shim's tensor lives during the call; this is a handle of its own.
        let own = unsafe { Tensor::clone_from_ptr(tensor.cast()) };
        let others = OTHERS.with_borrow(Option::clone);
        let others = others
            .ok_or_else(|| GroupError::Other("a sum over parts where there are none".to_owned()))?;
        others.sum(&own)
    }));
    let failure = match sum {
        Ok(Ok(sum)) => {
            // SAFETY: `out` is a place of the shim's, which owns the tensor from now on.
            unsafe { *out = sum.as_ptr().cast::<c_void>().cast_mut() };
            std::mem::forget(sum);
            return 0;
        }
        Ok(Err(AtenError::Group(failure))) => failure,
        Ok(Err(other)) => GroupError::Other(other.to_string()),
        Err(_) => GroupError::Other("a sum over parts has panicked".to_owned()),
    };
    FAILED.set(Some(failure));
    1
}

/// The sum of tensors, those of this process's shards in their order, and over all processes of a group, which have as many
/// shards each: added one after the other in the order of all shards. So its bits don't depend on the number of processes.
///
/// # Errors
/// No tensors, tensors of different shapes, and what [`ProcessGroup::all_gather`] refuses.
pub fn sum_in_order(group: Option<&ProcessGroup>, shards: &[Tensor]) -> Result<Tensor, AtenError> {
    let torch = |error: tch::TchError| AtenError::Torch(error.to_string());
    let _guard = tch::no_grad_guard();
    let Some(first) = shards.first() else {
        return Err(AtenError::Torch("a sum of no shards".to_owned()));
    };
    let flat = |tensor: &Tensor| tensor.f_reshape([1, -1]);
    let own = shards
        .iter()
        .map(flat)
        .collect::<Result<Vec<_>, _>>()
        .map_err(torch)?;
    let elements = i64::try_from(first.numel()).unwrap_or(i64::MAX);
    let mut sums = Vec::new();
    let mut from = 0;
    while from < elements {
        let len = AT_ONCE.min(elements - from);
        let parts = own
            .iter()
            .map(|row| row.f_narrow(1, from, len))
            .collect::<Result<Vec<_>, _>>()
            .map_err(torch)?;
        let own = Tensor::f_cat(&parts, 0).map_err(torch)?;
        let all = match group {
            Some(group) => group.all_gather(&own)?.f_view([-1, len]).map_err(torch)?,
            None => own,
        };
        let mut rows = all.f_unbind(0).map_err(torch)?.into_iter();
        let mut sum = rows.next().map_or_else(Tensor::new, |row| row.copy());
        for row in rows {
            let _ = sum.f_add_(&row).map_err(torch)?;
        }
        sums.push(sum);
        from += len;
    }
    let flat = match sums.as_slice() {
        [] => first.f_zeros_like(),
        sums => Tensor::f_cat(sums, 0),
    };
    flat.and_then(|flat| flat.f_view(first.size().as_slice()))
        .map_err(torch)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Twice;

    impl Others for Twice {
        fn sum(&self, own: &Tensor) -> Result<Tensor, AtenError> {
            Ok(own + own)
        }

        fn leads(&self) -> bool {
            false
        }
    }

    #[test]
    fn others_are_there_while_a_body_runs_also_one_that_panics() {
        let one = Tensor::from_slice(&[1.0]);
        among(Some(Rc::new(Twice)), || {
            assert_eq!(summed(&one).unwrap().double_value(&[0]), 2.0);
            assert!(has_others() && !leads());
        });
        let panic = catch_unwind(|| among(Some(Rc::new(Twice)), || panic!("ill")));
        assert!(panic.is_err() && !has_others() && leads());
        let error = summed(&one).unwrap_err().to_string();
        assert!(error.contains("where there are none"), "{error}");
        assert!(take_failure().is_some() && take_failure().is_none());
    }
}

//! Groups of processes by PyTorch's own engine, c10d: its store, through which they find each other, and its backends:
//! Gloo, which moves tensors between CPUs, and in builds with the feature `nccl` NCCL, which moves them between GPUs.

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tch::Tensor;

use crate::{AtenError, numbered};

unsafe extern "C" {
    fn deepsim_group_join(
        host: *const c_char,
        port: u16,
        rank: i64,
        size: i64,
        serves: c_int,
        prefix: *const c_char,
        timeout_ms: i64,
        out: *mut *mut c_void,
        err: *mut c_char,
        len: usize,
    ) -> c_int;
    fn deepsim_group_all_reduce(
        group: *mut c_void,
        tensor: *mut c_void,
        max: c_int,
        err: *mut c_char,
        len: usize,
    ) -> c_int;
    fn deepsim_group_broadcast(
        group: *mut c_void,
        tensor: *mut c_void,
        root: i64,
        err: *mut c_char,
        len: usize,
    ) -> c_int;
    fn deepsim_group_all_gather(
        group: *mut c_void,
        tensor: *mut c_void,
        out: *mut *mut c_void,
        err: *mut c_char,
        len: usize,
    ) -> c_int;
    fn deepsim_group_barrier(group: *mut c_void, err: *mut c_char, len: usize) -> c_int;
    fn deepsim_group_leave(group: *mut c_void);
}

/// Why processes cannot work together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// Numbers or names that no group can have.
    #[error("{0}")]
    Refused(String),
    /// Something else listens where rank 0 is to serve.
    #[error("port {0} is in use already: take another MASTER_PORT")]
    PortInUse(u16),
    /// No store that answers where the processes are to meet.
    #[error("no store there: {0}")]
    Unreachable(String),
    /// Processes that did not come in time.
    #[error("rank {0} did not come in time")]
    Missing(String),
    /// Processes that were told, or do, different things.
    #[error("the processes disagree: {0}")]
    Disagree(String),
    /// A process has ended.
    #[error("a process has ended: {0}")]
    Gone(String),
    /// A process does not answer.
    #[error("a process does not answer: {0}")]
    Late(String),
    /// A tensor that cannot be exchanged.
    #[error("{0}")]
    Tensor(String),
    /// Anything else; the text is libtorch's.
    #[error("libtorch: {0}")]
    Other(String),
}

/// How the processes of a group find each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendezvous {
    /// Where the store is served. It listens for its own machine alone where this is `localhost`, `127.…` or `::1`;
    /// otherwise for everyone who reaches the machine.
    pub host: String,
    /// Its port, not 0.
    pub port: u16,
    /// Number of this process, from 0 and below `size`.
    pub rank: i64,
    /// Number of processes.
    pub size: i64,
    /// Whether this process serves the store; otherwise another one, an agent or an earlier group of this process does.
    pub serves: bool,
    /// Begins the store's keys: another one for each group that uses the same store, after a failed attempt, too.
    pub prefix: String,
}

/// A process's place in a group. Every process of a group makes the same calls in the same order; each call waits for
/// all, at most as long as [`ProcessGroup::join`] was told. After a process has ended or did not answer, the group is of no
/// more use. Dropping it leaves the group and waits for nobody.
///
/// Several threads of a process may use it: their calls take turns, and it is theirs to keep the order.
#[derive(Debug)]
pub struct ProcessGroup {
    /// The shim's `Group`, alive as long as this is.
    pub(crate) raw: *mut c_void,
    rank: i64,
    size: i64,
    /// c10d counts its exchanges without a lock.
    turn: Mutex<()>,
}

// SAFETY: the group is a pair of reference-counted c10d objects that any thread may use; it is used by one at a time.
unsafe impl Send for ProcessGroup {}
// SAFETY: as above; `turn` is held in each call.
unsafe impl Sync for ProcessGroup {}

/// The longest timeout, in milliseconds: 24 days.
const LONGEST: i64 = i32::MAX as i64;

impl ProcessGroup {
    /// Whether this build moves tensors between GPUs, by NCCL.
    pub const MOVES_CUDA: bool = cfg!(feature = "nccl");

    /// Joins a group when all of its processes have come. `timeout`, in whole milliseconds, bounds this, and each exchange
    /// later. Of several processes that fail, all get the reason of the first.
    ///
    /// The connections use the network interface from which the store is reached, or those that `GLOO_SOCKET_IFNAME`
    /// names. A process must ignore SIGPIPE, as Rust programs do: otherwise the end of another one may end it.
    ///
    /// # Errors
    /// [`AtenError::Group`]: values that no group can have, a port in use, a store that nobody serves, processes that do
    /// not come, that have the same rank, or that were told of another number of processes.
    pub fn join(at: &Rendezvous, timeout: Duration) -> Result<ProcessGroup, AtenError> {
        let text = |what: &str, text: &str| match CString::new(text) {
            Ok(text) if !text.is_empty() => Ok(text),
            _ => refused(format!(
                "{what} {text:?}: it must be a text without a zero byte"
            )),
        };
        let (host, prefix) = (text("host", &at.host)?, text("prefix", &at.prefix)?);
        let (rank, size) = (at.rank, at.size);
        if at.port == 0 {
            return refused("port 0: it must be one that all processes know".to_owned());
        }
        if !(1..=i64::from(i32::MAX)).contains(&size) || !(0..size).contains(&rank) {
            return refused(format!(
                "rank {rank} of {size}: ranks are from 0, and below their number"
            ));
        }
        let milliseconds = i64::try_from(timeout.as_millis())
            .unwrap_or(LONGEST)
            .clamp(1, LONGEST);
        let mut raw = std::ptr::null_mut();
        explained(at.port, |err, len| {
            // SAFETY: the strings outlive the call, `raw` takes the new group; the shim catches exceptions.
            unsafe {
                deepsim_group_join(
                    host.as_ptr(),
                    at.port,
                    at.rank,
                    at.size,
                    c_int::from(at.serves),
                    prefix.as_ptr(),
                    milliseconds,
                    &mut raw,
                    err,
                    len,
                )
            }
        })?;
        Ok(ProcessGroup {
            raw,
            rank,
            size,
            turn: Mutex::new(()),
        })
    }

    /// Number of this process, from 0.
    pub fn rank(&self) -> i64 {
        self.rank
    }

    /// Number of processes.
    pub fn size(&self) -> i64 {
        self.size
    }

    /// Sums a tensor over all processes, in place: equal bits in all. The order of adding depends on the number of
    /// processes; sums of bf16 are rounded after every addition. The processes first ask each other whether they bring the
    /// same, which costs a message around: few large tensors are faster than many small ones.
    ///
    /// # Errors
    /// [`AtenError::Group`]: a tensor that is not contiguous, not on the CPU (nor on a GPU, see
    /// [`ProcessGroup::MOVES_CUDA`]), or not fp32, fp64, bf16 or i64, another number of elements or another call in another
    /// process; nothing is changed then, and the group can go on. A process that has ended or does not answer: the tensor
    /// holds anything.
    pub fn all_reduce(&self, tensor: &Tensor) -> Result<(), AtenError> {
        self.reduce(tensor, 0)
    }

    /// The largest of each value over all processes, in place.
    ///
    /// # Errors
    /// As [`ProcessGroup::all_reduce`].
    pub fn all_reduce_max(&self, tensor: &Tensor) -> Result<(), AtenError> {
        self.reduce(tensor, 1)
    }

    /// Makes a call while no other thread makes one.
    pub(crate) fn in_turn(
        &self,
        call: impl FnOnce(*mut c_char, usize) -> c_int,
    ) -> Result<(), AtenError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        explained(0, call)
    }

    fn reduce(&self, tensor: &Tensor, max: c_int) -> Result<(), AtenError> {
        let raw = raw(tensor);
        // SAFETY: a live group and a live `at::Tensor*`; the shim catches exceptions.
        self.in_turn(|err, len| unsafe { deepsim_group_all_reduce(self.raw, raw, max, err, len) })
    }

    /// Gives all processes the tensor of `root`, in place.
    ///
    /// # Errors
    /// As [`ProcessGroup::all_reduce`]; a `root` that is no rank.
    pub fn broadcast(&self, tensor: &Tensor, root: i64) -> Result<(), AtenError> {
        if !(0..self.size).contains(&root) {
            return refused(format!(
                "root {root}: it must be a rank, from 0 and below {}",
                self.size
            ));
        }
        let raw = raw(tensor);
        // SAFETY: a live group and a live `at::Tensor*`; the shim catches exceptions.
        self.in_turn(|err, len| unsafe { deepsim_group_broadcast(self.raw, raw, root, err, len) })
    }

    /// The tensors of all processes, of the same shape `[…]` everywhere, in the order of their ranks: `[size,…]`.
    ///
    /// # Errors
    /// As [`ProcessGroup::all_reduce`].
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Tensor, AtenError> {
        let (raw, mut out) = (raw(tensor), std::ptr::null_mut());
        // SAFETY: a live group and a live `at::Tensor*`; the shim catches exceptions.
        self.in_turn(|err, len| unsafe {
            deepsim_group_all_gather(self.raw, raw, &mut out, err, len)
        })?;
        // SAFETY: the call succeeded: a new `at::Tensor*` that nobody else owns.
        Ok(unsafe { Tensor::from_ptr(out.cast()) })
    }

    /// Waits until all processes have come here.
    ///
    /// # Errors
    /// [`AtenError::Group`]: a process that has ended or does not answer.
    pub fn barrier(&self) -> Result<(), AtenError> {
        // SAFETY: a live group; the shim catches exceptions.
        self.in_turn(|err, len| unsafe { deepsim_group_barrier(self.raw, err, len) })
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // SAFETY: the group was made by `join` and is freed once.
        unsafe { deepsim_group_leave(self.raw) }
    }
}

pub(crate) fn raw(tensor: &Tensor) -> *mut c_void {
    tensor.as_ptr().cast::<c_void>().cast_mut()
}

fn refused<T>(text: String) -> Result<T, AtenError> {
    Err(GroupError::Refused(text).into())
}

/// Runs a call that returns the reason of its failure; the numbers are those of `Why` in csrc/group/failure.h.
pub(crate) fn explained(
    port: u16,
    call: impl FnOnce(*mut c_char, usize) -> c_int,
) -> Result<(), AtenError> {
    let error = match numbered(call) {
        Ok(()) => return Ok(()),
        Err((2, _)) => GroupError::PortInUse(port),
        Err((3, text)) => GroupError::Unreachable(text),
        Err((4, text)) => GroupError::Missing(text.replace(',', ", ")),
        Err((5, text)) => GroupError::Disagree(text),
        Err((6, text)) => GroupError::Gone(text),
        Err((7, text)) => GroupError::Late(text),
        Err((8, text)) => GroupError::Tensor(text),
        Err((_, text)) => GroupError::Other(text),
    };
    Err(error.into())
}

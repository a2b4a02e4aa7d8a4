//! Work that a GPU does again and again on the same tensors: recorded once, and launched as one (CUDA graphs).
//!
//! A recording has the addresses of all tensors that it reads and writes. What is new in each run is copied into tensors
//! that stay where they are; what a run finds is read from such tensors.

use std::marker::PhantomData;

use tch::Device;

use crate::AtenError;

/// Whether this build records the work of GPUs.
pub const RECORDS_CUDA: bool = cfg!(feature = "cuda");

/// Records work on one device.
///
/// On a GPU it gives this thread a stream of its own until it is dropped, because the default stream records nothing. There
/// is one at a time in a thread.
#[derive(Debug)]
pub struct Recorder {
    /// None on the CPU.
    stream: Option<gpu::Stream>,
    // The current stream is state of one thread.
    not_send: PhantomData<*const ()>,
}

/// What was recorded.
#[derive(Debug)]
pub struct Recording {
    /// None on the CPU.
    graph: Option<gpu::Graph>,
    not_send: PhantomData<*const ()>,
}

impl Recorder {
    /// For work on `device`.
    ///
    /// # Errors
    /// A GPU, where this build records no work of GPUs or the GPU is not there.
    pub fn new(device: Device) -> Result<Recorder, AtenError> {
        let stream = match device {
            Device::Cuda(index) => Some(gpu::Stream::open(index)?),
            _ => None,
        };
        Ok(Recorder {
            stream,
            not_send: PhantomData,
        })
    }

    /// Records what `body` asks of the GPU. **Nothing is done yet**: until it is replayed, what `body` has computed is not
    /// there. What `body` does by itself on the host is done now. On the CPU nothing is recorded, and `body` does not run.
    ///
    /// `body` must have run before: libraries try algorithms and get memory in a first run. It must not wait for the GPU
    /// (no value read, no copy from memory that is not pinned), and draw nothing.
    ///
    /// # Errors
    /// That of `body`, and what cannot be recorded. The tensors are as they were.
    pub fn record<E: From<AtenError>>(
        &self,
        body: impl FnOnce() -> Result<(), E>,
    ) -> Result<Recording, E> {
        let graph = match &self.stream {
            None => None,
            Some(stream) => {
                let begun = stream.begin()?;
                // Dropped without an end, also when `body` panics, it is given up.
                body()?;
                Some(begun.end()?)
            }
        };
        Ok(Recording {
            graph,
            not_send: PhantomData,
        })
    }
}

impl Recording {
    /// Does what was recorded, on the same tensors. `body` is what was recorded: on the CPU it runs again. On a GPU it does
    /// not, and what it does on the host is left to the caller.
    ///
    /// # Errors
    /// That of `body`; a GPU that fails.
    pub fn replay<E: From<AtenError>>(
        &self,
        body: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        match &self.graph {
            None => body(),
            Some(graph) => Ok(graph.replay()?),
        }
    }
}

#[cfg(feature = "cuda")]
mod gpu {
    use std::ffi::{c_char, c_int, c_void};
    use std::ptr::null_mut;

    use crate::{AtenError, checked};

    unsafe extern "C" {
        fn deepsim_stream_open(
            index: i64,
            out: *mut *mut c_void,
            err: *mut c_char,
            len: usize,
        ) -> c_int;
        fn deepsim_stream_close(stream: *mut c_void);
        fn deepsim_graph_begin(
            stream: *mut c_void,
            out: *mut *mut c_void,
            err: *mut c_char,
            len: usize,
        ) -> c_int;
        fn deepsim_graph_end(graph: *mut c_void, err: *mut c_char, len: usize) -> c_int;
        fn deepsim_graph_abandon(graph: *mut c_void);
        fn deepsim_graph_replay(graph: *mut c_void, err: *mut c_char, len: usize) -> c_int;
        fn deepsim_graph_drop(graph: *mut c_void);
    }

    /// A stream of this thread's own.
    #[derive(Debug)]
    pub(super) struct Stream(*mut c_void);

    /// A recording that has not ended.
    #[derive(Debug)]
    pub(super) struct Begun(*mut c_void);

    /// A recording.
    #[derive(Debug)]
    pub(super) struct Graph(*mut c_void);

    impl Stream {
        pub(super) fn open(index: usize) -> Result<Stream, AtenError> {
            let index = i64::try_from(index).unwrap_or(i64::MAX);
            let mut out = null_mut();
            // SAFETY: an integer and a place for a pointer; the shim catches exceptions.
            checked(|err, len| unsafe { deepsim_stream_open(index, &mut out, err, len) })?;
            Ok(Stream(out))
        }

        pub(super) fn begin(&self) -> Result<Begun, AtenError> {
            let mut out = null_mut();
            // SAFETY: a stream that `open` gave and nobody has closed; the shim catches exceptions.
            checked(|err, len| unsafe { deepsim_graph_begin(self.0, &mut out, err, len) })?;
            Ok(Begun(out))
        }
    }

    impl Drop for Stream {
        fn drop(&mut self) {
            // SAFETY: as in `begin`; the shim catches exceptions.
            unsafe { deepsim_stream_close(self.0) };
        }
    }

    impl Begun {
        pub(super) fn end(mut self) -> Result<Graph, AtenError> {
            // SAFETY: a graph that `begin` gave and that has not ended; the shim catches exceptions.
            checked(|err, len| unsafe { deepsim_graph_end(self.0, err, len) })?;
            Ok(Graph(std::mem::replace(&mut self.0, null_mut())))
        }
    }

    impl Drop for Begun {
        fn drop(&mut self) {
            if !self.0.is_null() {
                // SAFETY: as in `end`. Its stream is still open, since `record` borrows it.
                unsafe { deepsim_graph_abandon(self.0) };
            }
        }
    }

    impl Graph {
        pub(super) fn replay(&self) -> Result<(), AtenError> {
            // SAFETY: a graph that has ended; the shim catches exceptions.
            checked(|err, len| unsafe { deepsim_graph_replay(self.0, err, len) })
        }
    }

    impl Drop for Graph {
        fn drop(&mut self) {
            // SAFETY: as in `replay`, and nobody else has it.
            unsafe { deepsim_graph_drop(self.0) };
        }
    }
}

/// There is no stream and no graph in this build.
#[cfg(not(feature = "cuda"))]
mod gpu {
    use crate::AtenError;

    #[derive(Debug)]
    pub(super) enum Stream {}
    #[derive(Debug)]
    pub(super) enum Begun {}
    #[derive(Debug)]
    pub(super) enum Graph {}

    impl Stream {
        pub(super) fn open(_index: usize) -> Result<Stream, AtenError> {
            Err(AtenError::NoGraphs)
        }

        pub(super) fn begin(&self) -> Result<Begun, AtenError> {
            match *self {}
        }
    }

    impl Begun {
        pub(super) fn end(self) -> Result<Graph, AtenError> {
            match self {}
        }
    }

    impl Graph {
        pub(super) fn replay(&self) -> Result<(), AtenError> {
            match *self {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_cpu_a_recording_runs_again_and_not_before() {
        let recorder = Recorder::new(Device::Cpu).unwrap();
        let runs = std::cell::Cell::new(0);
        let body = || {
            runs.set(runs.get() + 1);
            Ok::<(), AtenError>(())
        };
        let recording = recorder.record(body).unwrap();
        assert_eq!(runs.get(), 0);
        recording.replay(body).unwrap();
        recording.replay(body).unwrap();
        assert_eq!(runs.get(), 2);
        let failed = recording.replay(|| Err(AtenError::NoGraphs));
        assert!(failed.is_err());
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn without_the_feature_a_gpu_is_refused_by_its_name() {
        let error = Recorder::new(Device::Cuda(0)).unwrap_err().to_string();
        assert!(error.contains("--features cuda"), "{error}");
    }
}

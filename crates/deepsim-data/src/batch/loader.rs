//! Batches ahead of their use: a thread that prefetches, in step order.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ndarray::Array4;

use crate::batch::{Batch, BatchSpec, Found, Order, fill, pick_strictly, shaped};
use crate::dataset::Dataset;
use crate::error::DataError;

/// Batches that wait, finished, for the training loop.
const DEPTH: usize = 2;

/// What the loader does about an image that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadImages {
    /// The batch fails with an error that names the image.
    Fail,
    /// The image's place is taken by the next usable image of the dataset (index + 1, …),
    /// under the same draws; the batches stay a pure function of step and dataset.
    Quarantine {
        /// Most distinct images that may be left out; one more fails.
        budget: usize,
    },
}

struct Prefetched {
    batch: Batch,
    newly_bad: Vec<(usize, String)>,
}

/// Training batches from a background thread. It works two batches ahead, decodes and crops on
/// rayon's threads, and writes into slabs that come back through [`Loader::recycle`]. The
/// batches are those of [`training_batch`](crate::training_batch), whatever the timing.
pub struct Loader {
    finished: Option<Receiver<Result<Prefetched, DataError>>>,
    recycled: Sender<Vec<u8>>,
    thread: Option<JoinHandle<()>>,
    quarantined: BTreeMap<usize, String>,
}

impl Loader {
    /// Starts prefetching at `first_step`, with the images that were left out before it.
    ///
    /// # Errors
    /// Those of [`BatchSpec::check`], among them [`DataError::TooFewImages`];
    /// [`DataError::Threads`].
    pub fn new(
        data: Arc<Dataset>,
        spec: BatchSpec,
        first_step: u64,
        bad: BadImages,
        left_out: &BTreeSet<usize>,
    ) -> Result<Self, DataError> {
        let all = 0..spec.batch_size;
        Loader::of_share(data, spec, all, first_step, bad, left_out)
    }

    /// As [`Loader::new`], but of each batch only the images at the places `share`: no others are read.
    ///
    /// # Errors
    /// As [`Loader::new`], and a share that is no part of a batch.
    pub fn of_share(
        data: Arc<Dataset>,
        spec: BatchSpec,
        share: Range<usize>,
        first_step: u64,
        bad: BadImages,
        left_out: &BTreeSet<usize>,
    ) -> Result<Self, DataError> {
        spec.check(&data)?;
        if share.start > share.end || share.end > spec.batch_size {
            return Err(DataError::Share {
                share,
                batch_size: spec.batch_size,
            });
        }
        let known: BTreeMap<usize, String> = left_out
            .iter()
            .filter(|index| **index < data.len())
            .filter_map(|index| Some((*index, data.pixels(*index).err()?.to_string())))
            .collect();
        let (sender, finished) = sync_channel(DEPTH);
        let (recycled, slabs) = channel();
        let work = Work {
            data,
            spec,
            share,
            policy: bad,
            order: Order::default(),
            slabs,
            bad: known.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("deepsim-data loader".into())
            .spawn(move || work.run(first_step, &sender))
            .map_err(|error| DataError::Threads {
                reason: error.to_string(),
            })?;
        Ok(Self {
            finished: Some(finished),
            recycled,
            thread: Some(thread),
            quarantined: known,
        })
    }

    /// The next batch: steps `first_step`, `first_step + 1`, …
    ///
    /// # Errors
    /// [`DataError::BadImage`] or [`DataError::BadSample`] under [`BadImages::Fail`],
    /// [`DataError::CorruptImages`] when the quarantine is full, reading errors of the disk.
    /// After an error the loader has stopped: [`DataError::LoaderStopped`] from then on.
    pub fn next_batch(&mut self) -> Result<Batch, DataError> {
        let received = self
            .finished
            .as_ref()
            .and_then(|finished| finished.recv().ok());
        let prefetched = received.ok_or(DataError::LoaderStopped)??;
        self.quarantined.extend(prefetched.newly_bad);
        Ok(prefetched.batch)
    }

    /// As [`Loader::next_batch`], but waits no longer than `patience`: none where the batch is not there by then (a
    /// disk that does not answer, say).
    ///
    /// # Errors
    /// As [`Loader::next_batch`].
    pub fn next_batch_within(&mut self, patience: Duration) -> Result<Option<Batch>, DataError> {
        let Some(finished) = &self.finished else {
            return Err(DataError::LoaderStopped);
        };
        let prefetched = match finished.recv_timeout(patience) {
            Ok(prefetched) => prefetched?,
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => return Err(DataError::LoaderStopped),
        };
        self.quarantined.extend(prefetched.newly_bad);
        Ok(Some(prefetched.batch))
    }

    /// Gives a used batch's memory back; the next batches are written into it.
    pub fn recycle(&mut self, batch: Batch) {
        let (slab, _) = batch.images.into_raw_vec_and_offset();
        // the thread may have stopped: then the memory is simply freed
        let _ = self.recycled.send(slab);
    }

    /// The images left out of the batches given so far, by index, each with the reason.
    #[must_use]
    pub fn quarantined(&self) -> &BTreeMap<usize, String> {
        &self.quarantined
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // without a receiver the thread's next send fails and it ends
        drop(self.finished.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    data: Arc<Dataset>,
    spec: BatchSpec,
    share: Range<usize>,
    policy: BadImages,
    order: Order,
    slabs: Receiver<Vec<u8>>,
    bad: BTreeMap<usize, String>,
}

impl Work {
    fn run(mut self, first_step: u64, sender: &SyncSender<Result<Prefetched, DataError>>) {
        for step in first_step.. {
            let result = self.batch(step);
            let failed = result.is_err();
            if sender.send(result).is_err() || failed {
                return;
            }
        }
    }

    fn batch(&mut self, step: u64) -> Result<Prefetched, DataError> {
        let side = self.spec.augment.crop as usize;
        let bytes = self.share.len() * 3 * side * side;
        let mut slab = self.slabs.try_recv().unwrap_or_default();
        slab.resize(bytes, 0);

        // Whose order and draws are those of the whole batch.
        let slots = self.order.slots(&self.spec, self.data.len(), step);
        let slots = &slots[self.share.clone()];
        let (data, known, policy) = (&self.data, &self.bad, self.policy);
        let found = fill(data, &self.spec, slots, &mut slab, |index| match policy {
            BadImages::Fail => pick_strictly(data, index),
            BadImages::Quarantine { budget } => pick_usable(data, known, index, budget),
        })?;

        let mut indices = Vec::with_capacity(found.len());
        let mut newly_bad = Vec::new();
        for found in found {
            indices.push(found.index);
            for (index, error) in found.bad {
                if let Entry::Vacant(place) = self.bad.entry(index) {
                    newly_bad.push((index, place.insert(error.to_string()).clone()));
                }
            }
        }
        match self.policy {
            BadImages::Quarantine { budget } if self.bad.len() > budget => {
                Err(DataError::CorruptImages {
                    images: self.bad.values().cloned().collect(),
                    budget,
                })
            }
            _ => {
                let images: Array4<u8> = shaped(slab, self.spec.augment.crop)?;
                Ok(Prefetched {
                    batch: Batch {
                        step,
                        images,
                        indices,
                    },
                    newly_bad,
                })
            }
        }
    }
}

/// Walks on from a bad image to the next usable one. `known` images are bad already.
fn pick_usable(
    data: &Dataset,
    known: &BTreeMap<usize, String>,
    first: usize,
    budget: usize,
) -> Result<Found, DataError> {
    let mut bad = Vec::new();
    for step in 0..data.len() {
        let index = (first + step) % data.len();
        if known.contains_key(&index) {
            continue;
        }
        match data.pixels(index) {
            Ok(pixels) => return Ok(Found { index, pixels, bad }),
            Err(error) if error.is_bad_image() => bad.push((index, error)),
            Err(error) => return Err(error),
        }
        if bad.len() > budget {
            break;
        }
    }
    let found = bad.iter().map(|(_, error)| error.to_string());
    let images = known.values().cloned().chain(found).collect();
    Err(DataError::CorruptImages { images, budget })
}

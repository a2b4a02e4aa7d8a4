//! What an HDF5 file may make its reader do. `hdf5-reader` bounds an object's header, a chunk and a read, not what a
//! group lists or what a filter between two others grows to: one name, or one stream, can be used many thousand times.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::read::ZlibDecoder;
use hdf5_reader::error::{Error, Result};
use hdf5_reader::filters::fletcher32::verify_and_strip;
use hdf5_reader::filters::shuffle::unshuffle;
use hdf5_reader::filters::{
    FILTER_DEFLATE, FILTER_FLETCHER32, FILTER_NBIT, FILTER_SCALEOFFSET, FILTER_SHUFFLE, FILTER_SZIP,
};
use hdf5_reader::{FilterRegistry, Storage, StorageBuffer};

use super::array::MAX_VALUES;

/// Bytes of the values, of one chunk, and of what one filter gives.
pub(super) const MAX_READ: usize = MAX_VALUES * 8;
/// Bytes that are read, and that filters give, before the values: a dozen of variables take a few KiB.
const MAX_METADATA: usize = 128 << 10;
/// Bytes of one of these reads: a list of names, a header.
pub(super) const MAX_RANGE: usize = 16 << 10;
/// Filters that one chunk may pass; people use two or three.
pub(super) const FILTERS: usize = 8;

/// A file's bytes, and how many of them may still be read. Bytes count as often as they are read.
pub(super) struct Metered {
    bytes: Arc<[u8]>,
    /// In one read.
    most: AtomicUsize,
    /// In all reads.
    left: AtomicUsize,
    /// What filters may still give.
    grows: AtomicUsize,
}

impl Metered {
    /// For headers and groups.
    pub fn new(bytes: &[u8]) -> Metered {
        Metered {
            bytes: bytes.into(),
            most: AtomicUsize::new(MAX_RANGE),
            left: AtomicUsize::new(MAX_METADATA),
            grows: AtomicUsize::new(MAX_METADATA),
        }
    }

    /// For the values from now on: the file twice (its index of chunks and the chunks), and what filters give.
    pub fn values_follow(&self, grows: usize) {
        let all = self.bytes.len();
        self.most.store(all, Ordering::Relaxed);
        let twice = all.saturating_mul(2).saturating_add(1 << 20);
        self.left.store(twice, Ordering::Relaxed);
        self.grows.store(grows, Ordering::Relaxed);
    }
}

/// The reader has one thread, so that nothing comes between the two steps.
fn spend(left: &AtomicUsize, bytes: usize) -> Result<()> {
    let rest = left.load(Ordering::Relaxed).checked_sub(bytes);
    let rest = rest.ok_or_else(|| limit("it makes its reader go through more than it holds"))?;
    left.store(rest, Ordering::Relaxed);
    Ok(())
}

fn limit(what: &str) -> Error {
    Error::ResourceLimit(what.to_owned())
}

impl Storage for Metered {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_range(&self, offset: u64, len: usize) -> Result<StorageBuffer> {
        if len > self.most.load(Ordering::Relaxed) {
            return Err(limit("one of its parts is larger than any file needs"));
        }
        spend(&self.left, len)?;
        let at = usize::try_from(offset).map_err(|_| Error::OffsetOutOfBounds(offset))?;
        StorageBuffer::from_shared(self.bytes.clone(), at, len)
    }
}

/// DEFLATE, shuffle and Fletcher's sum, which MATLAB, hdf5storage and h5py write. The crate has others, which it does
/// not bound where one follows another.
pub(super) fn filters(metered: &Arc<Metered>) -> FilterRegistry {
    let mut filters = FilterRegistry::new();
    let meter = metered.clone();
    filters.register(
        FILTER_DEFLATE,
        Box::new(move |_, data, _| inflated(data, &meter.grows)),
    );
    let meter = metered.clone();
    filters.register(
        FILTER_SHUFFLE,
        Box::new(move |_, data, size| {
            spend(&meter.grows, data.len())?;
            Ok(unshuffle(data, size))
        }),
    );
    let meter = metered.clone();
    filters.register(
        FILTER_FLETCHER32,
        Box::new(move |_, data, _| {
            spend(&meter.grows, data.len())?;
            verify_and_strip(data)
        }),
    );
    for (id, name) in [
        (FILTER_SZIP, "SZIP"),
        (FILTER_NBIT, "N-bit"),
        (FILTER_SCALEOFFSET, "scale-offset"),
    ] {
        filters.register(
            id,
            Box::new(move |_, _, _| Err(Error::UnsupportedFilter(name.to_owned()))),
        );
    }
    filters
}

fn inflated(data: &[u8], left: &AtomicUsize) -> Result<Vec<u8>> {
    let most = left.load(Ordering::Relaxed).min(MAX_READ);
    let mut bytes = Vec::new();
    ZlibDecoder::new(data)
        .take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::DecompressionError(e.to_string()))?;
    if bytes.len() > most {
        return Err(limit("its compressed data grow beyond its chunks"));
    }
    spend(left, bytes.len())?;
    Ok(bytes)
}

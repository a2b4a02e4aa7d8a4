//! References that do not fit into memory, and what a search of them costs.

use std::io::{self, Read};
use std::sync::mpsc;
use std::thread;

use super::Settings;
use super::error::{Result, SearchError};

/// Rows of little-endian f32 values read block by block from anything that can be read: a raw
/// file, a NumPy file, the bytes of a safetensors tensor.
#[derive(Debug)]
pub struct RowReader<R> {
    source: R,
    dim: usize,
    rows: usize,
    bytes: Vec<u8>,
    done: bool,
}

impl<R: Read> RowReader<R> {
    /// Reads raw rows of `dim` values, `rows` at a time.
    pub fn raw(source: R, dim: usize, rows: usize) -> RowReader<R> {
        RowReader {
            source,
            dim,
            rows,
            bytes: Vec::new(),
            done: false,
        }
    }

    /// Reads a `.npy` file of little-endian f32 in C order, `[N,...]`, `rows` rows at a time; the
    /// further axes make up a row.
    ///
    /// # Errors
    /// A file of another format, type, order or without rows, or one that cannot be read.
    pub fn npy(mut source: R, rows: usize) -> Result<RowReader<R>> {
        let dim = npy_row(&mut source)?;
        Ok(RowReader::raw(source, dim, rows))
    }

    /// Values of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    fn block(&mut self) -> Result<Option<Vec<f32>>> {
        let row = self.dim.saturating_mul(size_of::<f32>());
        let wanted = row.saturating_mul(self.rows);
        if wanted == 0 {
            return Err(SearchError::Settings(
                "blocks of rows must hold at least one value".to_owned(),
            ));
        }
        self.bytes.resize(wanted, 0);
        let mut filled = 0;
        while filled < wanted {
            match self.source.read(&mut self.bytes[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(SearchError::Rows(e)),
            }
        }
        let bytes = &self.bytes[..filled];
        if bytes.is_empty() {
            return Ok(None);
        }
        if !bytes.len().is_multiple_of(row) {
            return Err(SearchError::Rows(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the last row is cut short",
            )));
        }
        // In this thread alone: rayon's may all be waiting for this very block, and beside a
        // search that reads one block ahead there is nothing to gain.
        let value = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        Ok(Some(bytes.chunks_exact(4).map(value).collect()))
    }
}

impl<R: Read> Iterator for RowReader<R> {
    type Item = Result<Vec<f32>>;

    /// The next block: `rows` rows, or what is left. Nothing follows an error.
    fn next(&mut self) -> Option<Result<Vec<f32>>> {
        if self.done {
            return None;
        }
        let block = self.block().transpose();
        self.done = !matches!(block, Some(Ok(_)));
        block
    }
}

/// Takes blocks one after the other while a thread of its own fetches the next one. Ends with the
/// first error, of a block or of `take`; the thread then fetches no further block, but the one it
/// is at is waited for.
pub(super) fn ahead<I>(blocks: I, mut take: impl FnMut(Vec<f32>) -> Result<()>) -> Result<()>
where
    I: IntoIterator<Item = Result<Vec<f32>>> + Send,
{
    thread::scope(|scope| {
        // No room in the channel: one block is searched, one waits, none pile up.
        let (send, receive) = mpsc::sync_channel(0);
        let fetch = move || {
            for block in blocks {
                let last = block.is_err();
                // Nobody receives after an error of `take`.
                if send.send(block).is_err() || last {
                    break;
                }
            }
        };
        let fetching = thread::Builder::new()
            .name("blocks of rows".to_owned())
            .spawn_scoped(scope, fetch)
            .map_err(SearchError::Rows)?;
        // By value: the receiver is gone, and the thread free to end, when this is over.
        let taken = receive.into_iter().try_for_each(|block| take(block?));
        match fetching.join() {
            Ok(()) => taken,
            // What the caller's iterator panics with stays the caller's.
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Reads the head of a `.npy` file: the values of a row.
fn npy_row(source: &mut impl Read) -> Result<usize> {
    let mut fixed = [0u8; 10];
    source.read_exact(&mut fixed).map_err(SearchError::Rows)?;
    let bad = |why: String| SearchError::Rows(io::Error::new(io::ErrorKind::InvalidData, why));
    if !fixed.starts_with(b"\x93NUMPY") {
        return Err(bad("not a NumPy file".to_owned()));
    }
    // Version 1 has two bytes of length, later ones four.
    let length = if fixed[6] == 1 {
        usize::from(u16::from_le_bytes([fixed[8], fixed[9]]))
    } else {
        let mut high = [0u8; 2];
        source.read_exact(&mut high).map_err(SearchError::Rows)?;
        u32::from_le_bytes([fixed[8], fixed[9], high[0], high[1]]) as usize
    };
    let mut head = Vec::new();
    let mut limited = source.take(length as u64);
    limited.read_to_end(&mut head).map_err(SearchError::Rows)?;
    let head = String::from_utf8_lossy(&head).into_owned();
    let plain = head.replace(' ', "");
    if !plain.contains("'descr':'<f4'") || !plain.contains("'fortran_order':False") {
        return Err(bad(format!(
            "not an array of little-endian f32 in C order: {}",
            head.trim()
        )));
    }
    let shape: Option<Vec<usize>> = plain
        .split_once("'shape':(")
        .and_then(|(_, rest)| rest.split_once(')'))
        .and_then(|(shape, _)| {
            let axes = shape.split(',').filter(|axis| !axis.is_empty());
            axes.map(|axis| axis.parse().ok()).collect()
        });
    match shape.as_deref() {
        Some([_, axes @ ..]) if !axes.is_empty() && !axes.contains(&0) => Ok(axes.iter().product()),
        _ => Err(bad(format!("not an array of rows: {}", head.trim()))),
    }
}

/// What a machine was measured to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Multiplications and additions per second of a whole search with coded references
    /// (2·queries·references·dim over its seconds).
    pub operations: f64,
    /// Values of references coded per second.
    pub coded: f64,
    /// Bytes per second at which references are read.
    pub read: f64,
}

/// What a search of references that pass by is expected to cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Bytes of references that are read.
    pub bytes: u64,
    /// Bytes of memory: two blocks of references, the bytes of one and the codes of one, what
    /// coding a tile needs meanwhile, products, and the queries with their codes. Pairs that wait
    /// to be measured come on top, few where queries are certified.
    pub memory: u64,
    /// Seconds to read the references.
    pub read: f64,
    /// Seconds to code them.
    pub coding: f64,
    /// Seconds to search them.
    pub search: f64,
}

impl Estimate {
    /// Seconds of all three: [`super::Searcher::add_all`] reads the next block meanwhile.
    pub fn seconds(&self) -> f64 {
        self.read.max(self.coding + self.search)
    }
}

/// Scales measured rates to `references` rows of `dim` values that pass by `queries` in blocks of
/// `block` rows.
pub fn estimate(
    references: u64,
    dim: u64,
    queries: u64,
    block: u64,
    rates: &Rates,
    settings: &Settings,
) -> Estimate {
    let values = references * dim;
    let tile = (settings.tile as u64).min(block);
    let products = tile * (settings.queries as u64).min(queries);
    Estimate {
        bytes: 4 * values,
        memory: 16 * block * dim + 8 * tile * dim + 12 * queries * dim + 6 * products,
        read: 4.0 * values as f64 / rates.read,
        coding: values as f64 / rates.coded,
        search: 2.0 * values as f64 * queries as f64 / rates.operations,
    }
}

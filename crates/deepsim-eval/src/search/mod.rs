//! Exact nearest neighbours by squared Euclidean distance.
//!
//! "Exact" is meant literally: the result is that of [`squared_distance`] (fp64, a fixed order of
//! summation) over every pair, equal distances by the lower index, whatever the machine, the
//! number of threads, the size of blocks, and the arithmetic in which candidates were looked for.
//!
//! Most of the work is one matrix product in few bits ([`Candidates`]). Together with the measured
//! length of what the few bits leave out of each row, a product bounds the pair's distance from
//! below; pairs whose bound is beyond the k-th smallest distance found so far are dropped, all
//! others are measured in fp64. A query for which too many are left is *widened*: looked up again
//! in fp32, with fp32's own bound. [`Stats`] counts how each query was decided.
//!
//! References may be kept as an [`Index`], or pass by block by block ([`Searcher`], [`RowReader`])
//! where they do not fit into memory.
//!
//! ```
//! use deepsim_eval::search::{Index, Settings};
//!
//! let references = [0.0, 0.0, 3.0, 4.0, 1.0, 0.0f32]; // three rows of two
//! let index = Index::build(&references, 2, &Settings::default())?;
//! let found = index.search(&[0.9, 0.0f32], 2)?;
//! assert_eq!(found.indices(0), [2, 0]);
//! # Ok::<(), deepsim_eval::search::SearchError>(())
//! ```

mod bounds;
mod code;
mod error;
mod exact;
mod machine;
mod pair;
mod query;
mod rotation;
mod round;
mod scan;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tch::{Kind, Tensor};

pub use exact::squared_distance;
pub use machine::Candidates;
pub use stream::{Estimate, Rates, RowReader, estimate};

use deepsim_nets::NetError;

use code::Space;
use error::Result;
pub use error::SearchError;
use exact::{Best, Rows};
use query::{Block, Search, State, Tier};
use scan::{Queries, Tile};

/// How a search is done; no setting changes what it finds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Arithmetic of the candidates.
    pub candidates: Candidates,
    /// References of one matrix product. A buffer of `tile` × `queries` products is kept.
    pub tile: usize,
    /// Queries of one matrix product.
    pub queries: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            candidates: Candidates::Auto,
            tile: 4096,
            queries: 1024,
        }
    }
}

/// How queries were decided. Every one of them is exact; the counts say what that cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Arithmetic of the candidates: never `Auto` once something was searched.
    pub candidates: Candidates,
    /// Queries for which the candidates' bounds ruled out all but a few pairs.
    pub certified: u64,
    /// Queries that were looked up again in fp32.
    pub widened: u64,
    /// Queries for which fp32 ruled out little either: nearly every pair was measured.
    pub measured: u64,
    /// Pairs measured in fp64, of all queries together.
    pub pairs: u64,
}

impl std::fmt::Display for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let queries = self.certified + self.widened + self.measured;
        write!(
            f,
            "{queries} queries: {} certified by {}, {} widened to fp32, {} measured against nearly \
             everything; {} pairs measured",
            self.certified, self.candidates, self.widened, self.measured, self.pairs
        )
    }
}

/// What a search found: for each query its nearest references, nearest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbors {
    k: usize,
    indices: Vec<u64>,
    squared: Vec<f64>,
    /// How queries were decided.
    pub stats: Stats,
}

impl Neighbors {
    /// Neighbours of each query: what was asked for, or all references where there are fewer.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of queries.
    pub fn len(&self) -> usize {
        self.indices.len().checked_div(self.k).unwrap_or(0)
    }

    /// Whether there were no queries.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// References nearest to a query (in the order in which they were given, from 0): `k` of
    /// them, nearest first, equally near ones by index. None for a query that does not exist.
    pub fn indices(&self, query: usize) -> &[u64] {
        self.indices.chunks(self.k.max(1)).nth(query).unwrap_or(&[])
    }

    /// Their squared distances.
    pub fn squared(&self, query: usize) -> &[f64] {
        self.squared.chunks(self.k.max(1)).nth(query).unwrap_or(&[])
    }
}

/// References with their codes, to be searched many times.
#[derive(Debug)]
pub struct Index<'a> {
    rows: Rows<'a>,
    space: Arc<Space>,
    tiles: Vec<Tile>,
    settings: Settings,
}

impl<'a> Index<'a> {
    /// Codes `references`, `[N,dim]` row by row. They are kept by reference and read again when
    /// pairs are measured; the codes take one more byte for each value (two in bf16, four in fp32).
    ///
    /// # Errors
    /// No references, a length that is no multiple of `dim`, or a row with NaN or infinity.
    pub fn build(references: &'a [f32], dim: usize, settings: &Settings) -> Result<Index<'a>> {
        let rows = Rows::new("references", references, dim)?;
        if rows.len() == 0 {
            return Err(no_references());
        }
        let space = Arc::new(Space::around(rows, settings.candidates)?);
        Index::coded(rows, space, settings, 0)
    }

    fn coded(
        rows: Rows<'a>,
        space: Arc<Space>,
        settings: &Settings,
        base: u64,
    ) -> Result<Index<'a>> {
        let tiles = query::tiling(rows.len(), settings.tile)
            .into_iter()
            .map(|(from, to)| {
                let part = rows.part(from, to);
                let coded = space.code(part, "references", base + from as u64)?;
                Ok(Tile::new(coded, from))
            })
            .collect::<Result<_>>()?;
        Ok(Index {
            rows,
            space,
            tiles,
            settings: settings.clone(),
        })
    }

    /// Number of references.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Never: an index has references.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 0
    }

    /// The `k` nearest references of each of `queries`, `[Q,dim]` row by row; all of them where
    /// there are fewer than `k`.
    ///
    /// # Errors
    /// `k` of 0, a length that is no multiple of `dim`, or a row with NaN or infinity.
    pub fn search(&self, queries: &[f32], k: usize) -> Result<Neighbors> {
        let mut searcher = Searcher::new(queries, self.rows.dim(), k, &self.settings)?;
        searcher.enter(&self.space)?;
        searcher.pass(self)?;
        searcher.finish()
    }
}

/// Queries that references pass by, block by block: nothing of a block is kept.
#[derive(Debug)]
pub struct Searcher<'q> {
    queries: Rows<'q>,
    k: usize,
    settings: Settings,
    space: Option<Arc<Space>>,
    blocks: Vec<Queries>,
    states: Vec<State>,
    added: u64,
}

impl<'q> Searcher<'q> {
    /// For `queries`, `[Q,dim]` row by row, and the `k` nearest references of each.
    ///
    /// # Errors
    /// `k` of 0, a length that is no multiple of `dim`, or a row with NaN or infinity.
    pub fn new(
        queries: &'q [f32],
        dim: usize,
        k: usize,
        settings: &Settings,
    ) -> Result<Searcher<'q>> {
        if k == 0 || settings.queries == 0 || settings.tile == 0 {
            return Err(SearchError::Settings(
                "nearest neighbours: k and the sizes of blocks must be at least 1".to_owned(),
            ));
        }
        let queries = Rows::new("queries", queries, dim)?;
        if let Some(at) = queries.data().iter().position(|v| !v.is_finite()) {
            return Err(SearchError::NotFinite {
                what: "queries",
                row: (at / dim) as u64,
            });
        }
        Ok(Searcher {
            queries,
            k,
            settings: settings.clone(),
            space: None,
            blocks: Vec::new(),
            states: vec![State::default(); queries.len()],
            added: 0,
        })
    }

    /// Looks through the next block of references, `[n,dim]` row by row; their indices go on from
    /// the block before.
    ///
    /// # Errors
    /// A length that is no multiple of `dim`, or a row with NaN or infinity.
    pub fn add(&mut self, references: &[f32]) -> Result<()> {
        let rows = Rows::new("references", references, self.queries.dim())?;
        if rows.len() == 0 {
            return Ok(());
        }
        let space = match &self.space {
            Some(space) => space.clone(),
            None => {
                // Any centre is right; that of the first block is near that of the rest.
                let space = Arc::new(Space::around(rows, self.settings.candidates)?);
                self.enter(&space)?;
                space
            }
        };
        let index = Index::coded(rows, space, &self.settings, self.added)?;
        self.pass(&index)
    }

    /// Looks through blocks until there are none left; the next one is fetched by a thread of its
    /// own meanwhile. Nothing is fetched after an error; blocks that passed before it count.
    ///
    /// # Errors
    /// The first error of a block, what [`Searcher::add`] refuses, or no thread to be had.
    pub fn add_all<I>(&mut self, blocks: I) -> Result<()>
    where
        I: IntoIterator<Item = Result<Vec<f32>>> + Send,
    {
        stream::ahead(blocks, |block| self.add(&block))
    }

    /// What was found.
    ///
    /// # Errors
    /// No references have passed.
    pub fn finish(self) -> Result<Neighbors> {
        let Some(space) = self.space.filter(|_| self.added > 0) else {
            return Err(no_references());
        };
        let k = self
            .k
            .min(usize::try_from(self.added).unwrap_or(usize::MAX));
        let mut stats = Stats {
            candidates: space.candidates(),
            ..Stats::default()
        };
        let mut indices = Vec::with_capacity(k * self.states.len());
        let mut squared = Vec::with_capacity(k * self.states.len());
        for state in &self.states {
            match state.tier {
                Tier::Certified => stats.certified += 1,
                Tier::Widened => stats.widened += 1,
                Tier::Measured => stats.measured += 1,
            }
            stats.pairs += state.measured;
            for &(distance, index) in Best::found(&state.best) {
                indices.push(index);
                squared.push(distance);
            }
        }
        Ok(Neighbors {
            k,
            indices,
            squared,
            stats,
        })
    }

    /// Codes the queries in the references' space.
    fn enter(&mut self, space: &Arc<Space>) -> Result<()> {
        let mut blocks = Vec::new();
        let mut from = 0;
        while from < self.queries.len() {
            let to = self.queries.len().min(from + self.settings.queries);
            let coded = space.code(self.queries.part(from, to), "queries", from as u64)?;
            blocks.push(Queries::new(space, coded)?);
            from = to;
        }
        // Both or neither: whoever goes on after an error must not find half of the queries.
        (self.blocks, self.space) = (blocks, Some(space.clone()));
        Ok(())
    }

    fn pass(&mut self, index: &Index<'_>) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let block = Block {
            rows: index.rows,
            space: &index.space,
            tiles: &index.tiles,
            base: self.added,
        };
        let size = self.settings.queries;
        let parts = self.blocks.iter_mut().zip(self.states.chunks_mut(size));
        for (part, (queries, states)) in parts.enumerate() {
            let originals = (0..states.len()).map(|i| self.queries.row(part * size + i));
            let search = Search {
                k: self.k,
                originals: originals.collect(),
                block: &block,
            };
            search.run(queries, states)?;
        }
        self.added += index.len() as u64;
        Ok(())
    }
}

fn no_references() -> SearchError {
    SearchError::Settings("nearest neighbours: there are no references".to_owned())
}

/// The rows of a tensor `[N,...]` as a search takes them: f32, each flattened, and their length.
///
/// # Errors
/// A tensor without rows or columns.
pub fn rows(features: &Tensor) -> Result<(Vec<f32>, usize)> {
    let size = features.size();
    let dim: i64 = size.iter().skip(1).product();
    if size.len() < 2 || dim == 0 {
        return Err(SearchError::from(NetError::InputShape {
            what: "nearest neighbours".to_owned(),
            expected: "samples [N,...]".to_owned(),
            got: size,
        }));
    }
    let flat = features.f_detach()?.f_to_kind(Kind::Float)?;
    let flat = flat.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut data = vec![0.0f32; flat.numel()];
    flat.f_copy_data(&mut data, flat.numel())?;
    Ok((data, dim as usize))
}

//! From candidates to neighbours: every pair that the bounds leave is measured in fp64.

use rayon::prelude::*;
use tch::Tensor;

use super::code::Space;
use super::error::Result;
use super::exact::{self, Best, Rows, SLACK};
use super::pair::Pair;
use super::scan::{Queries, Tile};

/// References of the first product: nothing is known yet that could rule a pair out.
const FIRST_TILE: usize = 512;
/// Each product may take this many times what was looked at before.
const GROWTH: usize = 3;
/// Fewest pairs per query and block of references that are measured without looking for a
/// tighter bound, and the part of the block that may be. Measuring a pair costs about as much
/// as sixteen to sixty fp32 products.
const FEW: usize = 1024;
const PART: usize = 16;

/// How a query's neighbours were made sure of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    /// By the bounds of the candidates' arithmetic.
    #[default]
    Certified,
    /// Those left too many pairs: by the bounds of fp32.
    Widened,
    /// Those did too: nearly all pairs of a block were measured.
    Measured,
}

/// What is known of one query.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) best: Best,
    pub(super) tier: Tier,
    /// Pairs measured in fp64.
    pub(super) measured: u64,
    /// Pairs neither ruled out nor measured.
    pending: Vec<Pair>,
    fresh: Vec<Pair>,
    crowded: bool,
}

/// References with their codes.
pub(super) struct Block<'a> {
    pub(super) rows: Rows<'a>,
    pub(super) space: &'a Space,
    pub(super) tiles: &'a [Tile],
    /// Index of the first row among all references.
    pub(super) base: u64,
}

/// Bounds of the tiles of a block of `rows` references.
pub(super) fn tiling(rows: usize, most: usize) -> Vec<(usize, usize)> {
    let mut bounds = Vec::new();
    let mut from = 0;
    while from < rows {
        let size = (from * GROWTH).max(FIRST_TILE).min(most.max(1));
        let to = rows.min(from + size);
        bounds.push((from, to));
        from = to;
    }
    bounds
}

/// Queries and their states against one block of references.
pub(super) struct Search<'a> {
    pub(super) k: usize,
    /// The queries as they came, in the order of the states.
    pub(super) originals: Vec<&'a [f32]>,
    pub(super) block: &'a Block<'a>,
}

impl Search<'_> {
    /// Brings `states` up to date with the block: candidates first, then fp32 for queries that
    /// have too many of them.
    pub(super) fn run(&self, queries: &mut Queries, states: &mut [State]) -> Result<()> {
        let mut buffer = None;
        let n = self.block.rows.len();
        let limit = FEW.max(4 * self.k).max(n / PART);
        for tile in self.block.tiles {
            self.advance(queries, tile, states, &mut buffer)?;
            self.settle(states, limit, false);
        }
        self.settle(states, limit, true);
        let crowded: Vec<usize> = (0..states.len()).filter(|&i| states[i].crowded).collect();
        if crowded.is_empty() {
            return Ok(());
        }
        let mut wide: Vec<State> = crowded
            .iter()
            .map(|&i| std::mem::take(&mut states[i]))
            .collect();
        let done = self.widen(&crowded, &mut wide, limit);
        for (i, state) in crowded.into_iter().zip(wide) {
            states[i] = state;
        }
        done
    }

    /// The same for queries `which` in fp32, with every remaining pair measured.
    fn widen(&self, which: &[usize], states: &mut [State], limit: usize) -> Result<()> {
        let originals: Vec<&[f32]> = which.iter().map(|&i| self.originals[i]).collect();
        let space = self.block.space.in_fp32();
        let data = originals.concat();
        let rows = Rows::new("queries", &data, space.dim())?;
        let mut queries = Queries::new(&space, space.code(rows, "queries", 0)?)?;
        let search = Search {
            k: self.k,
            originals,
            block: self.block,
        };
        let before: Vec<u64> = states.iter().map(|s| s.measured).collect();
        for state in states.iter_mut() {
            state.crowded = false;
            state.tier = state.tier.max(Tier::Widened);
        }
        let mut buffer = None;
        for tile in self.block.tiles {
            let part = self.block.rows.part(tile.first, tile.first + tile.len());
            let coded = space.code(part, "references", self.block.base + tile.first as u64)?;
            let tile = Tile::new(coded, tile.first);
            search.advance(&mut queries, &tile, states, &mut buffer)?;
            // Now or never: measured tile by tile, nothing has to be remembered.
            search.settle(states, usize::MAX, true);
        }
        for (state, before) in states.iter_mut().zip(before) {
            if state.measured - before > limit as u64 {
                state.tier = Tier::Measured;
            }
        }
        Ok(())
    }

    /// Products with one tile; what they leave goes to the states as fresh pairs.
    fn advance(
        &self,
        queries: &mut Queries,
        tile: &Tile,
        states: &mut [State],
        buffer: &mut Option<Tensor>,
    ) -> Result<()> {
        for (i, state) in states.iter().enumerate() {
            let reach = state.best.reach(self.k) * (1.0 + SLACK);
            queries.aim(i, (!state.crowded).then_some(reach), tile);
        }
        for hit in queries.hits(tile, buffer)?.into_iter().flatten() {
            let state = &mut states[hit.query as usize];
            if !state.crowded {
                state.fresh.push(queries.pair(&hit, tile));
            }
        }
        Ok(())
    }

    /// Measures the most promising pairs (`all`: every one that is not ruled out meanwhile).
    fn settle(&self, states: &mut [State], limit: usize, all: bool) {
        let unit = self.block.space.unit();
        let (k, rows, base) = (self.k, self.block.rows, self.block.base);
        states
            .par_iter_mut()
            .zip(&self.originals)
            .for_each(|(state, query)| {
                let reach = |best: &Best| best.reach(k) * (1.0 + SLACK) / (unit * unit);
                let mut pending = std::mem::take(&mut state.pending);
                pending.append(&mut state.fresh);
                // A pair that is unlikely to bring the reach down may well be ruled out later.
                let promising = reach(&state.best);
                let count = if all {
                    pending.len()
                } else {
                    let promises = |p: &&Pair| f64::from(p.likely) <= promising;
                    pending.iter().filter(promises).count().min(k)
                };
                if count < pending.len() {
                    pending.select_nth_unstable_by(count, |a, b| a.likely.total_cmp(&b.likely));
                } else {
                    pending.sort_unstable_by(|a, b| a.least.total_cmp(&b.least));
                }
                let rest = pending.split_off(count);
                for pair in pending {
                    if pair.least <= reach(&state.best) {
                        let squared = exact::squared_distance(query, rows.row(pair.row as usize));
                        state.best.offer(k, squared, base + u64::from(pair.row));
                        state.measured += 1;
                    }
                }
                let reach = reach(&state.best);
                state.pending = rest;
                state.pending.retain(|pair| pair.least <= reach);
                if state.pending.len() > limit {
                    state.crowded = true;
                    state.pending = Vec::new();
                }
            });
    }
}

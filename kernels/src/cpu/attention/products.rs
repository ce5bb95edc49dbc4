//! The two products of attention, queries by keys and weights by values: the contract, and vector registers.

use super::cached::{Cached, FormatLanes, Places, Words};
use super::chunk::{Chunk, NextChunk, Scratch, score, weigh};
use super::tile::QueryTile;
use crate::cpu::gemm::pack;
use crate::cpu::lanes::{Format, Lanes};

/// A group of query rows and a chunk of keys and values.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct GroupChunk<'a> {
    pub(super) tile: &'a QueryTile<'a>,
    pub(super) chunk: &'a Chunk,
    pub(super) places: &'a Places,
    pub(super) rows: usize,
    pub(super) next: Option<NextChunk<'a>>,
}

/// The two products of attention over a cache in the format `C`.
///
/// # Safety
/// Every function needs the level's instructions; pointers of places and words must be good for the chunk.
pub(in crate::cpu) trait Products<C: Cached> {
    /// Most rows of a group, at most `GROUP_ROWS_MAX`.
    const ROWS_MAX: usize;

    /// Words of a packed row of queries.
    fn query_words(head_dim: usize) -> usize;
    unsafe fn new() -> Self;
    /// Rounds and packs the queries of a group of `count` rows.
    unsafe fn pack_queries<'a>(query: impl Fn(usize) -> &'a [f32], count: usize, words: &mut [u32]);
    /// `scores[r][i] = (query r · key i) * scale` for the positions of the chunk.
    unsafe fn score(&mut self, group: GroupChunk<'_>, queries: *const u32, keys: &Words, scratch: &mut Scratch);
    /// Fetches memory between the products, when the greatest score of row `r` is searched in a vector of positions.
    fn fetch_with_weights(group: GroupChunk<'_>, vector: usize, r: usize);
    /// The same when the weights of the vector are computed.
    fn fetch_with_sums(group: GroupChunk<'_>, vector: usize, r: usize);
    /// `values[r] = Σ weights[r][i] · value i`.
    unsafe fn weigh(&mut self, group: GroupChunk<'_>, values: &Words, scratch: &mut Scratch);
}

/// Sums in vector registers, from the first word to the last. Values are fetched while scores are computed, the keys of
/// the next chunk after that.
pub(in crate::cpu) struct InVectors;

impl<C: Cached> Products<C> for InVectors {
    const ROWS_MAX: usize = FormatLanes::<C>::ROWS_MAX;

    fn query_words(head_dim: usize) -> usize {
        head_dim / C::Format::PER_WORD
    }
    #[inline(always)]
    unsafe fn new() -> Self {
        Self
    }
    #[inline(always)]
    unsafe fn pack_queries<'a>(query: impl Fn(usize) -> &'a [f32], count: usize, words: &mut [u32]) {
        // SAFETY: the caller's promise, here and below.
        unsafe { pack::<C::Format>(query, count, words) }
    }
    #[inline(always)]
    unsafe fn score(&mut self, group: GroupChunk<'_>, queries: *const u32, keys: &Words, scratch: &mut Scratch) {
        // SAFETY: as above.
        unsafe { score::<C>(group, queries, keys, scratch) }
    }
    #[inline(always)]
    fn fetch_with_weights(group: GroupChunk<'_>, vector: usize, r: usize) {
        if let Some(next) = group.next {
            next.fetch_keys(vector, 2 * r..2 * r + 2);
        }
    }
    #[inline(always)]
    fn fetch_with_sums(_: GroupChunk<'_>, _: usize, _: usize) {}
    #[inline(always)]
    unsafe fn weigh(&mut self, group: GroupChunk<'_>, values: &Words, scratch: &mut Scratch) {
        // SAFETY: as above.
        unsafe { weigh::<C>(group, values, scratch) }
    }
}

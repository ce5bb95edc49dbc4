//! How a group of query rows meets a chunk's keys and values: the contract, and its form in vector registers.

use super::cached::{Cached, FormatLanes, Places, Words};
use super::chunk::{Chunk, NextChunk, Scratch, score, weigh};
use super::tile::QueryTile;
use crate::cpu::gemm::pack;
use crate::cpu::lanes::{Format, Lanes};

/// A group of query rows and the chunk that it meets.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct GroupChunk<'a> {
    pub(super) tile: &'a QueryTile<'a>,
    pub(super) chunk: &'a Chunk,
    pub(super) places: &'a Places,
    /// Rows of the group.
    pub(super) rows: usize,
    /// To be fetched.
    pub(super) next: Option<NextChunk<'a>>,
}

/// The two products of attention over a cache that stores as `C` says.
///
/// # Safety
/// Every function needs the level's instructions; pointers of places and words must be good for the chunk.
pub(in crate::cpu) trait Products<C: Cached> {
    /// Rows of a group: at most `GROUP_ROWS_MAX`.
    const ROWS_MAX: usize;

    /// Words that a row of queries takes when it is packed.
    fn query_words(head_dim: usize) -> usize;
    unsafe fn new() -> Self;
    /// Rounds and packs the queries of a group of `count` rows.
    unsafe fn pack_queries<'a>(query: impl Fn(usize) -> &'a [f32], count: usize, words: &mut [u32]);
    /// `scores[r][i] = (query r · key i) * scale` for the positions of the chunk.
    unsafe fn score(&mut self, group: GroupChunk<'_>, queries: *const u32, keys: &Words, scratch: &mut Scratch);
    /// Between the two, with the weights of query row `r` and a vector of positions: fetches what comes next.
    fn fetch_with_weights(group: GroupChunk<'_>, vector: usize, r: usize);
    /// A little later, the same.
    fn fetch_with_sums(group: GroupChunk<'_>, vector: usize, r: usize);
    /// `values[r] = Σ weights[r][i] · value i`.
    unsafe fn weigh(&mut self, group: GroupChunk<'_>, values: &Words, scratch: &mut Scratch);
}

/// Sums in vector registers, from the first word to the last. Values are fetched while scores are computed, the keys of the
/// next chunk in the time from there to the end.
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

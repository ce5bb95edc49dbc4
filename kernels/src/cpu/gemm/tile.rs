//! Register tile: a few rows of the left side against 16 or 32 columns of the right, in the fixed order.

use std::mem::MaybeUninit;

use crate::cpu::lanes::{ChunkFormat, Lanes};
use crate::numerics::LANES;

/// Columns of a packed block.
pub(in crate::cpu) const BLOCK_COLUMNS: usize = 32;
/// Rows of the largest tile of any level.
pub(in crate::cpu) const TILE_ROWS_MAX: usize = 12;
/// Sums of one tile, `[row][column]`.
pub(in crate::cpu) type Sums = [[f32; BLOCK_COLUMNS]; TILE_ROWS_MAX];
/// Words between the multiplications and the fetches of the right side, when a task has one group.
const AHEAD_WORDS: usize = 2048;

/// Memory to fetch for word `p` of a tile: the lines at both `starts`, `p * step` words on.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Ahead {
    pub(in crate::cpu) starts: [*const u32; 2],
    pub(in crate::cpu) step: usize,
}

impl Ahead {
    /// The same block, further on.
    fn of_this_block(block: *const u32) -> Self {
        let start = block.wrapping_add(AHEAD_WORDS);
        Self { starts: [start, start.wrapping_add(LANES)], step: BLOCK_COLUMNS }
    }

    /// The share of group `group` of `groups` in fetching the next block, so that memory is always busy.
    fn of_next_block(block: *const u32, k_words: usize, group: usize, groups: usize) -> Self {
        let step = BLOCK_COLUMNS.div_ceil(groups);
        let start = block.wrapping_add(BLOCK_COLUMNS * k_words + group * step * k_words);
        Self { starts: [start, start.wrapping_add(LANES)], step }
    }

    /// Memory that group `group` of `groups` fetches while it multiplies `block`.
    pub(super) fn of_group(block: *const u32, k_words: usize, group: usize, groups: usize) -> Self {
        match groups {
            1 => Self::of_this_block(block),
            _ => Self::of_next_block(block, k_words, group, groups),
        }
    }

    fn at_word(self, word: usize) -> Self {
        Self { starts: self.starts.map(|start| start.wrapping_add(word * self.step)), step: self.step }
    }
}

/// Memory to fetch while words are multiplied.
pub(in crate::cpu) trait Fetch: Copy {
    /// Fetches the lines for word `p`.
    fn fetch(self, p: usize);
}

impl Fetch for Ahead {
    #[inline(always)]
    fn fetch(self, p: usize) {
        prefetch(self.starts[0].wrapping_add(p * self.step));
        prefetch(self.starts[1].wrapping_add(p * self.step));
    }
}

/// `acc[r][v] += left[r] · right[v]` over `words` words, from the first to the last.
///
/// Word `p` of row `r` is `left[r * ROW_STRIDE + p * WORD_STRIDE]`; word `p` of the 16 columns `v` begins at
/// `right[v] + p * right_stride`.
///
/// # Safety
/// All those words can be read, and the level's instructions exist.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "through iterators the vectors go to the stack and back for every word")]
pub(in crate::cpu) unsafe fn accumulate<
    F: ChunkFormat,
    const ROWS: usize,
    const VECTORS: usize,
    const ROW_STRIDE: usize,
    const WORD_STRIDE: usize,
>(
    acc: &mut [[F::Sums; VECTORS]; ROWS],
    left: *const u32,
    right: [*const u32; VECTORS],
    right_stride: usize,
    words: usize,
    ahead: impl Fetch,
) {
    let mut sums = *acc;
    for p in 0..words {
        // SAFETY: the caller promises that word `p` of both sides can be read; prefetching never faults.
        unsafe {
            let mut loaded = [F::load(right[0].add(p * right_stride)); VECTORS];
            for v in 1..VECTORS {
                loaded[v] = F::load(right[v].add(p * right_stride));
            }
            ahead.fetch(p);
            for r in 0..ROWS {
                let word = *left.add(r * ROW_STRIDE + p * WORD_STRIDE);
                for v in 0..VECTORS {
                    sums[r][v] = F::add(sums[r][v], word, loaded[v]);
                }
            }
        }
    }
    *acc = sums;
}

#[inline(always)]
fn prefetch(address: *const u32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64, and a prefetch of any address is harmless.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Packed sides of a product, and the chunks of `k`.
#[derive(Clone, Copy)]
pub(super) struct Sides {
    /// Row group, `[chunk][head words, then words][row]`.
    pub(super) left: *const u32,
    /// 16 or 32 columns of one block, `[word][32]`.
    pub(super) right: *const u32,
    /// Scales of the columns, if the format has scales.
    pub(super) scales: *const f32,
    /// Chunks of `k`. A variable on purpose: with a constant the compiler unrolls the chunks and spills the tile.
    pub(super) chunks: usize,
    pub(super) chunk_words: usize,
    pub(super) ahead: Ahead,
}

/// Computes one tile and stores its sums at column `column`.
///
/// Chunk sums wait on a stack for their neighbour in the tree: chunk `c` closes as many levels as `c` has trailing
/// ones.
///
/// # Safety
/// Both sides hold `chunks * chunk_words` words for `ROWS` rows and `16 * VECTORS` columns, the left one its head words
/// too; scales of so many columns exist if the format has scales; `ROWS` is at most `TILE_ROWS_MAX`; the level's
/// instructions exist.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "as in `accumulate`")]
pub(super) unsafe fn tile<F: ChunkFormat, const ROWS: usize, const VECTORS: usize>(
    sides: Sides,
    sums: &mut Sums,
    column: usize,
) {
    // SAFETY: the offsets stay inside the promised words, a level of the stack is read only after the chunk before
    // wrote it, and `sums` has 32 columns.
    unsafe {
        let mut levels: [MaybeUninit<[[F::Lanes; VECTORS]; ROWS]>; 4] = [const { MaybeUninit::uninit() }; 4];
        let mut acc = [[F::Lanes::splat(0.0); VECTORS]; ROWS];
        for chunk in 0..sides.chunks {
            let first = chunk * sides.chunk_words;
            let head = sides.left.add(chunk * (F::HEAD_WORDS + sides.chunk_words) * ROWS);
            let left = head.add(F::HEAD_WORDS * ROWS);
            let right = std::array::from_fn(|v| sides.right.add(first * BLOCK_COLUMNS + v * 16));
            let mut chunk_sums = [[F::begin(head); VECTORS]; ROWS];
            for r in 1..ROWS {
                chunk_sums[r] = [F::begin(head.add(r)); VECTORS];
            }
            let (words, ahead) = (sides.chunk_words, sides.ahead.at_word(first));
            accumulate::<F, ROWS, VECTORS, 1, ROWS>(&mut chunk_sums, left, right, BLOCK_COLUMNS, words, ahead);
            for r in 0..ROWS {
                for v in 0..VECTORS {
                    acc[r][v] = F::end(chunk_sums[r][v], head.add(r), ROWS, sides.scales.wrapping_add(v * LANES));
                }
            }
            let closed = chunk.trailing_ones() as usize;
            for level in 0..closed {
                let waiting = levels[level & 3].assume_init();
                for (row, waiting) in acc.iter_mut().zip(waiting) {
                    for (sum, waiting) in row.iter_mut().zip(waiting) {
                        *sum = waiting.add(*sum);
                    }
                }
            }
            levels[closed & 3].write(acc);
        }
        for (row, target) in acc.iter().zip(sums) {
            for (v, sum) in row.iter().enumerate() {
                sum.store(target.as_mut_ptr().add(column + v * 16));
            }
        }
    }
}

//! Products on tile registers: 32 rows against the 32 columns of a block, and the left side in the layout they load.

use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};

use super::pack_int8::pack_part;
use super::pack_rows::{AsIs, Change, Normed, PackRows};
use super::panel::{Finish, Panel, finish};
use super::row_part::RowPart;
use super::tile::BLOCK_COLUMNS;
use crate::cpu::amx::{TILE_ROWS, TILE_WORDS, TileChunk, Tiles, bf16_one, bf16_two, int8_one, int8_two};
use crate::cpu::lanes::avx512::{Bf16Pairs, F32x16, I32x16};
use crate::cpu::lanes::{Format, INT8_HEAD_WORDS, Int8Sums, Lanes};
use crate::numerics::{K_CHUNKS, LANES, k_padded};

/// Rows of a group: two registers of them.
pub(in crate::cpu) const GROUP_ROWS: usize = 2 * TILE_ROWS;
/// How far ahead of the multiplications a right side that is read once is fetched, in words.
const AHEAD_WORDS: usize = 2048;
/// Cache lines of one step of the right side.
const STEP_LINES: usize = TILE_WORDS * BLOCK_COLUMNS * size_of::<u32>() / 64;
/// Levels of the tree over the chunks of `k`, leaves and root included.
const TREE_LEVELS: usize = K_CHUNKS.trailing_zeros() as usize + 1;

/// `[row][column]`, of a group and a block.
type Sums = [[f32; BLOCK_COLUMNS]; GROUP_ROWS];

#[repr(align(64))]
struct Aligned<T>(T);

/// Words of the left side for a chunk of `words` words of a row, head words included.
pub(in crate::cpu) const fn left_chunk_words<T: TileFormat>(words: usize) -> usize {
    T::HEAD_WORDS + words.next_multiple_of(TILE_WORDS)
}

/// What tiles of one format hold and what their sums are worth.
///
/// # Safety
/// Tiles are available, and so are the instructions of the AVX-512 level.
pub(in crate::cpu) trait TileFormat {
    /// Words of the left side that stand before each row of a chunk, `[row][HEAD_WORDS]`; whole cache lines.
    const HEAD_WORDS: usize;
    /// Sums are worth what they are.
    const SUMS_ARE_F32: bool;

    /// Writes the values of one row of a chunk: its head, and 16 words to each step.
    unsafe fn pack<C: Change<F32x16>>(part: &RowPart<'_, C>, head: &mut [u32], steps: &mut StepsOfRow<'_>);
    /// Sums a chunk.
    unsafe fn sum(chunk: &TileChunk, rows: usize);
    /// 16 sums in f32; `head` is that of the row, `scales` are those of the columns.
    unsafe fn worth(sums: *const u32, head: *const u32, scales: *const f32) -> F32x16;
}

/// Where the words of one row of a chunk go: 16 to each step.
pub(in crate::cpu) struct StepsOfRow<'a> {
    steps: &'a mut [u32],
    row: usize,
    rows: usize,
}

impl StepsOfRow<'_> {
    fn count(&self) -> usize {
        self.steps.len() / (self.rows * TILE_WORDS)
    }

    fn step(&mut self, step: usize) -> &mut [u32; TILE_WORDS] {
        &mut self.steps.as_chunks_mut::<TILE_WORDS>().0[step * self.rows + self.row]
    }
}

/// Pairs of bf16.
pub(in crate::cpu) struct Bf16Tiles;

impl TileFormat for Bf16Tiles {
    const HEAD_WORDS: usize = 0;
    const SUMS_ARE_F32: bool = true;

    #[inline(always)]
    unsafe fn pack<C: Change<F32x16>>(part: &RowPart<'_, C>, _: &mut [u32], steps: &mut StepsOfRow<'_>) {
        for step in 0..steps.count() {
            let words = steps.step(step).as_mut_ptr();
            // SAFETY: a step has room for two times 8 words; the rest is the caller's promise.
            unsafe {
                for half in 0..2 {
                    let values = part.sixteen::<F32x16>((2 * step + half) * LANES);
                    Bf16Pairs::store_words(values, words.add(half * LANES / 2));
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn sum(chunk: &TileChunk, rows: usize) {
        // SAFETY: the caller's promise, here and below.
        unsafe { if rows <= TILE_ROWS { bf16_one(chunk) } else { bf16_two(chunk) } }
    }
    #[inline(always)]
    unsafe fn worth(sums: *const u32, _: *const u32, _: *const f32) -> F32x16 {
        // SAFETY: as above.
        unsafe { F32x16::load(sums.cast()) }
    }
}

/// Quads of int8. A sum becomes what it is on other levels when the head is added: both are exact.
pub(in crate::cpu) struct Int8Tiles;

impl TileFormat for Int8Tiles {
    const HEAD_WORDS: usize = TILE_WORDS;
    const SUMS_ARE_F32: bool = false;

    #[inline(always)]
    unsafe fn pack<C: Change<F32x16>>(part: &RowPart<'_, C>, head: &mut [u32], steps: &mut StepsOfRow<'_>) {
        for step in 0..steps.count() {
            *steps.step(step) = [0; TILE_WORDS];
        }
        // SAFETY: the caller's promise.
        let [zero_point, scale] = unsafe {
            pack_part::<F32x16, C>(part, |first, words| {
                steps.step(first / TILE_WORDS)[first % TILE_WORDS..][..words.len()].copy_from_slice(&words);
            })
        };
        head[..INT8_HEAD_WORDS].copy_from_slice(&[zero_point, scale]);
    }
    #[inline(always)]
    unsafe fn sum(chunk: &TileChunk, rows: usize) {
        // SAFETY: the caller's promise, here and below.
        unsafe { if rows <= TILE_ROWS { int8_one(chunk) } else { int8_two(chunk) } }
    }
    #[inline(always)]
    unsafe fn worth(sums: *const u32, head: *const u32, scales: *const f32) -> F32x16 {
        // SAFETY: as above; the head has two words.
        unsafe {
            let of_chunk = F32x16::splat(f32::from_bits(*head.add(1)));
            I32x16::load_sums(sums).plus((*head).cast_signed()).to_f32().mul(of_chunk).mul(F32x16::load(scales))
        }
    }
}

/// Packs a group as `[chunk]`, each `[row][head words]`, then `[step][row][16 words]`. What lies behind a row or behind a
/// chunk is zero.
///
/// # Safety
/// The instructions of the AVX-512 level exist.
#[inline(always)]
pub(in crate::cpu) unsafe fn pack_tiles<T: TileFormat>(group: &PackRows<'_>, words: &mut [u32]) {
    let row = |r: usize| {
        let r = group.picked.map_or(r, |picked| picked[r] as usize);
        &group.values[r * group.columns..][..group.columns]
    };
    // SAFETY: the caller's promise.
    unsafe {
        match group.norm {
            None => pack_after::<T, _>(row, group, &AsIs, words),
            Some(norm) => pack_after::<T, _>(row, group, &Normed::new(norm, row, group.count), words),
        }
    }
}

#[inline(always)]
unsafe fn pack_after<'a, T: TileFormat, C: Change<F32x16>>(
    row: impl Fn(usize) -> &'a [f32],
    group: &PackRows<'_>,
    change: &C,
    words: &mut [u32],
) {
    let chunk_columns = k_padded(group.columns) / group.chunks;
    let chunk_words = words.len() / group.chunks;
    for (chunk, target) in words.chunks_exact_mut(chunk_words).enumerate() {
        let (heads, steps) = target.split_at_mut(T::HEAD_WORDS * group.count);
        let first = (chunk * chunk_columns).min(group.columns);
        let end = (first + chunk_columns).min(group.columns);
        for r in 0..group.count {
            let part = RowPart { values: &row(r)[first..end], change, r, first };
            let head = &mut heads[r * T::HEAD_WORDS..][..T::HEAD_WORDS];
            // SAFETY: the caller's promise.
            unsafe { T::pack(&part, head, &mut StepsOfRow { steps, row: r, rows: group.count }) };
        }
    }
}

/// Computes one task.
///
/// # Safety
/// As for `panel`, with a left side that `pack_tiles` packed; tiles are available.
#[inline(always)]
pub(in crate::cpu) unsafe fn panel_tiles<T: TileFormat>(panel: &Panel<'_>) {
    let mut tiles = Tiles::new();
    let mut room = Room::new();
    let left_row_words = panel.chunks * left_chunk_words::<T>(panel.k_words / panel.chunks);
    for block in panel.blocks.clone() {
        for group in panel.groups.clone() {
            let first_row = group * panel.group_rows;
            let rows = panel.group_rows.min(panel.rows - first_row);
            let left = &panel.left[first_row * left_row_words..][..rows * left_row_words];
            let ahead = Ahead::new(panel, block, group - panel.groups.start);
            // SAFETY: the caller's promise; the sides begin at the group and at the block.
            unsafe {
                tiles.shape_for_product(rows);
                fetch_output(panel, block, first_row, rows);
                let sums = block_of_group::<T>(panel, block, left, rows, ahead, &mut room);
                finish::<F32x16>(panel, block, first_row, sums);
            }
        }
    }
}

/// Fetches what `finish` will write or add to: rows lie far apart, and each would be waited for.
#[inline(always)]
fn fetch_output(panel: &Panel<'_>, block: usize, first_row: usize, rows: usize) {
    let columns = match panel.finish {
        Finish::Store | Finish::AddTo | Finish::Relu => BLOCK_COLUMNS,
        Finish::SiluMul => LANES,
    };
    let first = panel.out.wrapping_add(first_row * panel.out_columns + block * columns);
    for r in 0..rows {
        let row = first.wrapping_add(r * panel.out_columns);
        for line in (0..columns).step_by(LANES) {
            // SAFETY: a prefetch never faults.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(row.wrapping_add(line).cast()) };
        }
    }
}

/// What to fetch while a block is multiplied.
#[derive(Clone, Copy)]
struct Ahead {
    start: *const u32,
    lines_per_step: usize,
}

impl Ahead {
    /// One group reads its block once and fetches what follows. Of several, each fetches a share of the next block of the
    /// task; behind the last block another thread may go on, so there is nothing worth fetching.
    fn new(panel: &Panel<'_>, block: usize, group: usize) -> Self {
        let block_words = BLOCK_COLUMNS * panel.k_words;
        let right = panel.right[block * block_words..].as_ptr();
        let groups = panel.groups.len();
        if groups == 1 {
            return Self { start: right.wrapping_add(AHEAD_WORDS), lines_per_step: STEP_LINES };
        }
        if block + 1 == panel.blocks.end {
            return Self { start: right, lines_per_step: 1 };
        }
        let start = right.wrapping_add(block_words + block_words.div_ceil(groups) * group);
        Self { start, lines_per_step: STEP_LINES.div_ceil(groups) }
    }

    fn at_step(self, step: usize) -> *const u32 {
        self.start.wrapping_add(step * self.lines_per_step * LANES)
    }
}

/// What a task needs for one group and one block. Nothing is read before it was written for them.
struct Room {
    /// The words of a chunk that fill no step; zeros behind them.
    tail: Aligned<[[u32; BLOCK_COLUMNS]; TILE_WORDS]>,
    /// Sums of a chunk as tiles leave them.
    raw: Aligned<[[u32; BLOCK_COLUMNS]; GROUP_ROWS]>,
    /// Sums of chunks that wait for their neighbour in the tree: chunk `c` closes as many levels as `c` has trailing ones.
    levels: Aligned<[Sums; TREE_LEVELS]>,
}

impl Room {
    #[inline(always)]
    fn new() -> Self {
        Self {
            tail: Aligned([[0; BLOCK_COLUMNS]; TILE_WORDS]),
            raw: Aligned([[0; BLOCK_COLUMNS]; GROUP_ROWS]),
            levels: Aligned([[[0.0; BLOCK_COLUMNS]; GROUP_ROWS]; TREE_LEVELS]),
        }
    }

    /// The last step of a chunk, from the words that fill none; null if there are none.
    #[inline(always)]
    fn tail_of(&mut self, words: &[u32]) -> *const u32 {
        if words.is_empty() {
            return std::ptr::null();
        }
        self.tail.0.as_flattened_mut()[..words.len()].copy_from_slice(words);
        self.tail.0.as_ptr().cast()
    }
}

/// The sums of all chunks of `k` for a block and a group, whose packed left side is `left`.
///
/// # Safety
/// As for `panel_tiles`; the registers are shaped for `rows`.
#[inline(always)]
unsafe fn block_of_group<'t, T: TileFormat>(
    panel: &Panel<'_>,
    block: usize,
    left: &[u32],
    rows: usize,
    ahead: Ahead,
    room: &'t mut Room,
) -> &'t [[f32; BLOCK_COLUMNS]] {
    let words = panel.k_words / panel.chunks;
    let whole_steps = words / TILE_WORDS;
    let right = &panel.right[block * BLOCK_COLUMNS * panel.k_words..][..BLOCK_COLUMNS * panel.k_words];
    let scales = panel.scales.map_or(std::ptr::null(), |scales| scales[block * BLOCK_COLUMNS..].as_ptr());
    let left_chunks = left.chunks_exact(rows * left_chunk_words::<T>(words));
    let mut closed = 0;
    for (chunk, (left, right)) in left_chunks.zip(right.chunks_exact(BLOCK_COLUMNS * words)).enumerate() {
        let (heads, steps) = left.split_at(rows * T::HEAD_WORDS);
        closed = chunk.trailing_ones() as usize;
        let waits_as_it_is = T::SUMS_ARE_F32 && closed == 0;
        let sides = TileChunk {
            left: steps.as_ptr(),
            left_step_bytes: rows * TILE_WORDS * size_of::<u32>(),
            right: right.as_ptr(),
            whole_steps,
            tail: room.tail_of(&right[whole_steps * TILE_WORDS * BLOCK_COLUMNS..]),
            sums: if waits_as_it_is { room.levels.0[0].as_mut_ptr().cast() } else { room.raw.0.as_mut_ptr().cast() },
            ahead: ahead.at_step(chunk * words.div_ceil(TILE_WORDS)),
            ahead_lines: ahead.lines_per_step,
        };
        // SAFETY: the left side has `rows` rows of every step, the right side its words; there is a place for every sum.
        unsafe {
            T::sum(&sides, rows);
            if !waits_as_it_is {
                close::<T>(room, rows, closed, heads, scales);
            }
        }
    }
    &room.levels.0[closed][..rows]
}

/// Adds the raw sums of a chunk to those that wait at the `closed` lowest levels, and lets the result wait.
#[inline(always)]
unsafe fn close<T: TileFormat>(room: &mut Room, rows: usize, closed: usize, heads: &[u32], scales: *const f32) {
    let (waiting, target) = room.levels.0.split_at_mut(closed);
    for r in 0..rows {
        let head = heads[r * T::HEAD_WORDS..].as_ptr();
        for first in [0, LANES] {
            // SAFETY: vectors of 16 lie inside a row; the rest is the caller's promise.
            unsafe {
                let mut sum = T::worth(room.raw.0[r][first..].as_ptr(), head, scales.wrapping_add(first));
                for level in &*waiting {
                    sum = F32x16::load(level[r][first..].as_ptr()).add(sum);
                }
                sum.store(target[0][r][first..].as_mut_ptr());
            }
        }
    }
}

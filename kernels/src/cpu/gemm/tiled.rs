//! Products on tile registers: 32 rows against the 32 columns of a block, piece by piece of `k`. Knows no format.

use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch, _mm_sfence};
use std::mem::MaybeUninit;
use std::ops::Range;

use super::BAND_GROUPS_MAX;
use super::panel::{Finish, IntoCaches, Panel, Stores, finish};
use super::tile::BLOCK_COLUMNS;
use super::tile_format::{TileFormat, left_chunk_words};
use crate::cpu::amx::{TILE_ROWS, TILE_WORDS, TileChunk, Tiles};
use crate::cpu::lanes::Lanes;
use crate::cpu::lanes::avx512::F32x16;
use crate::numerics::{K_CHUNKS, LANES};

/// Rows of a group: two registers of them.
pub(in crate::cpu) const GROUP_ROWS: usize = 2 * TILE_ROWS;
/// How far ahead of the multiplications a right side that is read once is fetched, in words.
const AHEAD_WORDS: usize = 2048;
/// Cache lines of one step of the right side.
const STEP_LINES: usize = TILE_WORDS * BLOCK_COLUMNS * size_of::<u32>() / 64;
/// Steps that are multiplied with all groups before the next ones are: their right side takes a third of the first-level
/// cache.
const PIECE_STEPS_MAX: usize = 8;
/// With fewer groups a chunk is one piece: keeping sums between pieces costs more than it saves.
const PIECE_GROUPS_MIN: usize = 4;
/// Results of a product that together are larger than this are not kept in caches.
const PAST_CACHES_BYTES_MIN: usize = 2 << 20;
/// Levels of the tree over the chunks of `k`, leaves and root included.
const TREE_LEVELS: usize = K_CHUNKS.trailing_zeros() as usize + 1;

/// `[row][column]`, of a group and a block.
type Sums = [[f32; BLOCK_COLUMNS]; GROUP_ROWS];

#[repr(align(64))]
struct Aligned<T>(T);

/// Computes one task: for each block piece by piece of `k`, and with each piece all groups, so that the right side of a
/// piece stays in the first-level cache while the groups pass by.
///
/// # Safety
/// As for `panel`, with a left side that `pack_tiles` packed; tiles are available.
#[inline(always)]
pub(in crate::cpu) unsafe fn panel_tiles<T: TileFormat>(panel: &Panel<'_>) {
    let mut tiles = Tiles::new();
    let mut room = Room::new();
    let outgrows_caches = panel.rows * panel.out_columns * size_of::<f32>() > PAST_CACHES_BYTES_MIN;
    for block in panel.blocks.clone() {
        let right = Right::new(panel, block);
        for piece in right.pieces() {
            for (place, group) in panel.groups.clone().enumerate() {
                let group = Group::new::<T>(panel, group);
                // SAFETY: the caller's promise; the sides begin at the group and at the block.
                unsafe {
                    tiles.shape_for_product(group.rows);
                    let sums = piece_of_group::<T>(&right, &group, &piece, place, &mut room);
                    match piece.is_last.then(|| panel.chunks - piece.chunk) {
                        Some(1) => {
                            let sums = std::slice::from_raw_parts(sums, group.rows);
                            if outgrows_caches {
                                finish::<F32x16, PastCaches>(panel, block, group.first_row, sums);
                            } else {
                                finish::<F32x16, IntoCaches>(panel, block, group.first_row, sums);
                            }
                        }
                        Some(2) => fetch_output(panel, block, &group),
                        Some(_) | None => {}
                    }
                }
            }
        }
    }
    if outgrows_caches {
        // SAFETY: orders what went past the caches before whatever tells others that the task is done.
        unsafe { _mm_sfence() };
    }
}

/// Writes past the caches, without fetching the line first: for results that would be gone from there before they are read.
struct PastCaches;

impl Stores<F32x16> for PastCaches {
    #[inline(always)]
    unsafe fn store(values: F32x16, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { if to.cast::<Aligned<f32>>().is_aligned() { values.store_past_caches(to) } else { values.store(to) } }
    }
}

/// The rows of a group, and their packed left side.
struct Group<'a> {
    first_row: usize,
    rows: usize,
    left: &'a [u32],
}

impl<'a> Group<'a> {
    #[inline(always)]
    fn new<T: TileFormat>(panel: &Panel<'a>, group: usize) -> Self {
        let row_words = panel.chunks * left_chunk_words::<T>(panel.k_words / panel.chunks);
        let first_row = group * panel.group_rows;
        let rows = panel.group_rows.min(panel.rows - first_row);
        Self { first_row, rows, left: &panel.left[first_row * row_words..][..rows * row_words] }
    }
}

/// A block of the right side, and what to fetch while it is multiplied.
struct Right<'a> {
    words: &'a [u32],
    /// Of its columns; null if the format has none.
    scales: *const f32,
    chunks: usize,
    chunk_words: usize,
    groups: usize,
    /// Steps of a piece.
    piece_steps: usize,
    ahead: Ahead,
}

/// Some steps of a chunk of a block.
struct Piece {
    chunk: usize,
    /// Those whose 16 words are all there.
    steps: Range<usize>,
    /// The chunk ends with it, and with the words that fill no step.
    is_last: bool,
}

impl Piece {
    fn is_whole_chunk(&self) -> bool {
        self.steps.start == 0 && self.is_last
    }
}

impl<'a> Right<'a> {
    #[inline(always)]
    fn new(panel: &Panel<'a>, block: usize) -> Self {
        let chunk_words = panel.k_words / panel.chunks;
        let groups = panel.groups.len();
        let piece_steps = if groups < PIECE_GROUPS_MIN { usize::MAX } else { PIECE_STEPS_MAX };
        Self {
            words: &panel.right[block * BLOCK_COLUMNS * panel.k_words..][..BLOCK_COLUMNS * panel.k_words],
            scales: panel.scales.map_or(std::ptr::null(), |scales| scales[block * BLOCK_COLUMNS..].as_ptr()),
            chunks: panel.chunks,
            chunk_words,
            groups,
            piece_steps: piece_steps.min((chunk_words / TILE_WORDS).max(1)),
            ahead: Ahead::new(panel, block),
        }
    }

    fn pieces(&self) -> impl Iterator<Item = Piece> {
        let (whole_steps, most) = (self.chunk_words / TILE_WORDS, self.piece_steps);
        let pieces = whole_steps.div_ceil(most).max(1);
        (0..self.chunks * pieces).map(move |piece| {
            let (chunk, index) = (piece / pieces, piece % pieces);
            let steps = index * most..((index + 1) * most).min(whole_steps);
            Piece { chunk, steps, is_last: index + 1 == pieces }
        })
    }
}

/// Fetches what `finish` will add to: rows lie far apart, and each would be waited for.
#[inline(always)]
fn fetch_output(panel: &Panel<'_>, block: usize, group: &Group<'_>) {
    if !matches!(panel.finish, Finish::AddTo) {
        return;
    }
    let first = panel.out.wrapping_add(group.first_row * panel.out_columns + block * BLOCK_COLUMNS);
    for r in 0..group.rows {
        let row = first.wrapping_add(r * panel.out_columns);
        for line in (0..BLOCK_COLUMNS).step_by(LANES) {
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
    /// A group that is alone fetches what it will read soon. Several take longer for each step, and fetch between them what
    /// lies a chunk ahead.
    #[inline(always)]
    fn new(panel: &Panel<'_>, block: usize) -> Self {
        let right = panel.right[block * BLOCK_COLUMNS * panel.k_words..].as_ptr();
        let groups = panel.groups.len();
        let distance_words = if groups == 1 { AHEAD_WORDS } else { BLOCK_COLUMNS * panel.k_words / panel.chunks };
        Self { start: right.wrapping_add(distance_words), lines_per_step: STEP_LINES.div_ceil(groups) }
    }

    fn at_step(self, step: usize) -> *const u32 {
        self.start.wrapping_add(step * self.lines_per_step * LANES)
    }
}

/// What a task needs for a block and its groups.
struct Room {
    /// The words of a chunk that fill no step; zeros behind them.
    tail: Aligned<[[u32; BLOCK_COLUMNS]; TILE_WORDS]>,
    /// Sums of a chunk as tiles leave them, of every group.
    raw: Aligned<MaybeUninit<[Sums; BAND_GROUPS_MAX]>>,
    /// Sums of chunks that wait for their neighbour in the tree, of every group: chunk `c` closes as many levels as `c` has
    /// trailing ones.
    levels: Aligned<MaybeUninit<[[Sums; TREE_LEVELS]; BAND_GROUPS_MAX]>>,
}

impl Room {
    #[inline(always)]
    fn new() -> Self {
        Self {
            tail: Aligned([[0; BLOCK_COLUMNS]; TILE_WORDS]),
            raw: Aligned(MaybeUninit::uninit()),
            levels: Aligned(MaybeUninit::uninit()),
        }
    }

    /// Sums of the group at `place`, which are what was written there last.
    fn raw_of(&mut self, place: usize) -> *mut Sums {
        assert!(place < BAND_GROUPS_MAX, "a band has no more groups");
        self.raw.0.as_mut_ptr().cast::<Sums>().wrapping_add(place)
    }

    /// Likewise its levels, the lowest first.
    fn levels_of(&mut self, place: usize) -> *mut Sums {
        assert!(place < BAND_GROUPS_MAX, "a band has no more groups");
        self.levels.0.as_mut_ptr().cast::<Sums>().wrapping_add(place * TREE_LEVELS)
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

/// Sums a piece for the group at `place` of its band; returns the sums of all chunks that are closed if the piece is the last
/// of its chunk.
///
/// # Safety
/// As for `panel_tiles`; the registers are shaped for the group's rows.
#[inline(always)]
unsafe fn piece_of_group<T: TileFormat>(
    right: &Right<'_>,
    group: &Group<'_>,
    piece: &Piece,
    place: usize,
    room: &mut Room,
) -> *const [f32; BLOCK_COLUMNS] {
    let (words, rows, chunk) = (right.chunk_words, group.rows, piece.chunk);
    let left_words = rows * left_chunk_words::<T>(words);
    let (heads, steps) = group.left[chunk * left_words..][..left_words].split_at(rows * T::HEAD_WORDS);
    let words_of_right = &right.words[chunk * BLOCK_COLUMNS * words..][..BLOCK_COLUMNS * words];
    let behind = if piece.is_last { &words_of_right[piece.steps.end * TILE_WORDS * BLOCK_COLUMNS..] } else { &[] };
    let tail = room.tail_of(behind);
    let closed = chunk.trailing_ones() as usize;
    let waits_as_it_is = T::SUMS_ARE_F32 && closed == 0;
    // What is closed at once needs no place of its own, and stays in the first-level cache.
    let (raw, levels) = (room.raw_of(if piece.is_whole_chunk() { 0 } else { place }), room.levels_of(place));
    let sums: *mut u32 = if waits_as_it_is { levels.cast() } else { raw.cast() };
    let sides = TileChunk {
        left: steps[piece.steps.start * rows * TILE_WORDS..].as_ptr(),
        left_step_bytes: rows * TILE_WORDS * size_of::<u32>(),
        right: words_of_right[piece.steps.start * TILE_WORDS * BLOCK_COLUMNS..].as_ptr(),
        whole_steps: piece.steps.len(),
        tail,
        before: if piece.steps.start > 0 { sums } else { std::ptr::null() },
        sums,
        ahead: right.ahead.at_step(
            (chunk * words.div_ceil(TILE_WORDS) + piece.steps.start) * right.groups + place * piece.steps.len(),
        ),
        ahead_lines: right.ahead.lines_per_step,
    };
    // SAFETY: the left side has `rows` rows of every step, the right side its words; there is a place for every sum.
    unsafe {
        T::sum(&sides, rows);
        if piece.is_last && !waits_as_it_is {
            close::<T>(raw.cast(), levels, rows, closed, heads, right.scales);
        }
        levels.add(closed).cast()
    }
}

/// Adds the raw sums of a chunk to those that wait at the `closed` lowest levels, and lets the result wait.
///
/// # Safety
/// As for `piece_of_group`; `rows` rows were written to `raw` and to each of the levels.
#[inline(always)]
unsafe fn close<T: TileFormat>(
    raw: *const [u32; BLOCK_COLUMNS],
    levels: *mut Sums,
    rows: usize,
    closed: usize,
    heads: &[u32],
    scales: *const f32,
) {
    for r in 0..rows {
        let head = heads[r * T::HEAD_WORDS..].as_ptr();
        for first in [0, LANES] {
            // SAFETY: vectors of 16 lie inside a row; the rest is the caller's promise.
            unsafe {
                let of_level = |level: usize| levels.add(level).cast::<f32>().add(r * BLOCK_COLUMNS + first);
                let mut sum = T::worth(raw.add(r).cast::<u32>().add(first), head, scales.wrapping_add(first));
                for level in 0..closed {
                    sum = F32x16::load(of_level(level)).add(sum);
                }
                sum.store(of_level(closed));
            }
        }
    }
}

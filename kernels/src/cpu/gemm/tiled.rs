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
/// Words between the multiplications and the fetches of a right side that is read once.
const AHEAD_WORDS: usize = 2048;
/// Cache lines of one step of the right side.
const STEP_LINES: usize = TILE_WORDS * BLOCK_COLUMNS * size_of::<u32>() / 64;
/// Most steps of a piece, which all groups multiply before the next one: its right side takes a third of the
/// first-level cache.
const PIECE_STEPS_MAX: usize = 8;
/// Least groups for more than one piece per chunk: with fewer, keeping sums between pieces costs more than it saves.
const PIECE_GROUPS_MIN: usize = 4;
/// Size of a product's results from which on they are written past the caches.
const PAST_CACHES_BYTES_MIN: usize = 2 << 20;
/// Levels of the tree over the chunks of `k`, leaves and root included.
const TREE_LEVELS: usize = K_CHUNKS.trailing_zeros() as usize + 1;

type Sums = [[f32; BLOCK_COLUMNS]; GROUP_ROWS];

#[repr(align(64))]
struct Aligned<T>(T);

/// Computes one task, block by block and piece by piece of `k`: all groups multiply a piece while its right side is in
/// the first-level cache.
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
        // SAFETY: orders the stores past the caches before the end of the task is announced.
        unsafe { _mm_sfence() };
    }
}

/// Stores past the caches, for results that would be evicted before they are read. Lines are not fetched first.
struct PastCaches;

impl Stores<F32x16> for PastCaches {
    #[inline(always)]
    unsafe fn store(values: F32x16, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { if to.cast::<Aligned<f32>>().is_aligned() { values.store_past_caches(to) } else { values.store(to) } }
    }
}

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

/// A block of the right side, and the memory to fetch meanwhile.
struct Right<'a> {
    words: &'a [u32],
    /// Scales of the columns; null if the format has none.
    scales: *const f32,
    chunks: usize,
    chunk_words: usize,
    groups: usize,
    piece_steps: usize,
    ahead: Ahead,
}

struct Piece {
    chunk: usize,
    /// Steps with all 16 words.
    steps: Range<usize>,
    /// True for the last piece of a chunk, which includes the words that fill no step.
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

/// Fetches the residual: its rows lie far apart, and `finish` would wait for each.
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

/// Memory to fetch while a block is multiplied.
#[derive(Clone, Copy)]
struct Ahead {
    start: *const u32,
    lines_per_step: usize,
}

impl Ahead {
    /// A single group fetches words that it will read soon. Several groups take longer for each step, and together
    /// fetch the words one chunk ahead.
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

/// Scratch memory of a task for a block and its groups.
struct Room {
    /// Words of a chunk that fill no step, followed by zeros.
    tail: Aligned<[[u32; BLOCK_COLUMNS]; TILE_WORDS]>,
    /// Sums of a chunk as tiles store them, of every group.
    raw: Aligned<MaybeUninit<[Sums; BAND_GROUPS_MAX]>>,
    /// Sums of chunks that wait for their neighbour in the tree, of every group, as in `tile`.
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

    /// Raw sums of the group at `place`, as last written.
    fn raw_of(&mut self, place: usize) -> *mut Sums {
        assert!(place < BAND_GROUPS_MAX, "a band has no more groups");
        self.raw.0.as_mut_ptr().cast::<Sums>().wrapping_add(place)
    }

    /// Levels of the group at `place`, the lowest first.
    fn levels_of(&mut self, place: usize) -> *mut Sums {
        assert!(place < BAND_GROUPS_MAX, "a band has no more groups");
        self.levels.0.as_mut_ptr().cast::<Sums>().wrapping_add(place * TREE_LEVELS)
    }

    /// Copies the words that fill no step into a last step; null if there are none.
    #[inline(always)]
    fn tail_of(&mut self, words: &[u32]) -> *const u32 {
        if words.is_empty() {
            return std::ptr::null();
        }
        self.tail.0.as_flattened_mut()[..words.len()].copy_from_slice(words);
        self.tail.0.as_ptr().cast()
    }
}

/// Sums a piece for the group at `place` of its band. After the last piece of a chunk, returns the sums of all closed
/// chunks.
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
    // A chunk that is one piece is closed at once: all groups use one place, which stays in the first-level cache.
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

/// Adds the raw sums of a chunk to the sums that wait at the `closed` lowest levels, and lets the result wait.
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

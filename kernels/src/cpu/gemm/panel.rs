//! Task of a product: some row groups against some blocks of columns, with the epilogue.

use std::ops::Range;

use super::tile::{Ahead, BLOCK_COLUMNS, Sides, Sums, TILE_ROWS_MAX, tile};
use crate::cpu::lanes::{ChunkFormat, Lanes};
use crate::numerics::LANES;

/// Epilogue: use of the sums of a tile.
#[derive(Clone, Copy)]
pub(in crate::cpu) enum Finish {
    /// `out = sum (+ bias)`.
    Store,
    /// `out = out + (sum (+ bias))`.
    AddTo,
    /// `out = max(sum (+ bias), 0)`.
    Relu,
    /// `out = silu(gate) * up`; the first 16 columns of a block are gates, the others their ups.
    SiluMul,
}

/// A product and the part of one task.
pub(in crate::cpu) struct Panel<'a> {
    /// Packed activations, by group and chunk, as the level's packing kernel writes them.
    pub(super) left: &'a [u32],
    pub(super) rows: usize,
    pub(super) group_rows: usize,
    /// Packed weights, `[block][word][32]`.
    pub(super) right: &'a [u32],
    /// `[columns]`, padded to whole blocks, if the format has scales.
    pub(super) scales: Option<&'a [f32]>,
    pub(super) k_words: usize,
    /// As in [`Sides`].
    pub(super) chunks: usize,
    /// `[columns]`, padded to whole blocks.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) finish: Finish,
    /// First output element; rows are `out_columns` apart.
    pub(super) out: *mut f32,
    pub(super) out_columns: usize,
    pub(super) groups: Range<usize>,
    pub(super) blocks: Range<usize>,
}

/// Computes one task.
///
/// # Safety
/// `out` has `rows * out_columns` elements and nobody else touches the task's part; both sides have the rows and
/// blocks that the task names; the level's instructions exist.
#[inline(always)]
pub(in crate::cpu) unsafe fn panel<F: ChunkFormat>(panel: &Panel<'_>) {
    let mut sums: Sums = [[0.0; BLOCK_COLUMNS]; TILE_ROWS_MAX];
    for block in panel.blocks.clone() {
        let right = panel.right[block * BLOCK_COLUMNS * panel.k_words..].as_ptr();
        let scales = panel.scales.map_or(std::ptr::null(), |scales| scales[block * BLOCK_COLUMNS..].as_ptr());
        for group in panel.groups.clone() {
            let first_row = group * panel.group_rows;
            let rows = panel.group_rows.min(panel.rows - first_row);
            let left = panel.left[first_row * (panel.k_words + panel.chunks * F::HEAD_WORDS)..].as_ptr();
            let chunk_words = panel.k_words / panel.chunks;
            let ahead = Ahead::of_group(right, panel.k_words, group - panel.groups.start, panel.groups.len());
            let sides = Sides { left, right, scales, chunks: panel.chunks, chunk_words, ahead };
            // SAFETY: both sides begin at the group and the block that the caller promises.
            unsafe {
                block_of_rows::<F>(rows, sides, &mut sums);
                finish::<F::Lanes, IntoCaches>(panel, block, first_row, &sums[..rows]);
            }
        }
    }
}

/// All 32 columns of a block for `rows` rows, in tiles as wide as the level's registers allow.
#[inline(always)]
unsafe fn block_of_rows<F: ChunkFormat>(rows: usize, sides: Sides, sums: &mut Sums) {
    // SAFETY: the caller promises the words; a group has 1 to `F::Lanes::ROWS_MAX` rows.
    unsafe {
        if F::Lanes::VECTORS == 2 {
            match rows {
                1 => tile::<F, 1, 2>(sides, sums, 0),
                2 => tile::<F, 2, 2>(sides, sums, 0),
                3 => tile::<F, 3, 2>(sides, sums, 0),
                4 => tile::<F, 4, 2>(sides, sums, 0),
                5 => tile::<F, 5, 2>(sides, sums, 0),
                6 => tile::<F, 6, 2>(sides, sums, 0),
                7 => tile::<F, 7, 2>(sides, sums, 0),
                8 => tile::<F, 8, 2>(sides, sums, 0),
                9 => tile::<F, 9, 2>(sides, sums, 0),
                10 => tile::<F, 10, 2>(sides, sums, 0),
                11 => tile::<F, 11, 2>(sides, sums, 0),
                _ => tile::<F, 12, 2>(sides, sums, 0),
            }
        } else {
            for column in [0, LANES] {
                let right = sides.right.add(column);
                let half = Sides { right, scales: sides.scales.wrapping_add(column), ..sides };
                match rows {
                    1 => tile::<F, 1, 1>(half, sums, column),
                    2 => tile::<F, 2, 1>(half, sums, column),
                    3 => tile::<F, 3, 1>(half, sums, column),
                    _ => tile::<F, 4, 1>(half, sums, column),
                }
            }
        }
    }
}

pub(super) trait Stores<L: Lanes> {
    /// Writes 16 values.
    ///
    /// # Safety
    /// There is room for them, and the level's instructions exist.
    unsafe fn store(values: L, to: *mut f32);
}

/// Plain stores: a line is fetched before it is written, and stays in the caches.
pub(super) struct IntoCaches;

impl<L: Lanes> Stores<L> for IntoCaches {
    #[inline(always)]
    unsafe fn store(values: L, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { values.store(to) }
    }
}

/// Applies bias, activation and residual, and writes the columns that exist.
#[inline(always)]
pub(super) unsafe fn finish<L: Lanes, S: Stores<L>>(
    panel: &Panel<'_>,
    block: usize,
    first_row: usize,
    sums: &[[f32; BLOCK_COLUMNS]],
) {
    for (r, sums) in sums.iter().enumerate() {
        // SAFETY: row and columns lie inside `out`, as the caller promises; `sums` has 32 columns.
        unsafe {
            let row = panel.out.add((first_row + r) * panel.out_columns);
            let [low, high] = [L::load(sums.as_ptr()), L::load(sums.as_ptr().add(LANES))];
            match panel.finish {
                Finish::SiluMul => store::<L, S>(low.silu().mul(high), row, block * LANES, panel.out_columns),
                Finish::Store | Finish::AddTo | Finish::Relu => {
                    for (sum, column) in [(low, block * BLOCK_COLUMNS), (high, block * BLOCK_COLUMNS + LANES)] {
                        let y = match panel.bias {
                            Some(bias) => sum.add(L::load(bias[column..][..LANES].as_ptr())),
                            None => sum,
                        };
                        match panel.finish {
                            Finish::AddTo => add_to(y, row, column, panel.out_columns),
                            Finish::Relu => store::<L, S>(L::splat(0.0).max(y), row, column, panel.out_columns),
                            Finish::Store | Finish::SiluMul => store::<L, S>(y, row, column, panel.out_columns),
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn store<L: Lanes, S: Stores<L>>(values: L, row: *mut f32, column: usize, columns: usize) {
    // SAFETY: only columns below `columns` are written.
    unsafe {
        if column + LANES <= columns {
            S::store(values, row.add(column));
        } else {
            let mut plain = [0.0f32; LANES];
            values.store(plain.as_mut_ptr());
            (column..columns).for_each(|c| row.add(c).write(plain[c - column]));
        }
    }
}

#[inline(always)]
unsafe fn add_to<L: Lanes>(values: L, row: *mut f32, column: usize, columns: usize) {
    // SAFETY: only columns below `columns` are read and written.
    unsafe {
        if column + LANES <= columns {
            L::load(row.add(column)).add(values).store(row.add(column));
        } else {
            let mut plain = [0.0f32; LANES];
            values.store(plain.as_mut_ptr());
            (column..columns).for_each(|c| *row.add(c) += plain[c - column]);
        }
    }
}

//! Products with packed weights: packs the activations, cuts the product into tasks, runs them.

mod pack_int8;
mod pack_rows;
mod panel;
mod tile;

pub(super) use pack_int8::{PER_WORD as INT8_PER_WORD, chunk_words as int8_chunk_words, pack_int8};
pub(super) use pack_rows::{PackRows, RowNorm, pack, pack_rows};
pub(super) use panel::{Finish, Panel, panel};
pub(super) use tile::{BLOCK_COLUMNS, TILE_ROWS_MAX};

use std::hint::black_box;

use super::table::ProductKernels;
use super::words::{Shared, Words};
use crate::KernelError;
use crate::pool::Pool;

/// Packed activations of a task stay below this many bytes, so that they live in the second-level cache (1 MiB on Zen 4)
/// beside the block of weights they meet and the next one.
const LEFT_BYTES_MAX: usize = 256 * 1024;
/// Multiply-adds that one task should have at least: about 20 µs at the bf16 rate of one core.
const TASK_MACS_MIN: usize = 5 << 20;
/// Bytes of weights that one task should read at least when there are few rows: about 5 µs at one core's bandwidth.
const TASK_BYTES_MIN: usize = 192 * 1024;
/// Below this many values the caller packs alone.
const PACK_ALONE_VALUES_MAX: usize = 48 * 1024;

/// Products `left [rows, k] · rightᵀ [n, k]` that share everything but rows and weights, and what to do with them.
pub(super) struct Product<'a> {
    pub(super) op: &'static str,
    /// Row-major activations.
    pub(super) left: &'a [f32],
    /// Which rows of `left` are multiplied, one after the other; the first ones in their order if `None`.
    pub(super) picked: Option<&'a [u32]>,
    /// Applied to each row of `left`.
    pub(super) norm: Option<RowNorm<'a>>,
    /// The rows one after the other, cut by the weights they are multiplied with.
    pub(super) parts: &'a [Part<'a>],
    pub(super) k: usize,
    /// Words of a weight row along `k`.
    pub(super) k_words: usize,
    /// Chunks of `k`: all eight, or a shard's share.
    pub(super) chunks: usize,
    /// Padded to whole blocks.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) finish: Finish,
    pub(super) out_columns: usize,
}

/// Some rows and their weights.
pub(super) struct Part<'a> {
    pub(super) rows: usize,
    /// Packed weights.
    pub(super) right: &'a [u32],
    /// As in [`Panel`].
    pub(super) scales: Option<&'a [f32]>,
}

/// Computes `product` into `out`, `[rows of all parts, out_columns]`, in one run of the pool.
pub(super) fn multiply(
    product: &Product<'_>,
    kernels: &ProductKernels,
    pool: &Pool,
    scratch: &mut Words,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let cuts = Cut::all(product, kernels.rows_max, pool.threads());
    let Some(last) = cuts.last() else { return Ok(()) };
    let (rows, tasks) = (last.first_row + last.rows, last.first_task + last.grid.tasks());
    assert_eq!(out.len(), rows * product.out_columns, "the output has a place for every row");
    assert!(product.picked.is_none_or(|picked| picked.len() == rows), "every row is picked from somewhere");
    let row_words = product.k_words + product.chunks * kernels.head_words;
    scratch.reserve(rows * row_words)?;
    let packed = &mut scratch.as_mut_slice()[..rows * row_words];
    pack_left(product, &cuts, kernels, pool, packed)?;

    let out = Shared::new(out);
    let left: &[u32] = packed;
    pool.run(product.op, tasks, &|task| {
        let cut = &cuts[cuts.partition_point(|cut| cut.first_task <= task) - 1];
        let (groups, blocks) = cut.grid.part(task - cut.first_task);
        let part = Panel {
            left: &left[cut.first_row * row_words..],
            rows: cut.rows,
            group_rows: cut.group_rows,
            right: cut.right,
            scales: cut.scales,
            k_words: product.k_words,
            chunks: black_box(product.chunks),
            bias: product.bias,
            finish: product.finish,
            // SAFETY: `out` was asserted to hold all rows.
            out: unsafe { out.as_mut_ptr().add(cut.first_row * product.out_columns) },
            out_columns: product.out_columns,
            groups,
            blocks,
        };
        // SAFETY: `out` holds the rows of the cut, tasks have disjoint groups and blocks, the packed sides hold what
        // the grid names, and the kernels were chosen for this processor.
        unsafe { (kernels.panel)(&part) }
    })
}

/// A part with rows, and how it is cut into groups of rows and into tasks.
struct Cut<'a> {
    first_row: usize,
    rows: usize,
    group_rows: usize,
    /// Number of its first group, those of earlier parts counted.
    first_group: usize,
    /// Likewise.
    first_task: usize,
    right: &'a [u32],
    scales: Option<&'a [f32]>,
    grid: Grid,
}

impl<'a> Cut<'a> {
    /// One for each part that has rows.
    fn all(product: &Product<'a>, rows_max: usize, threads: usize) -> Vec<Cut<'a>> {
        let (mut first_row, mut first_group, mut first_task) = (0, 0, 0);
        let parts = product.parts.iter().filter(|part| part.rows > 0);
        let cuts = parts.map(|part| {
            let group_rows = balanced_group(part.rows, rows_max);
            let groups = part.rows.div_ceil(group_rows);
            let blocks = part.right.len() / (BLOCK_COLUMNS * product.k_words);
            let grid = Grid::new(product, group_rows, groups, blocks, threads);
            let Part { rows, right, scales } = *part;
            let cut = Cut { first_row, rows, group_rows, first_group, first_task, right, scales, grid };
            first_row += part.rows;
            first_group += groups;
            first_task += cut.grid.tasks();
            cut
        });
        cuts.collect()
    }
}

/// Rows per group so that all groups are about equally large: 16 rows are 8 + 8 rather than 12 + 4.
fn balanced_group(rows: usize, rows_max: usize) -> usize {
    rows.div_ceil(rows.div_ceil(rows_max))
}

fn pack_left(
    product: &Product<'_>,
    cuts: &[Cut<'_>],
    kernels: &ProductKernels,
    pool: &Pool,
    packed: &mut [u32],
) -> Result<(), KernelError> {
    let row_words = product.k_words + product.chunks * kernels.head_words;
    let rows = packed.len() / row_words;
    let groups = cuts.last().map_or(0, |cut| cut.first_group + cut.grid.groups);
    let packed = Shared::new(packed);
    let pack = |group: usize| {
        let cut = &cuts[cuts.partition_point(|cut| cut.first_group <= group) - 1];
        let row_in_cut = (group - cut.first_group) * cut.group_rows;
        let (first, count) = (cut.first_row + row_in_cut, cut.group_rows.min(cut.rows - row_in_cut));
        let picked = product.picked.map(|picked| &picked[first..first + count]);
        let values = match picked {
            Some(_) => product.left,
            None => &product.left[first * product.k..][..count * product.k],
        };
        let rows = PackRows { values, columns: product.k, chunks: product.chunks, picked, count, norm: product.norm };
        // SAFETY: groups have disjoint rows, and the kernels were chosen for this processor.
        unsafe { (kernels.pack_rows)(&rows, packed.part(first * row_words, count * row_words)) }
    };
    if rows * product.k <= PACK_ALONE_VALUES_MAX {
        (0..groups).for_each(pack);
        return Ok(());
    }
    pool.run(product.op, groups, &pack)
}

/// How a product is cut into tasks: bands of row groups times ranges of column blocks.
struct Grid {
    groups: usize,
    blocks: usize,
    groups_per_band: usize,
    blocks_per_task: usize,
}

impl Grid {
    fn new(product: &Product<'_>, group_rows: usize, groups: usize, blocks: usize, threads: usize) -> Self {
        let group_bytes = group_rows * product.k_words * size_of::<u32>();
        let groups_per_band = (LEFT_BYTES_MAX / group_bytes).clamp(4, 16).min(groups);
        let rows = groups_per_band * group_rows;
        let block_macs = rows * BLOCK_COLUMNS * product.k;
        let block_bytes = BLOCK_COLUMNS * product.k_words * size_of::<u32>();
        let enough = TASK_MACS_MIN.div_ceil(block_macs).min(TASK_BYTES_MIN.div_ceil(block_bytes));
        // Even a small product gives every thread something to do.
        let blocks_per_task = enough.clamp(1, blocks.div_ceil(threads).max(1));
        Self { groups, blocks, groups_per_band, blocks_per_task }
    }

    fn tasks(&self) -> usize {
        self.groups.div_ceil(self.groups_per_band) * self.blocks.div_ceil(self.blocks_per_task)
    }

    /// Row groups and blocks of one task. Neighbouring tasks share their rows.
    fn part(&self, task: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let per_band = self.blocks.div_ceil(self.blocks_per_task);
        let (band, range) = (task / per_band, task % per_band);
        let (first_group, first_block) = (band * self.groups_per_band, range * self.blocks_per_task);
        let groups = first_group..(first_group + self.groups_per_band).min(self.groups);
        (groups, first_block..(first_block + self.blocks_per_task).min(self.blocks))
    }
}

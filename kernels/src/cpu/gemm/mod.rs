//! Products with packed weights: packing of the activations, tasks, and their run.

mod pack_int8;
mod pack_rows;
mod panel;
mod row_part;
mod tile;
#[cfg(target_arch = "x86_64")]
mod tile_format;
#[cfg(target_arch = "x86_64")]
mod tiled;

pub(super) use pack_int8::{PER_WORD as INT8_PER_WORD, chunk_words as int8_chunk_words, pack_int8};
pub(super) use pack_rows::{PackRows, RowNorm, pack, pack_rows};
pub(super) use panel::{Finish, Panel, panel};
pub(super) use tile::{BLOCK_COLUMNS, Fetch, accumulate};
#[cfg(target_arch = "x86_64")]
pub(super) use tile_format::{Bf16Tiles, Int8Tiles, TileFormat, left_chunk_words, pack_tiles};
#[cfg(target_arch = "x86_64")]
pub(super) use tiled::{GROUP_ROWS, panel_tiles};

use std::hint::black_box;

use super::table::ProductKernels;
use super::words::{Shared, Words};
use crate::KernelError;
use crate::pool::PoolLane;

/// Least bytes of weights in a task when there are few rows: 25 to 50 µs at one core's bandwidth. The beginning of a
/// task was not fetched ahead, so few tasks are better.
const TASK_BYTES_MIN: usize = 768 * 1024;
/// Most groups of rows in a task.
const BAND_GROUPS_MAX: usize = 16;
/// Most values that the caller packs alone.
const PACK_ALONE_VALUES_MAX: usize = 48 * 1024;

/// One or several products `left [rows, k] · rightᵀ [n, k]` that differ only in their rows and weights.
pub(super) struct Product<'a> {
    pub(super) op: &'static str,
    pub(super) left: &'a [f32],
    /// Rows of `left` to multiply, in this order; `None` for all.
    pub(super) picked: Option<&'a [u32]>,
    pub(super) norm: Option<RowNorm<'a>>,
    /// Consecutive rows that meet the same weights.
    pub(super) parts: &'a [Part<'a>],
    pub(super) k: usize,
    pub(super) k_words: usize,
    pub(super) chunks: usize,
    /// Padded to whole blocks.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) finish: Finish,
    pub(super) out_columns: usize,
}

pub(super) struct Part<'a> {
    pub(super) rows: usize,
    pub(super) right: &'a [u32],
    /// As in [`Panel`].
    pub(super) scales: Option<&'a [f32]>,
}

/// Computes `product` into `out`, `[rows of all parts, out_columns]`, in one run of the pool.
pub(super) fn multiply(
    product: &Product<'_>,
    kernels: &ProductKernels,
    pool: &PoolLane,
    scratch: &mut Words,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let left_row_words = product.chunks * (kernels.left_chunk_words)(product.k_words / product.chunks);
    let cuts = Cut::all(product, kernels.grouping, left_row_words, pool.threads());
    let Some(last) = cuts.last() else { return Ok(()) };
    let (rows, tasks) = (last.first_row + last.rows, last.first_task + last.grid.tasks());
    assert_eq!(out.len(), rows * product.out_columns, "the output has a place for every row");
    assert!(product.picked.is_none_or(|picked| picked.len() == rows), "every row is picked from somewhere");
    scratch.reserve(rows * left_row_words)?;
    let packed = &mut scratch.as_mut_slice()[..rows * left_row_words];
    pack_left(product, &cuts, kernels, pool, packed)?;

    let out = Shared::new(out);
    let left: &[u32] = packed;
    pool.run(product.op, tasks, &|task| {
        let cut = &cuts[cuts.partition_point(|cut| cut.first_task <= task) - 1];
        let (groups, blocks) = cut.grid.part(task - cut.first_task);
        let part = Panel {
            left: &left[cut.first_row * left_row_words..],
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

/// A part that has rows, cut into groups of rows and into tasks.
struct Cut<'a> {
    first_row: usize,
    rows: usize,
    group_rows: usize,
    /// Number of the first group, counted over all parts.
    first_group: usize,
    first_task: usize,
    right: &'a [u32],
    scales: Option<&'a [f32]>,
    grid: Grid,
}

impl<'a> Cut<'a> {
    /// Cuts each part that has rows.
    fn all(product: &Product<'a>, grouping: Grouping, left_row_words: usize, threads: usize) -> Vec<Cut<'a>> {
        let (mut first_row, mut first_group, mut first_task) = (0, 0, 0);
        let parts = product.parts.iter().filter(|part| part.rows > 0);
        let cuts = parts.map(|part| {
            let group_rows = grouping.group_rows(part.rows);
            let groups = part.rows.div_ceil(group_rows);
            let blocks = part.right.len() / (BLOCK_COLUMNS * product.k_words);
            let group_bytes = group_rows * left_row_words * size_of::<u32>();
            let band_groups = (grouping.band_bytes_max / group_bytes).clamp(4, BAND_GROUPS_MAX).min(groups);
            let band = Band { groups: band_groups, rows: band_groups * group_rows };
            let enough = enough_blocks(product, &band, grouping.task_macs_min);
            let grid = Grid::new(band, enough, groups, blocks, threads);
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

/// Rule that cuts rows into groups, one per register tile, and bands, one per task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grouping {
    pub(super) rows_max: usize,
    pub(super) sizes: GroupSizes,
    /// Most bytes of a task's packed activations, if it has more than four groups: they stay in the second-level cache
    /// beside the current and the next block of weights.
    pub(super) band_bytes_max: usize,
    /// Least multiply-adds in a task: some 20 to 100 µs of one core.
    pub(super) task_macs_min: usize,
}

/// Sizes of the groups.
#[derive(Debug, Clone, Copy)]
pub(super) enum GroupSizes {
    /// About equal: 16 rows are 8 + 8 rather than 12 + 4.
    Even,
    /// Full groups and a rest: a tile of few rows costs less than two half-full tiles.
    Full,
}

impl Grouping {
    /// Rows of every group but the last.
    fn group_rows(self, rows: usize) -> usize {
        match self.sizes {
            GroupSizes::Even => rows.div_ceil(rows.div_ceil(self.rows_max)),
            GroupSizes::Full => rows.min(self.rows_max),
        }
    }
}

fn pack_left(
    product: &Product<'_>,
    cuts: &[Cut<'_>],
    kernels: &ProductKernels,
    pool: &PoolLane,
    packed: &mut [u32],
) -> Result<(), KernelError> {
    let rows = cuts.last().map_or(0, |cut| cut.first_row + cut.rows);
    let row_words = packed.len() / rows.max(1);
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

/// Tasks of a product: bands of row groups times ranges of column blocks.
struct Grid {
    groups: usize,
    blocks: usize,
    groups_per_band: usize,
    blocks_per_task: usize,
}

struct Band {
    groups: usize,
    rows: usize,
}

/// Least number of blocks in a task of a band. Several groups fetch the next block while they multiply the current one,
/// so they wait for the first block of a task, and more blocks are better; a single group fetches its own block.
fn enough_blocks(product: &Product<'_>, band: &Band, task_macs_min: usize) -> usize {
    let block_macs = band.rows * BLOCK_COLUMNS * product.k;
    let block_bytes = BLOCK_COLUMNS * product.k_words * size_of::<u32>();
    let enough = task_macs_min.div_ceil(block_macs);
    if band.groups == 1 { enough.min(TASK_BYTES_MIN.div_ceil(block_bytes)) } else { enough }
}

impl Grid {
    fn new(band: Band, enough: usize, groups: usize, blocks: usize, threads: usize) -> Self {
        // A small product still gives every thread a task.
        let blocks_per_task = enough.clamp(1, blocks.div_ceil(threads).max(1));
        Self { groups, blocks, groups_per_band: band.groups, blocks_per_task }
    }

    fn tasks(&self) -> usize {
        self.groups.div_ceil(self.groups_per_band) * self.blocks.div_ceil(self.blocks_per_task)
    }

    /// Row groups and blocks of a task. Consecutive tasks have the same rows.
    fn part(&self, task: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let per_band = self.blocks.div_ceil(self.blocks_per_task);
        let (band, range) = (task / per_band, task % per_band);
        let (first_group, first_block) = (band * self.groups_per_band, range * self.blocks_per_task);
        let groups = first_group..(first_group + self.groups_per_band).min(self.groups);
        (groups, first_block..(first_block + self.blocks_per_task).min(self.blocks))
    }
}

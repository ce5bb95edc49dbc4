//! Helpers of the kernel tests: implementations under test, numbers, and a cache with sequences.

#![allow(dead_code, clippy::expect_used, clippy::panic, reason = "helpers of tests; each binary uses its own part")]

use std::sync::Arc;

use half::{bf16, f16};
use kernels::memory::{Backing, HostMemory};
use kernels::numerics::PairOrder;
use kernels::reference::ReferenceOps;
use kernels::{
    AttentionSpec, Batch, BatchSequence, CpuOps, Dtype, Epilogue, HeadShape, KernelSet, KvDtype, KvGeometry, KvPart,
    KvView, Left, MatrixSource, Ops, Placement, Pool, QkvSpec, StepInput, StepShape, TilePlace, VectorSource,
};

/// Every kernel set of this processor, with 1 and with 2 threads.
pub(crate) fn implementations() -> Vec<(String, CpuOps)> {
    let sets = KernelSet::ALL.into_iter().filter(|set| set.is_available());
    sets.flat_map(|set| [1, 2].map(|threads| (format!("{set}, {threads} threads"), cpu(set, threads)))).collect()
}

/// Result of the reference in each order of sums.
pub(crate) struct Expected<T>([T; 2]);

impl<T> Expected<T> {
    pub(crate) fn new(compute: impl Fn(&mut ReferenceOps) -> T) -> Self {
        Self(PairOrder::ALL.map(|order| compute(&mut ReferenceOps::in_order(order))))
    }

    pub(crate) fn first(&self) -> &T {
        &self.0[0]
    }

    pub(crate) fn of(&self, ops: &CpuOps) -> &T {
        let index = PairOrder::ALL.iter().position(|order| *order == ops.kernel_set().pair_order());
        &self.0[index.expect("one of all orders")]
    }
}

pub(crate) fn cpu(set: KernelSet, threads: usize) -> CpuOps {
    let pool = Pool::new(&Placement::Floating(threads)).expect("threads start");
    CpuOps::new(Arc::new(pool), set).expect("the set is available")
}

/// Numbers in (-1, 1) that depend on the seed and the index only.
pub(crate) fn numbers(seed: u64, count: usize) -> Vec<f32> {
    (0..count as u64).map(|i| mix(seed << 32 | i) as f32 / (1u64 << 39) as f32 - 1.0).collect()
}

fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ z >> 31) >> 24
}

pub(crate) fn encode(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

pub(crate) struct Weights {
    pub(crate) bytes: Vec<u8>,
    pub(crate) dtype: Dtype,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

impl Weights {
    pub(crate) fn new(seed: u64, dtype: Dtype, n: usize, k: usize) -> Self {
        Self { bytes: encode(&numbers(seed, n * k), dtype), dtype, n, k }
    }

    pub(crate) fn source(&self) -> MatrixSource<'_> {
        MatrixSource { bytes: &self.bytes, dtype: self.dtype, n: self.n, k: self.k }
    }
}

pub(crate) fn vector<O: Ops>(ops: &O, values: &[f32]) -> O::Vector {
    let bytes = encode(values, Dtype::F32);
    ops.vector(&[VectorSource { bytes: &bytes, dtype: Dtype::F32 }]).expect("a vector")
}

pub(crate) fn rows<O: Ops>(ops: &O, cols: usize, values: &[f32]) -> O::Rows {
    let mut rows = ops.rows(values.len() / cols, cols).expect("rows");
    ops.write_rows(&mut rows, values).expect("whole rows");
    rows
}

pub(crate) fn values<O: Ops>(ops: &O, rows: &O::Rows, count: usize) -> Vec<f32> {
    let mut out = vec![0.0; count];
    ops.read_rows(rows, &mut out).expect("as many values as asked for");
    out
}

pub(crate) trait HostOps: Ops<Kv = KvView> {}

impl<O: Ops<Kv = KvView>> HostOps for O {}

/// `left · wᵀ`, read back.
pub(crate) fn product<O: Ops>(ops: &mut O, left: Left<'_, O>, w: &O::Matrix, rows: usize, n: usize) -> Vec<f32> {
    let mut out = ops.rows(rows, n).expect("rows");
    ops.linear(left, w, None, Epilogue::Store, &mut out).expect("linear");
    values(ops, &out, rows * n)
}

/// A step of one sequence in a pool of one block, with `rows` rows from `first_position` on, for operations that read
/// no cache.
pub(crate) fn lookup<O: HostOps>(
    ops: &mut O,
    (first_position, rows): (u32, u32),
    tokens: &[u32],
    wanted: &[u32],
) -> O::Step {
    let geometry =
        KvGeometry { blocks: 1, layers: 1, kv_heads: 1, head_dim: 16, block_tokens: 16, dtype: KvDtype::F32 };
    let memory = HostMemory::new(geometry.pool_bytes(), Backing::Anonymous).expect("memory");
    let kv = KvView::new(Arc::new(memory), geometry).expect("a view");
    let (rows_max, wanted_max) = (rows as usize, wanted.len());
    let mut step = ops.step(&StepShape { rows_max, wanted_max, attentions: Vec::new() }).expect("room for a step");
    let blocks = vec![0; (first_position + rows).div_ceil(16) as usize];
    let sequences = [BatchSequence { rows: 0..rows, blocks: 0..blocks.len() as u32, first_position }];
    let batch = Batch { sequences: &sequences, blocks: &blocks };
    ops.begin(&mut step, &kv, StepInput { tokens, batch, wanted }).expect("a step that fits");
    step
}

/// Compares bits; the message names the first difference.
#[track_caller]
pub(crate) fn assert_same_bits(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: lengths");
    let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
    let count = found.iter().zip(expected).filter(|pair| differs(*pair)).count();
    if let Some(i) = found.iter().zip(expected).position(differs) {
        panic!("{what}: {count} of {} differ, first {i}: {:e} instead of {:e}", found.len(), found[i], expected[i]);
    }
}

/// Attention of a decoder layer without projections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer {
    pub(crate) shape: HeadShape,
    pub(crate) head_norms: bool,
    pub(crate) rotated: bool,
    pub(crate) sliding_window: Option<u32>,
}

/// One step: index of each sequence and number of its new tokens.
pub(crate) type Step<'a> = &'a [(usize, usize)];

/// A cache in memory full of NaN, with sequences that grow step by step.
pub(crate) struct Cache<'a, O: HostOps> {
    ops: &'a mut O,
    layer: Layer,
    pub(crate) kv: KvView,
    rope: O::Rope,
    norms: [O::Vector; 2],
    lengths: Vec<usize>,
    blocks_per_sequence: usize,
    query_scale: f32,
}

const TOKENS_MAX: usize = 640;
/// Layer that the tests use; its neighbours must not change.
const LAYER: u32 = 1;

impl<'a, O: HostOps> Cache<'a, O> {
    pub(crate) fn new(ops: &'a mut O, layer: Layer, geometry: KvGeometry, sequences: usize) -> Self {
        let memory = HostMemory::new(geometry.pool_bytes(), Backing::Anonymous).expect("memory");
        // SAFETY: the mapping has just been made and nobody else knows it. All ones is a NaN in every dtype.
        unsafe { std::ptr::write_bytes(memory.as_ptr(), 0xff, geometry.pool_bytes()) };
        let kv = KvView::new(Arc::new(memory), geometry).expect("a view");
        let dim = layer.shape.head_dim;
        let frequencies: Vec<f32> = (0..dim / 2).map(|i| 10_000f32.powf(-2.0 * i as f32 / dim as f32)).collect();
        let rope = ops.rope(TOKENS_MAX, &frequencies, 1.0).expect("a table");
        let norms = [vector(ops, &numbers(71, dim)), vector(ops, &numbers(72, dim))];
        let blocks_per_sequence = geometry.blocks / sequences;
        Self { ops, layer, kv, rope, norms, lengths: vec![0; sequences], blocks_per_sequence, query_scale: 1.0 }
    }

    pub(crate) fn queries_scaled_by(&mut self, scale: f32) {
        self.query_scale = scale;
    }

    /// Appends tokens to sequences and returns their attention, one after the other. A token's q, k and v depend on its
    /// sequence and position only.
    pub(crate) fn step(&mut self, step: Step<'_>) -> Vec<f32> {
        let (shape, cols) = (self.layer.shape, self.layer.shape.qkv_cols());
        let (mut sequences, mut qkv, mut row) = (Vec::new(), Vec::new(), 0);
        for &(sequence, tokens) in step {
            let first = self.lengths[sequence];
            for position in first..first + tokens {
                let values = numbers(1000 + (sequence * TOKENS_MAX + position) as u64, cols);
                let scale = |column| if column < shape.out_cols() { 3.0 * self.query_scale } else { 3.0 };
                qkv.extend(values.iter().enumerate().map(|(column, value)| value * scale(column)));
            }
            let table_start = (sequence * self.blocks_per_sequence) as u32;
            sequences.push(BatchSequence {
                rows: row..row + tokens as u32,
                blocks: table_start..table_start + self.blocks_per_sequence as u32,
                first_position: first as u32,
            });
            row += tokens as u32;
            self.lengths[sequence] += tokens;
        }
        // Block tables run backwards, so that neighbours in a sequence are no neighbours in memory.
        let blocks: Vec<u32> = (0..self.kv.geometry().blocks as u32).rev().collect();
        let batch = Batch { sequences: &sequences, blocks: &blocks };
        let attention = AttentionSpec {
            shape,
            scale: 1.0 / (shape.head_dim as f32).sqrt(),
            sliding_window: self.layer.sliding_window,
        };
        let room = StepShape { rows_max: row as usize, wanted_max: 0, attentions: vec![attention] };
        let mut step = self.ops.step(&room).expect("room for a step");
        let input = StepInput { tokens: &[], batch, wanted: &[] };
        self.ops.begin(&mut step, &self.kv, input).expect("a step that fits");
        let mut qkv = rows(self.ops, cols, &qkv);
        let [q_norm, k_norm] = &self.norms;
        let norm = |vector| self.layer.head_norms.then_some(vector);
        let rope = self.layer.rotated.then_some(&self.rope);
        let spec = QkvSpec { shape, rope, q_norm: norm(q_norm), k_norm: norm(k_norm), norm_eps: 1e-5 };
        self.ops.qkv_append(&mut qkv, &spec, &step, &self.kv, LAYER).expect("qkv_append");
        let mut out = self.ops.rows(row as usize, shape.out_cols()).expect("rows");
        self.ops.attention(&qkv, &attention, &step, &self.kv, LAYER, &mut out).expect("attention");
        values(self.ops, &out, row as usize * shape.out_cols())
    }

    /// Tiles of 16 positions of sequence 0: K and V of all heads of one layer.
    pub(crate) fn tiles(&self, layer: usize, unit: usize) -> Vec<Vec<u8>> {
        let (geometry, bytes) = (*self.kv.geometry(), self.bytes());
        let (block, unit) = (geometry.blocks - 1 - unit / geometry.units(), unit % geometry.units());
        let tiles = (0..geometry.kv_heads).flat_map(|kv_head| {
            [KvPart::Key, KvPart::Value].map(|part| TilePlace { block, layer, part, unit, kv_head })
        });
        tiles.map(|tile| bytes[geometry.tile_offset(tile)..][..geometry.tile_bytes()].to_vec()).collect()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        // SAFETY: the operations have returned, so nobody writes the mapping, and it holds the whole pool.
        unsafe { std::slice::from_raw_parts(self.kv.memory().as_ptr(), self.kv.geometry().pool_bytes()) }.to_vec()
    }
}

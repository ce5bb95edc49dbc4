//! Speed of attention over the paged cache, in the 1.1B shape: 32 heads over 4, 64 values each.
//!
//! `cargo bench -p kernels -- 'decode|prefill|machine'`. Decode reports the bytes of keys and values read, to compare
//! with `machine::read`; the others report floating-point operations, to compare with `machine::bf16_multiply_adds`.
//! Layers rotate over more memory than the caches hold.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to report")]

use std::sync::Arc;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use kernels::cpu::Rows;
use kernels::memory::{Backing, HostMemory};
use kernels::{
    AttentionSpec, Batch, BatchSequence, CpuOps, HeadShape, KernelSet, KvDtype, KvGeometry, KvView, Ops, Placement,
    Pool, StepInput, StepShape,
};

const THREADS: [usize; 2] = [1, 2];
const SHAPE: HeadShape = HeadShape { heads: 32, kv_heads: 4, head_dim: 64 };
const BLOCK_TOKENS: usize = 16;
/// Size of the pool: more than the largest last-level cache of our machines, 480 MiB.
const POOL_BYTES_MIN: usize = 768 << 20;

/// `KERNEL_SET`, or the best one of this processor.
fn kernel_set() -> KernelSet {
    std::env::var("KERNEL_SET").map_or_else(|_| KernelSet::best(), |name| name.parse().expect("a kernel set"))
}

fn main() {
    println!("kernel set {}", kernel_set());
    divan::main();
}

/// Contexts of sequences that decode one token each.
#[derive(Debug, Clone, Copy)]
enum Contexts {
    /// (sequences, positions of each).
    Equal(usize, usize),
    /// One sequence of this many positions beside seven of an eighth of it.
    OneLong(usize),
}

impl Contexts {
    fn lengths(self) -> Vec<usize> {
        match self {
            Contexts::Equal(sequences, context) => vec![context; sequences],
            Contexts::OneLong(context) => [vec![context], vec![context / 8; 7]].concat(),
        }
    }
}

const CONTEXTS: [Contexts; 5] = [
    Contexts::Equal(1, 2048),
    Contexts::Equal(8, 2048),
    Contexts::Equal(1, 4096),
    Contexts::Equal(8, 4096),
    Contexts::OneLong(16384),
];
const DTYPES: [KvDtype; 2] = [KvDtype::Bf16, KvDtype::Int8];

fn cases() -> Vec<(usize, KvDtype, Contexts)> {
    let dtypes = CONTEXTS.iter().flat_map(|&contexts| DTYPES.map(|dtype| (dtype, contexts)));
    dtypes.flat_map(|(dtype, contexts)| THREADS.map(|threads| (threads, dtype, contexts))).collect()
}

/// Bytes of keys and values read.
#[divan::bench(args = cases(), sample_count = 20)]
fn decode(bencher: Bencher<'_, '_>, (threads, dtype, contexts): (usize, KvDtype, Contexts)) {
    let lengths = contexts.lengths();
    let mut bench = Bench::new(threads, SHAPE, dtype, &lengths, 1);
    let geometry = *bench.kv.geometry();
    let blocks: usize = lengths.iter().map(|length| length.div_ceil(BLOCK_TOKENS)).sum();
    let bytes = blocks * geometry.block_bytes();
    bencher.counter(BytesCount::new(bytes)).bench_local(|| bench.attend_all_layers());
}

/// Floating-point operations of one sequence whose keys and values stay in the second-level cache: `decode` without the
/// time of memory.
#[divan::bench(args = DTYPES.iter().flat_map(|&dtype| THREADS.map(|threads| (threads, dtype))).collect::<Vec<_>>())]
fn decode_from_cache(bencher: Bencher<'_, '_>, (threads, dtype): (usize, KvDtype)) {
    const CONTEXT: usize = 768;
    let mut bench = Bench::new(threads, SHAPE, dtype, &[CONTEXT], 1);
    bencher.counter(ItemsCount::new(4 * SHAPE.out_cols() * CONTEXT)).bench_local(|| bench.attend(0));
}

/// Bytes of keys and values read if every query head has its own.
#[divan::bench(args = DTYPES.iter().flat_map(|&dtype| THREADS.map(|threads| (threads, dtype))).collect::<Vec<_>>())]
fn decode_without_groups(bencher: Bencher<'_, '_>, (threads, dtype): (usize, KvDtype)) {
    const LENGTHS: [usize; 4] = [2048; 4];
    let mut bench = Bench::new(threads, HeadShape { heads: 12, kv_heads: 12, head_dim: 64 }, dtype, &LENGTHS, 1);
    let bytes = bench.kv.geometry().pool_bytes();
    bencher.counter(BytesCount::new(bytes)).bench_local(|| bench.attend_all_layers());
}

/// Floating-point operations of the causal part of a prompt.
#[divan::bench(args = DTYPES.iter().flat_map(|&dtype| [512, 2048].map(|rows| THREADS.map(|threads| (threads, dtype, rows)))).flatten().collect::<Vec<_>>())]
fn prefill(bencher: Bencher<'_, '_>, (threads, dtype, rows): (usize, KvDtype, usize)) {
    let mut bench = Bench::new(threads, SHAPE, dtype, &[rows], rows);
    let flops = 4 * SHAPE.out_cols() * (rows * (rows + 1) / 2);
    bencher.counter(ItemsCount::new(flops)).bench_local(|| bench.attend(0));
}

/// The last `tokens` positions of some sequences, over all their positions.
struct Bench {
    ops: CpuOps,
    shape: HeadShape,
    kv: KvView,
    qkv: Rows,
    out: Rows,
    step: <CpuOps as Ops>::Step,
}

impl Bench {
    fn new(threads: usize, shape: HeadShape, dtype: KvDtype, lengths: &[usize], tokens: usize) -> Self {
        let pool = Pool::new(&Placement::Cores((0..threads).collect())).expect("cores exist");
        pool.pin_caller().expect("core 0 exists");
        let mut ops = CpuOps::new(Arc::new(pool), kernel_set()).expect("the best set is available");
        let (mut sequences, mut blocks) = (Vec::new(), 0);
        for (i, length) in (0..).zip(lengths) {
            let end = blocks + length.div_ceil(BLOCK_TOKENS) as u32;
            let first_position = (length - tokens) as u32;
            let rows = i * tokens as u32..(i + 1) * tokens as u32;
            sequences.push(BatchSequence { rows, blocks: blocks..end, first_position });
            blocks = end;
        }
        let mut qkv = ops.rows(lengths.len() * tokens, shape.qkv_cols()).expect("rows");
        let values = vec![0.1; lengths.len() * tokens * shape.qkv_cols()];
        ops.write_rows(&mut qkv, &values).expect("whole rows");
        let out = ops.rows(lengths.len() * tokens, shape.out_cols()).expect("rows");
        // Neighbours in a sequence are no neighbours in memory.
        let table: Vec<u32> = (0..blocks).map(|i| (i * 37) % blocks).collect();
        let kv = filled_pool(shape, dtype, blocks as usize);
        let attention = AttentionSpec { shape, scale: 0.125, sliding_window: None };
        let rows_max = lengths.len() * tokens;
        let room = StepShape { rows_max, wanted_max: 0, attentions: vec![attention] };
        let mut step = ops.step(&room).expect("room for a step");
        let batch = Batch { sequences: &sequences, blocks: &table };
        ops.begin(&mut step, &kv, StepInput { tokens: &[], batch, wanted: &[] }).expect("a step that fits");
        Self { ops, shape, kv, qkv, out, step }
    }

    fn attend_all_layers(&mut self) {
        (0..self.kv.geometry().layers).for_each(|layer| self.attend(layer as u32));
    }

    fn attend(&mut self, layer: u32) {
        let spec = AttentionSpec { shape: self.shape, scale: 0.125, sliding_window: None };
        self.ops.attention(&self.qkv, &spec, &self.step, &self.kv, layer, &mut self.out).expect("attention");
    }
}

/// A pool with more layers than the caches hold. Every word is a small positive number in every dtype.
fn filled_pool(shape: HeadShape, dtype: KvDtype, blocks: usize) -> KvView {
    let HeadShape { kv_heads, head_dim, .. } = shape;
    let one = KvGeometry { blocks, layers: 1, kv_heads, head_dim, block_tokens: BLOCK_TOKENS, dtype };
    let geometry = KvGeometry { layers: POOL_BYTES_MIN.div_ceil(one.pool_bytes()), ..one };
    let memory = HostMemory::new(geometry.pool_bytes(), Backing::Anonymous).expect("memory");
    let words = memory.as_ptr().cast::<u32>();
    for i in 0..geometry.pool_bytes() / 4 {
        let value = 0x3c00_3c00 | (i as u32 * 37 % 251);
        // SAFETY: the mapping holds so many words, and only this function knows it.
        unsafe { words.add(i).write(value) };
    }
    KvView::new(Arc::new(memory), geometry).expect("a view")
}

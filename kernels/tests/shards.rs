//! Windows of a pool and shards of a layer have the bits of the whole, and so have the sums of several ranks.

#![expect(clippy::expect_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;

use common::{
    Expected, HostOps, Weights, assert_same_bits, cpu, implementations, lookup, numbers, rows, values, vector,
};
use kernels::memory::{Backing, HostMemory};
use kernels::reference::ReferenceOps;
use kernels::{
    Arrangement, AttentionSpec, Batch, BatchSequence, Dtype, Epilogue, HeadShape, KShard, KernelSet, KvDtype,
    KvGeometry, KvView, Left, MatrixSource, Ops, QkvSpec, StepInput, StepShape,
};

const LAYERS: usize = 3;
const TOKENS: usize = 45;
const SHAPE: HeadShape = HeadShape { heads: 8, kv_heads: 4, head_dim: 32 };

fn pool(dtype: KvDtype) -> KvView {
    let geometry = KvGeometry {
        blocks: 6,
        layers: LAYERS,
        kv_heads: SHAPE.kv_heads,
        head_dim: SHAPE.head_dim,
        block_tokens: 16,
        dtype,
    };
    let memory = HostMemory::new(geometry.pool_bytes(), Backing::Anonymous).expect("memory");
    KvView::new(Arc::new(memory), geometry).expect("a view")
}

fn bytes(kv: &KvView) -> Vec<u8> {
    // SAFETY: the operations have returned, so nobody writes the mapping.
    unsafe { std::slice::from_raw_parts(kv.memory().as_ptr(), kv.memory().len()) }.to_vec()
}

/// Columns of some heads in the queries, keys and values of one token.
fn columns_of(qkv: &[f32], heads: std::ops::Range<usize>, kv_heads: std::ops::Range<usize>) -> Vec<f32> {
    let dim = SHAPE.head_dim;
    let part =
        |first: usize, heads: &std::ops::Range<usize>| &qkv[(first + heads.start) * dim..(first + heads.end) * dim];
    let keys = SHAPE.heads;
    [part(0, &heads), part(keys, &kv_heads), part(keys + SHAPE.kv_heads, &kv_heads)].concat()
}

/// Appends `TOKENS` tokens to one layer of `kv`; returns their attention.
fn attend<O: HostOps>(ops: &mut O, kv: &KvView, layer: u32, shape: HeadShape, qkv: &[f32]) -> Vec<f32> {
    let sequences = [BatchSequence { rows: 0..TOKENS as u32, blocks: 0..3, first_position: 0 }];
    let batch = Batch { sequences: &sequences, blocks: &[5, 0, 2] };
    let frequencies: Vec<f32> = (0..shape.head_dim / 2).map(|i| 1.0 / (1.0 + i as f32)).collect();
    let rope = ops.rope(64, &frequencies, 1.0).expect("a table");
    let mut qkv = rows(ops, shape.qkv_cols(), qkv);
    let finish = QkvSpec { shape, rope: Some(&rope), q_norm: None, k_norm: None, norm_eps: 1e-5 };
    let weigh = AttentionSpec { shape, scale: 0.2, sliding_window: None };
    let room = StepShape { rows_max: TOKENS, wanted_max: 0, attentions: vec![weigh] };
    let mut step = ops.step(&room).expect("room for a step");
    ops.begin(&mut step, kv, StepInput { tokens: &[], batch, wanted: &[] }).expect("a step that fits");
    ops.qkv_append(&mut qkv, &finish, &step, kv, layer).expect("qkv_append");
    let mut out = ops.rows(TOKENS, shape.out_cols()).expect("rows");
    ops.attention(&qkv, &weigh, &step, kv, layer, &mut out).expect("attention");
    values(ops, &out, TOKENS * shape.out_cols())
}

fn windows_equal_the_whole<O: HostOps>(ops: &mut O, dtype: KvDtype, name: &str) {
    let (whole, parts) = (pool(dtype), pool(dtype));
    let (cols, out_cols) = (SHAPE.qkv_cols(), SHAPE.out_cols());
    for layer in 0..LAYERS {
        let qkv = numbers(40 + layer as u64, TOKENS * cols);
        let expected = attend(ops, &whole, layer as u32, SHAPE, &qkv);
        for ranks in [1, 2, 4] {
            let (heads, kv_heads) = (SHAPE.heads / ranks, SHAPE.kv_heads / ranks);
            for rank in 0..ranks {
                let window = parts.window(layer..layer + 1, rank * kv_heads..(rank + 1) * kv_heads).expect("a window");
                let own = heads * rank..heads * (rank + 1);
                let columns = |token: &[f32]| columns_of(token, own.clone(), rank * kv_heads..(rank + 1) * kv_heads);
                let part: Vec<f32> = qkv.chunks_exact(cols).flat_map(columns).collect();
                let shape = HeadShape { heads, kv_heads, ..SHAPE };
                let found = attend(ops, &window, 0, shape, &part);
                let (from, to) = (own.start * SHAPE.head_dim, own.end * SHAPE.head_dim);
                let wanted: Vec<f32> =
                    expected.chunks_exact(out_cols).flat_map(|row| &row[from..to]).copied().collect();
                assert_same_bits(&found, &wanted, &format!("{name}: rank {rank} of {ranks}, layer {layer}"));
            }
        }
    }
    assert!(bytes(&whole) == bytes(&parts), "{name}: the windows filled other bytes than the whole");
    for layers in [0..1, 1..LAYERS] {
        for heads in [0..1, 1..4] {
            let window = parts.window(layers.clone(), heads).expect("a window");
            ops.copy_blocks(&window, &[(5, 1), (0, 3)]).expect("copy_blocks");
        }
    }
    ops.copy_blocks(&whole, &[(5, 1), (0, 3)]).expect("copy_blocks");
    assert!(bytes(&whole) == bytes(&parts), "{name}: the windows copied other bytes than the whole");
}

#[test]
fn windows_of_a_pool_are_the_pool() {
    for dtype in [KvDtype::Bf16, KvDtype::F32, KvDtype::Int8] {
        windows_equal_the_whole(&mut ReferenceOps::default(), dtype, "reference");
        for (name, mut ops) in implementations() {
            windows_equal_the_whole(&mut ops, dtype, &name);
        }
    }
}

#[test]
fn windows_outside_their_pool_are_refused() {
    let kv = pool(KvDtype::Bf16);
    assert!(kv.window(0..LAYERS + 1, 0..1).is_err());
    assert!(kv.window(0..1, 3..5).is_err());
    assert!(kv.window(1..1, 0..1).is_err());
    let inner = kv.window(1..3, 2..4).expect("a window").window(1..2, 1..2).expect("a window of a window");
    assert_eq!((inner.geometry().layers, inner.geometry().kv_heads), (1, 1));
    assert!(inner.window(0..2, 0..1).is_err());
    let mut ops = cpu(KernelSet::best(), 1);
    assert!(ops.copy_blocks(&inner, &[(0, 6)]).is_err());
}

/// A product with bias and residual: the whole, or the sum of the shards of `ranks`.
fn product<O: Ops>(ops: &mut O, parts: &[MatrixSource<'_>], x: &[f32], ranks: Option<usize>) -> Vec<f32> {
    let (n, k): (usize, usize) = (parts.iter().map(|part| part.n).sum(), parts[0].k);
    let m = x.len() / k;
    let bias = vector(ops, &numbers(8, n));
    let mut out = rows(ops, n, &numbers(9, m * n));
    match ranks {
        None => {
            let matrix = ops.matrix(parts, Arrangement::Stacked).expect("a matrix");
            let left = rows(ops, k, x);
            ops.linear(Left::plain(&left), &matrix, Some(&bias), Epilogue::AddTo, &mut out).expect("linear");
        }
        Some(ranks) => {
            let roots: Vec<Vec<f32>> = (0..ranks).map(|rank| shard(ops, parts, x, rank, ranks)).collect();
            let sum = rows(ops, n, &tree(&roots));
            ops.add(&sum, Some(&bias), &mut out).expect("add");
        }
    }
    values(ops, &out, m * n)
}

fn shard<O: Ops>(ops: &mut O, parts: &[MatrixSource<'_>], x: &[f32], index: usize, of: usize) -> Vec<f32> {
    let (n, k): (usize, usize) = (parts.iter().map(|part| part.n).sum(), parts[0].k);
    let matrix = ops.matrix(parts, Arrangement::Partial(KShard { index, of })).expect("a shard");
    let own = k / of;
    let columns: Vec<f32> = x.chunks_exact(k).flat_map(|row| &row[index * own..(index + 1) * own]).copied().collect();
    let left = rows(ops, own, &columns);
    let mut out = ops.rows(x.len() / k, n).expect("rows");
    ops.linear(Left::plain(&left), &matrix, None, Epilogue::Store, &mut out).expect("a partial product");
    values(ops, &out, x.len() / k * n)
}

fn tree(roots: &[Vec<f32>]) -> Vec<f32> {
    match roots {
        [root] => root.clone(),
        _ => {
            let (low, high) = roots.split_at(roots.len() / 2);
            tree(low).iter().zip(tree(high)).map(|(a, b)| a + b).collect()
        }
    }
}

#[test]
fn shards_of_a_product_meet_to_the_whole() {
    for dtype in [Dtype::Bf16, Dtype::F16, Dtype::F32] {
        for (n, k) in [(33, 128), (64, 384), (70, 1408)] {
            let parts = [Weights::new(1, dtype, n, k), Weights::new(2, dtype, 5, k)];
            let sources = [parts[0].source(), parts[1].source()];
            for m in [1, 3, 13, 40] {
                let x = numbers(4, m * k);
                let expected = Expected::new(|reference| product(reference, &sources, &x, None));
                for ranks in [1, 2, 4, 8] {
                    let what = format!("{dtype} n={n}+5 k={k} m={m} ranks={ranks}");
                    let found = product(&mut ReferenceOps::default(), &sources, &x, Some(ranks));
                    assert_same_bits(&found, expected.first(), &format!("reference: {what}"));
                    for (name, mut ops) in implementations() {
                        let found = product(&mut ops, &sources, &x, Some(ranks));
                        assert_same_bits(&found, expected.of(&ops), &format!("{name}: {what}"));
                    }
                }
            }
        }
    }
}

#[test]
fn misused_shards_are_refused() {
    fn texts<O: HostOps>(ops: &mut O) -> Vec<String> {
        let weights = Weights::new(1, Dtype::Bf16, 4, 96);
        let shard = |index, of| ops.matrix(&[weights.source()], Arrangement::Partial(KShard { index, of }));
        let refused = [shard(0, 3), shard(2, 2), shard(0, 4)];
        let mut texts: Vec<_> = refused.map(|made| made.err().expect("refused").to_string()).into();
        let part = shard(1, 2).expect("a shard");
        let (x, whole) = (rows(ops, 48, &[1.0; 48]), rows(ops, 96, &[1.0; 96]));
        let (bias, short) = (vector(ops, &[1.0; 4]), vector(ops, &[1.0; 3]));
        let (mut out, mut longer) = (rows(ops, 4, &[0.0; 4]), rows(ops, 4, &[0.0; 8]));
        let (plain, four) = (Left::plain(&x), rows(ops, 4, &[0.0; 4]));
        let step = lookup(ops, (0, 1), &[0], &[]);
        let results = [
            ops.linear(plain, &part, Some(&bias), Epilogue::Store, &mut out),
            ops.linear(plain, &part, None, Epilogue::AddTo, &mut out),
            ops.linear(Left::plain(&whole), &part, None, Epilogue::Store, &mut out),
            ops.gate_up(plain, &part, &mut out),
            ops.embed(&part, &step, &mut out),
            ops.add(&x, None, &mut out),
            ops.add(&four, Some(&short), &mut out),
            ops.add(&four, None, &mut longer),
        ];
        texts.extend(results.map(|result| result.expect_err("refused").to_string()));
        texts
    }
    let expected = texts(&mut ReferenceOps::default());
    assert_eq!(expected[0], "matrix: part 0 of 3 parts of k: there are 1, 2, 4 or 8, counted from 0");
    assert_eq!(expected[2], "matrix: k is 96, must be a multiple of 64 to have 4 parts");
    assert_eq!(texts(&mut cpu(KernelSet::best(), 1)), expected);
}

//! Windows of a pool and shards of a layer are the whole, bit for bit, and ranks that sum up agree with one that is alone.

#![expect(clippy::expect_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;

use common::{assert_same_bits, cpu, implementations, numbers, rows, values};
use kernels::memory::{Backing, HostMemory};
use kernels::reference::ReferenceOps;
use kernels::{AttentionSpec, Batch, BatchSequence, HeadShape, KernelSet, KvDtype, KvGeometry, KvView, Ops, QkvSpec};

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

/// Columns of some heads: queries, keys and values of one token.
fn columns_of(qkv: &[f32], heads: std::ops::Range<usize>, kv_heads: std::ops::Range<usize>) -> Vec<f32> {
    let dim = SHAPE.head_dim;
    let part =
        |first: usize, heads: &std::ops::Range<usize>| &qkv[(first + heads.start) * dim..(first + heads.end) * dim];
    let keys = SHAPE.heads;
    [part(0, &heads), part(keys, &kv_heads), part(keys + SHAPE.kv_heads, &kv_heads)].concat()
}

/// Appends and attends `TOKENS` tokens of one layer of `kv`; what each token got.
fn attend<O: Ops>(ops: &mut O, kv: &KvView, layer: u32, shape: HeadShape, qkv: &[f32]) -> Vec<f32> {
    let sequences = [BatchSequence { rows: 0..TOKENS as u32, blocks: 0..3, first_position: 0 }];
    let batch = Batch { sequences: &sequences, blocks: &[5, 0, 2] };
    let frequencies: Vec<f32> = (0..shape.head_dim / 2).map(|i| 1.0 / (1.0 + i as f32)).collect();
    let rope = ops.rope(64, &frequencies, 1.0).expect("a table");
    let mut qkv = rows(ops, shape.qkv_cols(), qkv);
    let finish = QkvSpec { shape, rope: Some(&rope), q_norm: None, k_norm: None, norm_eps: 1e-5 };
    ops.qkv_append(&mut qkv, &finish, &batch, kv, layer).expect("qkv_append");
    let mut out = ops.rows(TOKENS, shape.out_cols()).expect("rows");
    let weigh = AttentionSpec { shape, scale: 0.2, sliding_window: None };
    ops.attention(&qkv, &weigh, &batch, kv, layer, &mut out).expect("attention");
    values(ops, &out, TOKENS * shape.out_cols())
}

fn windows_equal_the_whole<O: Ops>(ops: &mut O, dtype: KvDtype, name: &str) {
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
    for dtype in [KvDtype::Bf16, KvDtype::F32] {
        windows_equal_the_whole(&mut ReferenceOps, dtype, "reference");
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

//! Exactness: a row's bits do not depend on the other rows, on threads, on chunks of a prompt or on the block size.

mod common;

use common::{Cache, Layer, Weights, assert_same_bits, cpu, implementations, numbers, rows, values, vector};
use kernels::{
    Arrangement, CpuOps, Dtype, Epilogue, HeadShape, KernelSet, KvDtype, KvGeometry, Left, Norm, NormKind, Ops,
    TILE_TOKENS,
};
use proptest::prelude::*;

const KV_DTYPES: [KvDtype; 3] = [KvDtype::Bf16, KvDtype::F32, KvDtype::Int8];
const LAYER: Layer = Layer {
    shape: HeadShape { heads: 8, kv_heads: 2, head_dim: 32 },
    head_norms: true,
    rotated: true,
    sliding_window: None,
};
const WINDOWED: Layer = Layer { sliding_window: Some(150), ..LAYER };
const TOKENS: usize = 300;

fn geometry(layer: Layer, dtype: KvDtype, block_tokens: usize) -> KvGeometry {
    let HeadShape { kv_heads, head_dim, .. } = layer.shape;
    KvGeometry { blocks: 3 * 640 / block_tokens, layers: 2, kv_heads, head_dim, block_tokens, dtype }
}

/// Attention of `TOKENS` tokens of sequence 0, appended in `chunks`.
fn in_chunks(ops: &mut CpuOps, layer: Layer, dtype: KvDtype, block_tokens: usize, chunks: &[usize]) -> Vec<f32> {
    let mut cache = Cache::new(ops, layer, geometry(layer, dtype, block_tokens), 3);
    chunks.iter().flat_map(|&tokens| cache.step(&[(0, tokens)])).collect()
}

#[test]
fn products_do_not_depend_on_the_number_of_rows_or_threads() {
    const COUNTS: [usize; 9] = [1, 2, 3, 8, 12, 16, 17, 64, 200];
    for dtype in [Dtype::Bf16, Dtype::F32] {
        for (n, k) in [(96, 160), (50, 712)] {
            let weights = Weights::new(1, dtype, n, k);
            let x = numbers(2, 200 * k);
            for set in KernelSet::ALL.into_iter().filter(|set| set.is_available()) {
                let mut whole = None;
                for (threads, m) in
                    [2, 1].into_iter().flat_map(|threads| COUNTS.map(|m| (threads, m)).into_iter().rev())
                {
                    let mut ops = cpu(set, threads);
                    let matrix = ops.matrix(&[weights.source()], Arrangement::Stacked).expect("a matrix");
                    let mut out = ops.rows(m, n).expect("rows");
                    let (left, weight) = (rows(&ops, k, &x[..m * k]), vector(&ops, &x[..k]));
                    let left =
                        Left::normed(&left, Norm { kind: NormKind::Layer, weight: &weight, bias: None, eps: 1e-5 });
                    ops.linear(left, &matrix, None, Epilogue::Store, &mut out).expect("linear");
                    let found = values(&ops, &out, m * n);
                    let whole = whole.get_or_insert_with(|| found.clone());
                    assert_same_bits(
                        &found,
                        &whole[..m * n],
                        &format!("{set} {threads} threads {dtype} m={m} n={n} k={k}"),
                    );
                }
            }
        }
    }
}

/// Rows so long that their chunks are cut into pieces, and results so large that they are written past the caches.
#[test]
fn large_products_are_what_single_rows_give() {
    let [m, n, k] = [150, 4100, 2500];
    let x = numbers(3, m * k);
    let weights = Weights::new(4, Dtype::Bf16, n, k);
    let residual = numbers(5, m * n);
    let mut ops = cpu(KernelSet::best(), 2);
    let matrices = [
        ops.matrix(&[weights.source()], Arrangement::Stacked).expect("a matrix"),
        ops.int8_matrix(&[weights.source()], Arrangement::Stacked).expect("a matrix"),
    ];
    for (format, matrix) in ["bf16", "int8"].into_iter().zip(&matrices) {
        for epilogue in [Epilogue::Store, Epilogue::AddTo, Epilogue::Relu] {
            let mut of_rows = |first: usize, count: usize| {
                let left = rows(&ops, k, &x[first * k..][..count * k]);
                let mut out = rows(&ops, n, &residual[first * n..][..count * n]);
                ops.linear(Left::plain(&left), matrix, None, epilogue, &mut out).expect("linear");
                values(&ops, &out, count * n)
            };
            let whole = of_rows(0, m);
            for row in [0, 31, 32, 127, 128, m - 1] {
                assert_same_bits(&whole[row * n..][..n], &of_rows(row, 1), &format!("{format} {epilogue:?} row {row}"));
            }
        }
    }
}

#[test]
fn prefill_in_any_chunks_equals_decode() {
    let decode = vec![1; TOKENS];
    let chunkings: [&[usize]; 6] =
        [&[129, 171], &[37, 37, 37, 37, 37, 37, 37, 37, 4], &[1, 298, 1], &[128, 128, 44], &[15, 1, 1, 283], &decode];
    for layer in [LAYER, WINDOWED] {
        for dtype in KV_DTYPES {
            for (name, mut ops) in implementations() {
                let whole = in_chunks(&mut ops, layer, dtype, 16, &[TOKENS]);
                for chunks in chunkings {
                    let found = in_chunks(&mut ops, layer, dtype, 16, chunks);
                    assert_same_bits(
                        &found,
                        &whole,
                        &format!("{name} {dtype:?} {chunks:?} window {:?}", layer.sliding_window),
                    );
                }
            }
        }
    }
}

#[test]
fn block_sizes_are_equal_bit_for_bit() {
    for dtype in KV_DTYPES {
        for (name, mut ops) in implementations() {
            let expected = in_chunks(&mut ops, LAYER, dtype, 16, &[200, 1, 99]);
            for block_tokens in [32, 48, 64, 112, 128] {
                let found = in_chunks(&mut ops, LAYER, dtype, block_tokens, &[200, 1, 99]);
                assert_same_bits(&found, &expected, &format!("{name} {dtype:?} blocks of {block_tokens}"));
            }
        }
    }
}

#[test]
fn blocks_of_all_sizes_hold_the_same_tiles() {
    for dtype in KV_DTYPES {
        for (name, mut ops) in implementations() {
            let mut tiles = |block_tokens| {
                let mut cache = Cache::new(&mut ops, LAYER, geometry(LAYER, dtype, block_tokens), 3);
                [70, 1, 26].iter().for_each(|&tokens| drop(cache.step(&[(0, tokens)])));
                (0..7).map(|unit| cache.tiles(1, unit)).collect::<Vec<_>>()
            };
            let expected = tiles(16);
            for block_tokens in [32, 48, 128] {
                assert!(tiles(block_tokens) == expected, "{name} {dtype:?}: other tiles in blocks of {block_tokens}");
            }
        }
    }
}

#[test]
fn a_sequence_does_not_notice_its_batch() {
    for (name, mut ops) in implementations() {
        let alone = in_chunks(&mut ops, LAYER, KvDtype::Bf16, 16, &[40, 30, 1, 1]);
        let mut cache = Cache::new(&mut ops, LAYER, geometry(LAYER, KvDtype::Bf16, 16), 3);
        let cols = LAYER.shape.out_cols();
        let mut mixed = cache.step(&[(1, 3), (0, 40), (2, 100)])[3 * cols..43 * cols].to_vec();
        mixed.extend(&cache.step(&[(0, 30), (1, 1), (2, 1)])[..30 * cols]);
        mixed.extend(&cache.step(&[(1, 77), (2, 1), (0, 1)])[78 * cols..]);
        mixed.extend(cache.step(&[(0, 1)]));
        assert_same_bits(&mixed, &alone, &name);
    }
}

/// Memory is full of NaN before it is used: neither results nor the bytes of full blocks may show it.
#[test]
fn what_was_in_memory_before_never_shows() {
    for dtype in KV_DTYPES {
        for (name, mut ops) in implementations() {
            let geometry = geometry(LAYER, dtype, 32);
            let mut cache = Cache::new(&mut ops, LAYER, geometry, 3);
            for step in 0..70 {
                let out = cache.step(&[(0, 1), (1, 1 + step % 3)]);
                assert!(out.iter().all(|v| v.is_finite()), "{name} {dtype:?}: NaN in the output of step {step}");
            }
            // 70 tokens touched the first five tiles, of one layer.
            let is_nan = |tile: &[u8]| match dtype {
                KvDtype::Bf16 => tile.chunks_exact(2).any(|b| b == [0xff; 2]),
                KvDtype::F32 => tile.chunks_exact(4).any(|b| b == [0xff; 4]),
                // All ones is a valid integer, but as a scale it is a NaN.
                KvDtype::Int8 => tile[TILE_TOKENS * geometry.head_dim..].chunks_exact(4).any(|b| b == [0xff; 4]),
            };
            for unit in 0..6 {
                assert!(cache.tiles(0, unit).iter().all(|tile| tile.iter().all(|b| *b == 0xff)), "{name}: other layer");
                let tiles = cache.tiles(1, unit);
                let touched = unit < 5;
                assert!(tiles.iter().all(|tile| is_nan(tile) != touched), "{name} {dtype:?}: what unit {unit} holds");
            }
        }
    }
}

/// NaN scores give NaN results, not the contents of memory that nobody wrote.
#[test]
fn scores_that_are_no_numbers_show() {
    for (head_dim, dtype) in [(32, KvDtype::Bf16), (64, KvDtype::F32), (80, KvDtype::Int8)] {
        let shape = HeadShape { heads: 4, kv_heads: 1, head_dim };
        let layer = Layer { shape, head_norms: false, rotated: false, sliding_window: None };
        for set in KernelSet::ALL.into_iter().filter(|set| set.is_available()) {
            // With many threads and one head, attention is cut along the keys.
            for threads in [1, 8] {
                let mut ops = cpu(set, threads);
                let mut cache = Cache::new(&mut ops, layer, geometry(layer, dtype, 16), 3);
                cache.queries_scaled_by(f32::NAN);
                for step in [[(0, 560)].as_slice(), &[(0, 1)]] {
                    let out = cache.step(step);
                    assert!(out.iter().all(|value| value.is_nan()), "{set} {threads} threads {dtype:?}: a number");
                }
            }
        }
    }
}

/// One sequence over few heads is cut along its keys when there are more threads than heads, with the same bits.
#[test]
fn cutting_along_the_keys_changes_nothing() {
    let shapes = [HeadShape { heads: 3, kv_heads: 1, head_dim: 32 }, HeadShape { heads: 2, kv_heads: 2, head_dim: 16 }];
    for (shape, window) in shapes.into_iter().flat_map(|shape| [(shape, None), (shape, Some(530))]) {
        let layer = Layer { shape, head_norms: false, rotated: true, sliding_window: window };
        for dtype in KV_DTYPES {
            for set in KernelSet::ALL.into_iter().filter(|set| set.is_available()) {
                let mut expected = None;
                for threads in [1, 2, 3, 8] {
                    let mut ops = cpu(set, threads);
                    let mut cache = Cache::new(&mut ops, layer, geometry(layer, dtype, 16), 3);
                    let steps: [&[(usize, usize)]; 4] = [&[(0, 560)], &[(0, 1)], &[(0, 5)], &[(1, 3), (0, 1), (2, 40)]];
                    let found: Vec<f32> = steps.into_iter().flat_map(|step| cache.step(step)).collect();
                    let expected = expected.get_or_insert_with(|| found.clone());
                    let what = format!("{set} {threads} threads {shape:?} {dtype:?} window {window:?}");
                    assert_same_bits(&found, expected, &what);
                }
            }
        }
    }
}

#[test]
fn int8_keys_and_values_are_close_to_f32() {
    let mut ops = cpu(KernelSet::best(), 1);
    let exact = in_chunks(&mut ops, LAYER, KvDtype::F32, 16, &[TOKENS]);
    let int8 = in_chunks(&mut ops, LAYER, KvDtype::Int8, 16, &[TOKENS]);
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v * v)).sum::<f64>().sqrt();
    let error = square(&mut exact.iter().zip(&int8).map(|(a, b)| a - b)) / square(&mut exact.iter().copied());
    assert!(error < 0.02, "relative error {error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Any shape of heads, window, block size and chunks of a prompt.
    #[test]
    fn any_cut_of_any_shape_equals_one_piece(
        (kv_heads, group, dim_steps) in (1usize..=3, 1usize..=7, 1usize..=8),
        window in prop::option::of(1u32..200),
        block_steps in 1usize..=8,
        dtype in prop::sample::select(KV_DTYPES.to_vec()),
        cuts in prop::collection::vec(1usize..90, 1..6),
    ) {
        let shape = HeadShape { heads: kv_heads * group, kv_heads, head_dim: 16 * dim_steps };
        let layer = Layer { shape, head_norms: false, rotated: true, sliding_window: window };
        let mut ops = cpu(KernelSet::best(), 2);
        let whole = in_chunks(&mut ops, layer, dtype, 16, &[cuts.iter().sum()]);
        let found = in_chunks(&mut ops, layer, dtype, 16 * block_steps, &cuts);
        prop_assert!(whole.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

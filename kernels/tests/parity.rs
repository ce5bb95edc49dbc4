//! Every operation of every kernel set against the reference, bit for bit, over odd shapes.

#![expect(clippy::expect_used, reason = "helpers of tests")]

mod common;

use common::{
    Cache, Expected, HostOps, Layer, Weights, assert_same_bits, encode, implementations, lookup, numbers, product,
    rows, values, vector,
};
use kernels::reference::ReferenceOps;
use kernels::{
    Arrangement, Dtype, Epilogue, HeadShape, KvDtype, KvGeometry, Left, MatrixSource, Norm, NormKind, Ops, VectorSource,
};

const DTYPES: [Dtype; 3] = [Dtype::Bf16, Dtype::F16, Dtype::F32];
const SHAPES: [(usize, usize); 6] = [(1, 1), (31, 17), (32, 16), (33, 48), (80, 250), (130, 96)];
const ROWS: [usize; 5] = [1, 2, 7, 13, 40];

/// A product of `m` rows, added to `residual` if there is one.
fn linear<O: Ops>(
    ops: &mut O,
    w: &[MatrixSource<'_>],
    x: &[f32],
    bias: Option<&[f32]>,
    residual: Option<&[f32]>,
) -> Vec<f32> {
    let (n, m) = (w.iter().map(|part| part.n).sum(), x.len() / w[0].k);
    let matrix = ops.matrix(w, Arrangement::Stacked).expect("a matrix");
    let x = rows(ops, w[0].k, x);
    let bias = bias.map(|bias| vector(ops, bias));
    let (epilogue, mut out) = match residual {
        None => (Epilogue::Store, ops.rows(m, n).expect("rows")),
        Some(residual) => (Epilogue::AddTo, rows(ops, n, residual)),
    };
    ops.linear(Left::plain(&x), &matrix, bias.as_ref(), epilogue, &mut out).expect("linear");
    values(ops, &out, m * n)
}

#[test]
fn linear_in_all_forms() {
    for dtype in DTYPES {
        for (n, k) in SHAPES {
            let parts = [Weights::new(1, dtype, n, k), Weights::new(2, dtype, 5, k)];
            let sources = [parts[0].source(), parts[1].source()];
            let bias = numbers(3, n + 5);
            for m in ROWS {
                let (x, residual) = (numbers(4, m * k), numbers(5, m * (n + 5)));
                for (bias, residual) in [(None, None), (Some(&bias[..]), None), (Some(&bias), Some(&residual[..]))] {
                    let expected = Expected::new(|reference| linear(reference, &sources, &x, bias, residual));
                    for (name, mut ops) in implementations() {
                        let found = linear(&mut ops, &sources, &x, bias, residual);
                        assert_same_bits(&found, expected.of(&ops), &format!("{name}: {dtype} m={m} n={n}+5 k={k}"));
                    }
                }
            }
        }
    }
}

#[test]
fn gate_up_and_logits() {
    fn gate_up<O: Ops>(ops: &mut O, parts: &[MatrixSource<'_>], x: &[f32]) -> Vec<f32> {
        let (n, m) = (parts[0].n, x.len() / parts[0].k);
        let matrix = ops.matrix(parts, Arrangement::GateUp).expect("a matrix");
        let x = rows(ops, parts[0].k, x);
        let mut out = ops.rows(m, n).expect("rows");
        ops.gate_up(Left::plain(&x), &matrix, &mut out).expect("gate_up");
        values(ops, &out, m * n)
    }
    fn logits<O: Ops>(ops: &mut O, part: MatrixSource<'_>, x: &[f32]) -> Vec<f32> {
        let matrix = ops.matrix(&[part], Arrangement::Stacked).expect("a matrix");
        let left = rows(ops, part.k, x);
        product(ops, Left::plain(&left), &matrix, x.len() / part.k, part.n)
    }
    for dtype in DTYPES {
        for (n, k) in SHAPES {
            let parts = [Weights::new(1, dtype, n, k), Weights::new(2, dtype, n, k)];
            let sources = [parts[0].source(), parts[1].source()];
            for m in ROWS {
                let x = numbers(4, m * k);
                let expected = Expected::new(|reference| gate_up(reference, &sources, &x));
                let expected_logits = Expected::new(|reference| logits(reference, sources[0], &x));
                for (name, mut ops) in implementations() {
                    let what = format!("{name}: {dtype} m={m} n={n} k={k}");
                    let (found, found_logits) = (gate_up(&mut ops, &sources, &x), logits(&mut ops, sources[0], &x));
                    assert_same_bits(&found, expected.of(&ops), &format!("gate_up {what}"));
                    assert_same_bits(&found_logits, expected_logits.of(&ops), &format!("logits {what}"));
                }
            }
        }
    }
}

/// Both norms before each product, their weights in two parts, with and without a bias; and ReLU.
#[test]
fn norms_on_the_way_in() {
    fn all<O: Ops>(ops: &mut O, w: MatrixSource<'_>, kind: NormKind, bias: Option<&[f32]>, x: &[f32]) -> Vec<f32> {
        let MatrixSource { dtype, n, k, .. } = w;
        let m = x.len() / k;
        let parts = [encode(&numbers(2, 1), dtype), encode(&numbers(3, k - 1), dtype)];
        let weight = ops.vector(&[0, 1].map(|i| VectorSource { bytes: &parts[i], dtype })).expect("a vector");
        let (x, bias) = (rows(ops, k, x), bias.map(|bias| vector(ops, bias)));
        let left = Left::normed(&x, Norm { kind, weight: &weight, bias: bias.as_ref(), eps: 1e-6 });
        let stacked = ops.matrix(&[w], Arrangement::Stacked).expect("a matrix");
        let pair = ops.matrix(&[w, w], Arrangement::GateUp).expect("a matrix");
        let (mut relu, mut gated) = (ops.rows(m, n).expect("rows"), ops.rows(m, n).expect("rows"));
        ops.linear(left, &stacked, None, Epilogue::Relu, &mut relu).expect("linear");
        ops.gate_up(left, &pair, &mut gated).expect("gate_up");
        let logits = product(ops, left, &stacked, m, n);
        let relu = values(ops, &relu, m * n);
        assert!(relu.iter().zip(&logits).all(|(relu, y)| *relu == y.max(0.0)), "ReLU keeps what is above 0");
        [relu, values(ops, &gated, m * n), logits].concat()
    }
    for dtype in DTYPES {
        for (n, k) in [(31, 17), (33, 48), (80, 250), (32, 1000)] {
            let w = Weights::new(1, dtype, n, k);
            let bias = numbers(5, k);
            for (kind, bias) in
                [(NormKind::Rms, None), (NormKind::Layer, None), (NormKind::Layer, Some(bias.as_slice()))]
            {
                for m in [1, 7, 60] {
                    let x: Vec<f32> = numbers(4, m * k).iter().map(|v| v * 30.0 + 7.0).collect();
                    let expected = Expected::new(|reference| all(reference, w.source(), kind, bias, &x));
                    for (name, mut ops) in implementations() {
                        let found = all(&mut ops, w.source(), kind, bias, &x);
                        let what = format!("{name}: {kind:?} bias {} {dtype} m={m} n={n} k={k}", bias.is_some());
                        assert_same_bits(&found, expected.of(&ops), &what);
                    }
                }
            }
        }
    }
}

#[test]
fn row_operations() {
    fn all<O: HostOps>(ops: &mut O, cols: usize, dtype: Dtype, arrangement: Arrangement) -> Vec<f32> {
        let table = Weights::new(1, dtype, 45, cols);
        let table = ops.matrix(&[table.source()], arrangement).expect("a matrix");
        let tokens: Vec<u32> = (0..90).map(|i| i * 7 % 45).collect();
        let mut x = ops.rows(100, cols).expect("rows");
        let step = lookup(ops, (0, 90), &tokens, &[0, 3, 3, 89]);
        ops.embed(&table, &step, &mut x).expect("embed");
        let mut picked = ops.rows(4, cols).expect("rows");
        ops.gather_wanted(&x, &step, &mut picked).expect("gather_wanted");
        [values(ops, &x, 90 * cols), values(ops, &picked, 4 * cols)].concat()
    }
    for dtype in DTYPES {
        for arrangement in [Arrangement::Stacked, Arrangement::Table] {
            for cols in [2, 31, 64, 1000] {
                let expected = all(&mut ReferenceOps::default(), cols, dtype, arrangement);
                for (name, mut ops) in implementations() {
                    let what = format!("{name}: {dtype} {arrangement:?} cols={cols}");
                    assert_same_bits(&all(&mut ops, cols, dtype, arrangement), &expected, &what);
                }
            }
        }
    }
}

/// (heads, kv heads, head size): groups from one row to more than a tile, with and without an odd vector.
const HEADS: [(usize, usize, usize); 7] =
    [(4, 4, 64), (8, 2, 32), (6, 1, 16), (4, 2, 48), (2, 2, 128), (3, 1, 256), (50, 1, 16)];

#[test]
fn attention_with_its_cache() {
    fn all<O: HostOps>(ops: &mut O, layer: Layer, geometry: KvGeometry) -> (Vec<f32>, Vec<u8>) {
        let mut cache = Cache::new(ops, layer, geometry, 3);
        let steps: [&[(usize, usize)]; 4] =
            [&[(0, 70), (1, 1)], &[(1, 3), (0, 75), (2, 18)], &[(2, 1), (0, 1)], &[(0, 5)]];
        let outputs = steps.into_iter().flat_map(|step| cache.step(step)).collect();
        (outputs, cache.bytes())
    }
    for (heads, kv_heads, head_dim) in HEADS {
        for dtype in [KvDtype::Bf16, KvDtype::F32, KvDtype::Int8] {
            for (block_tokens, head_norms, sliding_window) in [(16, false, None), (48, true, Some(30))] {
                let shape = HeadShape { heads, kv_heads, head_dim };
                let layer = Layer { shape, head_norms, rotated: true, sliding_window };
                let geometry = KvGeometry { blocks: 33, layers: 2, kv_heads, head_dim, block_tokens, dtype };
                let expected = Expected::new(|reference| all(reference, layer, geometry));
                assert!(
                    expected.first().0.iter().all(|v| v.is_finite()),
                    "{layer:?} {dtype:?}: the reference leaks NaN"
                );
                for (name, mut ops) in implementations() {
                    let (found, bytes) = all(&mut ops, layer, geometry);
                    let (expected, expected_bytes) = expected.of(&ops);
                    assert_same_bits(&found, expected, &format!("{name}: {layer:?} {dtype:?} {block_tokens}"));
                    assert!(bytes == *expected_bytes, "{name}: {layer:?} {dtype:?} {block_tokens}: other bytes stored");
                }
            }
        }
    }
}

/// Models with learned positions have no rotation; only the block table bounds their positions.
#[test]
fn keys_and_queries_without_rotation() {
    fn all<O: HostOps>(ops: &mut O, rotated: bool) -> Vec<f32> {
        let shape = HeadShape { heads: 4, kv_heads: 4, head_dim: 32 };
        let geometry =
            KvGeometry { blocks: 40, layers: 2, kv_heads: 4, head_dim: 32, block_tokens: 16, dtype: KvDtype::Bf16 };
        let mut cache = Cache::new(ops, Layer { shape, head_norms: false, rotated, sliding_window: None }, geometry, 1);
        [cache.step(&[(0, 150)]), cache.step(&[(0, 1)])].concat()
    }
    let expected = Expected::new(|reference| all(reference, false));
    assert!(*expected.first() != all(&mut ReferenceOps::default(), true), "a rotation changes the result");
    for (name, mut ops) in implementations() {
        assert_same_bits(&all(&mut ops, false), expected.of(&ops), &name);
    }
}

#[test]
fn blocks_are_copied_in_order() {
    fn copied<O: HostOps>(ops: &mut O) -> Vec<u8> {
        let shape = HeadShape { heads: 2, kv_heads: 1, head_dim: 16 };
        let layer = Layer { shape, head_norms: false, rotated: true, sliding_window: None };
        let geometry =
            KvGeometry { blocks: 4, layers: 2, kv_heads: 1, head_dim: 16, block_tokens: 16, dtype: KvDtype::Bf16 };
        let kv = {
            let mut cache = Cache::new(ops, layer, geometry, 1);
            cache.step(&[(0, 40)]);
            cache.kv.clone()
        };
        ops.copy_blocks(&kv, &[(3, 0), (2, 3), (1, 1), (0, 2)]).expect("copy_blocks");
        // SAFETY: the operation has returned, so nobody writes the mapping, and it holds the whole pool.
        unsafe { std::slice::from_raw_parts(kv.memory().as_ptr(), geometry.pool_bytes()) }.to_vec()
    }
    let expected = copied(&mut ReferenceOps::default());
    let block = expected.len() / 4;
    assert!(expected[..block] == expected[2 * block..3 * block], "the second copy of block 3 went through block 0");
    for (name, mut ops) in implementations() {
        assert!(copied(&mut ops) == expected, "{name}");
    }
}

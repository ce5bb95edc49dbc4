//! Products with int8 weights: every kernel set against the reference, bit for bit; shards; distance from f32.

#![expect(clippy::expect_used, reason = "helpers of tests")]

mod common;

use common::{
    HostOps, Weights, assert_same_bits, cpu, implementations, lookup, numbers, product, rows, values, vector,
};
use kernels::numerics::tree_of_chunks;
use kernels::reference::ReferenceOps;
use kernels::{Arrangement, Dtype, Epilogue, KShard, KernelSet, Left, MatrixSource, Norm, NormKind, Ops};

/// (n, k): chunks of 2, 6, 12, 20, 32 and 90 columns, so with and without padding in words, steps and blocks.
const SHAPES: [(usize, usize); 6] = [(1, 1), (31, 48), (32, 96), (33, 157), (80, 256), (40, 713)];
const ROWS: [usize; 5] = [1, 2, 7, 13, 40];

/// Rows with chunks of different magnitudes, and so of different scales.
fn activations(seed: u64, m: usize, k: usize) -> Vec<f32> {
    let magnitude = |i: usize| [0.0, 1.0, 30.0, 0.01][i % k * 4 / k];
    numbers(seed, m * k).iter().enumerate().map(|(i, v)| v * magnitude(i)).collect()
}

fn all<O: HostOps>(ops: &mut O, w: MatrixSource<'_>, x: &[f32]) -> Vec<f32> {
    let MatrixSource { n, k, .. } = w;
    let m = x.len() / k;
    let stacked = ops.int8_matrix(&[w, w], Arrangement::Stacked).expect("a matrix");
    let pair = ops.int8_matrix(&[w, w], Arrangement::GateUp).expect("a matrix");
    let (bias, weight) = (vector(ops, &numbers(3, 2 * n)), vector(ops, &numbers(4, k)));
    let shift = vector(ops, &numbers(5, k));
    let x = rows(ops, k, x);
    let norm = Norm { kind: NormKind::Layer, weight: &weight, bias: Some(&shift), eps: 1e-5 };
    let (plain, normed) = (Left::plain(&x), Left::normed(&x, norm));
    let mut sum = rows(ops, 2 * n, &numbers(6, m * 2 * n));
    let (mut relu, mut gated) = (ops.rows(m, 2 * n).expect("rows"), ops.rows(m, n).expect("rows"));
    let mut table = ops.rows(2, k).expect("rows");
    ops.linear(plain, &stacked, Some(&bias), Epilogue::AddTo, &mut sum).expect("linear");
    ops.linear(normed, &stacked, None, Epilogue::Relu, &mut relu).expect("linear");
    ops.gate_up(normed, &pair, &mut gated).expect("gate_up");
    let stored = product(ops, plain, &stacked, m, 2 * n);
    let step = lookup(ops, (0, 2), &[0, 2 * n as u32 - 1], &[]);
    ops.embed(&stacked, &step, &mut table).expect("embed");
    let read = [values(ops, &sum, m * 2 * n), values(ops, &relu, m * 2 * n), values(ops, &gated, m * n)];
    [read.concat(), stored, values(ops, &table, 2 * k)].concat()
}

#[test]
fn every_kernel_set_returns_the_bits_of_the_reference() {
    for dtype in [Dtype::Bf16, Dtype::F16, Dtype::F32] {
        for (n, k) in SHAPES {
            let weights = Weights::new(1, dtype, n, k);
            for m in ROWS {
                let x = activations(2, m, k);
                let expected = all(&mut ReferenceOps::default(), weights.source(), &x);
                for (name, mut ops) in implementations() {
                    let found = all(&mut ops, weights.source(), &x);
                    assert_same_bits(&found, &expected, &format!("{name}: {dtype} m={m} n={n} k={k}"));
                }
            }
        }
    }
}

#[test]
fn a_row_does_not_notice_its_company() {
    let (n, k) = (96, 712);
    let weights = Weights::new(1, Dtype::Bf16, n, k);
    let x = activations(2, 200, k);
    for set in KernelSet::ALL.into_iter().filter(|set| set.is_available()) {
        let product = |threads: usize, m: usize| {
            let mut ops = cpu(set, threads);
            let matrix = ops.int8_matrix(&[weights.source()], Arrangement::Stacked).expect("a matrix");
            let (left, mut out) = (rows(&ops, k, &x[..m * k]), ops.rows(m, n).expect("rows"));
            ops.linear(Left::plain(&left), &matrix, None, Epilogue::Store, &mut out).expect("linear");
            values(&ops, &out, m * n)
        };
        let whole = product(2, 200);
        for (threads, m) in [(1, 200), (1, 1), (2, 2), (1, 3), (2, 8), (1, 12), (2, 16), (1, 17), (2, 64)] {
            assert_same_bits(&product(threads, m), &whole[..m * n], &format!("{set} {threads} threads m={m}"));
        }
    }
}

#[test]
fn shards_meet_in_the_tree_to_the_whole() {
    fn product<O: Ops>(ops: &mut O, w: MatrixSource<'_>, arrangement: Arrangement, x: &[f32], k: usize) -> Vec<f32> {
        let matrix = ops.int8_matrix(&[w], arrangement).expect("a matrix");
        let (left, mut out) = (rows(ops, k, x), ops.rows(x.len() / k, w.n).expect("rows"));
        ops.linear(Left::plain(&left), &matrix, None, Epilogue::Store, &mut out).expect("linear");
        values(ops, &out, x.len() / k * w.n)
    }
    let (n, k, m) = (40, 16 * 8 * 3, 3);
    let weights = Weights::new(1, Dtype::F32, n, k);
    let x = activations(2, m, k);
    for (name, mut ops) in implementations() {
        let whole = product(&mut ops, weights.source(), Arrangement::Stacked, &x, k);
        for of in [1, 2, 4, 8] {
            let parts: Vec<Vec<f32>> = (0..of)
                .map(|index| {
                    let columns = index * k / of..(index + 1) * k / of;
                    let x: Vec<f32> = x.chunks(k).flat_map(|row| &row[columns.clone()]).copied().collect();
                    let shard = Arrangement::Partial(KShard { index, of });
                    let expected = product(&mut ReferenceOps::default(), weights.source(), shard, &x, k / of);
                    let found = product(&mut ops, weights.source(), shard, &x, k / of);
                    assert_same_bits(&found, &expected, &format!("{name}: shard {index} of {of}"));
                    found
                })
                .collect();
            let met: Vec<f32> =
                (0..m * n).map(|i| tree_of_chunks(&parts.iter().map(|part| part[i]).collect::<Vec<_>>())).collect();
            assert_same_bits(&met, &whole, &format!("{name}: {of} shards"));
        }
    }
}

/// With 127 steps on both sides a product of random numbers is within about 1 % of its size.
#[test]
fn int8_is_close_to_f32() {
    let (n, k, m) = (64, 2048, 4);
    let weights = Weights::new(1, Dtype::F32, n, k);
    let x = numbers(2, m * k);
    let mut ops = cpu(KernelSet::best(), 1);
    let left = rows(&ops, k, &x);
    let mut product = |matrix: &<kernels::CpuOps as Ops>::Matrix| product(&mut ops, Left::plain(&left), matrix, m, n);
    let f32_matrix = cpu(KernelSet::best(), 1).matrix(&[weights.source()], Arrangement::Stacked).expect("a matrix");
    let int8_matrix =
        cpu(KernelSet::best(), 1).int8_matrix(&[weights.source()], Arrangement::Stacked).expect("a matrix");
    let (exact, rounded) = (product(&f32_matrix), product(&int8_matrix));
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>();
    let error = square(&mut exact.iter().zip(&rounded).map(|(a, b)| a - b)) / square(&mut exact.iter().copied());
    assert!(error.sqrt() < 0.01, "relative error {}", error.sqrt());
    assert!(error > 0.0, "int8 weights round something");
}

#[test]
fn what_is_not_finite_shows() {
    let weights = Weights::new(1, Dtype::Bf16, 33, 160);
    for value in [f32::NAN, f32::INFINITY] {
        let mut x = numbers(2, 2 * 160);
        x[160 + 77] = value;
        for (name, mut ops) in implementations() {
            let matrix = ops.int8_matrix(&[weights.source()], Arrangement::Stacked).expect("a matrix");
            let left = rows(&ops, 160, &x);
            let out = product(&mut ops, Left::plain(&left), &matrix, 2, 33);
            assert!(out[..33].iter().all(|v| v.is_finite()), "{name}: the other row is not touched by {value}");
            assert!(out[33..].iter().all(|v| v.is_nan()), "{name}: {value} was rounded away");
        }
    }
}

#[test]
fn misfits_are_named() {
    let part = |bytes, n, k| MatrixSource { bytes, dtype: Dtype::Bf16, n, k };
    let wide = vec![0; 2 * ((1 << 20) + 1)];
    let infinite: Vec<u8> = [0.0f32, f32::INFINITY].iter().flat_map(|v| v.to_le_bytes()).collect();
    let infinite = MatrixSource { bytes: &infinite, dtype: Dtype::F32, n: 1, k: 2 };
    fn texts<O: Ops>(ops: &O, cases: &[(MatrixSource<'_>, Arrangement)]) -> Vec<String> {
        let text = |(part, arrangement): &(MatrixSource<'_>, Arrangement)| {
            ops.int8_matrix(&[*part], *arrangement).map(drop).expect_err("refused").to_string()
        };
        cases.iter().map(text).collect()
    }
    let cases = [
        (part(&wide, 1, (1 << 20) + 1), Arrangement::Stacked),
        (part(&wide[..8], 2, 2), Arrangement::Table),
        (part(&wide[..6], 2, 2), Arrangement::Stacked),
        (infinite, Arrangement::Stacked),
    ];
    let expected = texts(&ReferenceOps::default(), &cases);
    assert_eq!(texts(&cpu(KernelSet::best(), 2), &cases), expected);
    assert_eq!(expected[0], "int8_matrix: columns 1048577 must be less than 1048577");
    assert_eq!(expected[1], "int8_matrix: a table is looked up, not multiplied with: it stays as stored");
}

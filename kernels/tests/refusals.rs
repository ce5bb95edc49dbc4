//! Arguments that do not fit are refused with an error that names the misfit, the same in both implementations.

#![expect(clippy::expect_used, reason = "helpers of tests")]

mod common;

use std::fmt::Debug;
use std::sync::Arc;

use common::{HostOps, Weights, cpu, lookup, rows, vector};
use kernels::memory::{Backing, HostMemory};
use kernels::reference::ReferenceOps;
use kernels::{
    Arrangement, AttentionSpec, Batch, BatchSequence, Dtype, Epilogue, HeadShape, KernelError, KernelSet, KvDtype,
    KvGeometry, KvView, Left, MatrixSource, Norm, NormKind, Ops, QkvSpec, StepInput, StepShape, VectorSource,
};

const SHAPE: HeadShape = HeadShape { heads: 2, kv_heads: 1, head_dim: 16 };
const GEOMETRY: KvGeometry =
    KvGeometry { blocks: 4, layers: 2, kv_heads: 1, head_dim: 16, block_tokens: 16, dtype: KvDtype::Bf16 };

fn kv() -> KvView {
    let memory = HostMemory::new(GEOMETRY.pool_bytes(), Backing::Anonymous).expect("memory");
    KvView::new(Arc::new(memory), GEOMETRY).expect("a view")
}

fn refusals<O: HostOps>(ops: &mut O) -> Vec<String> {
    let mut texts = weight_refusals(ops);
    texts.extend(product_refusals(ops));
    texts.extend(step_refusals(ops));
    texts
}

fn text<T>(result: Result<T, KernelError>) -> String {
    result.map(drop).map_err(|error| error.to_string()).expect_err("the call is refused")
}

fn weight_refusals<O: Ops>(ops: &O) -> Vec<String> {
    let small = Weights::new(1, Dtype::Bf16, 4, 16);
    let other = Weights::new(1, Dtype::F32, 4, 16);
    let narrow = Weights::new(1, Dtype::Bf16, 4, 8);
    let cut = MatrixSource { bytes: &small.bytes[1..], ..small.source() };
    let empty = MatrixSource { bytes: &[], dtype: Dtype::F32, n: 0, k: 3 };
    let odd = VectorSource { bytes: &[0; 3], dtype: Dtype::F16 };
    let big = Weights::new(2, Dtype::F16, 700, 1024);
    let poisoned = |dtype: Dtype, elements: &[usize]| {
        let mut weights = Weights::new(2, dtype, 700, 1024);
        elements.iter().for_each(|i| weights.bytes[i * dtype.bytes()..][..dtype.bytes()].fill(0xff));
        weights
    };
    let late = poisoned(Dtype::F16, &[600_000, 700_007]);
    let infinite = VectorSource { bytes: &[0, 0, 0x80, 0x7f], dtype: Dtype::Bf16 };
    vec![
        text(ops.matrix(&[], Arrangement::Stacked)),
        text(ops.matrix(&[small.source(), other.source()], Arrangement::Stacked)),
        text(ops.matrix(&[small.source(), narrow.source()], Arrangement::Stacked)),
        text(ops.matrix(&[cut], Arrangement::Table)),
        text(ops.matrix(&[empty], Arrangement::Table)),
        text(ops.matrix(&[small.source()], Arrangement::GateUp)),
        text(ops.matrix(&[big.source(), late.source()], Arrangement::GateUp)),
        text(ops.matrix(&[poisoned(Dtype::Bf16, &[0]).source()], Arrangement::Table)),
        text(ops.matrix(&[poisoned(Dtype::F32, &[716_799]).source()], Arrangement::Stacked)),
        text(ops.vector(&[infinite])),
        text(ops.vector(&[odd])),
        text(ops.vector(&[])),
        text(ops.rope(0, &[1.0], 1.0)),
        text(ops.rows(4, 0)),
    ]
}

fn product_refusals<O: HostOps>(ops: &mut O) -> Vec<String> {
    let w = Weights::new(1, Dtype::Bf16, 4, 16);
    let stacked = ops.matrix(&[w.source()], Arrangement::Stacked).expect("a matrix");
    let pair = ops.matrix(&[w.source(), w.source()], Arrangement::GateUp).expect("a matrix");
    let (x, wrong) = (rows(ops, 16, &[0.5; 48]), rows(ops, 8, &[0.5; 24]));
    let (mut four, mut two_rows) = (ops.rows(3, 4).expect("rows"), ops.rows(2, 4).expect("rows"));
    let (bias, weight) = (vector(ops, &[0.0; 5]), vector(ops, &[0.0; 15]));
    let whole = vector(ops, &[0.0; 16]);
    let mut out = ops.rows(3, 16).expect("rows");
    let (beyond, one) = (lookup(ops, (0, 2), &[3, 4], &[]), lookup(ops, (0, 1), &[0], &[]));
    let four_rows = lookup(ops, (0, 4), &[0; 4], &[3]);
    let left = Left::plain(&x);
    let short = |weight, bias| Left::normed(&x, Norm { kind: NormKind::Layer, weight, bias, eps: 1e-5 });
    vec![
        text(ops.linear(Left::plain(&wrong), &stacked, None, Epilogue::Store, &mut four)),
        text(ops.linear(left, &stacked, Some(&bias), Epilogue::Store, &mut four)),
        text(ops.linear(left, &stacked, None, Epilogue::Store, &mut two_rows)),
        text(ops.linear(left, &stacked, None, Epilogue::AddTo, &mut four)),
        text(ops.linear(left, &pair, None, Epilogue::Store, &mut four)),
        text(ops.gate_up(left, &stacked, &mut four)),
        text(ops.linear(short(&weight, None), &stacked, None, Epilogue::Relu, &mut four)),
        text(ops.gate_up(short(&whole, Some(&bias)), &pair, &mut four)),
        text(ops.embed(&stacked, &beyond, &mut out)),
        text(ops.embed(&pair, &one, &mut out)),
        text(ops.embed(&stacked, &four_rows, &mut out)),
        text(ops.gather_wanted(&x, &four_rows, &mut out)),
        text(ops.write_rows(&mut out, &[0.0; 17])),
        text(ops.read_rows(&x, &mut [0.0; 47])),
    ]
}

fn step_refusals<O: HostOps>(ops: &mut O) -> Vec<String> {
    let kv = kv();
    let rope = ops.rope(40, &[0.5; 8], 1.0).expect("a table");
    let mut qkv = rows(ops, SHAPE.qkv_cols(), &vec![0.5; 2 * SHAPE.qkv_cols()]);
    let mut out = ops.rows(2, SHAPE.out_cols()).expect("rows");
    let good = BatchSequence { rows: 0..2, blocks: 0..3, first_position: 15 };
    let mut texts = Vec::new();
    let mut both = |shape: HeadShape, window: Option<u32>, layer: u32, sequence: BatchSequence, blocks: &[u32]| {
        let sequences = [sequence];
        let batch = Batch { sequences: &sequences, blocks };
        let spec = QkvSpec { shape, rope: Some(&rope), q_norm: None, k_norm: None, norm_eps: 0.0 };
        let attention = AttentionSpec { shape, scale: 1.0, sliding_window: window };
        let room = StepShape { rows_max: 2, wanted_max: 0, attentions: vec![attention] };
        let mut step = ops.step(&room).expect("room for a step");
        let begun = ops.begin(&mut step, &kv, StepInput { tokens: &[], batch, wanted: &[] });
        let append = ops.qkv_append(&mut qkv, &spec, &step, &kv, layer);
        let attend = ops.attention(&qkv, &attention, &step, &kv, layer, &mut out);
        texts.push(begun.map_or_else(|error| error.to_string(), |()| "begun".to_owned()));
        texts.push(append.map_or_else(|error| error.to_string(), |()| "appended".to_owned()));
        texts.push(attend.map_or_else(|error| error.to_string(), |()| "attended".to_owned()));
    };
    both(SHAPE, None, 0, good.clone(), &[0, 1, 3]);
    both(SHAPE, None, 2, good.clone(), &[0, 1, 3]);
    both(SHAPE, None, 0, good.clone(), &[0, 4, 3]);
    both(SHAPE, None, 0, good.clone(), &[0, 1]);
    both(SHAPE, Some(0), 0, good.clone(), &[0, 1, 3]);
    both(HeadShape { heads: 3, kv_heads: 2, ..SHAPE }, None, 0, good.clone(), &[0, 1, 3]);
    both(HeadShape { kv_heads: 2, ..SHAPE }, None, 0, good.clone(), &[0, 1, 3]);
    both(HeadShape { heads: 1, kv_heads: 2, ..SHAPE }, None, 0, good.clone(), &[0, 1, 3]);
    both(HeadShape { kv_heads: 0, ..SHAPE }, None, 0, good.clone(), &[0, 1, 3]);
    both(HeadShape { head_dim: 24, ..SHAPE }, None, 0, good.clone(), &[0, 1, 3]);
    both(SHAPE, None, 0, BatchSequence { first_position: 39, ..good.clone() }, &[0, 1, 3]);
    both(SHAPE, None, 0, BatchSequence { first_position: u32::MAX, ..good.clone() }, &[0, 1, 3]);
    both(SHAPE, None, 0, BatchSequence { rows: 0..1, ..good.clone() }, &[0, 1, 3]);
    both(SHAPE, None, 0, BatchSequence { rows: 1..2, ..good.clone() }, &[0, 1, 3]);
    both(SHAPE, None, 0, BatchSequence { rows: 0..0, ..good.clone() }, &[0, 1, 3]);
    both(SHAPE, None, 0, BatchSequence { blocks: 0..1, ..good }, &[0, 1, 3]);
    texts.push(text(ops.copy_blocks(&kv, &[(0, 1), (4, 0)])));
    texts
}

#[test]
fn every_misfit_is_named() {
    let expected = refusals(&mut ReferenceOps::default());
    assert_eq!(expected, refusals(&mut cpu(KernelSet::best(), 2)));
    let named = |text: &str| assert!(expected.iter().any(|found| found == text), "{text:?} is not in {expected:#?}");
    named("matrix: parts mix bf16 and f32");
    named("matrix: bytes of a part is 127, expected 128");
    named("matrix: element 600000 of part 1 is not a finite number");
    named("matrix: element 0 of part 0 is not a finite number");
    named("matrix: element 716799 of part 0 is not a finite number");
    named("vector: element 1 of part 0 is not a finite number");
    named("linear: columns of the left side is 8, expected 16");
    named("linear: weights of the norm is 15, expected 16");
    named("gate_up: biases of the norm is 5, expected 16");
    named("linear: rows 3 must be less than 3");
    named("linear: the matrix was prepared as gate|up, not as stacked");
    named("embed: token 4 must be less than 4");
    named("qkv_append: layer 2 must be less than 2");
    named("begin: block 4 must be less than 4");
    named("begin: a sliding window of 0 positions sees nothing");
    named("begin: entry of the block table 1 must be less than 1");
    named("attention: the step has not begun with this pool");
    named("copy_blocks: block 4 must be less than 4");
    let count = |word: &str| expected.iter().filter(|text| *text == word).count();
    assert_eq!([count("begun"), count("appended"), count("attended")], [4, 1, 2]);
}

/// A sliding window frees blocks: the entries before it may hold anything.
#[test]
fn entries_before_the_window_are_not_looked_at() {
    fn last_row<O: HostOps>(ops: &mut O) -> Vec<f32> {
        let kv = kv();
        let rope = ops.rope(64, &[0.5; 8], 1.0).expect("a table");
        let (cols, mut out) = (SHAPE.qkv_cols(), ops.rows(60, SHAPE.out_cols()).expect("rows"));
        for (first, tokens, blocks) in [(0, 60, [0, 1, 2, 3]), (60, 1, [u32::MAX, 99, 99, 3])] {
            let mut qkv = rows(ops, cols, &common::numbers(9, tokens * cols));
            let sequences = [BatchSequence { rows: 0..tokens as u32, blocks: 0..4, first_position: first }];
            let batch = Batch { sequences: &sequences, blocks: &blocks };
            let spec = QkvSpec { shape: SHAPE, rope: Some(&rope), q_norm: None, k_norm: None, norm_eps: 0.0 };
            let attention = AttentionSpec { shape: SHAPE, scale: 1.0, sliding_window: Some(13) };
            let room = StepShape { rows_max: 60, wanted_max: 0, attentions: vec![attention] };
            let mut step = ops.step(&room).expect("room for a step");
            ops.begin(&mut step, &kv, StepInput { tokens: &[], batch, wanted: &[] }).expect("a step that fits");
            ops.qkv_append(&mut qkv, &spec, &step, &kv, 1).expect("qkv_append");
            ops.attention(&qkv, &attention, &step, &kv, 1, &mut out).expect("attention");
        }
        common::values(ops, &out, SHAPE.out_cols())
    }
    let expected = common::Expected::new(last_row);
    let mut ops = cpu(KernelSet::best(), 1);
    common::assert_same_bits(&last_row(&mut ops), expected.of(&ops), "position 60");
}

#[test]
fn geometry_is_checked() {
    fn refused<T: Debug>(result: Result<T, KernelError>, text: &str) {
        assert_eq!(result.map(|_| ()).map_err(|error| error.to_string()), Err(text.to_owned()));
    }
    refused(KvGeometry { layers: 0, ..GEOMETRY }.validate(), "kv geometry: layers is 0, must be at least 1");
    refused(
        KvGeometry { block_tokens: 24, ..GEOMETRY }.validate(),
        "kv geometry: block_tokens is 24, must be a multiple of 16 between 16 and 128",
    );
    refused(
        KvGeometry { head_dim: 272, ..GEOMETRY }.validate(),
        "kv geometry: head_dim is 272, must be a multiple of 16 between 16 and 256",
    );
    let huge = KvGeometry { blocks: usize::MAX / 1024, ..GEOMETRY };
    assert!(huge.validate().is_err(), "{huge:?} cannot be addressed");
    let small = HostMemory::new(GEOMETRY.pool_bytes() / 2, Backing::Anonymous).expect("memory");
    assert!(KvView::new(Arc::new(small), GEOMETRY).is_err(), "half a pool is no pool");
}

#[test]
fn kernel_sets_have_names() {
    for set in KernelSet::ALL {
        assert_eq!(set.name().parse(), Ok(set));
    }
    let unknown = "sse9".parse::<KernelSet>().expect_err("no such set");
    assert_eq!(unknown.to_string(), "unknown kernel set \"sse9\"; known: amx, avx512bf16, avx2, portable");
}

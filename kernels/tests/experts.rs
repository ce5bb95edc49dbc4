//! Routing and experts: every kernel set against the reference, bit for bit; a row's bits do not depend on other rows.

#![expect(clippy::expect_used, reason = "helpers of tests")]

mod common;

use std::sync::atomic::{AtomicU64, Ordering};

use common::{Expected, HostOps, Weights, assert_same_bits, implementations, lookup, numbers, rows, values, vector};
use kernels::reference::ReferenceOps;
use kernels::{Arrangement, Dtype, ExpertWeights, KShard, Left, Norm, NormKind, Ops, Routing};

#[derive(Debug, Clone, Copy)]
struct Mixture {
    routing: Routing,
    dtype: Dtype,
    hidden: usize,
    width: usize,
    experts: Prepared,
}

/// Format of the experts' weights; the router's are not changed.
#[derive(Debug, Clone, Copy)]
enum Prepared {
    AsStored,
    Int8,
}

/// Output rows of the MLP, and how often each expert was chosen.
#[derive(Debug, PartialEq)]
struct Outcome {
    out: Vec<f32>,
    counts: Vec<u64>,
}

impl Mixture {
    /// Runs the rows of `x` in steps of up to `step` rows; `out` begins as `x`, the residual.
    fn run<O: Ops>(self, ops: &mut O, x: &[f32], step: usize) -> Outcome {
        let Mixture { routing, dtype, hidden, width, experts } = self;
        let matrix = |ops: &O, seed: u64, n: usize, k: usize, arrangement: Arrangement, prepared: Prepared| {
            let parts = [Weights::new(seed, dtype, n, k), Weights::new(seed + 1, dtype, n, k)];
            let sources = [parts[0].source(), parts[1].source()];
            let count = if arrangement == Arrangement::GateUp { 2 } else { 1 };
            match prepared {
                Prepared::AsStored => ops.matrix(&sources[..count], arrangement).expect("a matrix"),
                Prepared::Int8 => ops.int8_matrix(&sources[..count], arrangement).expect("a matrix"),
            }
        };
        let gate = matrix(ops, 50, routing.experts, hidden, Arrangement::Stacked, Prepared::AsStored);
        let seeds = (0..routing.experts as u64).map(|expert| 100 + 10 * expert);
        let gate_up: Vec<O::Matrix> =
            seeds.clone().map(|seed| matrix(ops, seed, width, hidden, Arrangement::GateUp, experts)).collect();
        let down: Vec<O::Matrix> =
            seeds.map(|seed| matrix(ops, seed + 5, hidden, width, Arrangement::Stacked, experts)).collect();
        let weight = vector(ops, &numbers(7, hidden));
        let mut outcome = Outcome { out: Vec::new(), counts: Vec::new() };
        let totals: Vec<_> = (0..2 * routing.experts).map(|_| AtomicU64::new(0)).collect();
        let mut counts = ops.counts(2, routing.experts).expect("counts");
        for x in x.chunks(step * hidden) {
            let count = x.len() / hidden;
            let mut stream = rows(ops, hidden, x);
            let mut logits = ops.rows(count, routing.experts).expect("rows");
            let mut gated = ops.rows(count * routing.per_row, width).expect("rows");
            let mut parts = ops.rows(count * routing.per_row, hidden).expect("rows");
            let mut routes = ops.routes(count, routing).expect("routes");
            let left = Left::normed(&stream, Norm { kind: NormKind::Rms, weight: &weight, bias: None, eps: 1e-5 });
            ops.linear(left, &gate, None, kernels::Epilogue::Store, &mut logits).expect("linear");
            ops.route(&logits, &mut routes).expect("route");
            ops.expert_gate_up(left, &gate_up, &routes, &mut gated).expect("expert_gate_up");
            ops.expert_down(&gated, &down, &routes, &mut parts).expect("expert_down");
            ops.combine(&parts, &routes, &mut stream).expect("combine");
            ops.count_choices(&routes, &mut counts, 1).expect("count_choices");
            outcome.out.extend(values(ops, &stream, x.len()));
        }
        ops.take_counts(&mut counts, &totals).expect("as many totals");
        let (other, counted) = totals.split_at(routing.experts);
        assert!(other.iter().all(|count| count.load(Ordering::Relaxed) == 0), "another layer's");
        outcome.counts = counted.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        outcome
    }
}

/// Ranks with columns of the down projections are summed in the tree before the choices are combined.
#[test]
fn shards_of_the_down_projections_meet_to_the_whole() {
    fn down<O: Ops>(ops: &mut O, x: &[f32], shard: Option<KShard>) -> Vec<f32> {
        const WIDTH: usize = 128;
        let routing = Routing { experts: 3, per_row: 2, weights: ExpertWeights::AmongChosen };
        let mut routes = ops.routes(4, routing).expect("routes");
        ops.route(&rows(ops, 3, &numbers(1, 12)), &mut routes).expect("route");
        let (arrangement, columns) = match shard {
            None => (Arrangement::Stacked, 0..WIDTH),
            Some(KShard { index, of }) => {
                (Arrangement::Partial(KShard { index, of }), index * (WIDTH / of)..(index + 1) * (WIDTH / of))
            }
        };
        let weights = [20, 21, 22].map(|seed| Weights::new(seed, Dtype::Bf16, 40, WIDTH));
        let experts = weights.each_ref().map(|w| ops.matrix(&[w.source()], arrangement).expect("a matrix"));
        let x: Vec<f32> = x.chunks_exact(WIDTH).flat_map(|row| &row[columns.clone()]).copied().collect();
        let mut out = ops.rows(8, 40).expect("rows");
        ops.expert_down(&rows(ops, columns.len(), &x), &experts, &routes, &mut out).expect("expert_down");
        values(ops, &out, 8 * 40)
    }
    let x = numbers(3, 8 * 128);
    let expected = Expected::new(|reference| down(reference, &x, None));
    for (name, mut ops) in implementations() {
        let [a, b] = [0, 1].map(|index| down(&mut ops, &x, Some(KShard { index, of: 2 })));
        let reference = Expected::new(|reference| down(reference, &x, Some(KShard { index: 0, of: 2 })));
        assert_same_bits(&a, reference.of(&ops), &format!("{name}: a shard"));
        let sum: Vec<f32> = a.iter().zip(b).map(|(a, b)| a + b).collect();
        assert_same_bits(&sum, expected.of(&ops), &name);
    }
}

const MIXTRAL: Mixture = Mixture {
    routing: Routing { experts: 6, per_row: 2, weights: ExpertWeights::AmongChosen },
    dtype: Dtype::Bf16,
    hidden: 48,
    width: 80,
    experts: Prepared::AsStored,
};

#[test]
fn kernel_sets_agree_with_the_reference() {
    let all = Routing { experts: 33, per_row: 5, weights: ExpertWeights::AmongAll };
    let only = Routing { experts: 1, per_row: 1, weights: ExpertWeights::AmongAll };
    let every = Routing { experts: 3, per_row: 3, weights: ExpertWeights::AmongChosen };
    for (mixture, dtype) in [
        (MIXTRAL, Dtype::Bf16),
        (MIXTRAL, Dtype::F32),
        (Mixture { routing: all, hidden: 130, width: 17, ..MIXTRAL }, Dtype::Bf16),
        (Mixture { routing: all, hidden: 31, width: 33, ..MIXTRAL }, Dtype::F16),
        (Mixture { experts: Prepared::Int8, ..MIXTRAL }, Dtype::Bf16),
        (Mixture { routing: all, hidden: 130, width: 17, experts: Prepared::Int8, ..MIXTRAL }, Dtype::F32),
        (Mixture { routing: only, ..MIXTRAL }, Dtype::F32),
        (Mixture { routing: every, ..MIXTRAL }, Dtype::Bf16),
    ] {
        let mixture = Mixture { dtype, ..mixture };
        for count in [1, 2, 13, 64] {
            let x = numbers(3, count * mixture.hidden);
            let expected = Expected::new(|reference| mixture.run(reference, &x, count));
            assert_eq!(expected.first().counts.iter().sum::<u64>(), (count * mixture.routing.per_row) as u64);
            for (name, mut ops) in implementations() {
                let found = mixture.run(&mut ops, &x, count);
                let expected = expected.of(&ops);
                assert_same_bits(&found.out, &expected.out, &format!("{name}: {mixture:?}, {count} rows"));
                assert_eq!(found.counts, expected.counts, "{name}: {mixture:?}, {count} rows");
            }
        }
    }
}

#[test]
fn a_row_does_not_notice_its_company() {
    const ROWS: usize = 97;
    let formats = [(Dtype::Bf16, Prepared::AsStored), (Dtype::F32, Prepared::AsStored), (Dtype::Bf16, Prepared::Int8)];
    for (dtype, experts) in formats {
        let mixture = Mixture { dtype, experts, ..MIXTRAL };
        let x = numbers(4, ROWS * mixture.hidden);
        for (name, mut ops) in implementations() {
            let alone = mixture.run(&mut ops, &x, 1);
            for step in [2, 7, 16, ROWS] {
                let together = mixture.run(&mut ops, &x, step);
                assert_same_bits(
                    &together.out,
                    &alone.out,
                    &format!("{name}: {dtype} {experts:?}, steps of {step} rows"),
                );
                assert_eq!(together.counts, alone.counts);
            }
        }
    }
}

#[test]
fn misfits_are_named() {
    fn refusals<O: Ops>(ops: &mut O) -> Vec<String> {
        let routing = Routing { experts: 3, per_row: 2, weights: ExpertWeights::AmongAll };
        let square = Weights::new(1, Dtype::F32, 16, 16);
        let wide = Weights::new(1, Dtype::F32, 16, 32);
        let matrix = |ops: &O, parts: &[&Weights], arrangement| {
            let sources: Vec<_> = parts.iter().map(|part| part.source()).collect();
            ops.matrix(&sources, arrangement).expect("a matrix")
        };
        let stacked: Vec<O::Matrix> = (0..3).map(|_| matrix(ops, &[&square], Arrangement::Stacked)).collect();
        let mixed = [&square, &wide, &square].map(|part| matrix(ops, &[part], Arrangement::Stacked));
        let gate_up: Vec<O::Matrix> = (0..3).map(|_| matrix(ops, &[&square, &square], Arrangement::GateUp)).collect();
        let x = rows(ops, 16, &[0.5; 32]);
        let (logits, narrow) = (rows(ops, 3, &[0.5; 6]), rows(ops, 2, &[0.5; 4]));
        let mut routes = ops.routes(2, routing).expect("routes");
        let mut one = ops.routes(1, routing).expect("routes");
        let (mut out, mut small) = (ops.rows(4, 16).expect("rows"), ops.rows(3, 16).expect("rows"));
        let text = |result: Result<(), kernels::KernelError>| result.expect_err("the call is refused").to_string();
        let mut texts = vec![
            text(ops.route(&narrow, &mut routes)),
            text(ops.route(&logits, &mut one)),
            ops.routes(2, Routing { per_row: 4, ..routing }).err().expect("refused").to_string(),
        ];
        ops.route(&logits, &mut routes).expect("route");
        let left = Left::plain(&x);
        let (mut two, mut three) = (ops.counts(1, 2).expect("counts"), ops.counts(1, 3).expect("counts"));
        texts.extend([
            text(ops.expert_gate_up(left, &gate_up[..2], &routes, &mut out)),
            text(ops.expert_gate_up(left, &stacked, &routes, &mut out)),
            text(ops.expert_gate_up(left, &gate_up, &routes, &mut small)),
            text(ops.expert_down(&x, &stacked, &routes, &mut out)),
            text(ops.combine(&x, &routes, &mut out)),
            text(ops.count_choices(&routes, &mut two, 0)),
            text(ops.count_choices(&routes, &mut three, 1)),
        ]);
        ops.expert_gate_up(left, &gate_up, &routes, &mut out).expect("expert_gate_up");
        let mut down = ops.rows(4, 16).expect("rows");
        texts.push(text(ops.expert_down(&out, &mixed, &routes, &mut down)));
        texts.push(text(ops.combine(&out, &routes, &mut small)));
        texts
    }
    let expected = refusals(&mut ReferenceOps::default());
    assert_eq!(expected, refusals(&mut common::cpu(kernels::KernelSet::best(), 2)));
    let named = |text: &str| assert!(expected.iter().any(|found| found == text), "{text:?} is not in {expected:#?}");
    named("route: columns of the logits is 2, expected 3");
    named("route: rows 2 must be less than 2");
    named("routes: 4 of 3 experts per row cannot be chosen");
    named("expert_gate_up: expert matrices is 2, expected 3");
    named("expert_gate_up: the matrix was prepared as stacked, not as gate|up");
    named("expert_gate_up: rows 4 must be less than 4");
    named("expert_down: rows of the left side is 2, expected 4");
    named("expert_down: columns of an expert matrix is 32, expected 16");
    named("combine: grouped rows is 2, expected 4");
}

#[test]
fn rows_of_a_table_are_added() {
    fn added<O: HostOps>(ops: &mut O, dtype: Dtype, arrangement: Arrangement, cols: usize) -> Vec<f32> {
        let table = Weights::new(1, dtype, 45, cols);
        let table = ops.matrix(&[table.source()], arrangement).expect("a matrix");
        let mut out = rows(ops, cols, &numbers(2, 30 * cols));
        let (step, short) = (lookup(ops, (11, 30), &[], &[]), lookup(ops, (11, 29), &[], &[]));
        ops.add_positions(&table, 4, &step, &mut out).expect("add_positions");
        assert!(ops.add_positions(&table, 5, &step, &mut out).is_err(), "there is no row 45");
        assert!(ops.add_positions(&table, 4, &short, &mut out).is_err(), "one position is missing");
        values(ops, &out, 30 * cols)
    }
    for dtype in [Dtype::Bf16, Dtype::F16, Dtype::F32] {
        for arrangement in [Arrangement::Stacked, Arrangement::Table] {
            for cols in [2, 31, 64, 1000] {
                let expected = added(&mut ReferenceOps::default(), dtype, arrangement, cols);
                for (name, mut ops) in implementations() {
                    let what = format!("{name}: {dtype} {arrangement:?} cols={cols}");
                    assert_same_bits(&added(&mut ops, dtype, arrangement, cols), &expected, &what);
                }
            }
        }
    }
}

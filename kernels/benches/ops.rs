//! Speed of the CPU operations beside the limits of the machine, measured in the same run.
//!
//! `cargo bench -p kernels`. Compare a product at M=512 with `machine::bf16_multiply_adds` (item = one floating-point
//! operation) and a product at M ≤ 16 with `machine::read`. Weights rotate over more memory than the caches hold.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to report")]

use std::sync::Arc;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use kernels::cpu::{Matrix, Rows};
use kernels::{Arrangement, CpuOps, Dtype, Epilogue, KernelSet, Left, MatrixSource, Ops, Placement, Pool};

const THREADS: [usize; 2] = [1, 2];
/// Size of the weights: more than the largest last-level cache of our machines, 480 MiB.
const WEIGHT_BYTES_MIN: usize = 768 << 20;
/// (n, k) of the projections of the 134M and the 1.1B shape.
const SHAPES: [(usize, usize); 4] = [(768, 768), (2048, 768), (768, 2048), (2048, 2048)];

/// `KERNEL_SET`, or the best one of this processor.
fn kernel_set() -> KernelSet {
    std::env::var("KERNEL_SET").map_or_else(|_| KernelSet::best(), |name| name.parse().expect("a kernel set"))
}

fn main() {
    println!("kernel set {}", kernel_set());
    divan::main();
}

fn ops(threads: usize) -> CpuOps {
    let pool = Pool::new(&Placement::Cores((0..threads).collect())).expect("cores exist");
    pool.pin_caller().expect("core 0 exists");
    CpuOps::new(Arc::new(pool), kernel_set()).expect("the best set is available")
}

fn weights(ops: &CpuOps, n: usize, k: usize, bytes_min: usize) -> Vec<Matrix> {
    let bytes: Vec<u8> = (0..n * k).flat_map(|i| [(i * 37 % 251) as u8, 0x3c]).collect();
    let source = MatrixSource { bytes: &bytes, dtype: Dtype::Bf16, n, k };
    let count = bytes_min.div_ceil(bytes.len());
    (0..count).map(|_| ops.matrix(&[source], Arrangement::Stacked).expect("a matrix")).collect()
}

fn filled(ops: &CpuOps, rows: usize, cols: usize) -> Rows {
    let mut filled = ops.rows(rows, cols).expect("rows");
    let data: Vec<f32> = (0..rows * cols).map(|i| (i % 97) as f32 / 97.0 - 0.5).collect();
    ops.write_rows(&mut filled, &data).expect("whole rows");
    filled
}

mod machine {
    //! Highest rates of the processor and its memory.

    use kernels::ceiling::{Factors, MultiplyPass, ReadPass};

    use super::*;

    #[divan::bench(args = THREADS)]
    fn read(bencher: Bencher<'_, '_>, threads: usize) {
        let pool = ops(threads).pool().clone();
        let pass = ReadPass::new(WEIGHT_BYTES_MIN).expect("memory");
        bencher.counter(BytesCount::new(pass.bytes())).bench_local(|| pass.run(&pool));
    }

    #[divan::bench(args = THREADS)]
    fn bf16_multiply_adds(bencher: Bencher<'_, '_>, threads: usize) {
        multiply_adds(bencher, threads, Factors::Bf16);
    }

    #[divan::bench(args = THREADS)]
    fn int8_multiply_adds(bencher: Bencher<'_, '_>, threads: usize) {
        multiply_adds(bencher, threads, Factors::Int8);
    }

    fn multiply_adds(bencher: Bencher<'_, '_>, threads: usize, factors: Factors) {
        let pool = ops(threads).pool().clone();
        if let Some(pass) = MultiplyPass::new(factors, kernel_set()) {
            bencher.counter(ItemsCount::new(pass.operations())).bench_local(|| pass.run(&pool));
        }
    }
}

mod prefill {
    //! Products of 512 rows.

    use super::*;

    #[divan::bench(args = cases())]
    fn linear(bencher: Bencher<'_, '_>, (threads, n, k): (usize, usize, usize)) {
        const ROWS: usize = 512;
        let mut ops = ops(threads);
        let weights = weights(&ops, n, k, 16 << 20);
        let x = filled(&ops, ROWS, k);
        let mut out = ops.rows(ROWS, n).expect("rows");
        let mut next = 0;
        bencher.counter(ItemsCount::new(2 * ROWS * n * k)).bench_local(|| {
            next = (next + 1) % weights.len();
            ops.linear(Left::plain(&x), &weights[next], None, Epilogue::Store, &mut out)
        });
    }

    fn cases() -> Vec<(usize, usize, usize)> {
        SHAPES.iter().flat_map(|&(n, k)| THREADS.map(|threads| (threads, n, k))).collect()
    }
}

mod skinny {
    //! Products of the few rows of a decode step.

    use super::*;

    #[divan::bench(args = cases())]
    fn linear(bencher: Bencher<'_, '_>, (threads, rows, n, k): (usize, usize, usize, usize)) {
        let mut ops = ops(threads);
        let weights = weights(&ops, n, k, WEIGHT_BYTES_MIN);
        let x = filled(&ops, rows, k);
        let mut out = ops.rows(rows, n).expect("rows");
        // One sample reads every matrix once.
        bencher.counter(BytesCount::new(2 * n * k * weights.len())).bench_local(|| {
            weights.iter().try_for_each(|w| ops.linear(Left::plain(&x), w, None, Epilogue::Store, &mut out))
        });
    }

    fn cases() -> Vec<(usize, usize, usize, usize)> {
        let rows = [1, 8, 16];
        let shapes = SHAPES.iter().flat_map(|&(n, k)| rows.map(|rows| (rows, n, k)));
        shapes.flat_map(|(rows, n, k)| THREADS.map(|threads| (threads, rows, n, k))).collect()
    }
}

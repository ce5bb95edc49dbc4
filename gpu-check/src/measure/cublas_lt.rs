//! Rate of NVIDIA's library for the product of two large bf16 matrices in device memory.

use kernels::cuda::{BlasLt, Candidate, CudaError, DeviceBytes, PinnedBytes, Product, ProductPlan};
use serde_json::{Value, json};

use super::{Bench, Failure};
use crate::samples::Samples;
use crate::value::unavailable;

/// Size of the matrices: 1.1 TFLOP take long against a launch, and the operands are larger than the caches.
const SIZE: u32 = 8192;
const PRODUCT: Product = Product { m: SIZE, n: SIZE, k: SIZE };
const MATRIX_BYTES: usize = SIZE as usize * SIZE as usize * 2;
/// NVIDIA's recommendation for Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;
const TRIALS: usize = 3;
const SAMPLES: usize = 20;
/// Outputs to check, (row of right, row of left): corners and some in between.
const CHECKED: [(usize, usize); 5] = [(0, 0), (0, 8191), (8191, 0), (8191, 8191), (4097, 1234)];

pub(super) fn measure(bench: &Bench) -> Result<Value, Failure> {
    let blas = match BlasLt::open(&bench.context) {
        Err(CudaError::NoBlas) => return Ok(unavailable(CudaError::NoBlas)),
        opened => opened?,
    };
    let (left, right) = (Operand::new(bench, 1)?, Operand::new(bench, 2)?);
    let out = DeviceBytes::new(&bench.context, MATRIX_BYTES)?;
    let plan = ProductPlan::new(&blas, PRODUCT, WORKSPACE_BYTES)?;
    let seconds = |candidate: &Candidate| {
        bench.seconds_in(&bench.stream, || {
            let (left, right, out) = (left.memory.range(), right.memory.range(), out.range());
            // SAFETY: `seconds_in` waits, nothing else uses the three matrices or the plan meanwhile.
            unsafe { plan.launch(&bench.stream, candidate, left, right, out) }
        })
    };
    let mut best: Option<(f64, &Candidate)> = None;
    for candidate in plan.candidates() {
        seconds(candidate)?;
        let median = Samples::take(TRIALS, || seconds(candidate))?.median();
        if best.is_none_or(|(fastest, _)| median < fastest) {
            best = Some((median, candidate));
        }
    }
    let Some((_, best)) = best else { return Err(Failure::Wrong("no algorithm was tried".to_owned())) };
    let samples = Samples::take(SAMPLES, || seconds(best))?;
    check(&left, &right, &out)?;
    let flop = 2.0 * f64::from(SIZE).powi(3);
    Ok(json!({
        "source": "cuBLASLt, operands in device memory",
        "cublas_lt_version": blas.version()?,
        "m_n_k": [PRODUCT.m, PRODUCT.n, PRODUCT.k],
        "algorithms_tried": plan.candidates().len(),
        "tflop_per_s": samples.map(|seconds| flop / seconds / 1e12).to_json(),
    }))
}

/// A matrix of random values on the device, which the host can recompute.
struct Operand {
    seed: u32,
    memory: DeviceBytes,
}

impl Operand {
    fn new(bench: &Bench, seed: u32) -> Result<Operand, Failure> {
        let memory = DeviceBytes::new(&bench.context, MATRIX_BYTES)?;
        let mut host = PinnedBytes::new(&bench.context, MATRIX_BYTES)?;
        for (index, pair) in host.as_mut_slice().as_chunks_mut::<2>().0.iter_mut().enumerate() {
            *pair = element_bits(seed, index).to_le_bytes();
        }
        // SAFETY: the stream is waited for before either buffer is used or dropped.
        unsafe { bench.stream.copy_in(memory.range(), &host) }?;
        bench.finish()?;
        Ok(Operand { seed, memory })
    }

    fn row(&self, row: usize) -> impl Iterator<Item = f64> + '_ {
        let columns = SIZE as usize;
        (row * columns..(row + 1) * columns).map(|index| f64::from(widened(element_bits(self.seed, index))))
    }
}

/// bf16 bits of element `index`: a random sign and mantissa, a magnitude in [0.5, 2).
fn element_bits(seed: u32, index: usize) -> u16 {
    let mut hash = (index as u32).wrapping_mul(0x9E37_79B9).wrapping_add(seed.wrapping_mul(0x85EB_CA6B));
    hash = (hash ^ hash >> 15).wrapping_mul(0x2C1B_3C6D);
    hash ^= hash >> 12;
    (hash & 0x80FF) as u16 | 0x3F00
}

fn widened(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Checks some outputs: a wrong product has no speed. The tolerance covers the rounding of the output to bf16 (2^-9 of
/// it) and of the 8192 f32 additions.
fn check(left: &Operand, right: &Operand, out: &DeviceBytes) -> Result<(), Failure> {
    for (right_row, left_row) in CHECKED {
        let expected: f64 = right.row(right_row).zip(left.row(left_row)).map(|(a, b)| a * b).sum();
        let mut bits = [0; 2];
        out.read((right_row * SIZE as usize + left_row) * 2, &mut bits)?;
        let found = f64::from(widened(u16::from_le_bytes(bits)));
        // Negated so that a NaN is caught as well.
        let close = (found - expected).abs() <= 0.1 + expected.abs() / 128.0;
        if !close {
            return Err(Failure::Wrong(format!("out[{right_row}][{left_row}] is {found}, not {expected:.3}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_random_and_of_one_magnitude() {
        let values: Vec<f32> = (0..10_000).map(|index| widened(element_bits(1, index))).collect();
        assert!(values.iter().all(|value| (0.5..2.0).contains(&value.abs())));
        let negative = values.iter().filter(|value| **value < 0.0).count();
        assert!((4500..5500).contains(&negative), "{negative}");
        assert!((0..100).any(|index| element_bits(1, index) != element_bits(2, index)));
    }
}

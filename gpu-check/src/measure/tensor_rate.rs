//! Rate of the tensor cores in bf16 when nothing holds them up: the ceiling of MFU.

use kernels::cuda::{Argument, ComputeCapability, DeviceBytes, Function, Grid, Module, Stream};
use serde_json::{Value, json};

use super::{Bench, Failure};
use crate::ptx::{CHECK_ROUNDS, Fill, TensorLoop};
use crate::samples::Samples;
use crate::value::unavailable;

/// Length of a sample: long against a launch.
const SAMPLE_S: f64 = 0.05;
/// Samples of a second in all, in which the clock comes down to the power limit.
const SAMPLES: usize = 20;
const CALIBRATION_ROUNDS: u32 = 2000;

pub(super) fn measure_mma(bench: &Bench) -> Result<Value, Failure> {
    let needed = ComputeCapability { major: 8, minor: 0 };
    let found = bench.context.device().compute_capability()?;
    if found < needed {
        return Ok(unavailable(format!("bf16 needs compute capability {needed}, this device is {found}")));
    }
    measure(bench, TensorLoop::mma(), "own loop of mma.sync.m16n8k16, operands in registers")
}

pub(super) fn measure_wgmma(bench: &Bench) -> Result<Value, Failure> {
    let needed = ComputeCapability { major: 9, minor: 0 };
    let found = bench.context.device().compute_capability()?;
    if found != needed {
        return Ok(unavailable(format!("wgmma is of compute capability {needed} only, this device is {found}")));
    }
    measure(bench, TensorLoop::wgmma(), "own loop of wgmma.m64n256k16, operands in shared memory")
}

fn measure(bench: &Bench, tensor_loop: TensorLoop, source: &str) -> Result<Value, Failure> {
    let sms = bench.context.device().sm_count()?;
    let multiplier = Multiplier::new(bench, tensor_loop, sms)?;
    let rate = multiplier.tflop_per_s(bench, &bench.stream, sms, SAMPLES)?;
    Ok(json!({
        "source": source,
        "compiled_blocks_per_sm": multiplier.compiled_blocks_per_sm()?,
        "launched_blocks_per_sm": multiplier.tensor_loop.blocks_per_sm,
        "tflop_per_s": rate.to_json(),
    }))
}

pub(super) struct Multiplier {
    tensor_loop: TensorLoop,
    kernel: Function,
    sums: DeviceBytes,
}

impl Multiplier {
    /// Makes room for `sms_max` SMs and checks on all of them that the loop multiplies.
    pub(super) fn new(bench: &Bench, tensor_loop: TensorLoop, sms_max: u32) -> Result<Multiplier, Failure> {
        let kernel = Module::from_ptx(&bench.context, &tensor_loop.ptx)?.function(tensor_loop.entry)?;
        let threads = sms_max * tensor_loop.blocks_per_sm * tensor_loop.threads_per_block;
        let sums = DeviceBytes::new(&bench.context, threads as usize * 4)?;
        let multiplier = Multiplier { tensor_loop, kernel, sums };
        multiplier.check(bench, sms_max)?;
        Ok(multiplier)
    }

    /// Checks each thread's sum of products of ones, which is known exactly.
    fn check(&self, bench: &Bench, sms: u32) -> Result<(), Failure> {
        self.seconds(bench, &bench.stream, sms, CHECK_ROUNDS, Fill::ONES)?;
        let expected = self.tensor_loop.sum_per_round * CHECK_ROUNDS as f32;
        let sums = self.sums.read_words(self.sums.range().len() / 4)?;
        match sums.into_iter().map(f32::from_bits).enumerate().find(|(_, sum)| *sum != expected) {
            None => Ok(()),
            Some((thread, sum)) => {
                let entry = self.tensor_loop.entry;
                Err(Failure::Wrong(format!("{entry}: thread {thread} summed {sum}, not {expected}")))
            }
        }
    }

    /// Rate on the `sms` SMs of `stream`.
    pub(super) fn tflop_per_s(
        &self,
        bench: &Bench,
        stream: &Stream,
        sms: u32,
        samples: usize,
    ) -> Result<Samples, Failure> {
        let calibration = self.seconds(bench, stream, sms, CALIBRATION_ROUNDS, Fill::RANDOM)?;
        let rounds = f64::from(CALIBRATION_ROUNDS) * SAMPLE_S / calibration.max(1e-6);
        let rounds = rounds.clamp(1.0, 1e8) as u32;
        let blocks = u64::from(sms * self.tensor_loop.blocks_per_sm);
        let flop = (blocks * self.tensor_loop.flop_per_block_round) as f64 * f64::from(rounds);
        let seconds = Samples::take(samples, || self.seconds(bench, stream, sms, rounds, Fill::RANDOM))?;
        Ok(seconds.map(|seconds| flop / seconds / 1e12))
    }

    fn seconds(&self, bench: &Bench, stream: &Stream, sms: u32, rounds: u32, fill: Fill) -> Result<f64, Failure> {
        let blocks = sms * self.tensor_loop.blocks_per_sm;
        let grid = Grid { blocks, threads_per_block: self.tensor_loop.threads_per_block };
        let arguments = [
            Argument::U32(rounds),
            Argument::U32(fill.keep),
            Argument::U32(fill.set),
            Argument::U64(self.sums.range().address()),
        ];
        let seconds = bench.seconds_in(stream, || {
            // SAFETY: the arguments are the loop's; `sums` has a word for each thread of up to `sms_max` SMs;
            // `seconds_in` waits.
            unsafe { self.kernel.launch(stream, grid, &arguments) }
        })?;
        Ok(seconds)
    }

    fn compiled_blocks_per_sm(&self) -> Result<u32, Failure> {
        Ok(self.kernel.blocks_per_sm(self.tensor_loop.threads_per_block)?)
    }
}

//! Rate at which SMs read device memory, which limits decoding.

use kernels::cuda::{Argument, DeviceBytes, Function, Grid, Module, Stream};

use super::bandwidth::filled;
use super::{Bench, Failure};
use crate::ptx::BASIC;
use crate::samples::Samples;

const THREADS_PER_BLOCK: u32 = 512;
const BLOCKS_PER_SM: u32 = 4;
/// Bytes that a thread reads in one round of the kernel's loop: four loads of 16 bytes.
const ROUND_BYTES: usize = 4 * 16;
const ROUNDS: usize = 10;

/// The compiled kernel and the word to which it adds its sum.
pub(super) struct Reader {
    kernel: Function,
    total: DeviceBytes,
}

impl Reader {
    pub(super) fn new(bench: &Bench) -> Result<Reader, Failure> {
        let kernel = Module::from_ptx(&bench.context, BASIC)?.function("read_sum")?;
        Ok(Reader { kernel, total: filled(bench, 4, 0)? })
    }

    /// Rate of reading as much of `memory` as `sms` SMs divide evenly, which is nearly all. `memory` is full of `word`,
    /// so the sum is known.
    pub(super) fn gb_per_s(
        &self,
        bench: &Bench,
        stream: &Stream,
        sms: u32,
        memory: &DeviceBytes,
        word: u32,
    ) -> Result<Samples, Failure> {
        let grid = Grid { blocks: sms * BLOCKS_PER_SM, threads_per_block: THREADS_PER_BLOCK };
        let sweep_bytes = grid.blocks as usize * THREADS_PER_BLOCK as usize * ROUND_BYTES;
        let rounds = u32::try_from(memory.range().len() / sweep_bytes).unwrap_or(u32::MAX);
        if rounds == 0 {
            return Err(Failure::Wrong(format!("{} bytes are too few for {sms} SMs", memory.range().len())));
        }
        let bytes = sweep_bytes * rounds as usize;
        let arguments = [
            Argument::U64(memory.range().address()),
            Argument::U32(rounds),
            Argument::U64(self.total.range().address()),
        ];
        let before = self.total()?;
        let rate = bench.gb_per_s(stream, bytes, ROUNDS, || {
            // SAFETY: the arguments are read_sum's; the grid reads `bytes`, which `memory` has; `gb_per_s` waits.
            unsafe { self.kernel.launch(stream, grid, &arguments) }
        })?;
        let sums_of = (ROUNDS as u64 + 1) * (bytes as u64 / 4);
        let expected = before.wrapping_add(word.wrapping_mul(sums_of as u32));
        let found = self.total()?;
        if found != expected {
            return Err(Failure::Wrong(format!("the words read add up to {found:#x}, not {expected:#x}")));
        }
        Ok(rate)
    }

    fn total(&self) -> Result<u32, Failure> {
        let mut word = [0; 4];
        self.total.read(0, &mut word)?;
        Ok(u32::from_le_bytes(word))
    }
}

//! Highest read and multiply rates of this machine, on the threads that kernels run on; knows no operation.
//!
//! `cargo bench -p kernels` and the engine's `compare` example measure them in the run whose kernel rates they are
//! compared with. A pass is one bounded piece of work that the caller times.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(target_arch = "x86_64")]
use crate::cpu::amx::{bf16_chains, int8_chains};
use crate::memory::{Backing, HostMemory, MemoryError};
use crate::{KernelError, KernelSet, Pool};

type Line = [u64; 8];

const LINE_BYTES: usize = size_of::<Line>();
/// Lines that one task reads: 2 MiB, so that claiming a task costs little beside reading.
const TASK_LINES: usize = 1 << 15;

/// Pass that reads a buffer larger than the caches.
pub struct ReadPass {
    memory: HostMemory,
    read: fn(&[Line]) -> u64,
}

impl ReadPass {
    /// Allocates at least `bytes` bytes, rounded up to whole cache lines, and writes them once: pages that were never
    /// written are all the same page of zeroes.
    pub fn new(bytes: usize) -> Result<Self, MemoryError> {
        let lines = bytes.div_ceil(LINE_BYTES);
        let memory = HostMemory::new(lines * LINE_BYTES, Backing::Anonymous)?;
        // SAFETY: the mapping is page-aligned, holds so many words, and only this function knows it.
        let words = unsafe { std::slice::from_raw_parts_mut(memory.as_ptr().cast::<u64>(), 8 * lines) };
        words.iter_mut().zip(0..).for_each(|(word, index)| *word = index);
        Ok(Self { memory, read: reader() })
    }

    /// Bytes that a pass reads.
    pub fn bytes(&self) -> usize {
        self.memory.len()
    }

    /// Reads the buffer once on the threads of `pool`; returns the exclusive or of its words, which are numbered from
    /// 0.
    pub fn run(&self, pool: &Pool) -> Result<u64, KernelError> {
        // SAFETY: the mapping holds so many lines, was written by `new` and is only read since.
        let lines =
            unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast::<Line>(), self.memory.len() / LINE_BYTES) };
        let tasks: Vec<&[Line]> = lines.chunks(TASK_LINES).collect();
        let folded = AtomicU64::new(0);
        pool.run("read", tasks.len(), &|task| {
            folded.fetch_xor((self.read)(tasks[task]), Ordering::Relaxed);
        })?;
        Ok(folded.into_inner())
    }
}

fn reader() -> fn(&[Line]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if KernelSet::Avx512Bf16.is_available() {
        // SAFETY: the processor was just found to have the instructions.
        return |lines| unsafe { xor_of_lines_avx512(lines) };
    }
    xor_of_lines
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn xor_of_lines_avx512(lines: &[Line]) -> u64 {
    xor_of_lines(lines)
}

/// Reads every word, fetching 4 KiB ahead as the kernels do.
#[inline(always)]
fn xor_of_lines(lines: &[Line]) -> u64 {
    const AHEAD_LINES: usize = 4096 / LINE_BYTES;
    let mut sums: Line = [0; 8];
    for line in lines {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: SSE is part of x86-64, and a prefetch of any address is harmless.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).wrapping_add(AHEAD_LINES).cast());
        }
        for (sum, word) in sums.iter_mut().zip(line) {
            *sum ^= word;
        }
    }
    sums.iter().fold(0, |a, b| a ^ b)
}

/// Formats of the factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factors {
    /// bf16 by bf16 into f32, with the instruction that the kernel set uses.
    Bf16,
    /// u8 by i8 into i32.
    Int8,
}

/// Pass that multiplies and adds in registers only.
pub struct MultiplyPass {
    operations_per_round: usize,
    chains: fn(usize),
}

impl MultiplyPass {
    const TASKS: usize = 256;
    const ROUNDS: usize = 20_000;

    /// The pass of a kernel set; `None` if the set leaves the choice of instructions to the compiler, or if this
    /// processor lacks them.
    pub fn new(factors: Factors, set: KernelSet) -> Option<Self> {
        if !set.is_available() {
            return None;
        }
        match (set, factors) {
            // A round is one instruction; the rounds are a multiple of four.
            #[cfg(target_arch = "x86_64")]
            (KernelSet::Amx, Factors::Bf16) => Some(Self {
                operations_per_round: 16 * 16 * 16 * 2 * 2,
                // SAFETY: the set is available.
                chains: |rounds| unsafe { bf16_chains(rounds / 4, black_box(0x3f80_3f80)) },
            }),
            #[cfg(target_arch = "x86_64")]
            (KernelSet::Amx, Factors::Int8) => Some(Self {
                operations_per_round: 16 * 16 * 16 * 4 * 2,
                // SAFETY: the set is available.
                chains: |rounds| unsafe { int8_chains(rounds / 4, black_box(0x0101_0101)) },
            }),
            #[cfg(target_arch = "x86_64")]
            (KernelSet::Avx512Bf16, Factors::Bf16) => Some(Self {
                operations_per_round: chains::COUNT * 16 * 2 * 2,
                // SAFETY: the set is available.
                chains: |rounds| unsafe { chains::bf16(rounds) },
            }),
            #[cfg(target_arch = "x86_64")]
            (KernelSet::Avx512Bf16, Factors::Int8) if is_x86_feature_detected!("avx512vnni") => Some(Self {
                operations_per_round: chains::COUNT * 16 * 4 * 2,
                // SAFETY: the set and VNNI are available.
                chains: |rounds| unsafe { chains::int8(rounds) },
            }),
            #[cfg(target_arch = "x86_64")]
            (KernelSet::Avx2, Factors::Bf16) => Some(Self {
                operations_per_round: chains::COUNT * 8 * 2,
                // SAFETY: the set is available.
                chains: |rounds| unsafe { chains::f32(rounds) },
            }),
            #[cfg(not(target_arch = "x86_64"))]
            (KernelSet::Amx, Factors::Bf16 | Factors::Int8) => None,
            (KernelSet::Avx512Bf16 | KernelSet::Avx2 | KernelSet::Portable, Factors::Bf16 | Factors::Int8) => None,
        }
    }

    /// Multiplications and additions of a pass.
    pub fn operations(&self) -> usize {
        self.operations_per_round * Self::ROUNDS * Self::TASKS
    }

    /// Runs the pass on the threads of `pool`.
    pub fn run(&self, pool: &Pool) -> Result<(), KernelError> {
        pool.run("multiply", Self::TASKS, &|_| (self.chains)(black_box(Self::ROUNDS)))
    }
}

#[cfg(target_arch = "x86_64")]
mod chains {
    //! Independent chains of multiply-adds, enough to hide the latency of the instruction. Their factors are hidden
    //! from the compiler, which would otherwise drop multiplications by one.

    use std::arch::x86_64::*;
    use std::hint::black_box;

    pub(super) const COUNT: usize = 12;

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn bf16(rounds: usize) {
        // SAFETY: `__m512bh` and `__m512i` are 64 plain bytes.
        let ones: __m512bh = unsafe { std::mem::transmute(black_box(_mm512_set1_epi16(0x3f80))) };
        let mut sums = [_mm512_setzero_ps(); COUNT];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, ones, ones);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn int8(rounds: usize) {
        let ones = black_box(_mm512_set1_epi8(1));
        let mut sums = [_mm512_setzero_si512(); COUNT];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, ones, ones);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn f32(rounds: usize) {
        let ones = black_box(_mm256_set1_ps(1.0));
        let mut sums = [_mm256_setzero_ps(); COUNT];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(ones, ones, *sum);
            }
        }
        black_box(sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Placement;

    #[test]
    fn a_pass_reads_every_word_once() {
        // One line more than whole tasks, and a byte that does not fill a line.
        let pass = ReadPass::new(3 * TASK_LINES * LINE_BYTES + 1).unwrap();
        let expected = (0..pass.bytes() as u64 / 8).fold(0, |folded, word| folded ^ word);
        assert_eq!(pass.bytes(), (3 * TASK_LINES + 1) * LINE_BYTES);
        for threads in [1, 2] {
            let pool = Pool::new(&Placement::Floating(threads)).unwrap();
            assert_eq!(pass.run(&pool).unwrap(), expected, "{threads} threads");
        }
    }

    #[test]
    fn every_available_set_with_instructions_of_its_own_has_a_bf16_pass() {
        let pool = Pool::new(&Placement::Floating(2)).unwrap();
        for set in KernelSet::ALL {
            let pass = MultiplyPass::new(Factors::Bf16, set);
            assert_eq!(pass.is_some(), set.is_available() && set != KernelSet::Portable, "{set}");
            for pass in pass.into_iter().chain(MultiplyPass::new(Factors::Int8, set)) {
                assert!(pass.operations() > 0);
                pass.run(&pool).unwrap();
            }
        }
    }
}

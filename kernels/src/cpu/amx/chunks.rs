//! Loops over one chunk of `k` of a product: up to 32 rows against 32 columns.

use std::arch::asm;

/// Sides of one chunk of `k`, in steps of 16 words, and the place of its sums.
pub(in crate::cpu) struct TileChunk {
    /// `[step][row][16 words]`, with the rows that the registers are shaped for.
    pub(in crate::cpu) left: *const u32,
    pub(in crate::cpu) left_step_bytes: usize,
    /// `[word][32]`.
    pub(in crate::cpu) right: *const u32,
    /// Steps with all 16 words.
    pub(in crate::cpu) whole_steps: usize,
    /// `[word][32]`: 16 words of the right side for one more step; null if there is none.
    pub(in crate::cpu) tail: *const u32,
    /// `[row][32]`: sums of earlier steps of the chunk, to be added to; null if there are none.
    pub(in crate::cpu) before: *const u32,
    /// `[row][32]`.
    pub(in crate::cpu) sums: *mut u32,
    /// Memory to fetch into the second-level cache: `ahead_lines` lines per step, at least one.
    pub(in crate::cpu) ahead: *const u32,
    pub(in crate::cpu) ahead_lines: usize,
}

/// Defines the loop over a chunk by the lines that clear its sums, load them, add a step and store them.
macro_rules! chunk_loop {
    (
        $(#[$doc:meta])* $name:ident, $chunk:ident, [$($sums:tt)*],
        [$($cleared:literal),*], [$($loaded:literal),*], [$($step:expr),*], [$($stored:literal),*]
    ) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The registers are shaped for the rows; both sides and the sums have them; there is a step.
        pub(in crate::cpu) unsafe fn $name($chunk: &TileChunk) {
            // SAFETY: the caller's promise; tile registers belong to nobody else, and a prefetch never faults.
            unsafe {
                asm!(
                    $($cleared,)*
                    "test {count}, {count}",
                    "jz 6f",
                    $($loaded,)*
                    "6:",
                    "test {steps}, {steps}",
                    "jz 3f",
                    "2:",
                    $($step,)*
                    "mov {count}, {lines}",
                    "4:",
                    "prefetcht1 [{ahead}]",
                    "add {ahead}, 64",
                    "dec {count}",
                    "jnz 4b",
                    "add {left}, {left_step}",
                    "add {right}, 2048",
                    "dec {steps}",
                    "jnz 2b",
                    "3:",
                    "test {tail}, {tail}",
                    "jz 5f",
                    "mov {right}, {tail}",
                    "xor {tail:e}, {tail:e}",
                    "mov {steps:e}, 1",
                    "jmp 2b",
                    "5:",
                    $($stored,)*
                    left = inout(reg) $chunk.left => _,
                    right = inout(reg) $chunk.right => _,
                    steps = inout(reg) $chunk.whole_steps => _,
                    tail = inout(reg) $chunk.tail => _,
                    ahead = inout(reg) $chunk.ahead => _,
                    count = inout(reg) $chunk.before => _,
                    lines = in(reg) $chunk.ahead_lines,
                    left_step = in(reg) $chunk.left_step_bytes,
                    sums = $($sums)*,
                    line = in(reg) 64usize,
                    line_pair = in(reg) 128usize,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

/// Defines both loops over a chunk for one instruction: with rows in one register, and in two.
macro_rules! chunk_loops {
    ($(#[$doc:meta])* $one:ident, $two:ident, $multiply:literal) => {
        chunk_loop!(
            $(#[$doc])*
            /// For 1 to 16 rows.
            $one, chunk, [in(reg) chunk.sums],
            ["tilezero tmm0", "tilezero tmm1"],
            ["tileloadd tmm0, [{count} + {line_pair}]", "tileloadd tmm1, [{count} + {line_pair} + 64]"],
            [
                "tileloadd tmm6, [{right} + {line_pair}]",
                "tileloadd tmm7, [{right} + {line_pair} + 64]",
                "tileloadd tmm4, [{left} + {line}]",
                concat!($multiply, " tmm0, tmm4, tmm6"),
                concat!($multiply, " tmm1, tmm4, tmm7")
            ],
            ["tilestored [{sums} + {line_pair}], tmm0", "tilestored [{sums} + {line_pair} + 64], tmm1"]
        );
        chunk_loop!(
            $(#[$doc])*
            /// For 17 to 32 rows.
            $two, chunk, [inout(reg) chunk.sums => _],
            ["tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3"],
            [
                "tileloadd tmm0, [{count} + {line_pair}]",
                "tileloadd tmm1, [{count} + {line_pair} + 64]",
                "add {count}, 2048",
                "tileloadd tmm2, [{count} + {line_pair}]",
                "tileloadd tmm3, [{count} + {line_pair} + 64]"
            ],
            [
                "tileloadd tmm6, [{right} + {line_pair}]",
                "tileloadd tmm4, [{left} + {line}]",
                concat!($multiply, " tmm0, tmm4, tmm6"),
                "tileloadd tmm7, [{right} + {line_pair} + 64]",
                concat!($multiply, " tmm1, tmm4, tmm7"),
                "tileloadd tmm5, [{left} + {line} + 1024]",
                concat!($multiply, " tmm2, tmm5, tmm6"),
                concat!($multiply, " tmm3, tmm5, tmm7")
            ],
            [
                "tilestored [{sums} + {line_pair}], tmm0",
                "tilestored [{sums} + {line_pair} + 64], tmm1",
                "add {sums}, 2048",
                "tilestored [{sums} + {line_pair}], tmm2",
                "tilestored [{sums} + {line_pair} + 64], tmm3"
            ]
        );
    };
}

chunk_loops!(
    /// Pairs of bf16 into f32, summed as in `PairOrder::Steps`.
    bf16_one, bf16_two, "tdpbf16ps"
);
chunk_loops!(
    /// Quads of signed by unsigned bytes into i32.
    int8_one, int8_two, "tdpbsud"
);

//! Multiply-adds in tile registers only, to measure the processor's highest rate.

use std::arch::asm;

use super::{TILE_ROWS, TILE_WORDS, Tiles};

/// Defines a loop of multiply-adds in registers only, four sums in turn, which hides the latency of the instruction.
macro_rules! chains {
    ($(#[$doc:meta])* $name:ident, $multiply:literal) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// Tiles are available.
        pub(crate) unsafe fn $name(fours: usize, factor: u32) {
            let factors = [[factor; TILE_WORDS]; TILE_ROWS];
            let mut tiles = Tiles::new();
            // SAFETY: the caller's promise; the factors fill a register.
            unsafe {
                tiles.shape_for_product(2 * TILE_ROWS);
                asm!(
                    "tileloadd tmm4, [{factors} + {line}]",
                    "tileloadd tmm6, [{factors} + {line}]",
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    concat!($multiply, " tmm0, tmm4, tmm6"),
                    concat!($multiply, " tmm1, tmm4, tmm6"),
                    concat!($multiply, " tmm2, tmm4, tmm6"),
                    concat!($multiply, " tmm3, tmm4, tmm6"),
                    "dec {fours}",
                    "jnz 2b",
                    factors = in(reg) factors.as_ptr(),
                    line = in(reg) 64usize,
                    fours = inout(reg) fours.max(1) => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm6") _,
                    options(nostack),
                );
            }
        }
    };
}

chains!(
    /// Multiplies `4 * fours` registers of bf16 pairs; `factor` is a pair.
    bf16_chains, "tdpbf16ps"
);
chains!(
    /// Multiplies `4 * fours` registers of byte quads; `factor` is a quad.
    int8_chains, "tdpbsud"
);

//! Loops of attention over the head and over positions: up to 16 query rows against keys, and against values.

use std::arch::asm;

use super::TILE_WORDS;

/// Up to 16 query rows and four times 16 keys.
pub(in crate::cpu) struct TileScores {
    /// `[step][row][16 words]`.
    pub(in crate::cpu) queries: *const u32,
    pub(in crate::cpu) queries_step_bytes: usize,
    /// `[word][16]` each.
    pub(in crate::cpu) keys: [*const u32; 4],
    pub(in crate::cpu) keys_stride_bytes: usize,
    pub(in crate::cpu) whole_steps: usize,
    /// Four times 16 scores of each row.
    pub(in crate::cpu) scores: *mut f32,
    pub(in crate::cpu) scores_stride_bytes: usize,
}

/// Defines the loop over the steps of a head, and the lines after it.
macro_rules! scores {
    ($(#[$doc:meta])* $name:ident, $($rest:literal),*) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The registers are shaped for the rows; all sides have them; there is a step.
        pub(in crate::cpu) unsafe fn $name(sides: &TileScores) {
            // SAFETY: the caller's promise; tile registers belong to nobody else.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "test {steps}, {steps}",
                    "jz 3f",
                    "2:",
                    "tileloadd tmm4, [{queries} + {line}]",
                    "tileloadd tmm6, [{keys0} + {stride}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm6, [{keys1} + {stride}]",
                    "tdpbf16ps tmm1, tmm4, tmm6",
                    "tileloadd tmm6, [{keys2} + {stride}]",
                    "tdpbf16ps tmm2, tmm4, tmm6",
                    "tileloadd tmm6, [{keys3} + {stride}]",
                    "tdpbf16ps tmm3, tmm4, tmm6",
                    "add {queries}, {queries_step}",
                    "add {keys0}, {keys_step}",
                    "add {keys1}, {keys_step}",
                    "add {keys2}, {keys_step}",
                    "add {keys3}, {keys_step}",
                    "dec {steps}",
                    "jnz 2b",
                    "3:",
                    $($rest,)*
                    "tilestored [{scores} + {scores_stride}], tmm0",
                    "tilestored [{scores} + {scores_stride} + 64], tmm1",
                    "tilestored [{scores} + {scores_stride} + 128], tmm2",
                    "tilestored [{scores} + {scores_stride} + 192], tmm3",
                    queries = inout(reg) sides.queries => _,
                    queries_step = in(reg) sides.queries_step_bytes,
                    keys0 = inout(reg) sides.keys[0] => _,
                    keys1 = inout(reg) sides.keys[1] => _,
                    keys2 = inout(reg) sides.keys[2] => _,
                    keys3 = inout(reg) sides.keys[3] => _,
                    stride = in(reg) sides.keys_stride_bytes,
                    keys_step = in(reg) TILE_WORDS * sides.keys_stride_bytes,
                    steps = inout(reg) sides.whole_steps => _,
                    scores = in(reg) sides.scores,
                    scores_stride = in(reg) sides.scores_stride_bytes,
                    line = in(reg) 64usize,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

scores!(
    /// Scores of heads of whole steps.
    scores_of_whole_steps,
);
scores!(
    /// Scores of heads that end with 8 words.
    scores_with_half_a_step,
    "tileloadd tmm5, [{queries} + {line}]",
    "tileloadd tmm7, [{keys0} + {stride}]",
    "tdpbf16ps tmm0, tmm5, tmm7",
    "tileloadd tmm7, [{keys1} + {stride}]",
    "tdpbf16ps tmm1, tmm5, tmm7",
    "tileloadd tmm7, [{keys2} + {stride}]",
    "tdpbf16ps tmm2, tmm5, tmm7",
    "tileloadd tmm7, [{keys3} + {stride}]",
    "tdpbf16ps tmm3, tmm5, tmm7"
);

/// Up to 16 rows of weights and some columns of values, 16 positions at a time.
pub(in crate::cpu) struct TileValues<'a> {
    /// 8 words per row and vector of positions.
    pub(in crate::cpu) weights: *const u32,
    pub(in crate::cpu) weights_stride_bytes: usize,
    /// Values of each vector of positions, 8 words per column; at least one vector.
    pub(in crate::cpu) values: &'a [*const u32],
    pub(in crate::cpu) values_stride_bytes: usize,
    /// Offset of the first column, in bytes.
    pub(in crate::cpu) column_bytes: usize,
    pub(in crate::cpu) sums: *mut f32,
    pub(in crate::cpu) sums_stride_bytes: usize,
}

/// Defines the loop over vectors of positions, by the lines for one vector and those that store the sums.
macro_rules! values {
    ($(#[$doc:meta])* $name:ident, [$($vector:literal),*], [$($stored:literal),*]) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The registers are shaped for the rows; all sides have them, and the columns.
        pub(in crate::cpu) unsafe fn $name(sides: &TileValues<'_>) {
            // SAFETY: the caller's promise; tile registers belong to nobody else.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    "mov {place}, [{values}]",
                    "add {place}, {column}",
                    "tileloadd tmm5, [{weights} + {weights_stride}]",
                    $($vector,)*
                    "add {weights}, 32",
                    "add {values}, 8",
                    "dec {count}",
                    "jnz 2b",
                    $($stored,)*
                    weights = inout(reg) sides.weights => _,
                    weights_stride = in(reg) sides.weights_stride_bytes,
                    values = inout(reg) sides.values.as_ptr() => _,
                    count = inout(reg) sides.values.len() => _,
                    place = out(reg) _,
                    column = in(reg) sides.column_bytes,
                    stride = in(reg) sides.values_stride_bytes,
                    sums = in(reg) sides.sums,
                    sums_stride = in(reg) sides.sums_stride_bytes,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm5") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

values!(
    /// 64 columns.
    values_of_64,
    [
        "tileloadd tmm7, [{place} + {stride}]",
        "tdpbf16ps tmm0, tmm5, tmm7",
        "tileloadd tmm7, [{place} + {stride} + 64]",
        "tdpbf16ps tmm1, tmm5, tmm7",
        "tileloadd tmm7, [{place} + {stride} + 128]",
        "tdpbf16ps tmm2, tmm5, tmm7",
        "tileloadd tmm7, [{place} + {stride} + 192]",
        "tdpbf16ps tmm3, tmm5, tmm7"
    ],
    [
        "tilestored [{sums} + {sums_stride}], tmm0",
        "tilestored [{sums} + {sums_stride} + 64], tmm1",
        "tilestored [{sums} + {sums_stride} + 128], tmm2",
        "tilestored [{sums} + {sums_stride} + 192], tmm3"
    ]
);
values!(
    /// 16 columns.
    values_of_16,
    ["tileloadd tmm7, [{place} + {stride}]", "tdpbf16ps tmm0, tmm5, tmm7"],
    ["tilestored [{sums} + {sums_stride}], tmm0"]
);

//! Tile registers (AMX): whether this process may use them, what shapes they have, and the loops that keep sums in them.
//!
//! Between two blocks of `asm!` the compiler may do anything but touch tile registers, which it does not know. So each
//! loop is one block that begins with sums of zero and ends with sums in memory; only the shapes outlive it.

use std::arch::asm;
use std::sync::OnceLock;

/// Rows of a tile register, and words of a row.
pub(super) const TILE_ROWS: usize = 16;
pub(super) const TILE_WORDS: usize = 16;

/// This processor has tiles for bf16 and int8, and the system lets this process use them: Linux asks for that, because a
/// thread that uses tiles has 8 KiB more to be saved.
pub(super) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| processor_has_tiles() && system_grants_tiles())
}

fn processor_has_tiles() -> bool {
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    const AMX_INT8: u32 = 1 << 25;
    let all = AMX_BF16 | AMX_TILE | AMX_INT8;
    std::arch::x86_64::__cpuid(0).eax >= 7 && std::arch::x86_64::__cpuid_count(7, 0).edx & all == all
}

#[cfg(target_os = "linux")]
fn system_grants_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: asks for a permission of the whole process; an older kernel answers with an error.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn system_grants_tiles() -> bool {
    false
}

/// The shapes of this thread's tile registers; gives the registers up when it ends.
pub(super) struct Tiles {
    shape: Option<Shape>,
}

/// What the registers are shaped for, and for how many rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Product(usize),
    Attention(usize),
}

/// What `LDTILECFG` reads.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// Shapes of the eight registers, (rows, bytes of a row): at most 16 and 64.
    fn new(registers: [(usize, u16); 8]) -> Self {
        let mut shapes = Self { palette: 1, start_row: 0, reserved: [0; 14], bytes_per_row: [0; 16], rows: [0; 16] };
        for (register, (rows, bytes)) in registers.into_iter().enumerate() {
            shapes.rows[register] = rows as u8;
            shapes.bytes_per_row[register] = bytes;
        }
        shapes
    }

    unsafe fn load(&self) {
        // SAFETY: tiles are available, and the shapes are valid for palette 1: 1 to 16 rows of at most 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) self, options(nostack, preserves_flags)) }
    }
}

impl Tiles {
    pub(super) fn new() -> Self {
        Self { shape: None }
    }

    /// Shapes the registers for a product with `rows` rows of the left side, 1 to 32: sums in 0 to 3 and the left side in 4
    /// and 5, each half of them for the rows from the 17th on; the right side in 6 and 7.
    ///
    /// # Safety
    /// Tiles are available.
    pub(super) unsafe fn shape_for_product(&mut self, rows: usize) {
        if self.shape != Some(Shape::Product(rows)) {
            self.shape = Some(Shape::Product(rows));
            let (upper, lower) = ((rows.min(TILE_ROWS), 64), (rows.saturating_sub(TILE_ROWS).max(1), 64));
            let right = (TILE_ROWS, 64);
            // SAFETY: the caller's promise.
            unsafe { Shapes::new([upper, upper, lower, lower, upper, lower, right, right]).load() }
        }
    }

    /// Shapes the registers for attention with `rows` rows of queries, 1 to 16: sums in 0 to 3; left and right side in 4
    /// and 6, and in 5 and 7 where there are only 8 words of them.
    ///
    /// # Safety
    /// Tiles are available.
    pub(super) unsafe fn shape_for_attention(&mut self, rows: usize) {
        if self.shape != Some(Shape::Attention(rows)) {
            self.shape = Some(Shape::Attention(rows));
            let sums = (rows, 64);
            // SAFETY: the caller's promise.
            unsafe { Shapes::new([sums, sums, sums, sums, (rows, 64), (rows, 32), (16, 64), (8, 64)]).load() }
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        if self.shape.is_some() {
            // SAFETY: shapes were loaded, so tiles are available. A thread without shapes is cheaper to switch.
            unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
        }
    }
}

/// The sides of one chunk of `k`, cut into steps of 16 words, and where its sums go.
pub(super) struct TileChunk {
    /// `[step][row][16 words]`; the rows are those that the registers are shaped for.
    pub(super) left: *const u32,
    /// Bytes from one step of the left side to the next.
    pub(super) left_step_bytes: usize,
    /// `[word][32]`.
    pub(super) right: *const u32,
    /// Steps whose 16 words are all there.
    pub(super) whole_steps: usize,
    /// 16 words of the right side, `[word][32]`, for one more step; null if there is none.
    pub(super) tail: *const u32,
    /// `[row][32]`.
    pub(super) sums: *mut u32,
    /// What to fetch into the second-level cache: so many lines per step, at least one, from here on.
    pub(super) ahead: *const u32,
    pub(super) ahead_lines: usize,
}

/// Defines the loops over a chunk for one instruction: with rows in one register, and with rows in two.
macro_rules! chunk_loops {
    ($(#[$doc:meta])* $one:ident, $two:ident, $multiply:literal) => {
        $(#[$doc])*
        /// For 1 to 16 rows.
        ///
        /// # Safety
        /// The registers are shaped for the rows; both sides and the sums have them; there is a step.
        pub(super) unsafe fn $one(chunk: &TileChunk) {
            // SAFETY: the caller's promise; tile registers belong to nobody else, and a prefetch never faults.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "test {steps}, {steps}",
                    "jz 3f",
                    "2:",
                    "tileloadd tmm6, [{right} + {line_pair}]",
                    "tileloadd tmm7, [{right} + {line_pair} + 64]",
                    "tileloadd tmm4, [{left} + {line}]",
                    concat!($multiply, " tmm0, tmm4, tmm6"),
                    concat!($multiply, " tmm1, tmm4, tmm7"),
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
                    "tilestored [{sums} + {line_pair}], tmm0",
                    "tilestored [{sums} + {line_pair} + 64], tmm1",
                    left = inout(reg) chunk.left => _,
                    right = inout(reg) chunk.right => _,
                    steps = inout(reg) chunk.whole_steps => _,
                    tail = inout(reg) chunk.tail => _,
                    ahead = inout(reg) chunk.ahead => _,
                    count = out(reg) _,
                    lines = in(reg) chunk.ahead_lines,
                    left_step = in(reg) chunk.left_step_bytes,
                    sums = in(reg) chunk.sums,
                    line = in(reg) 64usize,
                    line_pair = in(reg) 128usize,
                    out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }

        $(#[$doc])*
        /// For 17 to 32 rows.
        ///
        /// # Safety
        /// As for the other.
        pub(super) unsafe fn $two(chunk: &TileChunk) {
            // SAFETY: as for the other.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "test {steps}, {steps}",
                    "jz 3f",
                    "2:",
                    "tileloadd tmm6, [{right} + {line_pair}]",
                    "tileloadd tmm4, [{left} + {line}]",
                    concat!($multiply, " tmm0, tmm4, tmm6"),
                    "tileloadd tmm7, [{right} + {line_pair} + 64]",
                    concat!($multiply, " tmm1, tmm4, tmm7"),
                    "tileloadd tmm5, [{left} + {line} + 1024]",
                    concat!($multiply, " tmm2, tmm5, tmm6"),
                    concat!($multiply, " tmm3, tmm5, tmm7"),
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
                    "tilestored [{sums} + {line_pair}], tmm0",
                    "tilestored [{sums} + {line_pair} + 64], tmm1",
                    "add {sums}, 2048",
                    "tilestored [{sums} + {line_pair}], tmm2",
                    "tilestored [{sums} + {line_pair} + 64], tmm3",
                    left = inout(reg) chunk.left => _,
                    right = inout(reg) chunk.right => _,
                    steps = inout(reg) chunk.whole_steps => _,
                    tail = inout(reg) chunk.tail => _,
                    ahead = inout(reg) chunk.ahead => _,
                    count = out(reg) _,
                    lines = in(reg) chunk.ahead_lines,
                    left_step = in(reg) chunk.left_step_bytes,
                    sums = inout(reg) chunk.sums => _,
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

chunk_loops!(
    /// Pairs of bf16 into f32, summed as `PairOrder::Tiles` says.
    bf16_one, bf16_two, "tdpbf16ps"
);
chunk_loops!(
    /// Quads of signed by unsigned bytes into i32.
    int8_one, int8_two, "tdpbsud"
);

/// Up to 16 rows of queries against four times 16 keys.
pub(super) struct TileScores {
    /// `[step][row][16 words]`.
    pub(super) queries: *const u32,
    /// Bytes from one step of the queries to the next.
    pub(super) queries_step_bytes: usize,
    /// `[word][16]` each.
    pub(super) keys: [*const u32; 4],
    /// Bytes from one word of the keys to the next.
    pub(super) keys_stride_bytes: usize,
    /// Steps of 16 words.
    pub(super) whole_steps: usize,
    /// Four times 16 of each row.
    pub(super) scores: *mut f32,
    /// Bytes from one row of the scores to the next.
    pub(super) scores_stride_bytes: usize,
}

/// Defines the loop over the steps of a head, with what follows them.
macro_rules! scores {
    ($(#[$doc:meta])* $name:ident, $($rest:literal),*) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The registers are shaped for the rows; all sides have them; there is a step.
        pub(super) unsafe fn $name(sides: &TileScores) {
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

/// Up to 16 rows of weights against some columns of values, 16 positions at a time.
pub(super) struct TileValues<'a> {
    /// 8 words of each row per vector of positions.
    pub(super) weights: *const u32,
    /// Bytes from one row of the weights to the next.
    pub(super) weights_stride_bytes: usize,
    /// The values of each vector of positions, 8 words of each column: at least one vector.
    pub(super) values: &'a [*const u32],
    /// Bytes from one word of a column to the next.
    pub(super) values_stride_bytes: usize,
    /// The first of these columns, in bytes.
    pub(super) column_bytes: usize,
    pub(super) sums: *mut f32,
    /// Bytes from one row of the sums to the next.
    pub(super) sums_stride_bytes: usize,
}

/// Defines the loop over vectors of positions, by what is done for one and what is stored in the end.
macro_rules! values {
    ($(#[$doc:meta])* $name:ident, [$($vector:literal),*], [$($stored:literal),*]) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The registers are shaped for the rows; all sides have them, and the columns.
        pub(super) unsafe fn $name(sides: &TileValues<'_>) {
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

/// Defines a loop of multiply-adds in registers only, four sums in turn: more than the latency of the instruction needs.
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
    /// Four times `fours` registers of pairs of bf16; `factor` is a pair.
    bf16_chains, "tdpbf16ps"
);
chains!(
    /// Four times `fours` registers of quads of bytes; `factor` is a quad.
    int8_chains, "tdpbsud"
);

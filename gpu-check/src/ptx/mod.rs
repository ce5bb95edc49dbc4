//! Kernels of the measurements, as PTX text for the driver's compiler; knows nothing of how they are launched.
//!
//! Written by hand so that no CUDA toolkit is needed to build; the tests assemble them with `ptxas` if it is installed.

mod mma;
mod wgmma;

/// `spin`, `note_sm` and `read_sum`, for GPUs from compute capability 7.0 on.
pub(crate) const BASIC: &str = include_str!("basic.ptx");

/// Rule of the bf16 pairs of an operand: `(hash & keep) | set`, with a different hash in every word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fill {
    pub(crate) keep: u32,
    pub(crate) set: u32,
}

impl Fill {
    /// Elements of 1.0, so that every accumulator counts its products.
    pub(crate) const ONES: Fill = Fill { keep: 0, set: 0x3F80_3F80 };
    /// Random signs and mantissas, magnitudes in [0.5, 2), for timing. Constant operands draw less power, so the clock
    /// would be higher than with real data.
    pub(crate) const RANDOM: Fill = Fill { keep: 0x80FF_80FF, set: 0x3F00_3F00 };
}

/// A loop of one tensor-core instruction whose operands never leave the SM: `entry(rounds, keep, set, sums)`. Each
/// thread adds the sum of its accumulators to `sums[global thread number]` (f32).
#[derive(Debug, Clone)]
pub(crate) struct TensorLoop {
    pub(crate) entry: &'static str,
    pub(crate) ptx: String,
    pub(crate) threads_per_block: u32,
    /// Blocks that an SM can hold at a time and that keep it busy.
    pub(crate) blocks_per_sm: u32,
    /// Floating-point operations (a multiplication and an addition are two) of one block in one round.
    pub(crate) flop_per_block_round: u64,
    /// Growth of each thread's sum in a round when all elements are 1.
    pub(crate) sum_per_round: f32,
}

impl TensorLoop {
    /// `mma.sync.m16n8k16` with operands in registers: compute capability 8.0 and later.
    pub(crate) fn mma() -> TensorLoop {
        mma::tensor_loop()
    }

    /// `wgmma.m64n256k16` with operands in shared memory: compute capability 9.0 only.
    pub(crate) fn wgmma() -> TensorLoop {
        wgmma::tensor_loop()
    }
}

/// Rounds of a check with [`Fill::ONES`]: few enough that every sum is exact in f32.
pub(crate) const CHECK_ROUNDS: u32 = 16;

/// K of one instruction, for both kinds: a sum of 16 products.
const K: u32 = 16;

/// Instructions that put the bf16 pair for the hash of (`index`, `seed`) into `target`. Registers `hash`, `shifted`,
/// `keep` and `set` must exist.
fn pair(target: &str, index: &str, seed: u32) -> String {
    let seed = seed.wrapping_add(1).wrapping_mul(0x85EB_CA6B);
    format!(
        "    mad.lo.u32 hash, {index}, 0x9E3779B9, {seed};
    shr.u32 shifted, hash, 15;
    xor.b32 hash, hash, shifted;
    mul.lo.u32 hash, hash, 0x2C1B3C6D;
    shr.u32 shifted, hash, 12;
    xor.b32 hash, hash, shifted;
    and.b32 hash, hash, keep;
    or.b32 {target}, hash, set;
"
    )
}

fn list(register: &str, from: u32, count: u32) -> String {
    let names: Vec<String> = (from..from + count).map(|index| format!("{register}{index}")).collect();
    format!("{{{}}}", names.join(", "))
}

/// End of both kernels: the sum of the f32 registers `c0…` goes to `sums[thread]`.
fn store_sum(accumulators: u32) -> String {
    let mut text = String::new();
    for index in 1..accumulators {
        text += &format!("    add.f32 c0, c0, c{index};\n");
    }
    text + "    mad.wide.u32 address, thread, 4, address;
    st.global.f32 [address], c0;
    ret;
}
"
}

/// Beginning of both kernels after the registers of only one: parameters are read, `thread` is the thread's global
/// number, the accumulators are zero.
fn prologue(accumulators: u32) -> String {
    let mut text = format!(
        "    .reg .pred more;
    .reg .u32 thread, lane, block, width, left, hash, shifted, keep, set;
    .reg .u64 address;
    .reg .f32 c<{accumulators}>;

    ld.param.u32 left, [rounds];
    ld.param.u32 keep, [keep_bits];
    ld.param.u32 set, [set_bits];
    ld.param.u64 address, [sums];
    cvta.to.global.u64 address, address;
    mov.u32 lane, %tid.x;
    mov.u32 block, %ctaid.x;
    mov.u32 width, %ntid.x;
    mad.lo.u32 thread, block, width, lane;
"
    );
    for index in 0..accumulators {
        text += &format!("    mov.f32 c{index}, 0f00000000;\n");
    }
    text
}

fn entry(version: &str, target: &str, name: &str) -> String {
    format!(
        ".version {version}
.target {target}
.address_size 64
.visible .entry {name}(.param .u32 rounds, .param .u32 keep_bits, .param .u32 set_bits, .param .u64 sums)
{{
"
    )
}

#[cfg(test)]
mod tests;

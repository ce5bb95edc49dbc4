//! Loop of `wgmma` (PTX ISA 9.7.15, m64n256k16 with bf16 operands and f32 sums) with operands in shared memory.

use super::{K, TensorLoop, entry, list, pair, prologue, store_sum};

const M: u32 = 64;
const N: u32 = 256;
/// Warpgroups per SM: one multiplies while the other waits for its group of instructions.
const WARPGROUPS: u32 = 2;
/// K steps of a tile row, which is 64 elements of K, 128 bytes: one row of the 128-byte swizzle.
const K_STEPS: u32 = 4;
/// Instructions of a round, committed as one group.
const PRODUCTS: u32 = 4 * K_STEPS;
const ROW_BYTES: u32 = 128;
const LEFT_BYTES: u32 = M * ROW_BYTES;
const RIGHT_BYTES: u32 = N * ROW_BYTES;
/// Exactly the shared memory that a block has without asking for more: 48 KiB.
const TILE_BYTES: u32 = WARPGROUPS * LEFT_BYTES + RIGHT_BYTES;
/// f32 registers of a thread for the sums of an instruction: M × N over the 128 threads of a warpgroup.
const SUMS: u32 = M * N / 128;
/// A shared-memory matrix descriptor without its address (PTX ISA, "Matrix descriptor"): 128-byte swizzle (1 in bits
/// 62–63), 1024 bytes from one group of eight rows to the next (in units of 16, bits 32–45), leading offset unused (1).
const DESCRIPTOR: u64 = 1 << 62 | (1024 >> 4) << 32 | 1 << 16;
/// A K step, 16 elements of 2 bytes, in the descriptor's units of 16 bytes.
const K_STEP_UNITS: u32 = K * 2 / 16;

pub(super) fn tensor_loop() -> TensorLoop {
    TensorLoop {
        entry: "wgmma_loop",
        ptx: ptx(),
        threads_per_block: WARPGROUPS * 128,
        blocks_per_sm: 1,
        flop_per_block_round: u64::from(WARPGROUPS * PRODUCTS) * u64::from(2 * M * N * K),
        sum_per_round: (PRODUCTS * SUMS * K) as f32,
    }
}

fn ptx() -> String {
    let mut text = entry("8.0", "sm_90a", "wgmma_loop");
    text += &format!(
        "    .shared .align 1024 .b8 tiles[{TILE_BYTES}];
    .reg .pred filling, add;
    .reg .u32 word, target, value, group, base;
    .reg .u64 left_tile, right_tile, a<{K_STEPS}>, b<{K_STEPS}>;
"
    );
    text += &prologue(SUMS);
    text += &fill();
    text += &descriptors();
    text += "    setp.eq.u32 add, lane, lane;
AGAIN:
    wgmma.fence.sync.aligned;
";
    for product in 0..PRODUCTS {
        text += &multiply(product % K_STEPS);
    }
    text += "    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
    sub.u32 left, left, 1;
    setp.ne.u32 more, left, 0;
    @more bra AGAIN;
";
    text + &store_sum(SUMS)
}

/// Fills every word of the tiles with its pair; the block's threads take turns. The tensor cores read shared memory
/// through the asynchronous proxy, hence the fence before the barrier.
fn fill() -> String {
    format!(
        "    mov.u32 base, tiles;
    mov.u32 word, lane;
FILL:
{}    shl.b32 target, word, 2;
    add.u32 target, target, base;
    st.shared.u32 [target], value;
    add.u32 word, word, {};
    setp.lt.u32 filling, word, {};
    @filling bra FILL;
    fence.proxy.async.shared::cta;
    bar.sync 0;
",
        pair("value", "word", 0),
        WARPGROUPS * 128,
        TILE_BYTES / 4,
    )
}

/// Makes one descriptor per K step for the warpgroup's own left tile and for the common right tile.
fn descriptors() -> String {
    let mut text = format!(
        "    shr.u32 group, lane, 7;
    mad.lo.u32 target, group, {LEFT_BYTES}, base;
    and.b32 target, target, 0x3FFFF;
    shr.u32 target, target, 4;
    cvt.u64.u32 left_tile, target;
    add.u32 target, base, {};
    and.b32 target, target, 0x3FFFF;
    shr.u32 target, target, 4;
    cvt.u64.u32 right_tile, target;
",
        WARPGROUPS * LEFT_BYTES
    );
    for step in 0..K_STEPS {
        let fixed = DESCRIPTOR + u64::from(step * K_STEP_UNITS);
        text += &format!("    add.u64 a{step}, left_tile, {fixed:#x};\n    add.u64 b{step}, right_tile, {fixed:#x};\n");
    }
    text
}

fn multiply(step: u32) -> String {
    let sums = list("c", 0, SUMS);
    format!("    wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {sums}, a{step}, b{step}, add, 1, 1, 0, 0;\n")
}

//! Loop of `mma.sync` (PTX ISA 9.7.14, m16n8k16 with bf16 operands and f32 sums) with operands in registers.

use super::{K, TensorLoop, entry, list, pair, prologue, store_sum};

/// Independent sums per warp: enough that no instruction waits for the last one.
const CHAINS: u32 = 8;
/// Passes over the chains in a round, alternating between two left operands.
const PASSES: u32 = 4;
const WARPS: u32 = 8;
/// 32-bit registers of a thread for left operand, right operand and sums of an instruction.
const LEFT: u32 = 4;
const RIGHT: u32 = 2;
const SUMS: u32 = 4;
const M: u32 = 16;
const N: u32 = 8;

pub(super) fn tensor_loop() -> TensorLoop {
    let products = CHAINS * PASSES;
    TensorLoop {
        entry: "mma_loop",
        ptx: ptx(),
        threads_per_block: WARPS * 32,
        blocks_per_sm: 2,
        flop_per_block_round: u64::from(WARPS * products) * u64::from(2 * M * N * K),
        sum_per_round: (products * SUMS * K) as f32,
    }
}

fn ptx() -> String {
    let mut text = entry("7.4", "sm_80", "mma_loop");
    text += &format!("    .reg .b32 a<{}>, b<{}>;\n", 2 * LEFT, CHAINS * RIGHT);
    text += &prologue(CHAINS * SUMS);
    for word in 0..2 * LEFT {
        text += &pair(&format!("a{word}"), "thread", word);
    }
    for word in 0..CHAINS * RIGHT {
        text += &pair(&format!("b{word}"), "thread", 2 * LEFT + word);
    }
    text += "AGAIN:\n";
    for pass in 0..PASSES {
        for chain in 0..CHAINS {
            text += &product(pass % 2, chain);
        }
    }
    text += "    sub.u32 left, left, 1;
    setp.ne.u32 more, left, 0;
    @more bra AGAIN;
";
    text + &store_sum(CHAINS * SUMS)
}

fn product(left: u32, chain: u32) -> String {
    let sums = list("c", chain * SUMS, SUMS);
    let (a, b) = (list("a", left * LEFT, LEFT), list("b", chain * RIGHT, RIGHT));
    format!("    mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {sums}, {a}, {b}, {sums};\n")
}

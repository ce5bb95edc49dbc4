//! Tile registers (AMX): availability, shapes, and the loops that keep sums in them; knows no operation.
//!
//! The compiler does not know tile registers and keeps nothing in them. Each loop is one `asm!` block that begins with
//! sums of zero and ends with sums in memory; only the shapes outlive a block.

mod chains;
mod chunks;
mod heads;
mod shapes;

use std::sync::OnceLock;

pub(crate) use chains::{bf16_chains, int8_chains};
pub(super) use chunks::{TileChunk, bf16_one, bf16_two, int8_one, int8_two};
pub(super) use heads::{
    TileScores, TileValues, scores_of_whole_steps, scores_with_half_a_step, values_of_16, values_of_64,
};
pub(super) use shapes::Tiles;

/// Rows of a tile register.
pub(super) const TILE_ROWS: usize = 16;
pub(super) const TILE_WORDS: usize = 16;

/// True if this processor has tiles for bf16 and int8 and the system lets this process use them: Linux wants to be
/// asked, because a thread with tiles has 8 KiB more state to save.
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

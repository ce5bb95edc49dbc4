//! The inner loop of scores and weighted values: a few rows of words against 16 or 32 columns, first word first.

use crate::cpu::lanes::Format;

/// Memory to fetch while words are multiplied: with word `p` the lines at both `starts`, `p * step` bytes on.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    pub(super) starts: [*const u8; 2],
    pub(super) step: usize,
}

/// `acc[r][v] += left[r] · right[v]` over `words` words, from the first to the last.
///
/// Word `p` of row `r` is `left[r * ROW_STRIDE + p * WORD_STRIDE]`; word `p` of the 16 columns `v` begins at
/// `right[v] + p * right_stride`. There are one or two vectors of columns.
///
/// # Safety
/// All those words can be read, and the level's instructions exist.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "through iterators the vectors go to the stack and back for every word")]
pub(super) unsafe fn accumulate<
    F: Format,
    const ROWS: usize,
    const VECTORS: usize,
    const ROW_STRIDE: usize,
    const WORD_STRIDE: usize,
>(
    acc: &mut [[F::Lanes; VECTORS]; ROWS],
    left: *const u32,
    right: [*const u32; VECTORS],
    right_stride: usize,
    words: usize,
    ahead: Ahead,
) {
    let mut sums = *acc;
    for p in 0..words {
        // SAFETY: the caller promises that word `p` of both sides can be read.
        unsafe {
            let mut loaded = [F::load(right[0].add(p * right_stride)); VECTORS];
            loaded[VECTORS - 1] = F::load(right[VECTORS - 1].add(p * right_stride));
            fetch(ahead.starts[0].wrapping_add(p * ahead.step));
            fetch(ahead.starts[1].wrapping_add(p * ahead.step));
            for r in 0..ROWS {
                let word = *left.add(r * ROW_STRIDE + p * WORD_STRIDE);
                for v in 0..VECTORS {
                    sums[r][v] = F::mac(sums[r][v], word, loaded[v]);
                }
            }
        }
    }
    *acc = sums;
}

/// Fetches a line into the second-level cache. A fetch into the first level holds one of its few miss buffers until
/// memory answers, which bounds the bandwidth of one core to half of what it can read.
#[inline(always)]
pub(super) fn fetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64, and a prefetch of any address is harmless.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

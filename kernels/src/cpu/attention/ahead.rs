//! Memory that attention fetches while it multiplies.

use crate::cpu::gemm::Fetch;

/// Memory to fetch for word `p`: the lines at both `starts`, `p * step` bytes on.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    pub(super) starts: [*const u8; 2],
    pub(super) step: usize,
}

impl Fetch for Ahead {
    #[inline(always)]
    fn fetch(self, p: usize) {
        fetch(self.starts[0].wrapping_add(p * self.step));
        fetch(self.starts[1].wrapping_add(p * self.step));
    }
}

/// Fetches a line into the second-level cache. A fetch into the first level holds one of its few miss buffers until
/// memory answers, which halves the bandwidth of one core.
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

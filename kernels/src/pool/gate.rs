//! Gate of a run: workers join while it is open; the caller may leave when it is closed and empty.

use crate::sync::atomic::{AtomicU64, Ordering};

/// One word: the round in the high half, then the open bit, then the number of workers inside.
#[derive(Default)]
pub(super) struct Gate(AtomicU64);

const OPEN: u64 = 1 << 31;
const ROUND: u64 = 1 << 32;
const INSIDE: u64 = OPEN - 1;

impl Gate {
    /// Begins the next round. Only the caller of a run does this, when the gate is closed and empty.
    pub(super) fn open(&self) {
        let word = self.0.load(Ordering::Relaxed);
        debug_assert_eq!(word & (OPEN | INSIDE), 0);
        self.0.store((word & !(OPEN | INSIDE)).wrapping_add(ROUND) | OPEN, Ordering::SeqCst);
    }

    pub(super) fn close(&self) {
        self.0.fetch_and(!OPEN, Ordering::SeqCst);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.load(Ordering::SeqCst) & INSIDE == 0
    }

    pub(super) fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst) & OPEN != 0
    }

    pub(super) fn round(&self) -> u32 {
        (self.0.load(Ordering::SeqCst) >> 32) as u32
    }

    /// Enters if `round` is still the latest and still open.
    pub(super) fn join(&self, round: u32) -> bool {
        let joined = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| {
            ((word >> 32) as u32 == round && word & OPEN != 0).then_some(word + 1)
        });
        joined.is_ok()
    }

    /// Leaves; true when the gate is closed and this was the last worker inside.
    pub(super) fn leave(&self) -> bool {
        let before = self.0.fetch_sub(1, Ordering::SeqCst);
        before & (OPEN | INSIDE) == 1
    }
}

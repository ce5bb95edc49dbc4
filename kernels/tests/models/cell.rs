//! Plain memory watched by loom: an access that is not ordered after the last write ends the model.

use std::sync::atomic::Ordering;

use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicBool;

#[derive(Default)]
pub(crate) struct Watched {
    number: UnsafeCell<u32>,
    /// Never written: reading it lets loom switch threads, which plain memory does not.
    tick: AtomicBool,
}

// SAFETY: loom runs one thread at a time and ends the model at an access that could race with another.
unsafe impl Sync for Watched {}

impl Watched {
    pub(crate) fn get(&self) -> u32 {
        self.tick.load(Ordering::Relaxed);
        // SAFETY: as above.
        self.number.with(|number| unsafe { *number })
    }

    pub(crate) fn set(&self, value: u32) {
        self.tick.load(Ordering::Relaxed);
        // SAFETY: as above.
        self.number.with_mut(|number| unsafe { *number = value });
    }
}

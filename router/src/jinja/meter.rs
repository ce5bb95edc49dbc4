//! Steps and memory that the running template has used; knows no value.
//!
//! A template runs on one thread from start to end, and a thread runs one template at a time, so the counts are the
//! thread's.

use std::cell::{Cell, RefCell};

use super::Error;

/// Most bytes that all values of one run may hold together.
pub(super) const LIVE_BYTES_MAX: usize = 256 << 20;

/// Most bytes of one text.
pub(super) const TEXT_BYTES_MAX: usize = 64 << 20;

/// Bytes that may be walked for one step.
const BYTES_PER_STEP: usize = 64;

/// Steps between two calls of the watch.
const STEPS_PER_LOOK: u32 = 1024;

/// Returns true while the run may go on.
pub type Watch = Box<dyn Fn() -> bool>;

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
    static STEPS_TO_LOOK: Cell<u32> = const { Cell::new(STEPS_PER_LOOK) };
    static STEPS_LEFT: Cell<u64> = const { Cell::new(0) };
    static LIVE_BYTES: Cell<usize> = const { Cell::new(0) };
}

/// Run in progress; its end, also by a panic, lets go of the watch.
#[must_use]
pub(super) struct Run(());

/// Begins a run of at most `steps`, as long as `watch` lets it go on.
pub(super) fn begin(steps: u64, watch: Watch) -> Run {
    STEPS_LEFT.with(|left| left.set(steps));
    STEPS_TO_LOOK.with(|left| left.set(STEPS_PER_LOOK));
    LIVE_BYTES.with(|live| live.set(0));
    WATCH.with(|slot| slot.replace(Some(watch)));
    Run(())
}

impl Drop for Run {
    fn drop(&mut self) {
        WATCH.with(|slot| slot.replace(None));
    }
}

/// Asks the watch every `STEPS_PER_LOOK` calls; returns true if the run must stop.
pub(super) fn is_stopped() -> bool {
    let is_due = STEPS_TO_LOOK.with(|left| {
        let before = left.get();
        left.set(if before == 0 { STEPS_PER_LOOK } else { before - 1 });
        before == 0
    });
    is_due && WATCH.with(|watch| watch.borrow().as_ref().is_some_and(|goes_on| !goes_on()))
}

/// Subtracts steps; a shortage shows at the next `is_spent`.
pub(super) fn charge(steps: usize) {
    STEPS_LEFT.with(|left| left.set(left.get().saturating_sub(steps as u64)));
}

/// Subtracts the cost of walking `bytes`.
pub(super) fn charge_bytes(bytes: usize) {
    charge(bytes / BYTES_PER_STEP);
}

/// Subtracts one step; returns true if none was left.
pub(super) fn is_spent() -> bool {
    STEPS_LEFT.with(|left| {
        let before = left.get();
        left.set(before.saturating_sub(1));
        before == 0
    })
}

pub(super) fn add(bytes: usize) {
    LIVE_BYTES.with(|live| live.set(live.get().saturating_add(bytes)));
}

pub(super) fn remove(bytes: usize) {
    LIVE_BYTES.with(|live| live.set(live.get().saturating_sub(bytes)));
}

pub(super) fn live_bytes() -> usize {
    LIVE_BYTES.with(Cell::get)
}

/// Fails if `more` bytes do not fit.
pub(super) fn check(more: usize) -> Result<(), Error> {
    if live_bytes().saturating_add(more) > LIVE_BYTES_MAX { Err(Error::Large(LIVE_BYTES_MAX)) } else { Ok(()) }
}

//! What the running template has used of its steps and its memory; knows no value.
//!
//! A template runs on one thread from start to end, so the counts are the thread's.

use std::cell::{Cell, RefCell};

use super::Error;

/// Bytes that all values of one run may hold together.
pub(super) const LIVE_BYTES_MAX: usize = 256 << 20;

/// Bytes that one text may have.
pub(super) const TEXT_BYTES_MAX: usize = 64 << 20;

/// Bytes that are walked for the price of one step.
const BYTES_PER_STEP: usize = 64;

/// Steps between two looks whether to go on.
const STEPS_PER_LOOK: u32 = 1024;

/// Whether to go on; it belongs to the thread of the run.
pub type Watch = Box<dyn Fn() -> bool>;

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
    static STEPS_TO_LOOK: Cell<u32> = const { Cell::new(STEPS_PER_LOOK) };
    static STEPS_LEFT: Cell<u64> = const { Cell::new(0) };
    static LIVE_BYTES: Cell<usize> = const { Cell::new(0) };
}

/// Gives the run `steps`, as long as `watch` lets it go on.
pub(super) fn begin(steps: u64, watch: Watch) {
    STEPS_LEFT.with(|left| left.set(steps));
    WATCH.with(|slot| slot.replace(Some(watch)));
}

/// The run is over.
pub(super) fn end() {
    WATCH.with(|slot| slot.replace(None));
}

/// Looks now and then; whether the run is to stop.
pub(super) fn is_stopped() -> bool {
    let is_due = STEPS_TO_LOOK.with(|left| {
        let before = left.get();
        left.set(if before == 0 { STEPS_PER_LOOK } else { before - 1 });
        before == 0
    });
    is_due && WATCH.with(|watch| watch.borrow().as_ref().is_some_and(|goes_on| !goes_on()))
}

/// Takes steps off. What is short is noticed at the next `is_spent`.
pub(super) fn charge(steps: usize) {
    STEPS_LEFT.with(|left| left.set(left.get().saturating_sub(steps as u64)));
}

/// Takes off what walking `bytes` costs.
pub(super) fn charge_bytes(bytes: usize) {
    charge(bytes / BYTES_PER_STEP);
}

/// Takes one step off; whether none was left.
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

/// Whether `more` bytes still fit.
pub(super) fn check(more: usize) -> Result<(), Error> {
    if live_bytes().saturating_add(more) > LIVE_BYTES_MAX { Err(Error::Large(LIVE_BYTES_MAX)) } else { Ok(()) }
}

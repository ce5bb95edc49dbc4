//! Waiting for a condition: a short spin, then sleep until woken.

use std::sync::PoisonError;
use std::time::Duration;

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::{self, Thread};
use crate::sync::{Instant, Mutex, spin_until};

/// Time to spin. Gaps between the operations of a layer are shorter, and a thread that is not needed gives up soon.
const SPIN: Duration = Duration::from_micros(40);

/// One thread that waits, and the threads that wake it.
#[derive(Default)]
pub(super) struct Sleeper {
    asleep: AtomicBool,
    thread: Mutex<Option<Thread>>,
}

impl Sleeper {
    /// Makes the calling thread the one that waits.
    pub(super) fn attend(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.as_ref().is_none_or(|thread| thread.id() != thread::current().id()) {
            *thread = Some(thread::current());
        }
    }

    /// Waits until `condition` holds. The thread that makes it true calls [`Sleeper::wake`] afterwards.
    pub(super) fn wait_until(&self, condition: impl Fn() -> bool) {
        if spin_until(Instant::now(), SPIN, &condition) {
            return;
        }
        // The flag is raised before the condition is read for the last time, and the waker reads the flag after it has
        // made the condition true: one of the two always sees the other.
        loop {
            self.asleep.store(true, Ordering::SeqCst);
            if condition() {
                self.asleep.store(false, Ordering::SeqCst);
                return;
            }
            thread::park();
        }
    }

    pub(super) fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).as_ref()
        {
            thread.unpark();
        }
    }
}

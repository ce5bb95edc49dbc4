//! Waiting for a condition: a short spin, then sleep until woken.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How long to spin. The gaps between the operations of a layer are shorter, a thread that is not needed gives up soon.
const SPIN: Duration = Duration::from_micros(40);
/// Spins between two looks at the clock.
const SPINS_PER_LOOK: u32 = 32;

/// One thread that waits, and whoever wakes it.
#[derive(Default)]
pub(super) struct Sleeper {
    asleep: AtomicBool,
    thread: Mutex<Option<Thread>>,
}

impl Sleeper {
    /// From now on the calling thread is the one that waits.
    pub(super) fn attend(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.as_ref().is_none_or(|thread| thread.id() != std::thread::current().id()) {
            *thread = Some(std::thread::current());
        }
    }

    /// Returns when `condition` holds. Whoever makes it true calls [`Sleeper::wake`] afterwards.
    pub(super) fn wait_until(&self, condition: impl Fn() -> bool) {
        let began = Instant::now();
        loop {
            for _ in 0..SPINS_PER_LOOK {
                if condition() {
                    return;
                }
                spin_loop();
            }
            if began.elapsed() >= SPIN {
                break;
            }
        }
        // The flag is raised before the last look at the condition, and the waker looks at the flag after it has made
        // the condition true: one of the two always sees the other.
        loop {
            self.asleep.store(true, Ordering::SeqCst);
            if condition() {
                self.asleep.store(false, Ordering::SeqCst);
                return;
            }
            std::thread::park();
        }
    }

    /// Wakes the waiting thread if it sleeps.
    pub(super) fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).as_ref()
        {
            thread.unpark();
        }
    }
}

//! Atomics, locks, threads, clock and futex for the lock-free parts; knows no use of them. `tests/models` compiles the
//! same parts with a `sync` made of loom, which tries every order of threads.

use std::hint::spin_loop;
use std::time::Duration;

pub(crate) use std::sync::{Mutex, MutexGuard, atomic, mpsc};
pub(crate) use std::{thread, time::Instant};

/// Spins between two readings of the clock.
const SPINS_PER_LOOK: u32 = 32;

/// Spins until `condition` holds or `spin` has passed since `began`; returns whether it holds.
#[inline]
pub(crate) fn spin_until(began: Instant, spin: Duration, condition: impl Fn() -> bool) -> bool {
    loop {
        for _ in 0..SPINS_PER_LOOK {
            if condition() {
                return true;
            }
            spin_loop();
        }
        if began.elapsed() >= spin {
            return false;
        }
    }
}

/// Sleeps while `word` is `seen`, at most for `at_most`; may return early.
pub(crate) fn sleep_while(word: &atomic::AtomicU32, seen: u32, at_most: Duration) {
    let timeout =
        libc::timespec { tv_sec: at_most.as_secs() as libc::time_t, tv_nsec: at_most.subsec_nanos() as libc::c_long };
    // SAFETY: the word and the timeout outlive the call; FUTEX_WAIT only reads them. Not private: the other side may be
    // another process. After every outcome (woken, timed out, interrupted, other value) the caller checks again.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, seen, &raw const timeout) };
}

pub(crate) fn wake_all(word: &atomic::AtomicU32) {
    // SAFETY: FUTEX_WAKE uses only the address of the word.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, libc::c_int::MAX) };
}

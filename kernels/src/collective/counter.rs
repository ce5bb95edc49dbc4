//! One number in shared memory that one rank raises and others wait for; knows no meaning of it.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Spins between two looks at the clock.
const SPINS_PER_LOOK: u32 = 32;
/// A sleeper looks at least this often whether the group still exists.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// How long a wait lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Spin so long before sleeping; zero where ranks share cores.
    pub spin: Duration,
    /// Give up after so long.
    pub limit: Duration,
}

/// A cache line with a number that only grows (and wraps), and some plain words beside it.
#[repr(C, align(64))]
pub(super) struct Counter {
    value: AtomicU32,
    sleepers: AtomicU32,
    /// Facts that go with the value: written before it is raised, read after it was seen.
    pub(super) notes: [AtomicU32; 14],
}

/// Why a wait ended without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unmet {
    /// The group is over.
    Over,
    /// The limit has passed.
    Late(Duration),
}

impl Counter {
    pub(super) fn value(&self) -> u32 {
        self.value.load(Ordering::Acquire)
    }

    /// Makes `value` seen, with all that was written before, and wakes who waits for it.
    pub(super) fn raise(&self, value: u32) {
        // The value is raised before the look at the sleepers, and a sleeper counts itself before its last look at the
        // value: one of the two always sees the other.
        self.value.store(value, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) != 0 {
            wake_all(&self.value);
        }
    }

    /// Sets the value if it was never set; the first one wins.
    pub(super) fn set_once(&self, value: u32) {
        let _an_earlier_one_stays = self.value.compare_exchange(0, value, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Returns when the value has reached `target`, or when `over` has any value, or at the limit.
    pub(super) fn wait_for(&self, target: u32, over: &Counter, patience: Patience) -> Result<(), Unmet> {
        let began = Instant::now();
        loop {
            for _ in 0..SPINS_PER_LOOK {
                if has_reached(self.value(), target) {
                    return Ok(());
                }
                spin_loop();
            }
            if began.elapsed() >= patience.spin {
                break;
            }
        }
        loop {
            if has_reached(self.value(), target) {
                return Ok(());
            }
            if over.value() != 0 {
                return Err(Unmet::Over);
            }
            let waited = began.elapsed();
            if waited >= patience.limit {
                return Err(Unmet::Late(waited));
            }
            self.sleep_unless(target, SLEEP_MAX.min(patience.limit - waited));
        }
    }

    fn sleep_unless(&self, target: u32, at_most: Duration) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let seen = self.value.load(Ordering::SeqCst);
        if !has_reached(seen, target) {
            sleep_while(&self.value, seen, at_most);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Values wrap; two that are compared are never further apart than half the range.
fn has_reached(value: u32, target: u32) -> bool {
    value.wrapping_sub(target) <= u32::MAX / 2
}

/// Sleeps while `word` holds `seen`, at most so long; may return early.
fn sleep_while(word: &AtomicU32, seen: u32, at_most: Duration) {
    let timeout =
        libc::timespec { tv_sec: at_most.as_secs() as libc::time_t, tv_nsec: at_most.subsec_nanos() as libc::c_long };
    // SAFETY: the word and the timeout outlive the call; FUTEX_WAIT only reads them. Not private: the other side may be
    // another process. Every outcome (woken, timed out, interrupted, another value) leads to another look.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, seen, &raw const timeout) };
}

fn wake_all(word: &AtomicU32) {
    // SAFETY: FUTEX_WAKE does not touch the word, it only names it.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, libc::c_int::MAX) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter() -> Counter {
        Counter { value: AtomicU32::new(0), sleepers: AtomicU32::new(0), notes: Default::default() }
    }

    const SHORT: Patience = Patience { spin: Duration::ZERO, limit: Duration::from_millis(20) };
    const LONG: Patience = Patience { spin: Duration::ZERO, limit: Duration::from_secs(20) };

    #[test]
    fn values_wrap() {
        assert!(has_reached(5, 5) && has_reached(6, 5) && !has_reached(4, 5));
        assert!(has_reached(1, u32::MAX) && !has_reached(u32::MAX, 1));
    }

    #[test]
    fn a_wait_ends_with_its_value_at_its_limit_or_with_the_group() {
        let (number, over) = (counter(), counter());
        assert!(matches!(number.wait_for(1, &over, SHORT), Err(Unmet::Late(_))));
        number.raise(1);
        assert_eq!(number.wait_for(1, &over, SHORT), Ok(()));
        over.set_once(7);
        over.set_once(8);
        assert_eq!(over.value(), 7);
        assert_eq!(number.wait_for(1, &over, SHORT), Ok(()), "what has come counts, even at the end");
        assert_eq!(number.wait_for(2, &over, LONG), Err(Unmet::Over));
    }

    #[test]
    fn no_wake_is_lost_between_two_sleepers() {
        let (ping, pong, over) = (counter(), counter(), counter());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=2000 {
                    ping.wait_for(round, &over, LONG).unwrap();
                    pong.raise(round);
                }
            });
            for round in 1..=2000 {
                ping.raise(round);
                pong.wait_for(round, &over, LONG).unwrap();
            }
        });
        assert_eq!((ping.sleepers.into_inner(), pong.sleepers.into_inner()), (0, 0));
    }
}

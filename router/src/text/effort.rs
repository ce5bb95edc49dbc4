//! Bounds on the work for one text, and whether a client still waits for it; knows no tokenizer.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use thiserror::Error;

/// Steps between two readings of the clock, which cost a system call each.
const STEPS_PER_LOOK: u32 = 16;

/// Reason why a text was not turned into tokens completely.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Stopped {
    /// No client waits for the outcome any more.
    #[error("nobody waits for it any more")]
    Unwanted,
    /// The text took more processor time than one text may.
    #[error("turning the text into tokens takes more than {ms} ms; please send less text or split it")]
    TooLong {
        /// Limit in milliseconds.
        ms: u128,
    },
    /// The text has more tokens than can be used.
    #[error("the text has more than {tokens} tokens")]
    TooMany {
        /// Limit in tokens.
        tokens: usize,
    },
    /// A part of the text is too large to be processed at once and cannot be cut for this tokenizer.
    #[error(
        "the text has {bytes} bytes without a place where it can be cut between two words, which is more than the limit of {max}"
    )]
    Unbroken {
        /// Bytes of that part.
        bytes: usize,
        /// Limit in bytes.
        max: usize,
    },
}

/// Flag that tells whether the outcome of some work is still wanted; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    unwanted: Arc<AtomicBool>,
}

/// Marks the outcome as not wanted when dropped.
#[derive(Debug)]
pub struct Waiting(Wanted);

impl Wanted {
    /// Returns a guard; the outcome is wanted as long as the guard lives.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        Waiting(self.clone())
    }

    /// Returns true while a client waits.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        !self.unwanted.load(Ordering::Relaxed)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.unwanted.store(true, Ordering::Relaxed);
    }
}

/// Bounds of one piece of work on the thread that does it. Time is the thread's own, so a busy machine refuses nothing
/// that an idle one would do. Clones have the same bounds and belong to the same thread.
#[derive(Debug, Clone)]
pub struct Effort {
    wanted: Wanted,
    tokens_max: Cell<usize>,
    unbroken_bytes_max: usize,
    cpu_max: Duration,
    cpu_at_start: Duration,
    steps: Cell<u32>,
}

impl Effort {
    /// Begins work that may take `cpu_max` of processor time in all.
    #[must_use]
    pub fn begin(wanted: Wanted, cpu_max: Duration, tokens_max: usize, unbroken_bytes_max: usize) -> Effort {
        Effort {
            wanted,
            tokens_max: Cell::new(tokens_max),
            unbroken_bytes_max,
            cpu_max,
            cpu_at_start: thread_time(),
            steps: Cell::new(0),
        }
    }

    fn spent(&self) -> Duration {
        thread_time().saturating_sub(self.cpu_at_start)
    }

    /// Begins work without bounds, for texts that no client sent.
    #[must_use]
    pub fn unbounded() -> Effort {
        Effort::begin(Wanted::default(), Duration::MAX, usize::MAX, usize::MAX)
    }

    /// Sets the number of tokens that a text may have from now on.
    pub fn may_have(&self, tokens: usize) {
        self.tokens_max.set(tokens);
    }

    /// Counts one step and checks the bounds now and then.
    ///
    /// # Errors
    /// When a bound is reached or the outcome is not wanted any more.
    pub fn step(&self) -> Result<(), Stopped> {
        let steps = self.steps.get().wrapping_add(1);
        self.steps.set(steps);
        if steps.is_multiple_of(STEPS_PER_LOOK) { self.look() } else { Ok(()) }
    }

    /// Checks the bounds.
    ///
    /// # Errors
    /// When a bound is reached or the outcome is not wanted any more.
    pub fn look(&self) -> Result<(), Stopped> {
        if !self.wanted.is_wanted() {
            return Err(Stopped::Unwanted);
        }
        if self.cpu_max < Duration::MAX && self.spent() > self.cpu_max {
            return Err(Stopped::TooLong { ms: self.cpu_max.as_millis() });
        }
        Ok(())
    }

    /// Checks a number of tokens against the limit.
    ///
    /// # Errors
    /// When there are more than can be used.
    pub fn tokens(&self, tokens: usize) -> Result<(), Stopped> {
        let max = self.tokens_max.get();
        if tokens > max { Err(Stopped::TooMany { tokens: max }) } else { Ok(()) }
    }

    /// Checks the size of a part that must be processed at once.
    ///
    /// # Errors
    /// When the part is too large.
    pub fn unbroken(&self, bytes: usize) -> Result<(), Stopped> {
        let max = self.unbroken_bytes_max;
        if bytes > max { Err(Stopped::Unbroken { bytes, max }) } else { Ok(()) }
    }
}

pub(crate) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_stops_when_nobody_waits() {
        let wanted = Wanted::default();
        let effort = Effort::begin(wanted.clone(), Duration::MAX, 10, 10);
        let waiting = wanted.waiting();
        assert_eq!(effort.look(), Ok(()));
        drop(waiting);
        assert_eq!(effort.look(), Err(Stopped::Unwanted));
        let steps = (0..STEPS_PER_LOOK).filter(|_| effort.step().is_err()).count();
        assert_eq!(steps, 1, "it looks now and then");
    }

    #[test]
    fn time_counts_while_the_thread_works_and_not_while_it_sleeps() {
        let effort = Effort::begin(Wanted::default(), Duration::from_millis(20), 10, 10);
        std::thread::sleep(Duration::from_millis(40));
        assert_eq!(effort.look(), Ok(()));
        let spinning = std::time::Instant::now();
        while effort.look().is_ok() {
            assert!(spinning.elapsed() < Duration::from_secs(20), "the time never ends");
        }
        assert_eq!(effort.look(), Err(Stopped::TooLong { ms: 20 }));
    }

    #[test]
    fn sizes_are_bounded() {
        let effort = Effort::unbounded();
        effort.may_have(3);
        assert_eq!((effort.tokens(3), effort.unbroken(1 << 40)), (Ok(()), Ok(())));
        assert_eq!(effort.tokens(4).unwrap_err().to_string(), "the text has more than 3 tokens");
    }
}

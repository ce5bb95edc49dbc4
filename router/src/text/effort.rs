//! Bounds on the work for one text, and whether a client still waits for it; knows no tokenizer.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
/// that an idle one would do.
#[derive(Debug)]
pub struct Effort {
    wanted: Wanted,
    tokens_max: Cell<usize>,
    unbroken_bytes_max: usize,
    cpu_max: Duration,
    /// Time spent before this thread began.
    cpu_before: Duration,
    cpu_at_start: Duration,
    /// Nanoseconds spent by other threads on this work.
    elsewhere: Arc<AtomicU64>,
    /// Counter of the whole work to which this part adds its time in the end.
    charged_to: Option<Arc<AtomicU64>>,
    steps: Cell<u32>,
}

/// Bounds of some work on their way to a thread that does a part of it.
#[derive(Debug)]
pub struct Share {
    wanted: Wanted,
    tokens_max: usize,
    unbroken_bytes_max: usize,
    cpu_max: Duration,
    cpu_before: Duration,
    charged_to: Arc<AtomicU64>,
}

impl Share {
    /// Begins the part on this thread; its time is added to the whole when the result is dropped.
    #[must_use]
    pub fn begin(self) -> Effort {
        let mut part = Effort::begin(self.wanted, self.cpu_max, self.tokens_max, self.unbroken_bytes_max);
        part.cpu_before = self.cpu_before;
        part.charged_to = Some(self.charged_to);
        part
    }
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
            cpu_before: Duration::ZERO,
            cpu_at_start: thread_time(),
            elsewhere: Arc::default(),
            charged_to: None,
            steps: Cell::new(0),
        }
    }

    /// Returns the same bounds for another thread that does a part while this one waits.
    #[must_use]
    pub fn share(&self) -> Share {
        Share {
            wanted: self.wanted.clone(),
            tokens_max: self.tokens_max.get(),
            unbroken_bytes_max: self.unbroken_bytes_max,
            cpu_max: self.cpu_max,
            cpu_before: self.spent(),
            charged_to: Arc::clone(&self.elsewhere),
        }
    }

    fn spent(&self) -> Duration {
        let elsewhere = Duration::from_nanos(self.elsewhere.load(Ordering::Relaxed));
        self.cpu_before + elsewhere + self.here()
    }

    fn here(&self) -> Duration {
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

impl Drop for Effort {
    fn drop(&mut self) {
        if let Some(whole) = &self.charged_to {
            let nanos = u64::try_from(self.here().as_nanos()).unwrap_or(u64::MAX);
            whole.fetch_add(nanos, Ordering::Relaxed);
        }
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
    fn a_part_on_another_thread_counts_in_the_whole() {
        let effort = Effort::begin(Wanted::default(), Duration::from_millis(20), 10, 10);
        let share = effort.share();
        let stopped = std::thread::spawn(move || {
            let part = share.begin();
            let spinning = std::time::Instant::now();
            loop {
                if let Err(stopped) = part.look() {
                    return stopped;
                }
                assert!(spinning.elapsed() < Duration::from_secs(20), "the time never ends");
            }
        });
        assert_eq!(stopped.join().unwrap(), Stopped::TooLong { ms: 20 });
        assert_eq!(effort.look(), Err(Stopped::TooLong { ms: 20 }));
        assert_eq!(effort.share().begin().look(), Err(Stopped::TooLong { ms: 20 }), "nothing is left for another");
    }

    #[test]
    fn sizes_are_bounded() {
        let effort = Effort::unbounded();
        effort.may_have(3);
        assert_eq!((effort.tokens(3), effort.unbroken(1 << 40)), (Ok(()), Ok(())));
        assert_eq!(effort.tokens(4).unwrap_err().to_string(), "the text has more than 3 tokens");
    }
}

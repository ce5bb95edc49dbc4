//! The one clock of a worker: microseconds since its start, as the machines count them.

use std::time::{Duration, Instant};

use sched::Time;

/// A monotonic clock that starts at zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    pub(crate) fn now(self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The instant of a time; times beyond what the system can count lie a year ahead.
    pub(crate) fn instant(self, time: Time) -> Instant {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
        let span = Duration::from_micros(time.us()).min(YEAR);
        self.start + span
    }
}

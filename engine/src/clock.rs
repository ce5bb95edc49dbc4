//! Clock of a worker: microseconds since its start, the time of its state machines.

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

    /// Converts a time to an instant; times too far for the system are one year ahead.
    pub(crate) fn instant(self, time: Time) -> Instant {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
        let span = Duration::from_micros(time.us()).min(YEAR);
        self.start + span
    }
}

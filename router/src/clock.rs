//! Time for the machines of `sched`, and the wall clock for values that clients read; knows no machine.

use std::time::{Duration, Instant, SystemTime};

use sched::Time;

/// Time since the start of the process; clones agree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Converts `time` for the runtime's timers.
    pub(crate) fn instant(&self, time: Time) -> tokio::time::Instant {
        (self.start + Duration::from_micros(time.us())).into()
    }
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

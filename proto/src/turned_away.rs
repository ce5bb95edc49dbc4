//! Callers that were turned away: reasons, and log lines at a limited rate.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::seldom::Seldom;

/// Shortest time between two lines for one reason: a stranger must not fill the log.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Reason for which a caller was turned away, without effect on any leg or lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnedAway {
    /// The caller did not prove that it knows the secret.
    Stranger,
    /// The caller spoke about a leg of another session.
    ForeignLeg,
    /// The caller spoke about a lease of another reader.
    ForeignLease,
}

impl TurnedAway {
    /// All reasons.
    pub const ALL: [TurnedAway; 3] = [TurnedAway::Stranger, TurnedAway::ForeignLeg, TurnedAway::ForeignLease];

    /// Name in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            TurnedAway::Stranger => "stranger",
            TurnedAway::ForeignLeg => "foreign_leg",
            TurnedAway::ForeignLease => "foreign_lease",
        }
    }
}

/// Log of callers that were turned away, at a limited rate.
#[derive(Debug)]
pub struct Complaints {
    /// One per reason, in the order of [`TurnedAway::ALL`].
    lines: [Mutex<Seldom>; TurnedAway::ALL.len()],
}

impl Default for Complaints {
    fn default() -> Complaints {
        Complaints { lines: TurnedAway::ALL.map(|_| Mutex::new(Seldom::once_in(LOG_EVERY))) }
    }
}

impl Complaints {
    /// Logs `what`, or counts it for the next line if the last one was a moment ago.
    pub fn log(&self, why: TurnedAway, what: &str) {
        let more = self.lines[why as usize].lock().unwrap_or_else(PoisonError::into_inner).say(Instant::now());
        let Some(more) = more else { return };
        tracing::warn!(reason = why.label(), more_since_the_last_line = more, "turned away: {what}");
    }
}

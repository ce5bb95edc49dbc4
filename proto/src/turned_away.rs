//! What callers tried that is not theirs to do: counted by whoever serves, logged now and then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::seldom::Seldom;

/// One line per kind of trespass in this time: a stranger must not fill the log.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What a caller was turned away for; it has cost nobody anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnedAway {
    /// It did not prove that it knows the secret.
    Stranger,
    /// It spoke about another session's leg.
    ForeignLeg,
    /// It spoke about a lease that is another reader's.
    ForeignLease,
}

impl TurnedAway {
    /// All of them.
    pub const ALL: [TurnedAway; 3] = [TurnedAway::Stranger, TurnedAway::ForeignLeg, TurnedAway::ForeignLease];

    /// Its name in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            TurnedAway::Stranger => "stranger",
            TurnedAway::ForeignLeg => "foreign_leg",
            TurnedAway::ForeignLease => "foreign_lease",
        }
    }
}

/// Logs the first of many.
#[derive(Debug)]
pub struct Complaints {
    lines: Mutex<Seldom>,
}

impl Default for Complaints {
    fn default() -> Complaints {
        Complaints { lines: Mutex::new(Seldom::once_in(LOG_EVERY)) }
    }
}

impl Complaints {
    /// Logs `what` unless that was done a moment ago; then it is counted into the next line.
    pub fn log(&self, why: TurnedAway, what: &str) {
        let more = self.lines.lock().unwrap_or_else(PoisonError::into_inner).say(Instant::now());
        let Some(more) = more else { return };
        tracing::warn!(reason = why.label(), more_since_the_last_line = more, "turned away: {what}");
    }
}

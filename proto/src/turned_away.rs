//! What callers tried that is not theirs to do: counted by whoever serves, logged now and then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

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
#[derive(Debug, Default)]
pub struct Complaints {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    logged: Option<Instant>,
    unlogged: u64,
}

impl Complaints {
    /// Logs `what` unless that was done a moment ago; then it is counted into the next line.
    pub fn log(&self, why: TurnedAway, what: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.logged.is_some_and(|at| at.elapsed() < LOG_EVERY) {
            state.unlogged += 1;
            return;
        }
        let more = std::mem::take(&mut state.unlogged);
        state.logged = Some(Instant::now());
        drop(state);
        tracing::warn!(reason = why.label(), more_since_the_last_line = more, "turned away: {what}");
    }
}

//! How the spans that only a worker knows are taken from the times of events; each leg reports them once.

use crate::Time;
use crate::message::{FirstTiming, JoinTiming, TokenTiming};

/// The times of one leg up to its first token here.
#[derive(Debug, Clone, Copy)]
pub(super) enum Timing {
    /// It is prefilled here.
    Prefill { arrived: Time, first_chunk: Option<Time> },
    /// It is taken over here.
    Join { committed: Time, pull_started: Option<Time>, verified: Time },
    /// Its first token has been reported.
    Reported,
}

impl Timing {
    /// A leg that arrived at `now` and is prefilled here.
    pub(super) fn prefill(now: Time) -> Timing {
        Timing::Prefill { arrived: now, first_chunk: None }
    }

    /// A leg that is taken over here.
    pub(super) fn join() -> Timing {
        Timing::Join { committed: Time(0), pull_started: None, verified: Time(0) }
    }

    /// A chunk of it starts.
    pub(super) fn chunk_started(&mut self, now: Time) {
        if let Timing::Prefill { first_chunk: first @ None, .. } = self {
            *first = Some(now);
        }
    }

    /// Whether a chunk of it has started.
    pub(super) fn has_started(&self) -> bool {
        match self {
            Timing::Prefill { first_chunk, .. } => first_chunk.is_some(),
            Timing::Join { .. } | Timing::Reported => true,
        }
    }

    pub(super) fn committed(&mut self, now: Time) {
        if let Timing::Join { committed, .. } = self {
            *committed = now;
        }
    }

    /// The first pull starts, or none is needed.
    pub(super) fn pull_started(&mut self, now: Time) {
        if let Timing::Join { pull_started, .. } = self {
            pull_started.get_or_insert(now);
        }
    }

    pub(super) fn verified(&mut self, now: Time) {
        if let Timing::Join { verified, .. } = self {
            *verified = now;
        }
    }

    /// What to report with the leg's first token here, which the step from `step_started` to `now` brought.
    pub(super) fn report(&mut self, step_started: Time, now: Time) -> Option<TokenTiming> {
        match std::mem::replace(self, Timing::Reported) {
            Timing::Prefill { arrived, first_chunk } => {
                let first_chunk = first_chunk.unwrap_or(step_started);
                Some(TokenTiming::First(FirstTiming {
                    queue: first_chunk.since(arrived),
                    prefill: now.since(first_chunk),
                }))
            }
            Timing::Join { committed, pull_started, verified } => {
                let pull_started = pull_started.unwrap_or(verified);
                Some(TokenTiming::Joined(JoinTiming {
                    wait: pull_started.since(committed),
                    transfer: verified.since(pull_started.max(committed)),
                    queue: step_started.since(verified),
                    step: now.since(step_started),
                }))
            }
            Timing::Reported => None,
        }
    }
}

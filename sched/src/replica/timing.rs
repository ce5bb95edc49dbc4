//! Spans that only a worker knows, taken from the times of events; each leg reports them once.

use crate::Time;
use crate::message::{FirstTiming, JoinTiming, TokenTiming};

/// Times of one leg up to its first token here.
#[derive(Debug, Clone, Copy)]
pub(super) enum Timing {
    Prefill {
        arrived: Time,
        first_chunk: Option<Time>,
        cached_tokens: u32,
    },
    Join {
        committed: Time,
        pull_started: Option<Time>,
        verified: Time,
    },
    /// The first token has been reported.
    Reported,
}

impl Timing {
    pub(super) fn prefill(now: Time) -> Timing {
        Timing::Prefill { arrived: now, first_chunk: None, cached_tokens: 0 }
    }

    pub(super) fn join() -> Timing {
        Timing::Join { committed: Time(0), pull_started: None, verified: Time(0) }
    }

    /// Records how much of the prompt was in the prefix cache when the leg was admitted.
    pub(super) fn found(&mut self, tokens: u32) {
        if let Timing::Prefill { cached_tokens, .. } = self {
            *cached_tokens = tokens;
        }
    }

    pub(super) fn chunk_started(&mut self, now: Time) {
        if let Timing::Prefill { first_chunk: first @ None, .. } = self {
            *first = Some(now);
        }
    }

    /// True once a chunk of the prompt has started; always true for a leg that is not prefilled here.
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

    /// Records the start of the first pull, or that none is needed.
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

    /// Returns the spans to report with the first token here, from the step between `step_started` and `now`.
    pub(super) fn report(&mut self, step_started: Time, now: Time) -> Option<TokenTiming> {
        match std::mem::replace(self, Timing::Reported) {
            Timing::Prefill { arrived, first_chunk, cached_tokens } => {
                let first_chunk = first_chunk.unwrap_or(step_started);
                Some(TokenTiming::First(FirstTiming {
                    queue: first_chunk.since(arrived),
                    prefill: now.since(first_chunk),
                    cached_tokens,
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

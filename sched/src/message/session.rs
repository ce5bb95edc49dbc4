//! Words of router and worker about legs, over one ordered session.
//!
//! An offer is never overtaken by its cancel. Tokens carry (request, attempt, choice, index), so `Journey` can deliver
//! in order and drop repeats and older attempts.

use std::sync::Arc;

use crate::{BlockId, Choice, Failure, FinishReason, InstanceId, LeaseId, Leg, Request, SampledToken, Scores, Span};

/// Words of a router to a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum ToWorker {
    /// Run this leg.
    Submit(Request, Work),
    /// A giver has reserved the prompt of this leg; take it over when it is complete.
    Offer(Offer),
    /// The giver has finished the prompt: these are the first tokens, repeat them and go on.
    Commit(Commit),
    /// Stop. `choice` ends one choice (a stop string was found), `None` the whole leg.
    Cancel {
        /// The leg to stop.
        leg: Leg,
        /// Choice to stop; `None` stops all.
        choice: Option<Choice>,
    },
    /// The router still serves these legs: their request leases are renewed.
    Renew(Vec<Leg>),
}

/// Most legs that one [`ToWorker::Renew`] may name.
pub const RENEW_LEGS_MAX: usize = 1 << 16;

/// Part of a submitted leg that a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Prefill and generate to the end here.
    Whole,
    /// Prefill, sample the first token of every choice, then keep the KV for a reader.
    Give,
}

/// Blocks of a prompt, reserved at the giver, to be pulled by a reader.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// Leg with everything that the reader needs to go on: prompt, choices, parameters.
    pub request: Request,
    /// Worker that holds the blocks.
    pub giver: InstanceId,
    /// Address of the giver's peer service, `host:port`.
    pub giver_address: Arc<str>,
    /// Lease that gives the right to read the blocks.
    pub lease: LeaseId,
    /// The giver's block table for positions `0..request.prefill_tokens()`.
    pub blocks: Vec<BlockId>,
}

/// First tokens, which make an offer readable.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// The leg.
    pub leg: Leg,
    /// First token of each choice of the leg, in the leg's order.
    pub firsts: Vec<FirstToken>,
}

/// The first token of one choice.
#[derive(Debug, Clone, PartialEq)]
pub struct FirstToken {
    /// The choice.
    pub choice: Choice,
    /// Token at index `generated.len()` of the choice in the request.
    pub token: SampledToken,
    /// Set when the choice ends with this very token; the reader does not continue it.
    pub ended: Option<FinishReason>,
}

/// Words of a worker to a router.
#[derive(Debug, Clone, PartialEq)]
pub enum FromWorker {
    /// A giver has reserved the prompt of `leg`.
    Offered {
        /// The leg.
        leg: Leg,
        /// Lease that gives the right to read the blocks.
        lease: LeaseId,
        /// Block table of the prompt.
        blocks: Vec<BlockId>,
    },
    /// A giver has finished the prompt. If every choice has ended, no reader is needed and the giver has let go.
    Committed {
        /// The first tokens.
        commit: Commit,
        /// Time that they took.
        timing: FirstTiming,
    },
    /// A reader has released the giver's blocks: the giver's part of the leg is over.
    HandedOver {
        /// The leg.
        leg: Leg,
    },
    /// A reader's lease ended without a release; the giver has let go of the blocks.
    ReaderLost {
        /// The leg.
        leg: Leg,
    },
    /// Prompt tokens have been scored. All of them are before the first token of the leg is told.
    Scored {
        /// The leg.
        leg: Leg,
        /// The scores.
        scores: Scores,
    },
    /// A generated token.
    Token {
        /// The leg.
        leg: Leg,
        /// The choice.
        choice: Choice,
        /// Index among the generated tokens of the choice, 0 for the very first of the request.
        index: u32,
        /// The token.
        token: SampledToken,
        /// Set when the choice ends with this token.
        ended: Option<FinishReason>,
        /// Spans that only the worker knows, on the first token of a leg.
        timing: Option<TokenTiming>,
    },
    /// The leg has failed, and nothing of it is left at the worker.
    Failed {
        /// The leg.
        leg: Leg,
        /// Reason.
        failure: Failure,
    },
}

impl FromWorker {
    /// Leg that the word is about.
    #[must_use]
    pub const fn leg(&self) -> Leg {
        match self {
            FromWorker::Offered { leg, .. }
            | FromWorker::HandedOver { leg }
            | FromWorker::ReaderLost { leg }
            | FromWorker::Scored { leg, .. }
            | FromWorker::Token { leg, .. }
            | FromWorker::Failed { leg, .. } => *leg,
            FromWorker::Committed { commit, .. } => commit.leg,
        }
    }
}

/// Spans that a worker measured on the way to a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenTiming {
    /// The leg was prefilled here.
    First(FirstTiming),
    /// The leg was taken over here.
    Joined(JoinTiming),
}

/// Parts of TTFT that happen at the worker that prefills, and what they did not have to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FirstTiming {
    /// From the arrival of the leg to the start of its first chunk.
    pub queue: Span,
    /// From the start of its first chunk to its first token.
    pub prefill: Span,
    /// Prompt tokens whose KV was in the worker's prefix cache.
    pub cached_tokens: u32,
}

/// Parts of the hand-off gap: wait, unhidden transfer, decode queue, first decode step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JoinTiming {
    /// From the commit to the start of the first pull, while the offer waited for blocks or a turn.
    pub wait: Span,
    /// From the start of the first pull (or the commit, if later) to the answered release.
    pub transfer: Span,
    /// From the answered release to the start of the first decode step.
    pub queue: Span,
    /// The first decode step.
    pub step: Span,
}

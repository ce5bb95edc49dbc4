//! What processes tell each other about legs of work; knows neither gRPC nor who is connected how.
//!
//! Router and worker share one ordered session, so an offer is never overtaken by its cancel. Readers (decode) and
//! givers (prefill) talk about leases directly. Tokens carry (request, attempt, choice, index), so `Journey` can
//! deliver in order and drop repeats and older attempts.

use std::sync::Arc;

use crate::{
    BlockId, Choice, Failure, FinishReason, InstanceId, LaneId, LeaseId, Leg, Request, SampledToken, Span, StepId,
    StepPlan, StepResult,
};

/// Router to worker.
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
        /// One choice of it, or all.
        choice: Option<Choice>,
    },
    /// The router still serves these legs: their request leases are renewed.
    Renew(Vec<Leg>),
}

/// What a worker does with a submitted leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Prefill and generate to the end here.
    Whole,
    /// Prefill, sample the first token of every choice, then keep the KV for a reader.
    Give,
}

/// The blocks of a prompt, reserved at the giver, to be pulled by a reader.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// The leg, with everything the reader needs to go on: prompt, choices, parameters.
    pub request: Request,
    /// Whose blocks.
    pub giver: InstanceId,
    /// Where the giver's peer service listens, `host:port`.
    pub giver_address: Arc<str>,
    /// The right to read them.
    pub lease: LeaseId,
    /// The giver's block table for positions `0..request.prefill_tokens()`.
    pub blocks: Vec<BlockId>,
}

/// First tokens, which make an offer readable.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// The leg.
    pub leg: Leg,
    /// One per choice of the leg, in the leg's order.
    pub firsts: Vec<FirstToken>,
}

/// The first token of one choice.
#[derive(Debug, Clone, PartialEq)]
pub struct FirstToken {
    /// The choice.
    pub choice: Choice,
    /// Its token at index `generated.len()` of the request's choice.
    pub token: SampledToken,
    /// Set when the choice ends with this very token; the reader does not continue it.
    pub ended: Option<FinishReason>,
}

/// Worker to router.
#[derive(Debug, Clone, PartialEq)]
pub enum FromWorker {
    /// A giver has reserved the prompt of `leg`.
    Offered {
        /// The leg.
        leg: Leg,
        /// The right to read the blocks.
        lease: LeaseId,
        /// The block table of the prompt.
        blocks: Vec<BlockId>,
    },
    /// A giver has finished the prompt. If every choice has ended, no reader is needed and the giver has let go.
    Committed {
        /// The first tokens.
        commit: Commit,
        /// How long they took.
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
    /// The leg has ended badly and nothing of it is left at the worker.
    Failed {
        /// The leg.
        leg: Leg,
        /// Why.
        failure: Failure,
    },
}

impl FromWorker {
    /// The leg it is about.
    #[must_use]
    pub const fn leg(&self) -> Leg {
        match self {
            FromWorker::Offered { leg, .. }
            | FromWorker::HandedOver { leg }
            | FromWorker::ReaderLost { leg }
            | FromWorker::Token { leg, .. }
            | FromWorker::Failed { leg, .. } => *leg,
            FromWorker::Committed { commit, .. } => commit.leg,
        }
    }
}

/// What a worker measured on the way to a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenTiming {
    /// The leg was prefilled here.
    First(FirstTiming),
    /// The leg was taken over here.
    Joined(JoinTiming),
}

/// Parts of TTFT that happen at the worker that prefills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FirstTiming {
    /// From the arrival of the leg to the start of its first chunk.
    pub queue: Span,
    /// From the start of its first chunk to its first token.
    pub prefill: Span,
}

/// Parts of the hand-off gap (wait + unhidden transfer + decode queue + first decode step; what is left on the way to the client is relay).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JoinTiming {
    /// From the commit to the start of the pull: the offer had not been accepted yet.
    pub wait: Span,
    /// From the start of the pull (or the commit, if later) to the answered release.
    pub transfer: Span,
    /// From there to the start of the first decode step.
    pub queue: Span,
    /// That step.
    pub step: Span,
}

/// How full a worker is, for routing and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Sequences in the running batch.
    pub running: u32,
    /// Legs that wait for their first chunk or for blocks.
    pub waiting: u32,
    /// Prompt tokens that still have to be prefilled.
    pub waiting_tokens: u64,
    /// Legs whose KV is held for a reader.
    pub held: u32,
    /// Blocks that nobody uses and that hold nothing.
    pub blocks_free: u32,
    /// Blocks that nobody uses and that hold reusable content.
    pub blocks_cached: u32,
    /// Blocks with references.
    pub blocks_in_use: u32,
    /// Blocks without references that a writer may still touch.
    pub blocks_quarantined: u32,
    /// Since the start: prompt tokens whose KV was found in the prefix cache. For this worker's metrics; not told to
    /// routers.
    pub cached_tokens: u64,
    /// Since the start: sequences that lost their blocks to older ones. For this worker's metrics; not told to routers.
    pub preemptions: u64,
}

/// How often a worker says at least how full it is: the beat by which its router knows that its scheduler runs.
pub const STATUS_BEAT: Span = Span::from_secs(1);

/// One fact for a worker's replica scheduler.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A message of a router.
    Router(ToWorker),
    /// The backend finished a step (or was cancelled in it: see `StepResult::layers_done`).
    StepDone {
        /// Lane.
        lane: LaneId,
        /// Step.
        step: StepId,
        /// What it brought.
        result: StepResult,
    },
    /// The backend could not run a step; every sequence in it fails.
    StepFailed {
        /// Lane.
        lane: LaneId,
        /// Step.
        step: StepId,
        /// Why.
        failure: Failure,
    },
    /// Giver: a reader's heartbeat renews these leases, as far as they are its own.
    ReaderRenewed {
        /// The reader.
        reader: InstanceId,
        /// The leases.
        leases: Vec<LeaseId>,
    },
    /// Giver: a reader has everything and lets go; answered by `Action::AnswerRelease`. May be repeated.
    ReaderReleased {
        /// The reader.
        reader: InstanceId,
        /// The lease.
        lease: LeaseId,
    },
    /// Giver: a reader gives up before it has read everything.
    ReaderAborted {
        /// The reader.
        reader: InstanceId,
        /// The lease.
        lease: LeaseId,
    },
    /// Reader: a pull has ended; no byte of it can land any more.
    PullEnded {
        /// The leg.
        leg: Leg,
        /// How.
        outcome: PullOutcome,
    },
    /// Reader: the giver has answered a release.
    ReleaseAnswered {
        /// The leg.
        leg: Leg,
        /// What it said; `Unreachable` when it could not be asked in time.
        answer: ReleaseAnswer,
    },
    /// Reader: the giver's answer to a heartbeat named these leases as gone.
    LeasesGone(Vec<LeaseId>),
    /// Reader: the giver's process is gone.
    GiverLost(InstanceId),
    /// Time has passed.
    Tick,
}

/// How a pull ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullOutcome {
    /// All bytes are here.
    Complete,
    /// Some bytes are not; the transport says why.
    Failed(String),
    /// It was aborted as asked.
    Aborted,
}

/// A giver's answer to a release. The giver remembers it for one lease span, so a repeat gets the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReleaseAnswer {
    /// The lease was alive until now: what was read is valid.
    Ok,
    /// It was not: what was read must not be used.
    Expired,
    /// The giver cannot be asked.
    Unreachable,
}

/// One decision of a worker's replica scheduler.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Submit this step to the backend.
    Run {
        /// Lane.
        lane: LaneId,
        /// Step.
        step: StepId,
        /// The plan.
        plan: StepPlan,
    },
    /// Cancel a submitted step at its next layer boundary: all its sequences are gone. Ignored if it has just ended.
    CancelStep {
        /// Lane.
        lane: LaneId,
        /// Step.
        step: StepId,
    },
    /// Send this to the router that serves the leg.
    Tell(FromWorker),
    /// Giver: let the holder of this lease read these blocks.
    Grant {
        /// Lease.
        lease: LeaseId,
        /// Blocks.
        blocks: Vec<BlockId>,
    },
    /// Giver: nobody may read under this lease any more. Comes before any of its blocks is reused.
    Revoke(LeaseId),
    /// Giver: answer a `ReaderReleased`.
    AnswerRelease {
        /// Who asked.
        reader: InstanceId,
        /// Lease.
        lease: LeaseId,
        /// The answer.
        answer: ReleaseAnswer,
    },
    /// Reader: pull these blocks; answered by `Event::PullEnded`.
    Pull(Pull),
    /// Reader: abort the pull of this leg; still answered by `Event::PullEnded`.
    AbortPull(Leg),
    /// Reader: heartbeat to the giver for these leases.
    RenewLeases {
        /// The giver.
        giver: InstanceId,
        /// The leases.
        leases: Vec<LeaseId>,
    },
    /// Reader: tell the giver that everything has been read; answered by `Event::ReleaseAnswered`.
    Release {
        /// The leg.
        leg: Leg,
        /// The giver.
        giver: InstanceId,
        /// The lease.
        lease: LeaseId,
    },
    /// Reader: tell the giver that nothing will be read any more.
    AbortLease {
        /// The giver.
        giver: InstanceId,
        /// The lease.
        lease: LeaseId,
    },
}

/// A pull of whole prompts: remote block `blocks[i].0` holds the same token range as local block `blocks[i].1`
/// when both sides use the same block size; the layout plan resolves the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// The leg.
    pub leg: Leg,
    /// Whose blocks.
    pub giver: InstanceId,
    /// The right to read.
    pub lease: LeaseId,
    /// The giver's block table, from position 0.
    pub remote: Vec<BlockId>,
    /// Our block table, from position 0.
    pub local: Vec<BlockId>,
    /// Tokens to pull: positions `skip_tokens..tokens`. What lies below is already here (prefix cache).
    pub skip_tokens: u32,
    /// End of the pull in positions.
    pub tokens: u32,
    /// Time within which it must end: what is left of the request's.
    pub deadline_in: Span,
}

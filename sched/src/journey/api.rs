//! Events that go into a journey and actions that come out of it.

use std::sync::Arc;

use crate::message::{FromWorker, ToWorker, TokenTiming};
use crate::route::Chosen;
use crate::{
    Choice, Failure, FinishReason, Leg, ModelId, RequestId, SampledToken, SamplingParams, Scores, Slo, Span, Time,
    TokenId, WorkerId,
};

/// A request as the router has parsed and admitted it.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Name of the request.
    pub id: RequestId,
    /// Model that is to answer.
    pub model: ModelId,
    /// Prompt token ids, at least one.
    pub prompt: Arc<[TokenId]>,
    /// `n`, at least 1.
    pub choices: u32,
    /// Sampling parameters; `max_tokens` is at least 1.
    pub params: Arc<SamplingParams>,
    /// Latency targets.
    pub slo: Slo,
}

/// Limits of a journey: attempts, waits and deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JourneyConfig {
    /// Legs that a choice may lose in a row, with no token of a worker that generates in between.
    pub attempts_max: u32,
    /// Reaction when the last of these legs was lost on its way from giver to reader.
    pub lost_handoffs: LostHandoffs,
    /// Longest wait for a worker if the request never had one.
    pub worker_wait: Span,
    /// Longest wait for another worker if the request has lost one.
    pub lost_wait: Span,
    /// Pause before a leg is tried again; it grows with each loss in a row. There is none after the first loss, unless
    /// a worker has refused the leg.
    pub retry_pause: Span,
    /// Time from the start to the latest end.
    pub deadline: Span,
}

/// Reaction when `attempts_max` legs in a row were lost, the last one on its way from giver to reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostHandoffs {
    /// The request fails.
    Fail,
    /// A worker that decodes also prefills, once; if there is none, the request fails.
    PrefillLocally,
}

impl Default for JourneyConfig {
    fn default() -> Self {
        JourneyConfig {
            attempts_max: 3,
            lost_handoffs: LostHandoffs::Fail,
            worker_wait: Span::from_secs(5),
            lost_wait: Span::from_secs(30),
            retry_pause: Span::from_ms(100),
            deadline: Span::from_secs(600),
        }
    }
}

/// One fact for a journey.
#[derive(Debug, Clone, PartialEq)]
pub enum JourneyEvent {
    /// A worker's word about a leg of this request.
    FromWorker {
        /// The worker.
        worker: WorkerId,
        /// Its word.
        message: FromWorker,
    },
    /// The session to a worker is gone, and with it everything it did for this request.
    WorkerLost {
        /// The worker.
        worker: WorkerId,
        /// Name of the worker, for people.
        name: Arc<str>,
    },
    /// A worker or a pair has come up.
    WorkersChanged,
    /// The client has hung up.
    ClientGone,
    /// The router gives the request up.
    GivenUp(Failure),
    /// The router has found a stop string: no more tokens of this choice are wanted.
    StopChoice {
        /// The choice.
        choice: Choice,
    },
    /// Time has passed.
    Tick,
}

/// One decision of a journey.
#[derive(Debug, Clone, PartialEq)]
pub enum JourneyAction {
    /// Send this word to a worker, in this order.
    Send {
        /// The worker.
        worker: WorkerId,
        /// The word.
        message: ToWorker,
    },
    /// A leg was placed; for logs and metrics.
    Placed {
        /// The leg.
        leg: Leg,
        /// Route, and why it was chosen.
        chosen: Chosen,
    },
    /// The next token of a choice.
    Deliver(Delivery),
    /// Scores of prompt tokens. After a loss they come again, from the start of the prompt.
    DeliverScores(Scores),
    /// A choice has ended; no token of it follows.
    FinishChoice {
        /// The choice.
        choice: Choice,
        /// Reason.
        reason: FinishReason,
    },
    /// A leg was lost and its unfinished choices are tried again; for metrics and logs.
    Retry {
        /// Failure of the lost leg.
        failure: Failure,
    },
    /// No hand-off is tried for this request any more, because too many were lost in a row; for metrics and logs.
    GaveUpHandoffs {
        /// Failure of the last hand-off.
        failure: Failure,
        /// Substitute for the hand-off.
        instead: Instead,
    },
    /// The request is over. Comes exactly once, and nothing comes after it.
    End(Ending),
}

/// Substitute for a hand-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instead {
    /// A worker that decodes prefills as well.
    LocalPrefill,
    /// None: the request fails.
    Failure,
}

impl Instead {
    /// Metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Instead::LocalPrefill => "local_prefill",
            Instead::Failure => "failed",
        }
    }
}

/// A token on its way to the client.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// The choice.
    pub choice: Choice,
    /// Index among the tokens of the choice; counts up from 0 without gap or repeat.
    pub index: u32,
    /// The token.
    pub token: SampledToken,
    /// Spans that the worker measured, on the first token of a leg.
    pub timing: Option<TokenTiming>,
    /// Time at which the leg that brought the token was submitted: a mark of TTFT.
    pub submitted: Time,
}

/// End of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// All choices have finished.
    Done,
    /// The request failed; some tokens may have been delivered.
    Failed(Failure),
}

//! What goes into a journey and what comes out of it.

use std::sync::Arc;

use crate::message::{FromWorker, ToWorker, TokenTiming};
use crate::route::Chosen;
use crate::{
    Choice, Failure, FinishReason, Leg, ModelId, RequestId, SampledToken, SamplingParams, Slo, Span, Time, TokenId,
    WorkerId,
};

/// A request as the router has parsed and admitted it.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Its name.
    pub id: RequestId,
    /// What is to answer it.
    pub model: ModelId,
    /// Prompt token ids, at least one.
    pub prompt: Arc<[TokenId]>,
    /// `n`, at least 1.
    pub choices: u32,
    /// How tokens are chosen; `max_tokens` is at least 1.
    pub params: Arc<SamplingParams>,
    /// Its targets.
    pub slo: Slo,
}

/// How patient a journey is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JourneyConfig {
    /// Legs that a choice may lose in a row, without a token of a worker that generates between them.
    pub attempts_max: u32,
    /// What happens when the last of them was lost on its way from giver to reader.
    pub lost_handoffs: LostHandoffs,
    /// How long a request that never had a worker waits for one.
    pub worker_wait: Span,
    /// How long a request whose worker was lost waits for another one.
    pub lost_wait: Span,
    /// Pause before a leg is tried again; it grows with each loss in a row. The first loss that no worker has refused is
    /// made good at once.
    pub retry_pause: Span,
    /// From the start to the latest end.
    pub deadline: Span,
}

/// What happens to a request whose KV cache was lost on its way `attempts_max` times in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostHandoffs {
    /// It fails.
    Fail,
    /// A worker that decodes prefills it as well, once; if there is none, it fails.
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
    /// A worker has said something about a leg of this request.
    FromWorker {
        /// The worker.
        worker: WorkerId,
        /// What it said.
        message: FromWorker,
    },
    /// The session to a worker is gone, and with it everything it did for this request.
    WorkerLost {
        /// The worker.
        worker: WorkerId,
        /// What people call it.
        name: Arc<str>,
    },
    /// A worker or a pair has come up.
    WorkersChanged,
    /// The client has hung up.
    ClientGone,
    /// The router serves it no more.
    GivenUp(Failure),
    /// The router has found a stop string: nothing more of this choice is wanted.
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
    /// Send this to a worker, in this order.
    Send {
        /// The worker.
        worker: WorkerId,
        /// The message.
        message: ToWorker,
    },
    /// A leg goes this way; for logs and metrics.
    Placed {
        /// The leg.
        leg: Leg,
        /// Where, and why there.
        chosen: Chosen,
    },
    /// The next token of a choice.
    Deliver(Delivery),
    /// A choice has ended; no token of it follows.
    FinishChoice {
        /// The choice.
        choice: Choice,
        /// Why.
        reason: FinishReason,
    },
    /// A leg was lost and what it had not finished is tried again; for metrics and logs.
    Retry {
        /// What happened to it.
        failure: Failure,
    },
    /// No hand-off is tried for this any more, because too many were lost in a row; for metrics and logs.
    GaveUpHandoffs {
        /// Why the last one was lost.
        failure: Failure,
        /// What is done instead.
        instead: Instead,
    },
    /// The request is over. Comes exactly once, and nothing comes after it.
    End(Ending),
}

/// What is done instead of a hand-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instead {
    /// A worker that decodes prefills as well.
    LocalPrefill,
    /// Nothing: the request fails.
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
    /// What the worker measured, on the first token of a leg.
    pub timing: Option<TokenTiming>,
    /// When the leg that brought it was submitted: a mark of TTFT.
    pub submitted: Time,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// All choices have finished.
    Done,
    /// It failed; some tokens may have been delivered.
    Failed(Failure),
}

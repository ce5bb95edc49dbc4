//! Events that go into a router's desk and actions that come out of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::{Link, Treatment, WorkerInfo};
use crate::journey::{Delivery, Ending, Instead, JourneyConfig, Parts};
use crate::message::{FromWorker, Load, ToWorker};
use crate::route::{Chosen, Lack};
use crate::{Choice, Failure, FinishReason, Leg, ModelId, RequestId, Scores, Span, WorkerId};

/// Limits and intervals of a desk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeskConfig {
    /// Limits of each request's journey.
    pub journey: JourneyConfig,
    /// Interval at which the leases of running legs are renewed.
    pub renew_every: Span,
    /// Interval at which a worker has to report its status.
    pub status_every: Span,
    /// Most choices of wide requests that run at a time, for each worker that generates.
    pub wide_choices_max: u32,
}

/// One fact for a desk.
#[derive(Debug, Clone)]
pub enum DeskEvent {
    /// A request has been let in.
    Submit(Box<Submission>),
    /// The router has found a stop string: no more tokens of this choice are wanted.
    StopChoice {
        /// Request of the choice.
        request: RequestId,
        /// The choice.
        choice: Choice,
    },
    /// The client of a request has hung up, or reads no more.
    ClientGone(RequestId),
    /// The session with a worker has begun. Its number is new, even if the worker has been here before.
    Joined(WorkerId, WorkerInfo),
    /// A worker's status.
    Status(WorkerId, WorkerStatus),
    /// A worker's word about a leg.
    Said(WorkerId, FromWorker),
    /// The session with a worker is over, and with it all legs at this worker.
    Left(WorkerId),
    /// The router shuts down: every request fails, new ones too.
    ShutDown,
    /// Time has passed.
    Tick,
}

/// A request as it is submitted.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Prompt, choices and parameters.
    pub parts: Parts,
    /// Whether the request waits for its turn.
    pub width: Width,
}

/// Width of a client's request: one choice, or so many that they take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// One prompt, one choice: it is sent on at once.
    Narrow,
    /// Several choices: requests of one group belong together and are begun in portions.
    Wide(Group),
}

/// Number that the requests of one client call have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group(pub u64);

/// Status report of a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerStatus {
    /// Load of the worker.
    pub load: Load,
    /// Whether the worker takes new legs.
    pub phase: Phase,
    /// Givers that the worker can read from; `None` if they are as before.
    pub links: Option<Vec<Link>>,
    /// Reasons why the worker cannot read from other givers.
    pub problems: Vec<Failure>,
}

/// Whether a worker takes new legs, as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Takes new legs.
    Accepting,
    /// Finishes the legs that it has and then ends.
    Draining,
}

/// One decision of a desk. Those about one request come one after the other, as far as they are known.
#[derive(Debug, Clone, PartialEq)]
pub enum DeskAction {
    /// Send this word to a worker, in this order.
    Tell(WorkerId, ToWorker),
    /// A leg was placed; for logs and metrics.
    Placed {
        /// The leg.
        leg: Leg,
        /// Route, and why it was chosen.
        chosen: Chosen,
    },
    /// The next token of a choice, for the client.
    Deliver {
        /// The request.
        request: RequestId,
        /// The token.
        delivery: Delivery,
    },
    /// Scores of prompt tokens, for the client; as in `JourneyAction::DeliverScores`.
    DeliverScores {
        /// The request.
        request: RequestId,
        /// The scores.
        scores: Scores,
    },
    /// A choice has ended; no token of it follows.
    FinishChoice {
        /// The request.
        request: RequestId,
        /// The choice.
        choice: Choice,
        /// Reason.
        reason: FinishReason,
    },
    /// A leg was lost and its unfinished choices are tried again; for metrics and logs.
    Retry {
        /// The request.
        request: RequestId,
        /// Failure of the lost leg.
        failure: Failure,
    },
    /// No hand-off is tried for a request any more; for metrics and logs.
    GaveUpHandoffs {
        /// The request.
        request: RequestId,
        /// Failure of the last hand-off.
        failure: Failure,
        /// Substitute for the hand-off.
        instead: Instead,
    },
    /// The request is over. Comes exactly once, and nothing about it comes after that.
    End {
        /// The request.
        request: RequestId,
        /// Outcome.
        ending: Ending,
    },
    /// A worker that has joined gets no new request while workers that give other bits can serve its model; for logs.
    Unused {
        /// The worker.
        worker: WorkerId,
        /// Difference between this worker and those.
        reason: Arc<str>,
    },
    /// A worker that fails what it is given is avoided from now on, or one that was avoided serves again; for metrics and
    /// logs.
    Treat(WorkerId, Treatment),
    /// A worker is silent: no new work goes to it; for logs.
    Quiet(WorkerId),
    /// A silent worker is heard again; for logs.
    Returned(WorkerId),
    /// A worker was silent for so long that it is given up: its session has to end. For the desk it has left already.
    GiveUp(WorkerId),
    /// What can be served has changed.
    View(View),
}

/// Models that can be served, and what is missing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// Longest sequence of each model that some route can hold, in tokens; models without a route are left out.
    pub sequence_tokens_max: BTreeMap<ModelId, u32>,
    /// What the router's first model lacks; `None` while it can be served.
    pub lack: Option<Lack>,
}

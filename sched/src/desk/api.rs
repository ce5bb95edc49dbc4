//! What goes into a router's desk and what comes out of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::{Link, WorkerInfo};
use crate::journey::{Delivery, Ending, Instead, JourneyConfig, Parts};
use crate::message::{FromWorker, Load, ToWorker};
use crate::route::{Chosen, Lack};
use crate::{Choice, Failure, FinishReason, Leg, ModelId, RequestId, Span, WorkerId};

/// How a desk is patient and what it bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeskConfig {
    /// How patient requests are.
    pub journey: JourneyConfig,
    /// How often the leases of what runs are renewed.
    pub renew_every: Span,
    /// How often a worker has to say how it is.
    pub status_every: Span,
    /// Choices of requests of several that run at a time, for each worker that generates.
    pub wide_choices_max: u32,
}

/// One fact for a desk.
#[derive(Debug, Clone)]
pub enum DeskEvent {
    /// A request has been let in.
    Submit(Box<Submission>),
    /// The router has found a stop string: nothing more of this choice is wanted.
    StopChoice {
        /// Its request.
        request: RequestId,
        /// The choice.
        choice: Choice,
    },
    /// The client of a request has hung up, or takes nothing any more.
    ClientGone(RequestId),
    /// The session with a worker has begun. Its number is new, even if the worker has been here before.
    Joined(WorkerId, WorkerInfo),
    /// A worker has said how it is.
    Status(WorkerId, WorkerStatus),
    /// A worker has said something about a leg.
    Said(WorkerId, FromWorker),
    /// The session with a worker is over, and with it all that it did.
    Left(WorkerId),
    /// Every request fails, new ones too.
    ShutDown,
    /// Time has passed.
    Tick,
}

/// A request as it is submitted.
#[derive(Debug, Clone)]
pub struct Submission {
    /// What is asked for.
    pub parts: Parts,
    /// Whether it waits for its turn.
    pub width: Width,
}

/// Whether a request of a client is one choice, or so many that they take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// One prompt, one choice: it is sent on at once.
    Narrow,
    /// All of these belong together and are begun in portions.
    Wide(Group),
}

/// What one client request asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group(pub u64);

/// What a worker says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerStatus {
    /// How full it is.
    pub load: Load,
    /// Whether it takes new legs.
    pub phase: Phase,
    /// The givers that it can read from; `None` if they are as before.
    pub links: Option<Vec<Link>>,
    /// Why it cannot read from others.
    pub problems: Vec<Failure>,
}

/// Whether a worker takes new legs, as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It does.
    Accepting,
    /// It finishes what it has and then ends.
    Draining,
}

/// One decision of a desk. Those about one request come one after the other, as far as they are known.
#[derive(Debug, Clone, PartialEq)]
pub enum DeskAction {
    /// Say this to a worker, in this order.
    Tell(WorkerId, ToWorker),
    /// A leg goes this way; for logs and metrics.
    Placed {
        /// The leg.
        leg: Leg,
        /// Where, and why there.
        chosen: Chosen,
    },
    /// The next token of a choice, for the client.
    Deliver {
        /// The request.
        request: RequestId,
        /// The token.
        delivery: Delivery,
    },
    /// A choice has ended; no token of it follows.
    FinishChoice {
        /// The request.
        request: RequestId,
        /// The choice.
        choice: Choice,
        /// Why.
        reason: FinishReason,
    },
    /// A leg was lost and what it had not finished is tried again; for metrics and logs.
    Retry {
        /// The request.
        request: RequestId,
        /// What happened to it.
        failure: Failure,
    },
    /// No hand-off is tried for a request any more; for metrics and logs.
    GaveUpHandoffs {
        /// The request.
        request: RequestId,
        /// Why the last one was lost.
        failure: Failure,
        /// What is done instead.
        instead: Instead,
    },
    /// The request is over. Comes exactly once, and nothing about it comes after that.
    End {
        /// The request.
        request: RequestId,
        /// How.
        ending: Ending,
    },
    /// No new request goes to a worker that has joined: workers that give other bits serve its model; for logs. It is used
    /// when those can serve nothing any more.
    Unused {
        /// The worker.
        worker: WorkerId,
        /// What is other about it.
        reason: Arc<str>,
    },
    /// A worker says nothing: no new work goes to it; for logs.
    Quiet(WorkerId),
    /// It is heard again; for logs.
    Returned(WorkerId),
    /// It has said nothing for so long that it is given up: its session has to end. It has left already.
    GiveUp(WorkerId),
    /// What can be served has changed.
    View(View),
}

/// What can be served.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// The longest sequence of each model that some route can hold; models without a route are not there.
    pub sequence_tokens_max: BTreeMap<ModelId, u32>,
    /// What is missing for the router's first model; `None` while it can be served.
    pub lack: Option<Lack>,
}

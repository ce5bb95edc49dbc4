//! The session between a router and a worker: legs to the worker, tokens to the router, in order, batched and bounded.

mod batch;
pub mod client;
mod greeting;
mod outbound;
pub mod server;
mod table;

use std::time::Duration;

use sched::compat::CompatParts;
use sched::message::{FromWorker, Load};
use sched::{Failure, InstanceId, Role, Span};
use thiserror::Error;

/// First message of a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterHello {
    /// Incarnation of the router.
    pub router: InstanceId,
}

/// Answer of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Incarnation of the worker.
    pub instance: InstanceId,
    /// Role of the worker.
    pub role: Role,
    /// Name of the model that it serves.
    pub model: String,
    /// Compatibility of its KV cache: KV may move between workers whose `compat.key()` is equal.
    pub compat: CompatParts,
    /// Entries of the model's vocabulary.
    pub vocab_size: u32,
    /// Longest sequence in tokens.
    pub context_max: u32,
    /// Tokens that its KV pool holds.
    pub capacity_tokens: u64,
    /// Sequences that it runs at once.
    pub sequences_max: u32,
    /// Tokens per block.
    pub block_tokens: u32,
    /// Address of its peer service for readers, `host:port`; `None` if it gives nothing.
    pub peer_address: Option<String>,
    /// Backend and kernel set that compute, for people.
    pub backend: String,
    /// Promise about its results.
    pub exactness: Exactness,
    /// Names of the transports that move its KV.
    pub transports: Vec<String>,
    /// Name in logs, metrics and errors; empty if it has none.
    pub name: String,
    /// Time after which a leg that its router has not renewed ends.
    pub lease_span: Span,
}

/// Whether tokens and log-probabilities depend on batch, chunking and placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exactness {
    /// Results do not depend on them.
    Exact,
    /// Results may depend on them.
    Inexact,
}

/// Status of a worker, sent every second and soon after a change.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerStatus {
    /// Load of the worker.
    pub load: Load,
    /// Givers that it can read from.
    pub pairs: Vec<Pair>,
    /// Whether it accepts new legs.
    pub phase: Phase,
    /// Configured givers that it cannot read from.
    pub problems: Vec<PairProblem>,
}

/// A giver that cannot be read from, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairProblem {
    /// Configured address of the giver, `host:port`.
    pub giver_address: String,
    /// Reason; `Incompatible` where waiting does not help.
    pub failure: Failure,
}

/// A pair of a worker with a giver that it can read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Instance of the giver.
    pub giver: InstanceId,
    /// Transport that connects them.
    pub transport: String,
    /// Rate measured at connect.
    pub bytes_per_second: f64,
}

/// Whether a worker accepts new legs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// New legs are accepted.
    Accepting,
    /// New legs are refused; running ones end, then the worker does.
    Draining,
}

/// Update from a worker over its session.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerUpdate {
    /// News about legs, in order.
    Messages(Vec<FromWorker>),
    /// News about the worker.
    Status(WorkerStatus),
    /// The session is over: no update follows, and the worker cancels every leg of the session.
    Ended(SessionEnded),
}

/// The end of a session.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("session ended: {reason}")]
pub struct SessionEnded {
    /// Reason.
    pub reason: EndReason,
}

/// Reason for which a session ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EndReason {
    /// The other side closed it in good order.
    #[error("closed by the other side")]
    Closed,
    /// The other side refused or ended the session with a failure.
    #[error("{0}")]
    Failed(Failure),
    /// The connection broke or its keepalive was not answered.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The other side sent an invalid message.
    #[error("protocol violation: {0}")]
    Protocol(String),
}

/// Bounds and deadlines of sessions; the same on both sides.
#[derive(Debug, Clone)]
pub struct SessionLimits {
    /// Messages that may wait to be written, before the worker ends the session or the router's `send` refuses.
    pub queue_messages_max: usize,
    /// Legs of one session at a time.
    pub legs_max: usize,
    /// Time for connecting and for hello and welcome.
    pub handshake: Duration,
    /// Silence after which a connection is probed.
    pub keepalive_interval: Duration,
    /// Longest time that a probe may stay unanswered.
    pub keepalive_timeout: Duration,
    /// Longest time that a message waits for room in the worker's inbox.
    pub inbox_wait: Duration,
}

impl SessionLimits {
    /// Returns the same limits with a probe after each `beat` of silence; a connection silent for three beats is over.
    #[must_use]
    pub fn probed_every(self, beat: Duration) -> SessionLimits {
        SessionLimits { keepalive_interval: beat, keepalive_timeout: beat * 2, ..self }
    }
}

impl Default for SessionLimits {
    fn default() -> Self {
        SessionLimits {
            queue_messages_max: 1 << 16,
            legs_max: 1 << 16,
            handshake: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(10),
            inbox_wait: Duration::from_secs(2),
        }
    }
}

//! The session between a router and a worker: legs go down, tokens come up, in order, batched and bounded.

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

/// What the router says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterHello {
    /// The router's incarnation.
    pub router: InstanceId,
}

/// What the worker answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The worker's incarnation.
    pub instance: InstanceId,
    /// Its role.
    pub role: Role,
    /// The name of the model it serves.
    pub model: String,
    /// Between which workers KV may move; `compat.key()` is what to compare by.
    pub compat: CompatParts,
    /// Entries of the model's vocabulary.
    pub vocab_size: u32,
    /// Longest sequence in tokens.
    pub context_max: u32,
    /// Tokens its KV pool can hold.
    pub capacity_tokens: u64,
    /// Sequences it runs at once.
    pub sequences_max: u32,
    /// Tokens per block.
    pub block_tokens: u32,
    /// Where readers reach its peer service, `host:port`; `None` if it gives nothing.
    pub peer_address: Option<String>,
    /// What computes, for people.
    pub backend: String,
    /// What it promises about numbers.
    pub exactness: Exactness,
    /// Transports it moves KV with, by name.
    pub transports: Vec<String>,
    /// What logs, metrics and errors call it; empty if it has no name.
    pub name: String,
    /// A leg ends when its router has not renewed it for this long.
    pub lease_span: Span,
}

/// Whether tokens and log-probabilities depend on batch, chunking and placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exactness {
    /// They do not.
    Exact,
    /// They may.
    Inexact,
}

/// What the worker says about itself every second and when it changed much.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerStatus {
    /// How full it is.
    pub load: Load,
    /// The givers it can read from.
    pub pairs: Vec<Pair>,
    /// Whether it takes new legs.
    pub phase: Phase,
    /// Givers that it was told to read from and cannot.
    pub problems: Vec<PairProblem>,
}

/// Why a giver cannot be read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairProblem {
    /// Where it was sought, `host:port`.
    pub giver_address: String,
    /// Why; `Incompatible` where no time heals it.
    pub failure: Failure,
}

/// A giver that a worker is connected to.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The giver.
    pub giver: InstanceId,
    /// By which transport.
    pub transport: String,
    /// Measured when they connected.
    pub bytes_per_second: f64,
}

/// Whether a worker takes new legs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It does.
    Accepting,
    /// It finishes what it has and then ends.
    Draining,
}

/// What comes up a session.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerUpdate {
    /// News about legs, in order.
    Messages(Vec<FromWorker>),
    /// News about the worker.
    Status(WorkerStatus),
    /// The session is over; nothing follows, and the worker cancels every leg that came through it.
    Ended(SessionEnded),
}

/// The end of a session.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("session ended: {reason}")]
pub struct SessionEnded {
    /// Why.
    pub reason: EndReason,
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EndReason {
    /// The other side closed it in good order.
    #[error("closed by the other side")]
    Closed,
    /// The other side refused or ended it with a failure.
    #[error("{0}")]
    Failed(Failure),
    /// The connection broke or its keepalive was not answered.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The other side sent something that means nothing.
    #[error("protocol violation: {0}")]
    Protocol(String),
}

/// Bounds and deadlines of sessions; the same on both sides.
#[derive(Debug, Clone)]
pub struct SessionLimits {
    /// Messages that may wait to be written before the session is given up (worker) or `send` refuses (router).
    pub queue_messages_max: usize,
    /// Legs of one session at a time.
    pub legs_max: usize,
    /// Time for connecting and for hello and welcome.
    pub handshake: Duration,
    /// How often a silent connection is probed.
    pub keepalive_interval: Duration,
    /// How long a probe may stay unanswered.
    pub keepalive_timeout: Duration,
    /// How long the worker's inbox may stay full before a message is given up.
    pub inbox_wait: Duration,
}

impl SessionLimits {
    /// The same, with a probe after each `beat` of silence: a connection that answers nothing for three beats is over.
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

//! A worker's replica thread: what goes in, what comes out, and the handle that others hold.
//!
//! One thread owns scheduler, backend handle and transport handle by `&mut` and never computes or copies. Whoever serves
//! it (a session with a router, a service for peers) talks to it through a bounded inbox and an [`Outlet`].

mod gaps;
mod peers;
mod perform;
mod run;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError};
use crossbeam_utils::sync::Unparker;
use kv_transfer::TransportKind;
use sched::layout::Resharding;
use sched::message::{Envelope, Load};
use sched::replica::Event;
use sched::{Failure, InstanceId, LaneId};
use thiserror::Error;

use crate::EngineError;

pub(crate) use run::{Parts, spawn};

/// What the replica thread has to tell the rest of its process.
#[derive(Debug, Clone, PartialEq)]
pub enum Outbound {
    /// A word for another process.
    Say(Envelope),
    /// A giver has to be met: [`Event::GiverUp`] or [`Event::GiverUnmet`] says what came of it.
    Meet {
        /// Who.
        giver: InstanceId,
        /// Where its peer service listens.
        address: Arc<str>,
    },
    /// A peer can be pulled from.
    PeerUp {
        /// The peer.
        instance: InstanceId,
        /// What moves its bytes.
        transport: TransportKind,
        /// Measured at connect.
        bytes_per_second: f64,
    },
    /// A peer cannot be pulled from any more; to meet it again, add it with a fresh endpoint.
    PeerDown {
        /// The peer.
        instance: InstanceId,
        /// Why.
        reason: String,
    },
    /// A pull has ended; for metrics.
    Transferred {
        /// Whose blocks.
        giver: InstanceId,
        /// What moved them.
        transport: TransportKind,
        /// Bytes that arrived; 0 when it failed or was aborted.
        bytes: u64,
        /// How long it took, in microseconds.
        elapsed_us: u64,
        /// How it ended.
        end: TransferEnd,
    },
    /// A step has ended; for metrics.
    Stepped {
        /// Its lane.
        lane: LaneId,
        /// How long it ran.
        took: Duration,
        /// How long the device had stood still before it although there was work; `None` if there was none.
        gap: Option<Duration>,
    },
    /// How full the worker is: when it changed, at most ten times a second, and every second.
    Load(Load),
    /// The accounting of blocks does not add up: a defect of ours, found while idle; for metrics.
    InvariantBroken(String),
    /// The thread has ended: as asked, or because of this.
    Stopped(Option<Failure>),
}

/// How a pull ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferEnd {
    /// All bytes arrived.
    Done,
    /// Some did not, for a reason that lies with the path or the peer.
    Failed,
    /// The giver refused: the lease has ended. The path is well.
    Refused,
    /// It was aborted as asked.
    Aborted,
}

/// Where the replica thread puts what it has to tell. Never blocks.
pub trait Outlet: Send {
    /// Takes one message.
    fn put(&mut self, out: Outbound);

    /// Called once per turn of the loop, after the last `put`: whatever was put can be sent as one.
    fn flush(&mut self);
}

/// A worker whose KV pool we may pull from.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerInfo {
    /// Its incarnation.
    pub instance: InstanceId,
    /// How tiles of its pool become tiles of ours.
    pub resharding: Resharding,
    /// Blocks of its pool.
    pub blocks: u32,
    /// How its transport is reached, as that transport wrote it.
    pub endpoint: Vec<u8>,
}

/// Whose pool an endpoint leads to, as it says itself; `None` if it is no endpoint.
#[must_use]
pub fn owner_of(endpoint: &[u8]) -> Option<InstanceId> {
    kv_transfer::instance_of(endpoint).ok()
}

/// What a replica thread can be told.
#[derive(Debug)]
pub enum Command {
    /// A fact for its scheduler.
    Event(Event),
    /// Connect to a peer; an earlier connection to the same instance is closed. Answered by [`Outbound::PeerUp`] or
    /// [`Outbound::PeerDown`].
    AddPeer(Box<PeerInfo>),
    /// Forget a peer, whose process is gone. Legs that read from it fail.
    RemovePeer(InstanceId),
}

impl From<Event> for Command {
    fn from(event: Event) -> Command {
        Command::Event(event)
    }
}

/// A command that the replica thread did not take, for another try.
#[derive(Debug, Error)]
#[error("{why}")]
pub struct NotTaken {
    /// The command.
    pub command: Box<Command>,
    /// [`EngineError::InboxFull`] or [`EngineError::Stopped`].
    pub why: EngineError,
}

impl NotTaken {
    fn full(command: Command, events_max: usize) -> NotTaken {
        NotTaken { command: Box::new(command), why: EngineError::InboxFull { events_max } }
    }
}

/// The way to a replica thread; cheap to clone. The thread ends when told to or when the last handle is gone.
#[derive(Clone)]
pub struct ReplicaHandle {
    inbox: Sender<Command>,
    thread: Unparker,
    stop: Arc<AtomicBool>,
}

impl ReplicaHandle {
    pub(crate) fn new(inbox: Sender<Command>, thread: Unparker, stop: Arc<AtomicBool>) -> ReplicaHandle {
        ReplicaHandle { inbox, thread, stop }
    }

    /// Hands one command over; those of one sender stay in order. Never blocks.
    pub fn send(&self, command: impl Into<Command>) -> Result<(), NotTaken> {
        let events_max = self.inbox.capacity().unwrap_or(usize::MAX);
        self.inbox.try_send(command.into()).map_err(|error| match error {
            TrySendError::Full(command) => NotTaken::full(command, events_max),
            TrySendError::Disconnected(command) => NotTaken { command: Box::new(command), why: EngineError::Stopped },
        })?;
        self.thread.unpark();
        Ok(())
    }

    /// Hands over what a peer has said. Peers fill at most half of the inbox, so that none of them keeps a router out.
    pub fn send_of_peer(&self, event: Event) -> Result<(), NotTaken> {
        let events_max = self.inbox.capacity().map_or(usize::MAX, |events| events.div_ceil(2));
        match self.inbox.len() < events_max {
            true => self.send(event),
            false => Err(NotTaken::full(event.into(), events_max)),
        }
    }

    /// Ends the thread. What still runs is dropped without a word; servers drain first.
    pub fn shutdown(&self) {
        self.stop.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl Drop for ReplicaHandle {
    fn drop(&mut self) {
        // The last handle's end is seen when the inbox is looked at.
        self.thread.unpark();
    }
}

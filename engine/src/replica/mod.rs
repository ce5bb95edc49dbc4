//! Replica thread of a worker: its input, its output, and the handle that others hold.
//!
//! One thread owns scheduler, backend handle and transport handle by `&mut` and never computes or copies. Sessions with
//! routers and the service for peers talk to it through a bounded inbox and an [`Outlet`].

mod gaps;
mod held;
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
use sched::share::{Decision, Split};
use sched::{Failure, InstanceId, LaneId};
use thiserror::Error;

use crate::EngineError;

pub(crate) use run::{Parts, spawn};

/// Message of the replica thread to the rest of its process.
#[derive(Debug, Clone, PartialEq)]
pub enum Outbound {
    /// Word for another process.
    Say(Envelope),
    /// Asks to meet a giver; answered by [`Event::GiverUp`] or [`Event::GiverUnmet`].
    Meet {
        /// Giver to meet.
        giver: InstanceId,
        /// Address of its peer service.
        address: Arc<str>,
    },
    /// A peer can be pulled from.
    PeerUp {
        /// The peer.
        instance: InstanceId,
        /// Transport of its bytes.
        transport: TransportKind,
        /// Rate measured at connect.
        bytes_per_second: f64,
    },
    /// A peer cannot be pulled from any more; to meet it again, add it with a fresh endpoint.
    PeerDown {
        /// The peer.
        instance: InstanceId,
        /// Reason of the loss.
        reason: String,
    },
    /// A pull has ended; for metrics.
    Transferred {
        /// Giver whose blocks were read.
        giver: InstanceId,
        /// Transport of the bytes.
        transport: TransportKind,
        /// Bytes that arrived; 0 after a failure or abort.
        bytes: u64,
        /// Duration in microseconds; 0 after a failure or abort.
        elapsed_us: u64,
        /// Outcome of the pull.
        end: TransferEnd,
    },
    /// A step has ended; for metrics.
    Stepped {
        /// Lane of the step.
        lane: LaneId,
        /// Duration of the step.
        took: Duration,
        /// How long the device had stood still before it although there was work; `None` if there was none.
        gap: Option<Duration>,
    },
    /// Load of the worker: sent after a change, at most ten times a second, and else every second.
    Load(Load),
    /// The division of the device was decided about; the first says how it begins.
    Divided {
        /// The decision.
        decision: Decision,
        /// Time to set the shares, if they have changed.
        took: Duration,
    },
    /// Device time that each lane has used since the start; with each load, where the device counts it.
    Used(Vec<(LaneId, Duration)>),
    /// The accounting of blocks is inconsistent: a defect of ours, found while idle; for metrics.
    InvariantBroken(String),
    /// The thread has ended, as asked or because of this failure.
    Stopped(Option<Failure>),
}

/// Outcome of a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferEnd {
    /// All bytes arrived.
    Done,
    /// Bytes are missing because of the path or the peer.
    Failed,
    /// The giver refused because the lease has ended; the path is fine.
    Refused,
    /// The pull was aborted as asked.
    Aborted,
}

/// Output of the replica thread. Never blocks.
pub trait Outlet: Send {
    /// Takes one message.
    fn put(&mut self, out: Outbound);

    /// Ends a turn of the loop, after the last `put`: the messages since the last flush can be sent together.
    fn flush(&mut self);
}

/// A giver whose KV pool this worker may pull from.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerInfo {
    /// Identity of its current start.
    pub instance: InstanceId,
    /// Mapping of tiles of its pool to tiles of ours.
    pub resharding: Resharding,
    /// Blocks of its pool.
    pub blocks: u32,
    /// Address of its transport, as that transport wrote it.
    pub endpoint: Vec<u8>,
}

/// Owner of the pool that an endpoint leads to, as the endpoint says; `None` if it is no endpoint.
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
    /// From now on this split of the device holds, whatever the policy would decide. Answered by [`Outbound::Divided`],
    /// by nothing where one lane has the device.
    Pin(Split),
    /// The policy decides again about the split; answered as [`Command::Pin`].
    Release,
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

/// Handle to a replica thread; cheap to clone. The thread ends when told to, or when the last handle is dropped.
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
        // Wake the thread: it sees the end of the last handle when it looks at the inbox.
        self.thread.unpark();
    }
}

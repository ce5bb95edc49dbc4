//! Everything a transfer can be refused for or fail at.

use std::io;
use std::time::Duration;

use kernels::memory::{Backing, MemoryError, RegionKind};
use sched::{InstanceId, LeaseId};

use crate::{AccessDenied, PeerId, RefusedUcxTls, RegionId, TransportKind};

/// Whose memory an error speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Ours, which is written.
    Local,
    /// The peer's, which is read.
    Remote,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Remote => "remote",
        })
    }
}

/// Why a call was refused, a batch failed, or a peer is down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The transport was left out of this build.
    #[error("open transport {kind}: this build has no support for it")]
    NotBuilt {
        /// The transport.
        kind: TransportKind,
    },
    /// The list of UCX transports names one that is not opened.
    #[error("open ucx: the list of its transports {0}")]
    UcxTls(#[from] RefusedUcxTls),
    /// The environment would have UCX do something else than what is configured.
    #[error(
        "open ucx: the environment says {variable}={found:?}, this worker needs {needed:?}: unset the variable (transports \
         are chosen by engine.ucx_tls)"
    )]
    UcxEnvironment {
        /// The variable.
        variable: String,
        /// Its value.
        found: String,
        /// What UCX is told instead.
        needed: String,
    },
    /// Memory of a kind that the transport cannot serve, of the host or of a device.
    #[error("register memory with {kind}: it serves {needed}, not {found}")]
    WrongMemory {
        /// The transport.
        kind: TransportKind,
        /// What it serves.
        needed: RegionKind,
        /// What it got.
        found: RegionKind,
    },
    /// Registered memory is not what the transport can serve.
    #[error("register memory with {kind}: it serves {needed:?} memory, not {found:?}")]
    WrongBacking {
        /// The transport.
        kind: TransportKind,
        /// What it needs.
        needed: Backing,
        /// What it got.
        found: Backing,
    },
    /// More of something than its limit allows.
    #[error("{operation}: {what} are limited to {max}")]
    Limit {
        /// What was being done.
        operation: &'static str,
        /// What there were too many of.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// A peer's endpoint is not one.
    #[error("read a peer's endpoint of {bytes} bytes: {reason}")]
    Endpoint {
        /// Its length.
        bytes: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A peer of another version of this software.
    #[error("connect: the peer speaks transfer version {found}, this build speaks {supported}")]
    Version {
        /// The peer's version.
        found: u16,
        /// Ours.
        supported: u16,
    },
    /// A peer that uses another transport.
    #[error("connect over {ours}: the peer's endpoint is of {theirs}")]
    WrongTransport {
        /// Our transport.
        ours: TransportKind,
        /// The peer's.
        theirs: TransportKind,
    },
    /// A transport for one host met a peer of another.
    #[error("connect over {kind}: the peer is on another host or in another container; use tcp")]
    OtherHost {
        /// The transport.
        kind: TransportKind,
    },
    /// The process behind the address is not the one that made the endpoint.
    #[error("connect: the endpoint is of {expected}, but another process answers there")]
    WrongInstance {
        /// The instance that the endpoint names.
        expected: InstanceId,
    },
    /// The peer has not told this reader how to greet.
    #[error("connect: the peer does not know the token that this reader shows; it is told in the peer's endpoint")]
    NotAdmitted,
    /// The kernel does not let us read the peer's memory.
    #[error(
        "connect over ucx: reading process {pid} is not permitted: both must run as the same user, in one PID namespace, \
         dumpable, and with the ptrace right (kernel.yama.ptrace_scope <= 1); otherwise use shm or tcp"
    )]
    NotPermitted {
        /// The peer's process.
        pid: u32,
    },
    /// The probe's bytes were not the peer's.
    #[error("connect: the probe read returned wrong bytes")]
    ProbeMismatch,
    /// A peer that was never connected, or whose end was already told.
    #[error("{operation}: {peer} is not connected")]
    UnknownPeer {
        /// What was being done.
        operation: &'static str,
        /// The peer.
        peer: PeerId,
    },
    /// A peer that is still connecting.
    #[error("start a batch: {peer} is still connecting")]
    PeerConnecting {
        /// The peer.
        peer: PeerId,
    },
    /// A batch without a byte to move.
    #[error("start a batch: it has no bytes")]
    EmptyBatch,
    /// A region that its owner has not registered.
    #[error("start a batch: there is no {side} {region}")]
    UnknownRegion {
        /// Whose.
        side: Side,
        /// The region.
        region: RegionId,
    },
    /// A range outside its region.
    #[error("start a batch: {bytes} bytes at offset {offset} leave the {side} {region} of {region_bytes} bytes")]
    Bounds {
        /// Whose.
        side: Side,
        /// The region.
        region: RegionId,
        /// Where the range starts.
        offset: u64,
        /// How long it is.
        bytes: u64,
        /// How long the region is.
        region_bytes: u64,
    },
    /// The owner refused the read.
    #[error("read under {lease}: {denied}")]
    Denied {
        /// The lease that was named.
        lease: LeaseId,
        /// Why.
        denied: AccessDenied,
    },
    /// The batch, or the connecting, took longer than it was given.
    #[error("{operation}: not done after {deadline_ms} ms")]
    Deadline {
        /// What was being done.
        operation: &'static str,
        /// The time it had.
        deadline_ms: u64,
    },
    /// The peer or the connection to it is gone.
    #[error("{operation}: the peer is lost: {reason}")]
    PeerLost {
        /// What was being done.
        operation: &'static str,
        /// How that was noticed.
        reason: String,
    },
    /// The peer broke the protocol.
    #[error("the peer broke the transfer protocol: {reason}")]
    Protocol {
        /// What it did.
        reason: &'static str,
    },
    /// The connection was closed because we asked.
    #[error("disconnected")]
    Disconnected,
    /// A system call refused.
    #[error("{operation}: {reason}")]
    System {
        /// What was being done.
        operation: &'static str,
        /// What the system said.
        reason: String,
    },
    /// UCX's receive queues do not fit where they are kept.
    #[error(
        "open ucx: /dev/shm has room for {free_bytes} bytes, this worker's receive queues take {needed_bytes}: enlarge it \
         (a container's --shm-size), or use the transport shm"
    )]
    DevShm {
        /// What is there.
        free_bytes: u64,
        /// What is needed.
        needed_bytes: u64,
    },
    /// UCX refused.
    #[error("{operation}: ucx: {status}")]
    Ucx {
        /// The call.
        operation: &'static str,
        /// UCX's own words.
        status: String,
    },
    /// The transport's thread has ended.
    #[error("the transport has stopped")]
    Stopped,
    /// A failure that a test asked for.
    #[error("injected failure")]
    Injected,
}

impl TransferError {
    /// Wraps what a system call said.
    pub(crate) fn system(operation: &'static str, error: &io::Error) -> Self {
        Self::System { operation, reason: error.to_string() }
    }

    /// An operation that took longer than it was given.
    pub(crate) fn late(operation: &'static str, allowed: Duration) -> Self {
        Self::Deadline { operation, deadline_ms: u64::try_from(allowed.as_millis()).unwrap_or(u64::MAX) }
    }

    /// Wraps how the loss of a peer was noticed.
    pub(crate) fn lost(operation: &'static str, reason: impl ToString) -> Self {
        Self::PeerLost { operation, reason: reason.to_string() }
    }
}

impl From<MemoryError> for TransferError {
    fn from(error: MemoryError) -> Self {
        Self::System { operation: "map memory", reason: error.to_string() }
    }
}

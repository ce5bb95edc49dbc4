//! Errors by which a transfer is refused or fails.

use std::io;
use std::time::Duration;

use kernels::memory::{Backing, MemoryError, RegionKind};
use sched::{InstanceId, LeaseId};

use crate::{AccessDenied, PeerId, RefusedUcxTls, RegionId, TransportKind};

/// Side whose memory an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This worker's memory, which is written.
    Local,
    /// The peer's memory, which is read.
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

/// Reason for which a call was refused, a batch failed, or a peer is down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The transport was left out of this build.
    #[error("open transport {kind}: this build has no support for it")]
    NotBuilt {
        /// The transport.
        kind: TransportKind,
    },
    /// The list of UCX transports contains a name that is refused.
    #[error("open ucx: the list of its transports {0}")]
    UcxTls(#[from] RefusedUcxTls),
    /// A variable of the environment contradicts the configuration of UCX.
    #[error(
        "open ucx: the environment says {variable}={found:?}, this worker needs {needed:?}: unset the variable (transports \
         are chosen by engine.ucx_tls)"
    )]
    UcxEnvironment {
        /// The variable.
        variable: String,
        /// Its value.
        found: String,
        /// Value that this worker sets.
        needed: String,
    },
    /// Memory of a kind that the transport cannot serve, of the host or of a device.
    #[error("register memory with {kind}: it serves {needed}, not {found}")]
    WrongMemory {
        /// The transport.
        kind: TransportKind,
        /// Memory that the transport serves.
        needed: RegionKind,
        /// Memory that was to be registered.
        found: RegionKind,
    },
    /// Memory whose backing the transport cannot serve.
    #[error("register memory with {kind}: it serves {needed:?} memory, not {found:?}")]
    WrongBacking {
        /// The transport.
        kind: TransportKind,
        /// Backing that the transport needs.
        needed: Backing,
        /// Memory that was to be registered.
        found: Backing,
    },
    /// A limit would be exceeded.
    #[error("{operation}: {what} are limited to {max}")]
    Limit {
        /// Operation that failed.
        operation: &'static str,
        /// Things that the limit counts.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// Bytes that are not a valid endpoint.
    #[error("read a peer's endpoint of {bytes} bytes: {reason}")]
    Endpoint {
        /// Length of the endpoint.
        bytes: usize,
        /// Defect that was found.
        reason: &'static str,
    },
    /// A peer that speaks another version of the transfer protocol.
    #[error("connect: the peer speaks transfer version {found}, this build speaks {supported}")]
    Version {
        /// The peer's version.
        found: u16,
        /// This build's version.
        supported: u16,
    },
    /// A peer that uses another transport.
    #[error("connect over {ours}: the peer's endpoint is of {theirs}")]
    WrongTransport {
        /// This worker's transport.
        ours: TransportKind,
        /// The peer's transport.
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
    /// The token that this reader shows is not the peer's.
    #[error("connect: the peer does not know the token that this reader shows; it is told in the peer's endpoint")]
    NotAdmitted,
    /// The kernel does not let this process read the peer's memory.
    #[error(
        "connect over ucx: reading process {pid} is not permitted: both must run as the same user, in one PID namespace, \
         dumpable, and with the ptrace right (kernel.yama.ptrace_scope <= 1); otherwise use shm or tcp"
    )]
    NotPermitted {
        /// Process id of the peer.
        pid: u32,
    },
    /// The probe's bytes were not the peer's.
    #[error("connect: the probe read returned wrong bytes")]
    ProbeMismatch,
    /// A peer that was never connected, or whose end was already reported.
    #[error("{operation}: {peer} is not connected")]
    UnknownPeer {
        /// Operation that failed.
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
        /// Side of the region.
        side: Side,
        /// The region.
        region: RegionId,
    },
    /// A range outside its region.
    #[error("start a batch: {bytes} bytes at offset {offset} leave the {side} {region} of {region_bytes} bytes")]
    Bounds {
        /// Side of the region.
        side: Side,
        /// The region.
        region: RegionId,
        /// Start of the range, in bytes.
        offset: u64,
        /// Length of the range.
        bytes: u64,
        /// Length of the region.
        region_bytes: u64,
    },
    /// The owner refused the read.
    #[error("read under {lease}: {denied}")]
    Denied {
        /// Lease that the reader named.
        lease: LeaseId,
        /// Reason of the owner.
        denied: AccessDenied,
    },
    /// A batch or another operation exceeded its deadline.
    #[error("{operation}: not done after {deadline_ms} ms")]
    Deadline {
        /// Operation that failed.
        operation: &'static str,
        /// Time that the operation had.
        deadline_ms: u64,
    },
    /// The peer or the connection to it is gone.
    #[error("{operation}: the peer is lost: {reason}")]
    PeerLost {
        /// Operation that failed.
        operation: &'static str,
        /// How the loss was noticed.
        reason: String,
    },
    /// The peer broke the protocol.
    #[error("the peer broke the transfer protocol: {reason}")]
    Protocol {
        /// Breach that was seen.
        reason: &'static str,
    },
    /// The connection was closed by [`crate::KvTransport::disconnect`].
    #[error("disconnected")]
    Disconnected,
    /// A system call failed.
    #[error("{operation}: {reason}")]
    System {
        /// Operation that failed.
        operation: &'static str,
        /// Error text of the system.
        reason: String,
    },
    /// UCX's receive queues do not fit into /dev/shm.
    #[error(
        "open ucx: /dev/shm has room for {free_bytes} bytes, this worker's receive queues take {needed_bytes}: enlarge it \
         (a container's --shm-size), or use the transport shm"
    )]
    DevShm {
        /// Free bytes in /dev/shm.
        free_bytes: u64,
        /// Bytes that the receive queues take.
        needed_bytes: u64,
    },
    /// A call of UCX failed.
    #[error("{operation}: ucx: {status}")]
    Ucx {
        /// Operation that failed.
        operation: &'static str,
        /// Status text of UCX.
        status: String,
    },
    /// A thread of the transport has ended.
    #[error("the transport has stopped")]
    Stopped,
    /// A failure that a test asked for.
    #[error("injected failure")]
    Injected,
}

impl TransferError {
    pub(crate) fn system(operation: &'static str, error: &io::Error) -> Self {
        Self::System { operation, reason: error.to_string() }
    }

    pub(crate) fn late(operation: &'static str, allowed: Duration) -> Self {
        Self::Deadline { operation, deadline_ms: u64::try_from(allowed.as_millis()).unwrap_or(u64::MAX) }
    }

    pub(crate) fn lost(operation: &'static str, reason: impl ToString) -> Self {
        Self::PeerLost { operation, reason: reason.to_string() }
    }
}

impl From<MemoryError> for TransferError {
    fn from(error: MemoryError) -> Self {
        Self::System { operation: "map memory", reason: error.to_string() }
    }
}

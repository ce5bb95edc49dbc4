//! The trait that every transport implements, with its ids, events and settings; knows no implementation.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use kernels::memory::{Backing, Region};
use sched::InstanceId;

use crate::{AccessCheck, Batch, Limits, TransferError};

/// Pulls ranges of other workers' memory into this worker's, and lets them pull from it.
///
/// One thread calls it. A call blocks that thread no longer than a queue does: copies, system calls and progress run on
/// the transport's own threads. Only [`KvTransport::register`] and dropping wait for those threads.
pub trait KvTransport: Send {
    /// Kind of this transport.
    fn kind(&self) -> TransportKind;

    /// Makes memory readable by peers and writable by batches, until the transport is dropped. Called at start, before
    /// the first [`KvTransport::endpoint`]. Memory of a kind (host or device) that the transport cannot serve is
    /// refused.
    fn register(&mut self, memory: Region) -> Result<RegionId, TransferError>;

    /// Address, instance, region keys and lengths that a peer needs to connect and read. Opaque and versioned.
    fn endpoint(&self) -> Vec<u8>;

    /// Starts connecting to the worker that made `endpoint`. The outcome is [`TransferEvent::PeerUp`] or
    /// [`TransferEvent::PeerDown`]; an unreadable endpoint is refused at once.
    fn connect(&mut self, endpoint: &[u8]) -> Result<PeerId, TransferError>;

    /// Starts pulling a batch from a peer that is up. It ends with exactly one of [`TransferEvent::Done`],
    /// [`TransferEvent::Failed`] and [`TransferEvent::Aborted`], after which no byte of the batch can land; or the
    /// transport itself ends ([`TransferEvent::Stopped`]).
    fn start(&mut self, peer: PeerId, batch: Batch) -> Result<Ticket, TransferError>;

    /// Returns the next event, if there is one.
    fn poll(&mut self) -> Option<TransferEvent>;

    /// Asks a batch to end as [`TransferEvent::Aborted`]; too late, it ends as done or failed. An ended ticket is
    /// ignored.
    fn abort(&mut self, ticket: Ticket);

    /// Closes the connection. Open batches end as aborted, then [`TransferEvent::PeerDown`] says that nothing of the
    /// peer is in flight. To meet the peer again, connect with a fresh endpoint.
    fn disconnect(&mut self, peer: PeerId);
}

/// Kind of transport, by its name in configuration, logs and metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransportKind {
    /// One-sided reads by UCX: RDMA between hosts, cross-memory attach on one.
    Ucx,
    /// Framed requests over TCP sockets.
    Tcp,
    /// The peer's memfd, mapped by the reader and copied by the reader's own thread.
    Shm,
    /// Copies between workers that are threads of one process.
    InProcess,
}

impl TransportKind {
    /// Every transport, in order of preference.
    pub const ALL: [Self; 4] = [Self::Ucx, Self::Shm, Self::Tcp, Self::InProcess];

    /// The name in configuration, logs and metric labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ucx => "ucx",
            Self::Tcp => "tcp",
            Self::Shm => "shm",
            Self::InProcess => "in_process",
        }
    }

    /// Backing that a KV pool needs to be served by this transport: a memfd has no huge pages on most hosts, and
    /// cross-memory attach without huge pages loses more than half its speed.
    pub fn backing(self) -> Backing {
        match self {
            Self::Shm => Backing::Memfd,
            Self::Ucx | Self::Tcp | Self::InProcess => Backing::Anonymous,
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

/// Error for a name that no transport has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown transport {0:?}, expected ucx, shm, tcp or in_process")]
pub struct UnknownTransport(pub String);

impl FromStr for TransportKind {
    type Err = UnknownTransport;

    fn from_str(label: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.label() == label).ok_or_else(|| UnknownTransport(label.to_owned()))
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($raw:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $raw);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// A registered range of memory, counted from 0 in the order its owner registered them.
    RegionId(u32), "region"
);
id!(
    /// One connection to one incarnation of a peer. Never reused.
    PeerId(u64), "peer"
);
id!(
    /// One started batch. Never reused.
    Ticket(u64), "ticket"
);

/// Event that a transport reports to the thread that drives it.
#[derive(Debug, Clone, PartialEq)]
pub enum TransferEvent {
    /// The peer answered, is the instance that its endpoint names, and the rate of real reads was measured.
    PeerUp {
        /// The connection.
        peer: PeerId,
        /// Rate measured by the reads at connect.
        probe: Probe,
    },
    /// The connection is gone or never came to be. Its tickets have ended before this event.
    PeerDown {
        /// The connection; nothing may be started on it any more.
        peer: PeerId,
        /// Reason; [`TransferError::Disconnected`] after a call of [`KvTransport::disconnect`].
        error: TransferError,
    },
    /// Every byte of the batch is in place.
    Done {
        /// The batch.
        ticket: Ticket,
        /// The bytes moved.
        bytes: u64,
        /// Time from `start` to the last byte, in microseconds.
        elapsed_us: u64,
    },
    /// The batch ended without all its bytes; the content of its destination is unspecified.
    Failed {
        /// The batch.
        ticket: Ticket,
        /// Reason.
        error: TransferError,
    },
    /// The batch ended because it was aborted.
    Aborted {
        /// The batch.
        ticket: Ticket,
    },
    /// A thread of the transport has ended by itself. No event follows: open batches stay open, because over one-sided
    /// transports their bytes may land as long as the process lives. The process has to end.
    Stopped {
        /// Name of the thread.
        part: &'static str,
    },
}

impl TransferEvent {
    /// Returns the ticket that this event ends, if there is one.
    pub fn ended(&self) -> Option<Ticket> {
        match self {
            Self::Done { ticket, .. } | Self::Failed { ticket, .. } | Self::Aborted { ticket } => Some(*ticket),
            Self::PeerUp { .. } | Self::PeerDown { .. } | Self::Stopped { .. } => None,
        }
    }
}

/// Measurement of the reads at connect, over the path that batches take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Bytes read.
    pub bytes: u64,
    /// Time that the reads took, in nanoseconds.
    pub elapsed_ns: u64,
}

impl Probe {
    /// Measured rate.
    pub fn bytes_per_second(self) -> f64 {
        self.bytes as f64 * 1e9 / self.elapsed_ns.max(1) as f64
    }
}

/// Callback from a transport's thread whenever `poll` has a new event. Must not block.
pub type Notify = Arc<dyn Fn() + Send + Sync>;

/// Settings with which every transport is opened.
#[derive(Clone)]
pub struct Setup {
    /// This process's incarnation, drawn at random at each start, so that a stale endpoint is recognised.
    pub instance: InstanceId,
    /// Wakes the thread that drives the transport.
    pub notify: Notify,
    /// Check of each read where the owner of the memory takes part in reads: tcp and in-process, not one-sided
    /// transports.
    pub access: Arc<dyn AccessCheck>,
    /// Bounds of queues and waits.
    pub limits: Limits,
    /// Whether peers may read from this worker.
    pub serving: Serving,
}

/// Whether a transport lets peers read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// Peers may connect and read.
    Readers,
    /// No peer may read: nothing listens, and the endpoint leads nowhere. (UCX never listens.)
    Nobody,
}

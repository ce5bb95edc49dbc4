//! The trait that every transport implements and the words it is spoken in; knows no implementation.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use kernels::memory::{Backing, Region};
use sched::InstanceId;

use crate::{AccessCheck, Batch, Limits, TransferError};

/// Pulls ranges of other workers' memory into ours, and lets them pull ours.
///
/// Driven by one thread, which no call ever blocks for longer than a queue takes: copies, system calls and progress run
/// on the transport's own threads. The exceptions are [`KvTransport::register`] and dropping, which wait for those threads.
pub trait KvTransport: Send {
    /// Which transport this is.
    fn kind(&self) -> TransportKind;

    /// Makes memory readable by peers and writable by our own batches; memory of a kind that the transport cannot serve, the
    /// host's or a device's, is refused. Done once, at start, before the first
    /// [`KvTransport::endpoint`]; the memory stays registered until the transport is dropped.
    fn register(&mut self, memory: Region) -> Result<RegionId, TransferError>;

    /// Everything a peer needs to connect and read: address, instance, region keys and lengths. Opaque and versioned.
    fn endpoint(&self) -> Vec<u8>;

    /// Starts connecting to the worker that made `endpoint`. The outcome is [`TransferEvent::PeerUp`] or
    /// [`TransferEvent::PeerDown`]; an unreadable endpoint is refused at once.
    fn connect(&mut self, endpoint: &[u8]) -> Result<PeerId, TransferError>;

    /// Starts pulling a batch from a peer that is up. Ends with exactly one of [`TransferEvent::Done`],
    /// [`TransferEvent::Failed`] and [`TransferEvent::Aborted`], after which no byte of the batch can land any more; or
    /// the transport itself ends ([`TransferEvent::Stopped`]).
    fn start(&mut self, peer: PeerId, batch: Batch) -> Result<Ticket, TransferError>;

    /// The next thing that happened, if any.
    fn poll(&mut self) -> Option<TransferEvent>;

    /// Asks a batch to end as [`TransferEvent::Aborted`]. If it was too late, it ends as done or failed; an ended
    /// ticket is ignored.
    fn abort(&mut self, ticket: Ticket);

    /// Closes the connection. Open batches end as aborted, then [`TransferEvent::PeerDown`] says that nothing of the
    /// peer is in flight. To meet the peer again, connect with a fresh endpoint.
    fn disconnect(&mut self, peer: PeerId);
}

/// How bytes travel; the name in configuration, logs and metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransportKind {
    /// One-sided reads by UCX: RDMA between hosts, cross-memory attach on one.
    Ucx,
    /// Framed requests over TCP sockets.
    Tcp,
    /// The peer's memfd mapped here, copied by our own thread.
    Shm,
    /// Both workers are threads of one process.
    InProcess,
}

impl TransportKind {
    /// Every transport, the one to prefer first.
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

    /// What the KV pool must be made of to be served by this transport: a memfd has no huge pages on most hosts, and
    /// cross-memory attach without them loses more than half its speed.
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

/// A name that is no transport's.
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

/// What a transport has to tell its owner.
#[derive(Debug, Clone, PartialEq)]
pub enum TransferEvent {
    /// The peer answered, is the instance its endpoint named, and real reads were measured.
    PeerUp {
        /// The connection.
        peer: PeerId,
        /// What the reads at connect measured.
        probe: Probe,
    },
    /// The connection is gone or never came to be. Its tickets have ended before this event.
    PeerDown {
        /// The connection; nothing may be started on it any more.
        peer: PeerId,
        /// Why; [`TransferError::Disconnected`] when it was asked for.
        error: TransferError,
    },
    /// Every byte of the batch is in place.
    Done {
        /// The batch.
        ticket: Ticket,
        /// The bytes moved.
        bytes: u64,
        /// From `start` to the last byte.
        elapsed_us: u64,
    },
    /// The batch ended without all its bytes; what its destination holds is unspecified.
    Failed {
        /// The batch.
        ticket: Ticket,
        /// Why.
        error: TransferError,
    },
    /// The batch ended because it was asked to.
    Aborted {
        /// The batch.
        ticket: Ticket,
    },
    /// A thread of the transport has ended by itself. Nothing is told any more: batches that are open stay so, because
    /// over one-sided transports their bytes may land as long as the process lives. All that is left is to end it.
    Stopped {
        /// Which thread.
        part: &'static str,
    },
}

impl TransferEvent {
    /// The ticket that this event ends, if it ends one.
    pub fn ended(&self) -> Option<Ticket> {
        match self {
            Self::Done { ticket, .. } | Self::Failed { ticket, .. } | Self::Aborted { ticket } => Some(*ticket),
            Self::PeerUp { .. } | Self::PeerDown { .. } | Self::Stopped { .. } => None,
        }
    }
}

/// What the reads at connect measured, over the path that batches take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// The bytes read.
    pub bytes: u64,
    /// How long that took.
    pub elapsed_ns: u64,
}

impl Probe {
    /// The measured rate.
    pub fn bytes_per_second(self) -> f64 {
        self.bytes as f64 * 1e9 / self.elapsed_ns.max(1) as f64
    }
}

/// Called from a transport's thread whenever `poll` has something new. Must not block.
pub type Notify = Arc<dyn Fn() + Send + Sync>;

/// What every transport is opened with.
#[derive(Clone)]
pub struct Setup {
    /// This process's incarnation: random per start, so that a peer's stale endpoint is told apart.
    pub instance: InstanceId,
    /// How the owner of the transport is woken.
    pub notify: Notify,
    /// Asked per read where the owner takes part in reads (tcp, in-process); one-sided transports cannot ask.
    pub access: Arc<dyn AccessCheck>,
    /// The bounds of queues and waits.
    pub limits: Limits,
    /// Whether anybody is to read from us.
    pub serving: Serving,
}

/// Whether a transport lets peers read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// Peers may connect and read.
    Readers,
    /// Nobody is to read from us: nothing listens, and the endpoint leads nowhere. (UCX listens for nobody anyway.)
    Nobody,
}

//! Moves bytes between workers; knows nothing of what a request means.
//!
//! A worker opens one [`KvTransport`], registers its KV pool, hands its [`KvTransport::endpoint`] to peers over the
//! control channel, and pulls ranges of *their* pools into its own. Memory is named by (region, offset, length), never
//! by address. There are four implementations: [`ucx`] (one-sided reads), [`tcp`] (needs no privileges), [`shm`]
//! (memfd, one host) and [`in_process`] (threads of one process, also the base of fault tests through [`faulty`]).

pub mod access;
pub mod faulty;
pub mod in_process;
pub mod shm;
pub mod tcp;
#[cfg(feature = "ucx")]
pub mod ucx;

mod accept;
mod batch;
mod copier;
mod driver;
mod endpoint;
mod error;
mod flow;
mod front;
mod greeting;
mod heap;
mod host;
mod limits;
mod lobby;
mod open;
mod outbox;
mod probe;
mod region;
mod signals;
mod token;
mod transport;
mod ucx_tls;
mod wire;

pub use access::{AccessCheck, AccessDenied, LeaseTable};
pub use batch::{Batch, RangeCopy};
pub use endpoint::instance_of;
pub use error::{Side, TransferError};
pub use front::Transport;
pub use heap::give_heap_back;
pub use host::allow_readers;
pub use limits::Limits;
pub use open::{Options, open};
pub use signals::{exit_now, let_writes_fail, restore_signals};
pub use transport::{
    KvTransport, Notify, PeerId, Probe, RegionId, Serving, Setup, Ticket, TransferEvent, TransportKind,
    UnknownTransport,
};
pub use ucx_tls::{Fabric, RefusedUcxTls, UcxReach, check_ucx_tls};

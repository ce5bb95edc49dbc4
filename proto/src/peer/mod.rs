//! Conversation of a reader (decode) and a giver (prefill) about leases; the bytes move elsewhere.

pub mod client;
mod listeners;
pub mod server;
mod signed;

use sched::compat::CompatParts;
use sched::layout::KvLayout;
use sched::{InstanceId, Span};

/// Label of the giver's proof in its welcome.
const WELCOME: &str = "welcome";

/// First message of a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerHello {
    /// Compatibility of its KV cache.
    pub compat: CompatParts,
    /// Incarnation of the sender.
    pub instance: InstanceId,
    /// Name in logs, metrics and errors; empty if it has none.
    pub name: String,
    /// Interval at which the reader renews its leases.
    pub lease_beat: Span,
}

/// Answer of a giver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerWelcome {
    /// Compatibility of its KV cache.
    pub compat: CompatParts,
    /// Incarnation of the sender.
    pub instance: InstanceId,
    /// Layout of its blocks.
    pub layout: KvLayout,
    /// Number of blocks in its pool.
    pub blocks: u32,
    /// Endpoints of its transports.
    pub endpoints: Vec<Endpoint>,
    /// Name in logs, metrics and errors; empty if it has none.
    pub name: String,
    /// Time after which a lease that its reader has not renewed ends.
    pub lease_span: Span,
}

/// Endpoint of one transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name of the transport.
    pub transport: String,
    /// Address that only the transport understands.
    pub address: Vec<u8>,
}

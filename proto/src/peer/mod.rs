//! What a reader (decode) and a giver (prefill) say to each other about leases; the bytes move elsewhere.

pub mod client;
pub mod server;

use sched::InstanceId;
use sched::compat::CompatParts;
use sched::layout::KvLayout;

/// What a reader says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerHello {
    /// What its KV cache is compatible with.
    pub compat: CompatParts,
    /// Its incarnation.
    pub instance: InstanceId,
    /// What logs, metrics and errors call it; empty if it has no name.
    pub name: String,
}

/// What a giver answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerWelcome {
    /// What its KV cache is compatible with.
    pub compat: CompatParts,
    /// Its incarnation.
    pub instance: InstanceId,
    /// How its blocks are laid out.
    pub layout: KvLayout,
    /// How many blocks its pool has.
    pub blocks: u32,
    /// Where its transports can be reached.
    pub endpoints: Vec<Endpoint>,
    /// What its data port asks this reader for, new for every hello.
    pub data_token: DataToken,
    /// What logs, metrics and errors call it; empty if it has no name.
    pub name: String,
}

/// Admits one reader to a giver's data port.
pub type DataToken = [u8; 16];

/// Where one transport can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The transport's name.
    pub transport: String,
    /// Opaque to everyone but that transport.
    pub address: Vec<u8>,
}

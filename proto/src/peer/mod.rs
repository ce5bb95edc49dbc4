//! What a reader (decode) and a giver (prefill) say to each other about leases; the bytes move elsewhere.

pub mod client;
mod listeners;
pub mod server;
mod signed;

use sched::compat::CompatParts;
use sched::layout::KvLayout;
use sched::{InstanceId, Span};

/// What the giver's proof in its welcome is labelled with.
const WELCOME: &str = "welcome";

/// What a reader says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerHello {
    /// What its KV cache is compatible with.
    pub compat: CompatParts,
    /// Its incarnation.
    pub instance: InstanceId,
    /// What logs, metrics and errors call it; empty if it has no name.
    pub name: String,
    /// How often it renews its leases.
    pub lease_beat: Span,
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
    /// What logs, metrics and errors call it; empty if it has no name.
    pub name: String,
    /// A lease ends when its reader has not renewed it for this long.
    pub lease_span: Span,
}

/// Where one transport can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The transport's name.
    pub transport: String,
    /// Opaque to everyone but that transport.
    pub address: Vec<u8>,
}

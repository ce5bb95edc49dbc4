//! Words that processes tell each other; knows neither gRPC nor connections.
//!
//! A conversation has one closed enum per direction: router and worker (`session.rs`), reader and giver (`peer.rs`). A
//! worker's words go into one [`Envelope`], which transports carry to the receiver that it names and never open.

mod load;
mod peer;
mod session;

pub use load::{Load, STATUS_BEAT};
pub use peer::{ReleaseAnswer, ToGiver, ToReader};
pub use session::{
    Commit, FirstTiming, FirstToken, FromWorker, JoinTiming, Offer, RENEW_LEGS_MAX, ToWorker, TokenTiming, Work,
};

use crate::{InstanceId, Leg};

/// Word of a worker, with its receiver.
#[derive(Debug, Clone, PartialEq)]
pub enum Envelope {
    /// For the router that serves the leg.
    Router(FromWorker),
    /// For the carrier of words to routers: the last word about this leg was said. Said once of every leg that a router
    /// has sent, unless it repeats one that lives.
    Over(Leg),
    /// For this giver.
    Giver(InstanceId, ToGiver),
    /// For this reader.
    Reader(InstanceId, ToReader),
}

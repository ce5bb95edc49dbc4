//! The gRPC contracts between router and workers and between workers, and their conversion to sched types.
//!
//! Its users see typed sessions ([`session`]) and peers ([`peer`]), never a generated message. It knows no scheduler
//! and no bytes of KV: it carries the messages of processes in order, bounded and without loss.

mod convert;
#[rustfmt::skip]
mod generated;
pub mod listen;
pub mod peer;
mod random;
pub mod secret;
mod seldom;
pub mod session;
mod status;
mod turned_away;

pub use convert::{ConvertError, Problem, limits};
pub use secret::Secret;
pub use turned_away::{Complaints, TurnedAway};

/// Version that both ends must speak; raised with every change that an older end would misread.
pub const VERSION: u32 = 6;

//! The gRPC contracts between router and workers and between workers, and their conversion to sched types.
//!
//! Whoever uses this crate sees typed sessions ([`session`]) and peers ([`peer`]), never a generated message. It knows
//! no scheduler and no bytes of KV: it carries what processes tell each other, in order, bounded and losslessly.

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

/// The version both ends must speak; raised with every change that an older end would misread.
pub const VERSION: u32 = 5;

//! The decode role: takes KV from givers and generates; aggregated is a decode worker that is sent whole requests.
//!
//! [`run`] is the life of the process. Between the sockets and the replica stand `host` (what routers say), `outlet`
//! (what the replica says) and `peers` (the givers: who they are, whether they live, what is said about leases).

mod config;
mod error;
mod host;
mod outlet;
mod peers;
mod run;

pub use config::{Config, DecodeRole};
pub use error::Error;
pub use run::run;

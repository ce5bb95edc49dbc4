//! The prefill role: serves the session with routers and gives KV to readers; knows no HTTP.
//!
//! [`run`] is the life of the process: ports, model, sessions and peers, ready, drain, end. Between the sockets and the
//! replica stand `host` (what comes in) and `outlet` (what goes out).

mod config;
mod error;
mod host;
mod outlet;
mod run;

pub use config::Config;
pub use error::Error;
pub use run::run;

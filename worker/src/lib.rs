//! What every worker process is: the host of a replica, its sessions with routers, metrics, drain, end; knows no HTTP.
//!
//! [`run`] is the life of the process. Between the sockets and the replica stand `host` (what routers say) and `outlet`
//! (what the replica says). Whether the worker gives KV caches to readers, takes them from givers, or both, is plugged
//! in: see [`Sides`].

mod config;
mod error;
mod host;
mod life;
mod loading;
pub mod metrics;
mod outlet;
mod run;
mod settings;
mod sides;
pub mod started;

pub use config::Config;
pub use error::Error;
pub use life::LifeError;
pub use loading::Stalled;
pub use run::{Process, run};
pub use settings::{Common, Settings};
pub use sides::{Giving, Loaded, Open, Sides, Taking, patiently};

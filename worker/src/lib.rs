//! The process of every worker: host of a replica, sessions with routers, metrics, drain, end; knows no HTTP.
//!
//! [`run`] is the life of the process. Between sockets and replica are `host` (messages of routers) and `outlet`
//! (messages of the replica). A worker gives KV caches to readers, takes them from givers, or both: see [`Sides`].

mod config;
mod error;
mod host;
mod life;
mod loading;
pub mod metrics;
mod outlet;
mod partition;
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

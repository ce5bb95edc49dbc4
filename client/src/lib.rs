//! Client of the OpenAI API: HTTP with event streams, a load generator and its reports. Knows no server's inside.
//!
//! - [`http`] asks one server and reads its event streams.
//! - [`workload`] says which requests are sent when: from a trace file or from a seed.
//! - [`run`] sends them on time and records what came back.
//! - [`report`] turns records into percentiles, attainment and goodput.
//! - [`session`] does all of it for a command or a test.

mod error;
pub mod http;
pub mod report;
pub mod run;
pub mod session;
pub mod workload;

pub use error::{Error, Result};

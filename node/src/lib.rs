//! Shared parts of every process: configuration loading, telemetry, admin HTTP, drain.
//!
//! It knows the process (files, signals, ports, metrics), not what the process is for.

pub mod admin;
pub mod backoff;
pub mod bind;
#[cfg(test)]
mod chain;
pub mod config;
pub mod door;
pub mod drain;
pub mod exit;
pub mod key;
pub mod names;
pub mod telemetry;
pub mod watched;

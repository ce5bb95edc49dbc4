//! Shared parts of the whole-system tests: start real processes, talk to them, read the repository.

pub mod damaged;
pub mod deployment;
pub mod http;
pub mod repository;
pub mod sockets;
pub mod tools_model;

//! Whole-system tests: what they share to start real processes, to talk to them and to read the repository.

pub mod damaged;
pub mod deployment;
pub mod http;
pub mod repository;
pub mod sockets;

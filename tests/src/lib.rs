//! Whole-system tests: what they share to start real processes and to read the repository.

pub mod repository;

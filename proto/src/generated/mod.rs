//! The generated messages and stubs; written by `proto/generate`, used by this crate only.
// @generated
#![allow(missing_docs, unreachable_pub, unused_qualifications, dead_code, clippy::all, clippy::pedantic)]

include!("baton.v1.rs");

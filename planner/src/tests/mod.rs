//! The simulator over whole deployments: determinism, conservation, and queues whose answer is known.

mod deployments;
mod links;
mod queueing;
mod random;
mod serving;

//! The simulator over whole deployments: determinism, conservation, and queues whose answer is known.

mod deployments;
mod learning;
mod links;
mod overload;
mod queueing;
mod random;
mod scheduling;
mod serving;
mod shares;

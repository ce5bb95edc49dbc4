//! Run: sends a workload's requests on time and records what came back. Knows no percentiles.
//!
//! Each request is a task. In an open loop a thread of its own says when the next one is due, so requests leave on time
//! whatever the others do; a request that would be one too many is recorded as not sent. In a closed loop the next
//! request leaves when one ends.

mod body;
mod course;
mod extra;
mod failure;
mod pacer;
mod progress;
mod record;
mod request;
mod slices;
mod stop;
mod sweep;

pub use body::{Api, Bodies, BodySettings, OptionalField};
pub use course::{Course, Limits, Pace, run};
pub use extra::Extra;
pub use failure::{Failure, FailureKind};
pub use progress::{Counts, Progress};
pub use record::{Arrival, Record};
pub use slices::{Endpoint, Slices, Taken};
pub use stop::{Stop, Stopper};
pub use sweep::{LEVELS, Point, Sweep, SweepBounds};

#[cfg(test)]
pub(crate) use record::tests;

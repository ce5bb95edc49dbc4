//! The two sides of one hand-off of a KV cache as checked state machines; knows no blocks, queues or messages.
//!
//! ```text
//! giver:  Reserved → Filling(watermark) → Complete → Released            from each → Expired | Aborted
//! reader: Unmet → Queued → Reserved → Reading → Releasing → Verified     from each → Failed  | Aborted
//! ```
//!
//! A reader computes with what it has read only in `Verified`, which nothing but the giver's `Ok` leads to. Events that
//! come late, twice or in another order than usual leave the state alone and say so.

mod answers;
mod give;
mod lease_ids;
mod take;
mod watermark;

pub use answers::ReleaseAnswers;
pub use give::{Give, GiveState, Released, Renewed};
pub use lease_ids::{LeaseIds, LeaseKey};
pub use take::{Abandoned, PullOutcome, Take, TakeState};
pub use watermark::{Asked, Extent, Region, Watermark};

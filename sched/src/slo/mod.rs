//! Latencies as the client sees them, their parts, and whether targets were met; knows times only as arguments.
//!
//! - TTFT = parse + admission + prefill queue + prefill + relay.
//! - Hand-off gap = wait + unhidden transfer + decode queue + first decode step: the gap before the first token of a
//!   taken-over leg. It is an ITL and counts in TPOT.
//! - TPOT = (last − first) / (tokens − 1) of a choice with at least two tokens. An ITL is every gap between two tokens.
//! - Attainment is over all arrivals: refused, failed and late ones count as missed. Goodput is requests per second
//!   that met every target of their class (DistServe, Zhong et al., OSDI 2024). Requests whose client left before a
//!   target was missed count in neither.
//!
//! Parts always sum to the whole: what a worker reports is clipped to what the client saw, and time that nobody
//! reported is `relay` (TTFT) or `wait` (hand-off gap).

mod attainment;
mod parts;
mod record;

pub use attainment::{Attainment, Judgement, Outcome, Target, Verdict};
pub use parts::{GapParts, Marks, TtftParts};
pub use record::{Observation, RequestRecord, Summary, quantile};

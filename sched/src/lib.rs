//! Decisions: pure state machines and latency models; knows no clock, socket, tensor or JSON.
//!
//! Every machine is a plain struct with three verbs: `on(now, event)` takes in one fact, `poll()` gives out
//! decisions, `next_timeout()` says when to be called again at the latest. Live servers and the simulator are two
//! drivers of the same structs, so what is planned cannot drift from what serves.

pub mod block;
pub mod cluster;
pub mod compat;
pub mod contained;
pub mod cost;
pub mod desk;
pub mod device;
mod error;
mod failure;
pub mod handoff;
mod ids;
pub mod journey;
pub mod layout;
pub mod message;
mod plan;
pub mod quota;
pub mod replica;
mod request;
pub mod rng;
mod role;
pub mod route;
pub mod scheduling;
pub mod share;
pub mod slo;
mod time;
pub mod turns;

pub use compat::{CompatKey, CompatParts};
pub use error::SchedError;
pub use failure::{Failure, FailureKind};
pub use ids::{
    Attempt, BlockId, Choice, InstanceId, LaneId, LeaseId, Leg, ModelId, PullId, RequestId, SlotId, StepId, TokenId,
    WorkerId,
};
pub use plan::{
    BlockCopy, Input, SampleOutcome, SampleRow, ScoreOutcome, ScoreRow, SequenceRows, SlotInit, StepPlan, StepResult,
};
pub use request::{ChoiceState, FinishReason, Request, SampledToken, SamplingParams, Score, Scores, Slo, Structure};
pub use role::Role;
pub use time::{Span, Time};

//! What one worker's scheduler is told at its start; knows no file format.

use crate::handoff::LeaseKey;
use crate::layout::TILE_TOKENS;
use crate::{Role, SchedError, Span};

/// Most steps of a lane that a backend holds at once: one that runs and one that follows it without a gap. A third would
/// start no earlier and would be planned from staler state.
pub const STEPS_IN_FLIGHT_MAX: u32 = 2;

/// Lanes and limits of a replica. Every limit is a bound that is never exceeded.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicaConfig {
    /// Its streams of steps, [`crate::LaneId`] 0 first: one that does both phases, or one for each.
    pub lanes: Vec<LaneConfig>,
    /// Blocks of the KV pool.
    pub blocks_total: u32,
    /// Tokens per block, a multiple of 16.
    pub block_tokens: u32,
    /// Layers of the model.
    pub layers: u32,
    /// Entries of the model's vocabulary; every token of a leg lies below.
    pub vocab: u32,
    /// Longest sequence of prompt and output, in tokens.
    pub context_max: u32,
    /// Sequences that run at once (sampler slots); at most `step_tokens_max` of the lane that decodes.
    pub sequences_max: u32,
    /// Legs that may wait for blocks, slots or their giver, the last at most half of them; more are refused as overload.
    pub queue_legs_max: u32,
    /// Pulls from one giver at a time; the others wait.
    pub pulls_per_giver_max: u32,
    /// Positions of one pull, a multiple of 16; a longer prompt takes several.
    pub pull_tokens_max: u32,
    /// When a prompt is read from its giver.
    pub reading: Reading,
    /// Whether content of earlier requests is reused.
    pub prefix_cache: PrefixCache,
    /// Part of the pool that reservations may hold whose prompt is not complete, tested before the next is added.
    pub filling_share: f32,
    /// How long a worker may stay silent.
    pub lease: LeaseConfig,
    /// Tells models and adapters apart in content hashes.
    pub hash_salt: u64,
    /// Random per process, so that nobody can foresee the id of a lease.
    pub lease_key: LeaseKey,
}

/// What one lane runs, and how much of it at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneConfig {
    /// Which rows its steps have.
    pub work: LaneWork,
    /// Rows of one step.
    pub step_tokens_max: u32,
    /// Layers that one step runs: all of the model's, or fewer, so that its rows take several steps.
    pub step_layers_max: u32,
    /// Steps that the backend holds at once, at most [`STEPS_IN_FLIGHT_MAX`]: with 2 the next one is formed while one
    /// runs.
    pub steps_in_flight: u32,
}

/// Which rows the steps of a lane have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneWork {
    /// Chunks of prompts, up to their first tokens.
    Prefill,
    /// One row per running sequence.
    Decode,
    /// Both in one step; chunks come first, and while prompts wait a small part of a step is left to running sequences.
    PrefillFirst,
    /// Both in one step; running sequences come first, chunks get what they leave.
    DecodeFirst,
}

impl LaneWork {
    /// What the one lane of a worker does.
    #[must_use]
    pub const fn of_role(role: Role) -> LaneWork {
        match role {
            Role::Prefill => LaneWork::PrefillFirst,
            Role::Decode | Role::Aggregated => LaneWork::DecodeFirst,
        }
    }

    /// Whether prompts are computed in such a lane.
    pub(super) const fn prefills(self) -> bool {
        match self {
            LaneWork::Prefill | LaneWork::PrefillFirst | LaneWork::DecodeFirst => true,
            LaneWork::Decode => false,
        }
    }

    /// Whether sequences run on in such a lane.
    pub(super) const fn decodes(self) -> bool {
        match self {
            LaneWork::Decode | LaneWork::PrefillFirst | LaneWork::DecodeFirst => true,
            LaneWork::Prefill => false,
        }
    }
}

/// Both leases: the router's on a leg, and a reader's on a giver's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseConfig {
    /// A lease ends when it was not renewed for this long.
    pub span: Span,
    /// How often leases are renewed.
    pub beat: Span,
}

impl LeaseConfig {
    /// How soon a new lease is renewed for the first time: the router may have held its offer for most of a span. Most
    /// hand-offs are over before, so this costs them no message.
    pub(super) fn first_beat(&self) -> Span {
        Span(self.beat.us() / 50)
    }
}

impl Default for LeaseConfig {
    fn default() -> LeaseConfig {
        LeaseConfig { span: Span::from_secs(30), beat: Span::from_secs(5) }
    }
}

/// When the KV of a prompt is read that another worker computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// All of it, once it is complete.
    WhenComplete,
    /// Whole tiles of finished chunks while others are computed, and of the last chunk one layer after another.
    WhileFilling,
}

/// Whether blocks of ended requests can be found by their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefixCache {
    /// They can.
    On,
    /// Every prompt is computed in full.
    Off,
}

impl ReplicaConfig {
    pub(super) fn validate(&self) -> Result<(), SchedError> {
        let positive: [(&'static str, u32); 9] = [
            ("blocks_total", self.blocks_total),
            ("block_tokens", self.block_tokens),
            ("layers", self.layers),
            ("vocab", self.vocab),
            ("context_max", self.context_max),
            ("sequences_max", self.sequences_max),
            ("queue_legs_max", self.queue_legs_max),
            ("pulls_per_giver_max", self.pulls_per_giver_max),
            ("pull_tokens_max", self.pull_tokens_max),
        ];
        for (field, value) in positive {
            check(field, value, value > 0, "it must be at least 1")?;
        }
        for (field, tokens) in [("block_tokens", self.block_tokens), ("pull_tokens_max", self.pull_tokens_max)] {
            check(field, tokens, tokens.is_multiple_of(TILE_TOKENS), "it must be a multiple of 16")?;
        }
        self.validate_lanes()?;
        let share = self.filling_share;
        check("filling_share", share, share > 0.0 && share <= 1.0, "it must be above 0 and at most 1")?;
        let LeaseConfig { span, beat } = self.lease;
        check("lease.beat", beat, beat > Span::ZERO && beat < span, "it must be above 0 and below lease.span")
    }

    fn validate_lanes(&self) -> Result<(), SchedError> {
        let lanes = |does: fn(LaneWork) -> bool| self.lanes.iter().filter(|lane| does(lane.work)).count();
        let each_once = (lanes(LaneWork::prefills), lanes(LaneWork::decodes)) == (1, 1);
        check("lanes", self.lanes.len(), each_once, "exactly one must prefill and exactly one decode")?;
        for lane in &self.lanes {
            let (rows, layers, steps) = (lane.step_tokens_max, lane.step_layers_max, lane.steps_in_flight);
            let rows_min = if lane.work.decodes() { self.sequences_max } else { 1 };
            check(
                "step_tokens_max",
                rows,
                rows >= rows_min,
                "it must be at least sequences_max where it decodes, and 1",
            )?;
            check("step_layers_max", layers, layers > 0, "it must be at least 1")?;
            check("steps_in_flight", steps, (1..=STEPS_IN_FLIGHT_MAX).contains(&steps), "it must be 1 or 2")?;
        }
        Ok(())
    }

    /// Blocks that unfinished reservations may hold before the next one is added.
    pub(super) fn filling_blocks_max(&self) -> u32 {
        (f64::from(self.filling_share) * f64::from(self.blocks_total)) as u32
    }
}

fn check(
    field: &'static str,
    value: impl std::fmt::Display,
    holds: bool,
    rule: &'static str,
) -> Result<(), SchedError> {
    match holds {
        true => Ok(()),
        false => Err(SchedError::ReplicaConfig { field, value: value.to_string(), rule }),
    }
}

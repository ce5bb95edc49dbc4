//! Configuration of one worker's scheduler; knows no file format.

use crate::error::check;
use crate::handoff::LeaseKey;
use crate::layout::TILE_TOKENS;
use crate::scheduling::Scheduling;
use crate::{Role, SchedError, Span};

/// Most steps of a lane that a backend holds at once: one that runs and one that follows it without a gap. A third
/// would not start earlier and would be planned from staler state.
pub const STEPS_IN_FLIGHT_MAX: u32 = 2;

/// Lanes and limits of a replica. Every limit is a bound that is never exceeded.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicaConfig {
    /// Lanes in order of their [`crate::LaneId`]: one for both phases, or one for each.
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
    /// Legs that may wait for blocks, slots or (at most half of them) their giver; more are refused as overload.
    pub queue_legs_max: u32,
    /// Pulls from one giver at a time; the others wait.
    pub pulls_per_giver_max: u32,
    /// Positions of one pull, a multiple of 16; a longer prompt takes several.
    pub pull_tokens_max: u32,
    /// When a reader pulls a prompt's KV from its giver.
    pub reading: Reading,
    /// Reuse of KV that earlier requests computed.
    pub prefix_cache: PrefixCache,
    /// Part of the pool that reservations with an incomplete prompt may hold, tested before the next is added.
    pub filling_share: f32,
    /// Orders, admission and the budget of a step.
    pub scheduling: Scheduling,
    /// Span of leases and how often they are renewed.
    pub lease: LeaseConfig,
    /// Salt that keeps the content hashes of different models and adapters apart.
    pub hash_salt: u64,
    /// Random key per process, so that nobody can foresee the id of a lease.
    pub lease_key: LeaseKey,
}

/// Work of one lane, and how much of it fits into a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneConfig {
    /// Kinds of rows in its steps.
    pub work: LaneWork,
    /// Most rows of one step.
    pub step_tokens_max: u32,
    /// Most layers that one step runs; with fewer than the model has, rows take several steps.
    pub step_layers_max: u32,
    /// Steps that the backend holds at once, at most [`STEPS_IN_FLIGHT_MAX`]; with 2, one is formed while another runs.
    pub steps_in_flight: u32,
}

/// Kinds of rows in the steps of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneWork {
    /// Chunks of prompts, up to their first tokens.
    Prefill,
    /// One row per running sequence.
    Decode,
    /// Both in one step; chunks come first, and while prompts wait running sequences get a small part of the rows.
    PrefillFirst,
    /// Both in one step; running sequences come first, chunks get the rows that are left.
    DecodeFirst,
}

impl LaneWork {
    /// Work of each lane of a worker, in order of their [`crate::LaneId`].
    #[must_use]
    pub const fn of_role(role: Role) -> &'static [LaneWork] {
        match role {
            Role::Prefill => &[LaneWork::PrefillFirst],
            Role::Decode | Role::Aggregated => &[LaneWork::DecodeFirst],
            Role::Colocated => &[LaneWork::Prefill, LaneWork::Decode],
        }
    }

    pub(super) const fn prefills(self) -> bool {
        match self {
            LaneWork::Prefill | LaneWork::PrefillFirst | LaneWork::DecodeFirst => true,
            LaneWork::Decode => false,
        }
    }

    pub(super) const fn decodes(self) -> bool {
        match self {
            LaneWork::Decode | LaneWork::PrefillFirst | LaneWork::DecodeFirst => true,
            LaneWork::Prefill => false,
        }
    }
}

/// Timing of both leases: the router's on a leg, and a reader's on a giver's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseConfig {
    /// Time after which a lease that was not renewed ends.
    pub span: Span,
    /// Interval at which leases are renewed.
    pub beat: Span,
}

impl LeaseConfig {
    /// Delay before a new lease is renewed for the first time. It is short because the router may have held the offer
    /// for most of a span. Most hand-offs end sooner, so this costs them no message.
    pub(super) fn first_beat(&self) -> Span {
        Span(self.beat.us() / 50)
    }
}

impl Default for LeaseConfig {
    fn default() -> LeaseConfig {
        LeaseConfig { span: Span::from_secs(30), beat: Span::from_secs(5) }
    }
}

/// When a reader pulls the KV of a prompt from its giver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// All of it, once the prompt is complete.
    WhenComplete,
    /// Whole tiles of finished chunks while later ones are computed, and the last chunk layer by layer.
    WhileFilling,
}

/// Reuse of blocks of ended requests, found by their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefixCache {
    /// Prompts start from the blocks that are found.
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
        self.scheduling.check()?;
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

    pub(super) fn filling_blocks_max(&self) -> u32 {
        (f64::from(self.filling_share) * f64::from(self.blocks_total)) as u32
    }
}

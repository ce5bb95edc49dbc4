//! Events that go into a share controller and decisions that come out of it.

use super::{Split, WindowReport};
use crate::cost::StepWork;
use crate::slo::Judgement;
use crate::{Slo, Span, Time};

/// One fact for a share controller. Latencies are the worker's: from the arrival of a leg there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// A request has come.
    Arrived,
    /// A request has got its first token.
    FirstToken {
        /// Targets of the request.
        slo: Slo,
        /// From its arrival until now.
        ttft: Span,
    },
    /// A request has got further tokens: sent when it ends, and every so many tokens of a long one.
    Decoded {
        /// Targets of the request.
        slo: Slo,
        /// Tokens since its first one, or since the last such event.
        tokens: u32,
        /// Mean gap before each of them; the last has come now.
        tpot: Span,
    },
    /// A request has ended, for better or worse.
    Finished(Judgement),
    /// A lane's step has ended.
    StepDone {
        /// Work of the step; tells the lane.
        work: StepWork,
        /// From its start until now.
        span: Span,
        /// Part of it, in [0, 1], during which the other lane ran steps too.
        beside: f64,
    },
    /// State of the worker. The newest counts; it should be told before a decision is due.
    State(WorkerState),
    /// From now on this split holds, whatever the policy would decide.
    Pin(Split),
    /// The policy decides again.
    Release,
    /// Time has passed.
    Tick,
}

/// What a controller has to know of its worker beside latencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorkerState {
    /// KV blocks in use.
    pub blocks_in_use: u32,
    /// Blocks of the pool.
    pub blocks_total: u32,
    /// The request that has waited longest for its first token.
    pub oldest_waiting: Option<Waiting>,
    /// The strictest target of TPOT among the requests that it serves.
    pub strictest_tpot: Option<Span>,
}

/// Request without a first token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Targets of the request.
    pub slo: Slo,
    /// Its arrival.
    pub since: Time,
}

/// What a controller has decided, and why. Most decisions leave the split as it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    /// When it was made.
    pub at: Time,
    /// Why.
    pub reason: Reason,
    /// The split until now.
    pub before: Split,
    /// The split that was wanted.
    pub wanted: Split,
    /// The split from now on: what the device can express of the wanted one.
    pub split: Split,
    /// Latencies until now: of the window with `feedback`, of mean steps with `predictive`.
    pub measured: Latencies,
    /// The same latencies as the decision before had predicted them.
    pub predicted_before: Latencies,
    /// The same latencies as they are expected from now on.
    pub predicted: Latencies,
    /// Predictions that the search took.
    pub model_calls: u32,
    /// The window that has ended with this decision.
    pub window: Option<WindowReport>,
}

/// A latency of each lane; `None` if it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latencies {
    /// TTFT, or the time of a prefill step.
    pub prefill: Option<Span>,
    /// TPOT, or the time of a decode step.
    pub decode: Option<Span>,
}

/// Reason of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The configuration says so.
    Configured,
    /// An operator says so.
    Pinned,
    /// An operator has let go.
    Released,
    /// Every latency that is known is within its target.
    TargetsMet,
    /// First tokens were late: prefill gets more.
    SloMissedPrefill,
    /// Tokens were slow: decode gets more.
    SloMissedDecode,
    /// No share meets both targets, as far as is known.
    Infeasible,
    /// Predictions have changed: prefill is favoured, as far as decode allows.
    Rebalanced,
    /// The KV pool is nearly full: decode is favoured, so that requests end.
    KvPressure,
    /// The other lane is slower than it may be, but a move by so little is not made.
    HeldByHysteresis,
    /// The present share is the best one, or so near to it that the favoured lane would gain too little.
    Balanced,
    /// Too few requests or steps were seen.
    TooFewSamples,
}

impl Decision {
    /// The split with which a controller begins.
    pub(super) fn first(at: Time, wanted: Split, split: Split) -> Decision {
        let none = Latencies::default();
        let (measured, predicted_before, predicted, model_calls) = (none, none, none, 0);
        let (reason, before, window) = (Reason::Configured, split, None);
        Decision { at, reason, before, wanted, split, measured, predicted_before, predicted, model_calls, window }
    }

    /// True if the split changes.
    #[must_use]
    pub fn switches(&self) -> bool {
        self.split != self.before
    }
}

impl Reason {
    /// Every reason, for metrics and tests.
    pub const ALL: [Reason; 12] = [
        Reason::Configured,
        Reason::Pinned,
        Reason::Released,
        Reason::TargetsMet,
        Reason::SloMissedPrefill,
        Reason::SloMissedDecode,
        Reason::Infeasible,
        Reason::Rebalanced,
        Reason::KvPressure,
        Reason::HeldByHysteresis,
        Reason::Balanced,
        Reason::TooFewSamples,
    ];

    /// Metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Reason::Configured => "configured",
            Reason::Pinned => "pinned",
            Reason::Released => "released",
            Reason::TargetsMet => "targets_met",
            Reason::SloMissedPrefill => "slo_missed_prefill",
            Reason::SloMissedDecode => "slo_missed_decode",
            Reason::Infeasible => "infeasible",
            Reason::Rebalanced => "rebalanced",
            Reason::KvPressure => "kv_pressure",
            Reason::HeldByHysteresis => "held_by_hysteresis",
            Reason::Balanced => "balanced",
            Reason::TooFewSamples => "too_few_samples",
        }
    }
}

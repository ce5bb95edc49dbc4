//! Schedulers of the two phases, as data: orders, admission and the budget of a step; knows no block, slot or lane.
//!
//! The default is first come, first served with a constant budget. Everything else is a choice, made once per worker.

mod admission;
mod config;
mod mlfq;
mod order;
mod output_lengths;
mod peak;

pub use admission::{Admission, PastFuture};
pub use config::{AdmissionChoice, BudgetChoice, DecodeChoice, PrefillChoice, SchedulingConfig, SchedulingError};
pub use mlfq::{Mlfq, MlfqConfig};
pub use order::{AGEING_TOKENS_PER_S, PrefillOrder, Rank, Waiting};
pub use output_lengths::OutputLengths;
pub use peak::{Future, peak_blocks};

use crate::SchedError;
use crate::cost::{CostError, Latency, StepBudget};
use crate::error::check;

/// What one worker does when there is more to do than fits.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Scheduling {
    /// Order in which prompts are admitted and computed.
    pub prefill: PrefillOrder,
    /// Order in which running sequences get their next tokens.
    pub decode: DecodeOrder,
    /// Whom the KV pool takes in.
    pub admission: Admission,
    /// How much of prompts a step takes on.
    pub budget: StepBudget,
}

/// Order in which running sequences get their next tokens.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum DecodeOrder {
    /// All of them in every step; where rows are too few they take turns.
    #[default]
    Fcfs,
    /// Those that have had little time come first.
    Mlfq(MlfqConfig),
}

impl Scheduling {
    /// True if one of the choices needs the latency model that the worker learns.
    #[must_use]
    pub fn learns(&self) -> bool {
        let prefill = match self.prefill {
            PrefillOrder::Fcfs | PrefillOrder::ShortestFirst { .. } => false,
            PrefillOrder::SlackFirst(latency) => latency.is_learned(),
        };
        let decode = match self.decode {
            DecodeOrder::Fcfs => false,
            DecodeOrder::Mlfq(config) => config.latency.is_learned(),
        };
        let budget = match self.budget {
            StepBudget::Constant => false,
            StepBudget::Auto(latency) => latency.is_learned(),
        };
        prefill || decode || budget
    }

    /// Checks every number; the error names the first that makes no sense.
    pub fn check(&self) -> Result<(), SchedError> {
        match self.prefill {
            PrefillOrder::Fcfs => {}
            PrefillOrder::ShortestFirst { ageing_tokens_per_s: ageing } => {
                check("ageing_tokens_per_s", ageing, ageing.is_finite() && ageing >= 0.0, "it must be 0 or more")?;
            }
            PrefillOrder::SlackFirst(latency) => check_latency(latency)?,
        }
        match self.decode {
            DecodeOrder::Fcfs => {}
            DecodeOrder::Mlfq(config) => {
                check("batch_max", config.batch_max, config.batch_max > 0, "it must be at least 1")?;
                check("quantum", config.quantum, config.quantum.us() > 0, "it must be above 0")?;
                check_latency(config.latency)?;
            }
        }
        match self.admission {
            Admission::Aggressive | Admission::Conservative => {}
            Admission::PastFuture(PastFuture { window, lists_max, reserve }) => {
                check("window", window, window > 0, "it must be at least 1")?;
                check("lists_max", lists_max, lists_max > 0, "it must be at least 1")?;
                check("reserve", reserve, (0.0..1.0).contains(&reserve), "it must lie in [0, 1)")?;
            }
        }
        match self.budget {
            StepBudget::Constant => Ok(()),
            StepBudget::Auto(latency) => check_latency(latency),
        }
    }
}

fn check_latency(latency: Latency) -> Result<(), SchedError> {
    let wrong = |CostError { name, value, must }| SchedError::ReplicaConfig {
        field: name,
        value: value.to_string(),
        rule: must,
    };
    latency.check().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Fitted;

    #[test]
    fn a_number_that_makes_no_sense_is_named() {
        let plain = Scheduling::default();
        let named = |scheduling: Scheduling| match scheduling.check() {
            Ok(()) => "",
            Err(SchedError::ReplicaConfig { field, .. }) => field,
        };
        let mut free = Fitted::example();
        free.decode.step_us = 0.0;
        let mlfq = |change: fn(&mut MlfqConfig)| {
            let mut config = MlfqConfig::published(16, Fitted::example());
            change(&mut config);
            Scheduling { decode: DecodeOrder::Mlfq(config), ..plain }
        };
        let past_future = |change: fn(&mut PastFuture)| {
            let mut config = PastFuture::default();
            change(&mut config);
            Scheduling { admission: Admission::PastFuture(config), ..plain }
        };
        let shortest =
            |ageing_tokens_per_s| Scheduling { prefill: PrefillOrder::ShortestFirst { ageing_tokens_per_s }, ..plain };
        assert_eq!(named(plain), "");
        assert_eq!(named(shortest(AGEING_TOKENS_PER_S)), "");
        assert_eq!(named(shortest(-1.0)), "ageing_tokens_per_s");
        assert_eq!(named(shortest(f64::NAN)), "ageing_tokens_per_s");
        assert_eq!(named(Scheduling { prefill: PrefillOrder::SlackFirst(free.into()), ..plain }), "decode.step_us");
        assert_eq!(named(mlfq(|_| {})), "");
        assert_eq!(named(mlfq(|config| config.batch_max = 0)), "batch_max");
        assert_eq!(named(mlfq(|config| config.quantum = crate::Span::ZERO)), "quantum");
        assert_eq!(named(past_future(|_| {})), "");
        assert_eq!(named(past_future(|config| config.window = 0)), "window");
        assert_eq!(named(past_future(|config| config.lists_max = 0)), "lists_max");
        assert_eq!(named(past_future(|config| config.reserve = 1.0)), "reserve");
        assert_eq!(named(Scheduling { budget: StepBudget::Auto(free.into()), ..plain }), "decode.step_us");
    }
}

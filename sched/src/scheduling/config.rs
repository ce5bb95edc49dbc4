//! Configuration of the phase schedulers of a worker; knows no file format.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{AGEING_TOKENS_PER_S, Admission, DecodeOrder, MlfqConfig, PastFuture, PrefillOrder, Scheduling};
use crate::cost::{Latency, StepBudget};

/// Choices of a worker that has more to do than fits. Whatever needs a latency model learns it from the worker's steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchedulingConfig {
    /// Order of prompts: `fcfs`, `shortest` (first, with ageing) or `slack` (least first, by the TTFT targets).
    pub prefill_order: PrefillChoice,
    /// Order of running sequences: `fcfs` (all in every step) or `mlfq` (those that have had little time come first).
    pub decode_order: DecodeChoice,
    /// Most sequences that get a token in one step with `mlfq`.
    pub mlfq_batch_max: u32,
    /// Whom the KV pool takes in: `aggressive` (who fits now), `conservative` (who fits if every answer gets as long as
    /// it may) or `past_future` (who fits at the peak that past answers let expect).
    pub admission: AdmissionChoice,
    /// How much of prompts a step takes on: `constant` (as many tokens as there are rows) or `auto` (as many as the
    /// running requests' TPOT targets allow).
    pub step_budget: BudgetChoice,
}

/// Order in which prompts are admitted and computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrefillChoice {
    /// First come, first served.
    Fcfs,
    /// Shortest prompt first with ageing.
    Shortest,
    /// Least slack first.
    Slack,
}

/// Order in which running sequences get their next tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecodeChoice {
    /// All of them in every step.
    Fcfs,
    /// Skip-join multi-level feedback queue.
    Mlfq,
}

/// Rule by which newcomers are admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdmissionChoice {
    /// Whoever fits now.
    Aggressive,
    /// Whoever fits if every answer gets as long as it may.
    Conservative,
    /// Whoever fits at the predicted peak.
    PastFuture,
}

/// Prompt tokens of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetChoice {
    /// As many as there are rows.
    Constant,
    /// As many as the targets allow.
    Auto,
}

/// Value that the schedulers cannot work with.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{key} {problem}")]
pub struct SchedulingError {
    /// The key, below the section of the engine.
    pub key: &'static str,
    /// Problem of its value.
    pub problem: String,
}

impl Default for SchedulingConfig {
    /// First come, first served, in steps that keep targets. The batch is that of FastServe's published artifact.
    fn default() -> SchedulingConfig {
        SchedulingConfig {
            prefill_order: PrefillChoice::Fcfs,
            decode_order: DecodeChoice::Fcfs,
            mlfq_batch_max: 16,
            admission: AdmissionChoice::Aggressive,
            step_budget: BudgetChoice::Auto,
        }
    }
}

impl SchedulingConfig {
    /// Checks the choices for a worker that runs at most `sequences_max` sequences.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn check(&self, sequences_max: u32) -> Result<(), SchedulingError> {
        let batch = self.mlfq_batch_max;
        let wrong = |problem| Err(SchedulingError { key: "scheduling.mlfq_batch_max", problem });
        match self.decode_order {
            _ if batch == 0 => wrong("must be at least 1, found 0".to_owned()),
            DecodeChoice::Mlfq if batch >= sequences_max => wrong(format!(
                "is {batch}, but decode_order = \"mlfq\" orders nothing unless it is below sequences_max {sequences_max}"
            )),
            DecodeChoice::Fcfs | DecodeChoice::Mlfq => Ok(()),
        }
    }

    /// The choices, with the published constants.
    #[must_use]
    pub fn scheduling(&self) -> Scheduling {
        Scheduling {
            prefill: match self.prefill_order {
                PrefillChoice::Fcfs => PrefillOrder::Fcfs,
                PrefillChoice::Shortest => PrefillOrder::ShortestFirst { ageing_tokens_per_s: AGEING_TOKENS_PER_S },
                PrefillChoice::Slack => PrefillOrder::SlackFirst(Latency::Learned),
            },
            decode: match self.decode_order {
                DecodeChoice::Fcfs => DecodeOrder::Fcfs,
                DecodeChoice::Mlfq => DecodeOrder::Mlfq(MlfqConfig::published(self.mlfq_batch_max, Latency::Learned)),
            },
            admission: match self.admission {
                AdmissionChoice::Aggressive => Admission::Aggressive,
                AdmissionChoice::Conservative => Admission::Conservative,
                AdmissionChoice::PastFuture => Admission::PastFuture(PastFuture::default()),
            },
            budget: match self.step_budget {
                BudgetChoice::Constant => StepBudget::Constant,
                BudgetChoice::Auto => StepBudget::Auto(Latency::Learned),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Scheduling {
        toml::from_str::<SchedulingConfig>(text).unwrap().scheduling()
    }

    #[test]
    fn each_word_makes_its_choice() {
        let plain = Scheduling { budget: StepBudget::Auto(Latency::Learned), ..Scheduling::default() };
        assert_eq!(of(""), plain);
        assert_eq!(SchedulingConfig::default().scheduling(), plain);
        let fcfs = "prefill_order = \"fcfs\"\ndecode_order = \"fcfs\"\nadmission = \"aggressive\"\n";
        assert_eq!(of(&format!("{fcfs}step_budget = \"auto\"")), plain);
        assert_eq!(of("step_budget = \"constant\""), Scheduling::default());
        let shortest = PrefillOrder::ShortestFirst { ageing_tokens_per_s: AGEING_TOKENS_PER_S };
        assert_eq!(of("prefill_order = \"shortest\""), Scheduling { prefill: shortest, ..plain });
        let slack = PrefillOrder::SlackFirst(Latency::Learned);
        assert_eq!(of("prefill_order = \"slack\""), Scheduling { prefill: slack, ..plain });
        let mlfq = DecodeOrder::Mlfq(MlfqConfig::published(4, Latency::Learned));
        assert_eq!(of("decode_order = \"mlfq\"\nmlfq_batch_max = 4"), Scheduling { decode: mlfq, ..plain });
        let admission = |admission| Scheduling { admission, ..plain };
        assert_eq!(of("admission = \"conservative\""), admission(Admission::Conservative));
        assert_eq!(of("admission = \"past_future\""), admission(Admission::PastFuture(PastFuture::default())));
    }

    #[test]
    fn only_choices_that_need_a_model_learn_one() {
        let of = |text| of(&format!("{text}\nstep_budget = \"constant\""));
        let learns = |text| (of(text).check().is_ok(), of(text).learns());
        for text in ["", "prefill_order = \"shortest\"", "admission = \"past_future\""] {
            assert_eq!(learns(text), (true, false), "{text}");
        }
        for text in ["prefill_order = \"slack\"", "decode_order = \"mlfq\""] {
            assert_eq!(learns(text), (true, true), "{text}");
        }
        assert!(SchedulingConfig::default().scheduling().learns());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |config: SchedulingConfig| config.check(16).unwrap_err().to_string();
        let plain = SchedulingConfig::default();
        assert_eq!(plain.check(16), Ok(()), "nobody asks for the queue");
        assert_eq!(
            refused(SchedulingConfig { decode_order: DecodeChoice::Mlfq, ..plain.clone() }),
            "scheduling.mlfq_batch_max is 16, but decode_order = \"mlfq\" orders nothing unless it is below sequences_max 16"
        );
        let none = SchedulingConfig { mlfq_batch_max: 0, ..plain };
        assert_eq!(refused(none), "scheduling.mlfq_batch_max must be at least 1, found 0");
        let unknown = toml::from_str::<SchedulingConfig>("prefill_order = \"lifo\"").unwrap_err().to_string();
        assert!(unknown.contains("expected one of `fcfs`, `shortest`, `slack`"), "{unknown}");
    }
}

//! Log-probabilities under the raw distribution of one row of logits; knows no penalty and no temperature.

use sched::TokenId;

use super::elementary::{exp, ln};
use super::order::{most_likely, sum_in_lanes};

/// Normaliser of one row: log-probability = logit - maximum - ln(sum of exp(logit - maximum)).
#[derive(Debug, Clone, Copy)]
pub(super) struct LogSoftmax {
    maximum: f32,
    log_sum: f64,
}

impl LogSoftmax {
    /// Reads a row whose largest value is `maximum`. The sum always runs in 16 interleaved lanes of f64.
    pub(super) fn of(logits: &[f32], maximum: f32) -> LogSoftmax {
        LogSoftmax { maximum, log_sum: ln(sum_in_lanes(logits, |logit| exp(logit - maximum))) }
    }

    pub(super) fn of_logit(self, logit: f32) -> f32 {
        (f64::from(logit) - f64::from(self.maximum) - self.log_sum) as f32
    }

    /// Returns the `count` most likely tokens, most likely first, ties by lower id.
    pub(super) fn top(self, logits: &[f32], count: usize, scratch: &mut Vec<u64>) -> Vec<(TokenId, f32)> {
        let entries = most_likely(logits, count, scratch);
        entries.iter().map(|entry| (TokenId(entry.token()), self.of_logit(logits[entry.index()]))).collect()
    }
}

//! Perplexity, KL divergence and agreement of two rows of predictions; knows no engine.
//!
//! Tokens that both predictions report are compared one by one, all others together as one event. This gives a lower
//! bound of the full divergence (merging never increases it), and a tight one: the others are not among the 255
//! likeliest.

use std::collections::BTreeMap;

use crate::scorer::Prediction;

/// Rounding of reported log-probabilities can leave a negative rest for the other tokens.
const REST_MIN: f64 = 1e-9;

/// Comparison of two engines' predictions of the same text.
pub(crate) struct Tally {
    pub(crate) reference_perplexity: f64,
    pub(crate) perplexity: f64,
    /// Mean divergence in nats per token, from the reference.
    pub(crate) kl_mean: f64,
    pub(crate) kl_max: f64,
    /// Share of the positions where both find the same token likeliest.
    pub(crate) same_likeliest: f64,
}

impl Tally {
    pub(crate) fn of(reference: &[Prediction], other: &[Prediction]) -> Tally {
        let count = reference.len().max(1) as f64;
        let perplexity = |all: &[Prediction]| (-all.iter().map(|at| at.logprob).sum::<f64>() / count).exp();
        let divergences: Vec<f64> = reference.iter().zip(other).map(|(p, q)| divergence(p, q)).collect();
        let likeliest = |at: &Prediction| at.top.first().map(|(token, _)| *token);
        let same = reference.iter().zip(other).filter(|(p, q)| likeliest(p) == likeliest(q)).count();
        Tally {
            reference_perplexity: perplexity(reference),
            perplexity: perplexity(other),
            kl_mean: divergences.iter().sum::<f64>() / count,
            kl_max: divergences.iter().copied().fold(0.0, f64::max),
            same_likeliest: same as f64 / count,
        }
    }
}

/// KL(p || q) in nats.
fn divergence(p: &Prediction, q: &Prediction) -> f64 {
    let q_of: BTreeMap<u32, f64> = q.top.iter().copied().collect();
    let (mut sum, mut p_rest, mut q_rest) = (0.0, 1.0, 1.0);
    for (token, p_log) in &p.top {
        if let Some(q_log) = q_of.get(token) {
            sum += p_log.exp() * (p_log - q_log);
            p_rest -= p_log.exp();
            q_rest -= q_log.exp();
        }
    }
    let (p_rest, q_rest) = (p_rest.max(REST_MIN), q_rest.max(REST_MIN));
    (sum + p_rest * (p_rest / q_rest).ln()).max(0.0)
}

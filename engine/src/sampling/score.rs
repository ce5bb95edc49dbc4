//! Log-probability and rank of a known token in one row of logits; knows no sequence.

use sched::{Score, ScoreOutcome, TokenId};

use super::draw::Scratch;
use super::logprob::LogSoftmax;
use super::{broken_model, order};

/// Scores `token` under the raw distribution of `logits`.
pub(super) fn score(logits: &[f32], token: TokenId, top: u8, scratch: &mut Scratch) -> ScoreOutcome {
    let maximum = order::maximum(logits).map_err(|problem| broken_model(&problem))?;
    let Some(logit) = logits.get(token.0 as usize).copied() else {
        return Err(broken_model(&format!("there are {} of them and none for token {}", logits.len(), token.0)));
    };
    let distribution = LogSoftmax::of(logits, maximum);
    let rank = logits.iter().filter(|other| **other >= logit).count();
    let top = match top {
        0 => Vec::new(),
        count => distribution.top(logits, usize::from(count), &mut scratch.entries),
    };
    Ok(Score { logprob: distribution.of_logit(logit), rank: u32::try_from(rank).unwrap_or(u32::MAX), top })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rank_counts_all_that_are_as_likely() {
        let logits = [1.0, 3.0, 2.0, 2.0, -1.0];
        let scored = |token, top| score(&logits, TokenId(token), top, &mut Scratch::default()).unwrap();
        let ranks: Vec<u32> = (0..5).map(|token| scored(token, 0).rank).collect();
        assert_eq!(ranks, [4, 1, 3, 3, 5]);
        let total: f32 = (0..5).map(|token| scored(token, 0).logprob.exp()).sum();
        assert!((total - 1.0).abs() < 1e-6, "{total}");
        let top = scored(4, 2).top;
        assert_eq!(top, [(TokenId(1), scored(1, 0).logprob), (TokenId(2), scored(2, 0).logprob)]);
    }

    #[test]
    fn a_row_that_is_damaged_has_no_score() {
        let mut scratch = Scratch::default();
        assert!(score(&[1.0, f32::NAN], TokenId(0), 0, &mut scratch).is_err());
        assert!(score(&[1.0, 2.0], TokenId(2), 0, &mut scratch).is_err());
    }
}

//! Order among prompts that wait to be admitted or computed; knows nothing of batches.

use std::ops::Range;

use crate::cost::{CostModel, Fitted, Latency, StepWork};
use crate::{Span, Time};

/// γ of Nexus' prefill scheduler. The text names no unit; we count in tokens per second of age, the slowest ageing that
/// it can mean.
pub const AGEING_TOKENS_PER_S: f64 = 15.0;

/// Order in which prompts are admitted and computed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum PrefillOrder {
    /// First come, first served.
    #[default]
    Fcfs,
    /// Shortest prompt first with ageing: least (tokens left − γ·age) first (Nexus, arXiv 2507.06608, "phase-specific
    /// schedulers": SPF). A prompt of n tokens is overtaken by nobody who arrives more than n/γ seconds after it.
    ShortestFirst {
        /// γ: tokens that a prompt gains on younger ones per second.
        ageing_tokens_per_s: f64,
    },
    /// Least slack first: time to the TTFT target (to the deadline, without one) less the time that the rest of the
    /// prompt takes alone, by this latency model; first come, first served until it is known. The target counts from the arrival at this worker. Late prompts come
    /// first, the latest before the others, so under overload this is first come, first served per class; to drop what
    /// comes too late is the affair of admission.
    SlackFirst(Latency),
}

/// A prompt, as far as an order looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Time of its arrival here.
    pub arrived: Time,
    /// Time by which its first token is due.
    pub due: Time,
    /// Positions that are to be computed; none if they come from elsewhere.
    pub positions: Range<u32>,
}

/// Place in an order: the least comes first, equal ones in order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(i64);

impl PrefillOrder {
    /// Rank of a prompt now, with the latency model that the worker has learnt so far. Ranks of different moments are
    /// not comparable.
    #[must_use]
    pub fn rank(&self, now: Time, prompt: &Waiting, learned: Option<Fitted>) -> Rank {
        match self {
            PrefillOrder::Fcfs => Rank(0),
            PrefillOrder::ShortestFirst { ageing_tokens_per_s } => {
                // In millionths of tokens, so that microseconds of age count; the cast saturates.
                let left = f64::from(prompt.positions.end.saturating_sub(prompt.positions.start)) * 1e6;
                Rank((left - ageing_tokens_per_s * now.since(prompt.arrived).us() as f64) as i64)
            }
            PrefillOrder::SlackFirst(latency) => {
                let Some(latency) = latency.model(learned) else { return Rank(0) };
                let rest = match prompt.positions.is_empty() {
                    true => Span::ZERO,
                    false => latency.span_alone(&StepWork::default().with_chunk(prompt.positions.clone())),
                };
                let signed = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
                Rank(signed(prompt.due.us()).saturating_sub(signed(now.us())).saturating_sub(signed(rest.us())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prompt(arrived_ms: u64, due_ms: u64, tokens: u32) -> Waiting {
        let at = |ms| Time(0) + Span::from_ms(ms);
        Waiting { arrived: at(arrived_ms), due: at(due_ms), positions: 0..tokens }
    }

    /// Indices of prompts in the order in which they would be computed.
    fn sorted(order: PrefillOrder, now_ms: u64, prompts: &[Waiting]) -> Vec<usize> {
        let mut indices: Vec<usize> = (0..prompts.len()).collect();
        indices.sort_by_key(|index| (order.rank(Time(0) + Span::from_ms(now_ms), &prompts[*index], None), *index));
        indices
    }

    fn shortest() -> PrefillOrder {
        PrefillOrder::ShortestFirst { ageing_tokens_per_s: AGEING_TOKENS_PER_S }
    }

    #[test]
    fn each_order_sorts_by_its_own_measure() {
        let prompts = [prompt(0, 900, 500), prompt(10, 5_000, 50), prompt(20, 300, 100)];
        assert_eq!(sorted(PrefillOrder::Fcfs, 30, &prompts), [0, 1, 2]);
        assert_eq!(sorted(shortest(), 30, &prompts), [1, 2, 0]);
        // The example takes about 42 us per token: what is due first comes first, unless it is much shorter.
        assert_eq!(sorted(PrefillOrder::SlackFirst(Fitted::example().into()), 30, &prompts), [2, 0, 1]);
        let later = [prompt(0, 1_000, 100), prompt(10, 1_050, 10_000)];
        assert_eq!(
            sorted(PrefillOrder::SlackFirst(Fitted::example().into()), 30, &later),
            [1, 0],
            "the long one must begin"
        );
    }

    #[test]
    fn slack_is_unknown_until_a_model_is() {
        let (prompt, order) = (prompt(0, 900, 500), PrefillOrder::SlackFirst(Latency::Learned));
        assert_eq!(order.rank(Time(0), &prompt, None), PrefillOrder::Fcfs.rank(Time(0), &prompt, None));
        let given = PrefillOrder::SlackFirst(Fitted::example().into()).rank(Time(0), &prompt, None);
        assert_eq!(order.rank(Time(0), &prompt, Some(Fitted::example())), given);
    }

    #[test]
    fn what_is_computed_already_does_not_count() {
        let begun = Waiting { positions: 480..500, ..prompt(10, 900, 500) };
        assert_eq!(sorted(shortest(), 30, &[prompt(0, 900, 100), begun]), [1, 0]);
    }

    #[test]
    fn who_is_late_comes_before_whoever_is_not() {
        let prompts = [prompt(500, 1_500, 100), prompt(0, 400, 100), prompt(100, 450, 100)];
        assert_eq!(sorted(PrefillOrder::SlackFirst(Fitted::example().into()), 600, &prompts), [1, 2, 0]);
    }

    proptest! {
        #[test]
        fn nobody_overtakes_a_prompt_that_has_waited_long_enough(
            tokens in 1_u32..100_000, newcomer in 1_u32..100_000, arrived_ms in 0_u64..1_000, later_ms in 0_u64..60_000,
        ) {
            let patience_ms = (f64::from(tokens) / AGEING_TOKENS_PER_S * 1e3).ceil() as u64;
            let arrives_ms = arrived_ms + patience_ms + later_ms;
            let prompts = [prompt(arrived_ms, 0, tokens), prompt(arrives_ms, 0, newcomer)];
            prop_assert_eq!(sorted(shortest(), arrives_ms, &prompts), [0, 1]);
            prop_assert_eq!(sorted(shortest(), arrives_ms + later_ms, &prompts), [0, 1]);
        }

        #[test]
        fn of_equal_ages_the_shorter_is_first(tokens in proptest::collection::vec(1_u32..10_000, 1..20), now in 0_u64..9_000) {
            let prompts: Vec<_> = tokens.iter().map(|tokens| prompt(0, 0, *tokens)).collect();
            let in_order: Vec<u32> = sorted(shortest(), now, &prompts).into_iter().map(|index| tokens[index]).collect();
            prop_assert!(in_order.is_sorted());
        }

        #[test]
        fn of_equal_lengths_the_one_that_is_due_first_is_first(
            due in proptest::collection::vec(1_u64..10_000, 1..20), now in 0_u64..9_000,
        ) {
            let prompts: Vec<_> = due.iter().map(|due| prompt(0, *due, 100)).collect();
            let order = PrefillOrder::SlackFirst(Fitted::example().into());
            let in_order: Vec<u64> = sorted(order, now, &prompts).into_iter().map(|index| due[index]).collect();
            prop_assert!(in_order.is_sorted());
        }
    }
}

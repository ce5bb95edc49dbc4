//! Requests and their times of arrival; knows no worker.

use std::ops::RangeInclusive;
use std::sync::Arc;

use sched::{SamplingParams, Slo, Time, TokenId, rng};

/// A request of a workload.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Time of its first byte.
    pub at: Time,
    /// Prompt tokens.
    pub prompt: Arc<[TokenId]>,
    /// Number of choices, `n`.
    pub choices: u32,
    /// Sampling parameters.
    pub params: Arc<SamplingParams>,
    /// Targets of the request.
    pub slo: Slo,
}

/// Independent arrivals at a constant mean rate, lengths uniform in their ranges.
#[derive(Debug, Clone, PartialEq)]
pub struct Poisson {
    /// Seed, which tells apart workloads of the same kind.
    pub seed: u64,
    /// Mean requests per second.
    pub rate_per_second: f64,
    /// Number of requests.
    pub requests: u32,
    /// Range of prompt lengths, in tokens.
    pub prompt_tokens: RangeInclusive<u32>,
    /// Range of output lengths, in tokens; every request runs to its limit.
    pub output_tokens: RangeInclusive<u32>,
    /// Range of choices per request.
    pub choices: RangeInclusive<u32>,
    /// Targets of every request.
    pub slo: Slo,
}

/// Purpose of a random number, so that no two decisions share one.
#[derive(Clone, Copy)]
enum Draw {
    Gap,
    Prompt,
    Output,
    Choices,
}

impl Poisson {
    /// The arrivals in order of time.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        let mut at = 0.0;
        (0..u64::from(self.requests))
            .map(|index| {
                at += -(1.0 - self.uniform(index, Draw::Gap)).ln() / self.rate_per_second * 1e6;
                self.arrival(index, Time(at as u64))
            })
            .collect()
    }

    fn arrival(&self, index: u64, at: Time) -> Arrival {
        let seed = rng::token_hash(self.seed, index);
        let prompt_tokens = u64::from(self.between(index, Draw::Prompt, &self.prompt_tokens));
        let prompt = (0..prompt_tokens).map(|position| TokenId(rng::token_hash(!seed, position) as u32 >> 12));
        let max_tokens = self.between(index, Draw::Output, &self.output_tokens);
        Arrival {
            at,
            prompt: prompt.collect(),
            choices: self.between(index, Draw::Choices, &self.choices),
            params: Arc::new(SamplingParams { max_tokens, seed, ..SamplingParams::default() }),
            slo: self.slo,
        }
    }

    fn between(&self, index: u64, draw: Draw, range: &RangeInclusive<u32>) -> u32 {
        let width = f64::from(range.end().saturating_sub(*range.start())) + 1.0;
        range.start() + (self.uniform(index, draw) * width) as u32
    }

    fn uniform(&self, index: u64, draw: Draw) -> f64 {
        rng::uniform_f64(self.seed, index, draw as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_have_the_asked_rate_and_lengths() {
        let workload = Poisson {
            seed: 3,
            rate_per_second: 50.0,
            requests: 5_000,
            prompt_tokens: 10..=20,
            output_tokens: 1..=3,
            choices: 1..=2,
            slo: Slo::default(),
        };
        let arrivals = workload.arrivals();
        let last = arrivals.last().unwrap().at.us() as f64 / 1e6;
        assert!((95.0..105.0).contains(&last), "5,000 arrivals at 50 per second took {last} s");
        assert!(arrivals.is_sorted_by_key(|arrival| arrival.at));
        let lengths: std::collections::BTreeSet<usize> = arrivals.iter().map(|a| a.prompt.len()).collect();
        assert_eq!(lengths, (10..=20).collect());
        let outputs: std::collections::BTreeSet<u32> = arrivals.iter().map(|a| a.params.max_tokens).collect();
        assert_eq!(outputs, (1..=3).collect());
        assert_ne!(arrivals[0].prompt[..10], arrivals[1].prompt[..10]);
    }
}

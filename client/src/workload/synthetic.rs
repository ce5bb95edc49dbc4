//! Synthetic workloads: an arrival process with lengths, as a function of a seed.

use std::sync::Arc;

use super::arrivals::{ArrivalProcess, Arrivals};
use super::dice::{Dice, Purpose};
use super::lengths::{LengthPairs, Lengths};
use super::row::{Origin, Row, Workload};

/// Description of a synthetic workload.
#[derive(Debug, Clone)]
pub struct Synthetic {
    /// Seed of all its numbers.
    pub seed: u64,
    /// Times of arrival.
    pub arrivals: Arrivals,
    /// Lengths.
    pub lengths: LengthSource,
    /// Prefix that requests share, before their own prompt.
    pub prefix: Option<SharedPrefix>,
    /// Most requests.
    pub requests: usize,
    /// Time after which there are no more, in microseconds.
    pub duration_us: Option<u64>,
}

/// Source of prompt and answer lengths.
#[derive(Debug, Clone)]
pub enum LengthSource {
    /// Independent lengths.
    Independent {
        /// Prompts, without the shared prefix.
        input: Lengths,
        /// Answers.
        output: Lengths,
    },
    /// Pairs of a file.
    Pairs {
        /// Name of the file.
        name: String,
        /// Pairs.
        pairs: LengthPairs,
    },
}

/// Prefix that the requests of a group share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedPrefix {
    /// Tokens.
    pub tokens: u32,
    /// Number of different prefixes, drawn with equal chance.
    pub groups: u32,
}

impl Synthetic {
    /// Makes the workload.
    #[must_use]
    pub fn workload(&self) -> Workload {
        let mut inputs = Dice::new(self.seed, Purpose::Inputs);
        let mut outputs = Dice::new(self.seed, Purpose::Outputs);
        let mut groups = Dice::new(self.seed, Purpose::Groups);
        let is_in_time = |at_us: &u64| self.duration_us.is_none_or(|duration_us| *at_us < duration_us);
        let times = self.arrivals.times_us(self.seed).take(self.requests).take_while(is_in_time);
        let rows = times.map(|at_us| {
            let (own_tokens, output_tokens) = match &self.lengths {
                LengthSource::Independent { input, output } => (input.draw(&mut inputs), output.draw(&mut outputs)),
                LengthSource::Pairs { pairs, .. } => pairs.draw(&mut inputs),
            };
            let (prefix_tokens, blocks): (u32, Arc<[u64]>) = match self.prefix {
                Some(prefix) => (prefix.tokens, Arc::new([groups.below(u64::from(prefix.groups))])),
                None => (0, Arc::new([])),
            };
            Row { at_us, input_tokens: own_tokens + prefix_tokens, output_tokens, blocks, class: None }
        });
        let rows: Vec<Row> = rows.collect();
        let block_tokens = self.prefix.map(|prefix| prefix.tokens);
        let origin = Origin {
            source: self.to_string(),
            form: "synthetic".to_owned(),
            block_tokens,
            rows_read: rows.len(),
            length_scale: 1.0,
            rate_scale: 1.0,
            ..Origin::default()
        };
        Workload { rows, block_tokens: block_tokens.unwrap_or(1), origin }
    }
}

impl std::fmt::Display for Synthetic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.arrivals.process {
            ArrivalProcess::Constant => f.write_str("constant")?,
            ArrivalProcess::Poisson => f.write_str("poisson")?,
            ArrivalProcess::Gamma { cv } => write!(f, "gamma:{cv}")?,
        }
        write!(f, " {} requests/s", self.arrivals.rate_per_s)?;
        match &self.lengths {
            LengthSource::Independent { input, output } => write!(f, ", input {input}, output {output}")?,
            LengthSource::Pairs { name, .. } => write!(f, ", lengths of {name}")?,
        }
        if let Some(SharedPrefix { tokens, groups }) = self.prefix {
            write!(f, ", after {tokens} tokens of {groups} shared prefixes")?;
        }
        write!(f, ", seed {}", self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synthetic(seed: u64) -> Synthetic {
        Synthetic {
            seed,
            arrivals: Arrivals { process: ArrivalProcess::Poisson, rate_per_s: 10.0 },
            lengths: LengthSource::Independent { input: Lengths::Uniform(10, 20), output: Lengths::Fixed(5) },
            prefix: Some(SharedPrefix { tokens: 32, groups: 3 }),
            requests: 500,
            duration_us: None,
        }
    }

    #[test]
    fn equal_seeds_give_equal_workloads() {
        let first = synthetic(1).workload();
        assert_eq!(first.rows, synthetic(1).workload().rows);
        assert_ne!(first.rows, synthetic(2).workload().rows);
        assert!(first.rows.iter().all(|row| (42..=52).contains(&row.input_tokens) && row.output_tokens == 5));
        assert!((0..3).all(|group| first.rows.iter().any(|row| *row.blocks == [group])));
        assert_eq!(first.block_tokens, 32);
        assert_eq!(
            first.origin.source,
            "poisson 10 requests/s, input 10..20, output 5, after 32 tokens of 3 shared prefixes, seed 1"
        );
    }
}

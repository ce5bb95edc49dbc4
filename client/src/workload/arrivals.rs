//! Arrival processes: gaps between requests; knows no lengths.

use super::dice::{Dice, Purpose};
use crate::{Error, Result};

/// Kind of an arrival process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ArrivalProcess {
    /// Equal gaps.
    Constant,
    /// Independent requests: exponential gaps.
    Poisson,
    /// Gamma-distributed gaps with this coefficient of variation: above 1 requests come in bursts, below 1 evenly.
    Gamma {
        /// Deviation of the gaps divided by their mean.
        cv: f64,
    },
}

/// Arrival process with its mean rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arrivals {
    /// Kind.
    pub process: ArrivalProcess,
    /// Mean requests per second.
    pub rate_per_s: f64,
}

/// Largest variation that is accepted: above it, single gaps take up whole runs.
const CV_MAX: f64 = 100.0;

impl ArrivalProcess {
    /// Reads `constant`, `poisson` or `gamma:CV`.
    pub fn parse(text: &str) -> Result<ArrivalProcess> {
        let wrong =
            || Error::Settings(format!("arrivals {text:?}: expected constant, poisson or gamma:CV (0 < CV <= 100)"));
        match text.split_once(':') {
            None if text == "constant" => Ok(ArrivalProcess::Constant),
            None if text == "poisson" => Ok(ArrivalProcess::Poisson),
            Some(("gamma", cv)) => match cv.parse() {
                Ok(cv) if cv > 0.0 && cv <= CV_MAX => Ok(ArrivalProcess::Gamma { cv }),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

impl Arrivals {
    /// Times of arrival in microseconds, without end; the first request comes at 0.
    pub fn times_us(self, seed: u64) -> impl Iterator<Item = u64> {
        let mut dice = Dice::new(seed, Purpose::Gaps);
        let mut at_us = 0.0;
        std::iter::from_fn(move || {
            let now = at_us as u64;
            at_us += self.gap(&mut dice) * 1e6 / self.rate_per_s;
            Some(now)
        })
    }

    /// Gap with mean 1.
    fn gap(self, dice: &mut Dice) -> f64 {
        match self.process {
            ArrivalProcess::Constant => 1.0,
            ArrivalProcess::Poisson => dice.exponential(),
            ArrivalProcess::Gamma { cv } => dice.gamma(1.0 / (cv * cv)) * cv * cv,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_keep_rate_and_variation() {
        for (text, cv) in [("constant", 0.0), ("poisson", 1.0), ("gamma:3", 3.0), ("gamma:0.3", 0.3)] {
            let arrivals = Arrivals { process: ArrivalProcess::parse(text).unwrap(), rate_per_s: 200.0 };
            let times: Vec<u64> = arrivals.times_us(5).take(50_001).collect();
            let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            assert!((mean / 5_000.0 - 1.0).abs() < 0.05, "{text}: mean {mean}");
            assert!((variance.sqrt() / mean - cv).abs() < 0.05 * cv.max(0.1), "{text}: cv {}", variance.sqrt() / mean);
            assert!(times.iter().eq(&arrivals.times_us(5).take(50_001).collect::<Vec<_>>()), "deterministic");
        }
    }

    #[test]
    fn other_processes_are_refused() {
        for text in ["gamma", "gamma:0", "gamma:x", "gamma:101", "weibull", "poisson:1"] {
            let error = ArrivalProcess::parse(text).unwrap_err().to_string();
            assert_eq!(error, format!("arrivals {text:?}: expected constant, poisson or gamma:CV (0 < CV <= 100)"));
        }
    }
}

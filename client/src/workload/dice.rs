//! Random numbers of the distributions that workloads need, as a function of seed and purpose.

use sched::rng;

/// Sequence of random numbers; equal seed and purpose give equal sequences.
#[derive(Debug, Clone)]
pub(super) struct Dice {
    seed: u64,
    drawn: u64,
}

/// Purpose of a sequence, so that no two share their numbers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Gaps = 1,
    Inputs = 2,
    Outputs = 3,
    Groups = 4,
}

impl Dice {
    pub(super) fn new(seed: u64, purpose: Purpose) -> Dice {
        Dice { seed: rng::token_hash(seed, purpose as u64), drawn: 0 }
    }

    /// Uniform in `[0, 1)`.
    pub(super) fn uniform(&mut self) -> f64 {
        self.drawn += 1;
        rng::uniform_f64(self.seed, self.drawn, 0)
    }

    /// Uniform below `end`, which must not be 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        ((self.uniform() * end as f64) as u64).min(end - 1)
    }

    /// Exponential with mean 1.
    pub(super) fn exponential(&mut self) -> f64 {
        -(1.0 - self.uniform()).ln()
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller, "A Note on the Generation of Random Normal Deviates", 1958).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (2.0 * self.exponential()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Log-normal with this mean and coefficient of variation.
    pub(super) fn lognormal(&mut self, mean: f64, cv: f64) -> f64 {
        let variance = (1.0 + cv * cv).ln();
        (mean.ln() - variance / 2.0 + variance.sqrt() * self.normal()).exp()
    }

    /// Gamma with this shape and scale 1 (Marsaglia and Tsang, "A Simple Method for Generating Gamma Variables", ACM
    /// TOMS 26(3), 2000). The method accepts more than 95 % of its attempts, so its loop ends.
    pub(super) fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            // Section 6 of the paper: a variable of shape + 1, times a power of a uniform number.
            let boost = (1.0 - self.uniform()).powf(1.0 / shape);
            return self.gamma(shape + 1.0) * boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && (1.0 - self.uniform()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_and_cv(mut draw: impl FnMut() -> f64) -> (f64, f64) {
        let numbers: Vec<f64> = (0..40_000).map(|_| draw()).collect();
        let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
        let variance = numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / numbers.len() as f64;
        (mean, variance.sqrt() / mean)
    }

    #[test]
    fn distributions_have_their_mean_and_variation() {
        let mut dice = Dice::new(7, Purpose::Gaps);
        let near = |(mean, cv): (f64, f64), wanted: (f64, f64)| {
            assert!((mean / wanted.0 - 1.0).abs() < 0.03 && (cv / wanted.1 - 1.0).abs() < 0.04, "{mean} {cv}");
        };
        near(mean_and_cv(|| dice.exponential()), (1.0, 1.0));
        near(mean_and_cv(|| dice.gamma(4.0)), (4.0, 0.5));
        near(mean_and_cv(|| dice.gamma(0.25)), (0.25, 2.0));
        near(mean_and_cv(|| dice.lognormal(512.0, 0.5)), (512.0, 0.5));
        near(mean_and_cv(|| 10.0 + dice.normal()), (10.0, 0.1));
    }

    #[test]
    fn seeds_and_purposes_tell_sequences_apart() {
        let draw = |seed, purpose| Dice::new(seed, purpose).below(1 << 40);
        assert_eq!(draw(1, Purpose::Gaps), draw(1, Purpose::Gaps));
        assert_ne!(draw(1, Purpose::Gaps), draw(2, Purpose::Gaps));
        assert_ne!(draw(1, Purpose::Gaps), draw(1, Purpose::Inputs));
    }
}

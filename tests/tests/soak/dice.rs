//! Random numbers of a soak, the same for the same seed; knows no request.

/// Sequence of random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Makes a sequence.
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(7919).wrapping_add(1))
    }

    /// Returns a number below `end`, which must not be 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    /// Returns a number from 0 to less than 1.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.below(1 << 30) as f64 / f64::from(1 << 30)
    }

    /// Returns a waiting time of a Poisson process, in units of its mean.
    pub(crate) fn exponential(&mut self) -> f64 {
        -(1.0 - self.uniform()).ln()
    }
}

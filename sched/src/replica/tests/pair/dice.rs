//! Chance, as a pure function of the seed.

use crate::Span;
use crate::rng::token_hash;

pub(super) struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice { seed, thrown: 0 }
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.thrown += 1;
        token_hash(self.seed, self.thrown) % bound
    }

    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(super) fn ms(&mut self, low: u64, high: u64) -> Span {
        Span::from_ms(low + self.below(high - low + 1))
    }
}

//! Names and seeds that no other router draws; knows nothing of their use.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use sched::InstanceId;

use crate::Error;

/// Numbers that differ within a process by counting, and between processes by their start.
#[derive(Debug)]
pub(crate) struct Numbers {
    next: AtomicU64,
    key: u64,
}

impl Numbers {
    /// Starts at a number drawn from the operating system's generator.
    pub(crate) fn draw() -> Result<Numbers, Error> {
        let bits = || getrandom::u64().map_err(io::Error::from);
        let drawn = bits().and_then(|next| Ok(Numbers { next: AtomicU64::new(next), key: bits()? }));
        drawn.map_err(|source| Error::Io { operation: "drawing random numbers", source })
    }

    /// Returns an independent sequence.
    pub(crate) fn branch(&self) -> Numbers {
        Numbers { next: AtomicU64::new(self.scattered()), key: self.scattered() }
    }

    pub(crate) fn instance(&self) -> InstanceId {
        InstanceId(u128::from(self.scattered()) << 64 | u128::from(self.scattered()))
    }

    /// Returns the next number; consecutive.
    pub(crate) fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns a number that looks random: SplitMix64 (Steele et al. 2014) over the counter.
    pub(crate) fn scattered(&self) -> u64 {
        let mut z = self.next().wrapping_add(self.key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_differ_within_and_between_processes() {
        let one = Numbers::draw().unwrap();
        let (two, three) = (one.branch(), Numbers::draw().unwrap());
        let drawn: BTreeSet<u64> =
            (0..100).flat_map(|_| [one.scattered(), two.scattered(), three.scattered()]).collect();
        assert_eq!(drawn.len(), 300);
        assert_ne!(one.instance(), one.instance());
    }
}

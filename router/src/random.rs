//! Names and seeds that no other router draws; knows nothing of what they are for.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use sched::InstanceId;

/// 64 bits from the operating system's generator, by way of the keys that it gives to hash tables.
fn bits() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// An incarnation of this process.
pub(crate) fn instance() -> InstanceId {
    InstanceId(u128::from(bits()) << 64 | u128::from(bits()))
}

/// Numbers that differ within a process by counting and between processes by where they start.
#[derive(Debug)]
pub(crate) struct Numbers {
    next: AtomicU64,
    key: u64,
}

impl Numbers {
    pub(crate) fn new() -> Numbers {
        Numbers { next: AtomicU64::new(bits()), key: bits() }
    }

    /// The next number; consecutive.
    pub(crate) fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A number that looks random: SplitMix64 (Steele et al. 2014) over the counter.
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
        let (one, two) = (Numbers::new(), Numbers::new());
        let drawn: BTreeSet<u64> = (0..100).flat_map(|_| [one.scattered(), two.scattered()]).collect();
        assert_eq!(drawn.len(), 200);
        assert_ne!(instance(), instance());
    }
}

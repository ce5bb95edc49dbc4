//! Ids of leases that nobody can foresee: a keyed pseudorandom function over a counter; knows no lease.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::LeaseId;

/// Secret that makes the ids of one giver unforeseeable: 256 bits from the operating system, new for every process.
#[derive(Clone, PartialEq, Eq)]
pub struct LeaseKey([u8; 32]);

impl LeaseKey {
    /// Makes the key of one process. Simulations and tests take a fixed one.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> LeaseKey {
        LeaseKey(bytes)
    }
}

impl fmt::Debug for LeaseKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("LeaseKey(secret)")
    }
}

/// Lease ids of one giver: HMAC-SHA256 (RFC 2104) of a counter, so that some ids tell nothing about the others.
pub struct LeaseIds {
    keyed: Hmac<Sha256>,
    drawn: u64,
}

impl LeaseIds {
    /// Begins the ids under `key`.
    #[must_use]
    pub fn new(key: &LeaseKey) -> LeaseIds {
        // Any length of key is good for HMAC; this is the constructor that cannot fail.
        let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
        block[..32].copy_from_slice(&key.0);
        LeaseIds { keyed: Hmac::new(&block), drawn: 0 }
    }

    /// Draws the next id.
    pub fn draw(&mut self) -> LeaseId {
        self.drawn += 1;
        let mac = self.keyed.clone().chain_update(self.drawn.to_le_bytes()).finalize().into_bytes();
        LeaseId(mac.iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte)))
    }
}

impl fmt::Debug for LeaseIds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("LeaseIds").field("drawn", &self.drawn).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn ids(key: u8, count: usize) -> Vec<LeaseId> {
        let mut ids = LeaseIds::new(&LeaseKey::new([key; 32]));
        (0..count).map(|_| ids.draw()).collect()
    }

    #[test]
    fn a_key_gives_the_same_ids_and_another_key_others() {
        assert_eq!(ids(1, 100), ids(1, 100));
        let all: BTreeSet<LeaseId> = ids(1, 1000).into_iter().chain(ids(2, 1000)).collect();
        assert_eq!(all.len(), 2000);
    }

    #[test]
    fn ids_are_those_of_the_standard() {
        // HMAC-SHA256 under 32 zero bytes of 1 as eight little-endian bytes, computed with Python's hmac.
        assert_eq!(ids(0, 1), [LeaseId(EXPECTED)]);
    }

    const EXPECTED: u64 = 0x4564_2932_8705_2526;

    #[test]
    fn every_bit_of_the_key_and_of_the_counter_moves_about_half_of_the_bits() {
        let flipped = |one: &[LeaseId], two: &[LeaseId]| {
            let bits = one.iter().zip(two).map(|(one, two)| (one.0 ^ two.0).count_ones()).sum::<u32>();
            f64::from(bits) / one.len() as f64
        };
        let (base, other) = (ids(0, 2000), ids(1, 2000));
        assert!((30.0..34.0).contains(&flipped(&base, &other)));
        assert!((30.0..34.0).contains(&flipped(&base[..1999], &base[1..])));
    }

    #[test]
    fn a_key_is_not_printed() {
        let key = LeaseKey::new([0xAB; 32]);
        assert!(!format!("{key:?} {:?}", LeaseIds::new(&key)).to_lowercase().contains("171"));
        assert_eq!(format!("{key:?}"), "LeaseKey(secret)");
    }
}

//! Randomness as a pure function of (seed, position); knows no state that a hand-over could lose.
//!
//! Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011). The seed is the
//! key and the position the counter, so any worker that continues a choice draws the same numbers.

use crate::Choice;

/// Purpose of a counter block; the last counter word, so that purposes never share a block.
#[derive(Clone, Copy)]
enum Purpose {
    Uniform = 0,
    ChoiceSeed = 1,
    TokenHash = 2,
}

/// A number in `[0, 1)` with 53 random bits, for the `draw`-th decision at sampling position `position`.
#[must_use]
pub fn uniform_f64(seed: u64, position: u64, draw: u32) -> f64 {
    (block_u64(seed, position, draw, Purpose::Uniform) >> 11) as f64 / (1_u64 << 53) as f64
}

/// A number in `[0, 1)` with 24 random bits, for the `draw`-th decision at sampling position `position`.
#[must_use]
pub fn uniform_f32(seed: u64, position: u64, draw: u32) -> f32 {
    (block_u64(seed, position, draw, Purpose::Uniform) >> 40) as f32 / (1_u32 << 24) as f32
}

/// Seed of one of the `n` choices of a request. No choice uses the request's seed itself.
#[must_use]
pub fn choice_seed(seed: u64, choice: Choice) -> u64 {
    block_u64(seed, u64::from(choice.0), 0, Purpose::ChoiceSeed)
}

/// Stand-in for a model: 64 bits that depend on seed and position only, independent of the uniform numbers.
#[must_use]
pub fn token_hash(seed: u64, position: u64) -> u64 {
    block_u64(seed, position, 0, Purpose::TokenHash)
}

fn block_u64(seed: u64, position: u64, draw: u32, purpose: Purpose) -> u64 {
    let counter = [position as u32, (position >> 32) as u32, draw, purpose as u32];
    let block = philox4x32_10(counter, [seed as u32, (seed >> 32) as u32]);
    u64::from(block[0]) << 32 | u64::from(block[1])
}

/// One block of 128 random bits: ten rounds of multiply and exchange, the key bumped between rounds.
#[must_use]
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let even = u64::from(counter[0]) * 0xD251_1F53;
        let odd = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (odd >> 32) as u32 ^ counter[1] ^ key[0],
            odd as u32,
            (even >> 32) as u32 ^ counter[3] ^ key[1],
            even as u32,
        ];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_answers() {
        // Known-answer vectors of the Random123 distribution, philox4x32 with 10 rounds.
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32_10([!0; 4], [!0; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox4x32_10([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn answers_never_change_between_releases() {
        // A worker of an older build may continue a choice of a newer one, so these values are part of the wire.
        assert_eq!(uniform_f64(0, 0, 0), 0x6627_e8d5_e169_c58d_u64.wrapping_shr(11) as f64 / 9_007_199_254_740_992.0);
        assert_eq!(uniform_f32(0, 0, 0), (0x6627e8_u32 as f32) / 16_777_216.0);
        assert_eq!(choice_seed(7, Choice(0)), 0xd6a6_2573_71ea_de72);
        assert_eq!(token_hash(7, 3), 0x1867_e18a_32b6_0a15);
    }

    #[test]
    fn purposes_draws_and_positions_differ() {
        let mut seen = std::collections::BTreeSet::new();
        for position in 0..100 {
            assert!(seen.insert(token_hash(1, position)));
            assert!(seen.insert(choice_seed(1, Choice(position as u32))));
            assert!(seen.insert(uniform_f64(1, position, 0).to_bits()));
            assert!(seen.insert(uniform_f64(1, position, 1).to_bits()));
        }
    }

    #[test]
    fn uniform_numbers_are_uniform() {
        let mut buckets = [0_u32; 16];
        for position in 0..16_000 {
            let number = uniform_f64(42, position, 0);
            assert!((0.0..1.0).contains(&number));
            buckets[(number * 16.0) as usize] += 1;
            assert!((0.0..1.0).contains(&uniform_f32(42, position, 0)));
        }
        // Mean 1,000 and standard deviation about 31 per bucket.
        assert!(buckets.iter().all(|count| (850..1150).contains(count)), "{buckets:?}");
    }
}

//! Largest KV use to come of sequences that run on together, if their lengths were known; pure arithmetic.

use std::cmp::Reverse;

/// A sequence that gets one token per step until it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Future {
    /// Positions that it has stored, or reserved.
    pub positions: u32,
    /// Positions by which it grows until it ends; then its blocks are free.
    pub growth: u32,
}

/// Most blocks of `block_tokens` positions that these sequences use at any time from now on.
///
/// The closed form of Past-Future (Gong et al., ASPLOS 2025, "estimation of the future required memory"): use only
/// falls when a sequence ends, so the peak is at one of the ends. With sequences in order of falling growth, when the
/// i-th ends the first i are left, each grown by the i-th one's growth: max over i of Σ_{j ≤ i} used_j + i·growth_i. The
/// paper counts tokens; here each sequence's last block counts whole, which for blocks of one token is the same.
#[must_use]
pub fn peak_blocks(futures: &mut [Future], block_tokens: u32) -> u64 {
    let block = block_tokens.max(1);
    futures.sort_unstable_by_key(|future| Reverse(future.growth));
    // Full blocks of the sequences so far, and how many of them end at each offset into a block.
    let (mut full, mut offsets) = (0_u64, vec![0_u64; block as usize]);
    let mut peak = 0;
    for (index, future) in futures.iter().enumerate() {
        full += u64::from(future.positions / block);
        if let Some(count) = offsets.get_mut((future.positions % block) as usize) {
            *count += 1;
        }
        let (grown_full, grown) = (u64::from(future.growth / block), future.growth % block);
        let partial = (0..).zip(&offsets).map(|(offset, count)| count * u64::from((offset + grown).div_ceil(block)));
        let use_then = full + (index as u64 + 1) * grown_full + partial.sum::<u64>();
        peak = peak.max(use_then);
    }
    peak
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    /// Lets time pass token by token and looks how much is used at each moment.
    fn by_simulation(futures: &[Future], block_tokens: u32) -> u64 {
        let last = futures.iter().map(|future| future.growth).max().unwrap_or(0);
        let used_at = |step: u32| -> u64 {
            let living = futures.iter().filter(|future| future.growth >= step);
            living.map(|future| u64::from((future.positions + step).div_ceil(block_tokens))).sum()
        };
        (0..=last).map(used_at).max().unwrap_or(0)
    }

    fn random_batch(seed: u64) -> (Vec<Future>, u32) {
        let draw = |position: u64, below: u32| (rng::uniform_f64(seed, position, 0) * f64::from(below)) as u32;
        // Half of the batches draw from a small range, so that many sequences end together or hold nothing yet.
        let range = if draw(0, 2) == 0 { 40 } else { 600 };
        let sequences = u64::from(draw(1, 24));
        let future = |index| Future { positions: draw(4 + 2 * index, range), growth: draw(5 + 2 * index, range) };
        ((0..sequences).map(future).collect(), [1, 2, 16, 128][draw(2, 4) as usize])
    }

    #[test]
    fn the_closed_form_equals_time_passing() {
        for seed in 0..10_000 {
            let (mut futures, block_tokens) = random_batch(seed);
            let wanted = by_simulation(&futures, block_tokens);
            assert_eq!(peak_blocks(&mut futures, block_tokens), wanted, "batch {seed}: {futures:?} by {block_tokens}");
        }
    }

    /// For blocks of one token it is the formula as published.
    #[test]
    fn with_blocks_of_one_token_it_is_the_published_formula() {
        for seed in 0..200 {
            let (mut futures, _) = random_batch(seed);
            let peak = peak_blocks(&mut futures, 1);
            let published = (1_u64..).zip(&futures).map(|(count, future)| {
                let used: u64 = futures[..count as usize].iter().map(|first| u64::from(first.positions)).sum();
                used + count * u64::from(future.growth)
            });
            assert_eq!(peak, published.max().unwrap_or(0));
        }
    }

    #[test]
    fn large_numbers_do_not_overflow() {
        let mut all = vec![Future { positions: u32::MAX, growth: u32::MAX }; 3];
        assert_eq!(peak_blocks(&mut all, 1), 3 * 2 * u64::from(u32::MAX));
        assert_eq!(peak_blocks(&mut [], 16), 0);
    }
}

//! Fixed orders over a row of logits: the largest, the k largest, sums; ties go to the lower token id.

const LANES: usize = 16;

/// Returns the largest logit, or what is wrong with the row.
pub(super) fn maximum(logits: &[f32]) -> Result<f32, String> {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut unordered = false;
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            unordered |= logit.is_nan();
            *lane = if *logit > *lane { *logit } else { *lane };
        }
    }
    unordered |= rest.iter().any(|logit| logit.is_nan());
    if unordered {
        let token = logits.iter().position(|logit| logit.is_nan()).unwrap_or_default();
        return Err(format!("the logit of token {token} is not a number"));
    }
    let maximum = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |most, logit| most.max(*logit));
    if maximum.is_finite() { Ok(maximum) } else { Err(format!("the largest logit is {maximum}")) }
}

/// Returns the lowest token with the largest logit.
pub(super) fn greedy(logits: &[f32], maximum: f32) -> u32 {
    logits.iter().position(|logit| *logit == maximum).unwrap_or_default() as u32
}

/// Sums `weight` over the row: 16 interleaved lanes of f64, then a binary tree.
pub(super) fn sum_in_lanes(logits: &[f32], weight: impl Fn(f32) -> f32) -> f64 {
    let mut lanes = [0f64; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        let weights = chunk.map(&weight);
        for (lane, weight) in lanes.iter_mut().zip(weights) {
            *lane += f64::from(weight);
        }
    }
    for (lane, logit) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(weight(*logit));
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

/// A token packed with its logit, so that ascending order is "more likely first, then lower id".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry(u64);

impl Entry {
    pub(super) fn new(token: u32, logit: f32) -> Entry {
        // Adding 0 makes -0 equal to +0; flipping the bits of floats gives them the order of integers.
        let bits = (logit + 0.0).to_bits();
        let ascending = if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 };
        Entry((u64::from(!ascending) << 32) | u64::from(token))
    }

    pub(super) fn token(self) -> u32 {
        self.0 as u32
    }

    pub(super) fn index(self) -> usize {
        self.token() as usize
    }
}

pub(super) fn most_likely(logits: &[f32], count: usize, scratch: &mut Vec<u64>) -> Vec<Entry> {
    /// Up to this count, one pass with rare insertions beats selecting among all tokens.
    const INSERTED_MAX: usize = 64;
    scratch.clear();
    if count <= INSERTED_MAX.min(logits.len()) {
        insert_likely(logits, count, scratch);
    } else {
        scratch.extend((0..).zip(logits).map(|(token, logit)| Entry::new(token, *logit).0));
        sort_first(scratch, count);
    }
    scratch.iter().take(count).map(|entry| Entry(*entry)).collect()
}

/// Keeps the best entries so far in order; one comparison rejects most tokens.
fn insert_likely(logits: &[f32], count: usize, best: &mut Vec<u64>) {
    if count == 0 {
        return;
    }
    let (first, rest) = logits.split_at(count);
    best.extend((0..).zip(first).map(|(token, logit)| Entry::new(token, *logit).0));
    best.sort_unstable();
    let mut worst = logits[Entry(best[count - 1]).index()];
    for (token, logit) in (count as u32..).zip(rest) {
        // A token with an equal logit has a higher id than all kept ones, so it ranks behind them.
        if *logit > worst {
            let entry = Entry::new(token, *logit).0;
            best.pop();
            best.insert(best.partition_point(|kept| *kept < entry), entry);
            worst = logits[Entry(best[count - 1]).index()];
        }
    }
}

/// Sorts the `count` smallest entries to the front; the rest has no order.
pub(super) fn sort_first(entries: &mut [u64], count: usize) {
    let count = count.min(entries.len());
    if count == 0 {
        return;
    }
    if count < entries.len() {
        entries.select_nth_unstable(count - 1);
    }
    entries[..count].sort_unstable();
}

pub(super) fn entry(raw: u64) -> Entry {
    Entry(raw)
}

impl Entry {
    /// The number whose order is that of this entry.
    pub(super) fn raw(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lower_token() {
        let logits = [1.0, 3.0, -0.0, 3.0, 0.0, f32::NEG_INFINITY];
        let tokens: Vec<u32> = most_likely(&logits, 6, &mut Vec::new()).iter().map(|entry| entry.token()).collect();
        assert_eq!(tokens, [1, 3, 0, 2, 4, 5]);
        assert_eq!(greedy(&logits, maximum(&logits).unwrap()), 1);
    }

    #[test]
    fn one_pass_and_selection_agree() {
        let logits: Vec<f32> = (0..500u32).map(|token| f32::from((token * 7919 % 61) as u8)).collect();
        let mut scratch = Vec::new();
        let all = most_likely(&logits, 500, &mut scratch);
        for count in [0, 1, 2, 63, 64, 65] {
            assert_eq!(most_likely(&logits, count, &mut scratch), all[..count]);
        }
    }

    #[test]
    fn rows_without_a_largest_number_are_refused() {
        let mut row = vec![0.0; 40];
        row[17] = f32::NAN;
        assert_eq!(maximum(&row).unwrap_err(), "the logit of token 17 is not a number");
        row[17] = f32::INFINITY;
        assert_eq!(maximum(&row).unwrap_err(), "the largest logit is inf");
        assert_eq!(maximum(&[f32::NEG_INFINITY; 3]).unwrap_err(), "the largest logit is -inf");
        row[17] = 0.0;
        row[39] = f32::NAN;
        assert!(maximum(&row).is_err());
    }
}

//! Lengths of recent answers, and what they say about those that still run; knows no request.

use std::collections::VecDeque;

/// The past of Past-Future: a window of output lengths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputLengths {
    recent: VecDeque<u32>,
    /// The same lengths in order of size.
    sorted: Vec<u32>,
    window: usize,
}

impl OutputLengths {
    /// Begins with half a window of answers as long as any can be, so that the first forecasts are careful.
    #[must_use]
    pub fn new(window: u32, longest: u32) -> OutputLengths {
        let window = (window as usize).max(1);
        let seeds = vec![longest; window.div_ceil(2)];
        OutputLengths { recent: seeds.clone().into(), sorted: seeds, window }
    }

    /// Takes in the length of an answer that has ended, in tokens; the oldest one leaves a full window.
    pub fn ended(&mut self, tokens: u32) {
        if self.recent.len() == self.window
            && let Some(oldest) = self.recent.pop_front()
        {
            let at = self.sorted.partition_point(|length| *length < oldest);
            self.sorted.remove(at);
        }
        self.recent.push_back(tokens);
        self.sorted.insert(self.sorted.partition_point(|length| *length < tokens), tokens);
    }

    /// Length at quantile `draw`, in [0, 1), of an answer that has `generated` tokens and may have `limit`.
    ///
    /// LightLLM's conditional distribution: what has been generated, and the lengths of the window above that, with
    /// linear interpolation. If none is above, everything up to the limit is as likely.
    #[must_use]
    pub fn expected(&self, generated: u32, limit: u32, draw: f64) -> u32 {
        let longer = self.sorted.get(self.sorted.partition_point(|length| *length <= generated)..).unwrap_or_default();
        let at = |index: usize| match (index, longer) {
            (0, _) => generated,
            (_, []) => limit.max(generated),
            (index, lengths) => lengths.get(index - 1).or(lengths.last()).copied().unwrap_or(limit),
        };
        let place = draw.clamp(0.0, 1.0) * longer.len().max(1) as f64;
        let (below, part) = (place as usize, place.fract());
        let (low, high) = (f64::from(at(below)), f64::from(at(below + 1)));
        ((low + (high - low) * part).ceil() as u32).min(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lengths: &[u32]) -> OutputLengths {
        let mut past = OutputLengths::new(lengths.len() as u32, 1_000);
        lengths.iter().for_each(|length| past.ended(*length));
        past
    }

    #[test]
    fn a_young_window_expects_long_answers_and_forgets_that() {
        let mut past = OutputLengths::new(4, 1_000);
        assert_eq!(past.expected(0, 5_000, 0.75), 1_000);
        assert_eq!(past.expected(0, 300, 0.75), 300, "no answer is longer than its limit");
        (0..4).for_each(|_| past.ended(10));
        assert_eq!(past.expected(0, 5_000, 0.99), 10);
        assert_eq!((past.recent.len(), past.sorted.len()), (4, 4));
    }

    #[test]
    fn lengths_lie_between_those_of_the_window_that_are_still_possible() {
        let past = of(&[40, 10, 20, 30]);
        let expected = |generated, draw| past.expected(generated, 1_000, draw);
        assert_eq!([0.0, 0.25, 0.5, 0.75, 0.875].map(|draw| expected(0, draw)), [0, 10, 20, 30, 35]);
        // After 15 tokens, 10 has become impossible: 15, 20, 30 and 40 are left.
        assert_eq!([0.0, 1.0 / 3.0, 0.5].map(|draw| expected(15, draw)), [15, 20, 25]);
        // Nothing that has ended was as long: anything up to the limit.
        assert_eq!([0.0, 0.5].map(|draw| expected(40, draw)), [40, 520]);
        assert_eq!(past.expected(40, 40, 0.9), 40);
    }

    #[test]
    fn the_oldest_length_is_the_one_that_leaves() {
        let mut past = of(&[40, 10, 20]);
        past.ended(5);
        assert_eq!(past.sorted, [5, 10, 20]);
    }
}

//! Whom a KV pool takes in beside those that it holds already; knows no block.

/// Rule by which newcomers are admitted. In every case a newcomer's prompt must fit now, and whoever is alone comes in.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Admission {
    /// Whoever fits now, with one block of growth for each running sequence. Sequences that grow beyond the pool are
    /// preempted and computed again.
    #[default]
    Aggressive,
    /// Whoever fits if every answer gets as long as it may. Nobody is preempted to let others grow, unless a step of
    /// another lane or a pull still touches the blocks of those that have ended; but short answers waste room.
    Conservative,
    /// Whoever fits at the predicted peak of KV use.
    PastFuture(PastFuture),
}

/// Settings of Past-Future (Gong et al., "Past-Future Scheduler for LLM Serving under SLA Guarantees", ASPLOS 2025):
/// past output lengths say how long answers get, and the peak of use that follows must fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PastFuture {
    /// Answers that are remembered.
    pub window: u32,
    /// Most times that lengths are drawn for one decision; the largest peak counts.
    pub lists_max: u32,
    /// Part of the pool that stays free at the predicted peak.
    pub reserve: f64,
}

/// Lengths that are drawn for a decision, unless that takes too many lists.
const DRAWS_MIN: usize = 200;

impl PastFuture {
    /// Number of times that lengths are drawn for so many sequences.
    #[must_use]
    pub fn lists(&self, sequences: usize) -> u32 {
        let wanted = DRAWS_MIN.div_ceil(sequences.max(1));
        u32::try_from(wanted).unwrap_or(u32::MAX).clamp(1, self.lists_max.max(1))
    }
}

impl Default for PastFuture {
    /// LightLLM's numbers: 200 answers, five lists, 5 %.
    fn default() -> PastFuture {
        PastFuture { window: 200, lists_max: 5, reserve: 0.05 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_batches_are_drawn_more_often() {
        let lists = |sequences| PastFuture::default().lists(sequences);
        assert_eq!([0, 1, 40, 41, 67, 100, 199, 200, 5_000].map(lists), [5, 5, 5, 5, 3, 2, 2, 1, 1]);
    }
}

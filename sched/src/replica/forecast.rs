//! Whether the KV caches of everything here, and of a newcomer, will fit as they grow; knows no lane and no slot.

use super::finish::stored_positions_max;
use super::leg::Stage;
use super::sequence::{Place, Sequence, SequenceKey};
use super::{Replica, ReplicaConfig};
use crate::rng;
use crate::scheduling::{Admission, Future, OutputLengths, PastFuture, peak_blocks};

/// What is remembered of answers, if admission goes by them.
pub(super) fn output_lengths(config: &ReplicaConfig) -> Option<OutputLengths> {
    match config.scheduling.admission {
        Admission::Aggressive | Admission::Conservative => None,
        Admission::PastFuture(PastFuture { window, .. }) => Some(OutputLengths::new(window, config.context_max)),
    }
}

/// A sequence whose growth is forecast.
#[derive(Debug, Clone, Copy)]
struct Growing {
    key: SequenceKey,
    /// Positions in blocks that it shares with nobody.
    own: u32,
    /// Tokens of each of its choices so far, and at most.
    generated: u32,
    generated_max: u32,
    /// Choices that go on from here.
    choices: u32,
}

impl Replica {
    /// True if a newcomer fits at the peak that admission looks at. Whoever would be alone always fits. Blocks that it
    /// would share count twice, which is careful. O(sequences · block size).
    pub(super) fn future_fits(&self, newcomer: SequenceKey) -> bool {
        let admission = self.config.scheduling.admission;
        if admission == Admission::Aggressive || self.pool.in_use() == 0 {
            return true;
        }
        let places = [Place::Running, Place::Ready, Place::Filling, Place::Taking];
        let keys = places.into_iter().flat_map(|place| self.places.at(place)).copied();
        let mut growing: Vec<_> = keys.map(|key| self.growing(key, self.blocks_shared(key))).collect();
        // What several share, and what is kept for readers, counts as it is now.
        let own = |of: &Growing| self.sequences.at(of.key).blocks_held() - self.blocks_shared(of.key);
        let base = u64::from(self.pool.in_use().saturating_sub(growing.iter().map(own).sum()));
        growing.push(self.growing(newcomer, 0));
        let (peak, reserve) = match admission {
            Admission::Aggressive => return true,
            Admission::Conservative => (self.peak_at(&growing, |of| of.generated_max), 0.0),
            Admission::PastFuture(config) => {
                let lists = 0..config.lists(growing.len());
                let peaks = lists.map(|list| self.peak_at(&growing, |of| self.expected(of, list)));
                (peaks.max().unwrap_or(0), config.reserve)
            }
        };
        ((base + peak) as f64) <= f64::from(self.pool.total()) * (1.0 - reserve)
    }

    /// Records that an answer has ended after so many tokens.
    pub(super) fn answer_ended(&mut self, tokens: u32) {
        if let Some(lengths) = &mut self.output_lengths {
            lengths.ended(tokens);
        }
    }

    /// Largest use of blocks if each answer ends after `length` tokens.
    fn peak_at(&self, growing: &[Growing], length: impl Fn(&Growing) -> u32) -> u64 {
        let block_tokens = self.config.block_tokens;
        let mut futures = Vec::with_capacity(growing.len());
        for of in growing {
            // The last token of an answer is delivered, but never stored.
            let growth = length(of).saturating_sub(of.generated + 1);
            futures.push(Future { positions: of.own, growth });
            let copied = Future { positions: of.own % block_tokens, growth };
            futures.extend((1..of.choices).map(|_| copied));
        }
        peak_blocks(&mut futures, block_tokens)
    }

    /// Length of an answer, as likely as past ones say; another one with every token and in every list.
    fn expected(&self, of: &Growing, list: u32) -> u32 {
        let draw = rng::uniform_f64(of.key.arrival, u64::from(of.key.branch) << 32 | u64::from(of.generated), list);
        match &self.output_lengths {
            Some(lengths) => lengths.expected(of.generated, of.generated_max, draw),
            None => of.generated_max,
        }
    }

    fn growing(&self, key: SequenceKey, shared: u32) -> Growing {
        let sequence = self.sequences.at(key);
        let (prompt, generated) = (sequence.prompt.len() as u32, sequence.generated.len() as u32);
        let block_tokens = self.config.block_tokens;
        // A shared block that is partly filled will be copied, so its positions count here.
        let own = sequence.len() - shared.min(sequence.len() / block_tokens) * block_tokens;
        let generated_max = match self.legs.get(&sequence.leg).map(|run| &run.stage) {
            // A prompt for a reader does not grow here.
            Some(Stage::Give(_)) => generated,
            Some(Stage::Whole | Stage::Take(_)) | None => {
                stored_positions_max(&sequence.params, prompt, self.config.context_max) + 1 - prompt
            }
        };
        let choices = if generated_max > generated { sequence.members.len() as u32 } else { 1 };
        Growing { key, own, generated, generated_max, choices }
    }

    /// Leading blocks that others hold as well: whoever holds a block holds those before it.
    fn blocks_shared(&self, key: SequenceKey) -> u32 {
        let Sequence { table, .. } = self.sequences.at(key);
        table.blocks().partition_point(|block| self.pool.references(*block) > 1) as u32
    }
}

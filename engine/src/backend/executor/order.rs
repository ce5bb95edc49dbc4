//! Orders to ranks, and their encoding in words; knows no rank.

use kernels::BatchSequence;
use sched::LaneId;

use super::input::StepInput;
use crate::EngineError;

/// Order to some ranks, which carry it out together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Answer once the model is loaded.
    Ready,
    /// Copy blocks, each (from, to), in order.
    Copy(Vec<(u32, u32)>),
    /// Take the input for a lane's next layers.
    Enter { lane: LaneId, input: StepInput, entry: Entry },
    /// Run one layer, as numbered in the model.
    Layer { lane: LaneId, layer: u32 },
    /// Put the lane's hidden rows on the board for the next stage.
    HandOver(LaneId),
    /// Take the hidden rows from the board and go on from there.
    TakeOver(LaneId),
    /// Put the logits of the wanted rows on the board for the leader.
    Logits(LaneId),
}

/// Source of the hidden states of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The step's tokens, embedded.
    Embed,
    /// The lane, which has kept them since its last step.
    Kept,
}

const SEQUENCE_WORDS: usize = 5;

/// Words of the largest order for steps of so many rows, logit rows and blocks per sequence, and `blocks_total` blocks.
pub(crate) fn words_max(rows_max: usize, wanted_max: usize, blocks_per_sequence: usize, blocks_total: usize) -> usize {
    const HEAD_WORDS: usize = 8;
    let enter = rows_max * (1 + SEQUENCE_WORDS + blocks_per_sequence) + wanted_max;
    HEAD_WORDS + enter.max(2 * blocks_total)
}

impl Order {
    pub(super) fn encode(&self, words: &mut Vec<u32>) {
        match self {
            Order::Ready => words.push(0),
            Order::Copy(pairs) => {
                words.push(1);
                words.extend(pairs.iter().flat_map(|(from, to)| [*from, *to]));
            }
            Order::Enter { lane, input, entry } => {
                let entry = match entry {
                    Entry::Embed => 0,
                    Entry::Kept => 1,
                };
                let StepInput { tokens, sequences, blocks, wanted } = input;
                let counts = [tokens.len(), sequences.len(), blocks.len(), wanted.len()];
                words.extend([2, u32::from(lane.0), entry]);
                words.extend(counts.map(|count| count as u32));
                words.extend(tokens);
                for sequence in sequences {
                    let BatchSequence { rows, blocks, first_position } = sequence;
                    words.extend([rows.start, rows.end, blocks.start, blocks.end, *first_position]);
                }
                words.extend(blocks);
                words.extend(wanted);
            }
            Order::Layer { lane, layer } => words.extend([3, u32::from(lane.0), *layer]),
            Order::HandOver(lane) => words.extend([4, u32::from(lane.0)]),
            Order::TakeOver(lane) => words.extend([5, u32::from(lane.0)]),
            Order::Logits(lane) => words.extend([6, u32::from(lane.0)]),
        }
    }

    pub(super) fn decode(words: &[u32]) -> Result<Order, EngineError> {
        Order::read(words).ok_or_else(|| {
            let start = &words[..words.len().min(8)];
            EngineError::ranks(format!("an order of {} words that begins {start:?} says nothing", words.len()))
        })
    }

    fn read(words: &[u32]) -> Option<Order> {
        let lane = |word: &u32| u8::try_from(*word).ok().map(LaneId);
        match words {
            [0] => Some(Order::Ready),
            [1, pairs @ ..] => {
                let (pairs, rest) = pairs.as_chunks::<2>();
                rest.is_empty().then(|| Order::Copy(pairs.iter().map(|[from, to]| (*from, *to)).collect()))
            }
            [2, on, entry, tokens, sequences, blocks, wanted, rest @ ..] => {
                let entry = match entry {
                    0 => Entry::Embed,
                    1 => Entry::Kept,
                    _ => return None,
                };
                let (tokens, rest) = rest.split_at_checked(*tokens as usize)?;
                let (sequences, rest) = rest.split_at_checked((*sequences as usize).checked_mul(SEQUENCE_WORDS)?)?;
                let (blocks, rest) = rest.split_at_checked(*blocks as usize)?;
                let (wanted, rest) = rest.split_at_checked(*wanted as usize)?;
                let sequences = sequences.as_chunks::<SEQUENCE_WORDS>().0.iter().map(|words| BatchSequence {
                    rows: words[0]..words[1],
                    blocks: words[2]..words[3],
                    first_position: words[4],
                });
                let input = StepInput {
                    tokens: tokens.to_vec(),
                    sequences: sequences.collect(),
                    blocks: blocks.to_vec(),
                    wanted: wanted.to_vec(),
                };
                rest.is_empty().then_some(Order::Enter { lane: lane(on)?, input, entry })
            }
            [3, on, layer] => Some(Order::Layer { lane: lane(on)?, layer: *layer }),
            [4, on] => Some(Order::HandOver(lane(on)?)),
            [5, on] => Some(Order::TakeOver(lane(on)?)),
            [6, on] => Some(Order::Logits(lane(on)?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders() -> Vec<Order> {
        let sequences = vec![
            BatchSequence { rows: 0..3, blocks: 0..2, first_position: 17 },
            BatchSequence { rows: 3..4, blocks: 2..3, first_position: 0 },
        ];
        let input = StepInput { tokens: vec![5, 6, 7, 8], sequences, blocks: vec![9, 4, 1], wanted: vec![2, 3] };
        vec![
            Order::Ready,
            Order::Copy(Vec::new()),
            Order::Copy(vec![(1, 2), (3, 4)]),
            Order::Enter { lane: LaneId(1), input: input.clone(), entry: Entry::Embed },
            Order::Enter { lane: LaneId(0), input: StepInput { wanted: Vec::new(), ..input }, entry: Entry::Kept },
            Order::Layer { lane: LaneId(3), layer: 70 },
            Order::HandOver(LaneId(0)),
            Order::TakeOver(LaneId(1)),
            Order::Logits(LaneId(255)),
        ]
    }

    #[test]
    fn orders_survive_their_words() {
        for order in orders() {
            let mut words = Vec::new();
            order.encode(&mut words);
            assert_eq!(Order::decode(&words).unwrap(), order);
            assert!(words.len() <= words_max(4, 2, 2, 2), "{order:?}");
        }
    }

    #[test]
    fn words_that_say_nothing_are_an_error() {
        for order in orders() {
            let mut words = Vec::new();
            order.encode(&mut words);
            words.push(0);
            let longer = Order::decode(&words);
            words.truncate(words.len() - 2);
            // Only the list of pairs may have another length, and only by whole pairs.
            assert!(longer.is_err() && Order::decode(&words).is_err(), "{order:?}");
        }
        assert!(Order::decode(&[2, 0, 0, u32::MAX, 0, 0, 0]).is_err());
        assert!(Order::decode(&[]).is_err());
    }
}

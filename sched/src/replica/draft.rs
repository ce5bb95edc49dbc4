//! A step in the making: the flat plan for the backend, and what the scheduler remembers of the step.

use std::ops::Range;

use super::lane::Part;
use super::sequence::{Sequence, SequenceKey};
use super::slots::Seat;
use crate::block::{BlockPool, blocks_for};
use crate::rng::choice_seed;
use crate::{BlockCopy, BlockId, Input, SampleRow, ScoreRow, SequenceRows, SlotId, SlotInit, StepPlan, TokenId};

#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) plan: StepPlan,
    pub(super) parts: Vec<Part>,
    pub(super) touched: Vec<BlockId>,
}

impl Draft {
    /// Copies a block before the first layer. The step holds both blocks, even if their sequences let go of them.
    pub(super) fn copy(&mut self, from: BlockId, to: BlockId, pool: &mut BlockPool) {
        self.touch(from, pool);
        self.touch(to, pool);
        self.plan.copies.push(BlockCopy { from, to });
    }

    /// Adds the next `rows` tokens of a sequence; its choices sample if no known or awaited token follows.
    pub(super) fn add(
        &mut self,
        key: SequenceKey,
        sequence: &mut Sequence,
        rows: u32,
        block_tokens: u32,
        pool: &mut BlockPool,
    ) {
        let (start, end) = (sequence.submitted, sequence.submitted + rows);
        let input = input(sequence, start);
        let first_row = self.plan.tokens.len() as u32;
        let first_block = self.plan.blocks.len() as u32;
        let covered = &sequence.table.blocks()[..blocks_for(end, block_tokens) as usize];
        for block in &covered[(start / block_tokens) as usize..] {
            self.touch(*block, pool);
        }
        match input {
            Input::Given => sequence.copy_tokens(start..end, &mut self.plan.tokens),
            Input::FromSlot(_) => self.plan.tokens.push(TokenId(0)),
        }
        self.plan.blocks.extend_from_slice(covered);
        self.plan.sequences.push(SequenceRows {
            rows: first_row..first_row + rows,
            blocks: first_block..self.plan.blocks.len() as u32,
            first_position: start,
            input,
        });
        let scored = self.score(sequence, start..end, first_row);
        let mut part = Part { key, computed: end, sampled: Vec::new(), scored };
        if end == sequence.len() + sequence.awaited {
            self.sample(sequence, first_row + rows - 1, &mut part);
            sequence.awaited += 1;
        }
        sequence.submitted = end;
        self.parts.push(part);
    }

    /// Scores the prompt tokens that follow those at `positions`, if that is wanted; returns their own positions.
    fn score(&mut self, sequence: &Sequence, positions: Range<u32>, first_row: u32) -> Range<u32> {
        let Some(top) = sequence.scored_with() else { return 0..0 };
        let scored = positions.start + 1..(positions.end + 1).min(sequence.prompt.len() as u32);
        let tokens = sequence.prompt.get(scored.start as usize..scored.end as usize).unwrap_or_default();
        self.plan.score.extend((first_row..).zip(tokens).map(|(row, token)| ScoreRow { row, token: *token, top }));
        scored.start..scored.start + tokens.len() as u32
    }

    /// One row of logits serves all choices of the sequence.
    fn sample(&mut self, sequence: &mut Sequence, row: u32, part: &mut Part) {
        for at in 0..sequence.members.len() {
            let member = sequence.members[at];
            let Some((slot, seat)) = member.slot else { unreachable!("{:?} samples without a slot", part.key) };
            if seat == Seat::Promised {
                self.plan.admit.push(seat_init(sequence, slot, choice_seed(sequence.params.seed, member.choice)));
                sequence.members[at].slot = Some((slot, Seat::Taken));
            }
            self.plan.sample.push(SampleRow { row, slot });
            part.sampled.push(member.choice);
        }
    }

    fn touch(&mut self, block: BlockId, pool: &mut BlockPool) {
        pool.begin_access(block);
        self.touched.push(block);
    }
}

/// Source of the tokens from position `start` on: known tokens, or the slot that samples the awaited one.
fn input(sequence: &Sequence, start: u32) -> Input {
    if start < sequence.len() {
        return Input::Given;
    }
    match sequence.members.first().map(|member| member.slot) {
        Some(Some((slot, Seat::Taken))) => Input::FromSlot(slot),
        Some(Some((_, Seat::Promised)) | None) | None => unreachable!("a token is awaited that no slot samples"),
    }
}

fn seat_init(sequence: &Sequence, slot: SlotId, seed: u64) -> SlotInit {
    SlotInit {
        slot,
        params: sequence.params.clone(),
        seed,
        prompt: sequence.prompt.clone(),
        generated: sequence.generated.clone(),
    }
}

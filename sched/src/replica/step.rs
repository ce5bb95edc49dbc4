//! Rows of the next step of a lane: decodes, chunks of prompts, or both, which share its budget.
//!
//! A step is formed while the step before it runs, so some decodes continue with a token that is not known yet: they
//! take it from their slot. A sequence that turns out to have ended leaves a row behind, whose token is dropped.

use super::draft::Draft;
use super::lane::Lane;
use super::leg::Stage;
use super::sequence::{Place, Sequence, SequenceKey};
use super::{LaneWork, Replica};
use crate::LaneId;

/// While prompts wait in a lane where prefill comes first, decodes get one row in this many.
const PREFILL_DECODE_PART: u32 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Formed {
    Submitted,
    /// No step: enough are in flight, or there is nothing to run until one of them has ended.
    Settled,
    /// No step, but sequences were preempted; their blocks may admit others.
    BlocksFreed,
}

impl Replica {
    /// Admits and forms steps until nothing more can be decided.
    pub(super) fn schedule(&mut self) {
        self.admit();
        while self.form_steps() == Formed::BlocksFreed {
            self.admit();
        }
    }

    fn form_steps(&mut self) -> Formed {
        for at in 0..self.lanes.len() {
            loop {
                match self.form_step(self.lanes[at].id) {
                    Formed::Submitted => {}
                    Formed::Settled => break,
                    Formed::BlocksFreed => return Formed::BlocksFreed,
                }
            }
        }
        Formed::Settled
    }

    fn form_step(&mut self, lane: LaneId) -> Formed {
        let Lane { config, flights, .. } = self.lane(lane);
        let (config, in_flight) = (*config, flights.len());
        if in_flight >= config.steps_in_flight as usize {
            return Formed::Settled;
        }
        if let Some(course) = self.lane_mut(lane).course.take() {
            self.submit_layers(lane, course);
            return Formed::Submitted;
        }
        let mut picked = self.pick_decodes(lane);
        // Preempting now could take blocks from a sequence that a step in flight computes, so wait for its end.
        if in_flight > 0 && !self.has_room(&picked) {
            return Formed::Settled;
        }
        if let Some(last) = picked.last() {
            self.lane_mut(lane).last_decoded = Some(*last);
        }
        picked.sort_unstable();
        let mut draft = Draft::default();
        let preempted_before = self.preemptions;
        let decodes = self.make_room(picked, &mut draft);
        self.chose_decodes(&decodes);
        let chunks = self.pick_chunks(config.work, config.step_tokens_max - decodes.len() as u32, &decodes);
        if decodes.is_empty() && chunks.is_empty() {
            let freed = self.preemptions > preempted_before;
            return if freed { Formed::BlocksFreed } else { Formed::Settled };
        }
        let decode_rows = decodes.into_iter().map(|key| (key, 1));
        let rows: Vec<_> = match config.work {
            LaneWork::Prefill | LaneWork::PrefillFirst => chunks.into_iter().chain(decode_rows).collect(),
            LaneWork::Decode | LaneWork::DecodeFirst => decode_rows.chain(chunks).collect(),
        };
        self.submit_rows(lane, draft, &rows);
        Formed::Submitted
    }

    /// Picks running sequences for one row each. If rows are too few they take turns: the next in turn comes first,
    /// unless another order is configured.
    fn pick_decodes(&mut self, lane: LaneId) -> Vec<SequenceKey> {
        let Lane { config, last_decoded, .. } = *self.lane(lane);
        let chunks_wait = || self.places.at(Place::Filling).iter().any(|key| chunk_left(self.sequences.at(*key)) > 0);
        let rows_max = match config.work {
            LaneWork::Prefill => return Vec::new(),
            LaneWork::PrefillFirst if chunks_wait() => (config.step_tokens_max / PREFILL_DECODE_PART).max(1),
            LaneWork::PrefillFirst | LaneWork::Decode | LaneWork::DecodeFirst => config.step_tokens_max,
        };
        let context_max = self.config.context_max;
        let running = self.places.at(Place::Running).iter().copied();
        let mut picked: Vec<_> = running.filter(|key| self.sequences.at(*key).goes_on(context_max)).collect();
        if let Some(queue) = &mut self.decode_queue {
            return queue.pick(self.now, &picked, rows_max);
        }
        if picked.len() > rows_max as usize {
            let first = last_decoded.map_or(0, |last| picked.partition_point(|key| *key <= last));
            picked.rotate_left(first);
            picked.truncate(rows_max as usize);
        }
        picked
    }

    /// Picks the next chunk of each prompt, in their order, until rows or budget are spent. A prompt that is scored wants
    /// logits of every row, so it gets as many rows as have room for theirs beside one for each other sequence.
    fn pick_chunks(&self, work: LaneWork, mut rows: u32, decodes: &[SequenceKey]) -> Vec<(SequenceKey, u32)> {
        let filling = self.prompts_in_order();
        let mut logits = self.config.sequences_max.saturating_sub((decodes.len() + filling.len()) as u32);
        let mut budget = self.chunk_budget(decodes, rows);
        let mut chunks = Vec::new();
        let yields_to = match work {
            LaneWork::Decode => return chunks,
            LaneWork::Prefill => self.wants_room(),
            LaneWork::PrefillFirst | LaneWork::DecodeFirst => None,
        };
        for key in filling {
            let left = chunk_left(self.sequences.at(key));
            if left == 0 || yields_to.is_some_and(|needy| self.may_yield(key, needy)) {
                continue; // the rest is in flight, or this prompt may have to make room
            }
            if rows == 0 {
                break;
            }
            let sequence = self.sequences.at(key);
            let mut chunk = rows.min(left);
            if sequence.scored_with().is_some() {
                chunk = chunk.min(logits + 1);
            }
            if let Some(budget) = &mut budget {
                chunk = budget.take(sequence.submitted, chunk);
            }
            if chunk == 0 {
                break;
            }
            if sequence.scored_with().is_some() {
                logits -= chunk - 1;
            }
            rows -= chunk;
            chunks.push((key, chunk));
        }
        chunks
    }

    fn submit_rows(&mut self, lane: LaneId, mut draft: Draft, rows: &[(SequenceKey, u32)]) {
        for (key, rows) in rows {
            let sequence = self.sequences.at_mut(*key);
            draft.add(*key, sequence, *rows, self.config.block_tokens, &mut self.pool);
            if self.lane(lane).config.work.decodes() && self.decodes_next(*key) {
                self.move_to(*key, Place::Running);
            }
        }
        self.begin_course(lane, draft);
    }

    /// True if a prompt whose last chunk is in flight goes on here. Several choices first need their first tokens.
    fn decodes_next(&self, key: SequenceKey) -> bool {
        let sequence = self.sequences.at(key);
        let stays = || match self.legs.get(&sequence.leg).map(|run| &run.stage) {
            Some(Stage::Whole | Stage::Take(_)) => true,
            Some(Stage::Give(_)) | None => false,
        };
        sequence.place == Place::Filling && sequence.awaited > 0 && sequence.members.len() == 1 && stays()
    }

    /// Marks the oldest step in flight as started, now that the backend has none before it.
    pub(super) fn front_starts(&mut self, lane: LaneId) {
        let now = self.now;
        let lane = &mut self.lanes[usize::from(lane.0)];
        let former = lane.former_started;
        let Some(front) = lane.flights.front_mut() else {
            return;
        };
        front.runs_since = now;
        front.started = if front.layers.start > 0 { former } else { now };
        for part in &front.parts {
            let leg = self.sequences.find(part.key).map(|sequence| sequence.leg);
            if let Some(run) = leg.and_then(|leg| self.legs.get_mut(&leg)) {
                run.timing.chunk_started(now);
            }
        }
    }
}

/// Number of known tokens of a prompt that are in no step yet.
fn chunk_left(sequence: &Sequence) -> u32 {
    sequence.len() - sequence.submitted
}

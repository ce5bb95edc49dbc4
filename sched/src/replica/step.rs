//! Which rows the next step has: decodes and chunks of prompts share its budget as the role prefers.

use super::Replica;
use super::draft::Draft;
use super::lane::Flight;
use super::sequence::{Place, SequenceKey};
use crate::message::Action;
use crate::{LaneId, Role};

/// A prefill lane gives at most this part of a step to decodes while prompts wait.
const PREFILL_DECODE_PART: u32 = 8;

/// What came of forming a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Formed {
    /// One is in flight, or there is nothing to run.
    Settled,
    /// Nothing runs because sequences were preempted; their blocks may admit others.
    BlocksFreed,
}

impl Replica {
    /// Admits and forms steps until nothing more can be decided.
    pub(super) fn schedule(&mut self) {
        for lane in (0..self.lanes.len()).map(|index| LaneId(index as u8)) {
            self.admit(lane);
            while self.form_step(lane) == Formed::BlocksFreed {
                self.admit(lane);
            }
        }
    }

    fn form_step(&mut self, lane: LaneId) -> Formed {
        if self.lane(lane).flight.is_some() {
            return Formed::Settled;
        }
        let mut draft = Draft::default();
        let preempted_before = self.lane(lane).count(Place::Preempted);
        let picked = self.pick_decodes(lane);
        let decodes = self.make_room(picked, &mut draft);
        let chunks = self.pick_chunks(lane, self.config.step_tokens_max - decodes.len() as u32);
        if decodes.is_empty() && chunks.is_empty() {
            let freed = self.lane(lane).count(Place::Preempted) > preempted_before;
            return if freed { Formed::BlocksFreed } else { Formed::Settled };
        }
        let decode_rows = decodes.into_iter().map(|key| (key, 1));
        let rows: Vec<_> = match self.lane(lane).role {
            Role::Prefill => chunks.into_iter().chain(decode_rows).collect(),
            Role::Decode | Role::Aggregated => decode_rows.chain(chunks).collect(),
        };
        self.submit_step(lane, draft, &rows);
        Formed::Settled
    }

    /// Running sequences that get a row, oldest first. Where not all of them do, they take turns.
    fn pick_decodes(&mut self, lane: LaneId) -> Vec<SequenceKey> {
        let budget = self.config.step_tokens_max;
        let lane = self.lane_mut(lane);
        let rows_max = match lane.role {
            Role::Prefill if !lane.at(Place::Filling).is_empty() => (budget / PREFILL_DECODE_PART).max(1),
            Role::Prefill | Role::Decode | Role::Aggregated => budget,
        };
        let running = lane.at(Place::Running);
        if running.len() <= rows_max as usize {
            return running.iter().copied().collect();
        }
        let is_next = |key: &&SequenceKey| lane.last_decoded.is_none_or(|last| **key > last);
        let after = running.iter().filter(is_next);
        let before = running.iter().filter(|key| !is_next(key));
        let mut picked: Vec<_> = after.chain(before).take(rows_max as usize).copied().collect();
        lane.last_decoded = picked.last().copied();
        picked.sort_unstable();
        picked
    }

    /// The next chunk of each prompt, oldest first, until the rows are spent.
    fn pick_chunks(&self, lane: LaneId, mut rows: u32) -> Vec<(SequenceKey, u32)> {
        let mut chunks = Vec::new();
        for key in self.lane(lane).at(Place::Filling) {
            let sequence = self.sequences.at(*key);
            let chunk = rows.min(sequence.len() - sequence.computed);
            if chunk == 0 {
                break;
            }
            rows -= chunk;
            chunks.push((*key, chunk));
        }
        chunks
    }

    fn submit_step(&mut self, lane: LaneId, mut draft: Draft, rows: &[(SequenceKey, u32)]) {
        for (key, rows) in rows {
            let sequence = self.sequences.at_mut(*key);
            if let Some(run) = self.legs.get_mut(&sequence.leg) {
                run.timing.chunk_started(self.now);
            }
            draft.add(*key, sequence, *rows, self.config.block_tokens, &mut self.pool);
        }
        let (step, started, layers) = (self.next_step(), self.now, self.config.layers);
        let Draft { mut plan, parts, touched } = draft;
        let lane = self.lane_mut(lane);
        plan.retire = lane.slots.drain_retired();
        plan.layers = 0..layers;
        lane.flight = Some(Flight { step, started, living: parts.len(), parts, touched });
        let lane = lane.id;
        self.out.push_back(Action::Run { lane, step, plan });
    }
}

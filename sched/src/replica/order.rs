//! Who is next among newcomers, prompts and running sequences, and how much of prompts; knows no block and no slot.

use super::Replica;
use super::leg::{LegRun, Stage};
use super::sequence::{Place, SequenceKey};
use crate::Time;
use crate::cost::{ChunkBudget, OwnSteps, StepBudget, StepWork};
use crate::scheduling::{DecodeOrder, Mlfq, PrefillOrder, Rank, Scheduling, Waiting};

/// Order of running sequences; `None` if all of them come in every step.
pub(super) type DecodeQueue = Option<Mlfq<SequenceKey>>;

pub(super) fn decode_queue(scheduling: &Scheduling) -> DecodeQueue {
    match scheduling.decode {
        DecodeOrder::Fcfs => None,
        DecodeOrder::Mlfq(config) => Some(Mlfq::new(config)),
    }
}

impl Replica {
    /// The newcomer that is admitted next.
    pub(super) fn next_newcomer(&self) -> Option<SequenceKey> {
        let waiting = self.places.at(Place::Waiting);
        match self.config.scheduling.prefill {
            PrefillOrder::Fcfs => waiting.first().copied(),
            PrefillOrder::ShortestFirst { .. } | PrefillOrder::SlackFirst(_) => {
                waiting.iter().copied().min_by_key(|key| (self.rank(*key), *key))
            }
        }
    }

    /// Prompts that are being computed here, the first in order first.
    pub(super) fn prompts_in_order(&self) -> Vec<SequenceKey> {
        let mut keys: Vec<_> = self.places.at(Place::Filling).iter().copied().collect();
        if self.config.scheduling.prefill != PrefillOrder::Fcfs {
            keys.sort_by_cached_key(|key| (self.rank(*key), *key));
        }
        keys
    }

    /// A prompt that is pulled has nothing to compute and is due at once: its first token is with the client already.
    fn rank(&self, key: SequenceKey) -> Rank {
        let sequence = self.sequences.at(key);
        let positions = sequence.submitted..sequence.len();
        let waiting = match self.legs.get(&sequence.leg) {
            Some(LegRun { arrived, stage: Stage::Take(_), .. }) if sequence.place == Place::Waiting => {
                Waiting { arrived: *arrived, due: *arrived, positions: 0..0 }
            }
            Some(LegRun { arrived, deadline, slo, .. }) => {
                Waiting { arrived: *arrived, due: slo.ttft.map_or(*deadline, |ttft| *arrived + ttft), positions }
            }
            None => unreachable!("{} has ended, but its sequence lives", sequence.leg),
        };
        let learned = self.own_steps.as_deref().and_then(OwnSteps::of_prompts);
        self.config.scheduling.prefill.rank(self.now, &waiting, learned)
    }

    /// Budget of the chunks beside these decodes; `None` if only rows limit them, or if the worker has not learnt yet
    /// how long such a step takes.
    pub(super) fn chunk_budget(&self, decodes: &[SequenceKey], rows_max: u32) -> Option<ChunkBudget> {
        let latency = match self.config.scheduling.budget {
            StepBudget::Constant => return None,
            StepBudget::Auto(latency) => {
                let learned = if decodes.is_empty() { OwnSteps::of_prompts } else { OwnSteps::of_all };
                latency.model(self.own_steps.as_deref().and_then(learned))?
            }
        };
        let sequences = || decodes.iter().map(|key| self.sequences.at(*key));
        let work = sequences().fold(StepWork::default(), |work, sequence| work.with_decode(sequence.submitted + 1));
        let slos = sequences().filter_map(|sequence| Some(self.legs.get(&sequence.leg)?.slo));
        let target = slos.flat_map(|slo| [slo.tpot, slo.itl_tail]).flatten().min();
        Some(ChunkBudget::new(latency, work, target, rows_max))
    }

    /// Takes a sequence that begins to run into the order of decodes. A prompt that was computed here counts.
    pub(super) fn joins_decodes(&mut self, key: SequenceKey) {
        let Some(queue) = &mut self.decode_queue else { return };
        let sequence = self.sequences.at(key);
        let computed = match self.legs.get(&sequence.leg).map(|run| &run.stage) {
            Some(Stage::Take(_)) => 0,
            Some(Stage::Whole | Stage::Give(_)) | None => sequence.prompt.len() as u32,
        };
        let learned = self.own_steps.as_deref().and_then(OwnSteps::of_prompts);
        queue.join(self.now, key, computed, learned);
    }

    pub(super) fn leaves_decodes(&mut self, key: SequenceKey) {
        if let Some(queue) = &mut self.decode_queue {
            queue.leave(key);
        }
    }

    pub(super) fn chose_decodes(&mut self, keys: &[SequenceKey]) {
        if let Some(queue) = &mut self.decode_queue {
            queue.chosen(self.now, keys);
        }
    }

    /// Counts a step in which a sequence got a token after its first.
    pub(super) fn decoded(&mut self, key: SequenceKey, step_started: Time) {
        let span = self.now.since(step_started);
        if let Some(queue) = &mut self.decode_queue {
            queue.ran(self.now, key, span);
        }
    }
}

//! Router's side: gate and desk, and what they decide.

use std::collections::BTreeMap;

use sched::desk::{DeskAction, DeskEvent, Group, Hold, Phase, Submission, Width, WorkerStatus};
use sched::journey::{Ending, Parts};
use sched::message::ToWorker;
use sched::replica::Event;
use sched::slo::{Outcome, RequestRecord};
use sched::{Choice, Failure, FailureKind, ModelId, RequestId, TokenId, WorkerId};
use xxhash_rust::xxh3::xxh3_64;

use super::Simulation;
use super::happening::Happening;
use crate::RequestReport;

/// The only model that is simulated.
pub(super) const MODEL: ModelId = ModelId(0);

pub(super) struct Live {
    record: RequestRecord,
    output: BTreeMap<(Choice, u32), TokenId>,
    retries: u32,
    /// The request's place in the gate.
    hold: Hold,
}

impl Simulation<'_> {
    pub(super) fn arrive(&mut self, index: usize) {
        let arrival = &self.arrivals[index];
        let id = RequestId(index as u64);
        let record = RequestRecord::new(self.now, arrival.slo, self.config.itl_quantile);
        let mut live = Live { record, output: BTreeMap::new(), retries: 0, hold: Hold::default() };
        let entered = self.gate.enter(&mut live.hold);
        self.live.insert(id, live);
        if let Err(full) = entered {
            return self.end(id, Ending::Failed(Failure::new(FailureKind::Overloaded, full.to_string())));
        }
        let parts = Parts {
            id,
            model: MODEL,
            prompt: arrival.prompt.clone(),
            choices: arrival.choices,
            params: arrival.params.clone(),
            slo: arrival.slo,
        };
        let width = if arrival.choices > 1 { Width::Wide(Group(id.0)) } else { Width::Narrow };
        self.at_router(DeskEvent::Submit(Box::new(Submission { parts, width })));
    }

    pub(super) fn at_router(&mut self, event: DeskEvent) {
        self.desk.on(self.now, event);
        self.router_stirred = true;
    }

    pub(super) fn report_loads(&mut self) {
        let loads: Vec<_> = self.workers.iter().map(|(id, worker)| (*id, worker.load())).collect();
        for (id, load) in loads {
            let status = WorkerStatus { load, phase: Phase::Accepting, links: None, problems: Vec::new() };
            self.at_router(DeskEvent::Status(id, status));
        }
        self.again(self.config.load_every, Happening::LoadsReported);
    }

    pub(super) fn decide_at_router(&mut self) {
        while let Some(action) = self.desk.poll() {
            self.perform_at_router(action);
        }
        let next = self.desk.next_timeout();
        if self.router_timer != Some(next) && self.ended.len() < self.arrivals.len() {
            self.router_timer = Some(next);
            self.queue.push(next.max(self.now), Happening::RouterTimer);
        }
    }

    fn perform_at_router(&mut self, action: DeskAction) {
        match action {
            DeskAction::Tell(worker, message) => self.tell_worker(worker, message),
            DeskAction::Deliver { request, delivery } => {
                if let Some(live) = self.live.get_mut(&request) {
                    live.output.insert((delivery.choice, delivery.index), delivery.token.token);
                    live.record.token(self.now, delivery.choice, delivery.submitted, delivery.timing);
                }
            }
            DeskAction::Retry { request, .. } => {
                if let Some(live) = self.live.get_mut(&request) {
                    live.retries += 1;
                }
            }
            DeskAction::End { request, ending } => self.end(request, ending),
            // Only for clients, logs and metrics; sessions end with their workers.
            DeskAction::Placed { .. }
            | DeskAction::DeliverScores { .. }
            | DeskAction::FinishChoice { .. }
            | DeskAction::GaveUpHandoffs { .. }
            | DeskAction::Unused { .. }
            | DeskAction::Treat(..)
            | DeskAction::Quiet(_)
            | DeskAction::Returned(_)
            | DeskAction::GiveUp(_)
            | DeskAction::View(_) => {}
        }
    }

    fn end(&mut self, id: RequestId, ending: Ending) {
        let Some(live) = self.live.remove(&id) else { return };
        self.gate.leave(self.now, live.hold);
        let outcome = match &ending {
            Ending::Done => Outcome::Done,
            Ending::Failed(failure) if failure.kind == FailureKind::Overloaded => Outcome::Refused,
            Ending::Failed(_) => Outcome::Failed,
        };
        let summary = live.record.end(self.now, outcome);
        self.classes.entry(summary.class).or_default().add(&summary);
        self.ended_at = self.now;
        let output_hash = hash_output(&live.output);
        self.ended.insert(id, RequestReport { summary, ending, retries: live.retries, output_hash });
    }

    fn tell_worker(&mut self, worker: WorkerId, message: ToWorker) {
        let event = Event::Router(message);
        self.queue.push(self.now + self.config.hop, Happening::AtWorker { worker, event });
    }
}

fn hash_output(output: &BTreeMap<(Choice, u32), TokenId>) -> u64 {
    let words = output.iter().flat_map(|((choice, index), token)| [choice.0, *index, token.0]);
    xxh3_64(&words.flat_map(u32::to_le_bytes).collect::<Vec<u8>>())
}

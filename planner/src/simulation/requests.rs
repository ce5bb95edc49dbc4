//! The router's side: journeys, their records and what they tell workers.

use std::collections::BTreeMap;

use sched::journey::{Ending, Journey, JourneyAction, JourneyEvent, Parts};
use sched::message::{FromWorker, ToWorker};
use sched::replica::Event;
use sched::route::Picker;
use sched::slo::{Outcome, RequestRecord};
use sched::{Choice, FailureKind, Leg, RequestId, Time, TokenId, WorkerId};
use xxhash_rust::xxh3::xxh3_64;

use super::Simulation;
use super::happening::Happening;
use crate::RequestReport;

/// A request that has not ended.
pub(super) struct Live {
    journey: Journey,
    record: RequestRecord,
    output: BTreeMap<(Choice, u32), TokenId>,
    retries: u32,
    /// The time for which its timer is set.
    timer: Option<Time>,
}

impl Simulation<'_> {
    pub(super) fn arrive(&mut self, index: usize) {
        let arrival = &self.arrivals[index];
        let id = RequestId(index as u64);
        let parts = Parts {
            id,
            prompt: arrival.prompt.clone(),
            choices: arrival.choices,
            params: arrival.params.clone(),
            slo: arrival.slo,
        };
        let live = Live {
            journey: Journey::new(self.now, parts, self.config.journey),
            record: RequestRecord::new(self.now, arrival.slo, self.config.itl_quantile),
            output: BTreeMap::new(),
            retries: 0,
            timer: None,
        };
        self.journeys.insert(id, live);
        self.on_journey(id, JourneyEvent::Tick);
    }

    pub(super) fn worker_says(&mut self, worker: WorkerId, message: FromWorker) {
        self.on_journey(message.leg().request, JourneyEvent::FromWorker { worker, message });
    }

    pub(super) fn journey_timer(&mut self, request: RequestId) {
        if self.journeys.get(&request).is_some_and(|live| live.timer == Some(self.now)) {
            self.on_journey(request, JourneyEvent::Tick);
        }
    }

    pub(super) fn session_gone(&mut self, worker: WorkerId) {
        self.cluster.leave(worker);
        for id in self.journeys.keys().copied().collect::<Vec<_>>() {
            self.on_journey(id, JourneyEvent::WorkerLost { worker, name: worker.to_string().into() });
        }
    }

    /// One message per worker for all requests it serves.
    pub(super) fn renew(&mut self) {
        let mut legs: BTreeMap<WorkerId, Vec<Leg>> = BTreeMap::new();
        for (worker, leg) in self.journeys.values().flat_map(|live| live.journey.bound()) {
            legs.entry(worker).or_default().push(leg);
        }
        for (worker, legs) in legs {
            self.tell_worker(worker, ToWorker::Renew(legs));
        }
        self.again(self.config.renew_every, Happening::Renews);
    }

    pub(super) fn report_loads(&mut self) {
        for (id, worker) in &self.workers {
            self.cluster.set_load(*id, worker.load());
        }
        self.again(self.config.load_every, Happening::LoadsReported);
    }

    fn on_journey(&mut self, id: RequestId, event: JourneyEvent) {
        let Some(live) = self.journeys.get_mut(&id) else { return };
        let mut picker = Picker { cluster: &mut self.cluster, policy: &mut *self.policy, config: &self.config.route };
        live.journey.on(self.now, event, &mut picker);
        while let Some(action) = self.journeys.get_mut(&id).and_then(|live| live.journey.poll()) {
            self.perform_for(id, action);
        }
        let Some(live) = self.journeys.get_mut(&id) else { return };
        let next = live.journey.next_timeout();
        if let Some(time) = next.filter(|_| next != live.timer) {
            live.timer = next;
            self.queue.push(time.max(self.now), Happening::JourneyTimer(id));
        }
    }

    fn perform_for(&mut self, id: RequestId, action: JourneyAction) {
        let Some(live) = self.journeys.get_mut(&id) else { return };
        match action {
            JourneyAction::Send { worker, message } => self.tell_worker(worker, message),
            JourneyAction::Deliver(delivery) => {
                live.output.insert((delivery.choice, delivery.index), delivery.token.token);
                live.record.token(self.now, delivery.choice, delivery.submitted, delivery.timing);
            }
            JourneyAction::FinishChoice { .. } => {}
            JourneyAction::Retry { .. } => live.retries += 1,
            // It ends, or its answer comes from elsewhere.
            JourneyAction::GaveUpHandoffs { .. } => {}
            JourneyAction::End(ending) => self.end(id, ending),
        }
    }

    fn end(&mut self, id: RequestId, ending: Ending) {
        let Some(live) = self.journeys.remove(&id) else { return };
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

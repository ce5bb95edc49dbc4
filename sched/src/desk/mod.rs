//! The one machine of a router: requests that run, workers that are up, who goes where; knows no text or clock.
//!
//! Facts go in through [`Desk::on`]; decisions come out of [`Desk::poll`]. Feed every fact at hand before polling: what
//! has arrived together leaves together. The live router and the simulator drive the same desk.
//!
//! Where to look: `workers` takes in what workers say about themselves, `wide` lets requests of several choices take
//! turns, `gate` lets requests in, and each request's life is its [`Journey`].

mod api;
mod gate;
mod wide;
mod workers;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use api::{DeskAction, DeskConfig, DeskEvent, Group, Phase, Submission, View, Width, WorkerStatus};
pub use gate::{Full, Gate, GateLimits, Hold};

use crate::cluster::{Kind, Silences};
use crate::journey::{Ending, Journey, JourneyAction, JourneyEvent};
use crate::message::{RENEW_LEGS_MAX, ToWorker};
use crate::route::Routing;
use crate::{Failure, FailureKind, InstanceId, Leg, ModelId, RequestId, Span, Time, WorkerId};
use wide::Wide;
use workers::Seat;

/// All requests and workers of a router. Deterministic: the same calls give the same decisions.
pub struct Desk {
    config: DeskConfig,
    now: Time,
    routing: Routing,
    seats: BTreeMap<WorkerId, Seat>,
    silences: Silences,
    /// Processes that were given up for silence. Answering connections do not prove them alive.
    hushed: BTreeSet<InstanceId>,
    /// Number of workers that generate for the kinds that serve.
    generators: u32,
    /// Kinds that serve and are able to, as journeys were last told.
    serving: BTreeMap<ModelId, Kind>,
    requests: BTreeMap<RequestId, Entry>,
    wide: Wide,
    timers: BTreeSet<(Time, RequestId)>,
    /// Journeys with decisions to give out.
    touched: BTreeSet<RequestId>,
    next_renewal: Time,
    view: View,
    stage: Stage,
    out: VecDeque<DeskAction>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    ShuttingDown,
}

struct Entry {
    journey: Journey,
    timer: Option<Time>,
    /// Choices of a wide request, which run in turns; 0 for a narrow one.
    wide_choices: u32,
}

impl Desk {
    /// Creates a desk without requests and workers.
    #[must_use]
    pub fn new(now: Time, config: DeskConfig, routing: Routing) -> Desk {
        // An interval of no time would be due for ever.
        let renew_every = config.renew_every.max(Span(1));
        let config = DeskConfig { renew_every, ..config };
        Desk {
            config,
            now,
            routing,
            seats: BTreeMap::new(),
            silences: Silences::new(config.status_every),
            hushed: BTreeSet::new(),
            generators: 0,
            serving: BTreeMap::new(),
            requests: BTreeMap::new(),
            wide: Wide::default(),
            timers: BTreeSet::new(),
            touched: BTreeSet::new(),
            next_renewal: now + config.renew_every,
            view: View::default(),
            stage: Stage::Serving,
            out: VecDeque::new(),
        }
    }

    /// Takes in one fact. What is due by `now` happens after it, because a worker's word ends its silence.
    pub fn on(&mut self, now: Time, event: DeskEvent) {
        self.now = self.now.max(now);
        match event {
            DeskEvent::Submit(submission) => self.submit(*submission),
            DeskEvent::StopChoice { request, choice } => self.tell(request, JourneyEvent::StopChoice { choice }),
            DeskEvent::ClientGone(request) => match self.wide.forget(request) {
                true => self.refuse(request, Failure::new(FailureKind::Cancelled, "the client went away")),
                false => self.tell(request, JourneyEvent::ClientGone),
            },
            DeskEvent::Joined(worker, info) => self.joined(worker, info),
            DeskEvent::Status(worker, status) => self.status(worker, status),
            DeskEvent::Said(worker, message) => {
                self.tell(message.leg().request, JourneyEvent::FromWorker { worker, message });
            }
            DeskEvent::Left(worker) => self.left(worker),
            DeskEvent::ShutDown => self.shut_down(),
            DeskEvent::Tick => {}
        }
    }

    /// Gives out one decision; `None` when there is nothing more to do until the next fact.
    pub fn poll(&mut self) -> Option<DeskAction> {
        loop {
            if let Some(action) = self.out.pop_front() {
                return Some(action);
            }
            if let Some(request) = self.touched.pop_first() {
                self.give_out(request);
            } else if !self.do_what_is_due() && !self.begin_wide() {
                return None;
            }
        }
    }

    /// Time by which `on` must be called, with `DeskEvent::Tick` if nothing else has happened.
    #[must_use]
    pub fn next_timeout(&self) -> Time {
        let timers = self.timers.first().map(|(time, _)| *time).into_iter().chain(self.silences.next_timeout());
        let timers = timers.chain(self.wide.first_arrival().map(|arrived| arrived + self.config.journey.deadline));
        timers.fold(self.next_renewal, Time::min)
    }

    /// Number of requests that have begun and not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        self.requests.len()
    }

    fn submit(&mut self, submission: Submission) {
        let request = submission.parts.id;
        match (self.stage, submission.width) {
            (Stage::ShuttingDown, _) => self.refuse(request, shutting_down()),
            (Stage::Serving, Width::Narrow) => self.begin(self.now, submission),
            (Stage::Serving, Width::Wide(group)) => self.wide.wait(self.now, group, submission),
        }
    }

    /// Begins a request that came at `arrived`: it may have waited for its turn, and its deadline does not wait.
    fn begin(&mut self, arrived: Time, submission: Submission) {
        let id = submission.parts.id;
        let wide_choices = match submission.width {
            Width::Narrow => 0,
            Width::Wide(_) => submission.parts.choices,
        };
        let journey = Journey::new(self.now, submission.parts, self.config.journey).arrived(arrived);
        self.requests.insert(id, Entry { journey, timer: None, wide_choices });
        self.tell(id, JourneyEvent::Tick);
    }

    /// Begins the wide requests whose turn it is; returns whether there was one.
    fn begin_wide(&mut self) -> bool {
        let choices_max = self.config.wide_choices_max.saturating_mul(self.generators.max(1));
        let mut any = false;
        while let Some((arrived, submission)) = self.wide.next(choices_max) {
            self.begin(arrived, submission);
            any = true;
        }
        any
    }

    /// Ends a request that has not begun.
    fn refuse(&mut self, request: RequestId, failure: Failure) {
        self.out.push_back(DeskAction::End { request, ending: Ending::Failed(failure) });
    }

    /// Feeds one journey. The event is dropped if the request has ended.
    fn tell(&mut self, request: RequestId, event: JourneyEvent) {
        if let Some(entry) = self.requests.get_mut(&request) {
            entry.journey.on(self.now, event, &mut self.routing);
            self.touched.insert(request);
            self.tell_treated();
        }
    }

    fn tell_treated(&mut self) {
        while let Some((worker, treatment)) = self.routing.next_treated() {
            self.out.push_back(DeskAction::Treat(worker, treatment));
        }
    }

    fn tell_all(&mut self, event: &JourneyEvent) {
        let requests: Vec<RequestId> = self.requests.keys().copied().collect();
        for request in requests {
            self.tell(request, event.clone());
        }
    }

    fn give_out(&mut self, request: RequestId) {
        let Some(entry) = self.requests.get_mut(&request) else { return };
        while let Some(action) = entry.journey.poll() {
            self.out.push_back(about(request, action));
        }
        let due = entry.journey.next_timeout();
        if entry.timer != due {
            entry.timer.map(|old| self.timers.remove(&(old, request)));
            due.map(|due| self.timers.insert((due, request)));
            entry.timer = due;
        }
        if entry.journey.is_over() {
            self.wide.ended(entry.wide_choices);
            self.requests.remove(&request);
        }
    }

    fn do_what_is_due(&mut self) -> bool {
        let now = self.now;
        if self.next_timeout() > now {
            return false;
        }
        while let Some((time, request)) = self.timers.first().copied()
            && time <= now
        {
            self.timers.pop_first();
            if let Some(entry) = self.requests.get_mut(&request) {
                entry.timer = None;
            }
            self.tell(request, JourneyEvent::Tick);
        }
        self.notice_silence();
        if now >= self.next_renewal {
            self.next_renewal = now + self.config.renew_every;
            self.renew();
        }
        while let Some(request) = self.wide.overdue(now, self.config.journey.deadline) {
            let failure = Failure::new(FailureKind::DeadlineExceeded, "its turn did not come in time");
            self.refuse(request, failure);
        }
        true
    }

    fn renew(&mut self) {
        let mut legs: BTreeMap<WorkerId, Vec<Leg>> = BTreeMap::new();
        for (worker, leg) in self.requests.values().flat_map(|entry| entry.journey.bound()) {
            legs.entry(worker).or_default().push(leg);
        }
        for (worker, legs) in legs {
            let some = legs.chunks(RENEW_LEGS_MAX).map(|some| ToWorker::Renew(some.to_vec()));
            self.out.extend(some.map(|word| DeskAction::Tell(worker, word)));
        }
    }

    fn shut_down(&mut self) {
        self.stage = Stage::ShuttingDown;
        for request in self.wide.all() {
            self.refuse(request, shutting_down());
        }
        self.tell_all(&JourneyEvent::GivenUp(shutting_down()));
    }
}

fn about(request: RequestId, action: JourneyAction) -> DeskAction {
    match action {
        JourneyAction::Send { worker, message } => DeskAction::Tell(worker, message),
        JourneyAction::Placed { leg, chosen } => DeskAction::Placed { leg, chosen },
        JourneyAction::Deliver(delivery) => DeskAction::Deliver { request, delivery },
        JourneyAction::DeliverScores(scores) => DeskAction::DeliverScores { request, scores },
        JourneyAction::FinishChoice { choice, reason } => DeskAction::FinishChoice { request, choice, reason },
        JourneyAction::Retry { failure } => DeskAction::Retry { request, failure },
        JourneyAction::GaveUpHandoffs { failure, instead } => DeskAction::GaveUpHandoffs { request, failure, instead },
        JourneyAction::End(ending) => DeskAction::End { request, ending },
    }
}

fn shutting_down() -> Failure {
    Failure::new(FailureKind::Unavailable, "the router is shutting down")
}

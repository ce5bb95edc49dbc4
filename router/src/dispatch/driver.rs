//! The task that owns every journey and every worker; knows no text.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use metrics::counter;
use node::admin::Gate;
use node::names;
use proto::session::WorkerUpdate;
use sched::journey::{Ending, Journey, JourneyAction, JourneyConfig, JourneyEvent};
use sched::message::{FromWorker, ToWorker};
use sched::{Failure, FailureKind, Leg, RequestId, Span, Time, WorkerId};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info, warn};

use super::fleet::{Fleet, Routes};
use super::inbox::Outbox;
use super::wide::Wide;
use super::{Batch, Command, Dispatcher, RequestEvent, Submission, View, Width};
use crate::clock::Clock;
use crate::random::Numbers;
use crate::worker::{News, Slot};

/// Facts that are taken in before decisions are performed.
const FACTS_MAX: usize = 1_024;

/// What the task is made of.
pub(crate) struct DriverParts {
    pub(crate) clock: Clock,
    pub(crate) news: mpsc::Receiver<(Slot, News)>,
    pub(crate) addresses: Vec<String>,
    pub(crate) gate: Gate,
    pub(crate) config: crate::Config,
}

/// The task.
pub(crate) struct Driver {
    clock: Clock,
    journey: JourneyConfig,
    commands: mpsc::UnboundedReceiver<Command>,
    news: mpsc::Receiver<(Slot, News)>,
    fleet: Fleet,
    requests: BTreeMap<RequestId, Entry>,
    /// Requests of several choices that wait for their turn.
    wide: Wide,
    wide_choices_max: u32,
    /// When which journey wants to be called again.
    timers: BTreeSet<(Time, RequestId)>,
    /// Journeys with decisions to perform.
    touched: BTreeSet<RequestId>,
    /// Workers that could not take a message.
    failed: Vec<Slot>,
    beat: Span,
    next_beat: Time,
    view: watch::Sender<View>,
    gate: Gate,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    ShuttingDown,
}

struct Entry {
    journey: Journey,
    /// What its client calls it.
    name: Arc<str>,
    first_choice: u32,
    events: Outbox,
    timer: Option<Time>,
    /// Choices that run in turns; none of a request with one.
    wide_choices: u32,
}

/// What woke the task.
enum Fact {
    Command(Command),
    News(Slot, News),
    Timer,
    /// Nobody can send a command any more.
    Orphaned,
}

impl Driver {
    /// The task and the way to talk to it.
    pub(crate) fn new(parts: DriverParts) -> (Driver, Dispatcher) {
        let (sender, commands) = mpsc::unbounded_channel();
        let (view, seen) = watch::channel(View::default());
        let config = &parts.config;
        let driver = Driver {
            clock: parts.clock,
            journey: config.journey(),
            commands,
            news: parts.news,
            fleet: Fleet::new(parts.addresses, config.route.policy(), config.route.config(), config.status_beat()),
            requests: BTreeMap::new(),
            wide: Wide::default(),
            wide_choices_max: config.limits.wide_choices_max,
            timers: BTreeSet::new(),
            touched: BTreeSet::new(),
            failed: Vec::new(),
            beat: config.beat(),
            next_beat: parts.clock.now() + config.beat(),
            view,
            gate: parts.gate,
            stage: Stage::Serving,
        };
        (driver, Dispatcher { commands: sender, numbers: Numbers::new().into(), view: seen })
    }

    /// Runs until every `Dispatcher` is gone.
    pub(crate) async fn run(mut self) {
        loop {
            match self.next_fact().await {
                Fact::Orphaned => return,
                fact => self.take(fact),
            }
            for _ in 0..FACTS_MAX {
                let Some(fact) = self.ready_fact() else { break };
                self.take(fact);
            }
            self.fire_timers();
            self.perform();
        }
    }

    async fn next_fact(&mut self) -> Fact {
        let timers = self.timers.first().map(|(time, _)| *time).into_iter().chain(self.fleet.next_silence());
        let due = timers.fold(self.next_beat, Time::min);
        tokio::select! {
            command = self.commands.recv() => command.map_or(Fact::Orphaned, Fact::Command),
            Some((slot, news)) = self.news.recv() => Fact::News(slot, news),
            () = tokio::time::sleep_until(self.clock.instant(due)) => Fact::Timer,
        }
    }

    fn ready_fact(&mut self) -> Option<Fact> {
        let news = self.news.try_recv().ok().map(|(slot, news)| Fact::News(slot, news));
        news.or_else(|| self.commands.try_recv().ok().map(Fact::Command))
    }

    fn take(&mut self, fact: Fact) {
        match fact {
            Fact::Command(Command::Submit(submission)) => self.submit(*submission),
            Fact::Command(Command::StopChoice { request, choice }) => {
                self.tell(request, JourneyEvent::StopChoice { choice });
            }
            Fact::Command(Command::Gone(request)) => {
                if self.wide.forget(request).is_none() {
                    self.tell(request, JourneyEvent::ClientGone);
                }
            }
            Fact::Command(Command::ShutDown) => self.shut_down(),
            Fact::News(slot, news) => self.take_news(slot, news),
            Fact::Timer | Fact::Orphaned => {}
        }
    }

    fn submit(&mut self, submission: Submission) {
        if self.stage == Stage::ShuttingDown {
            refuse(&submission, shutting_down());
            return;
        }
        match submission.width {
            Width::Narrow => self.begin(submission),
            Width::Wide(group) => self.wide.wait(self.clock.now(), group, submission),
        }
    }

    fn begin(&mut self, submission: Submission) {
        let id = submission.parts.id;
        let wide_choices = match submission.width {
            Width::Narrow => 0,
            Width::Wide(_) => submission.parts.choices,
        };
        let journey = Journey::new(self.clock.now(), submission.parts, self.journey);
        let Submission { name, first_choice, events, .. } = submission;
        self.requests.insert(id, Entry { journey, name, first_choice, events, timer: None, wide_choices });
        self.tell(id, JourneyEvent::Tick);
    }

    /// Begins those of several choices whose turn it is.
    fn begin_wide(&mut self) {
        let choices_max = self.wide_choices_max.saturating_mul(self.fleet.generators().max(1));
        while let Some(submission) = self.wide.next(choices_max) {
            self.begin(submission);
        }
    }

    /// Feeds one journey. A request that has ended needs nothing any more.
    fn tell(&mut self, request: RequestId, event: JourneyEvent) {
        if let Some(entry) = self.requests.get_mut(&request) {
            entry.journey.on(self.clock.now(), event, &mut self.fleet.picker());
            self.touched.insert(request);
        }
    }

    fn tell_all(&mut self, event: &JourneyEvent) {
        let requests: Vec<RequestId> = self.requests.keys().copied().collect();
        for request in requests {
            self.tell(request, event.clone());
        }
    }

    fn take_news(&mut self, slot: Slot, news: News) {
        match news {
            News::Up(welcome, commands) => match self.fleet.up(self.clock.now(), slot, *welcome, commands) {
                Ok(()) => self.routes_changed(Routes::More),
                Err(reason) => error!(worker = self.fleet.name(slot), reason, "worker cannot be used"),
            },
            News::Update(WorkerUpdate::Messages(messages)) => self.take_messages(slot, messages),
            News::Update(WorkerUpdate::Status(status)) => {
                let routes = self.fleet.status(self.clock.now(), slot, status);
                self.routes_changed(routes);
            }
            News::Update(WorkerUpdate::Ended(_)) | News::Down => self.lose(slot),
        }
    }

    fn take_messages(&mut self, slot: Slot, messages: Vec<FromWorker>) {
        let Some(worker) = self.fleet.worker(slot) else { return };
        for message in messages {
            self.tell(message.leg().request, JourneyEvent::FromWorker { worker, message });
        }
    }

    /// The session of `slot` is over, and with it all that its worker did.
    fn lose(&mut self, slot: Slot) {
        if let Some(worker) = self.fleet.down(slot) {
            let name = self.fleet.name(slot).into();
            self.tell_all(&JourneyEvent::WorkerLost { worker, name });
            self.routes_changed(Routes::Same);
        }
    }

    fn routes_changed(&mut self, routes: Routes) {
        let view = View { sequence_tokens_max: self.fleet.sequence_tokens_max() };
        self.view.send_if_modified(|now| std::mem::replace(now, view) != view);
        match view.sequence_tokens_max {
            Some(_) => self.gate.open(),
            None => self.gate.waits_for(self.fleet.lack().to_string()),
        }
        if routes == Routes::More {
            self.tell_all(&JourneyEvent::WorkersChanged);
        }
    }

    fn fire_timers(&mut self) {
        let now = self.clock.now();
        while let Some((time, request)) = self.timers.first().copied()
            && time <= now
        {
            self.timers.pop_first();
            if let Some(entry) = self.requests.get_mut(&request) {
                entry.timer = None;
            }
            self.tell(request, JourneyEvent::Tick);
        }
        while let Some(slot) = self.fleet.silent(now) {
            warn!(worker = self.fleet.name(slot), "a worker that says nothing is given up");
            self.lose(slot);
        }
        if now >= self.next_beat {
            self.next_beat = now + self.beat;
            self.renew();
            for submission in self.wide.overdue(now, self.journey.deadline) {
                refuse(&submission, Failure::new(FailureKind::DeadlineExceeded, "its turn did not come in time"));
            }
        }
    }

    /// Renews the leases of everything that runs, one message per worker.
    fn renew(&mut self) {
        let mut legs: BTreeMap<WorkerId, Vec<Leg>> = BTreeMap::new();
        for entry in self.requests.values() {
            for (worker, leg) in entry.journey.bound() {
                legs.entry(worker).or_default().push(leg);
            }
        }
        for (worker, legs) in legs {
            for some in legs.chunks(proto::limits::RENEW_MAX) {
                self.send(worker, ToWorker::Renew(some.to_vec()));
            }
        }
    }

    /// Performs all decisions; performing one may cause more.
    fn perform(&mut self) {
        loop {
            while let Some(request) = self.touched.pop_first() {
                if let Some(entry) = self.requests.remove(&request) {
                    self.perform_one(request, entry);
                }
            }
            match self.failed.pop() {
                Some(slot) => self.lose(slot),
                None => {
                    self.begin_wide();
                    if self.touched.is_empty() {
                        return;
                    }
                }
            }
        }
    }

    fn perform_one(&mut self, request: RequestId, mut entry: Entry) {
        let batch = self.decisions_of(request, &mut entry);
        let delivered = entry.events.put(batch);
        if delivered.is_err() && !entry.journey.is_over() {
            entry.journey.on(self.clock.now(), JourneyEvent::ClientGone, &mut self.fleet.picker());
            self.touched.insert(request);
        } else if entry.journey.is_over() {
            self.set_timer(request, &mut entry, None);
            self.wide.ended(entry.wide_choices);
            return;
        }
        let due = entry.journey.next_timeout();
        self.set_timer(request, &mut entry, due);
        self.requests.insert(request, entry);
    }

    /// Performs the decisions of one journey and collects what its client is to be told.
    fn decisions_of(&mut self, request: RequestId, entry: &mut Entry) -> Batch {
        let mut batch = Batch::new();
        while let Some(action) = entry.journey.poll() {
            match action {
                JourneyAction::Send { worker, message } => self.send(worker, message),
                JourneyAction::Deliver(delivery) => {
                    let index = entry.first_choice + delivery.choice.0;
                    batch.push(RequestEvent::Token { index, delivery, ended: None });
                }
                JourneyAction::FinishChoice { choice, reason } => {
                    let finished = entry.first_choice + choice.0;
                    // A choice that ended by a stop string has no such token: its client knows already.
                    for event in batch.iter_mut().rev() {
                        if let RequestEvent::Token { index, ended, .. } = event
                            && *index == finished
                        {
                            *ended = Some(reason);
                            break;
                        }
                    }
                }
                JourneyAction::Retry { failure } => {
                    let name = &*entry.name;
                    info!(request = name, id = %request, reason = failure.detail, "request is tried again");
                    counter!(names::RETRIES_TOTAL, "role" => "router", "reason" => failure.kind.label()).increment(1);
                }
                JourneyAction::GaveUpHandoffs { failure, instead } => {
                    let (name, reason, instead) = (&*entry.name, failure.detail, instead.label());
                    warn!(request = name, id = %request, reason, instead, "no hand-off is tried any more");
                    counter!(names::HANDOFFS_GIVEN_UP_TOTAL, "role" => "router", "instead" => instead).increment(1);
                }
                JourneyAction::End(ending) => batch.push(RequestEvent::End { request, ending }),
            }
        }
        batch
    }

    /// A worker that cannot take a message is given up: its session ends and is begun anew.
    fn send(&mut self, worker: WorkerId, message: ToWorker) {
        if let Err((slot, error)) = self.fleet.send(worker, message) {
            warn!(worker = self.fleet.name(slot), %error, "worker is given up");
            self.failed.push(slot);
        }
    }

    fn set_timer(&mut self, request: RequestId, entry: &mut Entry, due: Option<Time>) {
        if entry.timer == due {
            return;
        }
        if let Some(old) = entry.timer {
            self.timers.remove(&(old, request));
        }
        if let Some(due) = due {
            self.timers.insert((due, request));
        }
        entry.timer = due;
    }

    fn shut_down(&mut self) {
        self.stage = Stage::ShuttingDown;
        self.wide.all().iter().for_each(|submission| refuse(submission, shutting_down()));
        let requests: Vec<RequestId> = self.requests.keys().copied().collect();
        debug!(requests = requests.len(), "requests that did not end in time are failed");
        for request in requests {
            if let Some(entry) = self.requests.get(&request) {
                let ending = Ending::Failed(shutting_down());
                // A client that does not read is gone in a moment anyway.
                let _ = entry.events.put(vec![RequestEvent::End { request, ending }]);
            }
            self.tell(request, JourneyEvent::ClientGone);
        }
    }
}

fn shutting_down() -> Failure {
    Failure::new(FailureKind::Unavailable, "the router is shutting down")
}

/// Ends a request that has not begun.
fn refuse(submission: &Submission, failure: Failure) {
    let end = RequestEvent::End { request: submission.parts.id, ending: Ending::Failed(failure) };
    // A client that has gone already needs no answer.
    let _ = submission.events.put(vec![end]);
}

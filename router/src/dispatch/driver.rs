//! The task that drives the router's desk: feeds it the words of clients and workers and carries out its decisions;
//! decides nothing itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::counter;
use node::admin::Gate;
use node::names;
use proto::session::WorkerUpdate;
use sched::cluster::Treatment;
use sched::desk::{self, Desk, DeskAction, DeskEvent};
use sched::journey::{Ending, Instead};
use sched::message::ToWorker;
use sched::route::Routing;
use sched::{Choice, Failure, FinishReason, RequestId, WorkerId};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::fleet::Fleet;
use super::inbox::Outbox;
use super::{Batch, Command, Dispatcher, MODEL, RequestEvent, Submission, View};
use crate::clock::Clock;
use crate::random::Numbers;
use crate::trail::Trail;
use crate::worker::{News, Slot};

/// Most facts that are taken in before decisions are carried out.
const FACTS_MAX: usize = 1_024;

pub(crate) struct DriverParts {
    pub(crate) clock: Clock,
    pub(crate) news: mpsc::Receiver<(Slot, News)>,
    pub(crate) gate: Gate,
    pub(crate) config: crate::Config,
    pub(crate) numbers: Numbers,
}

pub(crate) struct Driver {
    clock: Clock,
    desk: Desk,
    commands: mpsc::UnboundedReceiver<Command>,
    news: mpsc::Receiver<(Slot, News)>,
    fleet: Fleet,
    clients: BTreeMap<RequestId, Client>,
    view: watch::Sender<View>,
    gate: Gate,
}

/// Client that waits for a request.
struct Client {
    trail: Arc<Trail>,
    first_choice: u32,
    events: Outbox,
}

/// Event that woke the task.
enum Fact {
    Command(Command),
    News(Slot, News),
    Timer,
    /// No sender of commands is left.
    Orphaned,
}

/// News of one request, collected to go to its client together.
type Together = Option<(RequestId, Batch)>;

impl Driver {
    pub(crate) fn new(parts: DriverParts) -> (Driver, Dispatcher) {
        let (sender, commands) = mpsc::unbounded_channel();
        let (view, seen) = watch::channel(View::default());
        let config = &parts.config;
        let routing = Routing::new(config.route.policy(), config.route.config());
        let driver = Driver {
            clock: parts.clock,
            desk: Desk::new(parts.clock.now(), config.desk(), routing),
            commands,
            news: parts.news,
            fleet: Fleet::new(&config.workers),
            clients: BTreeMap::new(),
            view,
            gate: parts.gate,
        };
        (driver, Dispatcher { commands: sender, numbers: parts.numbers.into(), view: seen })
    }

    /// Runs until the last `Dispatcher` is dropped.
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
            self.tell(DeskEvent::Tick);
            self.perform();
        }
    }

    async fn next_fact(&mut self) -> Fact {
        let due = self.desk.next_timeout();
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

    fn tell(&mut self, event: DeskEvent) {
        self.desk.on(self.clock.now(), event);
    }

    fn take(&mut self, fact: Fact) {
        match fact {
            Fact::Command(Command::Submit(submission)) => {
                let Submission { parts, trail, first_choice, events, width } = *submission;
                self.clients.insert(parts.id, Client { trail, first_choice, events });
                self.tell(DeskEvent::Submit(Box::new(desk::Submission { parts, width })));
            }
            Fact::Command(Command::StopChoice { request, choice }) => {
                self.tell(DeskEvent::StopChoice { request, choice });
            }
            Fact::Command(Command::Gone(request)) => {
                self.clients.remove(&request);
                self.tell(DeskEvent::ClientGone(request));
            }
            Fact::Command(Command::ShutDown) => self.tell(DeskEvent::ShutDown),
            Fact::News(slot, news) => self.take_news(slot, news),
            Fact::Timer | Fact::Orphaned => {}
        }
    }

    fn take_news(&mut self, slot: Slot, news: News) {
        match news {
            News::Up(welcome, commands) => {
                let (worker, info) = self.fleet.up(slot, *welcome, commands);
                self.tell(DeskEvent::Joined(worker, info));
            }
            News::Update(WorkerUpdate::Messages(messages)) => {
                let Some(worker) = self.fleet.worker(slot) else { return };
                for message in messages {
                    self.tell(DeskEvent::Said(worker, message));
                }
            }
            News::Update(WorkerUpdate::Status(status)) => {
                if let Some((worker, status)) = self.fleet.status(slot, status) {
                    self.tell(DeskEvent::Status(worker, status));
                }
            }
            News::Update(WorkerUpdate::Ended(_)) | News::Down => {
                if let Some(worker) = self.fleet.down(slot) {
                    self.tell(DeskEvent::Left(worker));
                }
            }
        }
    }

    /// Carries out all decisions, including those that carrying out one causes.
    fn perform(&mut self) {
        let mut together: Together = None;
        loop {
            match self.desk.poll() {
                Some(action) => self.carry(action, &mut together),
                None if together.is_some() => self.deliver(together.take()),
                None => return,
            }
        }
    }

    fn carry(&mut self, action: DeskAction, together: &mut Together) {
        match action {
            DeskAction::Tell(worker, message) => {
                self.note_visit(worker, &message);
                self.send(worker, message);
            }
            DeskAction::Placed { leg, chosen } => debug!(%leg, route = ?chosen.route, chosen.reason, "leg is placed"),
            DeskAction::Deliver { request, delivery } => {
                let Some(first) = self.clients.get(&request).map(|client| client.first_choice) else { return };
                let index = first + delivery.choice.0;
                self.news_of(request, together).push(RequestEvent::Token { index, delivery, ended: None });
            }
            DeskAction::DeliverScores { request, scores } => {
                let Some(index) = self.clients.get(&request).map(|client| client.first_choice) else { return };
                self.news_of(request, together).push(RequestEvent::Scores { index, scores });
            }
            DeskAction::FinishChoice { request, choice, reason } => self.finish(request, choice, reason, together),
            DeskAction::Retry { request, failure } => self.retried(request, &failure),
            DeskAction::GaveUpHandoffs { request, failure, instead } => self.gave_up(request, &failure, instead),
            DeskAction::End { request, ending } => self.end(request, ending, together),
            DeskAction::Unused { worker, reason } => {
                warn!(worker = self.fleet.name(worker), reason = &*reason, "no request goes to a worker");
            }
            DeskAction::Treat(worker, treatment) => self.treat(worker, treatment),
            DeskAction::Quiet(worker) => {
                warn!(worker = self.fleet.name(worker), "a worker says nothing; no new work goes to it");
            }
            DeskAction::Returned(worker) => {
                info!(worker = self.fleet.name(worker), "a silent worker is heard again");
            }
            DeskAction::GiveUp(worker) => {
                warn!(worker = self.fleet.name(worker), "a worker that says nothing is given up");
                self.fleet.end(worker);
            }
            DeskAction::View(view) => self.show(&view),
        }
    }

    /// Returns the collection for news of `request`; delivers news of another request first.
    fn news_of<'a>(&mut self, request: RequestId, together: &'a mut Together) -> &'a mut Batch {
        if together.as_ref().is_some_and(|(of, _)| *of != request) {
            self.deliver(together.take());
        }
        &mut together.get_or_insert_with(|| (request, Batch::new())).1
    }

    /// Delivers news to their client, and forgets a client that has gone or reads too slowly.
    fn deliver(&mut self, together: Together) {
        let Some((request, batch)) = together else { return };
        let Some(client) = self.clients.get(&request) else { return };
        let is_over = batch.iter().any(|event| matches!(event, RequestEvent::End { .. }));
        let delivered = client.events.put(batch);
        if is_over || delivered.is_err() {
            self.clients.remove(&request);
        }
        if delivered.is_err() && !is_over {
            self.tell(DeskEvent::ClientGone(request));
        }
    }

    fn finish(&mut self, request: RequestId, choice: Choice, reason: FinishReason, together: &mut Together) {
        let Some(first) = self.clients.get(&request).map(|client| client.first_choice) else { return };
        let finished = first + choice.0;
        // A choice that ended by a stop string has no such token; its client knows already.
        for event in self.news_of(request, together).iter_mut().rev() {
            if let RequestEvent::Token { index, ended, .. } = event
                && *index == finished
            {
                *ended = Some(reason);
                break;
            }
        }
    }

    fn end(&mut self, request: RequestId, ending: Ending, together: &mut Together) {
        if self.clients.contains_key(&request) {
            self.news_of(request, together).push(RequestEvent::End { request, ending });
        }
    }

    fn retried(&self, request: RequestId, failure: &Failure) {
        if let Some(Client { trail, .. }) = self.clients.get(&request) {
            let id = trail.id_beside_name(request);
            info!(request = trail.name(), id, reason = failure.detail, "request is tried again");
            trail.retried();
        }
        counter!(names::RETRIES_TOTAL, "role" => "router", "reason" => failure.kind.label()).increment(1);
    }

    fn gave_up(&self, request: RequestId, failure: &Failure, instead: Instead) {
        let instead = instead.label();
        if let Some(Client { trail, .. }) = self.clients.get(&request) {
            let id = trail.id_beside_name(request);
            warn!(request = trail.name(), id, reason = failure.detail, instead, "no hand-off is tried any more");
        }
        counter!(names::HANDOFFS_GIVEN_UP_TOTAL, "role" => "router", "instead" => instead).increment(1);
    }

    fn treat(&self, worker: WorkerId, treatment: Treatment) {
        let name = self.fleet.name(worker);
        match treatment {
            Treatment::Avoided => {
                counter!(names::WORKER_AVOIDED_TOTAL, "role" => "router", "worker" => name.to_owned()).increment(1);
                warn!(worker = name, "a worker fails what it is given; it is avoided, and tried now and then");
            }
            Treatment::Trusted => info!(worker = name, "a worker that failed serves again"),
        }
    }

    /// Notes in the trail of a request that a leg of it goes to a worker.
    fn note_visit(&self, worker: WorkerId, message: &ToWorker) {
        let leg = match message {
            ToWorker::Submit(request, _) => request.leg,
            ToWorker::Offer(offer) => offer.request.leg,
            ToWorker::Commit(_) | ToWorker::Cancel { .. } | ToWorker::Renew(_) => return,
        };
        if let Some((client, name)) = self.clients.get(&leg.request).zip(self.fleet.shared_name(worker)) {
            client.trail.visits(name);
        }
    }

    /// Sends a message; a worker that cannot take it is given up: its session ends and a new one begins.
    fn send(&mut self, worker: WorkerId, message: ToWorker) {
        if let Err(error) = self.fleet.send(worker, message) {
            warn!(worker = self.fleet.name(worker), %error, "worker is given up");
            self.fleet.end(worker);
            self.tell(DeskEvent::Left(worker));
        }
    }

    fn show(&self, view: &desk::View) {
        let now = View { sequence_tokens_max: view.sequence_tokens_max.get(&MODEL).copied() };
        self.view.send_if_modified(|seen| std::mem::replace(seen, now) != now);
        match &view.lack {
            None => self.gate.open(),
            Some(lack) => self.gate.waits_for(lack.to_string()),
        }
    }
}

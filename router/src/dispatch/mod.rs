//! All requests of a router and all its workers, on one task; knows no HTTP and no text.
//!
//! The task feeds `sched`'s `Desk` with what workers and clients do and carries what it decides. Nothing in it waits: workers' queues and clients' queues are bounded, and whoever is too slow is given up.

mod driver;
mod fleet;
mod inbox;

use std::sync::Arc;

use sched::desk::{Group, Width};
use sched::journey::{Delivery, Ending, Parts};
use sched::{Choice, FinishReason, ModelId, RequestId, SamplingParams, Slo, TokenId};
use tokio::sync::{mpsc, watch};

pub(crate) use driver::{Driver, DriverParts};
pub(crate) use inbox::{Inbox, Unread};

use inbox::Outbox;

use crate::random::Numbers;

/// Talks to the task; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Dispatcher {
    /// Unbounded, but admission bounds the requests, and each sends a handful of commands per prompt.
    commands: mpsc::UnboundedSender<Command>,
    numbers: Arc<Numbers>,
    view: watch::Receiver<View>,
}

/// What the task knows about the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct View {
    /// Longest sequence that some route can hold now; `None` while there is no route.
    pub(crate) sequence_tokens_max: Option<u32>,
}

/// What a request asks of the task.
#[derive(Debug)]
enum Command {
    Submit(Box<Submission>),
    StopChoice {
        request: RequestId,
        choice: Choice,
    },
    Gone(RequestId),
    /// Every request fails, new ones too.
    ShutDown,
}

#[derive(Debug)]
struct Submission {
    parts: Parts,
    /// What its client calls it.
    name: Arc<str>,
    /// The first of the request's choices as the client numbers them.
    first_choice: u32,
    events: Outbox,
    width: Width,
}

/// The one model that a router serves.
const MODEL: ModelId = ModelId(0);

/// News for a client that belong together.
pub(crate) type Batch = Vec<RequestEvent>;

/// Something new of one request.
#[derive(Debug)]
pub(crate) enum RequestEvent {
    /// A token.
    Token {
        /// Its choice as the client numbers them.
        index: u32,
        /// The token.
        delivery: Delivery,
        /// Set when the choice ends with it.
        ended: Option<FinishReason>,
    },
    /// The request is over.
    End {
        /// The request.
        request: RequestId,
        /// How.
        ending: Ending,
    },
}

/// A prompt to be continued.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) prompt: Arc<[TokenId]>,
    pub(crate) choices: u32,
    pub(crate) params: Arc<SamplingParams>,
    pub(crate) slo: Slo,
}

impl Dispatcher {
    /// A number that no other request has; larger than those before.
    pub(crate) fn draw(&self) -> RequestId {
        RequestId(self.numbers.next())
    }

    /// Begins all that one client asked for under its name: where its news come, and the workers' request for each job. The
    /// first one has the number `id`.
    pub(crate) fn submit(
        &self,
        (name, id): (&Arc<str>, RequestId),
        jobs: Vec<Job>,
        unread: &Unread,
    ) -> (Inbox, Vec<RequestId>) {
        let (outbox, inbox) = unread.inbox();
        let choices: u64 = jobs.iter().map(|job| u64::from(job.choices)).sum();
        let width = if choices > 1 { Width::Wide(Group(self.numbers.next())) } else { Width::Narrow };
        let (mut first_choice, mut first_id) = (0, Some(id));
        let submit = |job: Job| {
            let id = first_id.take().unwrap_or_else(|| self.draw());
            let Job { prompt, choices, params, slo } = job;
            let parts = Parts { id, model: MODEL, prompt, choices, params, slo };
            let name = Arc::clone(name);
            let submission = Submission { parts, name, first_choice, events: outbox.clone(), width };
            first_choice += choices;
            self.send(Command::Submit(Box::new(submission)));
            id
        };
        let requests = jobs.into_iter().map(submit).collect();
        (inbox, requests)
    }

    /// A stop string was found: nothing more of this choice is wanted.
    pub(crate) fn stop_choice(&self, request: RequestId, choice: Choice) {
        self.send(Command::StopChoice { request, choice });
    }

    /// Nothing more of this request is wanted. Harmless after its end.
    pub(crate) fn cancel(&self, request: RequestId) {
        self.send(Command::Gone(request));
    }

    /// Fails every request, running and to come.
    pub(crate) fn shut_down(&self) {
        self.send(Command::ShutDown);
    }

    /// What the workers can do now.
    pub(crate) fn view(&self) -> View {
        *self.view.borrow()
    }

    pub(crate) fn seed(&self) -> u64 {
        self.numbers.scattered()
    }

    /// A task that is gone drops the events of every request, which tells their clients.
    fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}

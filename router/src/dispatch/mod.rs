//! One task with all requests of a router and all its workers; knows no HTTP and no text.
//!
//! The task feeds `sched`'s `Desk` with the words of workers and clients and carries out its decisions. It never waits
//! for a peer: queues to workers and clients are bounded, and a peer that is too slow is given up.

mod driver;
mod fleet;
mod inbox;

use std::sync::Arc;

use sched::desk::{Group, Width};
use sched::journey::{Delivery, Ending, Parts};
use sched::{Choice, FinishReason, ModelId, RequestId, SamplingParams, Scores, Slo, TokenId};
use tokio::sync::{mpsc, watch};

pub(crate) use driver::{Driver, DriverParts};
pub(crate) use inbox::{Inbox, Unread};

use inbox::Outbox;

use crate::random::Numbers;
use crate::trail::Trail;

/// Handle of the task; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Dispatcher {
    /// Unbounded, but admission bounds the requests, and each sends a few commands per prompt.
    commands: mpsc::UnboundedSender<Command>,
    numbers: Arc<Numbers>,
    view: watch::Receiver<View>,
}

/// State of the workers as published by the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct View {
    /// Longest sequence that some route can hold now; `None` without a route.
    pub(crate) sequence_tokens_max: Option<u32>,
}

/// Command of a request to the task.
#[derive(Debug)]
enum Command {
    Submit(Box<Submission>),
    StopChoice {
        request: RequestId,
        choice: Choice,
    },
    Gone(RequestId),
    /// Fails all requests, running and new ones.
    ShutDown,
}

#[derive(Debug)]
struct Submission {
    parts: Parts,
    trail: Arc<Trail>,
    /// First choice of this request in the client's numbering.
    first_choice: u32,
    events: Outbox,
    width: Width,
}

/// The one model that a router serves.
const MODEL: ModelId = ModelId(0);

pub(crate) type Batch = Vec<RequestEvent>;

#[derive(Debug)]
pub(crate) enum RequestEvent {
    Token {
        /// Choice in the client's numbering.
        index: u32,
        delivery: Delivery,
        /// Set when the choice ends with this token.
        ended: Option<FinishReason>,
    },
    Scores {
        /// First choice of the prompt in the client's numbering.
        index: u32,
        scores: Scores,
    },
    End {
        request: RequestId,
        ending: Ending,
    },
}

/// Prompt to be continued.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) prompt: Arc<[TokenId]>,
    pub(crate) choices: u32,
    pub(crate) params: Arc<SamplingParams>,
    pub(crate) slo: Slo,
}

impl Dispatcher {
    /// Returns a number larger than those of all earlier requests.
    pub(crate) fn draw(&self) -> RequestId {
        RequestId(self.numbers.next())
    }

    /// Begins everything that one client asked for in one request. Returns the queue of its news and a request per job;
    /// the first one gets the number `id`.
    pub(crate) fn submit(
        &self,
        (trail, id): (&Arc<Trail>, RequestId),
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
            let trail = Arc::clone(trail);
            let submission = Submission { parts, trail, first_choice, events: outbox.clone(), width };
            first_choice += choices;
            self.send(Command::Submit(Box::new(submission)));
            id
        };
        let requests = jobs.into_iter().map(submit).collect();
        (inbox, requests)
    }

    /// Ends a choice in which a stop string was found.
    pub(crate) fn stop_choice(&self, request: RequestId, choice: Choice) {
        self.send(Command::StopChoice { request, choice });
    }

    /// Cancels a request; has no effect after its end.
    pub(crate) fn cancel(&self, request: RequestId) {
        self.send(Command::Gone(request));
    }

    pub(crate) fn shut_down(&self) {
        self.send(Command::ShutDown);
    }

    pub(crate) fn view(&self) -> View {
        *self.view.borrow()
    }

    pub(crate) fn seed(&self) -> u64 {
        self.numbers.scattered()
    }

    /// If the task is gone, it has dropped the events of every request, which tells their clients.
    fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}

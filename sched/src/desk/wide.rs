//! Wide requests, which have several choices and wait for their turn; knows no worker.

use std::collections::BTreeMap;

use super::{Group, Submission};
use crate::turns::Turns;
use crate::{RequestId, Span, Time};

/// Wide requests that wait, and the number of choices of those that run.
#[derive(Debug, Default)]
pub(super) struct Wide {
    turns: Turns<Group, RequestId>,
    waiting: BTreeMap<RequestId, (Group, Time, Submission)>,
}

impl Wide {
    pub(super) fn wait(&mut self, now: Time, group: Group, submission: Submission) {
        let (id, choices) = (submission.parts.id, submission.parts.choices);
        self.turns.wait(group, id, choices);
        self.waiting.insert(id, (group, now, submission));
    }

    /// Takes out the request whose turn is next, if it fits into `choices_max` running choices.
    pub(super) fn next(&mut self, choices_max: u32) -> Option<Submission> {
        let (request, _) = self.turns.next(choices_max)?;
        self.waiting.remove(&request).map(|(_, _, submission)| submission)
    }

    pub(super) fn ended(&mut self, choices: u32) {
        self.turns.ended(choices);
    }

    /// Takes out a request that still waits; returns whether it did.
    pub(super) fn forget(&mut self, request: RequestId) -> bool {
        let Some((group, ..)) = self.waiting.remove(&request) else { return false };
        self.turns.forget(group, request);
        true
    }

    /// Takes out requests that have waited for longer than `deadline`.
    pub(super) fn overdue(&mut self, now: Time, deadline: Span) -> Vec<RequestId> {
        let late = |(_, (_, since, _)): &(&RequestId, &(Group, Time, Submission))| now.since(*since) > deadline;
        let late: Vec<RequestId> = self.waiting.iter().filter(late).map(|(request, _)| *request).collect();
        late.into_iter().filter(|request| self.forget(*request)).collect()
    }

    pub(super) fn all(&mut self) -> Vec<RequestId> {
        let all: Vec<RequestId> = self.waiting.keys().copied().collect();
        all.into_iter().filter(|request| self.forget(*request)).collect()
    }
}

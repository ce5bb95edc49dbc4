//! Requests of several choices that wait for their turn; knows no worker.

use std::collections::BTreeMap;

use super::{Group, Submission};
use crate::turns::Turns;
use crate::{RequestId, Span, Time};

/// Those that wait, and how many choices of such requests run.
#[derive(Debug, Default)]
pub(super) struct Wide {
    turns: Turns<Group, RequestId>,
    waiting: BTreeMap<RequestId, (Group, Time, Submission)>,
}

impl Wide {
    /// A request waits from now on.
    pub(super) fn wait(&mut self, now: Time, group: Group, submission: Submission) {
        let (id, choices) = (submission.parts.id, submission.parts.choices);
        self.turns.wait(group, id, choices);
        self.waiting.insert(id, (group, now, submission));
    }

    /// The next one whose turn it is while no more than `choices_max` choices run.
    pub(super) fn next(&mut self, choices_max: u32) -> Option<Submission> {
        let (request, _) = self.turns.next(choices_max)?;
        self.waiting.remove(&request).map(|(_, _, submission)| submission)
    }

    /// One with so many choices, which had begun, has ended.
    pub(super) fn ended(&mut self, choices: u32) {
        self.turns.ended(choices);
    }

    /// Takes one out that still waits; whether it did.
    pub(super) fn forget(&mut self, request: RequestId) -> bool {
        let Some((group, ..)) = self.waiting.remove(&request) else { return false };
        self.turns.forget(group, request);
        true
    }

    /// Takes out those that have waited for longer than `deadline`.
    pub(super) fn overdue(&mut self, now: Time, deadline: Span) -> Vec<RequestId> {
        let late = |(_, (_, since, _)): &(&RequestId, &(Group, Time, Submission))| now.since(*since) > deadline;
        let late: Vec<RequestId> = self.waiting.iter().filter(late).map(|(request, _)| *request).collect();
        late.into_iter().filter(|request| self.forget(*request)).collect()
    }

    /// Takes out all.
    pub(super) fn all(&mut self) -> Vec<RequestId> {
        let all: Vec<RequestId> = self.waiting.keys().copied().collect();
        all.into_iter().filter(|request| self.forget(*request)).collect()
    }
}

//! Wide requests, which have several choices and wait for their turn; knows no worker.

use std::collections::{BTreeMap, BTreeSet};

use super::{Group, Submission};
use crate::turns::Turns;
use crate::{RequestId, Span, Time};

/// Wide requests that wait, and the number of choices of those that run.
#[derive(Debug, Default)]
pub(super) struct Wide {
    turns: Turns<Group, RequestId>,
    waiting: BTreeMap<RequestId, (Group, Time, Submission)>,
    by_arrival: BTreeSet<(Time, RequestId)>,
}

impl Wide {
    pub(super) fn wait(&mut self, now: Time, group: Group, submission: Submission) {
        let (id, choices) = (submission.parts.id, submission.parts.choices);
        self.turns.wait(group, id, choices);
        self.waiting.insert(id, (group, now, submission));
        self.by_arrival.insert((now, id));
    }

    /// Takes out the request whose turn is next, if it fits into `choices_max` running choices; also returns when it came.
    pub(super) fn next(&mut self, choices_max: u32) -> Option<(Time, Submission)> {
        let (request, _) = self.turns.next(choices_max)?;
        self.remove(request).map(|(_, arrived, submission)| (arrived, submission))
    }

    pub(super) fn ended(&mut self, choices: u32) {
        self.turns.ended(choices);
    }

    /// Takes out a request that still waits; returns whether it did.
    pub(super) fn forget(&mut self, request: RequestId) -> bool {
        let Some((group, ..)) = self.remove(request) else { return false };
        self.turns.forget(group, request);
        true
    }

    /// Arrival of the one that has waited longest.
    pub(super) fn first_arrival(&self) -> Option<Time> {
        self.by_arrival.first().map(|(arrived, _)| *arrived)
    }

    /// Takes out a request that has waited for `deadline`, if there is one.
    pub(super) fn overdue(&mut self, now: Time, deadline: Span) -> Option<RequestId> {
        let (_, request) = self.by_arrival.first().copied().filter(|(arrived, _)| *arrived + deadline <= now)?;
        self.forget(request).then_some(request)
    }

    pub(super) fn all(&mut self) -> Vec<RequestId> {
        let all: Vec<RequestId> = self.waiting.keys().copied().collect();
        all.into_iter().filter(|request| self.forget(*request)).collect()
    }

    fn remove(&mut self, request: RequestId) -> Option<(Group, Time, Submission)> {
        let removed = self.waiting.remove(&request)?;
        self.by_arrival.remove(&(removed.1, request));
        Some(removed)
    }
}

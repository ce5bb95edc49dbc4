//! A giver's memory of the releases it has answered with `Ok`, so that a repeated question gets the same answer.

use std::collections::{BTreeSet, VecDeque};

use crate::message::ReleaseAnswer;
use crate::{InstanceId, LeaseId, Span, Time};

/// Answers of the last lease span, each for the one reader that got it. Any other release was late or foreign.
#[derive(Debug)]
pub struct ReleaseAnswers {
    keep: Span,
    released: BTreeSet<(LeaseId, InstanceId)>,
    order: VecDeque<(Time, (LeaseId, InstanceId))>,
}

impl ReleaseAnswers {
    /// Creates a memory that keeps every answer for `keep`, one lease span.
    #[must_use]
    pub fn new(keep: Span) -> ReleaseAnswers {
        ReleaseAnswers { keep, released: BTreeSet::new(), order: VecDeque::new() }
    }

    /// Remembers that `reader` was answered with `Ok` for `lease` at `now`.
    pub fn remember(&mut self, now: Time, lease: LeaseId, reader: InstanceId) {
        self.forget(now);
        if self.released.insert((lease, reader)) {
            self.order.push_back((now + self.keep, (lease, reader)));
        }
    }

    /// Returns the answer to a repeated release of `lease` by `reader` at `now`.
    pub fn recall(&mut self, now: Time, lease: LeaseId, reader: InstanceId) -> ReleaseAnswer {
        self.forget(now);
        match self.released.contains(&(lease, reader)) {
            true => ReleaseAnswer::Ok,
            false => ReleaseAnswer::Expired,
        }
    }

    fn forget(&mut self, now: Time) {
        while let Some((until, answered)) = self.order.front().copied()
            && until <= now
        {
            self.order.pop_front();
            self.released.remove(&answered);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_the_same_for_one_lease_and_forgotten_after_it() {
        let mut answers = ReleaseAnswers::new(Span(30));
        let (reader, other) = (InstanceId(7), InstanceId(8));
        answers.remember(Time(5), LeaseId(1), reader);
        assert_eq!(answers.recall(Time(34), LeaseId(1), reader), ReleaseAnswer::Ok);
        assert_eq!(answers.recall(Time(34), LeaseId(1), other), ReleaseAnswer::Expired, "it was not told to this one");
        assert_eq!(answers.recall(Time(34), LeaseId(2), reader), ReleaseAnswer::Expired);
        assert_eq!(answers.recall(Time(35), LeaseId(1), reader), ReleaseAnswer::Expired);
        assert!(answers.order.is_empty() && answers.released.is_empty());
    }
}

//! A giver's memory of the releases it has answered with `Ok`, so that a repeated question gets the same answer.

use std::collections::{BTreeSet, VecDeque};

use crate::message::ReleaseAnswer;
use crate::{LeaseId, Span, Time};

/// Answers of the last lease span. A lease it does not know was never released in time.
#[derive(Debug)]
pub struct ReleaseAnswers {
    keep: Span,
    released: BTreeSet<LeaseId>,
    order: VecDeque<(Time, LeaseId)>,
}

impl ReleaseAnswers {
    /// A memory that keeps every answer for `keep`, one lease span.
    #[must_use]
    pub fn new(keep: Span) -> ReleaseAnswers {
        ReleaseAnswers { keep, released: BTreeSet::new(), order: VecDeque::new() }
    }

    /// `lease` was answered with `Ok` at `now`.
    pub fn remember(&mut self, now: Time, lease: LeaseId) {
        self.forget(now);
        if self.released.insert(lease) {
            self.order.push_back((now + self.keep, lease));
        }
    }

    /// What a repeated release of `lease` is told at `now`.
    pub fn recall(&mut self, now: Time, lease: LeaseId) -> ReleaseAnswer {
        self.forget(now);
        match self.released.contains(&lease) {
            true => ReleaseAnswer::Ok,
            false => ReleaseAnswer::Expired,
        }
    }

    fn forget(&mut self, now: Time) {
        while let Some((until, lease)) = self.order.front().copied()
            && until <= now
        {
            self.order.pop_front();
            self.released.remove(&lease);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_the_same_for_one_lease_and_forgotten_after_it() {
        let mut answers = ReleaseAnswers::new(Span(30));
        answers.remember(Time(5), LeaseId(1));
        assert_eq!(answers.recall(Time(34), LeaseId(1)), ReleaseAnswer::Ok);
        assert_eq!(answers.recall(Time(34), LeaseId(2)), ReleaseAnswer::Expired);
        assert_eq!(answers.recall(Time(35), LeaseId(1)), ReleaseAnswer::Expired);
        assert!(answers.order.is_empty() && answers.released.is_empty());
    }
}

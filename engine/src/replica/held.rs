//! Words about legs whose grammar is being compiled: they wait here, so that no step does; knows no scheduler.
//!
//! A sequence in a step samples, and a sequence without a mask would let the whole step wait. So what lets a leg sample is
//! held back: the submission of a prompt, and the commit of a hand-off, whose offer must not wait.

use std::time::{Duration, Instant};

use sched::message::ToWorker;
use sched::{Leg, Span, Structure};

use crate::structure::Preparing;

/// Longest wait. Beside the first grammar of a worker, its vocabulary is read.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Interval at which words that are held back are looked at.
pub(super) const LOOK: Span = Span::from_ms(1);
/// Most legs that wait; further ones are compiled when they are sampled.
const LEGS_MAX: usize = 1024;

/// Legs that wait for their grammar.
#[derive(Default)]
pub(super) struct Held {
    legs: Vec<Waiting>,
}

struct Waiting {
    leg: Leg,
    preparing: Preparing,
    until: Instant,
    /// What lets the leg sample, if it has come.
    word: Option<ToWorker>,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.legs.is_empty()
    }

    /// Takes a word and returns those that the scheduler may have now, in order. `prepare` begins to compile a grammar;
    /// `None` if nobody does.
    pub(super) fn take(
        &mut self,
        word: ToWorker,
        now: Instant,
        prepare: impl FnOnce(&Structure) -> Option<Preparing>,
    ) -> Vec<ToWorker> {
        match word {
            ToWorker::Submit(request, work) => {
                let structure = request.params.structure.clone();
                let (leg, word) = (request.leg, ToWorker::Submit(request, work));
                match self.awaits(structure.as_deref(), prepare) {
                    Some(preparing) => {
                        self.hold(leg, preparing, now, Some(word));
                        Vec::new()
                    }
                    None => vec![word],
                }
            }
            ToWorker::Offer(offer) => {
                if let Some(preparing) = self.awaits(offer.request.params.structure.as_deref(), prepare) {
                    self.hold(offer.request.leg, preparing, now, None);
                }
                vec![ToWorker::Offer(offer)]
            }
            ToWorker::Commit(commit) => match self.legs.iter_mut().find(|waiting| waiting.leg == commit.leg) {
                Some(waiting) if waiting.word.is_none() && !waiting.preparing.is_over() => {
                    waiting.word = Some(ToWorker::Commit(commit));
                    Vec::new()
                }
                Some(_) | None => vec![ToWorker::Commit(commit)],
            },
            ToWorker::Cancel { leg, choice } => {
                let held = self.legs.extract_if(.., |waiting| waiting.leg == leg).filter_map(|waiting| waiting.word);
                held.chain([ToWorker::Cancel { leg, choice }]).collect()
            }
            ToWorker::Renew(legs) => vec![ToWorker::Renew(legs)],
        }
    }

    /// Returns the words whose grammar is compiled, or which have waited long enough.
    pub(super) fn ready(&mut self, now: Instant) -> Vec<ToWorker> {
        let is_over = |waiting: &mut Waiting| waiting.preparing.is_over() || now >= waiting.until;
        self.legs.extract_if(.., is_over).filter_map(|waiting| waiting.word).collect()
    }

    /// Begins to compile; `None` if there is nothing to wait for.
    fn awaits(
        &self,
        structure: Option<&Structure>,
        prepare: impl FnOnce(&Structure) -> Option<Preparing>,
    ) -> Option<Preparing> {
        let preparing = prepare(structure?)?;
        (!preparing.is_over() && self.legs.len() < LEGS_MAX).then_some(preparing)
    }

    fn hold(&mut self, leg: Leg, preparing: Preparing, now: Instant, word: Option<ToWorker>) {
        self.legs.push(Waiting { leg, preparing, until: now + WAIT_MAX, word });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sched::message::{Commit, Offer, Work};
    use sched::{Attempt, InstanceId, LeaseId, Request, RequestId, SamplingParams, Slo};

    use super::*;

    fn request(id: u64) -> Request {
        let structure = Structure { grammar: "start: \"a\"".into(), ends: Vec::new() };
        Request {
            leg: leg(id),
            prompt: vec![sched::TokenId(0)].into(),
            choices: Vec::new(),
            params: Arc::new(SamplingParams { structure: Some(Arc::new(structure)), ..SamplingParams::default() }),
            slo: Slo::default(),
            deadline_in: Span::from_ms(1),
        }
    }

    fn leg(id: u64) -> Leg {
        Leg { request: RequestId(id), attempt: Attempt(0) }
    }

    fn submit(id: u64) -> ToWorker {
        ToWorker::Submit(request(id), Work::Whole)
    }

    fn cancel(id: u64) -> ToWorker {
        ToWorker::Cancel { leg: leg(id), choice: None }
    }

    #[test]
    fn a_submission_waits_for_its_grammar_and_others_do_not() {
        let (mut held, now) = (Held::default(), Instant::now());
        let (preparing, over) = (Preparing::pending(), Preparing::pending());
        over.end();
        assert_eq!(held.take(submit(1), now, |_| Some(preparing.clone())), []);
        assert_eq!(held.take(submit(2), now, |_| Some(over)), [submit(2)], "it is compiled");
        assert_eq!(held.take(submit(3), now, |_| None), [submit(3)], "nobody compiles it");
        assert_eq!(held.take(ToWorker::Renew(vec![leg(1)]), now, |_| None), [ToWorker::Renew(vec![leg(1)])]);
        assert_eq!(held.ready(now), []);
        preparing.end();
        assert_eq!(held.ready(now), [submit(1)]);
        assert!(held.is_empty());
    }

    #[test]
    fn no_wait_is_without_end() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.take(submit(1), now, |_| Some(Preparing::pending()));
        assert_eq!(held.ready(now + WAIT_MAX / 2), []);
        assert_eq!(held.ready(now + WAIT_MAX), [submit(1)]);
    }

    #[test]
    fn a_cancelled_leg_is_heard_of_first() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.take(submit(1), now, |_| Some(Preparing::pending()));
        held.take(submit(2), now, |_| Some(Preparing::pending()));
        assert_eq!(held.take(cancel(1), now, |_| None), [submit(1), cancel(1)]);
        assert_eq!(held.ready(now + WAIT_MAX), [submit(2)]);
    }

    #[test]
    fn of_a_hand_off_the_commit_waits() {
        let (mut held, now) = (Held::default(), Instant::now());
        let preparing = Preparing::pending();
        let offer = ToWorker::Offer(Offer {
            request: request(1),
            giver: InstanceId(1),
            giver_address: "a".into(),
            lease: LeaseId(1),
            blocks: Vec::new(),
        });
        let commit = || ToWorker::Commit(Commit { leg: leg(1), firsts: Vec::new() });
        assert_eq!(held.take(offer.clone(), now, |_| Some(preparing.clone())), [offer]);
        assert_eq!(held.take(commit(), now, |_| None), []);
        preparing.end();
        assert_eq!(held.take(commit(), now, |_| None), [commit()], "one that comes later");
        assert_eq!(held.ready(now), [commit()]);
        assert_eq!(held.take(commit(), now, |_| None), [commit()]);
    }
}

//! Words about legs whose grammar is being compiled: they wait here, so that no step does; knows no scheduler.
//!
//! A sequence in a step samples, and a sequence without a mask would let the whole step wait. So what lets a leg sample is
//! held back: the submission of a prompt, and the commit of a hand-off, whose offer must not wait.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sched::message::{Load, ToWorker};
use sched::{Choice, Leg, Request, Span, Structure};

use crate::structure::Preparing;

/// Longest wait. Beside the first grammar of a worker, its vocabulary is read.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Interval at which words that are held back are looked at.
pub(super) const LOOK: Span = Span::from_ms(1);
/// Most legs that wait; further ones are compiled when they are sampled.
const LEGS_MAX: usize = 1024;
/// Most words about one leg that are held back; a further one lets all of them go.
const WORDS_MAX: usize = 256;

/// Legs that wait for their grammar.
#[derive(Default)]
pub(super) struct Held {
    legs: Vec<Waiting>,
    /// Grammars of the legs that live here, so that none is thrown away, and compiled again in a step, before its leg is
    /// over.
    grammars: BTreeMap<Leg, Preparing>,
}

struct Waiting {
    leg: Leg,
    preparing: Preparing,
    since: Instant,
    until: Instant,
    /// What lets the leg sample, if it has come, and what was said of its choices after that.
    words: Vec<ToWorker>,
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
                let (leg, structure) = (request.leg, request.params.structure.clone());
                let wait = WAIT_MAX.min(Duration::from_micros(request.deadline_in.us()));
                let word = ToWorker::Submit(request, work);
                match self.awaits(leg, structure.as_deref(), prepare) {
                    Some(preparing) => {
                        self.legs.push(Waiting { leg, preparing, since: now, until: now + wait, words: vec![word] });
                        Vec::new()
                    }
                    None => vec![word],
                }
            }
            ToWorker::Offer(offer) => {
                let (leg, structure) = (offer.request.leg, offer.request.params.structure.as_deref());
                if let Some(preparing) = self.awaits(leg, structure, prepare) {
                    let (until, words) = (now + WAIT_MAX, Vec::new());
                    self.legs.push(Waiting { leg, preparing, since: now, until, words });
                }
                vec![ToWorker::Offer(offer)]
            }
            ToWorker::Commit(commit) => match self.legs.iter_mut().find(|waiting| waiting.leg == commit.leg) {
                Some(waiting) if waiting.words.is_empty() && !waiting.preparing.is_over() => {
                    waiting.words.push(ToWorker::Commit(commit));
                    Vec::new()
                }
                Some(_) | None => vec![ToWorker::Commit(commit)],
            },
            ToWorker::Cancel { leg, choice: None } => {
                let mut words = self.let_go(now, |waiting| waiting.leg == leg);
                words.push(ToWorker::Cancel { leg, choice: None });
                words
            }
            ToWorker::Cancel { leg, choice: Some(choice) } => self.cancel_choice(leg, choice, now),
            ToWorker::Renew(legs) => vec![ToWorker::Renew(legs)],
        }
    }

    /// Returns the words whose grammar is compiled, or which have waited long enough.
    pub(super) fn ready(&mut self, now: Instant) -> Vec<ToWorker> {
        self.let_go(now, |waiting| waiting.preparing.is_over() || now >= waiting.until)
    }

    /// Forgets the grammar of a leg that is over.
    pub(super) fn over(&mut self, leg: Leg) {
        self.grammars.remove(&leg);
    }

    /// Counts the submissions that wait here, of which the scheduler knows nothing.
    pub(super) fn add_to(&self, load: &mut Load) {
        let submitted = self.legs.iter().flat_map(|waiting| &waiting.words).filter_map(|word| match word {
            ToWorker::Submit(request, _) => Some(request),
            ToWorker::Offer(_) | ToWorker::Commit(_) | ToWorker::Cancel { .. } | ToWorker::Renew(_) => None,
        });
        for request in submitted {
            load.waiting += 1;
            load.waiting_tokens += request.prefill_tokens() as u64;
        }
    }

    /// A word about one choice stays behind the words that are held back: the scheduler may not know the leg yet.
    fn cancel_choice(&mut self, leg: Leg, choice: Choice, now: Instant) -> Vec<ToWorker> {
        let word = ToWorker::Cancel { leg, choice: Some(choice) };
        let Some(waiting) = self.legs.iter_mut().find(|waiting| waiting.leg == leg && !waiting.words.is_empty()) else {
            return vec![word];
        };
        waiting.words.push(word);
        let is_full = |waiting: &Waiting| waiting.leg == leg && waiting.words.len() > WORDS_MAX;
        self.let_go(now, is_full)
    }

    fn let_go(&mut self, now: Instant, which: impl Fn(&Waiting) -> bool) -> Vec<ToWorker> {
        let gone = self.legs.extract_if(.., |waiting| which(waiting));
        gone.flat_map(|waiting| waiting.words_after(now)).collect()
    }

    /// Begins to compile; `None` if there is nothing to wait for.
    fn awaits(
        &mut self,
        leg: Leg,
        structure: Option<&Structure>,
        prepare: impl FnOnce(&Structure) -> Option<Preparing>,
    ) -> Option<Preparing> {
        let preparing = prepare(structure?)?;
        self.grammars.insert(leg, preparing.clone());
        (!preparing.is_over() && self.legs.len() < LEGS_MAX).then_some(preparing)
    }
}

impl Waiting {
    /// Its words, as they are after the wait: a deadline counts from when the worker got its request.
    fn words_after(self, now: Instant) -> Vec<ToWorker> {
        let waited = Span(u64::try_from(now.duration_since(self.since).as_micros()).unwrap_or(u64::MAX));
        let late = |word: ToWorker| match word {
            ToWorker::Submit(request, work) => {
                let deadline_in = Span(request.deadline_in.us().saturating_sub(waited.us()));
                ToWorker::Submit(Request { deadline_in, ..request }, work)
            }
            other @ (ToWorker::Offer(_) | ToWorker::Commit(_) | ToWorker::Cancel { .. } | ToWorker::Renew(_)) => other,
        };
        self.words.into_iter().map(late).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sched::message::{Commit, Offer, Work};
    use sched::{Attempt, InstanceId, LeaseId, RequestId, SamplingParams, Slo};

    use super::*;

    const DEADLINE_IN: Span = Span::from_secs(60);

    fn request(id: u64, deadline_in: Span) -> Request {
        let structure = Structure { grammar: "start: \"a\"".into(), ends: Vec::new() };
        Request {
            leg: leg(id),
            prompt: vec![sched::TokenId(0); 3].into(),
            choices: Vec::new(),
            params: Arc::new(SamplingParams { structure: Some(Arc::new(structure)), ..SamplingParams::default() }),
            slo: Slo::default(),
            deadline_in,
        }
    }

    fn leg(id: u64) -> Leg {
        Leg { request: RequestId(id), attempt: Attempt(0) }
    }

    fn submit(id: u64) -> ToWorker {
        submit_within(id, DEADLINE_IN)
    }

    fn submit_within(id: u64, deadline_in: Span) -> ToWorker {
        ToWorker::Submit(request(id, deadline_in), Work::Whole)
    }

    fn offer(id: u64) -> ToWorker {
        ToWorker::Offer(Offer {
            request: request(id, DEADLINE_IN),
            giver: InstanceId(1),
            giver_address: "a".into(),
            lease: LeaseId(1),
            blocks: Vec::new(),
        })
    }

    fn commit(id: u64) -> ToWorker {
        ToWorker::Commit(Commit { leg: leg(id), firsts: Vec::new() })
    }

    fn cancel(id: u64) -> ToWorker {
        ToWorker::Cancel { leg: leg(id), choice: None }
    }

    fn cancel_choice(id: u64, choice: u32) -> ToWorker {
        ToWorker::Cancel { leg: leg(id), choice: Some(Choice(choice)) }
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
        assert_eq!(held.ready(now + WAIT_MAX), [submit_within(1, Span::from_secs(50))]);
    }

    #[test]
    fn the_deadline_counts_from_when_the_request_came() {
        let (mut held, now) = (Held::default(), Instant::now());
        let (preparing, short) = (Preparing::pending(), Span::from_ms(20));
        held.take(submit_within(1, short), now, |_| Some(Preparing::pending()));
        held.take(submit_within(2, short), now, |_| Some(preparing.clone()));
        let ms = Duration::from_millis;
        assert_eq!(held.ready(now + ms(15)), []);
        preparing.end();
        assert_eq!(held.ready(now + ms(15)), [submit_within(2, Span::from_ms(5))]);
        assert_eq!(held.ready(now + ms(21)), [submit_within(1, Span(0))], "the scheduler says that it is too late");
    }

    #[test]
    fn a_cancelled_leg_is_heard_of_first() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.take(submit(1), now, |_| Some(Preparing::pending()));
        held.take(submit(2), now, |_| Some(Preparing::pending()));
        assert_eq!(held.take(cancel(1), now, |_| None), [submit(1), cancel(1)]);
        assert_eq!(held.ready(now + WAIT_MAX), [submit_within(2, Span::from_secs(50))]);
    }

    #[test]
    fn of_a_hand_off_the_commit_waits() {
        let (mut held, now) = (Held::default(), Instant::now());
        let preparing = Preparing::pending();
        assert_eq!(held.take(offer(1), now, |_| Some(preparing.clone())), [offer(1)]);
        assert_eq!(held.take(commit(1), now, |_| None), []);
        preparing.end();
        assert_eq!(held.take(commit(1), now, |_| None), [commit(1)], "one that comes later");
        assert_eq!(held.ready(now), [commit(1)]);
        assert_eq!(held.take(commit(1), now, |_| None), [commit(1)]);
    }

    /// Found by reading: the end of one choice let the whole leg into a step without its grammar.
    #[test]
    fn the_end_of_a_choice_ends_no_wait_and_comes_in_its_order() {
        let (mut held, now) = (Held::default(), Instant::now());
        let preparing = Preparing::pending();
        held.take(submit(1), now, |_| Some(preparing.clone()));
        held.take(offer(2), now, |_| Some(preparing.clone()));
        assert_eq!(held.take(cancel_choice(1, 0), now, |_| None), [], "the scheduler does not know the leg");
        assert_eq!(held.take(cancel_choice(2, 0), now, |_| None), [cancel_choice(2, 0)], "it knows the offer");
        held.take(commit(2), now, |_| None);
        assert_eq!(held.take(cancel_choice(2, 1), now, |_| None), []);
        preparing.end();
        assert_eq!(held.ready(now), [submit(1), cancel_choice(1, 0), commit(2), cancel_choice(2, 1)]);
        assert_eq!(held.take(cancel_choice(1, 1), now, |_| None), [cancel_choice(1, 1)]);
    }

    #[test]
    fn a_leg_holds_back_so_many_words() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.take(submit(1), now, |_| Some(Preparing::pending()));
        for _ in 1..WORDS_MAX {
            assert_eq!(held.take(cancel_choice(1, 0), now, |_| None), []);
        }
        assert_eq!(held.take(cancel_choice(1, 0), now, |_| None).len(), WORDS_MAX + 1);
        assert!(held.is_empty());
    }

    #[test]
    fn submissions_that_wait_count_as_load() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.take(submit(1), now, |_| Some(Preparing::pending()));
        held.take(submit(2), now, |_| Some(Preparing::pending()));
        held.take(cancel_choice(2, 0), now, |_| None);
        held.take(offer(3), now, |_| Some(Preparing::pending()));
        held.take(commit(3), now, |_| None);
        let mut load = Load { waiting: 5, ..Load::default() };
        held.add_to(&mut load);
        assert_eq!((load.waiting, load.waiting_tokens), (7, 6), "the scheduler counts the offer");
    }

    #[test]
    fn a_grammar_is_kept_until_its_leg_is_over() {
        let (mut held, now) = (Held::default(), Instant::now());
        let preparing = Preparing::pending();
        preparing.end();
        held.take(submit(1), now, |_| Some(preparing.clone()));
        held.take(offer(2), now, |_| Some(preparing.clone()));
        assert_eq!(preparing.holders(), 3);
        held.over(leg(1));
        held.over(leg(2));
        assert_eq!(preparing.holders(), 1);
    }
}

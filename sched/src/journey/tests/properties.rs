//! Whatever workers, clients and time do, in whatever order: the promises of a journey hold.

use proptest::prelude::*;

use super::*;
use crate::message::{Commit, FirstTiming, FirstToken, FromWorker, Work};
use crate::{BlockId, LeaseId, Request};

/// A token that must never reach the client.
const POISON: TokenId = TokenId(666_666);

/// Checks every action and remembers enough to act as the workers.
struct Watch {
    world: World,
    journey: Journey,
    now: Time,
    max_tokens: u32,
    delivered: Vec<Vec<TokenId>>,
    finished: Vec<bool>,
    legs: BTreeMap<Attempt, Seen>,
    sent: Vec<(WorkerId, FromWorker)>,
    ending: Option<Ending>,
}

/// One leg as its workers know it.
struct Seen {
    request: Request,
    work: Work,
    /// Workers that got the submission and the offer.
    first: WorkerId,
    reader: Option<WorkerId>,
    at_work: BTreeSet<WorkerId>,
    said: Said,
    reader_may_continue: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    Offered,
    Committed,
}

fn good_token(choice: Choice, index: usize) -> TokenId {
    TokenId(choice.0 * 1_000 + index as u32)
}

fn refuses(message: &FromWorker, leg: Leg) -> bool {
    matches!(message, FromWorker::Failed { leg: failed, .. } if *failed == leg)
}

fn sampled(token: TokenId) -> SampledToken {
    SampledToken { token, logprob: None, top: vec![] }
}

impl Watch {
    fn new(roles: &str, choices: u32, max_tokens: u32) -> Watch {
        let config = JourneyConfig { deadline: Span::from_secs(60), attempts_max: 4, ..config() };
        let mut watch = Watch {
            world: World::new(roles),
            journey: Journey::new(Time(0), parts(choices, max_tokens), config),
            now: Time(0),
            max_tokens,
            delivered: vec![vec![]; choices as usize],
            finished: vec![false; choices as usize],
            legs: BTreeMap::new(),
            sent: vec![],
            ending: None,
        };
        watch.feed(JourneyEvent::Tick);
        watch
    }

    /// Feeds one event and checks every action; returns their number.
    fn feed(&mut self, event: JourneyEvent) -> usize {
        self.world.on(&mut self.journey, self.now, event);
        let actions: Vec<JourneyAction> = std::iter::from_fn(|| self.journey.poll()).collect();
        let count = actions.len();
        for action in actions {
            assert_eq!(self.ending, None, "{action:?} after the end");
            self.check(action);
        }
        let mut bound: Vec<_> = self.journey.bound().map(|(worker, leg)| (worker, leg.attempt)).collect();
        bound.sort_unstable();
        assert_eq!(bound, self.bound(), "whose leases the router renews");
        assert_eq!(self.journey.next_timeout().is_none(), self.ending.is_some());
        count
    }

    fn check(&mut self, action: JourneyAction) {
        match action {
            JourneyAction::Send { worker, message } => self.check_message(worker, message),
            JourneyAction::Placed { leg, .. } => assert!(!self.legs.contains_key(&leg.attempt), "placed twice"),
            JourneyAction::Deliver(delivery) => {
                let have = &mut self.delivered[delivery.choice.0 as usize];
                assert!(!self.finished[delivery.choice.0 as usize], "a token of a finished choice");
                assert_eq!(delivery.index as usize, have.len(), "a gap or a repeat");
                assert_eq!(delivery.token.token, good_token(delivery.choice, have.len()));
                have.push(delivery.token.token);
                assert!(have.len() <= self.max_tokens as usize);
            }
            JourneyAction::DeliverScores(_) => panic!("nobody has scored"),
            JourneyAction::FinishChoice { choice, .. } => {
                assert!(!std::mem::replace(&mut self.finished[choice.0 as usize], true), "finished twice");
            }
            JourneyAction::Retry { failure } => assert!(failure.kind != FailureKind::TooLong),
            JourneyAction::GaveUpHandoffs { failure, .. } => {
                assert!(matches!(failure.kind, FailureKind::KvLost | FailureKind::WorkerLost));
            }
            JourneyAction::End(ending) => {
                assert_eq!(self.bound(), [], "somebody still works on it");
                assert_eq!(ending == Ending::Done, self.finished.iter().all(|finished| *finished));
                self.ending = Some(ending);
            }
        }
    }

    fn check_message(&mut self, worker: WorkerId, message: ToWorker) {
        assert!(self.world.routing.cluster.get(worker).is_some(), "{message:?} to {worker}, which is gone");
        match message {
            ToWorker::Submit(request, work) => {
                for state in &request.choices {
                    assert_eq!(state.generated, self.delivered[state.choice.0 as usize]);
                    assert!(!self.finished[state.choice.0 as usize]);
                }
                let seen = Seen::new(request, worker, work);
                assert!(self.legs.insert(seen.request.leg.attempt, seen).is_none(), "an attempt was used twice");
            }
            ToWorker::Offer(offer) => {
                let leg = self.legs.get_mut(&offer.request.leg.attempt).unwrap();
                assert!(leg.at_work.contains(&leg.first) && leg.said != Said::Nothing && leg.reader.is_none());
                assert_eq!(offer.request.choices, leg.request.choices);
                leg.reader = Some(worker);
                leg.at_work.insert(worker);
                // A worker that refused this leg before may refuse it again: its earlier word is no repeat any more.
                let leg = offer.request.leg;
                self.sent.retain(|(from, said)| *from != worker || !refuses(said, leg));
            }
            ToWorker::Commit(commit) => {
                let leg = self.legs.get_mut(&commit.leg.attempt).unwrap();
                assert!(leg.reader == Some(worker) && leg.at_work.contains(&worker));
                assert!(leg.said == Said::Committed && !leg.reader_may_continue);
                leg.reader_may_continue = true;
            }
            ToWorker::Cancel { leg, choice } => {
                let leg = self.legs.get_mut(&leg.attempt).unwrap();
                assert!(leg.at_work.contains(&worker), "cancel to {worker}, whose part is over");
                if choice.is_none() {
                    leg.at_work.remove(&worker);
                }
            }
            ToWorker::Renew(_) => panic!("renewals are the router's"),
        }
    }

    fn bound(&self) -> Vec<(WorkerId, Attempt)> {
        let mut bound: Vec<_> = self.legs.values().flat_map(Seen::bound).collect();
        bound.sort_unstable();
        bound
    }

    /// Says an honest message: true to what the worker was told.
    fn say(&mut self, worker: WorkerId, message: FromWorker) {
        self.sent.push((worker, message.clone()));
        self.feed(JourneyEvent::FromWorker { worker, message });
    }

    /// Says something that the journey must not react to.
    fn whisper(&mut self, worker: WorkerId, message: FromWorker) {
        let shown = format!("{worker} {message:?}");
        assert_eq!(self.feed(JourneyEvent::FromWorker { worker, message }), 0, "reacted to {shown}");
    }

    /// Does the next honest thing of one of the bound workers.
    fn advance(&mut self, which: u32, how: u32) {
        let bound = self.bound();
        let Some((worker, attempt)) = bound.get(which as usize % bound.len().max(1)).copied() else { return };
        let leg = &self.legs[&attempt];
        match (leg.work, leg.first == worker) {
            (Work::Whole, _) => self.generate(worker, attempt, how),
            (Work::Give, true) => self.give(worker, attempt, how),
            (Work::Give, false) if leg.reader_may_continue => self.generate(worker, attempt, how),
            (Work::Give, false) => {}
        }
    }

    fn give(&mut self, worker: WorkerId, attempt: Attempt, how: u32) {
        let leg = self.legs.get_mut(&attempt).unwrap();
        let name = leg.request.leg;
        if leg.said == Said::Nothing {
            leg.said = Said::Offered;
            return self.say(worker, FromWorker::Offered { leg: name, lease: LeaseId(1), blocks: vec![BlockId(1)] });
        }
        if leg.said == Said::Committed {
            // Once the reader has the first tokens it may have read everything.
            if leg.reader_may_continue {
                leg.at_work.remove(&worker);
                self.say(worker, FromWorker::HandedOver { leg: name });
            }
            return;
        }
        leg.said = Said::Committed;
        let mut firsts = Vec::new();
        for (place, state) in leg.request.choices.iter().enumerate() {
            let index = state.generated.len();
            let ends = index + 1 == self.max_tokens as usize || (how >> place).is_multiple_of(4);
            let ended = ends.then_some(FinishReason::Stop);
            firsts.push(FirstToken { choice: state.choice, token: sampled(good_token(state.choice, index)), ended });
        }
        if firsts.iter().all(|first| first.ended.is_some()) {
            leg.at_work.remove(&worker);
        }
        self.say(
            worker,
            FromWorker::Committed { commit: Commit { leg: name, firsts }, timing: FirstTiming::default() },
        );
    }

    fn generate(&mut self, worker: WorkerId, attempt: Attempt, how: u32) {
        let leg = self.legs.get_mut(&attempt).unwrap();
        let open: Vec<Choice> =
            leg.request.choices.iter().map(|s| s.choice).filter(|c| !self.finished[c.0 as usize]).collect();
        let choice = open[how as usize % open.len()];
        let index = self.delivered[choice.0 as usize].len();
        let ends = index + 1 >= self.max_tokens as usize || how.is_multiple_of(5);
        if leg.work == Work::Give {
            leg.at_work.remove(&leg.first);
        }
        if ends && open.len() == 1 {
            leg.at_work.remove(&worker);
        }
        let ended = ends.then_some(FinishReason::Length);
        let token = sampled(good_token(choice, index));
        let name = leg.request.leg;
        self.say(worker, FromWorker::Token { leg: name, choice, index: index as u32, token, ended, timing: None });
    }

    fn fail_part(&mut self, which: u32, how: u32) {
        let bound = self.bound();
        let Some((worker, attempt)) = bound.get(which as usize % bound.len().max(1)).copied() else { return };
        let leg = self.legs.get_mut(&attempt).unwrap();
        leg.at_work.remove(&worker);
        let kinds = [FailureKind::KvLost, FailureKind::Overloaded, FailureKind::WorkerLost, FailureKind::Cancelled];
        let kind = if how.is_multiple_of(13) { FailureKind::TooLong } else { kinds[how as usize % 4] };
        // A reader that does not even begin leaves the giver's blocks to another one.
        if kind == FailureKind::Overloaded && leg.reader == Some(worker) && leg.at_work.contains(&leg.first) {
            (leg.reader, leg.reader_may_continue) = (None, false);
        }
        let leg = leg.request.leg;
        self.say(worker, FromWorker::Failed { leg, failure: Failure::new(kind, "test") });
    }

    fn lose_worker(&mut self, which: u32) {
        let ids: Vec<WorkerId> = self.world.routing.cluster.workers().map(|worker| worker.id).collect();
        let Some(worker) = ids.get(which as usize % ids.len().max(1)).copied() else { return };
        self.world.routing.leave(worker);
        for leg in self.legs.values_mut() {
            leg.at_work.remove(&worker);
        }
        self.feed(JourneyEvent::WorkerLost { worker, name: worker.to_string().into() });
    }

    fn repeat(&mut self, which: u32) {
        if let Some((worker, message)) = self.sent.get(which as usize % self.sent.len().max(1)).cloned() {
            self.whisper(worker, message);
        }
    }

    /// Sends a message about an attempt that is over, or from a worker that has no part in it.
    fn lie(&mut self, which: u32, how: u32) {
        let legs: Vec<Attempt> = self.legs.keys().copied().collect();
        let Some(attempt) = legs.get(which as usize % legs.len().max(1)).copied() else { return };
        let seen = &self.legs[&attempt];
        let (leg, over) = (seen.request.leg, seen.bound().next().is_none());
        let liar = if over { seen.first } else { WorkerId(1_000) };
        let choice = seen.request.choices[0].choice;
        let index = self.delivered[choice.0 as usize].len() as u32;
        let first = FirstToken { choice, token: sampled(POISON), ended: None };
        let message = match how % 6 {
            0 => FromWorker::Token { leg, choice, index, token: sampled(POISON), ended: None, timing: None },
            1 => FromWorker::Offered { leg, lease: LeaseId(2), blocks: vec![] },
            2 => FromWorker::Committed { commit: Commit { leg, firsts: vec![first] }, timing: FirstTiming::default() },
            3 => FromWorker::HandedOver { leg },
            4 => FromWorker::ReaderLost { leg },
            _ => FromWorker::Failed { leg, failure: Failure::new(FailureKind::Internal, "a lie") },
        };
        self.whisper(liar, message);
    }

    fn pass_time(&mut self, ms: u32) {
        self.now = self.now + Span::from_ms(u64::from(ms % 20));
        self.feed(JourneyEvent::Tick);
    }

    fn step(&mut self, (op, which, how): (u8, u32, u32)) {
        match op {
            0..=59 => self.advance(which, how),
            60..=64 => self.fail_part(which, how),
            65..=68 => self.lose_worker(which),
            69..=74 => {
                self.world.join(['p', 'd', 'a'][how as usize % 3]);
                self.feed(JourneyEvent::WorkersChanged);
            }
            75..=82 => self.repeat(which),
            83..=92 => self.lie(which, how),
            93..=97 => self.pass_time(how),
            98 => drop(self.feed(JourneyEvent::StopChoice { choice: Choice(which % self.finished.len() as u32) })),
            _ if how.is_multiple_of(4) => self.client_leaves(),
            _ => {}
        }
    }

    fn client_leaves(&mut self) {
        let bound = self.bound().len();
        let was_over = self.ending.is_some();
        let actions = self.feed(JourneyEvent::ClientGone);
        assert_eq!(actions, if was_over { 0 } else { bound + 1 }, "a cancel for each bound worker, and the end");
    }

    /// Lets all workers be honest and none be lost from here on: the request must end.
    fn finish(&mut self, choose: u32) {
        for letter in ['p', 'd'] {
            self.world.join(letter);
        }
        self.feed(JourneyEvent::WorkersChanged);
        for round in 0..2_000 {
            if self.ending.is_some() {
                return;
            }
            // A reader that refused leaves the giver waiting for another one.
            if round % 10 == 9 {
                self.pass_time(19);
            }
            if self.bound().is_empty() {
                self.now = self.journey.next_timeout().unwrap().max(self.now);
                self.feed(JourneyEvent::Tick);
            }
            self.advance(choose.wrapping_add(round), choose.wrapping_mul(31).wrapping_add(round));
        }
        panic!("no end: bound {:?}, waiting {:?}", self.bound(), self.journey.waiting);
    }
}

impl Seen {
    fn new(request: Request, first: WorkerId, work: Work) -> Seen {
        let at_work = BTreeSet::from([first]);
        Seen { request, work, first, reader: None, at_work, said: Said::Nothing, reader_may_continue: false }
    }

    fn bound(&self) -> impl Iterator<Item = (WorkerId, Attempt)> {
        self.at_work.iter().map(|worker| (*worker, self.request.leg.attempt))
    }
}

proptest! {
    #[test]
    fn one_end_ordered_tokens_and_no_word_to_who_has_let_go(
        roles in prop::sample::select(vec!["ppdd", "pd", "ppdda", "aa", "p", ""]),
        choices in 1_u32..4,
        max_tokens in 1_u32..7,
        ops in prop::collection::vec((0_u8..100, any::<u32>(), any::<u32>()), 0..150),
        choose in any::<u32>(),
    ) {
        let mut watch = Watch::new(roles, choices, max_tokens);
        for op in ops {
            watch.step(op);
        }
        watch.finish(choose);
        prop_assert!(watch.ending.is_some());
        prop_assert_eq!(watch.feed(JourneyEvent::ClientGone), 0);
    }
}

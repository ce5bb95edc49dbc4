//! The world around one scheduler: legs, the tokens that it owes them, and what it has out at its peers.

mod answers;
mod legs;
mod peers;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use self::answers::{picked, told_scores, told_token};
use self::legs::{ChoiceModel, LegModel};
use crate::handoff::{LeaseKey, PullOutcome, Watermark};
use crate::message::{Commit, Envelope, FromWorker, Offer, ReleaseAnswer, ToGiver, ToReader, ToWorker, Work};
use crate::replica::tests::backend::{Effects, FakeBackend, damaged_row};
use crate::replica::tests::oracle;
use crate::replica::{
    Action, Compute, Event, LaneConfig, LaneWork, LeaseConfig, PrefixCache, Progress, Pull, Reading, Replica,
    ReplicaConfig, Transfer,
};
use crate::rng::choice_seed;
use crate::scheduling::Scheduling;
use crate::{
    Attempt, BlockId, Choice, ChoiceState, InstanceId, LaneId, LeaseId, Leg, PullId, Request, RequestId,
    SamplingParams, Slo, Span, StepId, StepResult, Time, TokenId,
};

const BLOCK_TOKENS: u32 = 16;
pub(super) const LAYERS: u32 = 3;
const ROWS: u32 = 24;
const CONTEXT: u32 = 96;
const READER: InstanceId = InstanceId(50);
const STRANGER: InstanceId = InstanceId(51);

#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) family: u32,
    pub(super) prompt: u32,
    pub(super) choices: u32,
    pub(super) max_tokens: u32,
    pub(super) min_tokens: u32,
    pub(super) resumed: u32,
    /// Index of the first choice's token that comes from a damaged row; none does if it is beyond `max_tokens`.
    pub(super) damaged: u32,
}

#[derive(Debug, Clone)]
pub(super) enum Op {
    Whole(Shape),
    Give(Shape),
    Offer(Shape),
    /// One of the lanes that run something, and whether later steps run late.
    FinishStep(u16, Effects),
    FailStep(u16),
    Commit(u16),
    EndPull(u16, PullOutcome),
    /// More of an offered prompt is stored.
    Filled(u16, u32, u32),
    /// A layer of a step that reports progress has run.
    Progress,
    ReaderFollows(u16),
    AnswerRelease(u16, Option<ReleaseAnswer>),
    ReaderReleases(u16),
    ReaderAborts(u16),
    ReaderRenews(u16),
    Stranger(u16),
    Cancel(u16),
    CancelChoice(u16, u32),
    LeaseGone(u16),
    GiverLost(u128),
    GiverMet(u128),
    GiverUnmet(u128),
    GiverDown(u128),
    RenewAll,
    Wait(u64),
    Nonsense(u16),
}

pub(super) struct Model {
    replica: Replica,
    backend: FakeBackend,
    effects: Effects,
    now: Time,
    requests: u64,
    legs: BTreeMap<Leg, LegModel>,
    said_over: BTreeSet<Leg>,
    /// Leases this worker holds at givers, by leg.
    offers: BTreeMap<Leg, (InstanceId, LeaseId)>,
    /// Givers that can be spoken to, and the offers of others.
    met: BTreeSet<InstanceId>,
    unmet: BTreeSet<Leg>,
    asked_for: BTreeSet<InstanceId>,
    pulls: BTreeMap<PullId, Pull>,
    /// Watermarks of prompts at givers that the scheduler was told.
    stored: BTreeMap<Leg, Watermark>,
    telling: BTreeSet<StepId>,
    releases: BTreeMap<Leg, LeaseId>,
    grants: BTreeMap<LeaseId, Vec<BlockId>>,
    leg_of_grant: BTreeMap<LeaseId, Leg>,
    /// Hash of all its decisions.
    pub(super) decisions: u64,
}

impl Model {
    pub(super) fn new(
        works: &[LaneWork],
        blocks_total: u32,
        steps_in_flight: u32,
        (step_layers_max, reading): (u32, Reading),
        scheduling: Scheduling,
    ) -> Model {
        let lane =
            |work: &LaneWork| LaneConfig { work: *work, step_tokens_max: ROWS, step_layers_max, steps_in_flight };
        let config = ReplicaConfig {
            lanes: works.iter().map(lane).collect(),
            blocks_total,
            block_tokens: BLOCK_TOKENS,
            layers: LAYERS,
            vocab: 1000,
            context_max: CONTEXT,
            sequences_max: 4,
            queue_legs_max: 6,
            pulls_per_giver_max: 2,
            pull_tokens_max: 1 << 20,
            reading,
            prefix_cache: PrefixCache::On,
            filling_share: 0.5,
            scheduling,
            lease: LeaseConfig::default(),
            hash_salt: 1,
            lease_key: LeaseKey::new([2; 32]),
        };
        Model {
            backend: FakeBackend::new(&config),
            replica: Replica::new(config).expect("a valid configuration"),
            effects: Effects::Early,
            now: Time(0),
            requests: 0,
            legs: BTreeMap::new(),
            said_over: BTreeSet::new(),
            offers: BTreeMap::new(),
            met: BTreeSet::new(),
            unmet: BTreeSet::new(),
            asked_for: BTreeSet::new(),
            pulls: BTreeMap::new(),
            stored: BTreeMap::new(),
            telling: BTreeSet::new(),
            releases: BTreeMap::new(),
            grants: BTreeMap::new(),
            leg_of_grant: BTreeMap::new(),
            decisions: 0,
        }
    }

    pub(super) fn apply(&mut self, op: Op) {
        match op {
            Op::Whole(shape) => self.submit(&shape, Work::Whole),
            Op::Give(shape) => self.submit(&shape, Work::Give),
            Op::Offer(shape) => self.offer(&shape),
            Op::FinishStep(pick, effects) => {
                self.effects = effects;
                self.finish_step(pick);
            }
            Op::FailStep(pick) => self.fail_step(pick),
            Op::Commit(pick) => self.commit(pick),
            Op::EndPull(pick, outcome) => self.end_pull(pick, outcome),
            Op::AnswerRelease(pick, answer) => self.answer_release(pick, answer),
            Op::ReaderReleases(pick) => self.with_grant(pick, ToGiver::Release),
            Op::ReaderAborts(pick) => self.with_grant(pick, ToGiver::Abort),
            Op::ReaderFollows(pick) => self.with_grant(pick, ToGiver::Follow),
            Op::Filled(pick, tokens, layers) => self.filled(pick, tokens, layers),
            Op::Progress => self.progress(),
            Op::ReaderRenews(pick) => self.with_grant(pick, |lease| ToGiver::Renew(vec![lease])),
            Op::Stranger(pick) => self.stranger(pick),
            Op::Cancel(pick) => self.cancel(pick),
            Op::CancelChoice(pick, choice) => self.cancel_choice(pick, Choice(choice)),
            Op::LeaseGone(pick) => {
                if let Some(leg) = picked(&self.offers, pick) {
                    let (giver, lease) = self.offers[&leg];
                    self.feed(Event::Giver(giver, ToReader::Gone(vec![lease])));
                }
            }
            Op::GiverMet(giver) => self.giver_met(InstanceId(giver)),
            Op::GiverUnmet(giver) => self.giver_unmet(InstanceId(giver)),
            Op::GiverDown(giver) => self.giver_down(InstanceId(giver)),
            Op::GiverLost(giver) => self.giver_lost(InstanceId(giver)),
            Op::RenewAll => {
                let legs = self.legs.keys().copied().collect();
                self.feed(Event::Router(ToWorker::Renew(legs)));
                self.feed(Event::Reader(READER, ToGiver::Renew(self.grants.keys().copied().collect())));
            }
            Op::Wait(ms) => {
                self.now = self.now + Span::from_ms(ms);
                self.feed(Event::Tick);
            }
            Op::Nonsense(pick) => self.nonsense(pick),
        }
    }

    /// Lets everything that is under way end well, without letting time pass.
    pub(super) fn bring_to_rest(&mut self) {
        while let Some(giver) = self.asked_for.first().copied() {
            self.giver_met(giver);
        }
        for _ in 0..5_000 {
            let uncommitted = self.offers.keys().find(|leg| !self.legs[*leg].committed && !self.legs[*leg].over);
            let committed_grant = self.grants.keys().find(|lease| self.legs[&self.leg_of_grant[*lease]].committed);
            if !self.backend.busy().is_empty() {
                self.finish_step(0);
            } else if !self.pulls.is_empty() {
                self.end_pull(0, PullOutcome::Complete);
            } else if !self.releases.is_empty() {
                self.answer_release(0, Some(ReleaseAnswer::Ok));
            } else if let Some(leg) = uncommitted.copied() {
                self.commit_leg(leg);
            } else if let Some(lease) = committed_grant.copied() {
                self.feed(Event::Reader(READER, ToGiver::Release(lease)));
            } else {
                break;
            }
        }
        assert!(self.replica.is_idle(), "nothing is under way, but {:?}", self.replica.load());
        let load = self.replica.load();
        assert_eq!((load.blocks_in_use, load.blocks_quarantined, load.running, load.waiting), (0, 0, 0, 0));
        assert!(self.legs.iter().all(|(leg, model)| model.over && self.said_over.contains(leg)), "a leg never ended");
    }

    fn request(&mut self, shape: &Shape) -> Request {
        self.requests += 1;
        let leg = Leg { request: RequestId(self.requests), attempt: Attempt(0) };
        let params = SamplingParams {
            max_tokens: shape.max_tokens,
            min_tokens: shape.min_tokens,
            stop_tokens: vec![TokenId(3), TokenId(4), TokenId(5)],
            seed: self.requests,
            prompt_logprobs: self.requests.is_multiple_of(3).then_some(0),
            ..SamplingParams::default()
        };
        let damaged = (choice_seed(self.requests, Choice(0)), u64::from(shape.damaged));
        self.backend.damaged.insert(damaged);
        let prompt: Arc<[TokenId]> = (0..shape.prompt).map(|i| TokenId(shape.family * 100 + i)).collect();
        let resumed = if shape.choices == 1 { shape.resumed as usize } else { 0 };
        let mut choices = BTreeMap::new();
        for choice in (0..shape.choices).map(Choice) {
            let answer = oracle::answer(&prompt, &params, choice, CONTEXT);
            let next = resumed.min(answer.len() - 1);
            choices.insert(choice, ChoiceModel { answer, next, over: false });
        }
        let states = choices
            .iter()
            .map(|(choice, model)| ChoiceState { choice: *choice, generated: model.answer[..model.next].to_vec() });
        let request = Request {
            leg,
            prompt,
            choices: states.collect(),
            params: Arc::new(params),
            slo: slo(self.requests),
            deadline_in: Span::from_secs(60 + u64::from(shape.resumed) * 100),
        };
        let model = LegModel {
            request: request.clone(),
            choices,
            committed: false,
            unverified: false,
            scored: Some(BTreeSet::new()),
            damaged_at: shape.damaged,
            over: false,
        };
        self.legs.insert(leg, model);
        request
    }

    fn submit(&mut self, shape: &Shape, work: Work) {
        let request = self.request(shape);
        self.feed(Event::Router(ToWorker::Submit(request, work)));
    }

    fn offer(&mut self, shape: &Shape) {
        let request = self.request(shape);
        let (giver, lease) = (InstanceId(u128::from(self.requests % 3 + 1)), LeaseId(self.requests));
        self.offers.insert(request.leg, (giver, lease));
        if !self.met.contains(&giver) {
            self.unmet.insert(request.leg);
        }
        let model = self.legs.get_mut(&request.leg).expect("just inserted");
        (model.unverified, model.scored) = (true, None);
        let blocks = (0..request.prefill_tokens().div_ceil(16) as u32).map(BlockId).collect();
        self.feed(Event::Router(ToWorker::Offer(Offer { request, giver, giver_address: "p:1".into(), lease, blocks })));
    }

    fn commit(&mut self, pick: u16) {
        let leg = picked(&self.offers, pick);
        if let Some(leg) = leg.filter(|leg| !self.legs[leg].over) {
            self.commit_leg(leg);
        }
    }

    /// Commits a leg or, as the router does, cancels it if every choice ends with its first token.
    fn commit_leg(&mut self, leg: Leg) {
        let model = self.legs.get_mut(&leg).expect("an offered leg is known");
        if std::mem::replace(&mut model.committed, true) {
            return self.feed(Event::Router(ToWorker::Commit(Commit { leg, firsts: Vec::new() })));
        }
        let firsts = model.firsts();
        for first in &firsts {
            let choice = model.choices.get_mut(&first.choice).expect("a choice of the leg");
            choice.next += 1;
            choice.over = first.ended.is_some();
        }
        model.note_ends();
        match model.over {
            true => self.feed(Event::Router(ToWorker::Cancel { leg, choice: None })),
            false => self.feed(Event::Router(ToWorker::Commit(Commit { leg, firsts }))),
        }
    }

    /// Ends a pull right after its bytes have landed, whole ones or torn ones.
    fn end_pull(&mut self, pick: u16, outcome: PullOutcome) {
        let Some(pull) = picked(&self.pulls, pick).and_then(|pull| self.pulls.remove(&pull)) else {
            return;
        };
        let values = self.legs[&pull.leg].prefill_values();
        assert!(values.len() as u32 >= pull.positions.end);
        // A value stands for all layers of a position: it moves with the last one.
        for position in pull.positions.clone().filter(|_| pull.layers.end == LAYERS) {
            let value = if outcome == PullOutcome::Complete { values[position as usize] } else { 13 };
            self.backend.write(pull.local[(position / BLOCK_TOKENS) as usize], position % BLOCK_TOKENS, value);
        }
        self.feed(Event::PullEnded { pull: pull.id, outcome });
    }

    fn cancel(&mut self, pick: u16) {
        if let Some(leg) = picked(&self.legs, pick) {
            self.legs.get_mut(&leg).expect("picked").over = true;
            self.feed(Event::Router(ToWorker::Cancel { leg, choice: None }));
        }
    }

    fn cancel_choice(&mut self, pick: u16, choice: Choice) {
        if let Some(leg) = picked(&self.legs, pick) {
            let model = self.legs.get_mut(&leg).expect("picked");
            if let Some(choice) = model.choices.get_mut(&choice) {
                choice.over = true;
            }
            model.note_ends();
            self.feed(Event::Router(ToWorker::Cancel { leg, choice: Some(choice) }));
        }
    }

    /// Feeds late, repeated and misdirected messages.
    fn nonsense(&mut self, pick: u16) {
        let leg = picked(&self.legs, pick).unwrap_or(Leg { request: RequestId(u64::MAX), attempt: Attempt(0) });
        let (lane, step) = (LaneId((pick % 3) as u8), StepId(u64::from(pick)));
        if self.backend.lane_of(step).is_none() {
            self.feed(Event::StepDone { lane, step, result: StepResult::default() });
        }
        let pull = PullId(u64::from(pick));
        if self.pulls.values().all(|running| running.id != pull) {
            self.feed(Event::PullEnded { pull, outcome: PullOutcome::Complete });
        }
        if !self.releases.contains_key(&leg) {
            self.released(leg, Some(ReleaseAnswer::Expired));
        }
        self.feed(Event::Giver(InstanceId(1), ToReader::Gone(vec![LeaseId(u64::MAX)])));
        self.feed(Event::Reader(READER, ToGiver::Abort(LeaseId(u64::from(pick)))));
        let request = self.legs.get(&leg).filter(|model| !model.over).map(|model| model.request.clone());
        if let Some(request) = request {
            self.feed(Event::Router(ToWorker::Submit(request, Work::Give)));
        }
    }

    fn feed(&mut self, event: Event) {
        let shown = format!("{event:?}");
        self.replica.on(self.now, event);
        while let Some(action) = self.replica.poll() {
            self.decisions = xxh3_64_with_seed(format!("{action:?}").as_bytes(), self.decisions);
            self.perform(action);
        }
        if let Err(why) = self.replica.check_invariants() {
            panic!("{why}, after {shown}");
        }
        assert!(self.replica.next_timeout().is_none_or(|at| at > self.now), "a timer is due and does not fire");
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Compute(Compute::Run { lane, step, plan, progress }) => {
                if progress == Progress::ByLayer {
                    self.telling.insert(step);
                }
                self.backend.submit(lane, step, plan, self.effects);
            }
            Action::Compute(Compute::Cancel { lane, step }) => self.backend.cancel(lane, step),
            Action::Transfer(transfer) => self.transfer(transfer),
            Action::Say(Envelope::Router(word)) => self.told(word),
            Action::Say(Envelope::Over(leg)) => self.told_over(leg),
            Action::Say(Envelope::Giver(giver, word)) => self.told_giver(giver, &word),
            Action::Say(Envelope::Reader(READER, ToReader::Released { lease, answer })) => self.answered(lease, answer),
            Action::Say(Envelope::Reader(_, ToReader::Released { answer, .. })) => {
                assert_eq!(answer, ReleaseAnswer::Expired, "told to a stranger");
            }
            Action::Say(Envelope::Reader(reader, ToReader::Filled { lease, .. })) => {
                assert!(reader == READER && self.grants.contains_key(&lease), "{reader} hears of {lease}");
            }
            Action::Say(Envelope::Reader(_, ToReader::Gone(_))) => {}
        }
    }

    fn transfer(&mut self, transfer: Transfer) {
        match transfer {
            Transfer::Grant { lease, blocks } => {
                assert!(self.grants.insert(lease, blocks).is_none(), "{lease} is granted twice");
            }
            Transfer::Revoke(lease) => {
                assert!(self.grants.remove(&lease).is_some(), "{lease} is revoked, but was not granted");
            }
            Transfer::Meet { giver, .. } => {
                assert!(!self.met.contains(&giver), "{giver} is up");
                self.asked_for.insert(giver);
            }
            Transfer::Pull(pull) => {
                let stored = self.stored.get(&pull.leg).copied().unwrap_or_default();
                let is_stored = pull.positions.end <= stored.tokens
                    || (pull.positions.end <= stored.chunk_end && pull.layers.end <= stored.layers);
                assert!(self.legs[&pull.leg].committed || is_stored, "{pull:?} of {stored:?}");
                self.backend.assert_unread(&pull.local[(pull.positions.start / BLOCK_TOKENS) as usize..]);
                assert!(self.pulls.insert(pull.id, pull).is_none(), "an id is used twice");
            }
            Transfer::AbortPull(pull) => {
                assert!(self.pulls.values().any(|running| running.id == pull), "a pull is aborted that does not run");
            }
        }
    }

    fn told(&mut self, message: FromWorker) {
        let model = self.legs.get_mut(&message.leg()).expect("a leg is named that was never sent");
        assert!(!model.over, "after its end: {message:?}");
        match message {
            FromWorker::Offered { leg, lease, blocks } => {
                assert_eq!(self.grants.get(&lease), Some(&blocks));
                self.leg_of_grant.insert(lease, leg);
            }
            FromWorker::Committed { commit, .. } => self.told_commit(&commit),
            FromWorker::Scored { scores, .. } => told_scores(model, &scores),
            FromWorker::HandedOver { .. } | FromWorker::ReaderLost { .. } => model.over = true,
            FromWorker::Failed { failure, .. } => {
                let may_fail = model.damaged_at < model.request.params.max_tokens;
                assert!(may_fail || failure != damaged_row(), "it fails for somebody else's row");
                model.over = true;
            }
            FromWorker::Token { choice, index, token, ended, .. } => {
                assert!(!model.unverified, "a token from a KV cache that the giver has not vouched for");
                told_token(model, choice, Some(index), &token, ended);
                model.note_ends();
            }
        }
    }

    fn told_over(&mut self, leg: Leg) {
        assert!(self.legs[&leg].over, "{leg} is over before its end");
        assert!(self.said_over.insert(leg), "{leg} is over twice");
    }

    fn told_commit(&mut self, commit: &Commit) {
        let lease = self.grants.keys().find(|lease| self.leg_of_grant[*lease] == commit.leg).copied();
        let model = self.legs.get_mut(&commit.leg).expect("a known leg");
        assert!(!std::mem::replace(&mut model.committed, true), "{} is committed twice", commit.leg);
        for first in &commit.firsts {
            told_token(model, first.choice, None, &first.token, first.ended);
        }
        let firsts = model.choices.values().filter(|choice| choice.next > 0).count();
        assert!(firsts >= commit.firsts.len());
        model.note_ends();
        if !model.over {
            self.assert_granted_content(lease.expect("a prompt is granted from its reservation on"));
        }
    }
}

/// Some requests have targets that can be kept, some have none, and some cannot be served in time.
fn slo(request: u64) -> Slo {
    let target = |ms: [u64; 3]| ms.get(request as usize % 4).map(|ms| Span::from_ms(*ms));
    Slo { class: 0, ttft: target([1, 500, 9_000]), tpot: target([1, 5, 20]), itl_tail: None }
}

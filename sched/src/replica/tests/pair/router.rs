//! A router reduced to the rules of the hand-off: offers, commits, cancels, renews, and tries again what was lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::dice::Dice;
use super::worker::CONTEXT;
use crate::message::{Commit, FromWorker, Offer, ToWorker, Work};
use crate::replica::tests::oracle;
use crate::{
    Attempt, Choice, ChoiceState, FailureKind, FinishReason, InstanceId, Leg, Request, RequestId, Role, SampledToken,
    SamplingParams, Slo, Span, TokenId,
};

/// Address of its one giver, whichever worker that is.
pub(super) const GIVER_ADDRESS: &str = "peer:1";
/// Tries per choice before a request is given up.
const ATTEMPTS_MAX: u32 = 40;

#[derive(Default)]
pub(super) struct Router {
    requests: BTreeMap<RequestId, Client>,
    legs: BTreeMap<Leg, RunningLeg>,
    pub(super) finished: u64,
    pub(super) retries: u64,
    pub(super) out: Vec<(Role, ToWorker)>,
}

struct Client {
    prompt: Arc<[TokenId]>,
    params: Arc<SamplingParams>,
    choices: BTreeMap<Choice, Answer>,
    attempts: u32,
}

struct Answer {
    expected: Vec<TokenId>,
    delivered: usize,
    over: bool,
}

struct RunningLeg {
    request: Request,
    offered: bool,
}

impl Router {
    pub(super) fn arrive(&mut self, id: u64, dice: &mut Dice) {
        let params = SamplingParams {
            max_tokens: 2 + dice.below(14) as u32,
            stop_tokens: vec![TokenId(3), TokenId(4)],
            seed: id,
            prompt_logprobs: id.is_multiple_of(4).then_some(0),
            ..SamplingParams::default()
        };
        let family = dice.below(4) as u32;
        let prompt: Arc<[TokenId]> = (0..1 + dice.below(80) as u32).map(|i| TokenId(family * 100 + i)).collect();
        let choices = (0..1 + dice.below(3) as u32).map(Choice).map(|choice| {
            let expected = oracle::answer(&prompt, &params, choice, CONTEXT);
            (choice, Answer { expected, delivered: 0, over: false })
        });
        let choices: BTreeMap<_, _> = choices.collect();
        let all: Vec<_> = choices.keys().copied().collect();
        let client = Client { prompt, params: Arc::new(params), choices, attempts: 0 };
        self.requests.insert(RequestId(id), client);
        let work = if dice.percent(85) { Work::Give } else { Work::Whole };
        self.start(RequestId(id), &all, work);
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.legs.is_empty()
    }

    pub(super) fn cancel(&mut self, id: u64) {
        let client = self.requests.get_mut(&RequestId(id)).expect("a request that arrived");
        client.choices.values_mut().for_each(|answer| answer.over = true);
        let legs: Vec<_> = self.legs.keys().filter(|leg| leg.request.0 == id).copied().collect();
        legs.into_iter().for_each(|leg| self.stop(leg));
    }

    pub(super) fn renew(&mut self) {
        let legs: Vec<_> = self.legs.keys().copied().collect();
        for role in [Role::Prefill, Role::Decode] {
            self.out.push((role, ToWorker::Renew(legs.clone())));
        }
    }

    /// Loses all legs that a lost worker had a part in.
    pub(super) fn worker_lost(&mut self, role: Role) {
        let touched = |leg: &RunningLeg| role == Role::Prefill || leg.offered;
        let legs: Vec<_> = self.legs.iter().filter(|(_, leg)| touched(leg)).map(|(leg, _)| *leg).collect();
        legs.into_iter().for_each(|leg| self.lost(leg));
    }

    pub(super) fn told(&mut self, giver: InstanceId, message: FromWorker) {
        if !self.legs.contains_key(&message.leg()) {
            return;
        }
        match message {
            FromWorker::Offered { leg, lease, blocks } => {
                let running = self.legs.get_mut(&leg).expect("checked above");
                running.offered = true;
                let request = running.request.clone();
                let offer = Offer { request, giver, giver_address: GIVER_ADDRESS.into(), lease, blocks };
                self.out.push((Role::Decode, ToWorker::Offer(offer)));
            }
            FromWorker::Committed { commit, .. } => self.committed(commit),
            FromWorker::HandedOver { .. } | FromWorker::Scored { .. } => {}
            FromWorker::Token { leg, choice, index, token, ended, .. } => {
                self.deliver(leg, choice, Some(index), &token, ended);
            }
            FromWorker::ReaderLost { leg } => self.lost(leg),
            FromWorker::Failed { leg, failure } => {
                let bug = matches!(failure.kind, FailureKind::Internal | FailureKind::InvalidRequest);
                assert!(!bug && failure.kind != FailureKind::TooLong, "{failure}");
                self.lost(leg);
            }
        }
    }

    fn committed(&mut self, commit: Commit) {
        let leg = commit.leg;
        let goes_on = commit.firsts.iter().any(|first| first.ended.is_none());
        for first in &commit.firsts {
            self.deliver(leg, first.choice, None, &first.token, first.ended);
        }
        let message = match goes_on {
            true => ToWorker::Commit(commit),
            false => ToWorker::Cancel { leg, choice: None },
        };
        self.out.push((Role::Decode, message));
    }

    fn deliver(
        &mut self,
        leg: Leg,
        choice: Choice,
        index: Option<u32>,
        token: &SampledToken,
        ended: Option<FinishReason>,
    ) {
        let client = self.requests.get_mut(&leg.request).expect("a request that arrived");
        let answer = client.choices.get_mut(&choice).expect("a choice of the request");
        assert!(!answer.over, "{leg}: a token after the end");
        assert!(index.is_none_or(|index| index as usize == answer.delivered), "{leg}: a gap or a repeat");
        assert_eq!(token.token, answer.expected[answer.delivered], "{leg}: computed from other bytes");
        answer.delivered += 1;
        answer.over = ended.is_some();
        assert_eq!(answer.over, answer.delivered == answer.expected.len(), "{leg}: it ends elsewhere");
        self.finished += u64::from(answer.over);
        let mut of_leg = self.legs[&leg].request.choices.iter();
        if of_leg.all(|state| client.choices[&state.choice].over) {
            self.legs.remove(&leg);
        }
    }

    fn stop(&mut self, leg: Leg) {
        self.legs.remove(&leg);
        for role in [Role::Prefill, Role::Decode] {
            self.out.push((role, ToWorker::Cancel { leg, choice: None }));
        }
    }

    /// Turns each unfinished choice into a leg of its own that carries what was delivered.
    fn lost(&mut self, leg: Leg) {
        let request = self.legs[&leg].request.clone();
        self.stop(leg);
        let client = &self.requests[&leg.request];
        let unfinished = request.choices.iter().map(|state| state.choice).filter(|c| !client.choices[c].over);
        for choice in unfinished.collect::<Vec<_>>() {
            self.retries += 1;
            self.start(leg.request, &[choice], Work::Give);
        }
    }

    fn start(&mut self, id: RequestId, choices: &[Choice], work: Work) {
        let client = self.requests.get_mut(&id).expect("a request that arrived");
        if client.attempts > ATTEMPTS_MAX {
            choices.iter().for_each(|choice| client.choices.get_mut(choice).expect("its choice").over = true);
            return;
        }
        let leg = Leg { request: id, attempt: Attempt(client.attempts) };
        client.attempts += 1;
        let states = choices.iter().map(|choice| ChoiceState {
            choice: *choice,
            generated: client.choices[choice].expected[..client.choices[choice].delivered].to_vec(),
        });
        let request = Request {
            leg,
            prompt: Arc::clone(&client.prompt),
            choices: states.collect(),
            params: Arc::clone(&client.params),
            slo: Slo::default(),
            deadline_in: Span::from_secs(300),
        };
        self.legs.insert(leg, RunningLeg { request: request.clone(), offered: work == Work::Whole });
        let role = match work {
            Work::Give => Role::Prefill,
            Work::Whole => Role::Decode,
        };
        self.out.push((role, ToWorker::Submit(request, work)));
    }

    pub(super) fn prefill_values(request: &Request) -> Vec<u64> {
        oracle::values(request.prompt.iter().chain(&request.choices[0].generated).copied())
    }
}

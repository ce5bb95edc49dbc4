//! Eyes of a share controller: turns what goes into a replica and what comes out of it into facts; knows no policy.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::{Event, Waiting};
use crate::cost::StepWork;
use crate::message::{Envelope, FromWorker, ToWorker};
use crate::replica::{self, Action, Compute};
use crate::slo::Judgement;
use crate::{Choice, FinishReason, LaneId, Leg, Slo, Span, StepId, Time};

/// Tokens of a choice after which its pace is told; a long request must not keep a window waiting.
const TOKENS_PER_REPORT: u32 = 16;

/// Requests and steps of one replica, as far as they are open. Bounded by what the replica takes in.
#[derive(Debug, Default)]
pub(super) struct Watch {
    layers: u32,
    requests: BTreeMap<Leg, Watched>,
    steps: BTreeMap<StepId, Submitted>,
    lanes: BTreeMap<LaneId, Busy>,
}

#[derive(Debug)]
struct Watched {
    slo: Slo,
    since: Time,
    is_first_told: bool,
    choices_total: usize,
    choices: BTreeMap<Choice, Pace>,
    state: State,
}

/// How a request does so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    InTime,
    Late,
}

/// Tokens of one choice.
#[derive(Debug)]
struct Pace {
    first: Time,
    tokens: u32,
    told: Time,
    untold: u32,
    has_ended: bool,
}

#[derive(Debug)]
struct Submitted {
    lane: LaneId,
    work: StepWork,
    at: Time,
    /// How long the other lanes had been busy by then.
    others_busy: Span,
}

/// Steps of one lane in flight, and for how long there were any.
#[derive(Debug, Default)]
struct Busy {
    steps: u32,
    since: Time,
    before: Span,
    /// End of its last step.
    ended: Time,
}

impl Watch {
    pub(super) fn new(layers: u32) -> Watch {
        Watch { layers, ..Watch::default() }
    }

    /// Looks at a fact before the replica takes it in.
    pub(super) fn goes_in(&mut self, now: Time, event: &replica::Event) -> Option<Event> {
        match event {
            replica::Event::Router(ToWorker::Submit(request, _)) => {
                let watched = Watched {
                    slo: request.slo,
                    since: now,
                    is_first_told: false,
                    choices_total: request.choices.len(),
                    choices: BTreeMap::new(),
                    state: State::InTime,
                };
                self.requests.insert(request.leg, watched);
                Some(Event::Arrived)
            }
            replica::Event::StepDone { step, .. } => self.step_ended(now, *step),
            replica::Event::StepFailed { step, .. } => {
                self.step_ended(now, *step);
                None
            }
            _ => None,
        }
    }

    /// Looks at a decision of the replica before it is carried out.
    pub(super) fn comes_out(&mut self, now: Time, action: &Action) -> [Option<Event>; 2] {
        match action {
            Action::Compute(Compute::Run { lane, step, plan, .. }) => {
                self.submitted(now, *lane, *step, StepWork::of_plan(plan, self.layers));
                [None, None]
            }
            Action::Say(Envelope::Router(FromWorker::Token { leg, choice, ended, .. })) => {
                self.token(now, *leg, *choice, *ended)
            }
            Action::Say(Envelope::Router(FromWorker::Failed { leg, .. })) => {
                if let Some(request) = self.requests.get_mut(leg) {
                    request.state = State::Late;
                }
                [None, None]
            }
            Action::Say(Envelope::Over(leg)) => {
                let request = self.requests.remove(leg);
                [request.map(|request| Event::Finished(request.judgement())), None]
            }
            _ => [None, None],
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// The request that has waited longest for its first token.
    pub(super) fn oldest_waiting(&self) -> Option<Waiting> {
        let waiting = self.requests.values().filter(|request| !request.is_first_told);
        let oldest = waiting.min_by_key(|request| request.since)?;
        Some(Waiting { slo: oldest.slo, since: oldest.since })
    }

    pub(super) fn strictest_tpot(&self) -> Option<Span> {
        self.requests.values().filter_map(|request| request.slo.tpot).min()
    }

    fn submitted(&mut self, now: Time, lane: LaneId, step: StepId, work: StepWork) {
        let others_busy = self.others_busy(now, lane);
        let busy = self.lanes.entry(lane).or_default();
        if busy.steps == 0 {
            busy.since = now;
        }
        busy.steps += 1;
        self.steps.insert(step, Submitted { lane, work, at: now, others_busy });
    }

    /// A step runs from the end of the one before it in its lane, or from its submission.
    fn step_ended(&mut self, now: Time, step: StepId) -> Option<Event> {
        let Submitted { lane, work, at, others_busy } = self.steps.remove(&step)?;
        let busy = self.lanes.get_mut(&lane)?;
        let began = at.max(busy.ended);
        busy.ended = now;
        busy.steps = busy.steps.saturating_sub(1);
        if busy.steps == 0 {
            busy.before = busy.before + (now - busy.since);
        }
        let beside = self.others_busy(now, lane).0.saturating_sub(others_busy.0);
        let from_submission = (now - at).0.max(1);
        let beside = (beside as f64 / from_submission as f64).min(1.0);
        (work != StepWork::default()).then_some(Event::StepDone { work, span: now - began, beside })
    }

    fn others_busy(&self, now: Time, lane: LaneId) -> Span {
        let others = self.lanes.iter().filter(|(other, _)| **other != lane).map(|(_, busy)| busy.until(now).0);
        Span(others.sum())
    }

    fn token(&mut self, now: Time, leg: Leg, choice: Choice, ended: Option<FinishReason>) -> [Option<Event>; 2] {
        let Some(request) = self.requests.get_mut(&leg) else { return [None, None] };
        [request.first_token(now), request.choice(now, choice, ended)]
    }
}

impl Busy {
    fn until(&self, now: Time) -> Span {
        if self.steps == 0 { self.before } else { self.before + (now - self.since) }
    }
}

impl Watched {
    fn first_token(&mut self, now: Time) -> Option<Event> {
        if std::mem::replace(&mut self.is_first_told, true) {
            return None;
        }
        let ttft = now - self.since;
        self.compare(self.slo.ttft, ttft);
        Some(Event::FirstToken { slo: self.slo, ttft })
    }

    fn choice(&mut self, now: Time, choice: Choice, ended: Option<FinishReason>) -> Option<Event> {
        let Some(pace) = self.choices.get_mut(&choice) else {
            let has_ended = ended.is_some();
            self.choices.insert(choice, Pace { first: now, tokens: 1, told: now, untold: 0, has_ended });
            return None;
        };
        (pace.tokens, pace.untold) = (pace.tokens + 1, pace.untold + 1);
        pace.has_ended = ended.is_some();
        let is_due = pace.has_ended || pace.untold >= TOKENS_PER_REPORT;
        let told = is_due.then(|| {
            let tokens = std::mem::take(&mut pace.untold);
            let tpot = Span((now - std::mem::replace(&mut pace.told, now)).0.div_ceil(u64::from(tokens)));
            Event::Decoded { slo: self.slo, tokens, tpot }
        });
        let mean = Span((now - pace.first).0.div_ceil(u64::from(pace.tokens - 1)));
        if pace.has_ended {
            self.compare(self.slo.tpot, mean);
        }
        told
    }

    fn compare(&mut self, target: Option<Span>, value: Span) {
        if target.is_some_and(|target| value > target) {
            self.state = State::Late;
        }
    }

    fn judgement(&self) -> Judgement {
        let ended = self.choices.values().filter(|pace| pace.has_ended).count();
        match self.state {
            State::Late => Judgement::Missed,
            State::InTime if ended == self.choices_total => Judgement::Met,
            State::InTime => Judgement::Left,
        }
    }
}

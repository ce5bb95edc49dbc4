//! What a controller is told of requests and steps.

use std::sync::Arc;

use super::*;
use crate::message::Work;
use crate::replica::Progress;
use crate::{
    Attempt, ChoiceState, Failure, FailureKind, Input, Request, RequestId, SampledToken, SamplingParams, SequenceRows,
    StepPlan, StepResult, TokenId,
};

const LAYERS: u32 = 4;
const SLO: Slo = Slo { class: 0, ttft: Some(Span::from_ms(500)), tpot: Some(Span::from_ms(50)), itl_tail: None };

fn ms(ms: u64) -> Time {
    Time(ms * 1_000)
}

fn leg(id: u64) -> Leg {
    Leg { request: RequestId(id), attempt: Attempt(0) }
}

fn submit(id: u64, choices: u32) -> replica::Event {
    let state = |choice| ChoiceState { choice: Choice(choice), generated: Vec::new() };
    let request = Request {
        leg: leg(id),
        prompt: Arc::from([TokenId(1)]),
        choices: (0..choices).map(state).collect(),
        params: Arc::new(SamplingParams::default()),
        slo: SLO,
        deadline_in: Span::from_secs(60),
    };
    replica::Event::Router(ToWorker::Submit(request, Work::Whole))
}

fn token(id: u64, choice: u32, ended: Option<FinishReason>) -> Action {
    let token = SampledToken { token: TokenId(1), logprob: None, top: Vec::new() };
    let (leg, choice) = (leg(id), Choice(choice));
    Action::Say(Envelope::Router(FromWorker::Token { leg, choice, index: 0, token, ended, timing: None }))
}

fn over(id: u64) -> Action {
    Action::Say(Envelope::Over(leg(id)))
}

fn told(events: [Option<Event>; 2]) -> Vec<Event> {
    events.into_iter().flatten().collect()
}

fn decoded(tokens: u32, tpot_ms: u64) -> Event {
    Event::Decoded { slo: SLO, tokens, tpot: Span::from_ms(tpot_ms) }
}

/// Shows a request whose tokens come at these times; returns what was told from the first token on.
fn request(times_ms: &[u64]) -> Vec<Event> {
    let mut watch = Watch::new(LAYERS);
    watch.goes_in(ms(1_000), &submit(1, 1));
    let mut all = Vec::new();
    for (index, time) in times_ms.iter().enumerate() {
        let ended = (index + 1 == times_ms.len()).then_some(FinishReason::Length);
        all.extend(told(watch.comes_out(ms(*time), &token(1, 0, ended))));
    }
    all.extend(told(watch.comes_out(ms(99_000), &over(1))));
    assert!(watch.requests.is_empty());
    all
}

#[test]
fn a_request_tells_its_first_token_its_pace_and_its_end() {
    let first = |ttft_ms| Event::FirstToken { slo: SLO, ttft: Span::from_ms(ttft_ms) };
    assert_eq!(request(&[1_300, 1_320, 1_360]), [first(300), decoded(2, 30), Event::Finished(Judgement::Met)]);
    assert_eq!(request(&[1_600]), [first(600), Event::Finished(Judgement::Missed)], "the first token was late");
    assert_eq!(request(&[1_100, 1_200]), [first(100), decoded(1, 100), Event::Finished(Judgement::Missed)]);
    let long: Vec<u64> = (0..40).map(|token| 1_100 + token * 10).collect();
    let reports = [decoded(16, 10), decoded(16, 10), decoded(7, 10)];
    assert_eq!(request(&long)[1..4], reports, "a long request does not keep a window waiting");
}

#[test]
fn a_client_that_leaves_is_no_miss_and_a_failure_is_one() {
    let mut watch = Watch::new(LAYERS);
    for id in 1..=3 {
        watch.goes_in(ms(id), &submit(id, 2));
    }
    let oldest = watch.oldest_waiting().map(|waiting| waiting.since);
    assert_eq!(oldest, Some(ms(1)));
    watch.comes_out(ms(10), &token(1, 0, Some(FinishReason::Stop)));
    assert_eq!(watch.oldest_waiting().map(|waiting| waiting.since), Some(ms(2)));
    let end = |watch: &mut Watch, id| told(watch.comes_out(ms(20), &over(id)));
    assert_eq!(end(&mut watch, 1), [Event::Finished(Judgement::Left)], "its second choice was not over");
    let failure = Failure::new(FailureKind::Internal, "a test");
    watch.comes_out(ms(20), &Action::Say(Envelope::Router(FromWorker::Failed { leg: leg(2), failure })));
    assert_eq!(end(&mut watch, 2), [Event::Finished(Judgement::Missed)]);
    for choice in 0..2 {
        watch.comes_out(ms(20), &token(3, choice, Some(FinishReason::Stop)));
    }
    assert_eq!(end(&mut watch, 3), [Event::Finished(Judgement::Met)]);
    assert_eq!(end(&mut watch, 3), [], "who is not known is not judged");
}

fn run(lane: u8, step: u64, rows: u32) -> Action {
    let sequence = SequenceRows { rows: 0..rows, blocks: 0..0, first_position: 9, input: Input::Given };
    let plan = StepPlan { layers: 0..LAYERS, sequences: vec![sequence], ..StepPlan::default() };
    Action::Compute(Compute::Run { lane: LaneId(lane), step: StepId(step), plan, progress: Progress::Untold })
}

#[test]
fn a_step_lasts_from_the_end_of_the_one_before_and_knows_its_neighbour() {
    let mut watch = Watch::new(LAYERS);
    let ended = |watch: &mut Watch, at, lane, step| {
        let event = replica::Event::StepDone { lane: LaneId(lane), step: StepId(step), result: StepResult::default() };
        match watch.goes_in(ms(at), &event) {
            Some(Event::StepDone { work, span, beside }) => (work.phase(), span, beside),
            other => panic!("{other:?}"),
        }
    };
    // Two steps of decode at once, the second beside a prefill.
    for (at, action) in [(0, run(1, 1, 1)), (0, run(1, 2, 1)), (10, run(0, 3, 40))] {
        watch.comes_out(ms(at), &action);
    }
    use crate::cost::Phase::{Decode, Prefill};
    assert_eq!(ended(&mut watch, 12, 1, 1), (Decode, Span::from_ms(12), 2.0 / 12.0));
    assert_eq!(ended(&mut watch, 30, 1, 2), (Decode, Span::from_ms(18), 20.0 / 30.0));
    assert_eq!(ended(&mut watch, 50, 0, 3), (Prefill, Span::from_ms(40), 0.5), "busy for 20 of 40 ms");
    assert!(watch.steps.is_empty());
    let unknown = replica::Event::StepDone { lane: LaneId(0), step: StepId(9), result: StepResult::default() };
    assert_eq!(watch.goes_in(ms(60), &unknown), None);
}

//! A desk over many workers that say what workers say; and what silence and turns come to.

use std::sync::Arc;

use super::*;
use crate::cluster::{Link, WorkerInfo};
use crate::journey::{JourneyConfig, Parts};
use crate::message::{Commit, FirstTiming, FirstToken, FromWorker, Load, Work};
use crate::route::{Lack, LeastLoaded, RouteConfig};
use crate::{
    Choice, CompatKey, FinishReason, LeaseId, ModelId, Role, SampledToken, SamplingParams, Slo, Span, TokenId,
};

const BEAT: Span = Span::from_secs(1);

fn desk() -> Desk {
    let config = DeskConfig {
        journey: JourneyConfig::default(),
        renew_every: Span::from_secs(5),
        status_every: BEAT,
        wide_choices_max: 4,
    };
    Desk::new(Time(0), config, Routing::new(Box::new(LeastLoaded), RouteConfig::default()))
}

fn info(id: u32, role: Role) -> WorkerInfo {
    WorkerInfo {
        name: format!("{}-{id}", role.label()).into(),
        instance: InstanceId(u128::from(id) + 100),
        role,
        model: ModelId(0),
        weights: 1,
        peer_address: "host:1".into(),
        compat: CompatKey(1),
        context_max: 4_096,
        capacity_tokens: 100_000,
    }
}

fn status(links: Option<Vec<Link>>) -> WorkerStatus {
    WorkerStatus { load: Load::default(), phase: Phase::Accepting, links, problems: Vec::new() }
}

fn link(giver: u32) -> Link {
    Link { giver: InstanceId(u128::from(giver) + 100), transport: "tcp".into(), bytes_per_second: 1_000_000_000 }
}

fn submission(id: u64, choices: u32, width: Width) -> DeskEvent {
    let parts = Parts {
        id: RequestId(id),
        model: ModelId(0),
        prompt: vec![TokenId(1); 100].into(),
        choices,
        params: Arc::new(SamplingParams { max_tokens: 3, ..SamplingParams::default() }),
        slo: Slo::default(),
    };
    DeskEvent::Submit(Box::new(Submission { parts, width }))
}

fn all(desk: &mut Desk) -> Vec<DeskAction> {
    std::iter::from_fn(|| desk.poll()).collect()
}

/// Givers 0..givers, readers behind them, each linked to all; at the end it was asked for what it has to say.
fn cluster(desk: &mut Desk, now: Time, givers: u32, readers: u32) {
    for id in 0..givers + readers {
        let role = if id < givers { Role::Prefill } else { Role::Decode };
        desk.on(now, DeskEvent::Joined(WorkerId(id), info(id, role)));
    }
    for reader in givers..givers + readers {
        desk.on(now, DeskEvent::Status(WorkerId(reader), status(Some((0..givers).map(link).collect()))));
    }
    all(desk);
}

fn token() -> SampledToken {
    SampledToken { token: TokenId(5), logprob: None, top: vec![] }
}

/// Plays the workers of one request from its submission to its end; returns how many decisions that took.
fn play(desk: &mut Desk, now: Time, mut actions: Vec<DeskAction>) -> usize {
    let mut decisions = 0;
    while !actions.is_empty() {
        decisions += actions.len();
        for action in std::mem::take(&mut actions) {
            let DeskAction::Tell(worker, word) = action else { continue };
            match word {
                ToWorker::Submit(request, Work::Give) => {
                    let leg = request.leg;
                    let offered = FromWorker::Offered { leg, lease: LeaseId(leg.request.0), blocks: vec![] };
                    let firsts = vec![FirstToken { choice: Choice(0), token: token(), ended: None }];
                    let (commit, timing) = (Commit { leg, firsts }, FirstTiming::default());
                    desk.on(now, DeskEvent::Said(worker, offered));
                    desk.on(now, DeskEvent::Said(worker, FromWorker::Committed { commit, timing }));
                }
                ToWorker::Commit(commit) => {
                    for index in 1..3 {
                        let ended = (index == 2).then_some(FinishReason::Length);
                        let (leg, choice, timing) = (commit.leg, Choice(0), None);
                        let said = FromWorker::Token { leg, choice, index, token: token(), ended, timing };
                        desk.on(now, DeskEvent::Said(worker, said));
                    }
                }
                ToWorker::Offer(_) | ToWorker::Cancel { .. } | ToWorker::Renew(_) | ToWorker::Submit(..) => {}
            }
        }
        actions = all(desk);
    }
    decisions
}

#[test]
fn a_request_goes_from_its_submission_to_its_end_and_leaves_nothing_behind() {
    let mut desk = desk();
    cluster(&mut desk, Time(0), 2, 2);
    desk.on(Time(5), submission(1, 1, Width::Narrow));
    let first = all(&mut desk);
    assert!(matches!(first[0], DeskAction::Placed { chosen, .. } if chosen.reason == "shortest queue"), "{first:?}");
    assert!(matches!(&first[1], DeskAction::Tell(WorkerId(0), ToWorker::Submit(_, Work::Give))), "{first:?}");
    assert!(play(&mut desk, Time(6), first) > 6);
    assert_eq!((desk.running(), desk.timers.len(), desk.touched.len()), (0, 0, 0));
}

#[test]
fn what_can_be_served_is_told_when_it_changes() {
    let mut desk = desk();
    desk.on(Time(0), DeskEvent::Joined(WorkerId(0), info(0, Role::Prefill)));
    let views = |desk: &mut Desk| {
        let views = all(desk).into_iter().filter_map(|action| match action {
            DeskAction::View(view) => Some((view.sequence_tokens_max.into_values().next(), view.lack)),
            _ => None,
        });
        views.collect::<Vec<_>>()
    };
    assert_eq!(views(&mut desk), [(None, Some(Lack::Decode))]);
    desk.on(Time(0), DeskEvent::Joined(WorkerId(1), info(1, Role::Decode)));
    assert_eq!(views(&mut desk), [(None, Some(Lack::Connection))]);
    desk.on(Time(0), DeskEvent::Status(WorkerId(1), status(Some(vec![link(0)]))));
    desk.on(Time(0), DeskEvent::Status(WorkerId(1), status(None)));
    assert_eq!(views(&mut desk), [(Some(4_096), None)]);
    let other = WorkerInfo { weights: 2, ..info(7, Role::Decode) };
    desk.on(Time(0), DeskEvent::Joined(WorkerId(7), other));
    assert!(matches!(&all(&mut desk)[..], [DeskAction::Unfit { worker: WorkerId(7), .. }]));
    desk.on(Time(0), DeskEvent::Left(WorkerId(1)));
    assert_eq!(views(&mut desk), [(None, Some(Lack::Decode))]);
}

#[test]
fn a_silent_worker_gets_nothing_new_is_given_up_and_has_to_prove_that_it_lives() {
    let mut desk = desk();
    cluster(&mut desk, Time(0), 1, 1);
    let at = |beats: u64| Time(beats * BEAT.us());
    let mut told = Vec::new();
    for beat in 1..=6 {
        desk.on(at(beat), DeskEvent::Status(WorkerId(0), status(None)));
        told.extend(all(&mut desk));
    }
    assert!(told.contains(&DeskAction::Quiet(WorkerId(1))) && told.contains(&DeskAction::GiveUp(WorkerId(1))));
    desk.on(at(6), DeskEvent::Joined(WorkerId(2), info(1, Role::Decode)));
    desk.on(at(6), DeskEvent::Status(WorkerId(2), status(Some(vec![link(0)]))));
    desk.on(at(6), submission(1, 1, Width::Narrow));
    let first = all(&mut desk);
    assert!(!first.iter().any(|action| matches!(action, DeskAction::Tell(..))), "{first:?}");
    desk.on(at(6), DeskEvent::Status(WorkerId(2), status(None)));
    let second = all(&mut desk);
    assert!(second.contains(&DeskAction::Returned(WorkerId(2))));
    assert!(second.iter().any(|action| matches!(action, DeskAction::Tell(WorkerId(0), ToWorker::Submit(..)))));
}

#[test]
fn wide_requests_take_turns_and_a_shut_down_ends_everything_once() {
    let mut desk = desk();
    cluster(&mut desk, Time(0), 1, 1);
    for id in 1..=4 {
        desk.on(Time(0), submission(id, 2, Width::Wide(Group(id))));
    }
    all(&mut desk);
    assert_eq!(desk.running(), 2, "four choices of those that take turns run");
    desk.on(Time(0), DeskEvent::ClientGone(RequestId(4)));
    desk.on(Time(0), DeskEvent::ClientGone(RequestId(1)));
    all(&mut desk);
    assert_eq!(desk.running(), 2, "the third has begun");
    desk.on(Time(0), submission(5, 2, Width::Wide(Group(5))));
    desk.on(Time(0), DeskEvent::ShutDown);
    desk.on(Time(0), submission(6, 1, Width::Narrow));
    let mut ended: Vec<u64> = all(&mut desk)
        .into_iter()
        .filter_map(|action| match action {
            DeskAction::End { request, ending: Ending::Failed(failure) } => {
                assert_eq!(failure.kind, FailureKind::Unavailable);
                Some(request.0)
            }
            _ => None,
        })
        .collect();
    ended.sort_unstable();
    assert_eq!(ended, [2, 3, 5, 6]);
    assert_eq!((desk.running(), desk.timers.len()), (0, 0));
}

#[test]
fn leases_are_renewed_at_every_worker_that_has_some() {
    let mut desk = desk();
    cluster(&mut desk, Time(0), 1, 1);
    desk.on(Time(0), submission(1, 1, Width::Narrow));
    all(&mut desk);
    desk.on(Time(1), DeskEvent::Tick);
    assert_eq!(all(&mut desk), []);
    let due = Time(Span::from_secs(5).us());
    for worker in 0..2 {
        desk.on(due, DeskEvent::Status(WorkerId(worker), status(None)));
    }
    let renewed = all(&mut desk).into_iter().filter(|action| matches!(action, DeskAction::Tell(_, ToWorker::Renew(_))));
    assert_eq!(renewed.count(), 1, "the reader has heard of nothing yet");
    assert!(desk.next_timeout() > due);
}

/// Not a test of speed on a busy machine: what it bounds is work per decision, which a scan of all pairs would multiply by
/// hundreds. It prints what it measured.
#[expect(clippy::disallowed_methods, reason = "what is measured is the time that deciding takes")]
#[test]
fn a_decision_among_a_thousand_workers_looks_at_few() {
    let requests = 2_000;
    let took = |givers, readers| {
        let mut desk = desk();
        cluster(&mut desk, Time(0), givers, readers);
        let began = std::time::Instant::now();
        let mut decisions = 0;
        for id in 0..requests {
            let now = Time(id);
            desk.on(now, submission(id, 1, Width::Narrow));
            let first = all(&mut desk);
            decisions += play(&mut desk, now, first);
            let reader = WorkerId(givers + (id % u64::from(readers)) as u32);
            desk.on(now, DeskEvent::Status(reader, status(None)));
            all(&mut desk);
        }
        assert_eq!(desk.running(), 0);
        began.elapsed().as_secs_f64() * 1e6 / decisions as f64
    };
    let (few, many) = (took(1, 1), took(500, 500));
    println!("{few:.2} us per decision among 2 workers, {many:.2} us among 1000");
    assert!(many < 20.0 * few.max(0.5), "{few} us and {many} us");
}

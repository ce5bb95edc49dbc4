//! Desks with workers that fail what they are given.

use super::*;
use crate::cluster::Treatment;

/// Two aggregated workers, of which the first fails every leg and so always looks idle.
fn pair_of_workers() -> Desk {
    let mut desk = desk();
    for id in 0..2 {
        desk.on(Time(0), DeskEvent::Joined(WorkerId(id), info(id, Role::Aggregated)));
    }
    all(&mut desk);
    desk
}

fn at(ms: u64) -> Time {
    Time(ms * 1_000)
}

/// Runs a request: worker 0 does `conduct` with its leg, worker 1 serves it. Returns who got legs, and how it ended.
fn run(desk: &mut Desk, now: Time, id: u64, first: impl Fn(Leg) -> FromWorker) -> (Vec<u32>, Option<Ending>) {
    desk.on(now, submission(id, 1, Width::Narrow));
    let (mut went, mut ended) = (Vec::new(), None);
    while let Some(action) = desk.poll() {
        match action {
            DeskAction::Tell(worker, ToWorker::Submit(request, _)) => {
                went.push(worker.0);
                let said = if worker == WorkerId(0) { first(request.leg) } else { served(request.leg) };
                desk.on(now, DeskEvent::Said(worker, said));
            }
            DeskAction::End { ending, .. } => ended = Some(ending),
            _ => {}
        }
    }
    for worker in 0..2 {
        desk.on(now, DeskEvent::Status(WorkerId(worker), status(None)));
    }
    (went, ended)
}

fn fails(leg: Leg) -> FromWorker {
    FromWorker::Failed { leg, failure: Failure::new(FailureKind::Internal, "it is broken") }
}

fn served(leg: Leg) -> FromWorker {
    let ended = Some(FinishReason::Length);
    FromWorker::Token { leg, choice: Choice(0), index: 0, token: token(), ended, timing: None }
}

/// Found by reading: a worker that fails at once has the shortest queue, so it got every request, and failed it.
#[test]
fn a_worker_that_fails_every_leg_is_left_alone_and_tried_again() {
    let mut desk = pair_of_workers();
    for id in 1..=3 {
        assert_eq!(run(&mut desk, at(id), id, fails), (vec![0, 1], Some(Ending::Done)), "another worker serves it");
    }
    for id in 4..=9 {
        assert_eq!(run(&mut desk, at(id), id, fails), (vec![1], Some(Ending::Done)), "it is left alone");
    }
    assert_eq!(run(&mut desk, at(600), 10, fails).0, [0, 1], "after half a second it is tried");
    assert_eq!(run(&mut desk, at(601), 11, fails).0, [1], "and left alone for longer");
    assert_eq!(run(&mut desk, at(1_599), 12, fails).0, [1]);
    assert_eq!(run(&mut desk, at(1_601), 13, served).0, [0], "it works again");
    assert_eq!(run(&mut desk, at(1_602), 14, served).0, [0], "and is used as before");
}

#[test]
fn avoiding_is_told_and_a_failing_worker_is_better_than_none() {
    let mut desk = desk();
    desk.on(Time(0), DeskEvent::Joined(WorkerId(0), info(0, Role::Aggregated)));
    all(&mut desk);
    let mut told = Vec::new();
    for id in 1..=4 {
        desk.on(at(id), submission(id, 1, Width::Narrow));
        let actions = all(&mut desk);
        let [.., DeskAction::Tell(worker, ToWorker::Submit(request, _))] = &actions[..] else { panic!("{actions:?}") };
        desk.on(at(id), DeskEvent::Said(*worker, fails(request.leg)));
        told.extend(all(&mut desk));
    }
    let failed = told.iter().filter(|action| {
        matches!(action, DeskAction::End { ending: Ending::Failed(failure), .. } if failure.kind == FailureKind::Internal)
    });
    assert_eq!(failed.count(), 4, "without another worker it is not tried again: {told:?}");
    assert!(!told.iter().any(|action| matches!(action, DeskAction::Retry { .. })), "{told:?}");
    let treated: Vec<&DeskAction> = told.iter().filter(|action| matches!(action, DeskAction::Treat(..))).collect();
    assert_eq!(treated, [&DeskAction::Treat(WorkerId(0), Treatment::Avoided)]);
}

#[test]
fn a_process_whose_sessions_break_under_legs_is_avoided() {
    let mut desk = pair_of_workers();
    for id in 1..=3_u32 {
        let (now, request) = (at(u64::from(id)), u64::from(id));
        desk.on(now, submission(request, 1, Width::Narrow));
        all(&mut desk);
        let worker = if id == 1 { WorkerId(0) } else { WorkerId(id + 10) };
        desk.on(now, DeskEvent::Left(worker));
        let again = WorkerId(id + 11);
        desk.on(now, DeskEvent::Joined(again, info(0, Role::Aggregated)));
        desk.on(now, DeskEvent::Status(WorkerId(1), WorkerStatus { load: busy(), ..status(None) }));
        all(&mut desk);
    }
    desk.on(at(4), submission(9, 1, Width::Narrow));
    assert_eq!(submitted(&all(&mut desk)), [WorkerId(1)], "although that is busy");
}

fn busy() -> Load {
    Load { waiting_tokens: 50_000, running: 60, ..Load::default() }
}

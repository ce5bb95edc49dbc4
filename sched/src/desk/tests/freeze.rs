//! A host that stands still for a while, and all its workers with it.

use super::*;

const WORKERS: u32 = 6;

fn at(ms: u64) -> Time {
    Time(ms * 1_000)
}

/// Aggregated workers that were last heard at 0, with one request.
fn running() -> (Desk, Vec<DeskAction>) {
    let mut desk = desk();
    for id in 0..WORKERS {
        desk.on(Time(0), DeskEvent::Joined(WorkerId(id), info(id, Role::Aggregated)));
    }
    desk.on(Time(0), submission(1, 1, Width::Narrow));
    let begun = all(&mut desk);
    (desk, begun)
}

fn worker_of(actions: &[DeskAction]) -> Option<(WorkerId, Leg)> {
    actions.iter().find_map(|action| match action {
        DeskAction::Tell(worker, ToWorker::Submit(request, _)) => Some((*worker, request.leg)),
        _ => None,
    })
}

/// Found by trying: connections to the workers of a host that stood still broke one after another, each with an attempt
/// of the same request, until it had none left and failed.
#[test]
fn a_host_that_stands_still_costs_a_request_one_attempt() {
    let (mut desk, begun) = running();
    let (mut now_ms, mut lost, mut told) = (2_500, Vec::new(), begun);
    while let Some((worker, _)) = worker_of(&told) {
        desk.on(at(now_ms), DeskEvent::Left(worker));
        told = all(&mut desk);
        desk.on(at(now_ms + 120), DeskEvent::Tick);
        told.extend(all(&mut desk));
        (now_ms, lost) = (now_ms + 130, [lost, vec![worker]].concat());
    }
    assert_eq!(lost.len(), 1, "it waits until a worker is heard: {told:?}");
    assert!(!told.iter().any(|action| matches!(action, DeskAction::End { .. })), "{told:?}");
    let other = (0..WORKERS).map(WorkerId).find(|id| !lost.contains(id)).unwrap();
    desk.on(at(now_ms), DeskEvent::Status(other, status(None)));
    let (worker, leg) = worker_of(&all(&mut desk)).unwrap();
    assert_eq!((worker, leg.attempt.0), (other, 2));
}

/// A worker that is lost alone costs no time: the others have been heard.
#[test]
fn the_loss_of_one_worker_delays_nobody() {
    let (mut desk, begun) = running();
    for id in 0..WORKERS {
        desk.on(at(2_000), DeskEvent::Status(WorkerId(id), status(None)));
    }
    let (worker, _) = worker_of(&begun).unwrap();
    desk.on(at(2_500), DeskEvent::Left(worker));
    assert!(worker_of(&all(&mut desk)).is_some_and(|(other, _)| other != worker));
}

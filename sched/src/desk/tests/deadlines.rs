//! Deadlines of requests that wait for their turn.

use super::*;

fn failed(desk: &mut Desk) -> Vec<(u64, FailureKind)> {
    let failed = all(desk).into_iter().filter_map(|action| match action {
        DeskAction::End { request, ending: Ending::Failed(failure) } => Some((request.0, failure.kind)),
        _ => None,
    });
    failed.collect()
}

/// Found by trying: a request had its whole deadline once more when its turn came.
#[test]
fn a_deadline_counts_from_when_a_request_came_and_not_from_its_turn() {
    let mut desk = desk();
    cluster(&mut desk, Time(0), 1, 1);
    let at = |secs: u64| Time(0) + Span::from_secs(secs);
    for id in 1..=3 {
        desk.on(Time(0), submission(id, 4, Width::Wide(Group(id))));
    }
    assert_eq!(failed(&mut desk), []);
    let deadline = JourneyConfig::default().deadline.secs_f64() as u64;
    desk.on(at(deadline - 1), DeskEvent::ClientGone(RequestId(1)));
    assert_eq!(failed(&mut desk), [(1, FailureKind::Cancelled)]);
    assert_eq!(desk.running(), 1, "the second's turn has come");
    assert!(desk.next_timeout() <= at(deadline));
    desk.on(at(deadline), DeskEvent::Tick);
    let mut late = failed(&mut desk);
    late.sort_unstable_by_key(|(id, _)| *id);
    let kind = FailureKind::DeadlineExceeded;
    assert_eq!(late, [(2, kind), (3, kind)], "one that runs, and one whose turn has not come");
    assert_eq!((desk.running(), desk.wide.first_arrival()), (0, None));
}

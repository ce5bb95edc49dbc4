//! The taker's side by example and under every order of events.

use proptest::prelude::*;

use super::{Abandoned, Take, TakeState};
use crate::message::{PullOutcome, ReleaseAnswer};

fn reading() -> Take {
    let mut take = Take::queued();
    take.reserved();
    assert!(!take.start_reading());
    assert!(take.committed());
    assert!(take.start_reading());
    take
}

fn releasing() -> Take {
    let mut take = reading();
    assert_eq!(take.pull_ended(PullOutcome::Complete), Ok(true));
    take
}

#[test]
fn the_giver_s_ok_and_nothing_else_makes_it_usable() {
    let mut take = releasing();
    assert_eq!(take.release_answered(ReleaseAnswer::Ok), Some(true));
    assert_eq!(take.release_answered(ReleaseAnswer::Expired), None);
    assert_eq!(take.state(), TakeState::Verified);
    for answer in [ReleaseAnswer::Expired, ReleaseAnswer::Unreachable] {
        let mut take = releasing();
        assert_eq!(take.release_answered(answer), Some(false));
        assert_eq!(take.state(), TakeState::Failed);
    }
}

#[test]
fn an_early_answer_does_not_verify_what_has_not_been_read() {
    let mut take = reading();
    assert_eq!(take.release_answered(ReleaseAnswer::Ok), None);
    assert_eq!(take.state(), TakeState::Reading);
}

#[test]
fn commit_and_reservation_come_in_any_order() {
    let mut take = Take::queued();
    assert!(take.committed());
    assert!(!take.committed());
    assert!(!take.start_reading());
    take.reserved();
    assert!(take.start_reading());
    assert!(!take.start_reading());
}

#[test]
fn a_failed_pull_loses_it_and_says_why() {
    let mut take = reading();
    assert_eq!(take.pull_ended(PullOutcome::Failed("peer reset".into())), Err("peer reset".into()));
    assert_eq!(take.fail(), Abandoned::Nothing);
}

#[test]
fn what_is_left_behind_depends_on_how_far_it_was() {
    assert_eq!(Take::queued().abort(), Abandoned::Lease);
    assert_eq!(reading().abort(), Abandoned::LeaseAndPull);
    assert_eq!(releasing().fail(), Abandoned::Lease);
    let mut aborted = reading();
    aborted.abort();
    assert_eq!(aborted.abort(), Abandoned::Nothing);
    assert_eq!(aborted.pull_ended(PullOutcome::Complete), Ok(false));
}

#[test]
fn a_lease_that_is_gone_counts_only_before_the_release() {
    assert!(reading().lease_gone());
    assert!(!releasing().lease_gone());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_is_verified_only_by_reserve_commit_complete_and_ok(events in proptest::collection::vec(0_u8..10, 0..24)) {
        let mut take = Take::queued();
        let mut seen = Vec::new();
        for event in events {
            let before = take.state();
            match event {
                0 if before == TakeState::Queued => take.reserved(),
                0 => {}
                1 => _ = take.committed(),
                2 => _ = take.start_reading(),
                3 => _ = take.pull_ended(PullOutcome::Complete),
                4 => _ = take.pull_ended(PullOutcome::Failed(String::new())),
                5 => _ = take.release_answered(ReleaseAnswer::Ok),
                6 => _ = take.release_answered(ReleaseAnswer::Expired),
                7 => _ = take.lease_gone(),
                8 if seen.len() > 3 => _ = take.abort(),
                8 => {}
                _ => _ = take.pull_ended(PullOutcome::Aborted),
            }
            if take.state() != before {
                seen.push(take.state());
            }
        }
        let good = [TakeState::Reserved, TakeState::Reading, TakeState::Releasing, TakeState::Verified];
        let ends = seen.iter().position(|s| matches!(s, TakeState::Failed | TakeState::Aborted));
        let path = &seen[..ends.unwrap_or(seen.len())];
        prop_assert!(good.starts_with(path), "{seen:?}");
        prop_assert!(ends.is_none_or(|at| at + 1 == seen.len()), "{seen:?} goes on after its end");
    }
}

//! The reader's side by example and under every order of events.

use proptest::prelude::*;

use super::{Abandoned, Take, TakeState};
use crate::handoff::PullOutcome;
use crate::message::ReleaseAnswer;

fn queued() -> Take {
    let mut take = Take::offered();
    take.met();
    take
}

fn reading() -> Take {
    let mut take = queued();
    assert!(!take.may_read());
    take.reserved();
    assert!(take.committed());
    take.pull_begun();
    take
}

fn releasing() -> Take {
    let mut take = reading();
    assert!(!take.read_all(), "a pull runs");
    assert_eq!(take.pull_ended(PullOutcome::Complete), Ok(()));
    assert!(take.read_all() && !take.read_all());
    take
}

#[test]
fn the_giver_s_ok_and_nothing_else_makes_it_usable() {
    let mut take = releasing();
    assert_eq!(take.release_answered(ReleaseAnswer::Ok), Some(true));
    assert_eq!(take.release_answered(ReleaseAnswer::Expired), None);
    assert_eq!(take.state(), TakeState::Verified);
    let mut take = releasing();
    assert_eq!(take.release_answered(ReleaseAnswer::Expired), Some(false));
    assert_eq!(take.state(), TakeState::Failed);
    let mut take = releasing();
    assert!(take.release_unheard() && !take.release_unheard());
    assert_eq!(take.state(), TakeState::Failed);
}

#[test]
fn an_early_answer_does_not_verify_what_has_not_been_read() {
    let mut take = reading();
    assert_eq!(take.release_answered(ReleaseAnswer::Ok), None);
    assert_eq!(take.state(), TakeState::Reading { open: 1 });
}

#[test]
fn commit_and_reservation_come_in_any_order() {
    let mut take = queued();
    assert!(take.committed());
    assert!(!take.committed());
    assert!(!take.may_read() && !take.read_all());
    take.reserved();
    assert!(take.may_read() && take.is_committed());
}

#[test]
fn an_offer_whose_giver_is_not_met_has_no_lease_to_renew_and_hears_of_its_commit() {
    let mut take = Take::offered();
    assert!(!take.needs_lease() && !take.is_over() && !take.may_read() && !take.lease_gone());
    assert!(take.committed() && !take.committed());
    assert!(!take.read_all());
    take.met();
    assert!(take.needs_lease() && take.is_committed());
}

#[test]
fn what_is_read_before_the_commit_is_not_released_before_it() {
    let mut take = queued();
    take.reserved();
    take.pull_begun();
    assert_eq!(take.pull_ended(PullOutcome::Complete), Ok(()));
    assert!(!take.read_all());
    assert!(take.committed());
    assert!(take.read_all());
}

#[test]
fn a_failed_pull_loses_it_and_says_why() {
    let mut take = reading();
    assert_eq!(take.pull_ended(PullOutcome::Failed("peer reset".into())), Err("peer reset".into()));
    assert_eq!(take.fail(), Abandoned::Nothing);
}

#[test]
fn the_giver_is_asked_after_the_last_of_several_pulls_and_the_first_that_fails_loses_it() {
    let several = || {
        let mut take = reading();
        take.pull_begun();
        assert_eq!(take.pull_ended(PullOutcome::Complete), Ok(()));
        assert!(!take.read_all(), "another one runs");
        take.pull_begun();
        take
    };
    let mut take = several();
    assert_eq!(take.pull_ended(PullOutcome::Complete), Ok(()));
    assert_eq!(take.pull_ended(PullOutcome::Complete), Ok(()));
    assert!(take.read_all());
    assert_eq!(take.state(), TakeState::Releasing);
    let mut take = several();
    assert_eq!(take.pull_ended(PullOutcome::Failed("reset".into())), Err("reset".into()));
    assert_eq!(take.pull_ended(PullOutcome::Complete), Ok(()), "too late to matter");
    assert_eq!(several().abort(), Abandoned::LeaseAndPulls);
}

#[test]
fn what_is_here_already_is_not_pulled() {
    let mut take = queued();
    take.reserved();
    take.committed();
    assert_eq!(take.pull_ended(PullOutcome::Complete), Ok(()), "none has begun");
    let mut lost = take;
    assert_eq!(lost.abort(), Abandoned::Lease);
    assert!(take.read_all());
    assert_eq!(take.state(), TakeState::Releasing);
}

#[test]
fn what_is_left_behind_depends_on_how_far_it_was() {
    assert_eq!(Take::offered().abort(), Abandoned::Nothing);
    assert_eq!(queued().abort(), Abandoned::Lease);
    assert_eq!(reading().abort(), Abandoned::LeaseAndPulls);
    assert_eq!(releasing().fail(), Abandoned::Lease);
    let mut aborted = reading();
    aborted.abort();
    assert_eq!(aborted.abort(), Abandoned::Nothing);
    assert_eq!(aborted.pull_ended(PullOutcome::Complete), Ok(()));
}

#[test]
fn a_lease_that_is_gone_counts_only_before_the_release() {
    assert!(reading().lease_gone());
    assert!(!releasing().lease_gone());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_is_verified_only_by_reserve_commit_complete_and_ok(events in proptest::collection::vec(0_u8..12, 0..24)) {
        let mut take = Take::offered();
        let mut seen = Vec::new();
        for event in events {
            let before = take.state();
            match event {
                0 if before == TakeState::Queued => take.reserved(),
                0 => {}
                1 => _ = take.committed(),
                2 => _ = take.read_all(),
                3 => _ = take.pull_ended(PullOutcome::Complete),
                4 => _ = take.pull_ended(PullOutcome::Failed(String::new())),
                5 => _ = take.release_answered(ReleaseAnswer::Ok),
                6 => _ = take.release_answered(ReleaseAnswer::Expired),
                7 => _ = take.lease_gone(),
                10 if matches!(before, TakeState::Reserved | TakeState::Reading { open: ..3 }) => take.pull_begun(),
                10 => {}
                11 if before == TakeState::Unmet => take.met(),
                11 => {}
                8 if seen.len() > 4 => _ = take.abort(),
                8 => {}
                _ => _ = take.pull_ended(PullOutcome::Aborted),
            }
            // The number of open pulls makes no step of its own.
            let step = match take.state() {
                TakeState::Reading { .. } => TakeState::Reading { open: 0 },
                other => other,
            };
            if take.state() != before && seen.last() != Some(&step) {
                seen.push(step);
            }
        }
        // A prompt that is here already is not read.
        seen.retain(|step| !matches!(step, TakeState::Reading { .. }));
        let good = [TakeState::Queued, TakeState::Reserved, TakeState::Releasing, TakeState::Verified];
        let ends = seen.iter().position(|s| matches!(s, TakeState::Failed | TakeState::Aborted));
        let path = &seen[..ends.unwrap_or(seen.len())];
        prop_assert!(good.starts_with(path), "{seen:?}");
        prop_assert!(ends.is_none_or(|at| at + 1 == seen.len()), "{seen:?} goes on after its end");
    }
}

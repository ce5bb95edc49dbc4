//! Ranks around one segment: sums in the tree, orders and answers, boards; ranks that end or are late.

#![expect(clippy::expect_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{assert_same_bits, numbers, rows, values};
use kernels::Ops;
use kernels::collective::{
    Alone, Board, Collective, CollectiveError, Follower, Heard, Leader, Patience, Segment, SegmentShape, SharedReduce,
    Tallies,
};
use kernels::memory::{Backing, HostMemory};
use kernels::reference::ReferenceOps;

const PATIENCE: Patience = Patience { spin: Duration::from_micros(20), limit: Duration::from_secs(30) };
const SHORT: Patience = Patience { spin: Duration::ZERO, limit: Duration::from_millis(30) };
const VALUES_MAX: usize = 10_000;

fn shape(ranks: usize, group_ranks: usize) -> SegmentShape {
    SegmentShape {
        ranks,
        group_ranks,
        order_words_max: 8,
        row_values_max: VALUES_MAX,
        logit_values_max: 64,
        tallies: 3,
    }
}

fn segment(ranks: usize, group_ranks: usize) -> Arc<Segment> {
    Segment::new(shape(ranks, group_ranks), Backing::Anonymous).expect("a segment")
}

/// Summand of `rank` in one round.
fn part(rank: usize, round: usize, count: usize) -> Vec<f32> {
    numbers((1 + rank * 1000 + round) as u64, count)
}

fn tree(parts: &[Vec<f32>]) -> Vec<f32> {
    match parts {
        [one] => one.clone(),
        _ => {
            let (low, high) = parts.split_at(parts.len() / 2);
            tree(low).iter().zip(tree(high)).map(|(a, b)| a + b).collect()
        }
    }
}

/// A follower that ends by a panic does not hide the reason that its keeper knows.
#[test]
fn whoever_catches_a_panic_says_what_it_was() {
    let segment = segment(2, 2);
    let (of_rank, mut leader) = (Arc::clone(&segment), Leader::new(&segment));
    let thread = std::thread::spawn(move || {
        let _follower = Follower::new(&of_rank, 1).expect("a rank");
        panic!("on purpose");
    });
    assert!(thread.join().is_err());
    assert!(!segment.is_over());
    segment.declare_ended(1, "its thread panicked");
    leader.give([1], &[1]).expect("an order");
    assert_eq!(leader.hear(PATIENCE).expect_err("it has ended").to_string(), "rank 1 has ended: its thread panicked");
}

/// The tallies lie between other parts of the segment and do not overlap them.
#[test]
fn every_rank_counts_in_the_same_tallies() {
    let segment = segment(2, 1);
    let (first, second) = (Tallies::of(&segment), Tallies::of(&segment));
    assert_eq!(first.as_ref().len(), 3);
    Board::of_rows(&segment).put(0, &[f32::NAN; VALUES_MAX]).expect("rows");
    Leader::new(&segment).give([1], &[u32::MAX; 8]).expect("an order");
    segment.declare_ended(1, &"x".repeat(5000));
    for (tally, add) in first.as_ref().iter().zip(1..) {
        tally.fetch_add(add, Ordering::Relaxed);
    }
    let seen: Vec<u64> = second.as_ref().iter().map(|tally| tally.load(Ordering::Relaxed)).collect();
    assert_eq!(seen, [1, 2, 3]);
}

#[test]
fn groups_sum_in_the_tree() {
    /// Rows of very different sizes in turn: a fast rank must not disturb a slow one.
    const COUNTS: [usize; 9] = [1, VALUES_MAX, 15, 16, 17, 4099, 2, 1024, 33];
    for (ranks, group_ranks) in [(2, 2), (4, 4), (8, 8), (4, 2), (6, 2)] {
        let segment = segment(ranks, group_ranks);
        std::thread::scope(|scope| {
            for rank in 0..ranks {
                let mut group = SharedReduce::new(&segment, rank, PATIENCE).expect("a rank");
                scope.spawn(move || {
                    let first = rank / group_ranks * group_ranks;
                    assert_eq!(Collective::<ReferenceOps>::rank(&group), rank - first);
                    for round in 0..60 {
                        let count = COUNTS[round % COUNTS.len()];
                        let parts: Vec<_> = (first..first + group_ranks).map(|r| part(r, round, count)).collect();
                        let mut own = rows(&ReferenceOps::default(), 1, &parts[rank - first]);
                        group.all_reduce(&mut ReferenceOps::default(), &mut own, count).expect("a sum");
                        let what = format!("rank {rank} of {ranks} in groups of {group_ranks}, {count} values");
                        assert_same_bits(&values(&ReferenceOps::default(), &own, count), &tree(&parts), &what);
                    }
                });
            }
        });
    }
}

#[test]
fn one_rank_alone_has_its_sum() {
    let mut own = rows(&ReferenceOps::default(), 2, &[1.0, 2.0]);
    Alone.all_reduce(&mut ReferenceOps::default(), &mut own, 2).expect("nothing to wait for");
    let mut group = SharedReduce::new(&segment(3, 1), 2, SHORT).expect("a rank");
    group.all_reduce(&mut ReferenceOps::default(), &mut own, 2).expect("nothing to wait for");
    assert_same_bits(&values(&ReferenceOps::default(), &own, 2), &[1.0, 2.0], "alone");
}

#[test]
fn a_rank_that_does_not_come_or_sums_other_rows_is_named() {
    let segment = segment(2, 2);
    let mut group = SharedReduce::new(&segment, 0, SHORT).expect("a rank");
    let mut own = rows(&ReferenceOps::default(), 1, &[1.0; 4]);
    let late = group.all_reduce(&mut ReferenceOps::default(), &mut own, 4).expect_err("nobody comes");
    assert!(matches!(late, CollectiveError::Late { rank: 1, .. }), "{late}");
    let reason = segment.why_over().expect("nobody goes on without it").to_string();
    assert!(reason.starts_with("rank 1 has not come within 3"), "{reason}");

    let mut other = SharedReduce::new(&segment, 1, SHORT).expect("a rank");
    let mut fewer = rows(&ReferenceOps::default(), 1, &[1.0; 3]);
    let error = other.all_reduce(&mut ReferenceOps::default(), &mut fewer, 3).expect_err("4 values are not 3");
    assert_eq!(error.to_string(), "values another rank sums up is 4, must be 3, as this rank has");

    let mut many = rows(&ReferenceOps::default(), 1, &vec![0.0; VALUES_MAX + 1]);
    assert!(matches!(
        group.all_reduce(&mut ReferenceOps::default(), &mut many, VALUES_MAX + 1),
        Err(CollectiveError::TooLarge { max: VALUES_MAX, .. })
    ));
}

/// Starts a follower that answers each order by its first word: 0 is Ok, 1 an error; 2 ends it without an answer.
fn follow(segment: &Arc<Segment>, rank: usize) -> std::thread::JoinHandle<Vec<Vec<u32>>> {
    let segment = Arc::clone(segment);
    std::thread::spawn(move || {
        let mut follower = Follower::new(&segment, rank).expect("a follower");
        let (mut heard, mut order) = (Vec::new(), Vec::new());
        while follower.next(&mut order, Duration::ZERO) == Heard::Order {
            heard.push(order.clone());
            match order.first() {
                Some(1) => follower.answer(Err((7, "order 1 is none"))),
                Some(2) => return heard,
                _ => follower.answer(Ok(())),
            }
        }
        heard
    })
}

#[test]
fn orders_reach_those_they_are_for_in_order() {
    let segment = segment(3, 1);
    let threads = [follow(&segment, 1), follow(&segment, 2)];
    let mut leader = Leader::new(&segment);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for round in 0..500u32 {
        let order: Vec<u32> = [0].into_iter().chain((0..round % 7).map(|i| round + i)).collect();
        let to = [vec![1], vec![2], vec![1, 2], vec![]][round as usize % 4].clone();
        leader.give(to.iter().copied(), &order).expect("an order");
        leader.hear(PATIENCE).expect("answers");
        if to.contains(&1) {
            first.push(order.clone());
        }
        if to.contains(&2) {
            second.push(order);
        }
    }
    assert!(matches!(leader.give([1], &[0; 9]), Err(CollectiveError::TooLarge { count: 9, max: 8, .. })));
    drop(leader);
    assert_eq!(threads.map(|thread| thread.join().expect("a follower")), [first, second]);
}

#[test]
fn errors_of_a_follower_are_told() {
    let segment = segment(3, 1);
    let threads = [follow(&segment, 1), follow(&segment, 2)];
    let mut leader = Leader::new(&segment);
    leader.give([1, 2], &[1]).expect("an order");
    let error = leader.give([1], &[0]).expect_err("the last order was not heard");
    assert!(matches!(error, CollectiveError::Late { rank: 1, .. }), "{error}");
    let error = leader.hear(PATIENCE).expect_err("an error");
    assert!(matches!(error, CollectiveError::Failed { rank: 1, kind: 7, .. }));
    assert_eq!(error.to_string(), "rank 1: order 1 is none");
    leader.give([1, 2], &[0]).expect("an order");
    leader.hear(PATIENCE).expect("they live on");
    drop(leader);
    for thread in threads {
        thread.join().expect("a follower");
    }
}

#[test]
fn the_end_of_one_ends_every_wait() {
    let segment = segment(3, 1);
    let threads = [follow(&segment, 1), follow(&segment, 2)];
    let mut leader = Leader::new(&segment);
    let began = Instant::now();
    leader.give([1], &[2]).expect("an order");
    let error = leader.hear(PATIENCE).expect_err("it ended");
    assert!(matches!(error, CollectiveError::Ended { rank: 1, .. }), "{error}");
    for thread in threads {
        thread.join().expect("a follower");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "waits ended at their limits only");
}

#[test]
fn a_keeper_can_declare_a_rank_ended() {
    let segment = segment(2, 2);
    let mut group = SharedReduce::new(&segment, 0, PATIENCE).expect("a rank");
    let keeper = Arc::clone(&segment);
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        keeper.declare_ended(1, "signal: 9");
        keeper.declare_ended(0, "too late");
    });
    let mut own = rows(&ReferenceOps::default(), 1, &[1.0]);
    let error = group.all_reduce(&mut ReferenceOps::default(), &mut own, 1).expect_err("nobody comes");
    assert_eq!(error.to_string(), "rank 1 has ended: signal: 9");
    assert!(segment.is_over());
    thread.join().expect("the keeper");
    let long = "x".repeat(5000);
    self::segment(2, 1).declare_ended(1, &long);
}

#[test]
fn boards_carry_values_inside_their_bounds() {
    let segment = segment(2, 2);
    let (here, there) = (Board::of_rows(&segment), Board::of_rows(&segment));
    here.put(VALUES_MAX - 3, &[1.0, 2.0, 3.0]).expect("it fits");
    let mut out = [0.0; 2];
    there.get(VALUES_MAX - 2, &mut out).expect("it is there");
    assert_eq!(out, [2.0, 3.0]);
    Board::of_logits(&segment).put(0, &[7.0; 64]).expect("it fits");
    assert!(Board::of_logits(&segment).put(1, &[7.0; 64]).is_err());
    assert!(here.get(usize::MAX, &mut out).is_err());
    there.get(VALUES_MAX - 2, &mut out).expect("logits are elsewhere");
    assert_eq!(out, [2.0, 3.0]);
}

#[test]
fn segments_of_another_shape_are_refused() {
    for (ranks, group_ranks) in [(3, 3), (0, 1), (3, 2), (65, 1), (16, 16)] {
        assert!(Segment::new(shape(ranks, group_ranks), Backing::Anonymous).is_err(), "{ranks} in {group_ranks}");
    }
    let huge = SegmentShape { row_values_max: usize::MAX / 2, ..shape(2, 2) };
    assert!(Segment::new(huge, Backing::Anonymous).is_err());
    let bytes = Segment::bytes(&shape(2, 2)).expect("bytes");
    let fresh = || HostMemory::new(bytes, Backing::Anonymous).expect("memory");
    assert!(Segment::open(fresh(), shape(2, 2)).is_err(), "nobody has made a segment of it");
    assert!(Segment::open(fresh(), shape(4, 2)).is_err(), "too short");
    assert!(SharedReduce::new(&segment(2, 2), 2, SHORT).is_err());
    assert!(Follower::new(&segment(2, 2), 0).is_err() && Follower::new(&segment(2, 2), 2).is_err());
}

#[test]
fn nothing_is_summed_when_rows_do_not_hold_the_values() {
    let segment = segment(2, 2);
    let mut group = SharedReduce::new(&segment, 0, SHORT).expect("a rank");
    let mut own = ReferenceOps::default().rows(4, 1).expect("rows");
    assert!(matches!(group.all_reduce(&mut ReferenceOps::default(), &mut own, 4), Err(CollectiveError::Kernel(_))));
}

//! Models of the counters, orders, boards and sums of ranks.

#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../../src/collective/board.rs"]
mod board;
#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../../src/collective/counter.rs"]
mod counter;
#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../../src/collective/error.rs"]
mod error;
#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../../src/collective/orders.rs"]
mod orders;
#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../../src/collective/reduce.rs"]
mod reduce;
#[path = "segment.rs"]
mod segment;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::cell::Watched;
use crate::sync::{naps_end, naps_will_end, thread, until_asleep};
use crate::{KernelError, Model};
use board::Board;
use counter::{Counter, Patience};
pub(crate) use error::CollectiveError;
use orders::{Follower, Heard, Leader};
use reduce::SharedReduce;
pub(crate) use segment::Segment;

pub(crate) const MODELS: [Model; 10] = [
    ("counter: to and fro", 2, to_and_fro),
    ("counter: all sleepers are woken", 2, all_sleepers_are_woken),
    ("orders: the leader's end is heard", 2, the_leaders_end_is_heard),
    ("orders: the leader's end wakes sleepers", 2, the_leaders_end_wakes_sleepers),
    ("orders: an error is told", 2, an_error_is_told),
    ("orders: a rank that ended is noticed", 2, a_rank_that_ended_is_noticed),
    ("orders: the reason of an end is whole", 2, the_reason_of_an_end_is_whole),
    ("board: rows to a rank and back", 2, rows_to_a_rank_and_back),
    ("board: rows from rank to rank", 2, rows_from_rank_to_rank),
    ("sums: three in two sets of slots", 1, three_sums),
];

/// Time stands still, so a wait ends with its value or with the group.
const PATIENCE: Patience = Patience { spin: Duration::ZERO, limit: Duration::MAX };

/// As `src/collective/mod.rs` has it.
pub(crate) trait Collective<O: Ops> {
    #[allow(dead_code)]
    fn rank(&self) -> usize;
    #[allow(dead_code)]
    fn size(&self) -> usize;
    fn all_reduce(&mut self, ops: &mut O, rows: &mut O::Rows, values: usize) -> Result<(), CollectiveError>;
}

pub(crate) trait Ops {
    type Rows;
    fn read_rows(&self, rows: &Self::Rows, out: &mut [f32]) -> Result<(), KernelError>;
    fn write_rows(&self, rows: &mut Self::Rows, data: &[f32]) -> Result<(), KernelError>;
}

struct OneValue;

impl Ops for OneValue {
    type Rows = f32;

    fn read_rows(&self, rows: &f32, out: &mut [f32]) -> Result<(), KernelError> {
        out[0] = *rows;
        Ok(())
    }

    fn write_rows(&self, rows: &mut f32, data: &[f32]) -> Result<(), KernelError> {
        *rows = data[0];
        Ok(())
    }
}

/// Each round's number is seen with all earlier writes; a lost wake is a deadlock.
fn to_and_fro() {
    let shared = Arc::new(<([Counter; 3], Watched)>::default());
    let other = {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            let ([to, fro, over], data) = &*shared;
            for round in 1..=2 {
                to.wait_for(round, over, PATIENCE).expect("the group goes on");
                assert_eq!(data.get(), round);
                data.set(10 * round);
                fro.raise(round);
            }
        })
    };
    let ([to, fro, over], data) = &*shared;
    for round in 1..=2 {
        data.set(round);
        to.raise(round);
        fro.wait_for(round, over, PATIENCE).expect("the group goes on");
        assert_eq!(data.get(), 10 * round);
    }
    other.join().expect("the other");
}

fn all_sleepers_are_woken() {
    let shared = Arc::new(<([Counter; 2], Watched)>::default());
    let sleepers = [(); 2].map(|()| {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            let ([number, over], data) = &*shared;
            number.wait_for(1, over, PATIENCE).expect("the group goes on");
            assert_eq!((data.get(), number.notes[0].load(Relaxed)), (5, 6));
        })
    });
    let ([number, _], data) = &*shared;
    data.set(5);
    number.notes[0].store(6, Relaxed);
    number.raise(1);
    for sleeper in sleepers {
        sleeper.join().expect("a sleeper");
    }
}

fn follow(segment: &Arc<Segment>, rank: usize, mut obey: impl FnMut(u32) + 'static) -> thread::JoinHandle<()> {
    let segment = Arc::clone(segment);
    thread::spawn(move || {
        let mut follower = Follower::new(&segment, rank).expect("a follower");
        let (mut order, mut last) = (Vec::new(), None);
        while follower.next(&mut order, Duration::ZERO) == Heard::Order {
            assert_ne!(last.replace(order[0]), Some(order[0]), "an order is heard once");
            obey(order[0]);
            follower.answer(Ok(()));
        }
    })
}

/// The end wakes sleepers. It can miss a rank that is about to sleep, because no number changes; that rank looks again
/// by itself.
fn end(leader: Leader) {
    naps_will_end();
    drop(leader);
    naps_end();
}

fn the_leaders_end_is_heard() {
    let segment = Segment::new(3);
    let followers = [1, 2].map(|rank| follow(&segment, rank, |_| unreachable!("no order was given")));
    end(Leader::new(&segment));
    for follower in followers {
        follower.join().expect("a follower");
    }
}

fn the_leaders_end_wakes_sleepers() {
    let segment = Segment::new(3);
    let followers = [1, 2].map(|rank| follow(&segment, rank, |_| unreachable!("no order was given")));
    let leader = Leader::new(&segment);
    until_asleep(2);
    drop(leader);
    for follower in followers {
        follower.join().expect("a follower");
    }
}

/// The error's text is whole, whether it is heard as an answer or as the end that follows at once.
fn an_error_is_told() {
    let segment = Segment::new(2);
    let failing = {
        let segment = Arc::clone(&segment);
        thread::spawn(move || {
            let mut follower = Follower::new(&segment, 1).expect("a follower");
            assert_eq!(follower.next(&mut Vec::new(), Duration::ZERO), Heard::Order);
            follower.answer(Err((7, "no")));
        })
    };
    let mut leader = Leader::new(&segment);
    leader.give([1], &[3]).expect("an order");
    match leader.hear(PATIENCE) {
        Err(CollectiveError::Failed { rank: 1, kind: 7, said } | CollectiveError::Ended { rank: 1, kind: 7, said }) => {
            assert_eq!(said, "no");
        }
        other => panic!("{other:?}"),
    }
    failing.join().expect("a rank");
}

/// Nobody wakes the rank that waits for the ended one: its wait ends at the next look.
fn a_rank_that_ended_is_noticed() {
    naps_will_end();
    let segment = Segment::new(2);
    let keeper = {
        let segment = Arc::clone(&segment);
        thread::spawn(move || {
            segment.declare_ended(1, "killed");
            naps_end();
        })
    };
    let mut leader = Leader::new(&segment);
    leader.give([1], &[3]).expect("an order");
    match leader.hear(PATIENCE) {
        Err(CollectiveError::Ended { rank: 1, kind: 0, said }) => assert_eq!(said, "killed"),
        other => panic!("{other:?}"),
    }
    keeper.join().expect("a keeper");
}

/// A rank that sees the end sees the whole reason.
fn the_reason_of_an_end_is_whole() {
    let segment = Segment::new(2);
    let keeper = {
        let segment = Arc::clone(&segment);
        thread::spawn(move || segment.declare_ended(1, "killed"))
    };
    // A loop, because loom remembers only the last access to an atomic, here the keeper's own look before it sets the
    // end, and so does not try this look after it.
    let reason = loop {
        match segment.why_over() {
            Some(reason) => break reason,
            None => loom::thread::yield_now(),
        }
    };
    assert!(matches!(reason, CollectiveError::Ended { rank: 1, kind: 0, said } if said == "killed"));
    keeper.join().expect("a keeper");
}

/// One board in both directions, so each round overwrites what the last one read.
fn rows_to_a_rank_and_back() {
    let segment = Segment::new(2);
    let board = Board::of_rows(&segment);
    let follower = follow(&segment, 1, move |order| {
        let mut rows = [0.0; 2];
        board.get(0, &mut rows).expect("rows");
        assert_eq!(rows, [order as f32; 2]);
        board.put(0, &[10.0 * order as f32; 2]).expect("rows");
    });
    let (mut leader, board) = (Leader::new(&segment), Board::of_rows(&segment));
    for order in 1..=2 {
        board.put(0, &[order as f32; 2]).expect("rows");
        leader.give([1], &[order]).expect("an order");
        leader.hear(PATIENCE).expect("an answer");
        let mut rows = [0.0; 2];
        board.get(0, &mut rows).expect("rows");
        assert_eq!(rows, [10.0 * order as f32; 2]);
    }
    end(leader);
    follower.join().expect("a follower");
}

/// The leader never touches the rows: only its orders make one rank see the other's rows.
fn rows_from_rank_to_rank() {
    let segment = Segment::new(3);
    let (from, to) = (Board::of_rows(&segment), Board::of_rows(&segment));
    let followers = [
        follow(&segment, 1, move |order| from.put(0, &[order as f32; 2]).expect("rows")),
        follow(&segment, 2, move |order| {
            let mut rows = [0.0; 2];
            to.get(0, &mut rows).expect("rows");
            assert_eq!(rows, [order as f32; 2]);
        }),
    ];
    let mut leader = Leader::new(&segment);
    leader.give([1], &[5]).expect("an order");
    leader.hear(PATIENCE).expect("an answer");
    leader.give([2], &[5]).expect("an order");
    leader.hear(PATIENCE).expect("an answer");
    end(leader);
    for follower in followers {
        follower.join().expect("a follower");
    }
}

/// The third sum overwrites the slots of the first, while a slow rank may be at the second.
fn three_sums() {
    fn sum_up(segment: &Arc<Segment>, rank: usize) {
        let mut group = SharedReduce::new(segment, rank, PATIENCE).expect("a rank");
        for round in 1..=3u8 {
            let mut value = f32::from(round) * [1.0, 10.0][rank];
            group.all_reduce(&mut OneValue, &mut value, 1).expect("a sum");
            assert_eq!(value, f32::from(round) * 11.0);
        }
    }
    let segment = Segment::new(2);
    let own = Arc::clone(&segment);
    let other = thread::spawn(move || sum_up(&own, 1));
    sum_up(&segment, 0);
    other.join().expect("the other rank");
}

//! Models of the pool of threads, its gate and its sleeper.

#[allow(dead_code)]
#[path = "../../src/pool/gate.rs"]
mod gate;
#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../../src/pool/mod.rs"]
mod shipped;
#[path = "../../src/pool/sleep.rs"]
mod sleep;

use std::sync::Arc;

use crate::Model;
use crate::cell::Watched;
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use crate::sync::thread;
use gate::Gate;
use shipped::{Placement, Pool, PoolLane};
use sleep::Sleeper;

pub(crate) const MODELS: [Model; 10] = [
    ("gate: who is inside sees the round's job", 2, who_is_inside_sees_the_job),
    ("gate: a late worker stays outside", 2, a_late_worker_stays_outside),
    ("gate: the last one out is told so", 2, the_last_one_out_is_told_so),
    ("sleeper: no wake is lost", 2, no_wake_is_lost),
    ("sleeper: two wakers", 2, two_wakers),
    ("pool: one run", 2, || runs(2, &[2])),
    ("pool: two runs, one worker", 2, || runs(2, &[2, 2])),
    ("pool: one run, two workers", 2, || runs(3, &[3])),
    ("pool: two lanes", 1, two_lanes),
    ("pool: a caller lends its thread", 2, a_caller_lends_its_thread),
];

/// A worker that is inside keeps the caller from the next round.
fn who_is_inside_sees_the_job() {
    let (gate, job) = (Arc::new(Gate::default()), Arc::new(Watched::default()));
    let worker = {
        let (gate, job) = (Arc::clone(&gate), Arc::clone(&job));
        thread::spawn(move || {
            let round = gate.round();
            if gate.join(round) {
                assert_eq!(job.get(), round, "the job of the round it joined");
                gate.leave();
            }
        })
    };
    for round in 1..=2 {
        job.set(round);
        gate.open();
        gate.close();
        while !gate.is_empty() {
            loom::thread::yield_now();
        }
        job.set(u32::MAX);
    }
    worker.join().expect("a worker");
}

fn a_late_worker_stays_outside() {
    let gate = Arc::new(Gate::default());
    gate.open();
    gate.close();
    let late = {
        let gate = Arc::clone(&gate);
        thread::spawn(move || assert!(!gate.join(1), "round 1 is over"))
    };
    gate.open();
    gate.close();
    assert!(gate.is_empty());
    late.join().expect("a worker");
}

/// When the caller finds workers inside a closed gate, exactly one of them tells the caller that it was the last.
fn the_last_one_out_is_told_so() {
    let (gate, told) = (Arc::new(Gate::default()), Arc::new(AtomicU32::default()));
    gate.open();
    let workers = [(); 2].map(|()| {
        let (gate, told) = (Arc::clone(&gate), Arc::clone(&told));
        thread::spawn(move || {
            if gate.join(1) && gate.leave() {
                told.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    gate.close();
    let somebody_was_inside = !gate.is_empty();
    for worker in workers {
        worker.join().expect("a worker");
    }
    let told = told.load(Ordering::Relaxed);
    assert!(gate.is_empty() && told <= 1 && (told == 1 || !somebody_was_inside));
}

/// A lost wake is a thread that sleeps for ever, which loom calls a deadlock.
fn no_wake_is_lost() {
    let (sleeper, gate, seen) = (Arc::new(Sleeper::default()), Arc::new(Gate::default()), Arc::new(Watched::default()));
    let waiter = {
        let (sleeper, gate, seen) = (Arc::clone(&sleeper), Arc::clone(&gate), Arc::clone(&seen));
        thread::spawn(move || {
            sleeper.attend();
            for round in 1..=2 {
                sleeper.wait_until(|| gate.round() >= round);
            }
            assert_eq!(seen.get(), 2, "what was written before the wake");
        })
    };
    for round in 1..=2 {
        if round == 2 {
            seen.set(2);
        }
        gate.open();
        sleeper.wake();
        gate.close();
    }
    waiter.join().expect("a waiter");
}

fn two_wakers() {
    let sleeper = Arc::new(Sleeper::default());
    let done = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
    sleeper.attend();
    let wakers = [0, 1].map(|index| {
        let (sleeper, done) = (Arc::clone(&sleeper), Arc::clone(&done));
        thread::spawn(move || {
            done[index].store(true, Ordering::SeqCst);
            sleeper.wake();
        })
    });
    sleeper.wait_until(|| done.iter().all(|done| done.load(Ordering::SeqCst)));
    for waker in wakers {
        waker.join().expect("a waker");
    }
}

/// The shipped pool from start to end: every task is done once, the caller sees its writes, and a run does not see the
/// tasks of another.
fn runs(threads: usize, tasks_of_runs: &[usize]) {
    let pool = Pool::new(&Placement::Floating(threads)).expect("threads start");
    for (run, &tasks) in tasks_of_runs.iter().enumerate() {
        let input = Watched::default();
        input.set(run as u32 + 1);
        let done: Vec<Watched> = (0..tasks).map(|_| Watched::default()).collect();
        pool.run("model", tasks, &|task| done[task].set(done[task].get() + input.get())).expect("no task panics");
        assert!(done.iter().all(|done| done.get() == run as u32 + 1), "each task once");
        input.set(0);
    }
}

/// Two callers and no worker: each does tasks of both lanes, and neither leaves before its own are done.
fn two_lanes() {
    let pool = Arc::new(Pool::with_lanes(&Placement::Floating(2), 2).expect("threads start"));
    pool.set_shares(&[0.5, 0.5]);
    let other = {
        let lane = pool.lane(1).expect("it exists");
        thread::spawn(move || run_on(&lane, 2))
    };
    run_on(&pool.lane(0).expect("it exists"), 2);
    other.join().expect("a caller");
}

/// The lender hears of tasks, and of the end of its idleness, wherever it is.
fn a_caller_lends_its_thread() {
    let pool = Arc::new(Pool::with_lanes(&Placement::Floating(2), 2).expect("threads start"));
    let has_work = Arc::new(AtomicBool::new(false));
    let lender = {
        let (lane, has_work) = (pool.lane(1).expect("it exists"), Arc::clone(&has_work));
        thread::spawn(move || lane.lend(&|| has_work.load(Ordering::SeqCst)))
    };
    run_on(&pool.lane(0).expect("it exists"), 2);
    has_work.store(true, Ordering::SeqCst);
    pool.lane(1).expect("it exists").wake();
    lender.join().expect("a lender");
}

fn run_on(lane: &PoolLane, tasks: usize) {
    let done: Vec<Watched> = (0..tasks).map(|_| Watched::default()).collect();
    lane.run("model", tasks, &|task| done[task].set(done[task].get() + 1)).expect("no task panics");
    assert!(done.iter().all(|done| done.get() == 1), "each task once");
}

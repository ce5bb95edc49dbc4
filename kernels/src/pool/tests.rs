//! Tests of the pool: every task once, panics, and lanes that get their shares.

use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use super::*;

fn counts(pool: &Pool, tasks: usize) -> Vec<usize> {
    let done: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
    pool.run("test", tasks, &|i| _ = done[i].fetch_add(1, Ordering::Relaxed)).expect("no task panics");
    done.iter().map(|done| done.load(Ordering::Relaxed)).collect()
}

#[test]
fn every_task_is_done_once() {
    for threads in [1, 2, 3, 8] {
        let pool = Pool::new(&Placement::Floating(threads)).expect("threads start");
        for round in 0..300 {
            let tasks = round % 37;
            assert_eq!(counts(&pool, tasks), vec![1; tasks], "{threads} threads, {tasks} tasks");
        }
    }
}

#[test]
fn a_sleeping_pool_wakes_up() {
    let pool = Pool::new(&Placement::Floating(2)).expect("threads start");
    for _ in 0..20 {
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert_eq!(counts(&pool, 5), vec![1; 5]);
    }
}

#[test]
fn a_panic_is_an_error_and_the_pool_lives_on() {
    let pool = Pool::new(&Placement::Floating(3)).expect("threads start");
    let error = pool.run("test", 50, &|i| assert!(i != 7, "task seven")).expect_err("task 7 panics");
    assert_eq!(error, KernelError::TaskPanicked { op: "test", message: "task seven".to_owned() });
    assert_eq!(counts(&pool, 50), vec![1; 50]);
}

#[test]
fn callers_take_turns() {
    let pool = Pool::new(&Placement::Floating(2)).expect("threads start");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..100).for_each(|_| assert_eq!(counts(&pool, 9), vec![1; 9])));
        }
    });
}

#[test]
fn bad_placements_are_refused() {
    assert!(Pool::new(&Placement::Floating(0)).is_err());
    assert!(Pool::new(&Placement::Cores(vec![0, 1_000_000])).is_err());
}

/// Spins, as a task that computes does.
fn compute(micros: u64) {
    let until = Instant::now() + Duration::from_micros(micros);
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

#[test]
fn tasks_of_several_lanes_are_done_once_each_whatever_the_shares() {
    for (threads, shares) in [(2, [1.0, 1.0]), (2, [0.1, 0.9]), (3, [0.5, 0.5]), (5, [0.95, 0.05])] {
        let pool = Arc::new(Pool::with_lanes(&Placement::Floating(threads), 2).expect("threads start"));
        pool.set_shares(&shares);
        std::thread::scope(|scope| {
            for lane in 0..2 {
                let lane = pool.lane(lane).expect("it exists");
                scope.spawn(move || {
                    for round in 0..300 {
                        let done: Vec<AtomicUsize> = (0..round % 23).map(|_| AtomicUsize::new(0)).collect();
                        lane.run("test", done.len(), &|i| _ = done[i].fetch_add(1, Ordering::Relaxed))
                            .expect("no panic");
                        assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 1));
                        if round % 7 == 0 {
                            let asked = std::cell::Cell::new(0);
                            lane.lend(&|| {
                                asked.set(asked.get() + 1);
                                asked.get() > 2
                            });
                        }
                    }
                });
            }
        });
    }
}

/// Core time that the first of two busy lanes gets: its tasks are long, those of the other short and few.
fn share_of_the_first(share: f32) -> f32 {
    let pool = Arc::new(Pool::with_lanes(&Placement::Floating(2), 2).expect("threads start"));
    pool.set_shares(&[share, 1.0 - share]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (index, (tasks, micros)) in [(32, 80), (3, 20)].into_iter().enumerate() {
            let (lane, stop) = (pool.lane(index).expect("it exists"), &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    lane.run("test", tasks, &|_| compute(micros)).expect("no task panics");
                }
                lane.lend(&|| true);
            });
        }
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
    });
    // By its own account: on a busy machine the clock of a task says little about what it did.
    let used = pool.used();
    used[0].as_secs_f32() / (used[0] + used[1]).as_secs_f32()
}

/// Other work on the machine takes cores away from one task or the other, so one round of several has to come near.
#[test]
fn core_time_follows_the_shares() {
    for share in [0.2, 0.5, 0.8] {
        let mut rounds = (0..8).map(|_| share_of_the_first(share));
        assert!(rounds.any(|got| (got - share).abs() < 0.06), "the share {share} never came about");
    }
}

#[test]
fn an_idle_caller_does_the_tasks_of_others() {
    let pool = Arc::new(Pool::with_lanes(&Placement::Floating(2), 2).expect("threads start"));
    let helped = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (idle, busy) = (pool.lane(1).expect("it exists"), pool.lane(0).expect("it exists"));
        let idle_too = idle.clone();
        let stopped = &stop;
        let lender = scope.spawn(move || idle.lend(&|| stopped.load(Ordering::SeqCst)));
        let lender_id = lender.thread().id();
        let deadline = Instant::now() + Duration::from_secs(60);
        while helped.load(Ordering::Relaxed) < 100 && Instant::now() < deadline {
            busy.run("test", 20, &|_| {
                compute(50);
                helped.fetch_add(usize::from(std::thread::current().id() == lender_id), Ordering::Relaxed);
            })
            .expect("no task panics");
        }
        stop.store(true, Ordering::SeqCst);
        idle_too.wake();
        lender.join().expect("it ends");
    });
    assert!(helped.into_inner() >= 100);
}

#[test]
fn a_panic_of_one_lane_is_not_the_other_lanes_error() {
    let pool = Arc::new(Pool::with_lanes(&Placement::Floating(2), 2).expect("threads start"));
    std::thread::scope(|scope| {
        let (good, bad) = (pool.lane(0).expect("it exists"), pool.lane(1).expect("it exists"));
        scope.spawn(move || (0..100).for_each(|_| good.run("test", 9, &|_| compute(5)).expect("no task panics")));
        scope.spawn(move || {
            (0..100).for_each(|_| assert!(bad.run("test", 9, &|i| assert!(i != 7, "seven")).is_err()));
        });
    });
}

#[test]
fn lanes_need_threads() {
    assert!(Pool::with_lanes(&Placement::Floating(1), 2).is_err());
    assert!(Pool::with_lanes(&Placement::Floating(2), 0).is_err());
    assert!(Arc::new(Pool::new(&Placement::Floating(2)).expect("threads start")).lane(1).is_err());
}

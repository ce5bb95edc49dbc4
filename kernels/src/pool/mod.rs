//! A pool of pinned worker threads that share out the tasks of operations; knows no operation.
//!
//! A run has numbered tasks of 30 to 100 µs; the caller and the workers claim them one by one, so a thread that the
//! system suspends delays one task, not a fixed share. The caller waits only for workers that have joined the run: a
//! worker that still sleeps when all tasks are claimed costs nothing.
//!
//! A pool may have several *lanes*, whose callers run at the same time, each caller one of the threads. A thread keeps to
//! one lane, and goes to another one for a while when its own is ahead of its share (`turns`); a caller without work
//! lends itself to the others. A lane whose last tasks are still being done goes on in a moment: a thread then waits for it a
//! little, instead of taking a long task of another lane; otherwise a lane of small operations would never get its share.

mod gate;
mod lane;
mod sleep;
mod turns;

use std::cell::Cell;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::KernelError;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Instant, Mutex, MutexGuard, mpsc, spin_until};
use lane::{Lane, Tasks};
use sleep::Sleeper;
use turns::Turns;

const THREADS_MAX: usize = 1024;
/// Longest wait for the end of a run whose lane lags.
const PATIENCE: Duration = Duration::from_micros(100);

/// Placement of a pool's threads. The callers, one per lane, are the first of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// One thread per named core, pinned to it. The callers pin themselves with [`PoolLane::pin_caller`].
    Cores(Vec<usize>),
    /// This number of threads, placed by the system.
    Floating(usize),
}

impl Placement {
    /// Number of threads, callers included.
    #[must_use]
    pub fn threads(&self) -> usize {
        match self {
            Placement::Cores(cores) => cores.len(),
            Placement::Floating(threads) => *threads,
        }
    }
}

/// Worker threads, and the lanes whose tasks they do.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    caller_cores: Vec<usize>,
}

/// One lane of a pool, for its caller.
#[derive(Clone)]
pub struct PoolLane {
    pool: Arc<Pool>,
    lane: usize,
}

struct Worker {
    sleeper: Arc<Sleeper>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    lanes: Box<[Lane]>,
    turns: Turns,
    stop: AtomicBool,
}

/// Where a thread works.
struct Place {
    home: Home,
    at: Cell<usize>,
}

/// What a thread is to the pool, which says whose tasks it does first.
#[derive(Clone, Copy)]
enum Home {
    CallerOf(usize),
    Worker(usize),
}

/// Where a thread looks for its next task.
enum Next {
    TaskOf(usize),
    /// The lane lags, and its run is about to end.
    EndOf(usize),
    Nowhere,
}

impl Pool {
    /// Starts a pool with one lane: one worker less than `placement` has threads, because the caller is one of them.
    pub fn new(placement: &Placement) -> Result<Self, KernelError> {
        Pool::with_lanes(placement, 1)
    }

    /// Starts a pool with `lanes` lanes, each of which has one of the threads as its caller.
    pub fn with_lanes(placement: &Placement, lanes: usize) -> Result<Self, KernelError> {
        let threads = placement.threads();
        let cores = match placement {
            Placement::Cores(cores) => cores.as_slice(),
            Placement::Floating(_) => &[],
        };
        if lanes == 0 || threads < lanes || threads > THREADS_MAX {
            let what = format!("{threads} threads asked for, must be between {} and {THREADS_MAX}", lanes.max(1));
            return Err(KernelError::Threads { what });
        }
        let shared = Arc::new(Shared {
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            turns: Turns::new(lanes, threads - lanes),
            stop: AtomicBool::new(false),
        });
        let caller_cores = cores.iter().take(lanes).copied().collect();
        let mut pool = Self { shared, workers: Vec::new(), caller_cores };
        for worker in 0..threads - lanes {
            pool.spawn(worker, cores.get(lanes + worker).copied())?;
        }
        Ok(pool)
    }

    fn spawn(&mut self, worker: usize, core: Option<usize>) -> Result<(), KernelError> {
        let sleeper = Arc::new(Sleeper::default());
        let (shared, own_sleeper) = (Arc::clone(&self.shared), Arc::clone(&sleeper));
        let (pinned, is_pinned) = mpsc::channel();
        let name = format!("kernels-{}", self.lanes() + worker);
        let thread = thread::Builder::new().name(name).spawn(move || {
            let placed = core.map_or(Ok(()), pin_to_core);
            let serve = placed.is_ok();
            // If the pool was dropped already, nobody listens and `stop` ends the worker.
            let _ = pinned.send(placed);
            if serve {
                own_sleeper.attend();
                shared.serve(Home::Worker(worker), &own_sleeper, &|| shared.stop.load(Ordering::SeqCst));
            }
        });
        let thread = thread.map_err(|error| KernelError::Threads { what: format!("spawn: {error}") })?;
        self.workers.push(Worker { sleeper, thread: Some(thread) });
        is_pinned.recv().unwrap_or_else(|_| Err(KernelError::Threads { what: "a worker died at its start".to_owned() }))
    }

    /// Threads that compute, the callers included.
    pub fn threads(&self) -> usize {
        self.workers.len() + self.shared.lanes.len()
    }

    /// Number of lanes.
    pub fn lanes(&self) -> usize {
        self.shared.lanes.len()
    }

    /// The lane with this number.
    pub fn lane(self: &Arc<Self>, lane: usize) -> Result<PoolLane, KernelError> {
        if lane >= self.lanes() {
            return Err(KernelError::Threads { what: format!("lane {lane} of a pool with {}", self.lanes()) });
        }
        Ok(PoolLane { pool: Arc::clone(self), lane })
    }

    /// [`PoolLane::pin_caller`] of the first lane.
    pub fn pin_caller(&self) -> Result<(), KernelError> {
        self.pin_caller_of(0)
    }

    fn pin_caller_of(&self, lane: usize) -> Result<(), KernelError> {
        self.caller_cores.get(lane).map_or(Ok(()), |core| pin_to_core(*core))
    }

    /// Sets the shares of all lanes, in their order, each in (0, 1]; they hold from the next task on. Shares that sum to
    /// more than 1 divide nothing, as at the start, when every share is 1: each caller does its own tasks first.
    pub fn set_shares(&self, shares: &[f32]) {
        self.shared.turns.set_shares(shares);
    }

    /// Core time that each lane has used so far, by tasks and by its caller between them; 0 where there is one lane.
    pub fn used(&self) -> Vec<Duration> {
        (0..self.lanes()).map(|lane| Duration::from_nanos(self.shared.turns.used_ns(lane))).collect()
    }

    /// [`PoolLane::run`] of the first lane.
    pub fn run(&self, op: &'static str, tasks: usize, task: &(dyn Fn(usize) + Sync)) -> Result<(), KernelError> {
        self.run_on(0, op, tasks, task)
    }

    fn run_on(
        &self,
        lane: usize,
        op: &'static str,
        count: usize,
        task: &(dyn Fn(usize) + Sync),
    ) -> Result<(), KernelError> {
        let tasks = Tasks::new(task);
        if self.threads() == 1 || (count <= 1 && self.lanes() == 1) {
            let _ = (0..count).all(|index| tasks.perform(index));
        } else if count > 0 {
            self.share(lane, &tasks, count);
        }
        match tasks.panicked() {
            None => Ok(()),
            Some(message) => Err(KernelError::TaskPanicked { op, message }),
        }
    }

    /// Opens the lane, works until all its tasks are claimed, closes it and waits, not idly, until they are done.
    fn share(&self, lane: usize, tasks: &Tasks<'_>, count: usize) {
        let own = &self.shared.lanes[lane];
        let _turn = lock(&own.one_run_at_a_time);
        self.shared.run_begins(lane);
        own.open(tasks, count);
        self.wake_others(lane, count - 1);
        self.shared.serve(Home::CallerOf(lane), &own.caller, &|| own.all_claimed());
        own.close();
        self.shared.serve(Home::CallerOf(lane), &own.caller, &|| own.is_empty());
        own.forget();
        self.shared.run_ends(lane);
    }

    /// Wakes up to `most` threads other than the caller of `lane`, workers first.
    fn wake_others(&self, lane: usize, most: usize) {
        let workers = self.workers.iter().map(|worker| &*worker.sleeper);
        let callers = (0..self.lanes()).filter(|other| *other != lane).map(|other| &self.shared.lanes[other].caller);
        workers.chain(callers).take(most).for_each(Sleeper::wake);
    }
}

impl PoolLane {
    /// Does `task(0)` … `task(tasks - 1)`, each once, in no fixed order, and returns when all are done. Runs of one lane
    /// take turns. A task must not start a run of the same pool.
    ///
    /// If a task panics, tasks not yet claimed are skipped and the error has the message of the first panic.
    pub fn run(&self, op: &'static str, tasks: usize, task: &(dyn Fn(usize) + Sync)) -> Result<(), KernelError> {
        self.pool.run_on(self.lane, op, tasks, task)
    }

    /// Does tasks of other lanes until `done`. Whoever makes it true calls [`PoolLane::wake`] afterwards. Until the next
    /// run this lane counts as idle, and the others have its share.
    pub fn lend(&self, done: &dyn Fn() -> bool) {
        let own = &self.pool.shared.lanes[self.lane];
        self.pool.shared.rests(self.lane);
        own.caller.attend();
        self.pool.shared.serve(Home::CallerOf(self.lane), &own.caller, done);
    }

    /// Wakes the caller that is in [`PoolLane::lend`].
    pub fn wake(&self) {
        self.pool.shared.lanes[self.lane].caller.wake();
    }

    /// The pool of the lane.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Threads of the pool.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Pins the calling thread, the lane's caller, to its core; does nothing when threads float.
    pub fn pin_caller(&self) -> Result<(), KernelError> {
        self.pool.pin_caller_of(self.lane)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in &mut self.workers {
            worker.sleeper.wake();
            if let Some(thread) = worker.thread.take() {
                // A worker catches the panics of tasks, so it never ends by a panic.
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    /// Work of one thread until `done`; it sleeps in `sleeper` when there is none.
    fn serve(&self, home: Home, sleeper: &Sleeper, done: &dyn Fn() -> bool) {
        let place = Place { home, at: Cell::new(self.favourite(home)) };
        while !done() {
            match self.next(&place) {
                Next::TaskOf(lane) => self.work(lane, &place, done),
                Next::EndOf(lane) => self.await_end(lane, &place, done),
                Next::Nowhere => sleeper.wait_until(|| done() || self.lanes.iter().any(Lane::has_tasks)),
            }
        }
    }

    /// The lane whose tasks a thread does first: callers their own, and of the workers as many as its share is worth.
    fn favourite(&self, home: Home) -> usize {
        match home {
            Home::CallerOf(lane) => lane,
            Home::Worker(worker) => self.turns.favourite_of(worker),
        }
    }

    fn next(&self, place: &Place) -> Next {
        let favourite = self.favourite(place.home);
        let first = match self.turns.are_oversubscribed() {
            true => favourite,
            false => self.turns.lane_of(favourite, place.at.get()),
        };
        place.at.set(first);
        if self.lanes[first].has_tasks() {
            return Next::TaskOf(first);
        }
        match self.lanes.iter().position(Lane::has_tasks) {
            None => Next::Nowhere,
            Some(_) if self.is_waited_for(first) => Next::EndOf(first),
            Some(other) => Next::TaskOf(other),
        }
    }

    fn is_waited_for(&self, lane: usize) -> bool {
        !self.turns.are_oversubscribed() && self.turns.is_busy(lane) && self.lanes[lane].is_worth_a_wait()
    }

    /// Does tasks of a lane while they are what this thread ought to do.
    fn work(&self, lane: usize, place: &Place, done: &dyn Fn() -> bool) {
        if self.lanes.len() == 1 {
            return self.lanes[lane].work(|task| {
                task();
                true
            });
        }
        if self.turns.is_alone(lane) {
            return self.work_alone(lane, done);
        }
        let mut began_ns = self.turns.now_ns();
        self.lanes[lane].work(|task| {
            let claim = self.turns.claim(lane, began_ns);
            task();
            began_ns = self.turns.done(claim);
            !done() && matches!(self.next(place), Next::TaskOf(next) if next == lane)
        });
    }

    /// While other lanes are idle nothing is shared out, and the clock is read only before the first task and after the
    /// last.
    fn work_alone(&self, lane: usize, done: &dyn Fn() -> bool) {
        let began_ns = self.turns.now_ns();
        self.lanes[lane].work(|task| {
            task();
            !done() && self.turns.is_alone(lane)
        });
        self.turns.charge(lane, self.turns.now_ns().saturating_sub(began_ns));
    }

    fn await_end(&self, lane: usize, place: &Place, done: &dyn Fn() -> bool) {
        let is_over = || done() || !matches!(self.next(place), Next::EndOf(_));
        if !spin_until(Instant::now(), PATIENCE, is_over) {
            self.lanes[lane].give_up();
        }
    }

    fn run_begins(&self, lane: usize) {
        if self.lanes.len() > 1 {
            self.turns.run_begins(lane);
        }
    }

    fn run_ends(&self, lane: usize) {
        if self.lanes.len() > 1 {
            self.turns.run_ends(lane);
        }
    }

    fn rests(&self, lane: usize) {
        if self.lanes.len() > 1 {
            self.turns.rests(lane);
        }
    }
}

fn pin_to_core(core: usize) -> Result<(), KernelError> {
    let cores_max = 8 * size_of::<libc::cpu_set_t>();
    if core >= cores_max {
        return Err(KernelError::Threads { what: format!("core {core} must be less than {cores_max}") });
    }
    // SAFETY: `cpu_set_t` is plain bits, for which all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `core` is less than the number of bits of the set.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: 0 names the calling thread, and the set outlives the call.
    let status = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if status == 0 {
        return Ok(());
    }
    Err(KernelError::Threads { what: format!("pin to core {core}: {}", std::io::Error::last_os_error()) })
}

/// Ignores poison: a mutex of this module guards one plain value, which no panic leaves half written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

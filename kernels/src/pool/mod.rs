//! A pool of pinned worker threads that share out the tasks of one operation; knows no operation.
//!
//! A run has numbered tasks of 30 to 100 µs; the caller and the workers claim them one by one, so a thread that the
//! system suspends delays one task, not a fixed share. The caller waits only for workers that have joined the run: a
//! worker that still sleeps when all tasks are claimed costs nothing.

mod gate;
mod sleep;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use crate::KernelError;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Mutex, MutexGuard, mpsc};
use gate::Gate;
use sleep::Sleeper;

const THREADS_MAX: usize = 1024;

/// Placement of a pool's threads. The caller of [`Pool::run`] is the first of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// One thread per named core, pinned to it. The caller pins itself with [`Pool::pin_caller`].
    Cores(Vec<usize>),
    /// This number of threads, placed by the system.
    Floating(usize),
}

/// Worker threads and the run they share.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    caller_core: Option<usize>,
    one_run_at_a_time: Mutex<()>,
}

struct Worker {
    sleeper: Arc<Sleeper>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    gate: Gate,
    job: Mutex<Option<Job>>,
    caller: Sleeper,
    stop: AtomicBool,
}

/// Pointer to the tasks of one run, in the caller's stack frame. Workers use it only between joining and leaving the
/// gate, and the caller leaves only when nobody is inside.
#[derive(Clone, Copy)]
struct Job(*const Tasks<'static>);

// SAFETY: `Tasks` is `Sync`, and the gate keeps the caller's frame alive while a worker uses the pointer.
unsafe impl Send for Job {}

struct Tasks<'a> {
    count: usize,
    next: AtomicUsize,
    task: &'a (dyn Fn(usize) + Sync),
    panicked: Mutex<Option<String>>,
}

impl Tasks<'_> {
    /// Claims and does tasks until none is left or one has panicked.
    fn work(&self) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.count {
                return;
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.task)(index))) {
                self.next.store(self.count, Ordering::Relaxed);
                lock(&self.panicked).get_or_insert_with(|| panic_message(panic.as_ref()));
            }
        }
    }
}

impl Pool {
    /// Starts one worker less than `placement` has threads, because the caller is one of them.
    pub fn new(placement: &Placement) -> Result<Self, KernelError> {
        let (threads, cores) = match placement {
            Placement::Cores(cores) => (cores.len(), cores.as_slice()),
            Placement::Floating(threads) => (*threads, &[][..]),
        };
        if threads == 0 || threads > THREADS_MAX {
            let what = format!("{threads} threads asked for, must be between 1 and {THREADS_MAX}");
            return Err(KernelError::Threads { what });
        }
        let shared = Arc::new(Shared {
            gate: Gate::default(),
            job: Mutex::new(None),
            caller: Sleeper::default(),
            stop: AtomicBool::new(false),
        });
        let caller_core = cores.first().copied();
        let mut pool = Self { shared, workers: Vec::new(), caller_core, one_run_at_a_time: Mutex::new(()) };
        for index in 1..threads {
            pool.spawn(index, cores.get(index).copied())?;
        }
        Ok(pool)
    }

    fn spawn(&mut self, index: usize, core: Option<usize>) -> Result<(), KernelError> {
        let sleeper = Arc::new(Sleeper::default());
        let (shared, own_sleeper) = (Arc::clone(&self.shared), Arc::clone(&sleeper));
        let (pinned, is_pinned) = mpsc::channel();
        let thread = thread::Builder::new().name(format!("kernels-{index}")).spawn(move || {
            let placed = core.map_or(Ok(()), pin_to_core);
            let serve = placed.is_ok();
            // If the pool was dropped already, nobody listens and `stop` ends the worker.
            let _ = pinned.send(placed);
            if serve {
                worker_loop(&shared, &own_sleeper);
            }
        });
        let thread = thread.map_err(|error| KernelError::Threads { what: format!("spawn: {error}") })?;
        self.workers.push(Worker { sleeper, thread: Some(thread) });
        is_pinned.recv().unwrap_or_else(|_| Err(KernelError::Threads { what: "a worker died at its start".to_owned() }))
    }

    /// Threads that compute, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Pins the calling thread to the first core of the placement; does nothing when it floats.
    pub fn pin_caller(&self) -> Result<(), KernelError> {
        self.caller_core.map_or(Ok(()), pin_to_core)
    }

    /// Does `task(0)` … `task(tasks - 1)`, each once, in no fixed order, and returns when all are done. Runs of several
    /// callers take turns. A task must not start a run of the same pool.
    ///
    /// If a task panics, tasks not yet claimed are skipped and the error has the message of the first panic.
    pub fn run(&self, op: &'static str, tasks: usize, task: &(dyn Fn(usize) + Sync)) -> Result<(), KernelError> {
        let tasks = Tasks { count: tasks, next: AtomicUsize::new(0), task, panicked: Mutex::new(None) };
        if tasks.count <= 1 || self.workers.is_empty() {
            tasks.work();
        } else {
            self.share(&tasks);
        }
        match lock(&tasks.panicked).take() {
            None => Ok(()),
            Some(message) => Err(KernelError::TaskPanicked { op, message }),
        }
    }

    /// Opens the gate, does tasks, closes the gate and waits until nobody is inside.
    fn share(&self, tasks: &Tasks<'_>) {
        let _turn = lock(&self.one_run_at_a_time);
        let pointer: *const Tasks<'_> = tasks;
        *lock(&self.shared.job) = Some(Job(pointer.cast()));
        self.shared.caller.attend();
        self.shared.gate.open();
        for worker in self.workers.iter().take(tasks.count - 1) {
            worker.sleeper.wake();
        }
        tasks.work();
        self.shared.gate.close();
        self.shared.caller.wait_until(|| self.shared.gate.is_empty());
        *lock(&self.shared.job) = None;
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

fn worker_loop(shared: &Shared, sleeper: &Sleeper) {
    sleeper.attend();
    let mut seen = 0;
    loop {
        sleeper.wait_until(|| shared.stop.load(Ordering::SeqCst) || shared.gate.round() != seen);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        seen = shared.gate.round();
        if shared.gate.join(seen) {
            let job = *lock(&shared.job);
            if let Some(Job(tasks)) = job {
                // SAFETY: the caller of this round set the job before it opened the gate, and keeps it alive until the
                // gate is empty; this worker is inside until `leave`.
                unsafe { &*tasks }.work();
            }
            if shared.gate.leave() {
                shared.caller.wake();
            }
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

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let owned = || panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(owned).unwrap_or("a panic without a message").to_owned()
}

/// Ignores poison: a mutex of this module guards one plain value, which no panic leaves half written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
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
}

//! One lane of a pool: its current run, and who works on it; knows no other lane.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::gate::Gate;
use super::lock;
use super::sleep::Sleeper;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The runs of one caller, one at a time.
#[derive(Default)]
pub(super) struct Lane {
    gate: Gate,
    job: Mutex<Option<Job>>,
    /// Tasks of the run, and the next that nobody has claimed. The caller sets both while the gate is closed and empty.
    count: AtomicUsize,
    next: AtomicUsize,
    pub(super) caller: Sleeper,
    pub(super) one_run_at_a_time: Mutex<()>,
    /// The last round whose end other lanes have waited for long enough.
    given_up: AtomicU64,
}

/// Pointer to the task of one run, in the caller's stack frame. It is used only between joining and leaving the gate,
/// and the caller leaves its frame only when nobody is inside.
#[derive(Clone, Copy)]
struct Job(*const Tasks<'static>);

// SAFETY: `Tasks` is `Sync`, and the gate keeps the caller's frame alive while a worker uses the pointer.
unsafe impl Send for Job {}
// SAFETY: a shared reference gives no more than a copy of the pointer.
unsafe impl Sync for Job {}

pub(super) struct Tasks<'a> {
    task: &'a (dyn Fn(usize) + Sync),
    panicked: Mutex<Option<String>>,
}

impl<'a> Tasks<'a> {
    pub(super) fn new(task: &'a (dyn Fn(usize) + Sync)) -> Tasks<'a> {
        Tasks { task, panicked: Mutex::new(None) }
    }

    /// Message of the first panic.
    pub(super) fn panicked(&self) -> Option<String> {
        lock(&self.panicked).take()
    }

    /// Returns whether the task ended without a panic.
    pub(super) fn perform(&self, index: usize) -> bool {
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.task)(index))) else { return true };
        lock(&self.panicked).get_or_insert_with(|| panic_message(panic.as_ref()));
        false
    }
}

impl Lane {
    /// Lets threads in. [`Lane::close`], and an empty lane afterwards, must come before `tasks` goes.
    pub(super) fn open(&self, tasks: &Tasks<'_>, count: usize) {
        let pointer: *const Tasks<'_> = tasks;
        *lock(&self.job) = Some(Job(pointer.cast()));
        self.count.store(count, Ordering::Relaxed);
        self.next.store(0, Ordering::Relaxed);
        self.caller.attend();
        self.gate.open();
    }

    pub(super) fn close(&self) {
        self.gate.close();
    }

    pub(super) fn forget(&self) {
        *lock(&self.job) = None;
    }

    /// True if nobody works on the run.
    pub(super) fn is_empty(&self) -> bool {
        self.gate.is_empty()
    }

    /// True if the run has tasks that nobody has claimed. A hint for everyone but the caller.
    pub(super) fn has_tasks(&self) -> bool {
        self.gate.is_open() && !self.all_claimed()
    }

    pub(super) fn all_claimed(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.count.load(Ordering::Relaxed)
    }

    /// Does tasks of the current run: `around` is called with each and says whether to go on. Does nothing if the run
    /// is over.
    pub(super) fn work(&self, mut around: impl FnMut(&dyn Fn()) -> bool) {
        if !self.gate.join(self.gate.round()) {
            return;
        }
        let job = *lock(&self.job);
        if let Some(Job(tasks)) = job {
            // SAFETY: the caller of this round set the job before it opened the gate, and keeps it alive until the gate
            // is empty; this thread is inside until `leave`.
            let tasks = unsafe { &*tasks };
            while let Some(index) = self.claim() {
                let goes_on = around(&|| {
                    if !tasks.perform(index) {
                        self.next.store(self.count.load(Ordering::Relaxed), Ordering::Relaxed);
                    }
                });
                if !goes_on {
                    break;
                }
            }
        }
        if self.gate.leave() {
            self.caller.wake();
        }
    }

    fn claim(&self) -> Option<usize> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        (index < self.count.load(Ordering::Relaxed)).then_some(index)
    }

    /// True until [`Lane::give_up`]: a run's last tasks are soon done, and then this lane goes on.
    pub(super) fn is_worth_a_wait(&self) -> bool {
        self.given_up.load(Ordering::Relaxed) != u64::from(self.gate.round())
    }

    /// Says that the end of the current run was waited for, and that nobody need wait for it again.
    pub(super) fn give_up(&self) {
        self.given_up.store(u64::from(self.gate.round()), Ordering::Relaxed);
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let owned = || panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(owned).unwrap_or("a panic without a message").to_owned()
}

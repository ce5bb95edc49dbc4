//! `src/sync.rs` made of loom: every order of threads within a bound, a clock that stands still, and a futex that only
//! a wake ends. Knows no use of it.
//!
//! Locks, channels and joins are made of parts of loom that print nothing: version 0.7.2 prints a line at every
//! `Mutex::lock`.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LockResult, Mutex as Plain, PoisonError};
use std::time::Duration;

use loom::sync::{RwLock, RwLockWriteGuard};
use loom::thread::Thread;

/// Threads whose sleep ends by itself when its time is over.
static NAPPERS: Plain<Vec<Thread>> = Plain::new(Vec::new());
static ASLEEP: AtomicUsize = AtomicUsize::new(0);
/// Only a wake ends a sleep: a lost wake is a deadlock.
const EARLY: u32 = 0;
/// A thread that lies down now is a napper.
const SOON: u32 = 1;
/// Nobody sleeps any more.
const LATE: u32 = 2;

loom::lazy_static! {
    // An atomic of loom, which then tries both orders of a sleeper and the next hour.
    static ref HOUR: atomic::Word = atomic::Word::new(EARLY);
}

pub(crate) fn begin() {
    HOUR.store(EARLY, Ordering::SeqCst);
    ASLEEP.store(0, Ordering::Relaxed);
}

/// Yields until `threads` threads sleep.
pub(crate) fn until_asleep(threads: usize) {
    while ASLEEP.load(Ordering::Relaxed) < threads {
        loom::thread::yield_now();
    }
}

/// Makes later sleeps end by themselves, after all threads have done what they can.
pub(crate) fn naps_will_end() {
    HOUR.store(SOON, Ordering::SeqCst);
}

pub(crate) fn naps_end() {
    HOUR.store(LATE, Ordering::SeqCst);
    for napper in NAPPERS.lock().expect("free").drain(..) {
        napper.unpark();
    }
}

/// Time does not pass in a model: otherwise runs would not repeat in the same order.
#[derive(Clone, Copy)]
pub(crate) struct Instant;

impl Instant {
    pub(crate) fn now() -> Instant {
        Instant
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// Reads the condition once: more reads would give no new orders.
pub(crate) fn spin_until(_: Instant, _: Duration, condition: impl Fn() -> bool) -> bool {
    condition()
}

/// As in the kernel, reading the word and lying down are one step for the waking thread. The lock orders the read only
/// after earlier wakes, so the load may be as weak as there is.
pub(crate) fn sleep_while(word: &atomic::AtomicU32, seen: u32, _: Duration) {
    let mut bed = word.bed();
    if word.load(Ordering::Relaxed) != seen {
        return;
    }
    let hour = HOUR.load(Ordering::SeqCst);
    if hour == LATE {
        drop(bed);
        return loom::thread::yield_now();
    }
    if hour == SOON {
        NAPPERS.lock().expect("free").push(loom::thread::current());
    }
    bed.push(loom::thread::current());
    ASLEEP.fetch_add(1, Ordering::Relaxed);
    drop(bed);
    loom::thread::park();
    ASLEEP.fetch_sub(1, Ordering::Relaxed);
}

pub(crate) fn wake_all(word: &atomic::AtomicU32) {
    for sleeper in word.bed().drain(..) {
        sleeper.unpark();
    }
}

#[derive(Default)]
pub(crate) struct Mutex<T>(RwLock<T>);

pub(crate) type MutexGuard<'a, T> = RwLockWriteGuard<'a, T>;

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(RwLock::new(value))
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.0.write()
    }
}

/// Atomics whose first value counts as stored in the order of all `SeqCst` operations, as in C++20. loom would let a
/// `SeqCst` load return the first value after another one was stored.
pub(crate) mod atomic {
    use super::{Deref, Mutex, MutexGuard, PoisonError, Thread};
    use std::cell::OnceCell;
    pub(crate) use std::sync::atomic::Ordering;

    macro_rules! atomics {
        ($($name:ident is $loom:ident of $value:ty),*) => {$(
            pub(crate) struct $name(loom::sync::atomic::$loom);

            impl $name {
                pub(crate) fn new(value: $value) -> Self {
                    let atomic = loom::sync::atomic::$loom::new(value);
                    atomic.store(value, Ordering::SeqCst);
                    Self(atomic)
                }
            }

            impl Default for $name {
                fn default() -> Self {
                    Self::new(<$value>::default())
                }
            }

            impl Deref for $name {
                type Target = loom::sync::atomic::$loom;

                fn deref(&self) -> &Self::Target {
                    &self.0
                }
            }
        )*};
    }
    atomics!(Flag is AtomicBool of bool, AtomicU64 is AtomicU64 of u64, AtomicUsize is AtomicUsize of usize);
    atomics!(Word is AtomicU32 of u32);

    /// loom orders the stores of several threads only by reads in between; `SeqCst` stores have one order, the newest
    /// last, and a `SeqCst` load sees the newest. Hence read-modify-writes, none of which acquires more than it should.
    #[derive(Default)]
    pub(crate) struct AtomicBool {
        flag: Flag,
        last_was_weaker: std::sync::atomic::AtomicBool,
    }

    impl AtomicBool {
        pub(crate) fn new(value: bool) -> Self {
            Self { flag: Flag::new(value), last_was_weaker: false.into() }
        }

        pub(crate) fn load(&self, ordering: Ordering) -> bool {
            match ordering {
                Ordering::SeqCst if !self.last_was_weaker.load(Ordering::Relaxed) => {
                    self.flag.fetch_or(false, Ordering::Acquire)
                }
                ordering => self.flag.load(ordering),
            }
        }

        pub(crate) fn store(&self, value: bool, ordering: Ordering) {
            match ordering {
                Ordering::SeqCst => _ = self.flag.swap(value, Ordering::Release),
                weaker => self.flag.store(value, weaker),
            }
            self.last_was_weaker.store(ordering != Ordering::SeqCst, Ordering::Relaxed);
        }

        pub(crate) fn swap(&self, value: bool, ordering: Ordering) -> bool {
            let last = self.flag.swap(value, ordering);
            self.last_was_weaker.store(ordering != Ordering::SeqCst, Ordering::Relaxed);
            last
        }
    }

    #[derive(Default)]
    pub(crate) struct AtomicU32 {
        word: Word,
        /// Made at first use: most words are never slept on.
        bed: OnceCell<Mutex<Vec<Thread>>>,
    }

    impl AtomicU32 {
        pub(super) fn bed(&self) -> MutexGuard<'_, Vec<Thread>> {
            self.bed.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl Deref for AtomicU32 {
        type Target = Word;

        fn deref(&self) -> &Word {
            &self.word
        }
    }
}

/// A value that one thread leaves for another.
struct Gift<T> {
    is_there: loom::sync::atomic::AtomicBool,
    // Plain locks: no thread can come between two operations of loom, so they are always free.
    value: Plain<Option<T>>,
    waiter: Plain<Option<Thread>>,
}

impl<T> Gift<T> {
    fn new() -> Arc<Self> {
        let is_there = loom::sync::atomic::AtomicBool::new(false);
        Arc::new(Self { is_there, value: Plain::new(None), waiter: Plain::new(None) })
    }

    fn leave(&self, value: T) {
        *self.value.lock().expect("free") = Some(value);
        self.is_there.swap(true, Ordering::AcqRel);
        if let Some(waiter) = self.waiter.lock().expect("free").take() {
            waiter.unpark();
        }
    }

    fn take(&self) -> T {
        // A read-modify-write sees the newest value; no thread comes between it and lying down.
        while !self.is_there.fetch_or(false, Ordering::Acquire) {
            *self.waiter.lock().expect("free") = Some(loom::thread::current());
            loom::thread::park();
        }
        self.value.lock().expect("free").take().expect("it is there")
    }
}

pub(crate) mod mpsc {
    use super::{Arc, Gift};

    pub(crate) struct Sender<T>(Arc<Gift<T>>);
    pub(crate) struct Receiver<T>(Arc<Gift<T>>);

    pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let gift = Gift::new();
        (Sender(Arc::clone(&gift)), Receiver(gift))
    }

    impl<T> Sender<T> {
        pub(crate) fn send(&self, value: T) -> Result<(), std::sync::mpsc::SendError<T>> {
            self.0.leave(value);
            Ok(())
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn recv(&self) -> Result<T, std::sync::mpsc::RecvError> {
            Ok(self.0.take())
        }
    }
}

pub(crate) mod thread {
    use super::{Arc, Gift};
    pub(crate) use loom::thread::{Thread, current, park};

    pub(crate) struct JoinHandle<T>(Arc<Gift<T>>);

    impl<T> JoinHandle<T> {
        /// A thread that panics ends the model, so there is never an error to return.
        pub(crate) fn join(self) -> std::thread::Result<T> {
            Ok(self.0.take())
        }
    }

    pub(crate) struct Builder;

    impl Builder {
        pub(crate) fn new() -> Self {
            Self
        }

        pub(crate) fn name(self, _: String) -> Self {
            self
        }

        pub(crate) fn spawn<T: 'static>(self, work: impl FnOnce() -> T + 'static) -> std::io::Result<JoinHandle<T>> {
            Ok(spawn(work))
        }
    }

    pub(crate) fn spawn<T: 'static>(work: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        let gift = Gift::new();
        let own = Arc::clone(&gift);
        loom::thread::spawn(move || own.leave(work()));
        JoinHandle(gift)
    }
}

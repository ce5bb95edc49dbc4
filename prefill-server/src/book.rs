//! Which leases readers may hold, whose each one is, and who waits for the answer to a release; knows no block.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sched::message::{FromWorker, ReleaseAnswer, ToReader};
use sched::{InstanceId, LeaseId, Leg};
use tokio::sync::oneshot;

/// Entries are looked through for old ones when there are twice as many as after the last time, and at least this many.
const ENTRIES_KEPT: usize = 256;

/// The leases of this giver. Written by the replica thread before any router hears of a lease.
#[derive(Debug)]
pub(crate) struct LeaseBook {
    /// How long a lease whose leg has ended is remembered: as long as the replica remembers its answer to a release.
    keep: Duration,
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    leases: BTreeMap<LeaseId, Entry>,
    waiting: BTreeMap<(LeaseId, InstanceId), Vec<oneshot::Sender<ReleaseAnswer>>>,
    prune_at: usize,
}

#[derive(Debug)]
struct Entry {
    leg: Leg,
    /// The first reader that spoke of it: the offer's, for nobody else knows the id.
    reader: Option<InstanceId>,
    /// When its leg was first seen to have ended.
    ended: Option<Instant>,
}

impl Entry {
    fn is_of(&mut self, reader: InstanceId) -> bool {
        *self.reader.get_or_insert(reader) == reader
    }
}

/// What a lease is to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Its own, perhaps of a leg that has ended.
    Own,
    /// Another reader's.
    Foreign,
    /// Nobody's: never given, or long over.
    Unknown,
}

/// What is left of a heartbeat.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    /// The reader's own leases, whose legs run.
    pub(crate) alive: Vec<LeaseId>,
    /// All others.
    pub(crate) gone: Vec<LeaseId>,
    /// Those of the others that are another reader's.
    pub(crate) foreign: usize,
}

impl LeaseBook {
    /// An empty book of leases that live for `span` without being renewed.
    pub(crate) fn new(span: Duration) -> LeaseBook {
        LeaseBook { keep: span, pages: Mutex::default() }
    }

    /// Notes a lease that is being offered. Leases of legs that have not `run` for long are crossed out now and then.
    pub(crate) fn told(&self, message: &FromWorker, runs: impl Fn(Leg) -> bool, now: Instant) {
        let FromWorker::Offered { leg, lease, .. } = message else { return };
        let mut pages = self.pages();
        if pages.leases.len() >= pages.prune_at {
            pages.leases.retain(|_, entry| {
                entry.ended = (!runs(entry.leg)).then(|| entry.ended.unwrap_or(now));
                entry.ended.is_none_or(|ended| now.duration_since(ended) < self.keep)
            });
            pages.prune_at = ENTRIES_KEPT.max(2 * pages.leases.len());
        }
        pages.leases.insert(*lease, Entry { leg: *leg, reader: None, ended: None });
    }

    /// Sorts the leases of a reader's heartbeat by whether they are its own and their leg still `runs`.
    pub(crate) fn split(&self, reader: InstanceId, leases: Vec<LeaseId>, runs: impl Fn(Leg) -> bool) -> Heartbeat {
        let mut beat = Heartbeat::default();
        let mut pages = self.pages();
        for lease in leases {
            let claim = pages.leases.get_mut(&lease).map(|entry| (entry.is_of(reader), runs(entry.leg)));
            match claim {
                Some((true, true)) => beat.alive.push(lease),
                Some((false, _)) => {
                    beat.foreign += 1;
                    beat.gone.push(lease);
                }
                Some((true, false)) | None => beat.gone.push(lease),
            }
        }
        beat
    }

    /// What a lease is to a reader that speaks of it.
    pub(crate) fn claim(&self, reader: InstanceId, lease: LeaseId) -> Claim {
        match self.pages().leases.get_mut(&lease).map(|entry| entry.is_of(reader)) {
            Some(true) => Claim::Own,
            Some(false) => Claim::Foreign,
            None => Claim::Unknown,
        }
    }

    /// Waits for the answer to a release of `lease` by `reader`.
    pub(crate) fn wait(self: &Arc<Self>, reader: InstanceId, lease: LeaseId) -> Waiting {
        let (tell, answer) = oneshot::channel();
        let mut pages = self.pages();
        let waiting = pages.waiting.entry((lease, reader)).or_default();
        waiting.retain(|waiter| !waiter.is_closed());
        waiting.push(tell);
        let first = waiting.len() == 1;
        Waiting { book: Arc::clone(self), of: (lease, reader), answer: Some(answer), first }
    }

    /// The replica has answered: everybody who waits for it hears it, however often the question was repeated.
    pub(crate) fn answer(&self, reader: InstanceId, word: &ToReader) {
        let (lease, answer) = match *word {
            ToReader::Released { lease, answer } => (lease, answer),
            // Heartbeats are answered from this book.
            ToReader::Gone(_) => return,
        };
        for waiter in self.pages().waiting.remove(&(lease, reader)).unwrap_or_default() {
            // A reader that has given up waiting repeats its release.
            let _ = waiter.send(answer);
        }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call that waits for an answer. However it ends, nothing of it stays in the book.
#[derive(Debug)]
pub(crate) struct Waiting {
    book: Arc<LeaseBook>,
    of: (LeaseId, InstanceId),
    answer: Option<oneshot::Receiver<ReleaseAnswer>>,
    first: bool,
}

impl Waiting {
    /// Whether nobody else waits for the same: the replica has to be asked.
    pub(crate) fn is_first(&self) -> bool {
        self.first
    }

    /// The answer; `None` if there will be none.
    pub(crate) async fn answer(&mut self) -> Option<ReleaseAnswer> {
        self.answer.as_mut()?.await.ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.answer.take());
        let mut pages = self.book.pages();
        if let Some(waiting) = pages.waiting.get_mut(&self.of) {
            waiting.retain(|waiter| !waiter.is_closed());
            if waiting.is_empty() {
                pages.waiting.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sched::{Attempt, RequestId};

    use super::*;

    const READER: InstanceId = InstanceId(1);
    const STRANGER: InstanceId = InstanceId(2);
    const SPAN: Duration = Duration::from_secs(30);

    fn leg(request: u64) -> Leg {
        Leg { request: RequestId(request), attempt: Attempt(0) }
    }

    fn offered(request: u64) -> FromWorker {
        FromWorker::Offered { leg: leg(request), lease: LeaseId(request), blocks: vec![] }
    }

    fn book_of(requests: std::ops::RangeInclusive<u64>) -> Arc<LeaseBook> {
        let book = Arc::new(LeaseBook::new(SPAN));
        requests.for_each(|request| book.told(&offered(request), |_| true, Instant::now()));
        book
    }

    #[test]
    fn a_lease_is_gone_when_its_leg_is_or_was_never_known() {
        let book = book_of(1..=2);
        let beat = book.split(READER, vec![LeaseId(1), LeaseId(2), LeaseId(3)], |running| running == leg(1));
        let (alive, gone) = (vec![LeaseId(1)], vec![LeaseId(2), LeaseId(3)]);
        assert_eq!(beat, Heartbeat { alive, gone, foreign: 0 });
    }

    #[test]
    fn a_lease_is_the_first_readers_that_speaks_of_it() {
        let book = book_of(1..=2);
        assert_eq!(book.claim(READER, LeaseId(1)), Claim::Own);
        assert_eq!(book.claim(STRANGER, LeaseId(1)), Claim::Foreign);
        assert_eq!(book.claim(READER, LeaseId(1)), Claim::Own);
        assert_eq!(book.claim(STRANGER, LeaseId(7)), Claim::Unknown);
        let beat = book.split(STRANGER, vec![LeaseId(1), LeaseId(2)], |_| true);
        assert_eq!(beat, Heartbeat { alive: vec![LeaseId(2)], gone: vec![LeaseId(1)], foreign: 1 });
        assert_eq!(book.claim(READER, LeaseId(2)), Claim::Foreign);
    }

    #[test]
    fn a_lease_is_remembered_for_a_span_after_its_leg_so_that_a_repeated_release_is_answered() {
        let book = Arc::new(LeaseBook::new(SPAN));
        let start = Instant::now();
        book.told(&offered(0), |_| true, start);
        let many = |from: u64, at: Instant| {
            (from..from + 2_000).for_each(|request| book.told(&offered(request), |_| false, at));
        };
        many(1, start);
        many(10_000, start + SPAN / 2);
        assert_eq!(book.claim(READER, LeaseId(0)), Claim::Own);
        many(20_000, start + SPAN);
        many(30_000, start + 3 * SPAN);
        many(40_000, start + 5 * SPAN);
        assert_eq!(book.claim(READER, LeaseId(0)), Claim::Unknown);
        let kept = book.pages().leases.len();
        assert!(kept < 7_000, "{kept} of 8001: twice what was left at the last look is reached before the next");
    }

    #[test]
    fn everyone_who_waits_hears_the_answer_and_the_replica_is_asked_once() {
        let book = book_of(1..=2);
        let (mut one, mut two) = (book.wait(READER, LeaseId(1)), book.wait(READER, LeaseId(1)));
        assert!(one.is_first() && !two.is_first());
        let other = book.wait(STRANGER, LeaseId(1));
        assert!(other.is_first());
        book.answer(READER, &ToReader::Released { lease: LeaseId(1), answer: ReleaseAnswer::Ok });
        let heard = |waiting: &mut Waiting| waiting.answer.as_mut().unwrap().try_recv();
        assert_eq!((heard(&mut one), heard(&mut two)), (Ok(ReleaseAnswer::Ok), Ok(ReleaseAnswer::Ok)));
        drop(other);
        assert!(book.pages().waiting.is_empty());
    }

    /// Found by reading: a release that could not be passed on, or whose caller left, stayed in the book.
    #[test]
    fn whoever_gives_up_leaves_nothing_behind() {
        let book = book_of(1..=1);
        let (one, two) = (book.wait(READER, LeaseId(1)), book.wait(READER, LeaseId(1)));
        drop(one);
        assert_eq!(book.pages().waiting.len(), 1);
        drop(two);
        assert!(book.pages().waiting.is_empty());
        assert!(book.wait(READER, LeaseId(1)).is_first());
    }
}

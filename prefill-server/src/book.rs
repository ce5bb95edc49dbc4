//! Which leases readers may still hold, and who waits for the answer to a release; knows no block.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sched::message::{FromWorker, ReleaseAnswer};
use sched::{LeaseId, Leg};
use tokio::sync::oneshot;

/// Entries of ended legs are kept at least until there are this many: looking for them costs a walk.
const ENTRIES_KEPT: usize = 256;

/// The leases of this giver. Written by the replica thread before any router hears of a lease.
#[derive(Debug, Default)]
pub(crate) struct LeaseBook {
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    legs: BTreeMap<LeaseId, Leg>,
    waiting: BTreeMap<LeaseId, Vec<oneshot::Sender<ReleaseAnswer>>>,
    prune_at: usize,
}

impl LeaseBook {
    /// Notes a lease that is being offered. Leases of legs that do not `run` any more are crossed out now and then.
    pub(crate) fn told(&self, message: &FromWorker, runs: impl Fn(Leg) -> bool) {
        let FromWorker::Offered { leg, lease, .. } = message else { return };
        let mut pages = self.pages();
        if pages.legs.len() >= pages.prune_at {
            pages.legs.retain(|_, leg| runs(*leg));
            pages.prune_at = ENTRIES_KEPT.max(2 * pages.legs.len());
        }
        pages.legs.insert(*lease, *leg);
    }

    /// Splits leases into those whose leg still `runs` and those that are gone.
    pub(crate) fn split(&self, leases: Vec<LeaseId>, runs: impl Fn(Leg) -> bool) -> (Vec<LeaseId>, Vec<LeaseId>) {
        let pages = self.pages();
        leases.into_iter().partition(|lease| pages.legs.get(lease).is_some_and(|leg| runs(*leg)))
    }

    /// Waits for the answer to a release of `lease`.
    pub(crate) fn wait(&self, lease: LeaseId) -> oneshot::Receiver<ReleaseAnswer> {
        let (tell, answer) = oneshot::channel();
        let mut pages = self.pages();
        let waiting = pages.waiting.entry(lease).or_default();
        waiting.retain(|waiter| !waiter.is_closed());
        waiting.push(tell);
        answer
    }

    /// The replica has answered: everybody who waits for this lease hears it, however often the release was repeated.
    pub(crate) fn answer(&self, lease: LeaseId, answer: ReleaseAnswer) {
        for waiter in self.pages().waiting.remove(&lease).unwrap_or_default() {
            // A reader that has given up waiting repeats its release.
            let _ = waiter.send(answer);
        }
    }

    /// Forgets waiters that have given up.
    pub(crate) fn give_up(&self, lease: LeaseId) {
        let mut pages = self.pages();
        if let Some(waiting) = pages.waiting.get_mut(&lease) {
            waiting.retain(|waiter| !waiter.is_closed());
            if waiting.is_empty() {
                pages.waiting.remove(&lease);
            }
        }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use sched::{Attempt, RequestId};

    use super::*;

    fn leg(request: u64) -> Leg {
        Leg { request: RequestId(request), attempt: Attempt(0) }
    }

    fn offered(request: u64) -> FromWorker {
        FromWorker::Offered { leg: leg(request), lease: LeaseId(request), blocks: vec![] }
    }

    #[test]
    fn a_lease_is_gone_when_its_leg_is_or_was_never_known() {
        let book = LeaseBook::default();
        book.told(&offered(1), |_| true);
        book.told(&offered(2), |_| true);
        let (alive, gone) = book.split(vec![LeaseId(1), LeaseId(2), LeaseId(3)], |running| running == leg(1));
        assert_eq!((alive, gone), (vec![LeaseId(1)], vec![LeaseId(2), LeaseId(3)]));
    }

    #[test]
    fn ended_legs_do_not_pile_up() {
        let book = LeaseBook::default();
        for request in 0..100_000 {
            book.told(&offered(request), |running| running.request.0 + 10 > request);
        }
        assert!(book.pages().legs.len() <= ENTRIES_KEPT, "{}", book.pages().legs.len());
    }

    #[test]
    fn everyone_who_waits_hears_the_answer() {
        let book = LeaseBook::default();
        let (mut one, mut two) = (book.wait(LeaseId(1)), book.wait(LeaseId(1)));
        let gave_up = book.wait(LeaseId(2));
        book.answer(LeaseId(1), ReleaseAnswer::Ok);
        assert_eq!((one.try_recv(), two.try_recv()), (Ok(ReleaseAnswer::Ok), Ok(ReleaseAnswer::Ok)));
        drop(gave_up);
        book.give_up(LeaseId(2));
        assert!(book.pages().waiting.is_empty());
    }
}

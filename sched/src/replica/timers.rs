//! Timers of a worker, ordered by when they are due; knows no clock.

use std::collections::{BTreeMap, BTreeSet};

use crate::{LeaseId, Leg, Time};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Time by which the request must have ended.
    Deadline(Leg),
    /// Time by which a router must have renewed the leg.
    RequestLease(Leg),
    /// Time by which a reader must have renewed its lease.
    ReaderLease(LeaseId),
    /// Time to repeat a release that has not been answered.
    Release(Leg),
    /// Time to renew the leases held at givers.
    Beat,
    /// Time to renew new leases at givers for the first time.
    FirstBeat,
}

/// At most one point in time per timer.
#[derive(Debug, Default)]
pub(super) struct Timers {
    at: BTreeMap<Timer, Time>,
    due: BTreeSet<(Time, Timer)>,
}

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: Time) {
        self.clear(timer);
        self.at.insert(timer, at);
        self.due.insert((at, timer));
    }

    pub(super) fn clear(&mut self, timer: Timer) {
        if let Some(at) = self.at.remove(&timer) {
            self.due.remove(&(at, timer));
        }
    }

    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.at.contains_key(&timer)
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    pub(super) fn due(&self, now: Time) -> Vec<Timer> {
        self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, timer)| *timer).collect()
    }

    /// Takes out the earliest timer that is due at `now`.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<Timer> {
        let (_, timer) = self.due.first().copied().filter(|(at, _)| *at <= now)?;
        self.clear(timer);
        Some(timer)
    }
}

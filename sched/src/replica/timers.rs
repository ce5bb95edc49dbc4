//! Everything that happens by time alone, ordered by when; knows no clock.

use std::collections::{BTreeMap, BTreeSet};

use crate::{LeaseId, Leg, Time};

/// Something that will be due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The request must have ended.
    Deadline(Leg),
    /// The router must have renewed the leg.
    RequestLease(Leg),
    /// A reader must have renewed its lease.
    ReaderLease(LeaseId),
    /// A release has not been answered and is repeated.
    Release(Leg),
    /// Leases held at givers are renewed.
    Beat,
    /// Leases that are new here are renewed for the first time.
    FirstBeat,
}

/// At most one point in time per timer.
#[derive(Debug, Default)]
pub(super) struct Timers {
    at: BTreeMap<Timer, Time>,
    due: BTreeSet<(Time, Timer)>,
}

impl Timers {
    /// Sets or moves a timer.
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

    /// All timers that are due at `now`, earliest first.
    pub(super) fn due(&self, now: Time) -> Vec<Timer> {
        self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, timer)| *timer).collect()
    }

    /// The earliest timer that is due at `now`, taken out.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<Timer> {
        let (_, timer) = self.due.first().copied().filter(|(at, _)| *at <= now)?;
        self.clear(timer);
        Some(timer)
    }
}

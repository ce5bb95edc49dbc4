//! Counts of a run while it goes on, for a progress bar; knows no terminal.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::record::Record;

/// Counts that a run raises and others read.
#[derive(Debug, Default)]
pub struct Progress {
    planned: AtomicUsize,
    sent: AtomicUsize,
    ended: AtomicUsize,
    failed: AtomicUsize,
}

/// Counts at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests of the current plan.
    pub planned: usize,
    /// Requests that were sent, or were not sent when they were due.
    pub sent: usize,
    /// Requests that have ended.
    pub ended: usize,
    /// Requests among them that failed.
    pub failed: usize,
}

impl Progress {
    /// Reads the counts.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        Counts {
            planned: read(&self.planned),
            sent: read(&self.sent),
            ended: read(&self.ended),
            failed: read(&self.failed),
        }
    }

    pub(super) fn plan(&self, requests: usize) {
        self.planned.fetch_add(requests, Ordering::Relaxed);
    }

    pub(super) fn send(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self, record: &Record) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(usize::from(record.failure.is_some()), Ordering::Relaxed);
    }
}

//! How far the start of a replica is: what it does now and how many bytes of it are done. Knows neither models nor files.
//!
//! Whoever loads reports, whoever waits looks, and may ask it to stop: then loading ends at the next tensor.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::EngineError;

/// Shared between whoever loads and whoever watches.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    own: Arc<Own>,
    shared: Arc<Shared>,
}

/// What one rank does.
#[derive(Debug, Default)]
struct Own {
    phase: Mutex<(Phase, u64)>,
    /// Bytes of the phase that are done.
    done: AtomicU64,
}

/// What all ranks have in common.
#[derive(Debug, Default)]
struct Shared {
    /// Counts up with everything that is reported: who sees it stand still sees that nothing happens.
    ticks: AtomicU64,
    stop: AtomicBool,
}

/// What is being done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Reading config.json and the heads of the weight files.
    #[default]
    Opening,
    /// Reading all weights once, for their digest.
    Reading,
    /// Comparing a file of packed weights with its checksums.
    Checking,
    /// Packing weights for the kernels.
    Packing,
    /// Another process packs these very weights.
    WaitingForPacker,
    /// The other ranks of the worker load their parts.
    WaitingForRanks,
    /// A modelled device takes the time that a real one would.
    Modelled,
    /// Taking memory for the KV pool, opening the transport.
    Assembling,
}

/// What was seen at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// What is being done.
    pub phase: Phase,
    /// Bytes of it that are done.
    pub done_bytes: u64,
    /// Bytes of all of it; 0 where nobody knows.
    pub total_bytes: u64,
    /// Differs from before if anything happened.
    pub ticks: u64,
}

impl Progress {
    /// Of another rank of the same worker: what it does is its own, that something happens is everybody's.
    pub(crate) fn of_follower(&self) -> Progress {
        Progress { own: Arc::default(), shared: Arc::clone(&self.shared) }
    }

    /// The next thing begins; `total_bytes` is 0 where nobody knows.
    pub(crate) fn begins(&self, phase: Phase, total_bytes: u64) {
        let mut now = self.phase();
        self.own.done.store(0, Ordering::Relaxed);
        *now = (phase, total_bytes);
        self.shared.ticks.fetch_add(1, Ordering::Relaxed);
    }

    /// So many more bytes are done.
    pub(crate) fn advance(&self, bytes: u64) {
        self.own.done.fetch_add(bytes, Ordering::Relaxed);
        self.shared.ticks.fetch_add(1, Ordering::Relaxed);
    }

    /// Something happened that has no bytes of this phase.
    pub(crate) fn tick(&self) {
        self.shared.ticks.fetch_add(1, Ordering::Relaxed);
    }

    /// An error once it was asked to stop.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        if self.shared.stop.load(Ordering::Relaxed) { Err(EngineError::Stopped) } else { Ok(()) }
    }

    /// Asks whoever loads to stop.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// How far it is.
    #[must_use]
    pub fn seen(&self) -> Seen {
        let now = self.phase();
        Seen {
            phase: now.0,
            total_bytes: now.1,
            done_bytes: self.own.done.load(Ordering::Relaxed),
            ticks: self.shared.ticks.load(Ordering::Relaxed),
        }
    }

    fn phase(&self) -> MutexGuard<'_, (Phase, u64)> {
        self.own.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Opening => "opening the model's files",
            Phase::Reading => "reading weights",
            Phase::Checking => "checking packed weights",
            Phase::Packing => "packing weights",
            Phase::WaitingForPacker => "waiting for another process that packs the same weights",
            Phase::WaitingForRanks => "waiting for the other ranks",
            Phase::Modelled => "loading the modelled device",
            Phase::Assembling => "taking memory and opening the transport",
        })
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.phase)?;
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        match (self.done_bytes, self.total_bytes) {
            (0, 0) => Ok(()),
            (done, 0) => write!(f, ", {:.0} MB", megabytes(done)),
            (done, total) => write!(f, ", {:.0} of {:.0} MB", megabytes(done.min(total)), megabytes(total)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reported_is_seen_and_whoever_loads_is_stopped() {
        let progress = Progress::default();
        let watcher = progress.clone();
        assert_eq!(watcher.seen().to_string(), "opening the model's files");
        progress.begins(Phase::Packing, 3_000_000_000);
        progress.advance(1_200_000_000);
        let seen = watcher.seen();
        assert_eq!(seen.to_string(), "packing weights, 1200 of 3000 MB");
        assert_eq!(watcher.seen(), seen, "nothing has happened since");
        progress.tick();
        assert_ne!(watcher.seen(), seen);
        let seen = watcher.seen();
        progress.of_follower().begins(Phase::Reading, 7);
        assert_eq!(watcher.seen().phase, Phase::Packing, "what a follower does is its own");
        assert_ne!(watcher.seen().ticks, seen.ticks, "that it does something counts");
        progress.begins(Phase::WaitingForPacker, 0);
        progress.advance(2_000_000);
        assert_eq!(watcher.seen().to_string(), "waiting for another process that packs the same weights, 2 MB");
        progress.check().unwrap();
        watcher.stop();
        assert!(matches!(progress.check(), Err(EngineError::Stopped)));
    }
}

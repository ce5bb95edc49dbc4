//! Progress of a replica's start: its phase, and how many bytes of that are done. Knows neither models nor files.
//!
//! The loading thread reports; a waiting thread looks, and may ask for a stop, so that loading ends at the next tensor.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::EngineError;

/// Progress of a start, shared between the loading and the watching threads.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    own: Arc<Own>,
    shared: Arc<Shared>,
}

/// Progress of one rank.
#[derive(Debug, Default)]
struct Own {
    phase: Mutex<(Phase, u64)>,
    /// Bytes of the phase that are done.
    done: AtomicU64,
}

/// State shared by all ranks.
#[derive(Debug, Default)]
struct Shared {
    /// Grows with every report: while it stands still, nothing happens.
    ticks: AtomicU64,
    stop: AtomicBool,
}

/// Phase of a replica's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Reading config.json and the headers of the weight files.
    #[default]
    Opening,
    /// Reading all weights once, for their digest.
    Reading,
    /// Comparing a file of packed weights with its checksums.
    Checking,
    /// Packing weights for the kernels.
    Packing,
    /// Waiting for another process that packs the same weights.
    WaitingForPacker,
    /// Waiting for the other ranks of the worker to load their parts.
    WaitingForRanks,
    /// Waiting as long as a real device would take to load; modelled devices only.
    Modelled,
    /// Allocating the KV pool, opening the transport.
    Assembling,
}

/// Progress at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Current phase.
    pub phase: Phase,
    /// Bytes of the phase that are done.
    pub done_bytes: u64,
    /// All bytes of the phase; 0 if unknown.
    pub total_bytes: u64,
    /// Grows whenever anything happens.
    pub ticks: u64,
}

impl Progress {
    /// Progress of another rank of the same worker: a phase of its own, but shared ticks and stop.
    pub(crate) fn of_follower(&self) -> Progress {
        Progress { own: Arc::default(), shared: Arc::clone(&self.shared) }
    }

    /// Starts the next phase; `total_bytes` is 0 if unknown.
    pub(crate) fn begins(&self, phase: Phase, total_bytes: u64) {
        let mut now = self.phase();
        self.own.done.store(0, Ordering::Relaxed);
        *now = (phase, total_bytes);
        self.shared.ticks.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn advance(&self, bytes: u64) {
        self.own.done.fetch_add(bytes, Ordering::Relaxed);
        self.shared.ticks.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that something happened, without bytes of this phase.
    pub(crate) fn tick(&self) {
        self.shared.ticks.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns [`EngineError::Stopped`] after a stop was asked for.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        if self.shared.stop.load(Ordering::Relaxed) { Err(EngineError::Stopped) } else { Ok(()) }
    }

    /// Asks the loading thread to stop.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Reads the progress.
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

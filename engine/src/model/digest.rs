//! Digest of a model's weights, part of the compatibility key: equal digests mean equal tensors.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

use xxhash_rust::xxh3::Xxh3;

use super::WeightFiles;
use crate::{EngineError, Phase};

/// More threads do not read faster.
const THREADS_MAX: usize = 16;
/// Bytes that are read between two progress reports.
const PIECE_BYTES: usize = 8 << 20;

impl WeightFiles {
    /// XXH3 over every tensor's name, type, shape and content in the order of names. Reads all bytes once, on all
    /// cores; independent of how tensors are spread over files.
    pub fn digest(&self) -> Result<u128, EngineError> {
        let tensors: Vec<_> = self.in_order().collect();
        self.progress().begins(Phase::Reading, self.bytes());
        let next = AtomicUsize::new(0);
        let work = || {
            let mut digests = Vec::new();
            while let Some((name, _, _, bytes)) = tensors.get(next.fetch_add(1, Ordering::Relaxed)) {
                digests.push((*name, self.read(bytes)?));
                self.forget(name);
            }
            Ok::<_, EngineError>(digests)
        };
        let threads = available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let ended: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
        });
        let mut contents = std::collections::BTreeMap::new();
        for digests in ended {
            let panicked = |_| EngineError::Thread { name: "digest", reason: "it panicked".to_owned() };
            contents.extend(digests.map_err(panicked)??);
        }
        let mut hasher = Xxh3::new();
        for (name, dtype, shape, _) in &tensors {
            hasher.update(format!("{name} {dtype} {shape:?} ").as_bytes());
            hasher.update(&contents.get(name).copied().unwrap_or_default().to_le_bytes());
        }
        Ok(hasher.digest128())
    }

    /// Digest of one tensor, read piece by piece: a large tensor on a slow disk takes minutes.
    fn read(&self, bytes: &[u8]) -> Result<u128, EngineError> {
        let mut hasher = Xxh3::new();
        for piece in bytes.chunks(PIECE_BYTES) {
            self.progress().check()?;
            hasher.update(piece);
            self.progress().advance(piece.len() as u64);
        }
        Ok(hasher.digest128())
    }
}

//! What every kind of backend is opened as: with its model and the pool that it reads and writes.

use std::sync::Arc;

use kernels::KvGeometry;
use kernels::memory::{Backing, HostMemory};
use xxhash_rust::xxh3::xxh3_128;

use crate::backend::Backend;
use crate::model::{ExpertCounts, Grid, ModelSpec};
use crate::{Config, EngineError, KvStore, RanksChoice};

/// A backend with its model and its pool, as [`crate::open_backend`] makes them.
pub struct Opened {
    /// What computes; idle.
    pub backend: Box<dyn Backend>,
    /// The pool it reads and writes.
    pub kv: KvStore,
    /// The shape of the model.
    pub spec: ModelSpec,
    /// Longest sequence that it can run, in tokens.
    pub context_max: u32,
    /// Weights and everything else that decides the maths.
    pub weights_digest: u128,
    /// What each expert has computed; `None` where no expert computes.
    pub expert_counts: Option<ExpertCounts>,
}

/// The pool's memory. Where ranks are processes they must be able to map it, whatever else was wished for.
pub(super) fn pool(config: &Config, geometry: KvGeometry, grid: Grid, wished: Backing) -> Result<KvStore, EngineError> {
    let bytes = geometry.pool_bytes();
    let backing = match config.ranks {
        RanksChoice::Processes if grid != Grid::ALONE => Backing::Bequeathed,
        RanksChoice::Processes | RanksChoice::Threads => wished,
    };
    if backing != wished {
        tracing::debug!("the KV pool is shared with the processes of the ranks, not private memory");
    }
    let memory = HostMemory::new(bytes, backing).map_err(|error| EngineError::Memory {
        what: "the KV pool",
        bytes: bytes as u64,
        reason: error.to_string(),
    })?;
    KvStore::new(Arc::new(memory), geometry)
}

/// Weights and everything of the configuration that changes the maths; context and end tokens do not.
pub(super) fn digest(spec: &ModelSpec, weights: u128) -> u128 {
    let maths = ModelSpec { context_max: 0, eos: Vec::new(), ..spec.clone() };
    xxh3_128(format!("{weights:032x} {maths:?}").as_bytes())
}

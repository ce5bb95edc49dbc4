//! An opened backend of any kind, with its model and its KV pool.

use std::sync::Arc;

use kernels::KvGeometry;
use kernels::memory::{Backing, HostMemory};
use xxhash_rust::xxh3::xxh3_128;

use crate::backend::Backend;
use crate::model::{ExpertCounts, Grid, ModelSpec};
use crate::structure::Structures;
use crate::{Config, EngineError, KvStore, RanksChoice};

/// A backend with its model and its KV pool, as [`crate::open_backend`] makes them.
pub struct Opened {
    /// The backend, idle.
    pub backend: Box<dyn Backend>,
    /// KV pool that the backend reads and writes.
    pub kv: KvStore,
    /// Shape of the model.
    pub spec: ModelSpec,
    /// Longest sequence that the backend can run, in tokens.
    pub context_max: u32,
    /// Digest of the weights and of everything else that decides the maths.
    pub weights_digest: u128,
    /// Work of each expert so far; `None` for a backend or model without experts.
    pub expert_counts: Option<ExpertCounts>,
    /// Grammars of requests for structured answers.
    pub(crate) structures: Structures,
}

/// Allocates the KV pool. If ranks are processes they must be able to map it, whatever the transport wished for.
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

/// Digest of weights and model shape, without context length and end tokens, which do not change the maths.
pub(super) fn digest(spec: &ModelSpec, weights: u128) -> u128 {
    let maths = ModelSpec { context_max: 0, eos: Vec::new(), ..spec.clone() };
    xxh3_128(format!("{weights:032x} {maths:?}").as_bytes())
}

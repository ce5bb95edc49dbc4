//! Starts a replica from a configuration: model, pool, transport, backend, scheduler, thread; in that order.

mod assemble;
mod cpu;
mod geometry;
mod limits;
mod memory;
mod opened;

use std::thread::JoinHandle;

use kv_transfer::{Serving, TransportKind};
use sched::layout::KvLayout;
use sched::{CompatKey, CompatParts, InstanceId, Role};

use crate::backend::BackendInfo;
use crate::model::ExpertCounts;
use crate::replica::{Outlet, ReplicaHandle};
use crate::{Config, EngineError, Progress};

pub use assemble::{open_backend, open_partitioned};
pub use cpu::{NoRankProgram, RankProgram, serve_rank};
pub use opened::Opened;

/// A running replica.
pub struct Started {
    /// Handle through which it is called.
    pub handle: ReplicaHandle,
    /// Model, formats and limits of the replica.
    pub info: ModelInfo,
    /// Address of its transport for peers; opaque to all but the transport.
    pub endpoint: Vec<u8>,
    /// Thread of the replica; ends after `handle.shutdown()` or when the last handle is gone.
    pub join: JoinHandle<()>,
    /// Work of each expert so far; `None` for a model without experts.
    pub expert_counts: Option<ExpertCounts>,
}

/// Model, formats and limits of a replica.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// Identity of this start of the worker, random per start.
    pub instance: InstanceId,
    /// Name under which the model is served.
    pub name: String,
    /// Role of the worker.
    pub role: Role,
    /// Longest sequence of prompt and output, in tokens.
    pub context_max: u32,
    /// Entries of the vocabulary.
    pub vocab: u32,
    /// Tokens that end an output.
    pub eos: Vec<u32>,
    /// Addresses of tiles in the KV pool.
    pub layout: KvLayout,
    /// Blocks of the KV pool.
    pub blocks: u32,
    /// Sequences that run at the same time.
    pub sequences_max: u32,
    /// Properties that must be equal for two workers to exchange KV.
    pub compat: CompatParts,
    /// Backend that computes.
    pub backend: BackendInfo,
    /// Transport that moves KV.
    pub transport: TransportKind,
}

impl ModelInfo {
    /// Compatibility key: the hash of `compat`.
    #[must_use]
    pub fn compat_key(&self) -> CompatKey {
        self.compat.key()
    }

    /// Tokens per KV block.
    #[must_use]
    pub fn block_tokens(&self) -> u32 {
        self.layout.shape().block_tokens
    }

    /// Tokens whose KV fits in the pool.
    #[must_use]
    pub fn capacity_tokens(&self) -> u64 {
        u64::from(self.blocks) * u64::from(self.block_tokens())
    }
}

/// Role of a replica, and whether readers pull from it.
#[derive(Debug, Clone, Copy)]
pub struct Purpose {
    role: Role,
    /// If no reader pulls from its pool, its transport need not even listen.
    serving: Serving,
}

impl Purpose {
    /// A giver: readers pull from its pool.
    #[must_use]
    pub fn giving(role: Role) -> Purpose {
        Purpose { role, serving: Serving::Readers }
    }

    /// Not a giver: nobody pulls from its pool.
    #[must_use]
    pub fn keeping(role: Role) -> Purpose {
        Purpose { role, serving: Serving::Nobody }
    }
}

impl From<Role> for Purpose {
    /// Of the roles, only prefill is a giver.
    fn from(role: Role) -> Purpose {
        match role {
            Role::Prefill => Purpose::giving(role),
            Role::Decode | Role::Aggregated | Role::Colocated => Purpose::keeping(role),
        }
    }
}

/// Starts a replica with threads as ranks (otherwise see [`start_with_ranks`]). Returns when the model is loaded and
/// the thread runs; nothing is left behind after an error.
pub fn start(config: &Config, role: Role, outlet: Box<dyn Outlet>) -> Result<Started, EngineError> {
    start_with_ranks(config, role, outlet, &NoRankProgram)
}

/// Starts a replica as [`start`] does, with the program to run if its ranks are processes.
pub fn start_with_ranks(
    config: &Config,
    role: Role,
    outlet: Box<dyn Outlet>,
    program: &dyn RankProgram,
) -> Result<Started, EngineError> {
    start_watched(config, Purpose::from(role), outlet, program, &Progress::default())
}

/// Starts a replica as [`start_with_ranks`] does, and reports its progress. When asked to stop it ends at the next
/// tensor with [`EngineError::Stopped`].
pub fn start_watched(
    config: &Config,
    purpose: Purpose,
    outlet: Box<dyn Outlet>,
    program: &dyn RankProgram,
    progress: &Progress,
) -> Result<Started, EngineError> {
    assemble::start(config, purpose, outlet, program, progress)
}

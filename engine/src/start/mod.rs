//! From a configuration to a running replica: model, pool, transport, backend, scheduler, thread; in that order.

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

pub use assemble::open_backend;
pub use cpu::{NoRankProgram, RankProgram, serve_rank};
pub use opened::Opened;

/// A running replica.
pub struct Started {
    /// The way to it.
    pub handle: ReplicaHandle,
    /// What it serves and how.
    pub info: ModelInfo,
    /// How peers reach its transport; opaque to all but the transport.
    pub endpoint: Vec<u8>,
    /// Its thread; ends after `handle.shutdown()` or when the last handle is gone.
    pub join: JoinHandle<()>,
    /// What each expert has computed; `None` for a model without experts.
    pub expert_counts: Option<ExpertCounts>,
}

/// What a replica serves and how.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// This incarnation of the worker, random per start.
    pub instance: InstanceId,
    /// Name under which the model is served.
    pub name: String,
    /// What the worker is for.
    pub role: Role,
    /// Longest sequence of prompt and output, in tokens.
    pub context_max: u32,
    /// Entries of the vocabulary.
    pub vocab: u32,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
    /// Where tiles lie in the KV pool.
    pub layout: KvLayout,
    /// Blocks of the KV pool.
    pub blocks: u32,
    /// Sequences that it runs at once.
    pub sequences_max: u32,
    /// What must be equal for two workers to exchange KV.
    pub compat: CompatParts,
    /// What computes.
    pub backend: BackendInfo,
    /// What moves KV.
    pub transport: TransportKind,
}

impl ModelInfo {
    /// The compatibility key.
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

/// What a replica is for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose {
    role: Role,
    /// Whether others read from its pool. Where nobody does, it need not even listen.
    serving: Serving,
}

impl Purpose {
    /// Others read from its pool.
    #[must_use]
    pub fn giving(role: Role) -> Purpose {
        Purpose { role, serving: Serving::Readers }
    }

    /// Nobody does.
    #[must_use]
    pub fn keeping(role: Role) -> Purpose {
        Purpose { role, serving: Serving::Nobody }
    }
}

impl From<Role> for Purpose {
    /// Only a worker that gives is read from.
    fn from(role: Role) -> Purpose {
        match role {
            Role::Prefill => Purpose::giving(role),
            Role::Decode | Role::Aggregated => Purpose::keeping(role),
        }
    }
}

/// Starts a replica. Returns when the model is loaded and the thread runs; nothing is left behind after an error.
/// Its ranks are threads; see [`start_with_ranks`].
pub fn start(config: &Config, role: Role, outlet: Box<dyn Outlet>) -> Result<Started, EngineError> {
    start_with_ranks(config, role, outlet, &NoRankProgram)
}

/// Starts a replica as [`start`] does, with a program for the case that its ranks are processes.
pub fn start_with_ranks(
    config: &Config,
    role: Role,
    outlet: Box<dyn Outlet>,
    program: &dyn RankProgram,
) -> Result<Started, EngineError> {
    start_watched(config, Purpose::from(role), outlet, program, &Progress::default())
}

/// Starts a replica as [`start_with_ranks`] does, and reports how far it is. Once asked to stop it ends at the next
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

//! Model files, forward pass, KV bytes, sampling and the replica loop; knows no HTTP and no socket.
//!
//! [`start`] turns a [`Config`] into a running replica. Inside: `model` reads files and runs layers, `sampling` turns
//! logits into tokens, `backend` runs the steps of a plan, `replica` is the thread that drives the scheduler.

pub mod backend;
mod clock;
mod config;
mod error;
mod kv_pool;
mod kv_store;
pub mod model;
mod progress;
pub mod replica;
pub mod sampling;
mod start;
mod structure;

pub use config::{
    BackendKind, Config, KvDtypeChoice, ModelledConfig, PrefixCacheChoice, RanksChoice, TransportChoice, WeightsDtype,
};
pub use error::{Blame, EngineError};
pub use kv_pool::KvPool;
pub use kv_store::{KvStore, layout_of};
pub use progress::{Phase, Progress, Seen};
pub use start::{
    ModelInfo, NoRankProgram, Opened, Purpose, RankProgram, Started, open_backend, open_partitioned, serve_rank, start,
    start_watched, start_with_ranks,
};

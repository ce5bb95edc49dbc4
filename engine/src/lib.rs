//! Model files, forward pass, KV bytes, sampling and the replica loop; knows no HTTP and no socket.

pub mod backend;
mod clock;
mod config;
mod error;
mod kv_store;
pub mod model;
pub mod sampling;

pub use config::{
    BackendKind, Config, KvDtypeChoice, ModelledConfig, PrefixCacheChoice, TransportChoice, WeightsDtype,
};
pub use error::EngineError;
pub use kv_store::{KvStore, layout_of};

//! Numeric operations, device memory and mappings; knows no request, scheduler or model.

pub mod ceiling;
pub mod collective;
pub mod cpu;
pub mod cuda;
pub mod memory;
pub mod numerics;
pub mod reference;

mod checks;
mod dtype;
mod error;
mod experts;
mod finite;
mod host;
mod image;
mod kv;
mod ops;
mod pool;
mod rope;
mod sizes;
mod step;
mod sync;
mod widen;

pub use cpu::{CpuOps, KernelSet};
pub use dtype::Dtype;
pub use error::KernelError;
pub use experts::{ExpertWeights, HostCounts, Routes, Routing};
pub use image::{IMAGE_ALIGN, MappedImage, MatrixImage};
pub use kv::{
    BLOCK_TOKENS_MAX, HEAD_DIM_MAX, HEAD_DIM_STEP, KvDtype, KvGeometry, KvPart, KvView, KvWindow, TILE_TOKENS,
    TileOrder, TilePlace,
};
pub use numerics::{ATTENTION_CHUNK, K_CHUNKS};
pub use ops::{
    Arrangement, AttentionSpec, Epilogue, HeadShape, KShard, Left, MatrixSource, Norm, NormKind, Ops, OpsInfo, QkvSpec,
    VectorSource,
};
pub use pool::{Placement, Pool, PoolLane};
pub use rope::HostRope;
pub use sizes::{MatrixShape, MatrixSize, RopeSize, RoutesSize, RowsSize, VectorSize};
pub use step::{Batch, BatchSequence, HostStep, StepInput, StepShape};

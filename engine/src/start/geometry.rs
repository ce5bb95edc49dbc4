//! Size of the KV pool and shape of its tiles; knows no memory.

use kernels::{Dtype, KvDtype, KvGeometry};

use crate::model::ModelSpec;
use crate::{Config, EngineError, KvDtypeChoice, KvPool};

/// KV pool of a model whose matrices are computed with in `weights` format.
pub(super) fn of_model(config: &Config, spec: &ModelSpec, weights: Dtype) -> Result<KvGeometry, EngineError> {
    let mut geometry = KvGeometry {
        blocks: 1,
        layers: spec.layers as usize,
        kv_heads: spec.kv_heads as usize,
        head_dim: spec.head_dim as usize,
        block_tokens: config.block_tokens as usize,
        dtype: match (config.kv_dtype, weights) {
            (KvDtypeChoice::Int8, _) => KvDtype::Int8,
            (KvDtypeChoice::F32, _) | (KvDtypeChoice::Auto, Dtype::F16 | Dtype::F32) => KvDtype::F32,
            (KvDtypeChoice::Bf16, _) | (KvDtypeChoice::Auto, Dtype::Bf16) => KvDtype::Bf16,
        },
    };
    geometry.validate()?;
    geometry.blocks = blocks(config, geometry.block_bytes())?;
    geometry
        .validate()
        .map_err(|error| EngineError::Config { key: "kv_pool", problem: format!("is out of range: {error}") })?;
    Ok(geometry)
}

/// KV pool of a modelled device: as many blocks as the real pool, but one small tile in place of all heads.
pub(super) fn of_modelled(config: &Config, spec: &ModelSpec) -> Result<KvGeometry, EngineError> {
    const HEAD_DIM: usize = 16;
    let real = of_model(config, spec, Dtype::Bf16)?;
    Ok(KvGeometry { kv_heads: 1, head_dim: HEAD_DIM, dtype: KvDtype::Bf16, ..real })
}

fn blocks(config: &Config, block_bytes: usize) -> Result<usize, EngineError> {
    let wrong = |problem: String| EngineError::Config { key: "kv_pool", problem };
    let blocks = match config.kv_pool {
        KvPool::Blocks(blocks) => u64::from(blocks),
        KvPool::Bytes(bytes) => bytes / block_bytes as u64,
    };
    if blocks == 0 {
        return Err(wrong(format!("is {}, one block takes {block_bytes} bytes", config.kv_pool)));
    }
    usize::try_from(blocks.min(u64::from(u32::MAX))).map_err(|error| wrong(error.to_string()))
}

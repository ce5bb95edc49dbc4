//! The KV pool: memory (on the host or a device), geometry, and the layout told to peers; knows no owner of blocks.

use kernels::KvGeometry;
use kernels::memory::Region;
use sched::layout::{KvDtype, KvLayout, Shape, TILE_TOKENS, TileOrder};

use crate::EngineError;

/// The kernels store tiles of the size that peers are told.
const _: () = assert!(kernels::TILE_TOKENS == TILE_TOKENS as usize);

/// KV pool of one worker.
#[derive(Clone)]
pub struct KvStore {
    region: Region,
    geometry: KvGeometry,
}

impl KvStore {
    /// Makes a pool of this geometry at the start of `region`.
    pub fn new(region: impl Into<Region>, geometry: KvGeometry) -> Result<KvStore, EngineError> {
        let region = region.into();
        geometry.validate()?;
        if region.bytes() < geometry.pool_bytes() {
            let (what, bytes) = ("the KV pool", geometry.pool_bytes() as u64);
            return Err(EngineError::Memory { what, bytes, reason: format!("{} were given", region.bytes()) });
        }
        Ok(KvStore { region, geometry })
    }

    /// Memory of the pool, in which operations compute and which transports register.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Geometry of the pool.
    #[must_use]
    pub fn geometry(&self) -> &KvGeometry {
        &self.geometry
    }

    /// Layout as peers are told it: this worker holds all layers and heads.
    pub fn layout(&self) -> Result<KvLayout, EngineError> {
        layout_of(self.geometry())
    }
}

/// Layout of a pool with this geometry.
pub fn layout_of(geometry: &KvGeometry) -> Result<KvLayout, EngineError> {
    let shape = Shape {
        layers_total: geometry.layers as u32,
        kv_heads_total: geometry.kv_heads as u32,
        head_dim: geometry.head_dim as u32,
        block_tokens: geometry.block_tokens as u32,
        dtype: match geometry.dtype {
            kernels::KvDtype::Bf16 => KvDtype::Bf16,
            kernels::KvDtype::F32 => KvDtype::F32,
            kernels::KvDtype::Int8 => KvDtype::Int8,
        },
        tile_order: TileOrder(geometry.tile_order().name().into()),
        tile_bytes: geometry.tile_bytes() as u32,
    };
    KvLayout::whole(shape).map_err(|error| EngineError::Config { key: "block_tokens", problem: error.to_string() })
}

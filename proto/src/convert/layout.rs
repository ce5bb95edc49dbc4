//! Compatibility and layout, which workers exchange when they meet.

use sched::compat::CompatParts;
use sched::layout::{KvDtype, KvLayout, Parallel, Rank, Shape, TileOrder};

use super::limits::NAME_BYTES_MAX;
use super::{ConvertError, Field, Problem, Wire};
use crate::generated as wire;

impl Wire for KvDtype {
    type Message = i32;

    fn to_wire(&self) -> i32 {
        let dtype = match self {
            KvDtype::F32 => wire::KvDtype::F32,
            KvDtype::F16 => wire::KvDtype::F16,
            KvDtype::Bf16 => wire::KvDtype::Bf16,
            KvDtype::Int8 => wire::KvDtype::I8,
        };
        dtype.into()
    }

    fn from_wire(message: i32) -> Result<Self, ConvertError> {
        let unknown = Field("KvLayout", "dtype").error(Problem::Unknown(message));
        match wire::KvDtype::try_from(message).map_err(|_| unknown.clone())? {
            wire::KvDtype::Unspecified => Err(unknown),
            wire::KvDtype::F32 => Ok(KvDtype::F32),
            wire::KvDtype::F16 => Ok(KvDtype::F16),
            wire::KvDtype::Bf16 => Ok(KvDtype::Bf16),
            wire::KvDtype::I8 => Ok(KvDtype::Int8),
        }
    }
}

impl Wire for CompatParts {
    type Message = wire::CompatParts;

    fn to_wire(&self) -> wire::CompatParts {
        wire::CompatParts {
            wire_version: self.wire_version,
            weights_digest_high: (self.weights_digest >> 64) as u64,
            weights_digest_low: self.weights_digest as u64,
            layers: self.layers,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            rope: self.rope.clone(),
            kv_dtype: self.kv_dtype.to_wire(),
            scale_rule: self.scale_rule.clone(),
            numerics: self.numerics.clone(),
        }
    }

    fn from_wire(message: wire::CompatParts) -> Result<Self, ConvertError> {
        let weights_digest = u128::from(message.weights_digest_high) << 64 | u128::from(message.weights_digest_low);
        Ok(CompatParts {
            weights_digest,
            layers: message.layers,
            kv_heads: message.kv_heads,
            head_dim: message.head_dim,
            rope: Field("CompatParts", "rope").text(message.rope, NAME_BYTES_MAX)?,
            kv_dtype: KvDtype::from_wire(message.kv_dtype)?,
            scale_rule: Field("CompatParts", "scale_rule").text(message.scale_rule, NAME_BYTES_MAX)?,
            numerics: Field("CompatParts", "numerics").text(message.numerics, NAME_BYTES_MAX)?,
            wire_version: message.wire_version,
        })
    }
}

impl Wire for KvLayout {
    type Message = wire::KvLayout;

    fn to_wire(&self) -> wire::KvLayout {
        let (shape, rank) = (self.shape(), self.rank());
        wire::KvLayout {
            layers_total: shape.layers_total,
            kv_heads_total: shape.kv_heads_total,
            head_dim: shape.head_dim,
            block_tokens: shape.block_tokens,
            dtype: shape.dtype.to_wire(),
            tile_order: shape.tile_order.0.to_string(),
            tile_bytes: shape.tile_bytes,
            tp_rank: rank.tensor.rank,
            tp_size: rank.tensor.size,
            pp_rank: rank.pipeline.rank,
            pp_size: rank.pipeline.size,
        }
    }

    fn from_wire(message: wire::KvLayout) -> Result<Self, ConvertError> {
        let tile_order = Field("KvLayout", "tile_order").text(message.tile_order, NAME_BYTES_MAX)?;
        let shape = Shape {
            layers_total: message.layers_total,
            kv_heads_total: message.kv_heads_total,
            head_dim: message.head_dim,
            block_tokens: message.block_tokens,
            dtype: KvDtype::from_wire(message.dtype)?,
            tile_order: TileOrder(tile_order.into()),
            tile_bytes: message.tile_bytes,
        };
        let rank = Parallel {
            tensor: Rank { rank: message.tp_rank, size: message.tp_size },
            pipeline: Rank { rank: message.pp_rank, size: message.pp_size },
        };
        let layout = KvLayout::of_rank(shape, rank);
        layout.map_err(|error| Field("KvLayout", "tile_bytes").error(Problem::Rejected(error.to_string())))
    }
}

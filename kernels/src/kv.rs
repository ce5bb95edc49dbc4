//! Layout of the KV pool: block-major tiles and the order inside a tile; knows no block table and no request.

use std::ops::Range;
use std::sync::Arc;

use half::bf16;

use crate::KernelError;
use crate::checks::{at_most, below};
use crate::memory::{HostMemory, Region, RegionKind};

/// Largest head size.
pub const HEAD_DIM_MAX: usize = 256;
/// Head sizes are a multiple of this.
pub const HEAD_DIM_STEP: usize = 16;
/// Largest block size in tokens.
pub const BLOCK_TOKENS_MAX: usize = 128;
/// Tokens of a tile, which kernels multiply at a time. Block sizes are a multiple of it.
pub const TILE_TOKENS: usize = 16;

/// Number format of stored keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvDtype {
    /// bfloat16; attention weights are rounded to bf16 too.
    Bf16,
    /// f32.
    F32,
    /// Integers of 8 bits with one f32 scale per token and head, fixed when the token is appended
    /// (`numerics::quantise`). Kernels widen them to bf16, which is exact; attention weights are multiplied by the
    /// scale before they are rounded.
    Int8,
}

impl KvDtype {
    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            KvDtype::Bf16 => 2,
            KvDtype::F32 => 4,
            KvDtype::Int8 => 1,
        }
    }

    /// Bytes of the scale of one token of a tile.
    pub const fn scale_bytes(self) -> usize {
        match self {
            KvDtype::Bf16 | KvDtype::F32 => 0,
            KvDtype::Int8 => size_of::<f32>(),
        }
    }

    /// Rule of the scales, as the compatibility key writes it.
    pub const fn scale_rule(self) -> &'static str {
        match self {
            KvDtype::Bf16 | KvDtype::F32 => "none",
            KvDtype::Int8 => "largest/127 per token and kv head",
        }
    }

    /// `bf16`, `f32` or `int8`, as configuration writes it.
    pub const fn name(self) -> &'static str {
        match self {
            KvDtype::Bf16 => "bf16",
            KvDtype::F32 => "f32",
            KvDtype::Int8 => "int8",
        }
    }
}

/// Half of a layer's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvPart {
    /// Keys, after norm and rotation.
    Key,
    /// Values.
    Value,
}

/// Order of the elements inside a tile. Two elements that one instruction multiplies lie side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TileOrder {
    /// K `[dim/2][token][2]`, V `[token/2][dim][2]`: pairs for bf16 dot products.
    Paired,
    /// K `[dim][token]`, V `[token][dim]`: for f32.
    Plain,
    /// As `Paired`, then the scales of all tokens as f32: integers that become bf16 in place.
    PairedScaled,
}

impl TileOrder {
    /// Stable name, which workers tell each other.
    pub const fn name(self) -> &'static str {
        match self {
            TileOrder::Paired => "k:dim/2.token.2,v:token/2.dim.2",
            TileOrder::Plain => "k:dim.token,v:token.dim",
            TileOrder::PairedScaled => "k:dim/2.token.2,v:token/2.dim.2;token.f32",
        }
    }

    /// Index, in elements, of one element of a tile of 16 tokens of `head_dim` values.
    pub const fn element(self, part: KvPart, token: usize, dim: usize, head_dim: usize) -> usize {
        match (self, part) {
            (TileOrder::Paired | TileOrder::PairedScaled, KvPart::Key) => (dim / 2 * TILE_TOKENS + token) * 2 + dim % 2,
            (TileOrder::Paired | TileOrder::PairedScaled, KvPart::Value) => {
                (token / 2 * head_dim + dim) * 2 + token % 2
            }
            (TileOrder::Plain, KvPart::Key) => dim * TILE_TOKENS + token,
            (TileOrder::Plain, KvPart::Value) => token * head_dim + dim,
        }
    }
}

/// Shape of a pool of KV blocks: `[block][layer][K, V][unit][kv_head]` tiles, where a unit is 16 positions of the
/// block. A tile has `16 * head_dim` elements and, in int8, 16 scales behind them. Tiles and scales begin at multiples
/// of 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvGeometry {
    /// Blocks in the pool.
    pub blocks: usize,
    /// Layers held by this rank.
    pub layers: usize,
    /// KV heads held by this rank.
    pub kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// Tokens per block.
    pub block_tokens: usize,
    /// Number format.
    pub dtype: KvDtype,
}

impl KvGeometry {
    /// The window of all layers and heads.
    #[must_use]
    pub fn whole(&self) -> KvWindow {
        KvWindow { layers: 0..self.layers, kv_heads: 0..self.kv_heads }
    }

    /// Checks that every count is at least 1, that the kernels serve the block and head sizes, and that the whole pool
    /// can be addressed.
    pub fn validate(&self) -> Result<(), KernelError> {
        let at_least_one = [("blocks", self.blocks), ("layers", self.layers), ("kv_heads", self.kv_heads)];
        for (what, value) in at_least_one {
            if value == 0 {
                return Err(invalid(format!("{what} is 0, must be at least 1")));
            }
        }
        check_step("block_tokens", self.block_tokens, TILE_TOKENS, BLOCK_TOKENS_MAX)?;
        check_step("head_dim", self.head_dim, HEAD_DIM_STEP, HEAD_DIM_MAX)?;
        let pool_bytes = [self.layers, 2, self.units(), self.kv_heads, self.blocks]
            .into_iter()
            .try_fold(self.tile_bytes(), usize::checked_mul)
            .filter(|&bytes| isize::try_from(bytes).is_ok());
        match pool_bytes {
            Some(_) => Ok(()),
            None => Err(invalid(format!("a pool of {} blocks is too large to address", self.blocks))),
        }
    }

    /// Units of 16 positions in a block.
    pub const fn units(&self) -> usize {
        self.block_tokens / TILE_TOKENS
    }

    /// Bytes of one tile: one unit of a block, one layer, K or V, one head.
    pub const fn tile_bytes(&self) -> usize {
        self.scales_offset() + TILE_TOKENS * self.dtype.scale_bytes()
    }

    pub(crate) const fn scales_offset(&self) -> usize {
        TILE_TOKENS * self.head_dim * self.dtype.bytes()
    }

    /// Bytes of one block, all layers.
    pub const fn block_bytes(&self) -> usize {
        self.layers * 2 * self.units() * self.kv_heads * self.tile_bytes()
    }

    /// Bytes of the whole pool.
    pub const fn pool_bytes(&self) -> usize {
        self.blocks * self.block_bytes()
    }

    /// Byte offset of a tile from the pool's first byte. The tiles of one unit of one layer's keys or values follow
    /// each other by head.
    pub const fn tile_offset(&self, tile: TilePlace) -> usize {
        let TilePlace { block, layer, part, unit, kv_head } = tile;
        let part_index = match part {
            KvPart::Key => 0,
            KvPart::Value => 1,
        };
        let row = (layer * 2 + part_index) * self.units() + unit;
        block * self.block_bytes() + (row * self.kv_heads + kv_head) * self.tile_bytes()
    }

    /// The order inside a tile that the kernels use for this dtype.
    pub const fn tile_order(&self) -> TileOrder {
        match self.dtype {
            KvDtype::Bf16 => TileOrder::Paired,
            KvDtype::F32 => TileOrder::Plain,
            KvDtype::Int8 => TileOrder::PairedScaled,
        }
    }

    /// Index, in elements, of one element of a tile.
    pub const fn element(&self, part: KvPart, token: usize, dim: usize) -> usize {
        self.tile_order().element(part, token, dim, self.head_dim)
    }
}

fn check_step(what: &str, value: usize, step: usize, max: usize) -> Result<(), KernelError> {
    if value == 0 || value > max || !value.is_multiple_of(step) {
        return Err(invalid(format!("{what} is {value}, must be a multiple of {step} between {step} and {max}")));
    }
    Ok(())
}

fn invalid(what: String) -> KernelError {
    KernelError::Invalid { op: "kv geometry", what }
}

/// Some layers and KV heads of a pool: all that the rank which computes them sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvWindow {
    /// The layers.
    pub layers: Range<usize>,
    /// The KV heads.
    pub kv_heads: Range<usize>,
}

/// Names one tile of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TilePlace {
    /// Block of the pool.
    pub block: usize,
    /// Layer, from the first one of the pool or window.
    pub layer: usize,
    /// Keys or values.
    pub part: KvPart,
    /// Unit of the block: 16 positions.
    pub unit: usize,
    /// KV head, from the first one of the pool or window.
    pub kv_head: usize,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredAt {
    block: usize,
    unit: usize,
    pub(crate) token: usize,
}

impl StoredAt {
    pub(crate) fn of(position: usize, table: &[u32], geometry: &KvGeometry) -> Self {
        let (block, in_block) = (table[position / geometry.block_tokens] as usize, position % geometry.block_tokens);
        Self { block, unit: in_block / TILE_TOKENS, token: in_block % TILE_TOKENS }
    }

    pub(crate) fn tile(self, layer: usize, part: KvPart, kv_head: usize) -> TilePlace {
        TilePlace { block: self.block, layer, part, unit: self.unit, kv_head }
    }
}

/// A pool of KV blocks in host memory, as operations and transports share it.
///
/// The bytes are plain memory that a remote peer may also write. Whoever accounts for blocks promises that a
/// block has one writer at a time and that nobody reads a position before it was written; the kernels check block
/// numbers, not that promise.
///
/// A view may be a window ([`KvWindow`]); it still maps the whole pool.
#[derive(Clone)]
pub struct KvView {
    memory: Arc<HostMemory>,
    /// Shape of the whole pool, which gives the offsets of tiles.
    pool: KvGeometry,
    /// Shape of the window, which operations see.
    geometry: KvGeometry,
    /// First layer and head of the window, counted in the pool.
    first_layer: usize,
    first_kv_head: usize,
}

impl KvView {
    pub(crate) fn of(memory: &Region, geometry: KvGeometry, window: KvWindow) -> Result<Self, KernelError> {
        let Some(host) = memory.host() else {
            let (ours, found) = (RegionKind::Host, memory.kind());
            return Err(KernelError::MemoryKind { op: "kv view", ours, found });
        };
        Self::new(Arc::clone(host), geometry)?.window(window.layers, window.kv_heads)
    }

    /// A view of a whole pool at the start of `memory`.
    pub fn new(memory: Arc<HostMemory>, geometry: KvGeometry) -> Result<Self, KernelError> {
        geometry.validate()?;
        if memory.len() < geometry.pool_bytes() {
            return Err(KernelError::Shape {
                op: "kv view",
                what: "bytes of memory",
                expected: geometry.pool_bytes(),
                found: memory.len(),
            });
        }
        if !(memory.as_ptr() as usize).is_multiple_of(64) {
            return Err(invalid("the memory does not begin at a multiple of 64 bytes".to_owned()));
        }
        Ok(Self { memory, pool: geometry, geometry, first_layer: 0, first_kv_head: 0 })
    }

    /// A window of this view. Both ranges must be inside the view and not empty.
    pub fn window(&self, layers: Range<usize>, kv_heads: Range<usize>) -> Result<Self, KernelError> {
        let op = "kv window";
        at_most(op, "end of the layers", layers.end, self.geometry.layers)?;
        at_most(op, "end of the kv heads", kv_heads.end, self.geometry.kv_heads)?;
        let geometry = KvGeometry { layers: layers.len(), kv_heads: kv_heads.len(), ..self.geometry };
        geometry.validate()?;
        Ok(Self {
            geometry,
            first_layer: self.first_layer + layers.start,
            first_kv_head: self.first_kv_head + kv_heads.start,
            ..self.clone()
        })
    }

    /// Shape of the pool, or of the window with its layers and heads only.
    pub fn geometry(&self) -> &KvGeometry {
        &self.geometry
    }

    /// The memory that holds the whole pool.
    pub fn memory(&self) -> &Arc<HostMemory> {
        &self.memory
    }

    /// Copies the visible layers and heads of blocks, pair (from, to) by pair. All blocks must lie inside the pool.
    pub(crate) fn copy_blocks(&self, pairs: &[(u32, u32)]) -> Result<(), KernelError> {
        for block in pairs.iter().flat_map(|&(from, to)| [from, to]) {
            below("copy_blocks", "block", block as usize, self.geometry.blocks)?;
        }
        pairs.iter().for_each(|&(from, to)| self.copy_block(from as usize, to as usize));
        Ok(())
    }

    /// First byte of a tile, aligned to 64 bytes. Panics if a number is out of range.
    pub(crate) fn tile_ptr(&self, tile: TilePlace) -> *mut u8 {
        let geometry = &self.geometry;
        assert!(tile.block < geometry.blocks && tile.layer < geometry.layers);
        assert!(tile.unit < geometry.units() && tile.kv_head < geometry.kv_heads);
        let (layer, kv_head) = (self.first_layer + tile.layer, self.first_kv_head + tile.kv_head);
        let offset = self.pool.tile_offset(TilePlace { layer, kv_head, ..tile });
        // SAFETY: a window lies inside its pool, so the tile does, and its offset is less than `pool_bytes`, which
        // `new` checked against the length of the mapping that `memory` keeps alive.
        unsafe { self.memory.as_ptr().add(offset) }
    }

    fn copy_block(&self, from: usize, to: usize) {
        let run_bytes = self.geometry.kv_heads * self.geometry.tile_bytes();
        let (layers, units) = (self.geometry.layers, self.geometry.units());
        let rows = (0..layers).flat_map(|layer| [KvPart::Key, KvPart::Value].map(|part| (layer, part)));
        for ((layer, part), unit) in rows.flat_map(|row| (0..units).map(move |unit| (row, unit))) {
            let [source, target] =
                [from, to].map(|block| self.tile_ptr(TilePlace { block, layer, part, unit, kv_head: 0 }));
            // SAFETY: the tiles of one unit follow each other by head, so both runs lie inside the pool; `copy` allows
            // them to be the same.
            unsafe { std::ptr::copy(source, target, run_bytes) }
        }
    }

    fn element_ptr(&self, place: Element) -> *mut u8 {
        let geometry = &self.geometry;
        assert!(place.token < TILE_TOKENS && place.dim < geometry.head_dim);
        let tile = self.tile_ptr(place.tile);
        let index = geometry.element(place.tile.part, place.token, place.dim);
        // SAFETY: `element` is a bijection of (token, dim) onto the elements of a tile.
        unsafe { tile.add(index * geometry.dtype.bytes()) }
    }

    /// Pointer to the scale of a token's vector. `place.dim` is not used.
    fn scale_ptr(&self, place: Element) -> *mut f32 {
        let geometry = &self.geometry;
        assert!(place.token < TILE_TOKENS && geometry.dtype.scale_bytes() == size_of::<f32>());
        let tile = self.tile_ptr(place.tile);
        // SAFETY: the scales lie behind the elements of the tile, one per token.
        unsafe { tile.add(geometry.scales_offset()).cast::<f32>().add(place.token) }
    }

    /// Scale of a token's vector; 1 where the dtype has no scales.
    pub(crate) fn scale(&self, place: Element) -> f32 {
        match self.geometry.dtype {
            KvDtype::Bf16 | KvDtype::F32 => 1.0,
            // SAFETY: `scale_ptr` points into the pool, aligned because tiles and their scales begin at cache lines.
            KvDtype::Int8 => unsafe { self.scale_ptr(place).read() },
        }
    }

    pub(crate) fn set_scale(&self, place: Element, scale: f32) {
        // SAFETY: as in `scale`; blocks have one writer at a time, as the type promises.
        unsafe { self.scale_ptr(place).write(scale) }
    }

    /// Reads one element, not scaled.
    pub(crate) fn get(&self, place: Element) -> f32 {
        let element = self.element_ptr(place);
        // SAFETY: `element_ptr` points at an element inside the pool, aligned to its size because tiles are.
        unsafe {
            match self.geometry.dtype {
                KvDtype::Bf16 => bf16::from_bits(element.cast::<u16>().read()).to_f32(),
                KvDtype::F32 => element.cast::<f32>().read(),
                KvDtype::Int8 => f32::from(element.cast::<i8>().read()),
            }
        }
    }

    /// Writes one element, rounded to the pool's dtype; in int8 it has been scaled already.
    pub(crate) fn set(&self, place: Element, value: f32) {
        let element = self.element_ptr(place);
        // SAFETY: as in `get`; blocks have one writer at a time, as the type promises.
        unsafe {
            match self.geometry.dtype {
                KvDtype::Bf16 => element.cast::<u16>().write(bf16::from_f32(value).to_bits()),
                KvDtype::F32 => element.cast::<f32>().write(value),
                KvDtype::Int8 => element.cast::<i8>().write(value as i8),
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Element {
    pub(crate) tile: TilePlace,
    pub(crate) token: usize,
    pub(crate) dim: usize,
}

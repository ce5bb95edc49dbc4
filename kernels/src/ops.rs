//! `Ops`: the fused operations of a decoder layer that every backend implements; knows no model and no request.
//!
//! # What every implementation promises
//!
//! *Activations* are f32 on the device (`Rows`, row-major). *One fixed order*: each output element is reduced in an
//! order that depends only on its own inputs, never on the number of rows, the tile shape, the thread count, the other
//! sequences of the batch or how a prompt was cut into chunks. Two calls that give a row the same inputs give it the
//! same bits. `docs/adr/0003-exact-reduction-order.md` writes the orders down; `reference` is their plainest form, and
//! every implementation is tested against it.
//!
//! *Arguments are checked*: a size, index or block number that does not fit is an error that names it, and nothing is
//! computed. Where an operation writes `out`, it also sets `out`'s row count to the number of rows it computed.

use std::sync::atomic::AtomicU64;

use crate::memory::Region;
use crate::{
    Dtype, KernelError, KvGeometry, KvWindow, MappedImage, MatrixImage, MatrixSize, RopeSize, RoutesSize, Routing,
    RowsSize, StepInput, StepShape, VectorSize,
};

/// Operations of one device, made and called by one thread: a device's context need not leave that thread.
///
/// An operation may return before the device has finished it. Later operations see its result; the host sees it after
/// `wait`, or in values that are copied to the host. Errors of the device may be returned only then.
pub trait Ops {
    /// f32 `[rows, cols]` on the device. Columns and the largest row count are fixed by `rows`; the current row count
    /// starts at 0 and is set by every operation that writes rows.
    type Rows: RowsSize;
    /// A weight matrix `[n, k]`, prepared (packed) for the operations its [`Arrangement`] names.
    type Matrix: MatrixSize;
    /// f32 `[n]` on the device: norm weights, biases.
    type Vector: VectorSize;
    /// Cosines and sines of the rotary embedding for every position up to a bound.
    type Rope: RopeSize;
    /// Experts that compute the rows of a step, and their weights.
    type Routes: RoutesSize;
    /// Number of rows that each expert of each layer has computed.
    type Counts;
    /// Stored keys and values, in the memory that the device computes in.
    type Kv;
    /// A step in memory that the device reads, with the tasks planned for it.
    type Step;

    /// Backend and kernel set, for logs, metrics and the compatibility key.
    fn describe(&self) -> OpsInfo;

    /// Allocates space for up to `rows_max` rows of `cols` values; the row count is 0.
    fn rows(&self, rows_max: usize, cols: usize) -> Result<Self::Rows, KernelError>;

    /// Prepares a matrix from parts stacked along `n`; all have the same `k` and dtype. Infinities and NaN are refused.
    fn matrix(&self, parts: &[MatrixSource<'_>], arrangement: Arrangement) -> Result<Self::Matrix, KernelError>;

    /// As `matrix`, with weights of one byte. A row `w` becomes `round(w * 127 / max|w|)`, with the maximum of the
    /// whole row even where a shard holds a part of it. In a product the row's activations are rounded the same way,
    /// each of the [`crate::K_CHUNKS`] chunks of `k` with a scale of its own; a chunk's sum is exact in i32 and stands
    /// for `sum · scale of the chunk · scale of the weights`, rounded after each product; then comes the tree. At most
    /// 2^20 columns. A table cannot be int8.
    fn int8_matrix(&self, parts: &[MatrixSource<'_>], arrangement: Arrangement) -> Result<Self::Matrix, KernelError>;

    /// A prepared matrix as numbers and byte sections that other processes of this host can map; `None` if the backend
    /// has no such form.
    fn image<'m>(&self, _matrix: &'m Self::Matrix) -> Option<MatrixImage<'m>> {
        None
    }

    /// Maps the matrix whose image lies in a file, without a copy. An image that cannot be a matrix is refused; the
    /// caller must know that the bytes are those that `image` returned.
    fn matrix_from_image(&self, _image: MappedImage<'_>) -> Result<Self::Matrix, KernelError> {
        let what = "this backend maps no prepared matrices".to_owned();
        Err(KernelError::Invalid { op: "matrix_from_image", what })
    }

    /// Makes a vector from parts laid end to end, widened to f32. Infinities and NaN are refused.
    fn vector(&self, parts: &[VectorSource<'_>]) -> Result<Self::Vector, KernelError>;

    /// Computes cosines and sines of `position * inverse_frequencies[i]` (the product rounded to f32), times `scale`,
    /// for positions `0..positions_max`. There are `head_dim / 2` frequencies, already adjusted by the model's scaling
    /// rule.
    fn rope(&self, positions_max: usize, inverse_frequencies: &[f32], scale: f32) -> Result<Self::Rope, KernelError>;

    /// Allocates space for the expert choices of up to `rows_max` rows; the row count is 0.
    fn routes(&self, rows_max: usize, routing: Routing) -> Result<Self::Routes, KernelError>;

    /// Makes counters for `layers` times `experts`, all zero.
    fn counts(&self, layers: usize, experts: usize) -> Result<Self::Counts, KernelError>;

    /// The KV pool at the start of `memory`, or some layers and heads of it. Memory that the device cannot compute in
    /// is refused.
    fn kv(&self, memory: &Region, geometry: KvGeometry, window: KvWindow) -> Result<Self::Kv, KernelError>;

    /// Allocates room for the steps of a lane. Its addresses stay the same from step to step.
    fn step(&self, shape: &StepShape) -> Result<Self::Step, KernelError>;

    /// Begins a step: checks its input, plans its attention and copies both to the device, once for all layers.
    fn begin(&mut self, step: &mut Self::Step, kv: &Self::Kv, input: StepInput<'_>) -> Result<(), KernelError>;

    /// Waits until all operations have finished and all keys and values are stored.
    fn wait(&mut self) -> Result<(), KernelError>;

    /// Replaces all rows by `data` from the host, row-major.
    fn write_rows(&self, rows: &mut Self::Rows, data: &[f32]) -> Result<(), KernelError>;

    /// Copies all rows to the host after all earlier operations; `out` has exactly `rows * cols` values.
    fn read_rows(&self, rows: &Self::Rows, out: &mut [f32]) -> Result<(), KernelError>;

    /// All rows in host memory, row-major, after all earlier operations: either in place, or copied into `space`.
    fn host_rows<'r>(&self, rows: &'r Self::Rows, space: &'r mut Vec<f32>) -> Result<&'r [f32], KernelError>;

    /// `out[r] = table[token r]` for the step's tokens. `table` is `[vocab, cols]`, arranged as `Table` or `Stacked`.
    fn embed(&mut self, table: &Self::Matrix, step: &Self::Step, out: &mut Self::Rows) -> Result<(), KernelError>;

    /// `out[r] = out[r] + table[position r + offset]`, for learned positions. `table` as in `embed`.
    fn add_positions(
        &mut self,
        table: &Self::Matrix,
        offset: u32,
        step: &Self::Step,
        out: &mut Self::Rows,
    ) -> Result<(), KernelError>;

    /// `y = left · wᵀ (+ bias)`, written to `out` as `epilogue` says. `w` is `[n, k]`, `Stacked`; `left` has `k`
    /// columns, `out` has `n`.
    ///
    /// `k` is cut into [`crate::K_CHUNKS`] equal chunks (after padding with zeros to a multiple of 16), each summed
    /// from left to right in f32; the chunk sums meet in a fixed binary tree. Bias and residual come after the tree.
    /// A `Partial` matrix has some of the chunks and yields the root of their sub-tree; its epilogue is `Store`.
    fn linear(
        &mut self,
        left: Left<'_, Self>,
        w: &Self::Matrix,
        bias: Option<&Self::Vector>,
        epilogue: Epilogue,
        out: &mut Self::Rows,
    ) -> Result<(), KernelError>;

    /// `out = silu(left · gateᵀ) * (left · upᵀ)`, reduced as in `linear`. `w` has the parts gate and up (`GateUp`).
    fn gate_up(&mut self, left: Left<'_, Self>, w: &Self::Matrix, out: &mut Self::Rows) -> Result<(), KernelError>;

    /// `out = out + (x (+ bias))`: the end of `linear` for products whose partial sums were added by a collective.
    fn add(&mut self, x: &Self::Rows, bias: Option<&Self::Vector>, out: &mut Self::Rows) -> Result<(), KernelError>;

    /// Applies norms and rotation to the queries and keys of one layer, and stores its keys and values.
    ///
    /// `qkv` is `[rows, (heads + 2 * kv_heads) * head_dim]`, columns in the order q, k, v. The optional norms are RMS
    /// norms over each head; then, with a rope, q and k are rotated (halves `i` and `i + head_dim / 2` pair up) by the
    /// angles of their absolute position. q stays in `qkv`; k and v are rounded to the KV dtype and stored.
    ///
    /// Writing the first position of a tile clears the tile, so no byte that was there before reaches a result.
    /// The k columns of `qkv` are unspecified afterwards.
    fn qkv_append(
        &mut self,
        qkv: &mut Self::Rows,
        spec: &QkvSpec<'_, Self>,
        step: &Self::Step,
        kv: &Self::Kv,
        layer: u32,
    ) -> Result<(), KernelError>;

    /// Causal attention of the queries in `qkv` over the stored keys and values, the step's own included.
    ///
    /// `out` is `[rows, heads * head_dim]`. Keys are walked in chunks of [`crate::ATTENTION_CHUNK`] absolute positions,
    /// each with its own maximum, merged from left to right, so a position's bits are the same in prefill and decode.
    fn attention(
        &mut self,
        qkv: &Self::Rows,
        spec: &AttentionSpec,
        step: &Self::Step,
        kv: &Self::Kv,
        layer: u32,
        out: &mut Self::Rows,
    ) -> Result<(), KernelError>;

    /// `out[i] = x[i-th row that wants logits]`.
    fn gather_wanted(&mut self, x: &Self::Rows, step: &Self::Step, out: &mut Self::Rows) -> Result<(), KernelError>;

    /// Chooses the experts of each row: those with the greatest logits, and of equal logits the lower expert. `logits`
    /// is `[rows, experts]`; the choices of a row depend on no other row.
    fn route(&mut self, logits: &Self::Rows, routes: &mut Self::Routes) -> Result<(), KernelError>;

    /// First half of the chosen experts' MLPs: `silu(left · gateᵀ) * (left · upᵀ)`, reduced as in `linear`. `out` has
    /// one row per choice, grouped by expert as [`crate::Routes`] says; each is computed from the row that made the
    /// choice. `experts` has one matrix per expert, all of one shape, arranged as `GateUp`.
    fn expert_gate_up(
        &mut self,
        left: Left<'_, Self>,
        experts: &[Self::Matrix],
        routes: &Self::Routes,
        out: &mut Self::Rows,
    ) -> Result<(), KernelError>;

    /// Second half, still one row per choice: `out[g] = x[g] · wᵀ` with the matrix of the expert that `g` belongs to.
    /// All matrices are `Stacked`, or all are the same `Partial`: then the rows are roots of sub-trees, as in `linear`.
    fn expert_down(
        &mut self,
        x: &Self::Rows,
        experts: &[Self::Matrix],
        routes: &Self::Routes,
        out: &mut Self::Rows,
    ) -> Result<(), KernelError>;

    /// `out[r] = out[r] + Σ weight · y[g]` over the choices of `r`, summed from 0 in the order of their experts, each
    /// product and sum rounded. So a row's result does not depend on the other rows.
    fn combine(&mut self, y: &Self::Rows, routes: &Self::Routes, out: &mut Self::Rows) -> Result<(), KernelError>;

    /// Adds to the counts of `layer` the number of rows that chose each expert.
    fn count_choices(
        &mut self,
        routes: &Self::Routes,
        counts: &mut Self::Counts,
        layer: usize,
    ) -> Result<(), KernelError>;

    /// Adds all counts to `totals`, `[layers][experts]` on the host, and sets the counts to zero; waits like `wait`.
    fn take_counts(&mut self, counts: &mut Self::Counts, totals: &[AtomicU64]) -> Result<(), KernelError>;

    /// Copies whole blocks of all layers, pair by pair in order; a pair is (from, to).
    fn copy_blocks(&mut self, kv: &Self::Kv, pairs: &[(u32, u32)]) -> Result<(), KernelError>;
}

/// Backend, kernel set and threads of some operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpsInfo {
    /// The backend: `cpu`, `reference`.
    pub backend: &'static str,
    /// The instruction level in use: `avx512bf16`, `avx2`, `portable`.
    pub kernel_set: &'static str,
    /// Part of the compatibility key: equal strings promise equal bits from equal inputs.
    pub numerics_id: String,
    /// Threads that compute, the caller included.
    pub threads: usize,
}

/// Operation that a matrix is prepared for, and how its parts are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrangement {
    /// Parts one below the other, for `linear`; `embed` reads it too (tied embeddings).
    Stacked,
    /// Exactly two parts of one shape, gate then up, for `gate_up`.
    GateUp,
    /// Plain rows, for `embed` only.
    Table,
    /// Some columns of parts one below the other, on one rank, for `linear` without bias and residual: the product is
    /// the root of the rank's sub-tree of the sum over `k`. The left side has the rank's columns only.
    Partial(KShard),
}

impl Arrangement {
    /// The name used in errors.
    pub const fn name(self) -> &'static str {
        match self {
            Arrangement::Stacked => "stacked",
            Arrangement::GateUp => "gate|up",
            Arrangement::Table => "table",
            Arrangement::Partial(_) => "partial",
        }
    }

    /// How many of the [`crate::K_CHUNKS`] chunks of `k` a matrix has.
    pub(crate) const fn chunks(self) -> usize {
        match self {
            Arrangement::Stacked | Arrangement::GateUp | Arrangement::Table => crate::K_CHUNKS,
            Arrangement::Partial(shard) => crate::K_CHUNKS / shard.of,
        }
    }

    pub(crate) const fn code(self) -> u64 {
        match self {
            Arrangement::Stacked => 1,
            Arrangement::GateUp => 2,
            Arrangement::Table => 3,
            Arrangement::Partial(KShard { index, of }) => PARTIAL_CODES + of as u64 * SHARDS_MAX + index as u64,
        }
    }

    pub(crate) fn of_code(code: u64) -> Option<Self> {
        let shards = [1, 2, 4, 8].into_iter().flat_map(|of| (0..of).map(move |index| KShard { index, of }));
        let whole = [Arrangement::Stacked, Arrangement::GateUp, Arrangement::Table];
        let mut all = whole.into_iter().chain(shards.map(Arrangement::Partial));
        all.find(|arrangement| arrangement.code() == code)
    }
}

const PARTIAL_CODES: u64 = 1 << 8;
const SHARDS_MAX: u64 = 16;

/// One of several equal parts of `k`, each a whole number of the [`crate::K_CHUNKS`] chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KShard {
    /// Index of the part, from 0.
    pub index: usize,
    /// Number of parts: 1, 2, 4 or 8. `k` must be a multiple of 16 for each of them.
    pub of: usize,
}

/// A part of a matrix as a model file holds it: row-major `[n, k]`, little-endian, any alignment.
#[derive(Debug, Clone, Copy)]
pub struct MatrixSource<'a> {
    /// `n * k * dtype.bytes()` bytes.
    pub bytes: &'a [u8],
    /// Number format.
    pub dtype: Dtype,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
}

/// A part of a vector as a model file holds it.
#[derive(Debug, Clone, Copy)]
pub struct VectorSource<'a> {
    /// A whole number of elements, little-endian, any alignment.
    pub bytes: &'a [u8],
    /// Number format.
    pub dtype: Dtype,
}

/// Left side of a product: rows as they are, or normed while they are read. No normed copy is kept.
pub struct Left<'a, O: Ops + ?Sized> {
    /// `[rows, k]`.
    pub rows: &'a O::Rows,
    /// Norm of each row, applied before the row is rounded to the format of the weights.
    pub norm: Option<Norm<'a, O>>,
}

/// `(x - shift) * scale * weight (+ bias)`, rounded after each operation; shift and scale are those of
/// [`crate::numerics::Standardize`].
pub struct Norm<'a, O: Ops + ?Sized> {
    /// Formula of shift and scale.
    pub kind: NormKind,
    /// `[k]`.
    pub weight: &'a O::Vector,
    /// `[k]`.
    pub bias: Option<&'a O::Vector>,
    /// Added under the root.
    pub eps: f32,
}

/// Formulas of shift and scale in a norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Shift 0, scale `1 / sqrt(mean(x²) + eps)`.
    Rms,
    /// Shift `mean(x)`, scale `1 / sqrt(mean((x - mean)²) + eps)`.
    Layer,
}

impl<'a, O: Ops + ?Sized> Left<'a, O> {
    /// Rows as they are.
    pub fn plain(rows: &'a O::Rows) -> Self {
        Self { rows, norm: None }
    }

    /// Rows after `norm`.
    pub fn normed(rows: &'a O::Rows, norm: Norm<'a, O>) -> Self {
        Self { rows, norm: Some(norm) }
    }
}

// Not derived: a derived implementation would require `O: Copy`.
impl<O: Ops + ?Sized> Clone for Left<'_, O> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<O: Ops + ?Sized> Copy for Left<'_, O> {}
impl<O: Ops + ?Sized> Clone for Norm<'_, O> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<O: Ops + ?Sized> Copy for Norm<'_, O> {}

/// Last operation of `linear`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epilogue {
    /// `out = y`.
    Store,
    /// `out = out + y`, the residual; `out` already has as many rows as `left`.
    AddTo,
    /// `out = max(y, 0)`; NaN stays NaN.
    Relu,
}

/// Heads of one layer on this rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadShape {
    /// Query heads, a multiple of `kv_heads`; query head `h` reads KV head `h / (heads / kv_heads)`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Values per head: a multiple of 16, at most 256.
    pub head_dim: usize,
}

impl HeadShape {
    /// Columns of the stacked q, k, v projection.
    pub const fn qkv_cols(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Columns of the attention's output.
    pub const fn out_cols(&self) -> usize {
        self.heads * self.head_dim
    }
}

/// Norms and rotation of queries and keys before keys are stored.
pub struct QkvSpec<'a, O: Ops + ?Sized> {
    /// Heads.
    pub shape: HeadShape,
    /// Rotation; `None` for models with other positions.
    pub rope: Option<&'a O::Rope>,
    /// Weight `[head_dim]` of the norm over each query head.
    pub q_norm: Option<&'a O::Vector>,
    /// Weight `[head_dim]` of the norm over each key head.
    pub k_norm: Option<&'a O::Vector>,
    /// Epsilon of both norms.
    pub norm_eps: f32,
}

/// Scale and mask of one kind of attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionSpec {
    /// Heads.
    pub shape: HeadShape,
    /// Factor on q·k, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Number of positions that a query sees, its own included; `None` sees all.
    pub sliding_window: Option<u32>,
}

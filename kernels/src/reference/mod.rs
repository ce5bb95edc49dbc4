//! The plainest form of every operation, written to be read: the oracle of all others. One thread, no vectors.

mod attention;
mod experts;
mod linear;
mod qkv;

use std::sync::atomic::AtomicU64;

use crate::checks::{at_most, below, finite, int8_parts, matrix_parts, same, shard_columns, vector_parts};
use crate::memory::Region;
use crate::numerics::{Int8Scale, K_CHUNKS, PairOrder};
use crate::{
    Arrangement, AttentionSpec, Dtype, Epilogue, HostCounts, HostStep, KernelError, KvGeometry, KvView, KvWindow, Left,
    MatrixSource, Ops, OpsInfo, QkvSpec, Routes, Routing, StepInput, StepShape, VectorSource, widen,
};

/// The reference implementation, in one of the orders that kernel sets sum in.
#[derive(Debug, Default, Clone, Copy)]
pub struct ReferenceOps {
    pairs: PairOrder,
}

impl ReferenceOps {
    /// One that sums products of bf16 in the order `pairs`.
    #[must_use]
    pub fn in_order(pairs: PairOrder) -> Self {
        Self { pairs }
    }
}

/// Rows on the host.
#[derive(Debug, Clone)]
pub struct Rows {
    cols: usize,
    rows_max: usize,
    data: Vec<f32>,
}

impl Rows {
    fn count(&self) -> usize {
        self.data.len() / self.cols
    }

    fn set_count(&mut self, op: &'static str, count: usize) -> Result<(), KernelError> {
        at_most(op, "rows", count, self.rows_max)?;
        self.data.resize(count * self.cols, 0.0);
        Ok(())
    }

    fn row(&self, r: usize) -> &[f32] {
        &self.data[r * self.cols..][..self.cols]
    }

    fn row_mut(&mut self, r: usize) -> &mut [f32] {
        &mut self.data[r * self.cols..][..self.cols]
    }
}

/// A matrix widened to f32, row-major, that remembers what it was.
#[derive(Debug, Clone)]
pub struct Matrix {
    dtype: Dtype,
    pairs: PairOrder,
    arrangement: Arrangement,
    n: usize,
    /// Columns held: all, or a shard's.
    k: usize,
    /// Chunks of `k` held, of eight.
    chunks: usize,
    /// Values, or the integers of an int8 matrix.
    data: Vec<f32>,
    /// Scale of each row of an int8 matrix.
    scales: Option<Vec<f32>>,
}

impl Matrix {
    /// The values of row `n`.
    fn values(&self, n: usize) -> impl Iterator<Item = f32> {
        let scale = self.scales.as_ref().map_or(1.0, |scales| scales[n]);
        self.data[n * self.k..][..self.k].iter().map(move |v| v * scale)
    }
}

/// Values on the host.
#[derive(Debug, Clone)]
pub struct Vector(Vec<f32>);

/// `[position][half]` cosines and sines.
#[derive(Debug, Clone)]
pub struct Rope {
    half: usize,
    positions_max: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Ops for ReferenceOps {
    type Rows = Rows;
    type Matrix = Matrix;
    type Vector = Vector;
    type Rope = Rope;
    type Routes = Routes;
    type Counts = HostCounts;
    type Kv = KvView;
    type Step = HostStep;

    fn describe(&self) -> OpsInfo {
        OpsInfo { backend: "reference", kernel_set: "scalar", numerics_id: "reference-1".to_owned(), threads: 1 }
    }

    fn rows(&self, rows_max: usize, cols: usize) -> Result<Rows, KernelError> {
        crate::checks::columns(cols)?;
        Ok(Rows { cols, rows_max, data: Vec::new() })
    }

    fn matrix(&self, parts: &[MatrixSource<'_>], arrangement: Arrangement) -> Result<Matrix, KernelError> {
        let (dtype, n, k) = matrix_parts(parts)?;
        if arrangement == Arrangement::GateUp {
            crate::checks::gate_up_parts(parts)?;
        }
        for (index, part) in parts.iter().enumerate() {
            finite("matrix", index, part.bytes, part.dtype)?;
        }
        let whole = parts.iter().flat_map(|part| widen::values(part.bytes, part.dtype));
        let pairs = self.pairs;
        match arrangement {
            Arrangement::Stacked | Arrangement::GateUp | Arrangement::Table => {
                let data = whole.collect();
                Ok(Matrix { dtype, pairs, arrangement, n, k, chunks: K_CHUNKS, data, scales: None })
            }
            Arrangement::Partial(shard) => {
                let columns = shard_columns(shard, k)?;
                let whole: Vec<f32> = whole.collect();
                let data = whole.chunks_exact(k).flat_map(|row| &row[columns.clone()]).copied().collect();
                let (k, chunks) = (columns.len(), K_CHUNKS / shard.of);
                Ok(Matrix { dtype, pairs, arrangement, n, k, chunks, data, scales: None })
            }
        }
    }

    fn int8_matrix(&self, parts: &[MatrixSource<'_>], arrangement: Arrangement) -> Result<Matrix, KernelError> {
        int8_parts(parts, arrangement)?;
        let mut matrix = self.matrix(parts, arrangement)?;
        let whole: Vec<f32> = parts.iter().flat_map(|part| widen::values(part.bytes, part.dtype)).collect();
        let scales: Vec<Int8Scale> = whole.chunks_exact(parts[0].k).map(Int8Scale::of_values).collect();
        for (row, scale) in matrix.data.chunks_exact_mut(matrix.k).zip(&scales) {
            row.iter_mut().for_each(|v| *v = f32::from(scale.quantize(*v)));
        }
        matrix.scales = Some(scales.iter().map(|scale| scale.scale).collect());
        Ok(matrix)
    }

    fn vector(&self, parts: &[VectorSource<'_>]) -> Result<Vector, KernelError> {
        vector_parts(parts).map(Vector)
    }

    fn rope(&self, positions_max: usize, inverse_frequencies: &[f32], scale: f32) -> Result<Rope, KernelError> {
        let (cos, sin) = crate::rope::tables(positions_max, inverse_frequencies, scale)?;
        Ok(Rope { half: inverse_frequencies.len(), positions_max, cos, sin })
    }

    fn routes(&self, rows_max: usize, routing: Routing) -> Result<Routes, KernelError> {
        Routes::new(rows_max, routing)
    }

    fn counts(&self, layers: usize, experts: usize) -> Result<HostCounts, KernelError> {
        Ok(HostCounts::new(layers, experts))
    }

    fn kv(&self, memory: &Region, geometry: KvGeometry, window: KvWindow) -> Result<KvView, KernelError> {
        KvView::of(memory, geometry, window)
    }

    fn step(&self, shape: &StepShape) -> Result<HostStep, KernelError> {
        Ok(HostStep::new(shape))
    }

    fn begin(&mut self, step: &mut HostStep, kv: &KvView, input: StepInput<'_>) -> Result<(), KernelError> {
        step.begin(input, kv.geometry())
    }

    fn wait(&mut self) -> Result<(), KernelError> {
        Ok(())
    }

    fn write_rows(&self, rows: &mut Rows, data: &[f32]) -> Result<(), KernelError> {
        same("write_rows", "values beyond whole rows", 0, data.len() % rows.cols)?;
        rows.set_count("write_rows", data.len() / rows.cols)?;
        rows.data.copy_from_slice(data);
        Ok(())
    }

    fn read_rows(&self, rows: &Rows, out: &mut [f32]) -> Result<(), KernelError> {
        same("read_rows", "values", rows.data.len(), out.len())?;
        out.copy_from_slice(&rows.data);
        Ok(())
    }

    fn host_rows<'r>(&self, rows: &'r Rows, _: &'r mut Vec<f32>) -> Result<&'r [f32], KernelError> {
        Ok(&rows.data)
    }

    fn embed(&mut self, table: &Matrix, step: &HostStep, out: &mut Rows) -> Result<(), KernelError> {
        let tokens = step.tokens();
        crate::checks::embed_arrangement("embed", table.arrangement)?;
        same("embed", "columns of out", table.k, out.cols)?;
        for &token in tokens {
            below("embed", "token", token as usize, table.n)?;
        }
        out.set_count("embed", tokens.len())?;
        for (r, &token) in tokens.iter().enumerate() {
            out.row_mut(r).iter_mut().zip(table.values(token as usize)).for_each(|(place, v)| *place = v);
        }
        Ok(())
    }

    fn add_positions(
        &mut self,
        table: &Matrix,
        offset: u32,
        step: &HostStep,
        out: &mut Rows,
    ) -> Result<(), KernelError> {
        let op = "add_positions";
        crate::checks::embed_arrangement(op, table.arrangement)?;
        same(op, "columns of out", table.k, out.cols)?;
        same(op, "rows of out", step.positions().count(), out.count())?;
        step.check_positions(op, "end position", table.n.saturating_sub(offset as usize))?;
        for (r, position) in step.positions().enumerate() {
            let entry = table.values((position + offset) as usize);
            out.row_mut(r).iter_mut().zip(entry).for_each(|(v, entry)| *v += entry);
        }
        Ok(())
    }

    fn linear(
        &mut self,
        left: Left<'_, Self>,
        w: &Matrix,
        bias: Option<&Vector>,
        epilogue: Epilogue,
        out: &mut Rows,
    ) -> Result<(), KernelError> {
        linear::linear(left, w, bias, epilogue, out)
    }

    fn gate_up(&mut self, left: Left<'_, Self>, w: &Matrix, out: &mut Rows) -> Result<(), KernelError> {
        linear::gate_up(left, w, out)
    }

    fn add(&mut self, x: &Rows, bias: Option<&Vector>, out: &mut Rows) -> Result<(), KernelError> {
        linear::add(x, bias, out)
    }

    fn qkv_append(
        &mut self,
        qkv: &mut Rows,
        spec: &QkvSpec<'_, Self>,
        step: &HostStep,
        kv: &KvView,
        layer: u32,
    ) -> Result<(), KernelError> {
        qkv::append(qkv, spec, step, kv, layer as usize)
    }

    fn attention(
        &mut self,
        qkv: &Rows,
        spec: &AttentionSpec,
        step: &HostStep,
        kv: &KvView,
        layer: u32,
        out: &mut Rows,
    ) -> Result<(), KernelError> {
        attention::attention(self.pairs, qkv, spec, step, kv, layer as usize, out)
    }

    fn gather_wanted(&mut self, x: &Rows, step: &HostStep, out: &mut Rows) -> Result<(), KernelError> {
        let (op, rows) = ("gather_wanted", step.wanted());
        same(op, "columns of out", x.cols, out.cols)?;
        for &row in rows {
            below(op, "row", row as usize, x.count())?;
        }
        out.set_count(op, rows.len())?;
        for (r, &row) in rows.iter().enumerate() {
            out.row_mut(r).copy_from_slice(x.row(row as usize));
        }
        Ok(())
    }

    fn route(&mut self, logits: &Rows, routes: &mut Routes) -> Result<(), KernelError> {
        experts::route(logits, routes)
    }

    fn expert_gate_up(
        &mut self,
        left: Left<'_, Self>,
        experts: &[Matrix],
        routes: &Routes,
        out: &mut Rows,
    ) -> Result<(), KernelError> {
        experts::expert_gate_up(left, experts, routes, out)
    }

    fn expert_down(
        &mut self,
        x: &Rows,
        experts: &[Matrix],
        routes: &Routes,
        out: &mut Rows,
    ) -> Result<(), KernelError> {
        experts::expert_down(x, experts, routes, out)
    }

    fn combine(&mut self, y: &Rows, routes: &Routes, out: &mut Rows) -> Result<(), KernelError> {
        experts::combine(y, routes, out)
    }

    fn count_choices(&mut self, routes: &Routes, counts: &mut HostCounts, layer: usize) -> Result<(), KernelError> {
        counts.add(routes, layer)
    }

    fn take_counts(&mut self, counts: &mut HostCounts, totals: &[AtomicU64]) -> Result<(), KernelError> {
        counts.take(totals)
    }

    fn copy_blocks(&mut self, kv: &KvView, pairs: &[(u32, u32)]) -> Result<(), KernelError> {
        kv.check_pairs(pairs)?;
        for &(from, to) in pairs {
            kv.copy_block(from as usize, to as usize);
        }
        Ok(())
    }
}

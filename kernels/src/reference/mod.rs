//! Plainest form of every operation, on one thread without vectors: the oracle of all other implementations.

mod attention;
mod linear;
mod qkv;

use attention::{Query, Stored, attend};
use linear::{dot, row};

use crate::checks::{arguments, at_most, first_visible, weights};
use crate::finite::first_not_finite;
use crate::kv::StoredAt;
use crate::numerics::{Int8Scale, LOG2_E, PairOrder, silu};
use crate::{
    Arrangement, AttentionSpec, Dtype, Epilogue, HostStep, KernelError, KvView, Left, MatrixShape, MatrixSize,
    MatrixSource, Ops, OpsInfo, QkvSpec, Routes, RoutesSize, RowsSize, StepInput, StepShape, VectorSize, VectorSource,
    widen,
};

/// The reference implementation, in one of the orders in which kernel sets sum.
#[derive(Debug, Default, Clone, Copy)]
pub struct ReferenceOps {
    pairs: PairOrder,
}

impl ReferenceOps {
    /// Operations that sum products of bf16 in the order `pairs`.
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

impl RowsSize for Rows {
    fn cols(&self) -> usize {
        self.cols
    }
    fn count(&self) -> usize {
        self.data.len() / self.cols
    }
    fn set_count(&mut self, op: &'static str, count: usize) -> Result<(), KernelError> {
        at_most(op, "rows", count, self.rows_max)?;
        self.data.resize(count * self.cols, 0.0);
        Ok(())
    }
}

impl Rows {
    fn values(&self) -> &[f32] {
        &self.data
    }

    fn values_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    fn row(&self, r: usize) -> &[f32] {
        &self.data[r * self.cols..][..self.cols]
    }

    fn row_mut(&mut self, r: usize) -> &mut [f32] {
        &mut self.data[r * self.cols..][..self.cols]
    }

    fn picked(&self, rows: impl Iterator<Item = usize>) -> Self {
        let data: Vec<f32> = rows.flat_map(|r| self.row(r)).copied().collect();
        Self { cols: self.cols, rows_max: self.rows_max, data }
    }
}

/// A matrix widened to f32, row-major, with its original dtype.
#[derive(Debug, Clone)]
pub struct Matrix {
    dtype: Dtype,
    pairs: PairOrder,
    arrangement: Arrangement,
    n: usize,
    k: usize,
    /// Values, or the integers of an int8 matrix.
    data: Vec<f32>,
    /// Scale of each row of an int8 matrix.
    scales: Option<Vec<f32>>,
}

impl Matrix {
    fn values(&self, n: usize) -> impl Iterator<Item = f32> {
        let scale = self.scales.as_ref().map_or(1.0, |scales| scales[n]);
        self.data[n * self.k..][..self.k].iter().map(move |v| v * scale)
    }
}

impl MatrixSize for Matrix {
    fn shape(&self) -> MatrixShape {
        MatrixShape { n: self.n, k: self.k, arrangement: self.arrangement }
    }
}

/// Values on the host.
#[derive(Debug, Clone)]
pub struct Vector(Vec<f32>);

impl VectorSize for Vector {
    fn n(&self) -> usize {
        self.0.len()
    }
}

impl Ops for ReferenceOps {
    type Rows = Rows;
    type Matrix = Matrix;
    type Vector = Vector;
    type Step = HostStep;

    crate::host::host_operations!();

    fn describe(&self) -> OpsInfo {
        OpsInfo { backend: "reference", kernel_set: "scalar", numerics_id: "reference-1".to_owned(), threads: 1 }
    }

    fn rows(&self, rows_max: usize, cols: usize) -> Result<Rows, KernelError> {
        arguments::rows(cols)?;
        Ok(Rows { cols, rows_max, data: Vec::new() })
    }

    fn matrix(&self, parts: &[MatrixSource<'_>], arrangement: Arrangement) -> Result<Matrix, KernelError> {
        let not_finite = |part: &MatrixSource<'_>| Ok(first_not_finite(part.bytes, part.dtype));
        let (dtype, n, columns) = weights::matrix(parts, arrangement, not_finite)?;
        let whole: Vec<f32> = parts.iter().flat_map(|part| widen::values(part.bytes, part.dtype)).collect();
        let data = whole.chunks_exact(parts[0].k).flat_map(|row| &row[columns.clone()]).copied().collect();
        Ok(Matrix { dtype, pairs: self.pairs, arrangement, n, k: columns.len(), data, scales: None })
    }

    fn int8_matrix(&self, parts: &[MatrixSource<'_>], arrangement: Arrangement) -> Result<Matrix, KernelError> {
        weights::int8_matrix(parts, arrangement)?;
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
        weights::vector(parts).map(Vector)
    }

    fn step(&self, shape: &StepShape) -> Result<HostStep, KernelError> {
        Ok(HostStep::new(shape))
    }

    fn begin(&mut self, step: &mut HostStep, kv: &KvView, input: StepInput<'_>) -> Result<(), KernelError> {
        step.begin(input, kv.geometry())
    }

    fn embed(&mut self, table: &Matrix, step: &HostStep, out: &mut Rows) -> Result<(), KernelError> {
        arguments::embed(table, step, out)?;
        for (r, &token) in step.tokens().iter().enumerate() {
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
        arguments::add_positions(table, offset, step, out)?;
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
        arguments::linear(left, w, bias, epilogue, out)?;
        for r in 0..left.rows.count() {
            let x = row(left, r);
            for n in 0..w.n {
                let product = dot(&x, w, n);
                let y = bias.map_or(product, |bias| product + bias.0[n]);
                let element = &mut out.row_mut(r)[n];
                *element = match epilogue {
                    Epilogue::Store => y,
                    Epilogue::AddTo => *element + y,
                    Epilogue::Relu if 0.0 > y => 0.0,
                    Epilogue::Relu => y,
                };
            }
        }
        Ok(())
    }

    fn gate_up(&mut self, left: Left<'_, Self>, w: &Matrix, out: &mut Rows) -> Result<(), KernelError> {
        arguments::gate_up(left, w, out)?;
        for r in 0..left.rows.count() {
            let x = row(left, r);
            for n in 0..w.n / 2 {
                out.row_mut(r)[n] = silu(dot(&x, w, n)) * dot(&x, w, w.n / 2 + n);
            }
        }
        Ok(())
    }

    fn add(&mut self, x: &Rows, bias: Option<&Vector>, out: &mut Rows) -> Result<(), KernelError> {
        arguments::add(x, bias, out)?;
        for r in 0..x.count() {
            for (n, element) in out.row_mut(r).iter_mut().enumerate() {
                *element += bias.map_or(x.row(r)[n], |bias| x.row(r)[n] + bias.0[n]);
            }
        }
        Ok(())
    }

    fn qkv_append(
        &mut self,
        qkv: &mut Rows,
        spec: &QkvSpec<'_, Self>,
        step: &HostStep,
        kv: &KvView,
        layer: u32,
    ) -> Result<(), KernelError> {
        arguments::qkv_append(qkv, spec, step, kv.geometry(), layer)?;
        for (row, position, table) in step.batch().rows() {
            let tile = |part, head| StoredAt::of(position, table, kv.geometry()).tile(layer as usize, part, head);
            qkv::append_row(qkv.row_mut(row), spec, position, kv, tile);
        }
        Ok(())
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
        arguments::attention(qkv, spec, step, kv.geometry(), layer, out)?;
        let (shape, dim) = (spec.shape, spec.shape.head_dim);
        for (row, position, table) in step.batch().rows() {
            for head in 0..shape.heads {
                let kv_head = head / (shape.heads / shape.kv_heads);
                let query = Query {
                    values: &qkv.row(row)[head * dim..][..dim],
                    visible: (first_visible(position, spec.sliding_window), position),
                    scale: spec.scale * LOG2_E,
                };
                let stored = Stored { kv, table, layer: layer as usize, kv_head, pairs: self.pairs };
                out.row_mut(row)[head * dim..][..dim].copy_from_slice(&attend(&query, &stored));
            }
        }
        Ok(())
    }

    fn gather_wanted(&mut self, x: &Rows, step: &HostStep, out: &mut Rows) -> Result<(), KernelError> {
        arguments::gather_wanted(x, step, out)?;
        for (r, &row) in step.wanted().iter().enumerate() {
            out.row_mut(r).copy_from_slice(x.row(row as usize));
        }
        Ok(())
    }

    fn route(&mut self, logits: &Rows, routes: &mut Routes) -> Result<(), KernelError> {
        arguments::route(logits, routes)?;
        let routing = routes.routing();
        let (experts, weights) = routes.choices_mut();
        let choices = experts.chunks_exact_mut(routing.per_row).zip(weights.chunks_exact_mut(routing.per_row));
        for (r, (experts, weights)) in choices.enumerate() {
            let logits = logits.row(r);
            let mut order: Vec<u32> = (0..routing.experts as u32).collect();
            // The sort is stable: of equal logits the lower expert comes first.
            order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
            experts.copy_from_slice(&order[..routing.per_row]);
            experts.sort_unstable();
            routing.weigh(logits, experts, weights);
        }
        routes.group();
        Ok(())
    }

    fn expert_gate_up(
        &mut self,
        left: Left<'_, Self>,
        experts: &[Matrix],
        routes: &Routes,
        out: &mut Rows,
    ) -> Result<(), KernelError> {
        arguments::expert_gate_up(left, experts, routes, out)?;
        for (expert, w) in experts.iter().enumerate() {
            let group = routes.of_expert(expert);
            let x = left.rows.picked(routes.sources()[group.clone()].iter().map(|row| *row as usize));
            let mut y = Rows { cols: out.cols, rows_max: group.len(), data: Vec::new() };
            self.gate_up(Left { rows: &x, norm: left.norm }, w, &mut y)?;
            out.data[group.start * y.cols..group.end * y.cols].copy_from_slice(&y.data);
        }
        Ok(())
    }

    fn expert_down(
        &mut self,
        x: &Rows,
        experts: &[Matrix],
        routes: &Routes,
        out: &mut Rows,
    ) -> Result<(), KernelError> {
        arguments::expert_down::<Self>(x, experts, routes, out)?;
        let n = out.cols;
        for (expert, w) in experts.iter().enumerate() {
            let group = routes.of_expert(expert);
            let mut y = Rows { cols: n, rows_max: group.len(), data: Vec::new() };
            self.linear(Left::plain(&x.picked(group.clone())), w, None, Epilogue::Store, &mut y)?;
            out.data[group.start * n..group.end * n].copy_from_slice(&y.data);
        }
        Ok(())
    }

    fn combine(&mut self, y: &Rows, routes: &Routes, out: &mut Rows) -> Result<(), KernelError> {
        arguments::combine(y, routes, out)?;
        for r in 0..routes.rows() {
            for c in 0..y.cols {
                let contributions = routes.choices(r).map(|(grouped, weight)| weight * y.row(grouped)[c]);
                out.row_mut(r)[c] += contributions.fold(0.0, |sum, contribution| sum + contribution);
            }
        }
        Ok(())
    }
}

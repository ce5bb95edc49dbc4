//! `CpuOps`: operations on host threads, with the best instructions of the processor; knows no model. Kernels are
//! written once over vector traits (`lanes`) and compiled once per instruction level (`table`).

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
mod append;
mod attention;
mod elementwise;
mod experts;
mod gemm;
mod kernel_set;
mod lanes;
mod matrix;
mod packed;
mod quantize;
mod rows;
mod table;
mod words;

use std::sync::Arc;

pub use kernel_set::KernelSet;
pub use matrix::Matrix;
pub use rows::{Rows, Vector};

use crate::checks::{arguments, weights};
use crate::pool::{Pool, PoolLane};
use crate::{
    Arrangement, AttentionSpec, Epilogue, HostStep, KernelError, KvDtype, KvView, Left, MappedImage, MatrixImage,
    MatrixSource, Norm, Ops, OpsInfo, QkvSpec, Routes, RoutesSize, RowsSize, StepInput, StepShape, VectorSource,
};
use append::Append;
use attention::{Attention, AttentionKernels, Plan};
use experts::ExpertProduct;
use gemm::{Finish, Part, Product, RowNorm};
use matrix::WordFormat;
use table::{Kernels, ProductKernels};
use words::{Shared, Words};

/// Least number of values in a task of a row-wise operation.
const TASK_VALUES_MIN: usize = 32 * 1024;

/// Operations on host threads.
pub struct CpuOps {
    pool: PoolLane,
    set: KernelSet,
    kernels: &'static Kernels,
    packed: Words,
}

/// A step with the attention tasks of each kind.
pub struct CpuStep {
    host: HostStep,
    plans: Vec<Plan>,
}

impl CpuOps {
    /// Makes operations on the first lane of `pool`. Fails if the processor lacks the kernel set.
    pub fn new(pool: Arc<Pool>, set: KernelSet) -> Result<Self, KernelError> {
        CpuOps::on_lane(pool.lane(0)?, set)
    }

    /// Makes operations whose tasks are those of one lane. Fails if the processor lacks the kernel set.
    pub fn on_lane(pool: PoolLane, set: KernelSet) -> Result<Self, KernelError> {
        set.require()?;
        Ok(Self { pool, set, kernels: table::kernels(set), packed: Words::zeroed(0)? })
    }

    /// The kernel set in use.
    pub fn kernel_set(&self) -> KernelSet {
        self.set
    }

    /// The pool in use.
    pub fn pool(&self) -> &Arc<Pool> {
        self.pool.pool()
    }

    fn format(&self, format: WordFormat) -> &'static ProductKernels {
        match format {
            WordFormat::Bf16Pairs => &self.kernels.bf16,
            WordFormat::F32 => &self.kernels.f32,
            WordFormat::Int8Quads => &self.kernels.int8,
        }
    }

    fn over_cache(&self, dtype: KvDtype) -> AttentionKernels {
        match dtype {
            KvDtype::Bf16 => self.kernels.attention.bf16,
            KvDtype::F32 => self.kernels.attention.f32,
            KvDtype::Int8 => self.kernels.attention.int8,
        }
    }

    /// Calls `row(r)` for every row, several rows per task.
    fn for_rows(
        &self,
        op: &'static str,
        rows: usize,
        cols: usize,
        row: &(dyn Fn(usize) + Sync),
    ) -> Result<(), KernelError> {
        let rows_per_task = TASK_VALUES_MIN.div_ceil(cols);
        self.pool.run(op, rows.div_ceil(rows_per_task), &|task| {
            (task * rows_per_task..((task + 1) * rows_per_task).min(rows)).for_each(row);
        })
    }

    /// Calls `row(r, values)` for every row of `out`.
    fn for_rows_of(
        &self,
        out: &mut Rows,
        op: &'static str,
        values_per_row: usize,
        row: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<(), KernelError> {
        let (rows, cols) = (out.count(), out.cols());
        let target = Shared::new(out.values_mut());
        self.for_rows(op, rows, values_per_row, &|r| {
            // SAFETY: rows do not overlap.
            row(r, unsafe { target.part(r * cols, cols) });
        })
    }

    fn multiply(
        &mut self,
        op: &'static str,
        left: Left<'_, Self>,
        w: &Matrix,
        bias: Option<&Vector>,
        finish: Finish,
        out: &mut Rows,
    ) -> Result<(), KernelError> {
        let parts = [w.part(left.rows.count())];
        let product = product(op, left, w, &parts, finish, out.cols());
        let product = Product { bias: bias.map(Vector::padded), ..product };
        gemm::multiply(&product, self.format(w.format), &self.pool, &mut self.packed, out.values_mut())
    }
}

/// A product without bias, of all rows of the left side in order.
fn product<'a>(
    op: &'static str,
    left: Left<'a, CpuOps>,
    w: &Matrix,
    parts: &'a [Part<'a>],
    finish: Finish,
    out_columns: usize,
) -> Product<'a> {
    let (k, k_words, chunks) = (w.k, w.k_words, w.arrangement.chunks());
    let (left, norm) = (left.rows.values(), left.norm.map(row_norm));
    Product { op, left, picked: None, norm, parts, k, k_words, chunks, bias: None, finish, out_columns }
}

fn row_norm(norm: Norm<'_, CpuOps>) -> RowNorm<'_> {
    let Norm { kind, weight, bias, eps } = norm;
    RowNorm { kind, weight: weight.padded(), bias: bias.map(Vector::padded), eps }
}

impl Ops for CpuOps {
    type Rows = Rows;
    type Matrix = Matrix;
    type Vector = Vector;
    type Step = CpuStep;

    crate::host::host_operations!();

    fn describe(&self) -> OpsInfo {
        OpsInfo {
            backend: "cpu",
            kernel_set: self.set.name(),
            numerics_id: format!("cpu-{}-1", self.set),
            threads: self.pool.threads(),
        }
    }

    fn rows(&self, rows_max: usize, cols: usize) -> Result<Rows, KernelError> {
        Rows::new(rows_max, cols)
    }

    fn matrix(&self, parts: &[MatrixSource<'_>], arrangement: Arrangement) -> Result<Matrix, KernelError> {
        Matrix::new(parts, arrangement, &self.pool)
    }

    fn int8_matrix(&self, parts: &[MatrixSource<'_>], arrangement: Arrangement) -> Result<Matrix, KernelError> {
        Matrix::int8(parts, arrangement, &self.pool)
    }

    fn image<'m>(&self, matrix: &'m Matrix) -> Option<MatrixImage<'m>> {
        Some(matrix.image())
    }

    fn matrix_from_image(&self, image: MappedImage<'_>) -> Result<Matrix, KernelError> {
        Matrix::from_image(image)
    }

    fn vector(&self, parts: &[VectorSource<'_>]) -> Result<Vector, KernelError> {
        Vector::new(&weights::vector(parts)?)
    }

    fn step(&self, shape: &StepShape) -> Result<CpuStep, KernelError> {
        Ok(CpuStep { host: HostStep::new(shape), plans: Vec::new() })
    }

    fn begin(&mut self, step: &mut CpuStep, kv: &KvView, input: StepInput<'_>) -> Result<(), KernelError> {
        step.host.begin(input, kv.geometry())?;
        let plan = |spec| Plan::new(spec, &step.host.batch(), self.pool.threads());
        step.plans = step.host.attentions().iter().map(plan).collect();
        Ok(())
    }

    fn embed(&mut self, table: &Matrix, step: &CpuStep, out: &mut Rows) -> Result<(), KernelError> {
        arguments::embed(table, &step.host, out)?;
        let tokens = step.host.tokens();
        self.for_rows_of(out, "embed", table.k, |r, row| table.read_row(tokens[r] as usize, row))
    }

    fn add_positions(
        &mut self,
        table: &Matrix,
        offset: u32,
        step: &CpuStep,
        out: &mut Rows,
    ) -> Result<(), KernelError> {
        arguments::add_positions(table, offset, &step.host, out)?;
        let indices: Vec<u32> = step.host.positions().map(|position| position + offset).collect();
        self.for_rows_of(out, "add_positions", table.k, |r, row| table.add_row(indices[r] as usize, row))
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
        let finish = match epilogue {
            Epilogue::Store => Finish::Store,
            Epilogue::AddTo => Finish::AddTo,
            Epilogue::Relu => Finish::Relu,
        };
        self.multiply("linear", left, w, bias, finish, out)
    }

    fn gate_up(&mut self, left: Left<'_, Self>, w: &Matrix, out: &mut Rows) -> Result<(), KernelError> {
        arguments::gate_up(left, w, out)?;
        self.multiply("gate_up", left, w, None, Finish::SiluMul, out)
    }

    fn add(&mut self, x: &Rows, bias: Option<&Vector>, out: &mut Rows) -> Result<(), KernelError> {
        arguments::add(x, bias, out)?;
        let cols = x.cols();
        self.for_rows_of(out, "add", cols, |r, row| {
            elementwise::add(&x.values()[r * cols..][..cols], bias.map(Vector::values), row);
        })
    }

    fn qkv_append(
        &mut self,
        qkv: &mut Rows,
        spec: &QkvSpec<'_, Self>,
        step: &CpuStep,
        kv: &KvView,
        layer: u32,
    ) -> Result<(), KernelError> {
        arguments::qkv_append(qkv, spec, &step.host, kv.geometry(), layer)?;
        let shape = spec.shape;
        let batch = step.host.batch();
        let target = Shared::new(qkv.values_mut());
        self.pool.run("qkv_append", shape.kv_heads, &|kv_head| {
            let call = Append {
                qkv: target.as_mut_ptr(),
                shape,
                rope: spec.rope,
                q_norm: spec.q_norm.map(Vector::values),
                k_norm: spec.k_norm.map(Vector::values),
                norm_eps: spec.norm_eps,
                batch: &batch,
                kv,
                layer: layer as usize,
            };
            // SAFETY: the arguments were checked, heads do not overlap, and the kernels were chosen for this processor.
            unsafe { (self.kernels.append_head)(&call, kv_head) };
        })
    }

    fn attention(
        &mut self,
        qkv: &Rows,
        spec: &AttentionSpec,
        step: &CpuStep,
        kv: &KvView,
        layer: u32,
        out: &mut Rows,
    ) -> Result<(), KernelError> {
        let kind = arguments::attention(qkv, spec, &step.host, kv.geometry(), layer, out)?;
        let plan = &step.plans[kind];
        let blocks = step.host.batch().blocks;
        let call = Attention { qkv: qkv.values(), spec, plan, blocks, kv, layer: layer as usize };
        attention::attention(&call, self.over_cache(kv.geometry().dtype), &self.pool, out.values_mut())
    }

    fn gather_wanted(&mut self, x: &Rows, step: &CpuStep, out: &mut Rows) -> Result<(), KernelError> {
        arguments::gather_wanted(x, &step.host, out)?;
        let cols = x.cols();
        for (target, &row) in out.values_mut().chunks_exact_mut(cols).zip(step.host.wanted()) {
            target.copy_from_slice(&x.values()[row as usize * cols..][..cols]);
        }
        Ok(())
    }

    fn route(&mut self, logits: &Rows, routes: &mut Routes) -> Result<(), KernelError> {
        arguments::route(logits, routes)?;
        let (routing, rows) = (routes.routing(), logits.count());
        let (experts, weights) = routes.choices_mut();
        let (experts, weights) = (Shared::new(experts), Shared::new(weights));
        self.for_rows("route", rows, routing.experts, &|r| {
            let logits = &logits.values()[r * routing.experts..][..routing.experts];
            let first = r * routing.per_row;
            // SAFETY: rows do not overlap, and the checks made room for the choices of each.
            let (chosen, weights) =
                unsafe { (experts.part(first, routing.per_row), weights.part(first, routing.per_row)) };
            experts::choose(logits, chosen);
            routing.weigh(logits, chosen, weights);
        })?;
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
        let op = "expert_gate_up";
        experts::same_format(op, experts)?;
        arguments::expert_gate_up(left, experts, routes, out)?;
        let product = ExpertProduct { op, left, picked: Some(routes.sources()), finish: Finish::SiluMul };
        self.multiply_experts(&product, experts, routes, out)
    }

    fn expert_down(
        &mut self,
        x: &Rows,
        experts: &[Matrix],
        routes: &Routes,
        out: &mut Rows,
    ) -> Result<(), KernelError> {
        let op = "expert_down";
        experts::same_format(op, experts)?;
        arguments::expert_down::<Self>(x, experts, routes, out)?;
        let product = ExpertProduct { op, left: Left::plain(x), picked: None, finish: Finish::Store };
        self.multiply_experts(&product, experts, routes, out)
    }

    fn combine(&mut self, y: &Rows, routes: &Routes, out: &mut Rows) -> Result<(), KernelError> {
        arguments::combine(y, routes, out)?;
        let values_per_row = out.cols() * (routes.routing().per_row + 1);
        self.for_rows_of(out, "combine", values_per_row, |r, row| experts::add_row(y, routes, r, row))
    }
}

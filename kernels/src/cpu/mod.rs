//! `CpuOps`: the operations on host threads, with the best instructions of the processor; knows no model.
//!
//! Kernels are written once over vector traits (`lanes`) and compiled once per instruction level (`table`).

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
use std::sync::atomic::AtomicU64;

pub use kernel_set::KernelSet;
pub use matrix::Matrix;
pub use rows::{Rope, Rows, Vector};

use crate::checks::vector_parts;
use crate::checks::{below, embed_arrangement, heads, linear_arrangement, linear_parts, same};
use crate::memory::Region;
use crate::pool::Pool;
use crate::{
    Arrangement, AttentionSpec, Epilogue, HostCounts, HostStep, KernelError, KvDtype, KvGeometry, KvView, KvWindow,
    Left, MappedImage, MatrixImage, MatrixSource, Norm, Ops, OpsInfo, QkvSpec, Routes, Routing, StepInput, StepShape,
    VectorSource,
};
use append::Append;
use attention::{Attention, AttentionKernels, Plan};
use gemm::{Finish, Product, RowNorm};
use matrix::WordFormat;
use table::{Kernels, ProductKernels};
use words::{Shared, Words};

/// Values that one task of a row-wise operation handles at least.
const TASK_VALUES_MIN: usize = 32 * 1024;

/// The operations of host threads.
pub struct CpuOps {
    pool: Arc<Pool>,
    set: KernelSet,
    kernels: &'static Kernels,
    /// Packed activations of the product that runs.
    packed: Words,
}

/// A step, and the tasks that each kind of attention has in it.
pub struct CpuStep {
    host: HostStep,
    plans: Vec<Plan>,
}

impl CpuOps {
    /// Operations on the threads of `pool`. Errors if the processor lacks the kernel set.
    pub fn new(pool: Arc<Pool>, set: KernelSet) -> Result<Self, KernelError> {
        set.require()?;
        Ok(Self { pool, set, kernels: table::kernels(set), packed: Words::zeroed(0)? })
    }

    /// The instructions it computes with.
    pub fn kernel_set(&self) -> KernelSet {
        self.set
    }

    /// The pool it computes on.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
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

    /// Runs `row(r)` for every row, several rows per task.
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

    fn multiply(
        &mut self,
        op: &'static str,
        left: Left<'_, Self>,
        w: &Matrix,
        bias: Option<&Vector>,
        finish: Finish,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let out_columns = match finish {
            Finish::Store | Finish::AddTo | Finish::Relu => w.n,
            Finish::SiluMul => w.n / 2,
        };
        let product = Product {
            op,
            left: left.rows.values(),
            picked: None,
            norm: left.norm.map(row_norm),
            parts: &[w.part(left.rows.count())],
            k: w.k,
            k_words: w.k_words,
            chunks: w.chunks,
            bias: bias.map(Vector::padded),
            finish,
            out_columns,
        };
        gemm::multiply(&product, self.format(w.format), &self.pool, &mut self.packed, out)
    }
}

/// What every product checks about its sides.
fn product_arguments(
    op: &'static str,
    left: Left<'_, CpuOps>,
    w: &Matrix,
    arrangement: Arrangement,
) -> Result<(), KernelError> {
    linear_arrangement(op, w.arrangement, arrangement)?;
    same(op, "columns of the left side", w.k, left.rows.cols())?;
    let Some(norm) = left.norm else { return Ok(()) };
    same(op, "weights of the norm", w.k, norm.weight.values().len())?;
    norm.bias.map_or(Ok(()), |bias| same(op, "biases of the norm", w.k, bias.values().len()))
}

fn row_norm(norm: Norm<'_, CpuOps>) -> RowNorm<'_> {
    let Norm { kind, weight, bias, eps } = norm;
    RowNorm { kind, weight: weight.padded(), bias: bias.map(Vector::padded), eps }
}

impl Ops for CpuOps {
    type Rows = Rows;
    type Matrix = Matrix;
    type Vector = Vector;
    type Rope = Rope;
    type Routes = Routes;
    type Counts = HostCounts;
    type Kv = KvView;
    type Step = CpuStep;

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
        Vector::new(&vector_parts(parts)?)
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

    fn step(&self, shape: &StepShape) -> Result<CpuStep, KernelError> {
        Ok(CpuStep { host: HostStep::new(shape), plans: Vec::new() })
    }

    fn begin(&mut self, step: &mut CpuStep, kv: &KvView, input: StepInput<'_>) -> Result<(), KernelError> {
        step.host.begin(input, kv.geometry())?;
        let plan = |spec| Plan::new(spec, &step.host.batch(), self.pool.threads());
        step.plans = step.host.attentions().iter().map(plan).collect();
        Ok(())
    }

    fn wait(&mut self) -> Result<(), KernelError> {
        Ok(())
    }

    fn write_rows(&self, rows: &mut Rows, data: &[f32]) -> Result<(), KernelError> {
        same("write_rows", "values beyond whole rows", 0, data.len() % rows.cols())?;
        rows.set_count("write_rows", data.len() / rows.cols())?;
        rows.values_mut().copy_from_slice(data);
        Ok(())
    }

    fn read_rows(&self, rows: &Rows, out: &mut [f32]) -> Result<(), KernelError> {
        same("read_rows", "values", rows.values().len(), out.len())?;
        out.copy_from_slice(rows.values());
        Ok(())
    }

    fn host_rows<'r>(&self, rows: &'r Rows, _: &'r mut Vec<f32>) -> Result<&'r [f32], KernelError> {
        Ok(rows.values())
    }

    fn embed(&mut self, table: &Matrix, step: &CpuStep, out: &mut Rows) -> Result<(), KernelError> {
        let tokens = step.host.tokens();
        embed_arrangement("embed", table.arrangement)?;
        same("embed", "columns of out", table.k, out.cols())?;
        for &token in tokens {
            below("embed", "token", token as usize, table.n)?;
        }
        out.set_count("embed", tokens.len())?;
        let target = Shared::new(out.values_mut());
        self.for_rows("embed", tokens.len(), table.k, &|r| {
            // SAFETY: rows do not overlap.
            table.read_row(tokens[r] as usize, unsafe { target.part(r * table.k, table.k) });
        })
    }

    fn add_positions(
        &mut self,
        table: &Matrix,
        offset: u32,
        step: &CpuStep,
        out: &mut Rows,
    ) -> Result<(), KernelError> {
        let op = "add_positions";
        embed_arrangement(op, table.arrangement)?;
        same(op, "columns of out", table.k, out.cols())?;
        step.host.check_positions(op, "end position", table.n.saturating_sub(offset as usize))?;
        let indices: Vec<u32> = step.host.positions().map(|position| position + offset).collect();
        same(op, "rows of out", indices.len(), out.count())?;
        let target = Shared::new(out.values_mut());
        self.for_rows(op, indices.len(), table.k, &|r| {
            // SAFETY: rows do not overlap.
            table.add_row(indices[r] as usize, unsafe { target.part(r * table.k, table.k) });
        })
    }

    fn linear(
        &mut self,
        left: Left<'_, Self>,
        w: &Matrix,
        bias: Option<&Vector>,
        epilogue: Epilogue,
        out: &mut Rows,
    ) -> Result<(), KernelError> {
        let (op, rows) = ("linear", left.rows.count());
        product_arguments(op, left, w, linear_parts(w.arrangement, bias, epilogue)?)?;
        same(op, "columns of out", w.n, out.cols())?;
        if let Some(bias) = bias {
            same(op, "biases", w.n, bias.values().len())?;
        }
        let finish = match epilogue {
            Epilogue::Store => Finish::Store,
            Epilogue::AddTo => Finish::AddTo,
            Epilogue::Relu => Finish::Relu,
        };
        match epilogue {
            Epilogue::Store | Epilogue::Relu => out.set_count(op, rows)?,
            Epilogue::AddTo => same(op, "rows of the residual", rows, out.count())?,
        }
        self.multiply(op, left, w, bias, finish, out.values_mut())
    }

    fn gate_up(&mut self, left: Left<'_, Self>, w: &Matrix, out: &mut Rows) -> Result<(), KernelError> {
        product_arguments("gate_up", left, w, Arrangement::GateUp)?;
        same("gate_up", "columns of out", w.n / 2, out.cols())?;
        out.set_count("gate_up", left.rows.count())?;
        self.multiply("gate_up", left, w, None, Finish::SiluMul, out.values_mut())
    }

    fn add(&mut self, x: &Rows, bias: Option<&Vector>, out: &mut Rows) -> Result<(), KernelError> {
        let (op, cols) = ("add", x.cols());
        same(op, "columns of out", cols, out.cols())?;
        same(op, "rows of out", x.count(), out.count())?;
        if let Some(bias) = bias {
            same(op, "biases", cols, bias.values().len())?;
        }
        let target = Shared::new(out.values_mut());
        self.for_rows(op, x.count(), cols, &|r| {
            // SAFETY: rows do not overlap.
            let row = unsafe { target.part(r * cols, cols) };
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
        let op = "qkv_append";
        let (shape, geometry) = (spec.shape, kv.geometry());
        heads(op, &shape, geometry)?;
        below(op, "layer", layer as usize, geometry.layers)?;
        same(op, "columns of qkv", shape.qkv_cols(), qkv.cols())?;
        if let Some(rope) = spec.rope {
            same(op, "values of the rope per position", shape.head_dim / 2, rope.half)?;
        }
        for norm in [spec.q_norm, spec.k_norm].into_iter().flatten() {
            same(op, "weights of a head norm", shape.head_dim, norm.values().len())?;
        }
        step.host.check(op, qkv.count(), geometry)?;
        step.host.check_positions(op, "end position", spec.rope.map_or(usize::MAX, |rope| rope.positions_max))?;
        let batch = step.host.batch();
        let target = Shared::new(qkv.values_mut());
        self.pool.run(op, shape.kv_heads, &|kv_head| {
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
        let op = "attention";
        let (shape, geometry) = (spec.shape, kv.geometry());
        heads(op, &shape, geometry)?;
        below(op, "layer", layer as usize, geometry.layers)?;
        same(op, "columns of qkv", shape.qkv_cols(), qkv.cols())?;
        same(op, "columns of out", shape.out_cols(), out.cols())?;
        step.host.check(op, qkv.count(), geometry)?;
        let plan = &step.plans[step.host.kind_of(spec)?];
        out.set_count(op, qkv.count())?;
        let blocks = step.host.batch().blocks;
        let call = Attention { qkv: qkv.values(), spec, plan, blocks, kv, layer: layer as usize };
        attention::attention(&call, self.over_cache(geometry.dtype), &self.pool, out.values_mut())
    }

    fn gather_wanted(&mut self, x: &Rows, step: &CpuStep, out: &mut Rows) -> Result<(), KernelError> {
        let (op, cols, rows) = ("gather_wanted", x.cols(), step.host.wanted());
        same(op, "columns of out", cols, out.cols())?;
        for &row in rows {
            below(op, "row", row as usize, x.count())?;
        }
        out.set_count(op, rows.len())?;
        for (target, &row) in out.values_mut().chunks_exact_mut(cols).zip(rows) {
            target.copy_from_slice(&x.values()[row as usize * cols..][..cols]);
        }
        Ok(())
    }

    fn route(&mut self, logits: &Rows, routes: &mut Routes) -> Result<(), KernelError> {
        self.choose_experts(logits, routes)
    }

    fn expert_gate_up(
        &mut self,
        left: Left<'_, Self>,
        experts: &[Matrix],
        routes: &Routes,
        out: &mut Rows,
    ) -> Result<(), KernelError> {
        self.experts_of_rows(left, experts, routes, out)
    }

    fn expert_down(
        &mut self,
        x: &Rows,
        experts: &[Matrix],
        routes: &Routes,
        out: &mut Rows,
    ) -> Result<(), KernelError> {
        self.experts_of_choices(x, experts, routes, out)
    }

    fn combine(&mut self, y: &Rows, routes: &Routes, out: &mut Rows) -> Result<(), KernelError> {
        self.add_choices(y, routes, out)
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

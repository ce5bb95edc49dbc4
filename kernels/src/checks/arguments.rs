//! All checks of an implementation of `Ops` before it computes, one function per operation. If an operation sets the
//! row count of `out`, its function does.

use super::{below, heads, same};
use crate::{
    Arrangement, AttentionSpec, Epilogue, HeadShape, HostStep, KernelError, KvGeometry, Left, MatrixShape, MatrixSize,
    Ops, QkvSpec, RopeSize, RoutesSize, RowsSize, VectorSize,
};

type Checked = Result<(), KernelError>;

/// Rows need at least one column.
pub(crate) fn rows(cols: usize) -> Checked {
    if cols > 0 { Ok(()) } else { Err(KernelError::Invalid { op: "rows", what: "0 columns".to_owned() }) }
}

pub(crate) fn write_rows(rows: &mut impl RowsSize, data: &[f32]) -> Checked {
    same("write_rows", "values beyond whole rows", 0, data.len() % rows.cols())?;
    rows.set_count("write_rows", data.len() / rows.cols())
}

pub(crate) fn read_rows(rows: &impl RowsSize, out: &[f32]) -> Checked {
    same("read_rows", "values", rows.count() * rows.cols(), out.len())
}

pub(crate) fn embed(table: &impl MatrixSize, step: &HostStep, out: &mut impl RowsSize) -> Checked {
    let (op, table) = ("embed", table.shape());
    table_into(op, table, out)?;
    step.tokens().iter().try_for_each(|token| below(op, "token", *token as usize, table.n))?;
    out.set_count(op, step.tokens().len())
}

pub(crate) fn add_positions(table: &impl MatrixSize, offset: u32, step: &HostStep, out: &impl RowsSize) -> Checked {
    let (op, table) = ("add_positions", table.shape());
    table_into(op, table, out)?;
    step.check_positions(op, "end position", table.n.saturating_sub(offset as usize))?;
    same(op, "rows of out", step.positions().count(), out.count())
}

/// Checks a look-up of rows of a table or of a stacked matrix.
fn table_into(op: &'static str, table: MatrixShape, out: &impl RowsSize) -> Checked {
    match table.arrangement {
        Arrangement::Stacked | Arrangement::Table => same(op, "columns of out", table.k, out.cols()),
        Arrangement::GateUp | Arrangement::Partial(_) => {
            Err(KernelError::Arrangement { op, expected: "table", found: table.arrangement.name() })
        }
    }
}

/// Checks both sides of a product and the arrangement of its matrix.
fn product<O: Ops>(op: &'static str, left: Left<'_, O>, w: &O::Matrix, expected: Arrangement) -> Checked {
    let MatrixShape { k, arrangement, .. } = w.shape();
    if arrangement != expected {
        return Err(KernelError::Arrangement { op, expected: expected.name(), found: arrangement.name() });
    }
    same(op, "columns of the left side", k, left.rows.cols())?;
    let Some(norm) = left.norm else { return Ok(()) };
    same(op, "weights of the norm", k, norm.weight.n())?;
    norm.bias.map_or(Ok(()), |bias| same(op, "biases of the norm", k, bias.n()))
}

fn bias_of(op: &'static str, n: usize, bias: Option<&impl VectorSize>) -> Checked {
    bias.map_or(Ok(()), |bias| same(op, "biases", n, bias.n()))
}

/// Allows a partial product neither bias nor residual, which come after the sum over all ranks.
pub(crate) fn linear<O: Ops>(
    left: Left<'_, O>,
    w: &O::Matrix,
    bias: Option<&O::Vector>,
    epilogue: Epilogue,
    out: &mut O::Rows,
) -> Checked {
    let (op, rows, shape) = ("linear", left.rows.count(), w.shape());
    let expected = match (shape.arrangement, bias, epilogue) {
        (Arrangement::Partial(_), None, Epilogue::Store) => shape.arrangement,
        (Arrangement::Partial(_), _, _) => {
            let what = "a partial product is stored as it is: bias and epilogue come after the sum".to_owned();
            return Err(KernelError::Invalid { op, what });
        }
        _ => Arrangement::Stacked,
    };
    product(op, left, w, expected)?;
    same(op, "columns of out", shape.n, out.cols())?;
    bias_of(op, shape.n, bias)?;
    match epilogue {
        Epilogue::Store | Epilogue::Relu => out.set_count(op, rows),
        Epilogue::AddTo => same(op, "rows of the residual", rows, out.count()),
    }
}

pub(crate) fn gate_up<O: Ops>(left: Left<'_, O>, w: &O::Matrix, out: &mut O::Rows) -> Checked {
    let op = "gate_up";
    product(op, left, w, Arrangement::GateUp)?;
    same(op, "columns of out", w.shape().n / 2, out.cols())?;
    out.set_count(op, left.rows.count())
}

pub(crate) fn add<R: RowsSize>(x: &R, bias: Option<&impl VectorSize>, out: &R) -> Checked {
    let op = "add";
    same(op, "columns of out", x.cols(), out.cols())?;
    same(op, "rows of out", x.count(), out.count())?;
    bias_of(op, x.cols(), bias)
}

/// Checks heads and layer against the pool, and the columns of `qkv`.
fn heads_of_layer(
    op: &'static str,
    shape: &HeadShape,
    geometry: &KvGeometry,
    layer: u32,
    qkv: &impl RowsSize,
) -> Checked {
    heads(op, shape, geometry)?;
    below(op, "layer", layer as usize, geometry.layers)?;
    same(op, "columns of qkv", shape.qkv_cols(), qkv.cols())
}

pub(crate) fn qkv_append<O: Ops>(
    qkv: &O::Rows,
    spec: &QkvSpec<'_, O>,
    step: &HostStep,
    geometry: &KvGeometry,
    layer: u32,
) -> Checked {
    let (op, dim) = ("qkv_append", spec.shape.head_dim);
    heads_of_layer(op, &spec.shape, geometry, layer, qkv)?;
    if let Some(rope) = spec.rope {
        same(op, "values of the rope per position", dim / 2, rope.half())?;
    }
    for norm in [spec.q_norm, spec.k_norm].into_iter().flatten() {
        same(op, "weights of a head norm", dim, norm.n())?;
    }
    step.check(op, qkv.count(), geometry)?;
    step.check_positions(op, "end position", spec.rope.map_or(usize::MAX, RopeSize::positions_max))
}

/// Returns the index of `spec` among the step's kinds of attention.
pub(crate) fn attention<R: RowsSize>(
    qkv: &R,
    spec: &AttentionSpec,
    step: &HostStep,
    geometry: &KvGeometry,
    layer: u32,
    out: &mut R,
) -> Result<usize, KernelError> {
    let op = "attention";
    heads_of_layer(op, &spec.shape, geometry, layer, qkv)?;
    same(op, "columns of out", spec.shape.out_cols(), out.cols())?;
    step.check(op, qkv.count(), geometry)?;
    let kind = step.kind_of(spec)?;
    out.set_count(op, qkv.count())?;
    Ok(kind)
}

pub(crate) fn gather_wanted<R: RowsSize>(x: &R, step: &HostStep, out: &mut R) -> Checked {
    let op = "gather_wanted";
    same(op, "columns of out", x.cols(), out.cols())?;
    step.wanted().iter().try_for_each(|row| below(op, "row", *row as usize, x.count()))?;
    out.set_count(op, step.wanted().len())
}

pub(crate) fn route(logits: &impl RowsSize, routes: &mut impl RoutesSize) -> Checked {
    same("route", "columns of the logits", routes.routing().experts, logits.cols())?;
    routes.set_rows("route", logits.count())
}

pub(crate) fn expert_gate_up<O: Ops>(
    left: Left<'_, O>,
    experts: &[O::Matrix],
    routes: &O::Routes,
    out: &mut O::Rows,
) -> Checked {
    experts_into("expert_gate_up", (left, routes.rows()), (experts, Arrangement::GateUp), routes, out)
}

/// Expects the arrangement of the first matrix if it is a shard, else stacked matrices.
pub(crate) fn expert_down<O: Ops>(
    x: &O::Rows,
    experts: &[O::Matrix],
    routes: &O::Routes,
    out: &mut O::Rows,
) -> Checked {
    let expected = match experts.first().map(|first| first.shape().arrangement) {
        Some(Arrangement::Partial(shard)) => Arrangement::Partial(shard),
        Some(Arrangement::Stacked | Arrangement::GateUp | Arrangement::Table) | None => Arrangement::Stacked,
    };
    experts_into::<O>("expert_down", (Left::plain(x), routes.grouped_rows()), (experts, expected), routes, out)
}

/// Checks that there is one matrix per expert, all of one shape and of the arrangement `expected`.
fn experts_into<O: Ops>(
    op: &'static str,
    (left, rows): (Left<'_, O>, usize),
    (experts, expected): (&[O::Matrix], Arrangement),
    routes: &O::Routes,
    out: &mut O::Rows,
) -> Checked {
    same(op, "rows of the left side", rows, left.rows.count())?;
    same(op, "expert matrices", routes.routing().experts, experts.len())?;
    let Some(MatrixShape { n, k, .. }) = experts.first().map(MatrixSize::shape) else {
        return Err(KernelError::Invalid { op, what: "no experts".to_owned() });
    };
    for other in experts.iter().map(MatrixSize::shape) {
        same(op, "rows of an expert matrix", n, other.n)?;
        same(op, "columns of an expert matrix", k, other.k)?;
    }
    experts.iter().try_for_each(|w| product(op, left, w, expected))?;
    let columns = if expected == Arrangement::GateUp { n / 2 } else { n };
    same(op, "columns of out", columns, out.cols())?;
    out.set_count(op, routes.grouped_rows())
}

pub(crate) fn combine<R: RowsSize>(y: &R, routes: &impl RoutesSize, out: &R) -> Checked {
    let op = "combine";
    same(op, "grouped rows", routes.grouped_rows(), y.count())?;
    same(op, "rows of the residual", routes.rows(), out.count())?;
    same(op, "columns of out", y.cols(), out.cols())
}

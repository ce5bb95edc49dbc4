//! Routing and the products of experts, one expert after the other.

use super::linear::{gate_up, linear, product_arguments};
use super::{Matrix, ReferenceOps, Rows};
use crate::checks::{expert_down_parts, expert_shapes, same};
use crate::{Arrangement, Epilogue, KernelError, Left, Routes};

pub(super) fn route(logits: &Rows, routes: &mut Routes) -> Result<(), KernelError> {
    let routing = routes.routing();
    same("route", "columns of the logits", routing.experts, logits.cols)?;
    routes.set_rows("route", logits.count())?;
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

pub(super) fn expert_gate_up(
    left: Left<'_, ReferenceOps>,
    experts: &[Matrix],
    routes: &Routes,
    out: &mut Rows,
) -> Result<(), KernelError> {
    let op = "expert_gate_up";
    let (n, _) = expert_shapes(op, routes.routing().experts, experts.iter().map(|w| (w.n, w.k)))?;
    same(op, "rows of the left side", routes.rows(), left.rows.count())?;
    experts.iter().try_for_each(|w| product_arguments(op, left, w, Arrangement::GateUp))?;
    same(op, "columns of out", n / 2, out.cols)?;
    out.set_count(op, routes.grouped_rows())?;
    for (expert, w) in experts.iter().enumerate() {
        let group = routes.of_expert(expert);
        let x = picked(left.rows, routes.sources()[group.clone()].iter().map(|row| *row as usize));
        let mut y = Rows { cols: n / 2, rows_max: group.len(), data: Vec::new() };
        gate_up(Left { rows: &x, norm: left.norm }, w, &mut y)?;
        out.data[group.start * y.cols..group.end * y.cols].copy_from_slice(&y.data);
    }
    Ok(())
}

pub(super) fn expert_down(x: &Rows, experts: &[Matrix], routes: &Routes, out: &mut Rows) -> Result<(), KernelError> {
    let op = "expert_down";
    let (n, _) = expert_shapes(op, routes.routing().experts, experts.iter().map(|w| (w.n, w.k)))?;
    same(op, "rows of the left side", routes.grouped_rows(), x.count())?;
    let arrangement = expert_down_parts(experts.iter().map(|w| w.arrangement));
    experts.iter().try_for_each(|w| product_arguments(op, Left::plain(x), w, arrangement))?;
    same(op, "columns of out", n, out.cols)?;
    out.set_count(op, routes.grouped_rows())?;
    for (expert, w) in experts.iter().enumerate() {
        let group = routes.of_expert(expert);
        let mut y = Rows { cols: n, rows_max: group.len(), data: Vec::new() };
        linear(Left::plain(&picked(x, group.clone())), w, None, Epilogue::Store, &mut y)?;
        out.data[group.start * n..group.end * n].copy_from_slice(&y.data);
    }
    Ok(())
}

pub(super) fn combine(y: &Rows, routes: &Routes, out: &mut Rows) -> Result<(), KernelError> {
    let op = "combine";
    same(op, "grouped rows", routes.grouped_rows(), y.count())?;
    same(op, "rows of the residual", routes.rows(), out.count())?;
    same(op, "columns of out", y.cols, out.cols)?;
    for r in 0..routes.rows() {
        for c in 0..y.cols {
            let contributions = routes.choices(r).map(|(grouped, weight)| weight * y.row(grouped)[c]);
            out.row_mut(r)[c] += contributions.fold(0.0, |sum, contribution| sum + contribution);
        }
    }
    Ok(())
}

/// The rows of `x` that `rows` names.
fn picked(x: &Rows, rows: impl Iterator<Item = usize>) -> Rows {
    let data: Vec<f32> = rows.flat_map(|r| x.row(r)).copied().collect();
    Rows { cols: x.cols, rows_max: x.rows_max, data }
}

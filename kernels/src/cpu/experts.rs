//! Routing, the experts' products in one run of the pool each, and the sum of a row's choices.

use super::gemm::{self, Finish, Product};
use super::words::Shared;
use super::{CpuOps, Matrix, Rows, product_arguments, row_norm};
use crate::checks::{expert_down_parts, expert_shapes, same};
use crate::{Arrangement, KernelError, Left, Routes};

impl CpuOps {
    /// As `Ops::route`.
    pub(super) fn choose_experts(&self, logits: &Rows, routes: &mut Routes) -> Result<(), KernelError> {
        let (op, routing, rows) = ("route", routes.routing(), logits.count());
        same(op, "columns of the logits", routing.experts, logits.cols())?;
        routes.set_rows(op, rows)?;
        let (experts, weights) = routes.choices_mut();
        let (experts, weights) = (Shared::new(experts), Shared::new(weights));
        self.for_rows(op, rows, routing.experts, &|r| {
            let logits = &logits.values()[r * routing.experts..][..routing.experts];
            let first = r * routing.per_row;
            // SAFETY: rows do not overlap, and `set_rows` made room for the choices of each.
            let (chosen, weights) =
                unsafe { (experts.part(first, routing.per_row), weights.part(first, routing.per_row)) };
            choose(logits, chosen);
            routing.weigh(logits, chosen, weights);
        })?;
        routes.group();
        Ok(())
    }

    /// As `Ops::expert_gate_up`.
    pub(super) fn experts_of_rows(
        &mut self,
        left: Left<'_, Self>,
        experts: &[Matrix],
        routes: &Routes,
        out: &mut Rows,
    ) -> Result<(), KernelError> {
        let op = "expert_gate_up";
        same(op, "rows of the left side", routes.rows(), left.rows.count())?;
        let product = ExpertProduct { op, left, picked: Some(routes.sources()), finish: Finish::SiluMul };
        self.multiply_experts(&product, experts, Arrangement::GateUp, routes, out)
    }

    /// As `Ops::expert_down`.
    pub(super) fn experts_of_choices(
        &mut self,
        x: &Rows,
        experts: &[Matrix],
        routes: &Routes,
        out: &mut Rows,
    ) -> Result<(), KernelError> {
        let op = "expert_down";
        same(op, "rows of the left side", routes.grouped_rows(), x.count())?;
        let product = ExpertProduct { op, left: Left::plain(x), picked: None, finish: Finish::Store };
        let arrangement = expert_down_parts(experts.iter().map(|w| w.arrangement));
        self.multiply_experts(&product, experts, arrangement, routes, out)
    }

    fn multiply_experts(
        &mut self,
        product: &ExpertProduct<'_>,
        experts: &[Matrix],
        arrangement: Arrangement,
        routes: &Routes,
        out: &mut Rows,
    ) -> Result<(), KernelError> {
        let &ExpertProduct { op, left, picked, finish } = product;
        let (n, k) = expert_shapes(op, routes.routing().experts, experts.iter().map(|w| (w.n, w.k)))?;
        experts.iter().try_for_each(|w| product_arguments(op, left, w, arrangement))?;
        let Some(first) = experts.first() else { return Ok(()) };
        if experts.iter().any(|w| w.format != first.format) {
            return Err(KernelError::Invalid { op, what: "the experts' matrices mix formats".to_owned() });
        }
        let out_columns = match finish {
            Finish::SiluMul => n / 2,
            Finish::Store | Finish::AddTo | Finish::Relu => n,
        };
        same(op, "columns of out", out_columns, out.cols())?;
        out.set_count(op, routes.grouped_rows())?;
        let parts = experts.iter().enumerate();
        let parts = parts.map(|(e, w)| w.part(routes.of_expert(e).len()));
        let product = Product {
            op,
            left: left.rows.values(),
            picked,
            norm: left.norm.map(row_norm),
            parts: &parts.collect::<Vec<_>>(),
            k,
            k_words: first.k_words,
            chunks: first.chunks,
            bias: None,
            finish,
            out_columns,
        };
        gemm::multiply(&product, self.format(first.format), &self.pool, &mut self.packed, out.values_mut())
    }

    /// As `Ops::combine`.
    pub(super) fn add_choices(&self, y: &Rows, routes: &Routes, out: &mut Rows) -> Result<(), KernelError> {
        let (op, cols) = ("combine", out.cols());
        same(op, "grouped rows", routes.grouped_rows(), y.count())?;
        same(op, "rows of the residual", routes.rows(), out.count())?;
        same(op, "columns of out", y.cols(), cols)?;
        let target = Shared::new(out.values_mut());
        self.for_rows(op, routes.rows(), cols * (routes.routing().per_row + 1), &|r| {
            // SAFETY: rows do not overlap.
            let row = unsafe { target.part(r * cols, cols) };
            add_row(y, routes, r, row);
        })
    }
}

/// What the two products of experts differ in.
struct ExpertProduct<'a> {
    op: &'static str,
    left: Left<'a, CpuOps>,
    picked: Option<&'a [u32]>,
    finish: Finish,
}

/// The experts with the greatest logits, as many as `chosen` has places, ascending; of equal logits the lower expert.
fn choose(logits: &[f32], chosen: &mut [u32]) {
    let mut count = 0;
    for (expert, logit) in (0u32..).zip(logits) {
        // The places before `place` hold logits that are at least as great.
        let is_less = |other: &u32| logits[*other as usize].total_cmp(logit).is_lt();
        let place = chosen[..count].iter().position(is_less).unwrap_or(count);
        if place < chosen.len() {
            count = (count + 1).min(chosen.len());
            chosen[place..count].rotate_right(1);
            chosen[place] = expert;
        }
    }
    chosen.sort_unstable();
}

/// Values that are summed at a time, so that the sums stay in registers.
const STRIP: usize = 64;

/// `row += Σ weight · y[grouped]`, choices in their order.
fn add_row(y: &Rows, routes: &Routes, r: usize, row: &mut [f32]) {
    let cols = row.len();
    for (strip, row) in row.chunks_mut(STRIP).enumerate() {
        let mut sums = [0.0f32; STRIP];
        for (grouped, weight) in routes.choices(r) {
            let values = &y.values()[grouped * cols + strip * STRIP..][..row.len()];
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
        }
        row.iter_mut().zip(sums).for_each(|(place, sum)| *place += sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_are_chosen_and_ties_go_to_the_lower_expert() {
        let chosen = |logits: &[f32], count: usize| {
            let mut chosen = vec![9; count];
            choose(logits, &mut chosen);
            chosen
        };
        assert_eq!(chosen(&[0.0, 3.0, 1.0, 2.0], 2), [1, 3]);
        assert_eq!(chosen(&[1.0, 1.0, 1.0, 1.0], 2), [0, 1]);
        assert_eq!(chosen(&[0.0, 1.0, 2.0, 1.0], 2), [1, 2]);
        assert_eq!(chosen(&[f32::NEG_INFINITY, -1.0], 2), [0, 1]);
        assert_eq!(chosen(&[5.0, 4.0, 3.0], 1), [0]);
    }
}

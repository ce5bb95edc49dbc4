//! Choice of experts, their products in one run of the pool, and the weighted sum of a row's choices.

use super::gemm::{self, Finish, Product};
use super::{CpuOps, Matrix, Rows};
use crate::{KernelError, Left, Routes, RowsSize};

impl CpuOps {
    pub(super) fn multiply_experts(
        &mut self,
        product: &ExpertProduct<'_>,
        experts: &[Matrix],
        routes: &Routes,
        out: &mut Rows,
    ) -> Result<(), KernelError> {
        let &ExpertProduct { op, left, picked, finish } = product;
        let Some(first) = experts.first() else { return Ok(()) };
        let parts = experts.iter().enumerate();
        let parts: Vec<_> = parts.map(|(e, w)| w.part(routes.of_expert(e).len())).collect();
        let product = Product { picked, ..super::product(op, left, first, &parts, finish, out.cols()) };
        gemm::multiply(&product, self.format(first.format), &self.pool, &mut self.packed, out.values_mut())
    }
}

/// Arguments in which the two products of experts differ.
pub(super) struct ExpertProduct<'a> {
    pub(super) op: &'static str,
    pub(super) left: Left<'a, CpuOps>,
    pub(super) picked: Option<&'a [u32]>,
    pub(super) finish: Finish,
}

pub(super) fn same_format(op: &'static str, experts: &[Matrix]) -> Result<(), KernelError> {
    if experts.windows(2).all(|pair| pair[0].format == pair[1].format) {
        return Ok(());
    }
    Err(KernelError::Invalid { op, what: "the experts' matrices mix formats".to_owned() })
}

/// Fills `chosen` with the experts of the greatest logits, ascending; of equal logits the lower expert is chosen.
pub(super) fn choose(logits: &[f32], chosen: &mut [u32]) {
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
pub(super) fn add_row(y: &Rows, routes: &Routes, r: usize, row: &mut [f32]) {
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

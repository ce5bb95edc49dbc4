//! Products added to the residual stream, summed over the ranks that share their columns; knows no layer.

use kernels::collective::Collective;
use kernels::{Epilogue, Left, Ops};

use crate::EngineError;

/// Residual stream of some rows, and the ranks that add to it.
pub(super) struct Summed<'a, O: Ops> {
    pub(super) ranks: &'a mut dyn Collective<O>,
    /// Buffer for this rank's part of a sum.
    pub(super) partial: &'a mut O::Rows,
    /// Equal at every rank.
    pub(super) hidden: &'a mut O::Rows,
    pub(super) rows: usize,
}

impl<O: Ops> Summed<'_, O> {
    /// `hidden += x · wᵀ (+ bias)`, over the columns of all ranks. `hidden` is `[rows, width]`.
    pub(super) fn add_product(
        &mut self,
        ops: &mut O,
        x: &O::Rows,
        w: &O::Matrix,
        bias: Option<&O::Vector>,
        width: u32,
    ) -> Result<(), EngineError> {
        if self.ranks.size() == 1 {
            return Ok(ops.linear(Left::plain(x), w, bias, Epilogue::AddTo, self.hidden)?);
        }
        ops.linear(Left::plain(x), w, None, Epilogue::Store, self.partial)?;
        self.ranks.all_reduce(ops, self.partial, self.rows * width as usize)?;
        Ok(ops.add(self.partial, bias, self.hidden)?)
    }

    /// Replaces `rows`, of `values` values, by their sum over all ranks.
    pub(super) fn over_ranks(&mut self, ops: &mut O, rows: &mut O::Rows, values: usize) -> Result<(), EngineError> {
        Ok(self.ranks.all_reduce(ops, rows, values)?)
    }
}

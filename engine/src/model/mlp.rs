//! MLP of a layer in each of its forms, added to the residual stream; knows no attention and no file.

use kernels::{Epilogue, Left, Norm, Ops};

use super::experts::{ExpertSpace, Experts};
use super::projection::Projection;
use super::sum::Summed;
use super::{ExpertCounts, ModelSpec};
use crate::EngineError;

pub(super) enum Mlp<O: Ops> {
    /// `down · (silu(gate) * up)`.
    Gated { gate_up: O::Matrix, down: O::Matrix },
    /// `down · relu(up)`.
    Relu { up: Projection<O>, down: Projection<O> },
    /// Gated MLPs behind a router.
    Experts(Experts<O>),
}

/// Buffers between the products of an MLP; each is there only if some layer needs it.
pub(super) struct MlpSpace<O: Ops> {
    /// `[rows, width]` of the dense layers.
    dense: Option<O::Rows>,
    /// Width of the residual stream.
    hidden: u32,
    experts: Option<ExpertSpace<O>>,
}

impl<O: Ops> MlpSpace<O> {
    pub(super) fn new(ops: &O, spec: &ModelSpec, rows_max: usize) -> Result<MlpSpace<O>, EngineError> {
        let dense = spec.dense_width().map(|width| ops.rows(rows_max, width as usize)).transpose()?;
        let experts =
            spec.experts().map(|(width, routing)| ExpertSpace::new(ops, rows_max, spec, width as usize, routing));
        Ok(MlpSpace { dense, hidden: spec.hidden, experts: experts.transpose()? })
    }

    /// Adds the experts' counts to `totals`.
    pub(super) fn take_counts(&mut self, ops: &mut O, totals: &ExpertCounts) -> Result<(), EngineError> {
        match &mut self.experts {
            Some(experts) => experts.take_counts(ops, totals),
            None => Ok(()),
        }
    }
}

impl<O: Ops> Mlp<O> {
    /// Computes `hidden += mlp(norm(hidden))`. The choices of experts are counted for layer `counted`, if given.
    pub(super) fn add_to(
        &self,
        ops: &mut O,
        norm: Norm<'_, O>,
        sum: &mut Summed<'_, O>,
        space: &mut MlpSpace<O>,
        counted: Option<usize>,
    ) -> Result<(), EngineError> {
        let absent = || EngineError::Plan("a layer's MLP has no space".to_owned());
        match self {
            Mlp::Gated { gate_up, down } => {
                let between = space.dense.as_mut().ok_or_else(absent)?;
                ops.gate_up(Left::normed(sum.hidden, norm), gate_up, between)?;
                sum.add_product(ops, between, down, None, space.hidden)
            }
            Mlp::Relu { up, down } => {
                let between = space.dense.as_mut().ok_or_else(absent)?;
                let left = Left::normed(sum.hidden, norm);
                ops.linear(left, &up.weight, up.bias.as_ref(), Epilogue::Relu, between)?;
                sum.add_product(ops, between, &down.weight, down.bias.as_ref(), space.hidden)
            }
            Mlp::Experts(experts) => {
                experts.add_to(ops, norm, sum, space.experts.as_mut().ok_or_else(absent)?, counted)
            }
        }
    }
}

//! Router and experts in the forward pass, and the count of rows that each expert has computed.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use kernels::{Epilogue, Left, Norm, Ops, Routing};

use super::sum::Summed;
use super::{MlpSpec, ModelSpec};
use crate::EngineError;

/// Router and experts of one layer.
pub(super) struct Experts<O: Ops> {
    /// `[experts, hidden]`.
    pub(super) router: O::Matrix,
    /// One matrix per expert.
    pub(super) gate_up: Vec<O::Matrix>,
    /// One matrix per expert.
    pub(super) down: Vec<O::Matrix>,
}

/// Buffers for the routes of one step and the outputs of the chosen experts.
pub(super) struct ExpertSpace<O: Ops> {
    /// `[rows, experts]`.
    logits: O::Rows,
    routes: O::Routes,
    /// `[rows * per_row, width]`.
    gated: O::Rows,
    /// `[rows * per_row, hidden]`.
    outputs: O::Rows,
    /// Number of values in `outputs` per row of the step.
    choice_values: usize,
    /// Choices since they were last taken.
    counts: O::Counts,
}

/// Counters that others read while they grow: in memory of this process, or shared with other ranks.
pub type Tally = Arc<dyn AsRef<[AtomicU64]> + Send + Sync>;

/// Rows that each expert of each layer has computed since the start; may be read while steps run.
#[derive(Clone)]
pub struct ExpertCounts {
    /// Layers that have experts.
    pub layers: Vec<u32>,
    /// Experts per layer.
    pub experts: usize,
    /// Counters `[layers][experts]`.
    pub rows: Tally,
}

impl ExpertCounts {
    /// Number of counters that a model needs.
    pub(crate) fn tallies(spec: &ModelSpec) -> usize {
        spec.experts().map_or(0, |(_, routing)| layers_with_experts(spec).count() * routing.experts)
    }

    /// Zeroed counters in memory of this process; `None` for a model without experts.
    pub(super) fn of(spec: &ModelSpec) -> Option<ExpertCounts> {
        let (_, routing) = spec.experts()?;
        let rows: Vec<AtomicU64> = (0..Self::tallies(spec)).map(|_| AtomicU64::new(0)).collect();
        Some(ExpertCounts {
            layers: layers_with_experts(spec).collect(),
            experts: routing.experts,
            rows: Arc::new(rows),
        })
    }

    /// Index of `layer` among the layers with experts.
    pub(super) fn index_of(&self, layer: u32) -> Option<usize> {
        self.layers.binary_search(&layer).ok()
    }
}

fn layers_with_experts(spec: &ModelSpec) -> impl Iterator<Item = u32> {
    let has_experts = |mlp: &MlpSpec| matches!(mlp, MlpSpec::Experts { .. });
    (0..).zip(&spec.mlps).filter(move |(_, mlp)| has_experts(mlp)).map(|(layer, _)| layer)
}

impl<O: Ops> ExpertSpace<O> {
    pub(super) fn new(
        ops: &O,
        rows_max: usize,
        spec: &ModelSpec,
        width: usize,
        routing: Routing,
    ) -> Result<ExpertSpace<O>, EngineError> {
        let (choices_max, hidden) = (rows_max * routing.per_row, spec.hidden as usize);
        Ok(ExpertSpace {
            logits: ops.rows(rows_max, routing.experts)?,
            routes: ops.routes(rows_max, routing)?,
            gated: ops.rows(choices_max, width)?,
            outputs: ops.rows(choices_max, hidden)?,
            choice_values: routing.per_row * hidden,
            counts: ops.counts(layers_with_experts(spec).count(), routing.experts)?,
        })
    }

    /// Adds the counts to `totals` and resets them.
    pub(super) fn take_counts(&mut self, ops: &mut O, totals: &ExpertCounts) -> Result<(), EngineError> {
        Ok(ops.take_counts(&mut self.counts, (*totals.rows).as_ref())?)
    }
}

impl<O: Ops> Experts<O> {
    /// Computes `hidden += Σ weight · expert(norm(hidden))` over the experts that the router chooses for each row.
    pub(super) fn add_to(
        &self,
        ops: &mut O,
        norm: Norm<'_, O>,
        sum: &mut Summed<'_, O>,
        space: &mut ExpertSpace<O>,
        counted: Option<usize>,
    ) -> Result<(), EngineError> {
        let ExpertSpace { logits, routes, gated, outputs, choice_values, counts } = space;
        let left = Left::normed(sum.hidden, norm);
        ops.linear(left, &self.router, None, Epilogue::Store, logits)?;
        ops.route(logits, routes)?;
        ops.expert_gate_up(left, &self.gate_up, routes, gated)?;
        ops.expert_down(gated, &self.down, routes, outputs)?;
        let values = sum.rows * *choice_values;
        sum.over_ranks(ops, outputs, values)?;
        ops.combine(outputs, routes, sum.hidden)?;
        match counted {
            Some(layer) => Ok(ops.count_choices(routes, counts, layer)?),
            None => Ok(()),
        }
    }
}

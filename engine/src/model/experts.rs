//! A router and its experts in the forward pass, and how many rows each expert has computed.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use kernels::{Epilogue, Left, Norm, Ops, Routing};

use super::sum::Summed;
use super::{MlpSpec, ModelSpec};
use crate::EngineError;

/// The weights of one layer's experts.
pub(super) struct Experts<O: Ops> {
    /// `[experts, hidden]`.
    pub(super) router: O::Matrix,
    /// Per expert.
    pub(super) gate_up: Vec<O::Matrix>,
    /// Per expert.
    pub(super) down: Vec<O::Matrix>,
}

/// Space for the choices of one step and what the chosen experts make of them.
pub(super) struct ExpertSpace<O: Ops> {
    /// `[rows, experts]`.
    logits: O::Rows,
    routes: O::Routes,
    /// `[rows * per_row, width]`.
    gated: O::Rows,
    /// `[rows * per_row, hidden]`.
    outputs: O::Rows,
    /// Values of `outputs` per row of the step.
    choice_values: usize,
    /// Choices that were counted since they were last taken.
    counts: O::Counts,
}

/// Numbers that are counted in while others read them: memory of this process, or shared with other ranks.
pub type Tally = Arc<dyn AsRef<[AtomicU64]> + Send + Sync>;

/// How many rows each expert of each layer has computed since the start; read while steps run.
#[derive(Clone)]
pub struct ExpertCounts {
    /// The layers that have experts.
    pub layers: Vec<u32>,
    /// Experts of each.
    pub experts: usize,
    /// `[layers][experts]`.
    pub rows: Tally,
}

impl ExpertCounts {
    /// How many numbers a model counts in.
    pub(crate) fn tallies(spec: &ModelSpec) -> usize {
        spec.experts().map_or(0, |(_, routing)| layers_with_experts(spec).count() * routing.experts)
    }

    /// All zero, in memory of this process; `None` for a model without experts.
    pub(super) fn of(spec: &ModelSpec) -> Option<ExpertCounts> {
        let (_, routing) = spec.experts()?;
        let rows: Vec<AtomicU64> = (0..Self::tallies(spec)).map(|_| AtomicU64::new(0)).collect();
        Some(ExpertCounts {
            layers: layers_with_experts(spec).collect(),
            experts: routing.experts,
            rows: Arc::new(rows),
        })
    }

    /// Which of the layers with experts `layer` is.
    pub(super) fn index_of(&self, layer: u32) -> Option<usize> {
        self.layers.binary_search(&layer).ok()
    }
}

fn layers_with_experts(spec: &ModelSpec) -> impl Iterator<Item = u32> {
    let has_experts = |mlp: &MlpSpec| matches!(mlp, MlpSpec::Experts { .. });
    (0..).zip(&spec.mlps).filter(move |(_, mlp)| has_experts(mlp)).map(|(layer, _)| layer)
}

impl<O: Ops> ExpertSpace<O> {
    /// Space for up to `rows_max` rows.
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

    /// Adds what was counted to `totals`, and begins anew.
    pub(super) fn take_counts(&mut self, ops: &mut O, totals: &ExpertCounts) -> Result<(), EngineError> {
        Ok(ops.take_counts(&mut self.counts, (*totals.rows).as_ref())?)
    }
}

impl<O: Ops> Experts<O> {
    /// `hidden += Σ weight · expert(norm(hidden))` over the experts that the router chooses for each row.
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

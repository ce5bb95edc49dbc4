//! What a configuration allows a model: context, formats, bounds of one step; knows no memory.

use kernels::collective::SegmentShape;
use kernels::{Dtype, KvGeometry};

use crate::backend::{StepLimits, words_max};
use crate::model::{ExpertCounts, Grid, ModelSpec, Precision};
use crate::{Config, EngineError, WeightsDtype};

pub(super) fn context_max(config: &Config, spec: &ModelSpec) -> Result<u32, EngineError> {
    match config.context_max {
        0 => Ok(spec.context_max),
        asked if asked > spec.context_max => {
            let problem = format!("is {asked}, the model was made for {}", spec.context_max);
            Err(EngineError::Config { key: "context_max", problem })
        }
        asked => Ok(asked),
    }
}

pub(super) fn precision(config: &Config) -> Precision {
    match config.dtype {
        WeightsDtype::Auto => Precision::AsStored,
        WeightsDtype::F32 => Precision::Converted(Dtype::F32),
        WeightsDtype::Bf16 => Precision::Converted(Dtype::Bf16),
        WeightsDtype::Int8 => Precision::Int8,
    }
}

pub(super) fn step_limits(config: &Config, context_max: u32) -> StepLimits {
    StepLimits { rows_max: config.step_tokens_max, wanted_max: config.sequences_max, positions_max: context_max }
}

/// Limits of the steps of each of `lanes` lanes that compute at the same time: after the first, which prefills, a step
/// has one row per running sequence.
pub(super) fn lane_limits(config: &Config, limits: StepLimits, lanes: usize) -> Vec<StepLimits> {
    let of_decode = StepLimits { rows_max: limits.rows_max.min(config.sequences_max), ..limits };
    std::iter::once(limits).chain(std::iter::repeat_n(of_decode, lanes - 1)).collect()
}

/// Capacity of the shared segment of the ranks of `grid`.
pub(super) fn segment_shape(grid: Grid, spec: &ModelSpec, limits: StepLimits, geometry: &KvGeometry) -> SegmentShape {
    let StepLimits { rows_max, wanted_max, positions_max } = limits;
    let [rows_max, wanted_max, positions_max] = [rows_max, wanted_max, positions_max].map(|count| count as usize);
    let blocks_per_sequence = positions_max.div_ceil(geometry.block_tokens);
    // The outputs of a row's experts are summed one by one.
    let rows_per_row = spec.experts().map_or(1, |(_, routing)| routing.per_row);
    SegmentShape {
        ranks: grid.ranks() as usize,
        group_ranks: grid.tensor as usize,
        order_words_max: words_max(rows_max, wanted_max, blocks_per_sequence, geometry.blocks),
        row_values_max: rows_max * rows_per_row * spec.hidden as usize,
        logit_values_max: wanted_max * spec.vocab as usize,
        tallies: ExpertCounts::tallies(spec),
    }
}

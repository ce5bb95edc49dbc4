//! A step plan, checked against model and pool and converted for the operations; knows no maths.

use std::ops::Range;

use kernels::BatchSequence;
use sched::{Input, SequenceRows, StepPlan};

use super::StepLimits;
use super::forward::{FromSlot, Sampled, Scored};
use super::input::StepInput;
use crate::EngineError;
use crate::model::ModelSpec;

/// The rest of a checked plan, beside its input.
pub(super) struct Prepared {
    pub(super) rows: usize,
    pub(super) sample: Vec<Sampled>,
    pub(super) score: Vec<Scored>,
    pub(super) layers: Range<u32>,
}

impl Prepared {
    /// Checks a plan; also returns its input as flat arrays, and the rows whose tokens are samples of slots.
    pub(super) fn new(
        plan: &StepPlan,
        spec: &ModelSpec,
        limits: StepLimits,
    ) -> Result<(Prepared, StepInput, Vec<FromSlot>), EngineError> {
        check_layers(plan, spec)?;
        check_rows(plan, limits)?;
        check_scored(plan, spec)?;
        let from = from_slots(plan);
        let tokens = input_tokens(plan, spec, &from)?;
        let wanted = wanted_rows(plan, limits)?;
        let index = |row: u32| wanted.binary_search(&row).unwrap_or_default();
        let sample = plan.sample.iter().map(|sample| Sampled { slot: sample.slot, index: index(sample.row) }).collect();
        let score = plan.score.iter();
        let score = score.map(|row| Scored { index: index(row.row), token: row.token, top: row.top }).collect();
        let sequences = plan.sequences.iter().map(|sequence| BatchSequence {
            rows: sequence.rows.clone(),
            blocks: sequence.blocks.clone(),
            first_position: sequence.first_position,
        });
        let prepared = Prepared { rows: tokens.len(), sample, score, layers: plan.layers.clone() };
        let blocks = plan.blocks.iter().map(|block| block.0).collect();
        Ok((prepared, StepInput { tokens, sequences: sequences.collect(), blocks, wanted }, from))
    }
}

fn wrong<T>(problem: String) -> Result<T, EngineError> {
    Err(EngineError::Plan(problem))
}

fn check_layers(plan: &StepPlan, spec: &ModelSpec) -> Result<(), EngineError> {
    let Range { start, end } = plan.layers;
    if start > end || end > spec.layers {
        return wrong(format!("layers {start}..{end} of a model with {}", spec.layers));
    }
    if !(plan.sample.is_empty() && plan.score.is_empty()) && end != spec.layers {
        return wrong(format!("samples or scores after layer {end} of {}", spec.layers));
    }
    Ok(())
}

fn check_scored(plan: &StepPlan, spec: &ModelSpec) -> Result<(), EngineError> {
    match plan.score.iter().find(|row| row.token.0 >= spec.vocab) {
        Some(row) => wrong(format!("row {} scores token {} of a vocabulary of {}", row.row, row.token.0, spec.vocab)),
        None => Ok(()),
    }
}

/// Checks that rows of sequences follow each other and cover all tokens, and that tables and positions are in bounds.
fn check_rows(plan: &StepPlan, limits: StepLimits) -> Result<(), EngineError> {
    let rows = plan.tokens.len();
    if rows > limits.rows_max as usize {
        return wrong(format!("{rows} rows, at most {} fit", limits.rows_max));
    }
    let mut next_row = 0;
    for sequence in &plan.sequences {
        check_sequence(plan, sequence, next_row, limits)?;
        next_row = sequence.rows.end;
    }
    if next_row as usize != rows {
        return wrong(format!("sequences cover {next_row} of {rows} rows"));
    }
    Ok(())
}

fn check_sequence(
    plan: &StepPlan,
    sequence: &SequenceRows,
    next_row: u32,
    limits: StepLimits,
) -> Result<(), EngineError> {
    let SequenceRows { rows, blocks, first_position, input } = sequence;
    if rows.start != next_row || rows.end <= rows.start {
        return wrong(format!("a sequence has rows {rows:?} where {next_row}.. is next"));
    }
    let end = u64::from(*first_position) + u64::from(rows.end - rows.start);
    if end > u64::from(limits.positions_max) {
        return wrong(format!("a sequence ends at position {end}, at most {} fit", limits.positions_max));
    }
    if blocks.start > blocks.end || blocks.end as usize > plan.blocks.len() {
        return wrong(format!("a block table {blocks:?} of {} blocks", plan.blocks.len()));
    }
    match input {
        Input::Given => Ok(()),
        Input::FromSlot(slot) if rows.end - rows.start != 1 => {
            wrong(format!("{} rows take their input from {slot}, which holds one token", rows.end - rows.start))
        }
        Input::FromSlot(_) => Ok(()),
    }
}

fn from_slots(plan: &StepPlan) -> Vec<FromSlot> {
    let from_slot = |sequence: &SequenceRows| match sequence.input {
        Input::Given => None,
        Input::FromSlot(slot) => Some(FromSlot { row: sequence.rows.start as usize, slot }),
    };
    plan.sequences.iter().filter_map(from_slot).collect()
}

/// Tokens that the plan gives; rows that take the sample of a slot hold 0 until then.
fn input_tokens(plan: &StepPlan, spec: &ModelSpec, from: &[FromSlot]) -> Result<Vec<u32>, EngineError> {
    let mut tokens: Vec<u32> = plan.tokens.iter().map(|token| token.0).collect();
    from.iter().for_each(|from| tokens[from.row] = 0);
    match tokens.iter().position(|token| *token >= spec.vocab) {
        Some(row) => wrong(format!("row {row} has token {} of a vocabulary of {}", tokens[row], spec.vocab)),
        None => Ok(tokens),
    }
}

fn wanted_rows(plan: &StepPlan, limits: StepLimits) -> Result<Vec<u32>, EngineError> {
    let sampled = plan.sample.iter().map(|sample| sample.row);
    let mut wanted: Vec<u32> = sampled.chain(plan.score.iter().map(|score| score.row)).collect();
    wanted.sort_unstable();
    wanted.dedup();
    if let Some(row) = wanted.last().filter(|row| **row as usize >= plan.tokens.len()) {
        return wrong(format!("wants logits of row {row} of {}", plan.tokens.len()));
    }
    if wanted.len() > limits.wanted_max as usize {
        return wrong(format!("{} rows want logits, at most {} can", wanted.len(), limits.wanted_max));
    }
    Ok(wanted)
}

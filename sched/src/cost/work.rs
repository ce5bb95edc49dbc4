//! Quantities of a step that its latency depends on; knows no coefficient.

use std::ops::Range;

use super::Phase;
use crate::StepPlan;

/// Work that a step asks of a device.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepWork {
    /// Prompt tokens in the step.
    pub prefill_tokens: f64,
    /// Sum over chunks of end² − start² in positions, so that the chunks of a prompt add up to its length squared.
    pub prefill_squares: f64,
    /// Sequences that decode one token.
    pub decode_sequences: f64,
    /// Sum of the context lengths of those sequences.
    pub decode_context: f64,
    /// Part of the layers that is left out, in [0, 1): 0 for a step over all layers.
    pub layers_skipped: f64,
}

impl StepWork {
    /// Work of a plan for a model of `layers_total` layers. A single row beyond position 0 is a decode.
    #[must_use]
    pub fn of_plan(plan: &StepPlan, layers_total: u32) -> StepWork {
        let mut work = StepWork::default();
        for sequence in &plan.sequences {
            let rows = sequence.rows.end.saturating_sub(sequence.rows.start);
            let end = sequence.first_position.saturating_add(rows);
            work = match (rows, sequence.first_position) {
                (1, first) if first > 0 => work.with_decode(end),
                _ => work.with_chunk(sequence.first_position..end),
            };
        }
        let planned = plan.layers.end.saturating_sub(plan.layers.start);
        work.layers_skipped = 1.0 - f64::from(planned) / f64::from(layers_total.max(planned).max(1));
        work
    }

    /// This work and the chunk of a prompt that covers these positions.
    #[must_use]
    pub fn with_chunk(self, positions: Range<u32>) -> StepWork {
        let (start, end) = (f64::from(positions.start), f64::from(positions.end));
        StepWork {
            prefill_tokens: self.prefill_tokens + (end - start).max(0.0),
            prefill_squares: self.prefill_squares + (end * end - start * start).max(0.0),
            ..self
        }
    }

    /// This work and one decode that attends to `context` tokens.
    #[must_use]
    pub fn with_decode(self, context: u32) -> StepWork {
        StepWork {
            decode_sequences: self.decode_sequences + 1.0,
            decode_context: self.decode_context + f64::from(context),
            ..self
        }
    }

    /// Resource that bounds the step.
    #[must_use]
    pub fn phase(&self) -> Phase {
        if self.prefill_tokens > 0.0 { Phase::Prefill } else { Phase::Decode }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Input, SequenceRows};

    fn plan(parts: &[(u32, u32)], layers: Range<u32>) -> StepPlan {
        let mut plan = StepPlan { layers, ..StepPlan::default() };
        for (first_position, rows) in parts {
            let start = plan.sequences.last().map_or(0, |last| last.rows.end);
            plan.sequences.push(SequenceRows {
                rows: start..start + rows,
                blocks: 0..0,
                first_position: *first_position,
                input: Input::Given,
            });
        }
        plan
    }

    #[test]
    fn plans_are_chunks_and_decodes() {
        let work = StepWork::of_plan(&plan(&[(0, 10), (16, 4), (99, 1), (0, 1)], 0..4), 4);
        assert_eq!(
            work,
            StepWork {
                prefill_tokens: 15.0,
                prefill_squares: 100.0 + (400.0 - 256.0) + 1.0,
                decode_sequences: 1.0,
                decode_context: 100.0,
                layers_skipped: 0.0,
            }
        );
        assert_eq!(work.phase(), Phase::Prefill);
        assert_eq!(StepWork::of_plan(&plan(&[(99, 1)], 0..1), 4).layers_skipped, 0.75);
        assert_eq!(StepWork::of_plan(&plan(&[(99, 1)], 0..1), 4).phase(), Phase::Decode);
    }

    #[test]
    fn chunks_add_up_to_the_prompt() {
        let whole = StepWork::default().with_chunk(0..100);
        let parts = StepWork::default().with_chunk(0..30).with_chunk(30..31).with_chunk(31..100);
        assert_eq!(whole, parts);
    }
}

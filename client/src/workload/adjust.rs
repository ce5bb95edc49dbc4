//! Adjustment of a workload to a system: rate, lengths, context, number of requests. Knows no source.

use super::lengths::TOKENS_MAX;
use super::{Row, Workload};
use crate::{Error, Result};

/// Changes to a workload, in the order of the fields.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adjustment {
    /// Factor on all lengths and on the tokens of a block.
    pub length_scale: f64,
    /// Longest prompt with its answer, in tokens; longer rows are left out.
    pub context_max: Option<u32>,
    /// Factor on the rate: 2 halves all gaps.
    pub rate_scale: f64,
    /// Time after which rows are left out, in microseconds.
    pub duration_us: Option<u64>,
    /// Most rows.
    pub limit: Option<usize>,
}

impl Default for Adjustment {
    fn default() -> Adjustment {
        Adjustment { length_scale: 1.0, context_max: None, rate_scale: 1.0, duration_us: None, limit: None }
    }
}

impl Adjustment {
    /// Applies the changes and counts the rows that are left out; without any row left an error.
    pub fn apply(&self, workload: &mut Workload) -> Result<()> {
        for (name, factor) in [("length scale", self.length_scale), ("rate scale", self.rate_scale)] {
            if !(1e-6..=1e6).contains(&factor) {
                return Err(Error::Settings(format!("{name} {factor}: expected a number from 0.000001 to 1000000")));
            }
        }
        scale_lengths(workload, self.length_scale);
        let before = workload.rows.len();
        if let Some(context_max) = self.context_max {
            let fits = |row: &Row| u64::from(row.input_tokens) + u64::from(row.output_tokens) <= u64::from(context_max);
            workload.rows.retain(fits);
        }
        let fitting = workload.rows.len();
        // The first row that is left comes at once.
        let start_us = workload.rows.first().map_or(0, |row| row.at_us);
        for row in &mut workload.rows {
            row.at_us = ((row.at_us - start_us) as f64 / self.rate_scale) as u64;
        }
        if let Some(duration_us) = self.duration_us {
            workload.rows.retain(|row| row.at_us < duration_us);
        }
        workload.rows.truncate(self.limit.unwrap_or(usize::MAX));
        let origin = &mut workload.origin;
        origin.context_max = self.context_max;
        origin.rows_over_context = before - fitting;
        origin.rows_after_limit = fitting - workload.rows.len();
        origin.rate_scale = self.rate_scale;
        if workload.rows.is_empty() {
            let reason = match (before, fitting) {
                (0, _) => "there is none".to_owned(),
                (_, 0) => format!("all {before} are longer than the context"),
                _ => "duration or limit leaves none".to_owned(),
            };
            return Err(Error::Settings(format!("{}: no request to send: {reason}", origin.source)));
        }
        Ok(())
    }
}

/// Scales lengths together with the blocks: an id must go on standing for a whole number of tokens, the same in every
/// row. So where rows have blocks, the factor is that of the rounded block.
fn scale_lengths(workload: &mut Workload, scale: f64) {
    let has_blocks = workload.origin.block_tokens.is_some();
    let scaled_block = (f64::from(workload.block_tokens) * scale).round().clamp(1.0, f64::from(TOKENS_MAX));
    let scale = if has_blocks && scale != 1.0 { scaled_block / f64::from(workload.block_tokens) } else { scale };
    workload.origin.length_scale = scale;
    if scale == 1.0 {
        return;
    }
    let tokens = |scaled: f64| scaled.clamp(1.0, f64::from(TOKENS_MAX)) as u32;
    for row in &mut workload.rows {
        // Prompts are rounded up: a prompt that reached into its last block still does. The small number keeps the
        // error of the product from adding a token.
        row.input_tokens = tokens((f64::from(row.input_tokens) * scale - 1e-6).ceil());
        row.output_tokens = tokens((f64::from(row.output_tokens) * scale).round());
    }
    if has_blocks {
        workload.block_tokens = tokens(scaled_block);
        workload.origin.block_tokens = Some(workload.block_tokens);
    }
}

/// Part of a workload at another rate, for one point of a sweep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rerun {
    /// Mean requests per second.
    pub rate_per_s: f64,
    /// Length in microseconds.
    pub duration_us: u64,
    /// Most rows.
    pub rows_max: usize,
}

impl Rerun {
    /// Rows of `workload` with all gaps scaled, from the start again when it ends.
    #[must_use]
    pub fn rows(&self, workload: &Workload) -> Vec<Row> {
        let own_rate = workload.rate_per_s();
        let scale = if own_rate > 0.0 { own_rate / self.rate_per_s } else { 0.0 };
        // A lap ends one mean gap after its last row.
        let lap_us = workload.span_us() as f64 * scale + 1e6 / self.rate_per_s;
        let laps = (0..).flat_map(|lap| workload.rows.iter().map(move |row| (lap, row)));
        let timed = laps.map(|(lap, row)| {
            let at_us = (f64::from(lap) * lap_us + row.at_us as f64 * scale) as u64;
            Row { at_us, ..row.clone() }
        });
        timed.take_while(|row| row.at_us < self.duration_us).take(self.rows_max).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Origin;
    use super::*;

    fn workload(rows: &[(u64, u32, u32)], block_tokens: Option<u32>) -> Workload {
        let rows = rows.iter().map(|(at_us, input_tokens, output_tokens)| {
            let blocks = block_tokens.map_or(0, |tokens| input_tokens.div_ceil(tokens));
            let blocks = (0..u64::from(blocks)).collect();
            Row { at_us: *at_us, input_tokens: *input_tokens, output_tokens: *output_tokens, blocks, class: None }
        });
        let origin = Origin { source: "x".to_owned(), block_tokens, ..Origin::default() };
        Workload { rows: rows.collect(), block_tokens: block_tokens.unwrap_or(1), origin }
    }

    #[test]
    fn lengths_over_32_are_those_of_the_published_recipe() {
        let mut scaled = workload(&[(0, 6758, 500), (0, 7322, 490), (0, 2290, 316)], Some(512));
        Adjustment { length_scale: 1.0 / 32.0, ..Adjustment::default() }.apply(&mut scaled).unwrap();
        let lengths: Vec<_> = scaled.rows.iter().map(|row| (row.input_tokens, row.output_tokens)).collect();
        assert_eq!((lengths, scaled.block_tokens), (vec![(212, 16), (229, 15), (72, 10)], 16));
    }

    #[test]
    fn rows_are_left_out_and_counted() {
        let rows: Vec<_> = (0..10).map(|row| (1_000_000 + row * 100_000, 100 * (row as u32 + 1), 10)).collect();
        let mut adjusted = workload(&rows, None);
        let adjustment = Adjustment {
            context_max: Some(810),
            rate_scale: 2.0,
            duration_us: Some(300_000),
            limit: Some(5),
            ..Adjustment::default()
        };
        adjustment.apply(&mut adjusted).unwrap();
        let times: Vec<u64> = adjusted.rows.iter().map(|row| row.at_us).collect();
        assert_eq!(times, [0, 50_000, 100_000, 150_000, 200_000]);
        assert_eq!((adjusted.origin.rows_over_context, adjusted.origin.rows_after_limit), (2, 3));
        let none = Adjustment { context_max: Some(5), ..Adjustment::default() }.apply(&mut workload(&rows, None));
        assert_eq!(none.unwrap_err().to_string(), "x: no request to send: all 10 are longer than the context");
        let odd = Adjustment { rate_scale: f64::NAN, ..Adjustment::default() }.apply(&mut workload(&rows, None));
        assert_eq!(odd.unwrap_err().to_string(), "rate scale NaN: expected a number from 0.000001 to 1000000");
    }

    #[test]
    fn a_rerun_has_its_rate_and_goes_round() {
        let rows: Vec<_> = (0..11).map(|row| (row * 100_000, 10, 10)).collect();
        let rerun = Rerun { rate_per_s: 100.0, duration_us: 1_000_000, rows_max: 1000 }.rows(&workload(&rows, None));
        assert_eq!(rerun.len(), 100);
        assert!(rerun.windows(2).all(|pair| pair[1].at_us - pair[0].at_us == 10_000));
    }

    proptest! {
        /// Whatever the factor, a prompt keeps the number of its blocks, as each id stands for the scaled block.
        #[test]
        fn scaling_keeps_the_structure_of_blocks(
            lengths in prop::collection::vec(1_u32..100_000, 1..20),
            block_tokens in 1_u32..2048,
            scale in 0.001_f64..4.0,
        ) {
            let rows: Vec<_> = lengths.iter().map(|length| (0, *length, 5)).collect();
            let mut scaled = workload(&rows, Some(block_tokens));
            Adjustment { length_scale: scale, ..Adjustment::default() }.apply(&mut scaled).unwrap();
            for row in &scaled.rows {
                prop_assert_eq!(row.input_tokens.div_ceil(scaled.block_tokens) as usize, row.blocks.len());
            }
        }
    }
}

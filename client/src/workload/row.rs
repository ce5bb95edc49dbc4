//! Rows of a workload and where they came from; reads and makes none.

use std::sync::Arc;

use serde::Serialize;

/// One request of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Microseconds from the start of the workload.
    pub at_us: u64,
    /// Prompt length in tokens.
    pub input_tokens: u32,
    /// Answer length in tokens.
    pub output_tokens: u32,
    /// Ids of the prompt's first blocks; equal ids are equal tokens. What the blocks do not cover is unique.
    pub blocks: Arc<[u64]>,
    /// Name of the SLO class, if the source says one.
    pub class: Option<Arc<str>>,
}

/// Requests in order of time.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Requests in order of time.
    pub rows: Vec<Row>,
    /// Tokens that each block id stands for.
    pub block_tokens: u32,
    /// Source, and what became of its rows.
    pub origin: Origin,
}

/// Source of a workload, and what became of its rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Origin {
    /// File, or the description of a synthetic workload.
    pub source: String,
    /// Form of the file.
    pub form: String,
    /// Tokens per prefix block; `None` if no row has blocks.
    pub block_tokens: Option<u32>,
    /// Rows of the source.
    pub rows_read: usize,
    /// Rows without prompt or without answer, which are left out (failed requests in BurstGPT).
    pub rows_empty: usize,
    /// Rows that were earlier than the row before them; all rows were sorted.
    pub rows_out_of_order: usize,
    /// Rows that do not fit the context, which are left out.
    pub rows_over_context: usize,
    /// Longest prompt with its answer that was accepted, in tokens.
    pub context_max: Option<u32>,
    /// Rows after the limit of number or time, which are left out.
    pub rows_after_limit: usize,
    /// Factor on all lengths.
    pub length_scale: f64,
    /// Factor on the rate.
    pub rate_scale: f64,
}

impl Workload {
    /// Time of the last row, in microseconds.
    #[must_use]
    pub fn span_us(&self) -> u64 {
        self.rows.last().map_or(0, |row| row.at_us)
    }

    /// Mean requests per second between the first and the last row; 0 if all come at once.
    #[must_use]
    pub fn rate_per_s(&self) -> f64 {
        match (self.rows.len().saturating_sub(1), self.span_us()) {
            (0, _) | (_, 0) => 0.0,
            (gaps, span_us) => gaps as f64 / span_us as f64 * 1e6,
        }
    }
}

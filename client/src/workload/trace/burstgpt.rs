//! CSV of BurstGPT (Wang et al., "BurstGPT: A Real-World Workload Dataset", 2024): times in seconds from the start.

use std::path::Path;
use std::sync::Arc;

use super::table::Table;
use super::{Raw, push};
use crate::Result;

/// Most seconds of a timestamp.
const TIMESTAMP_S_MAX: f64 = 1e12;

/// Reads all rows; those of failed requests have 0 response tokens.
pub(super) fn read(file: &Path) -> Result<Vec<Raw>> {
    let mut table = Table::open(file, &["Timestamp", "Request tokens", "Response tokens", "Log Type"])?;
    let mut rows = Vec::new();
    while let Some(fields) = table.next_line()? {
        let seconds = fields.text(0).parse().ok().filter(|seconds| (0.0..=TIMESTAMP_S_MAX).contains(seconds));
        let row = Raw {
            at_us: (seconds.ok_or_else(|| fields.wrong(0, "seconds"))? * 1e6) as i64,
            input_tokens: fields.tokens(1)?,
            output_tokens: fields.tokens(2)?,
            blocks: Vec::new(),
            class: class(fields.text(3)),
            line: fields.line.number,
        };
        push(&mut rows, row, &fields.line)?;
    }
    Ok(rows)
}

/// Class of a log type: `conversation` for `Conversation log`, `api` for `API log`.
fn class(log_type: &str) -> Option<Arc<str>> {
    let word = log_type.split_whitespace().next()?;
    Some(word.to_lowercase().into())
}

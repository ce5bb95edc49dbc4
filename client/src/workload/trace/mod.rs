//! Trace files: recognises their form by content and reads them into rows. Knows no server.

mod azure;
mod blocks;
mod burstgpt;
mod jsonl;
mod lines;
mod table;

use std::path::Path;

use super::row::{Origin, Row, Workload};
use crate::{Error, Result};
use lines::Lines;
pub(super) use table::Table;

/// Most rows of a trace.
const ROWS_MAX: usize = 2_000_000;
/// Most characters of a first line that an error quotes.
const QUOTED_CHARS_MAX: usize = 80;

/// Form of a trace file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceForm {
    /// JSON lines: `timestamp` in ms, `input_length`, `output_length`; optional `hash_ids` and `class`.
    Jsonl,
    /// The same from Mooncake, with `hash_ids` of 512 tokens each.
    Mooncake,
    /// CSV of the Azure LLM inference traces: `TIMESTAMP,ContextTokens,GeneratedTokens`.
    Azure,
    /// CSV of BurstGPT: `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type`.
    BurstGpt,
}

/// Settings for reading a trace.
#[derive(Debug, Clone, Copy, Default)]
pub struct TraceSettings {
    /// Form; recognised by content if `None`.
    pub form: Option<TraceForm>,
    /// Tokens per block of `hash_ids`; found from the rows if `None`.
    pub block_tokens: Option<u32>,
}

impl TraceForm {
    const ALL: [TraceForm; 4] = [TraceForm::Jsonl, TraceForm::Mooncake, TraceForm::Azure, TraceForm::BurstGpt];

    /// Name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            TraceForm::Jsonl => "jsonl",
            TraceForm::Mooncake => "mooncake",
            TraceForm::Azure => "azure",
            TraceForm::BurstGpt => "burstgpt",
        }
    }

    /// Reads the name of a form.
    pub fn parse(text: &str) -> Result<TraceForm> {
        let named = TraceForm::ALL.into_iter().find(|form| form.name() == text);
        named
            .ok_or_else(|| Error::Settings(format!("trace form {text:?}: expected jsonl, mooncake, azure or burstgpt")))
    }

    fn recognise(file: &Path) -> Result<TraceForm> {
        let mut lines = Lines::open(file)?;
        let first = lines.next_line()?.map(|line| line.text.to_owned()).unwrap_or_default();
        let columns: Vec<&str> = first.split(',').map(str::trim).collect();
        if first.starts_with('{') {
            Ok(TraceForm::Jsonl)
        } else if columns.contains(&"ContextTokens") {
            Ok(TraceForm::Azure)
        } else if columns.contains(&"Request tokens") {
            Ok(TraceForm::BurstGpt)
        } else {
            let first: String = first.chars().take(QUOTED_CHARS_MAX).collect();
            let forms = "JSON lines, or a CSV header of Azure or BurstGPT";
            let problem = format!("the form of this trace is not known: expected {forms}, found {first:?}");
            Err(Error::File { file: file.to_owned(), problem })
        }
    }
}

/// Row as a file has it.
#[derive(Debug)]
struct Raw {
    /// Microseconds from any origin.
    at_us: i64,
    input_tokens: u32,
    output_tokens: u32,
    blocks: Vec<u64>,
    class: Option<std::sync::Arc<str>>,
    /// Line of the file.
    line: usize,
}

/// Reads a trace; an error names file, line and field.
pub fn read_trace(file: &Path, settings: TraceSettings) -> Result<Workload> {
    let form = settings.form.map_or_else(|| TraceForm::recognise(file), Ok)?;
    let mut raw = match form {
        TraceForm::Jsonl => jsonl::read(file, jsonl::HashIds::Optional)?,
        TraceForm::Mooncake => jsonl::read(file, jsonl::HashIds::Required)?,
        TraceForm::Azure => azure::read(file)?,
        TraceForm::BurstGpt => burstgpt::read(file)?,
    };
    let rows_read = raw.len();
    raw.retain(|row| row.input_tokens > 0 && row.output_tokens > 0);
    let block_tokens = blocks::tokens(file, &raw, settings.block_tokens)?;
    let rows_out_of_order = raw.windows(2).filter(|pair| pair[1].at_us < pair[0].at_us).count();
    raw.sort_by_key(|row| row.at_us);
    let origin = Origin {
        source: file.display().to_string(),
        form: form.name().to_owned(),
        block_tokens,
        rows_read,
        rows_empty: rows_read - raw.len(),
        rows_out_of_order,
        length_scale: 1.0,
        rate_scale: 1.0,
        ..Origin::default()
    };
    let start_us = raw.first().map_or(0, |row| row.at_us);
    let rows = raw.into_iter().map(|row| Row {
        at_us: row.at_us.abs_diff(start_us),
        input_tokens: row.input_tokens,
        output_tokens: row.output_tokens,
        blocks: row.blocks.into(),
        class: row.class,
    });
    Ok(Workload { rows: rows.collect(), block_tokens: block_tokens.unwrap_or(1), origin })
}

/// Accepts one more row, within the limit.
fn push(rows: &mut Vec<Raw>, row: Raw, line: &lines::Line<'_>) -> Result<()> {
    if rows.len() == ROWS_MAX {
        return Err(line.wrong(format!("more than {ROWS_MAX} rows")));
    }
    rows.push(row);
    Ok(())
}

#[cfg(test)]
mod tests;

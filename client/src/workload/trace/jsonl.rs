//! JSON lines with `timestamp`, `input_length`, `output_length`, `hash_ids`: Mooncake's form, which ours extends.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::super::lengths::TOKENS_MAX;
use super::lines::{Line, Lines};
use super::{Raw, push};
use crate::Result;

/// Most milliseconds of a timestamp: about thirty thousand years.
const TIMESTAMP_MS_MAX: f64 = 1e15;

/// Presence of `hash_ids`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HashIds {
    Optional,
    Required,
}

pub(super) fn read(file: &Path, hash_ids: HashIds) -> Result<Vec<Raw>> {
    let mut lines = Lines::open(file)?;
    let mut rows = Vec::new();
    while let Some(line) = lines.next_line()? {
        let row = row(&line, hash_ids)?;
        push(&mut rows, row, &line)?;
    }
    Ok(rows)
}

fn row(line: &Line<'_>, hash_ids: HashIds) -> Result<Raw> {
    let value: Value = serde_json::from_str(line.text).map_err(|error| line.wrong(format!("not JSON: {error}")))?;
    if !value.is_object() {
        return Err(line.wrong("expected a JSON object"));
    }
    let timestamp = value["timestamp"].as_f64().filter(|ms| (0.0..=TIMESTAMP_MS_MAX).contains(ms));
    let timestamp_ms = timestamp.ok_or_else(|| wrong(line, &value, "timestamp", "milliseconds"))?;
    let class = match &value["class"] {
        Value::Null => None,
        Value::String(class) => Some(Arc::from(class.as_str())),
        _ => return Err(wrong(line, &value, "class", "a text")),
    };
    Ok(Raw {
        at_us: (timestamp_ms * 1e3) as i64,
        input_tokens: tokens(line, &value, "input_length")?,
        output_tokens: tokens(line, &value, "output_length")?,
        blocks: blocks(line, &value, hash_ids)?,
        class,
        line: line.number,
    })
}

fn tokens(line: &Line<'_>, value: &Value, field: &str) -> Result<u32> {
    let tokens = value[field].as_u64().and_then(|tokens| u32::try_from(tokens).ok());
    tokens.filter(|tokens| *tokens <= TOKENS_MAX).ok_or_else(|| wrong(line, value, field, "a number of tokens"))
}

fn blocks(line: &Line<'_>, value: &Value, hash_ids: HashIds) -> Result<Vec<u64>> {
    let field = "hash_ids";
    let expected = || wrong(line, value, field, "a list of block ids");
    match &value[field] {
        Value::Null if hash_ids == HashIds::Optional => Ok(Vec::new()),
        Value::Array(ids) => ids.iter().map(|id| id.as_u64().ok_or_else(expected)).collect(),
        _ => Err(expected()),
    }
}

fn wrong(line: &Line<'_>, value: &Value, field: &str, expected: &str) -> crate::Error {
    match value.get(field) {
        Some(found) => {
            let found: String = found.to_string().chars().take(80).collect();
            line.wrong(format!("{field}: expected {expected}, found {found}"))
        }
        None => line.wrong(format!("{field} is missing: expected {expected}")),
    }
}

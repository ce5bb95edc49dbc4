//! Doubts about a measurement that its reader should know; changes no number.

use super::measured::{FailureReport, Measured};
use crate::run::FailureKind;

/// Lag of the generator above which latencies are in doubt, as its 99th percentile in milliseconds.
const LAG_P99_MS_MAX: f64 = 10.0;

/// Doubts about the numbers of one target.
#[must_use]
pub fn warnings(name: &str, measured: &Measured) -> Vec<String> {
    let mut said = Vec::new();
    let lag = measured.latency.schedule_lag_ms.p99;
    if lag > LAG_P99_MS_MAX {
        said.push(format!(
            "{name}: the generator itself was late (schedule lag p99 {lag:.1} ms): \
             use a quieter machine or a lower rate"
        ));
    }
    let tokens = measured.tokens;
    if tokens.without_usage > 0 {
        said.push(format!(
            "{name}: {} answers had no usage: their events were counted as tokens, \
             which is wrong where an event holds several",
            tokens.without_usage
        ));
    }
    if tokens.packed_events > 0 {
        said.push(format!(
            "{name}: in {} answers events held several tokens: their ITL is the mean gap per token \
             (a server with return_token_ids counts them: --extra '{{\"return_token_ids\": true}}')",
            tokens.packed_events
        ));
    }
    if tokens.short_answers > 0 {
        said.push(format!(
            "{name}: {} answers were shorter than asked for: does the server honour ignore_eos and min_tokens?",
            tokens.short_answers
        ));
    }
    said.extend(measured.failures.iter().filter_map(|failure| refused_field(name, failure)));
    said
}

/// Fields that a server may refuse, as `--without` names them.
const REFUSABLE: [(&str, &str); 3] =
    [("stream_options", "usage"), ("ignore_eos", "ignore-eos"), ("min_tokens", "min-tokens")];

/// Names the field that a server refuses, if its message does.
fn refused_field(name: &str, failure: &FailureReport) -> Option<String> {
    let is_refusal = matches!(failure.kind, FailureKind::Status(400 | 422));
    let (field, option) = REFUSABLE.iter().find(|(field, _)| is_refusal && failure.example.contains(field))?;
    Some(format!("{name}: the server seems to refuse {field}: leave it out with --without {option}"))
}

//! Record of one request as a line of JSON; judges nothing.

use serde::Serialize;

use crate::run::{FailureKind, Record};

/// Line of the file of records. Times are in milliseconds.
#[derive(Serialize)]
struct Line<'a> {
    target: &'a str,
    row: usize,
    warm_up: bool,
    class: Option<&'a str>,
    planned_ms: f64,
    sent_ms: f64,
    first_byte_ms: Option<f64>,
    /// Events with tokens: milliseconds since sending.
    token_ms: Vec<f64>,
    /// Tokens of each event.
    token_counts: Vec<u32>,
    end_ms: f64,
    ttft_ms: Option<f64>,
    tpot_ms: Option<f64>,
    e2e_ms: Option<f64>,
    input_tokens: u64,
    output_tokens: u64,
    output_tokens_asked: u32,
    counted_by: &'static str,
    finish_reason: Option<&'a str>,
    failure: Option<FailureKind>,
    message: Option<&'a str>,
}

/// Writes a record as JSON, without the end of the line. Rows before `warm_up` belong to the warm-up.
#[must_use]
pub fn record_line(target: &str, record: &Record, warm_up: usize) -> String {
    let ms = |us: u32| f64::from(us) / 1e3;
    let line = Line {
        target,
        row: record.row,
        warm_up: record.row < warm_up,
        class: record.class.as_deref(),
        planned_ms: record.planned_us as f64 / 1e3,
        sent_ms: record.sent_us as f64 / 1e3,
        first_byte_ms: record.first_byte_us.map(ms),
        token_ms: record.arrivals.iter().map(|arrival| ms(arrival.at_us)).collect(),
        token_counts: record.arrivals.iter().map(|arrival| arrival.tokens).collect(),
        end_ms: ms(record.end_us),
        ttft_ms: record.ttft_us().map(|us| us as f64 / 1e3),
        tpot_ms: record.tpot_us().map(|us| us / 1e3),
        e2e_ms: record.e2e_us().map(|us| us as f64 / 1e3),
        input_tokens: record.usage.map_or(record.input_tokens.into(), |usage| usage.prompt_tokens),
        output_tokens: record.tokens(),
        output_tokens_asked: record.output_tokens,
        counted_by: if record.usage.is_some() { "server" } else { "events" },
        finish_reason: record.finish_reason.as_deref(),
        failure: record.failure.as_ref().map(|failure| failure.kind),
        message: record.failure.as_ref().map(|failure| failure.message.as_str()),
    };
    // Numbers and texts only: nothing that JSON cannot say.
    serde_json::to_string(&line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::record;

    #[test]
    fn a_record_is_one_line() {
        let line = record_line("a", &record(&[(100, 1), (160, 2)], Some(3)), 0);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&value["token_ms"], &value["tpot_ms"]), (&serde_json::json!([100.0, 160.0]), &30.0.into()));
        assert_eq!((&value["counted_by"], &value["failure"]), (&"server".into(), &serde_json::Value::Null));
        assert!(!line.contains('\n'));
    }
}

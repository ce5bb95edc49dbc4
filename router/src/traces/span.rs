//! Spans of one request in the JSON form of OTLP: the request, and under it the parts of its time to first token and its
//! decoding, one after the other; knows no connection.

use sched::Span;
use serde_json::{Value, json};

use crate::request_log::Ended;

/// Kinds and codes of OTLP.
const KIND_INTERNAL: u8 = 1;
const KIND_SERVER: u8 = 2;
const STATUS_ERROR: u8 = 2;

/// Names of a request's spans.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpanIds {
    pub(super) trace: u128,
    pub(super) request: u64,
    pub(super) parent: Option<u64>,
    /// First of the numbers of the parts, which count up.
    pub(super) parts: u64,
}

/// Returns the spans of a request that has ended at `ended_ns`, in nanoseconds since 1970.
pub(super) fn spans(ended: &Ended<'_>, ids: SpanIds, ended_ns: u64) -> Vec<Value> {
    let began_ns = ended_ns.saturating_sub(ns(ended.summary.total));
    let trace = format!("{:032x}", ids.trace);
    let request = format!("{:016x}", ids.request);
    let mut spans = vec![json!({
        "traceId": trace,
        "spanId": request,
        "parentSpanId": ids.parent.map_or_else(String::new, |parent| format!("{parent:016x}")),
        "name": format!("POST {}", ended.endpoint),
        "kind": KIND_SERVER,
        "startTimeUnixNano": began_ns.to_string(),
        "endTimeUnixNano": ended_ns.to_string(),
        "attributes": attributes(ended),
        "status": if ended.status >= 500 { json!({"code": STATUS_ERROR, "message": ended.outcome}) } else { json!({}) },
    })];
    let mut at = began_ns;
    for (place, (name, span)) in (0..).zip(parts(ended)) {
        let end = at + ns(span);
        spans.push(json!({
            "traceId": trace,
            "spanId": format!("{:016x}", ids.parts.wrapping_add(place).max(1)),
            "parentSpanId": request,
            "name": name,
            "kind": KIND_INTERNAL,
            "startTimeUnixNano": at.to_string(),
            "endTimeUnixNano": end.to_string(),
        }));
        at = end;
    }
    spans
}

/// Parts of TTFT, and the rest of the request; none if it had no token.
fn parts(ended: &Ended<'_>) -> Vec<(&'static str, Span)> {
    let Some(ttft) = ended.summary.ttft else { return Vec::new() };
    let rest = Span(ended.summary.total.us().saturating_sub(ttft.total().us()));
    ttft.named().into_iter().chain([("decode", rest)]).collect()
}

fn attributes(ended: &Ended<'_>) -> Vec<Value> {
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let number = |key: &str, value: u64| json!({"key": key, "value": {"intValue": value.to_string()}});
    vec![
        text("http.route", ended.endpoint),
        number("http.response.status_code", ended.status.into()),
        text("gen_ai.request.model", ended.model),
        number("gen_ai.usage.input_tokens", ended.prompt_tokens),
        number("gen_ai.usage.cache_read.input_tokens", ended.cached_tokens),
        number("gen_ai.usage.output_tokens", ended.summary.tokens),
        text("baton.request", ended.trail.name()),
        text("baton.class", ended.class),
        text("baton.outcome", ended.outcome),
        number("baton.retries", ended.trail.retries().into()),
        text("baton.workers", &ended.trail.visited().to_string()),
    ]
}

fn ns(span: Span) -> u64 {
    span.us().saturating_mul(1_000)
}

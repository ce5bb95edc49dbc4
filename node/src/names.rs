//! Every metric of every Baton process: name, kind, labels and meaning in one table.
//!
//! All series carry the label `role`. Times are seconds, counts end in `_total`.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// Metric with its description.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Name.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Labels besides `role`.
    pub labels: &'static [&'static str],
    /// Meaning.
    pub help: &'static str,
}

/// Kind of a metric.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Has a value now.
    Gauge,
    /// A distribution, with the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

impl Kind {
    /// Returns the kind's name in Prometheus' text format.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        }
    }
}

/// Bounds for TTFT and whole requests: from a cached prompt on a GPU to a long one on a laptop.
const FIRST_TOKEN: &[f64] =
    &[0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 120.0];
/// Bounds for gaps between tokens.
const TOKEN_GAP: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0,
    5.0,
];
/// Bounds for parts of a latency and for transfers: from microseconds on one host.
const PART: &[f64] = &[
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0,
];

/// Bounds for the time that a device stands still between two steps.
const STEP_GAP: &[f64] =
    &[0.000001, 0.000002, 0.000005, 0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.1];

macro_rules! metrics_table {
    ($(#[doc = $help:literal] $constant:ident = $name:literal, $kind:expr, [$($label:literal),*];)*) => {
        $(#[doc = $help] pub const $constant: &str = $name;)*

        /// Every metric, in the order of the documentation.
        pub const ALL: &[Metric] =
            &[$(Metric { name: $name, kind: $kind, labels: &[$($label),*], help: $help.trim_ascii() },)*];
    };
}

metrics_table! {
    /// Time to first token as the client sees it, by SLO class.
    TTFT_SECONDS = "baton_ttft_seconds", Kind::Histogram(FIRST_TOKEN), ["class", "model"];
    /// Parts of the time to first token; they sum to the whole: parse, admission, queue, prefill, relay.
    TTFT_PART_SECONDS = "baton_ttft_part_seconds", Kind::Histogram(PART), ["part"];
    /// Gap between first and second token of a request that was handed over.
    HANDOFF_GAP_SECONDS = "baton_handoff_gap_seconds", Kind::Histogram(TOKEN_GAP), [];
    /// Parts of the hand-off gap; they sum to the whole: wait, transfer, queue, step.
    HANDOFF_GAP_PART_SECONDS = "baton_handoff_gap_part_seconds", Kind::Histogram(PART), ["part"];
    /// Mean time per output token after the first, per request, by SLO class.
    TPOT_SECONDS = "baton_tpot_seconds", Kind::Histogram(TOKEN_GAP), ["class", "model"];
    /// Every gap between two tokens of a stream, by SLO class.
    ITL_SECONDS = "baton_itl_seconds", Kind::Histogram(TOKEN_GAP), ["class", "model"];
    /// Time from the arrival of a request to its last byte, by SLO class.
    REQUEST_SECONDS = "baton_request_seconds", Kind::Histogram(FIRST_TOKEN), ["class", "model"];
    /// Requests that have ended, by SLO class and outcome: ok, or the kind of the failure.
    REQUESTS_TOTAL = "baton_requests_total", Kind::Counter, ["class", "model", "outcome"];
    /// Requests that are being served.
    REQUESTS_IN_FLIGHT = "baton_requests_in_flight", Kind::Gauge, [];
    /// Requests that count towards attainment: all that have ended, except those whose client left before a target was missed.
    SLO_JUDGED_TOTAL = "baton_slo_judged_total", Kind::Counter, ["class", "model"];
    /// Judged requests that were served and met a target of their class (ttft, tpot, itl); attainment is this over baton_slo_judged_total.
    SLO_ATTAINED_TOTAL = "baton_slo_attained_total", Kind::Counter, ["class", "model", "target"];
    /// Requests that met every target of their class; its rate is the goodput.
    GOODPUT_REQUESTS_TOTAL = "baton_goodput_requests_total", Kind::Counter, ["class", "model"];
    /// Choices that have ended, by reason: stop, length, abort (the client left) or error.
    CHOICES_TOTAL = "baton_choices_total", Kind::Counter, ["model", "reason"];
    /// Further attempts at a request, by the failure that made them necessary.
    RETRIES_TOTAL = "baton_retries_total", Kind::Counter, ["reason"];
    /// Requests whose hand-offs were lost too often, by what is done instead: local_prefill at a decode worker, or failed.
    HANDOFFS_GIVEN_UP_TOTAL = "baton_handoffs_given_up_total", Kind::Counter, ["instead"];
    /// Requests of each API key that make work, by outcome: begun, or the limit that refused it (requests, tokens, concurrency).
    KEY_REQUESTS_TOTAL = "baton_key_requests_total", Kind::Counter, ["key", "outcome"];
    /// Tokens of each API key, by kind: prompt, generated.
    KEY_TOKENS_TOTAL = "baton_key_tokens_total", Kind::Counter, ["key", "kind"];
    /// Requests that no key let in, by reason: missing, wrong, no_admin.
    KEY_REFUSED_TOTAL = "baton_key_refused_total", Kind::Counter, ["reason"];
    /// Files that were read again after a change (keys, tls), by outcome: ok, or failed, which leaves everything as it was.
    RELOADS_TOTAL = "baton_reloads_total", Kind::Counter, ["of", "outcome"];
    /// Traces of requests that no collector took in time; only in builds with traces.
    TRACES_DROPPED_TOTAL = "baton_traces_dropped_total", Kind::Counter, [];
    /// HTTP answers by path and status.
    HTTP_RESPONSES_TOTAL = "baton_http_responses_total", Kind::Counter, ["path", "status"];
    /// Whether the router has a session with a worker.
    WORKER_UP = "baton_worker_up", Kind::Gauge, ["worker", "worker_role"];
    /// Times that a worker was avoided for a while, because it had failed too many legs in a row.
    WORKER_AVOIDED_TOTAL = "baton_worker_avoided_total", Kind::Counter, ["worker"];
    /// Workers whose metrics could not be fetched.
    SCRAPE_FAILED_TOTAL = "baton_scrape_failed_total", Kind::Counter, ["worker"];
    /// Prompt tokens of the requests that were begun.
    PROMPT_TOKENS_TOTAL = "baton_prompt_tokens_total", Kind::Counter, [];
    /// Prompt tokens whose KV was found in the prefix cache.
    CACHED_TOKENS_TOTAL = "baton_cached_tokens_total", Kind::Counter, [];
    /// Tokens that were generated.
    GENERATED_TOKENS_TOTAL = "baton_generated_tokens_total", Kind::Counter, [];
    /// Sequences that lost their KV blocks to older ones and are computed again.
    PREEMPTIONS_TOTAL = "baton_preemptions_total", Kind::Counter, [];
    /// Time of each step, from the first thing that the device does for it to its last token.
    STEP_SECONDS = "baton_step_seconds", Kind::Histogram(TOKEN_GAP), [];
    /// Time that the device stood still before a step although there was work; should stay below about 0.5 % of the steps' own time.
    STEP_GAP_SECONDS = "baton_step_gap_seconds", Kind::Histogram(STEP_GAP), [];
    /// Share of the device that each lane of a co-located worker may use, from 0 to 1; both are 1 where nobody divides it. Lanes: prefill, decode.
    SHARE_RATIO = "baton_share_ratio", Kind::Gauge, ["lane"];
    /// Core time that each lane of a co-located worker has used, in microseconds.
    LANE_USED_MICROSECONDS_TOTAL = "baton_lane_used_microseconds_total", Kind::Counter, ["lane"];
    /// Decisions about the shares, by reason; most leave them as they are.
    SHARE_DECISIONS_TOTAL = "baton_share_decisions_total", Kind::Counter, ["reason"];
    /// Changes of the shares, by reason.
    SHARE_SWITCHES_TOTAL = "baton_share_switches_total", Kind::Counter, ["reason"];
    /// Time to set the shares of a device after a decision; on CPUs they hold from the next task on.
    SHARE_SWITCH_SECONDS = "baton_share_switch_seconds", Kind::Histogram(STEP_GAP), [];
    /// Latency of each lane as the last decision has measured it and as it has predicted it: TTFT and TPOT with the policy feedback, times of steps with predictive. Kinds: measured, predicted.
    SHARE_LATENCY_SECONDS = "baton_share_latency_seconds", Kind::Gauge, ["lane", "kind"];
    /// Part of the requests of the last window that met every target at the worker.
    SHARE_WINDOW_ATTAINMENT_RATIO = "baton_share_window_attainment_ratio", Kind::Gauge, [];
    /// Tokens that each expert of each layer has computed; only for models with experts. In the last layer, only tokens whose logits are computed count.
    EXPERT_TOKENS_TOTAL = "baton_expert_tokens_total", Kind::Counter, ["layer", "expert"];
    /// Sequences in the running batch.
    RUNNING_SEQUENCES = "baton_running_sequences", Kind::Gauge, [];
    /// Choices that wait for their giver or its KV, for blocks, for a slot or for their first chunk.
    WAITING_LEGS = "baton_waiting_legs", Kind::Gauge, [];
    /// Prompt tokens that still have to be prefilled.
    WAITING_TOKENS = "baton_waiting_tokens", Kind::Gauge, [];
    /// Legs whose KV is held for a reader.
    HELD_LEGS = "baton_held_legs", Kind::Gauge, [];
    /// KV blocks by state (free, cached, in_use, quarantined); the states sum to the pool.
    KV_BLOCKS = "baton_kv_blocks", Kind::Gauge, ["state"];
    /// Bytes of KV that were read from givers.
    KV_TRANSFER_BYTES_TOTAL = "baton_kv_transfer_bytes_total", Kind::Counter, ["transport"];
    /// Time of each transfer of a prompt's KV, from its start to its last byte.
    KV_TRANSFER_SECONDS = "baton_kv_transfer_seconds", Kind::Histogram(PART), ["transport"];
    /// Transfers of a prompt's KV that have ended, by end: done, failed, aborted.
    KV_TRANSFERS_TOTAL = "baton_kv_transfers_total", Kind::Counter, ["transport", "end"];
    /// Speed of a pair of workers, measured when they connected.
    KV_TRANSFER_BYTES_PER_SECOND = "baton_kv_transfer_bytes_per_second", Kind::Gauge, ["transport", "peer"];
    /// Hand-offs that have ended at this worker, by outcome: handed_over, reader_lost, joined, failed.
    HANDOFFS_TOTAL = "baton_handoffs_total", Kind::Counter, ["outcome"];
    /// Legs that this worker failed, by the kind of the failure.
    LEG_FAILURES_TOTAL = "baton_leg_failures_total", Kind::Counter, ["kind"];
    /// Givers this worker can read from.
    PEERS_UP = "baton_peers_up", Kind::Gauge, [];
    /// Legs of routers that have not ended.
    SESSION_LEGS = "baton_session_legs", Kind::Gauge, [];
    /// Messages about legs whose session with their router has ended.
    ORPHANED_MESSAGES_TOTAL = "baton_orphaned_messages_total", Kind::Counter, [];
    /// Things callers of the gRPC port tried that are not theirs to do, by reason: stranger, foreign_leg, foreign_lease.
    PLANE_TURNED_AWAY_TOTAL = "baton_plane_turned_away_total", Kind::Counter, ["reason"];
    /// Times that the accounting of KV blocks did not add up: a defect of ours.
    INVARIANTS_BROKEN_TOTAL = "baton_invariants_broken_total", Kind::Counter, [];
    /// 1 when tokens and log-probabilities do not depend on batch, chunking and placement.
    ENGINE_EXACT = "baton_engine_exact", Kind::Gauge, [];
    /// Lines to standard error or output that were dropped because nobody took them in time: logging never holds up serving.
    LOG_LINES_DROPPED_TOTAL = "baton_log_lines_dropped_total", Kind::Counter, ["stream"];
    /// Always 1; the labels say what runs.
    BUILD_INFO = "baton_build_info", Kind::Gauge, ["version", "model", "backend", "transport"];
}

/// Gives every metric its help text in the current recorder.
pub fn describe() {
    for metric in ALL {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, metric.help),
            Kind::Histogram(_) => describe_histogram!(metric.name, metric.help),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_documentation_lists_every_metric() {
        let page = include_str!("../../docs/metrics.md");
        for metric in ALL {
            let kind = metric.kind.label();
            let labels = if metric.labels.is_empty() { " ".to_owned() } else { metric.labels.join(", ") };
            let row = format!("| `{}` | {kind} | {labels} | {} |", metric.name, metric.help);
            assert!(page.contains(&row), "docs/metrics.md lacks the row {row}");
        }
        assert_eq!(page.matches("\n| `baton_").count(), ALL.len(), "docs/metrics.md has rows of no metric");
    }

    #[test]
    fn names_say_project_and_unit_once() {
        let names: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len(), "a name is used twice");
        for metric in ALL {
            assert!(metric.name.starts_with("baton_"), "{}", metric.name);
            assert!(metric.help.ends_with('.') && metric.help.len() > 20, "{}: {}", metric.name, metric.help);
            assert!(!metric.labels.contains(&"role"), "{}: role is on every metric", metric.name);
            match metric.kind {
                Kind::Counter => assert!(metric.name.ends_with("_total"), "{}", metric.name),
                Kind::Gauge => assert!(!metric.name.ends_with("_total"), "{}", metric.name),
                Kind::Histogram(buckets) => {
                    assert!(metric.name.ends_with("_seconds"), "{}", metric.name);
                    assert!(buckets.is_sorted() && buckets.len() > 10, "{}", metric.name);
                }
            }
        }
    }
}

//! The line that the log has for each request when it has ended, with a target of its own; knows no clock.

use std::time::Duration;

use node::telemetry::REQUEST_TARGET;
use sched::slo::{Summary, TtftParts};
use sched::{RequestId, Span};
use tracing::{Level, debug, info};

use crate::trail::Trail;

/// What is said of a request that generated, or was to.
pub(crate) struct Ended<'a> {
    pub(crate) trail: &'a Trail,
    /// Number of the request at the workers.
    pub(crate) id: RequestId,
    pub(crate) endpoint: &'static str,
    pub(crate) model: &'a str,
    pub(crate) class: &'a str,
    /// Name of the client's API key.
    pub(crate) key: Option<&'a str>,
    pub(crate) outcome: &'static str,
    /// Status that the client got, or would have.
    pub(crate) status: u16,
    pub(crate) prompt_tokens: u64,
    /// Those of them that prefix caches had.
    pub(crate) cached_tokens: u64,
    pub(crate) summary: &'a Summary,
}

impl Ended<'_> {
    /// Writes the line. All times are whole microseconds, so that the parts of TTFT sum to it exactly.
    pub(crate) fn log(&self) {
        if !tracing::enabled!(target: REQUEST_TARGET, Level::INFO) {
            return;
        }
        let Ended { trail, summary, .. } = self;
        let part = |part: fn(&TtftParts) -> Span| summary.ttft.map(|parts| part(&parts).us());
        let visited = trail.visited();
        info!(
            target: REQUEST_TARGET,
            request = trail.name(),
            id = trail.id_beside_name(self.id),
            endpoint = self.endpoint,
            model = self.model,
            class = self.class,
            key = self.key,
            outcome = self.outcome,
            status = self.status,
            prompt_tokens = self.prompt_tokens,
            cached_tokens = self.cached_tokens,
            tokens = summary.tokens,
            ttft_us = part(TtftParts::total),
            parse_us = part(|parts| parts.parse),
            admission_us = part(|parts| parts.admission),
            queue_us = part(|parts| parts.queue),
            prefill_us = part(|parts| parts.prefill),
            relay_us = part(|parts| parts.relay),
            tpot_us = summary.tpot.map(Span::us),
            e2e_us = summary.total.us(),
            retries = trail.retries(),
            workers = (!visited.is_empty()).then(|| visited.to_string()),
            "request ended"
        );
    }
}

/// Writes a line, for debugging only, about a request of another kind: probes and scrapes come every few seconds.
pub(crate) fn other(name: &str, endpoint: &'static str, status: u16, took: Duration) {
    let e2e_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    debug!(target: REQUEST_TARGET, request = name, endpoint, status, e2e_us, "request ended");
}

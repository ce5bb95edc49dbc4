//! Results of a simulation.

use std::collections::BTreeMap;

use sched::journey::Ending;
use sched::share::Decision;
use sched::slo::{Attainment, Summary};
use sched::{Span, Time, WorkerId};

/// Result of a simulation that ended without a leak.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// One entry per arrival, in order of arrival.
    pub requests: Vec<RequestReport>,
    /// Attainment per class.
    pub classes: BTreeMap<u16, Attainment>,
    /// Time at which the last request ended.
    pub ended_at: Time,
    /// Events until nothing was left to happen.
    pub events: u64,
    /// Hash of the event log.
    pub log_hash: u64,
    /// KV bytes that readers pulled.
    pub moved_bytes: u64,
    /// Steps that ended, cancelled ones included.
    pub steps: u64,
    /// Times that a sequence lost its blocks to another, at the workers that are alive at the end.
    pub preemptions: u64,
    /// Decisions about the shares of workers whose lanes share a device, in order.
    pub decisions: Vec<(WorkerId, Decision)>,
}

/// Result of one request.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestReport {
    /// Latencies and verdict.
    pub summary: Summary,
    /// How the request ended.
    pub ending: Ending,
    /// Legs that were lost.
    pub retries: u32,
    /// Hash over (choice, index, token) of everything the client got, in the order of choice and index.
    pub output_hash: u64,
}

impl Report {
    /// Mean time to first token over the requests that got one.
    #[must_use]
    pub fn ttft_mean(&self) -> Option<Span> {
        mean(self.requests.iter().filter_map(|request| request.summary.ttft.map(|parts| parts.total())))
    }

    /// Mean time per output token over the requests that have one.
    #[must_use]
    pub fn tpot_mean(&self) -> Option<Span> {
        mean(self.requests.iter().filter_map(|request| request.summary.tpot))
    }
}

fn mean(spans: impl Iterator<Item = Span>) -> Option<Span> {
    let (sum, count) = spans.fold((0_u64, 0_u64), |(sum, count), span| (sum + span.us(), count + 1));
    sum.checked_div(count).map(Span)
}

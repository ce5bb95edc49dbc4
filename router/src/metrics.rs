//! Counts and latencies of the router, by latency class; knows no HTTP.

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use node::names;
use sched::slo::{GapParts, Observation, Outcome, RequestRecord, Summary, Target, TtftParts};
use sched::{Choice, FailureKind, RequestId, Slo, Span, Time};
use tracing::info;

use crate::clock::Clock;
use crate::openai::ApiError;
use crate::slo::SloConfig;

const ROLE: &str = "router";

/// Handles of all series, made once, as a look-up by labels costs more than recording.
#[derive(Debug)]
pub(crate) struct RouterMetrics {
    classes: Vec<ClassMetrics>,
    ttft_parts: Vec<Histogram>,
    gap: Histogram,
    gap_parts: Vec<Histogram>,
    prompt_tokens: Counter,
    generated_tokens: Counter,
    in_flight: Gauge,
}

#[derive(Debug)]
struct ClassMetrics {
    name: String,
    ttft: Histogram,
    tpot: Histogram,
    itl: Histogram,
    request: Histogram,
    attained_ttft: Counter,
    attained_tpot: Counter,
    attained_itl: Counter,
    goodput: Counter,
}

impl RouterMetrics {
    pub(crate) fn new(slo: &SloConfig) -> RouterMetrics {
        let ttft_part = |(part, _)| histogram!(names::TTFT_PART_SECONDS, "role" => ROLE, "part" => part);
        let gap_part = |(part, _)| histogram!(names::HANDOFF_GAP_PART_SECONDS, "role" => ROLE, "part" => part);
        RouterMetrics {
            classes: slo.classes.iter().map(|class| ClassMetrics::new(&class.name)).collect(),
            ttft_parts: TtftParts::default().named().into_iter().map(ttft_part).collect(),
            gap: histogram!(names::HANDOFF_GAP_SECONDS, "role" => ROLE),
            gap_parts: GapParts::default().named().into_iter().map(gap_part).collect(),
            prompt_tokens: counter!(names::PROMPT_TOKENS_TOTAL, "role" => ROLE),
            generated_tokens: counter!(names::GENERATED_TOKENS_TOTAL, "role" => ROLE),
            in_flight: gauge!(names::REQUESTS_IN_FLIGHT, "role" => ROLE),
        }
    }

    fn observe(&self, slo: &Slo, seen: &Observation) {
        self.generated_tokens.increment(1);
        let Some(class) = self.classes.get(usize::from(slo.class)) else { return };
        if let Some(parts) = seen.ttft {
            class.ttft.record(parts.total().secs_f64());
            for (histogram, (_, span)) in self.ttft_parts.iter().zip(parts.named()) {
                histogram.record(span.secs_f64());
            }
        }
        if let Some(itl) = seen.itl {
            class.itl.record(itl.secs_f64());
        }
        if let Some(parts) = seen.handoff_gap {
            self.gap.record(parts.total().secs_f64());
            for (histogram, (_, span)) in self.gap_parts.iter().zip(parts.named()) {
                histogram.record(span.secs_f64());
            }
        }
    }

    fn ended(&self, summary: &Summary, outcome: &'static str) {
        let Some(class) = self.classes.get(usize::from(summary.class)) else { return };
        let name = class.name.clone();
        counter!(names::REQUESTS_TOTAL, "role" => ROLE, "class" => name, "outcome" => outcome).increment(1);
        class.request.record(summary.total.secs_f64());
        if let Some(tpot) = summary.tpot {
            class.tpot.record(tpot.secs_f64());
        }
        class.attained(summary);
    }
}

impl ClassMetrics {
    fn new(class: &str) -> ClassMetrics {
        let named = |metric| histogram!(metric, "role" => ROLE, "class" => class.to_owned());
        let attained = |target: &'static str| counter!(names::SLO_ATTAINED_TOTAL, "role" => ROLE, "class" => class.to_owned(), "target" => target);
        ClassMetrics {
            name: class.to_owned(),
            ttft: named(names::TTFT_SECONDS),
            tpot: named(names::TPOT_SECONDS),
            itl: named(names::ITL_SECONDS),
            request: named(names::REQUEST_SECONDS),
            attained_ttft: attained("ttft"),
            attained_tpot: attained("tpot"),
            attained_itl: attained("itl"),
            goodput: counter!(names::GOODPUT_REQUESTS_TOTAL, "role" => ROLE, "class" => class.to_owned()),
        }
    }

    /// Counts attained targets over all arrivals; refused and failed requests attain none.
    fn attained(&self, summary: &Summary) {
        let served = match summary.outcome {
            Outcome::Done | Outcome::ClientGone => true,
            Outcome::Refused | Outcome::Failed => false,
        };
        let verdict = &summary.verdict;
        let targets = [
            (&self.attained_ttft, verdict.ttft),
            (&self.attained_tpot, verdict.tpot),
            (&self.attained_itl, verdict.itl_tail),
        ];
        for (counter, target) in targets {
            counter.increment(u64::from(served && target != Target::Missed));
        }
        self.goodput.increment(u64::from(summary.met()));
    }
}

/// Account of one request from its arrival to its end, however it ends.
#[derive(Debug)]
pub(crate) struct Account {
    metrics: Arc<RouterMetrics>,
    clock: Clock,
    /// Client's name for the request.
    name: Arc<str>,
    /// Number of the request at the workers.
    id: RequestId,
    slo: Slo,
    record: RequestRecord,
    stage: Stage,
    prompt_tokens: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    Closed,
}

impl Account {
    /// Opens the account on arrival, under a class that the body may change.
    pub(crate) fn open(
        metrics: &Arc<RouterMetrics>,
        clock: Clock,
        config: &SloConfig,
        slo: Slo,
        (name, id): (String, RequestId),
    ) -> Account {
        metrics.in_flight.increment(1.0);
        let record = RequestRecord::new(clock.now(), slo, config.itl_quantile(&slo));
        Account {
            metrics: Arc::clone(metrics),
            clock,
            name: name.into(),
            id,
            slo,
            record,
            stage: Stage::Open,
            prompt_tokens: 0,
        }
    }

    /// Notes that the request has been parsed and tokenised.
    pub(crate) fn parsed(&mut self, slo: Slo, prompt_tokens: u64) {
        self.slo = slo;
        self.prompt_tokens = prompt_tokens;
        self.record.parsed(self.clock.now(), slo);
        self.metrics.prompt_tokens.increment(prompt_tokens);
    }

    /// Notes that the request has been handed to the workers.
    pub(crate) fn admitted(&mut self) {
        self.record.admitted(self.clock.now());
    }

    /// Notes a token that goes to the client.
    pub(crate) fn token(&mut self, now: Time, delivery: &sched::journey::Delivery, index: u32) {
        let seen = self.record.token(now, Choice(index), delivery.submitted, delivery.timing);
        self.metrics.observe(&self.slo, &seen);
    }

    pub(crate) fn done(&mut self) {
        self.close(Outcome::Done, "ok");
    }

    pub(crate) fn failed(&mut self, error: &ApiError) {
        let outcome = match error.kind {
            FailureKind::Overloaded => Outcome::Refused,
            FailureKind::Cancelled => Outcome::ClientGone,
            FailureKind::InvalidRequest
            | FailureKind::TooLong
            | FailureKind::NotFound
            | FailureKind::Unavailable
            | FailureKind::DeadlineExceeded
            | FailureKind::WorkerLost
            | FailureKind::KvLost
            | FailureKind::Incompatible
            | FailureKind::Internal => Outcome::Failed,
        };
        self.close(outcome, error.kind.label());
    }

    /// Returns the client's name for the request, and its number at the workers.
    pub(crate) fn called(&self) -> (Arc<str>, RequestId) {
        (Arc::clone(&self.name), self.id)
    }

    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    fn close(&mut self, outcome: Outcome, label: &'static str) {
        if self.stage == Stage::Closed {
            return;
        }
        self.stage = Stage::Closed;
        self.metrics.in_flight.decrement(1.0);
        let summary = self.record.clone().end(self.clock.now(), outcome);
        self.metrics.ended(&summary, label);
        let ms = |span: Span| (span.us() as f64 / 10.0).round() / 100.0;
        let id = self.id.to_string();
        info!(
            request = &*self.name,
            // A name that the router gave contains the number already.
            id = (id != *self.name).then_some(id),
            outcome = label,
            prompt_tokens = self.prompt_tokens,
            tokens = summary.tokens,
            ttft_ms = summary.ttft.map(|parts| ms(parts.total())),
            tpot_ms = summary.tpot.map(ms),
            total_ms = ms(summary.total),
            "request ended"
        );
    }
}

/// Closes an account without a known end: its client has gone, or the router has panicked.
impl Drop for Account {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.close(Outcome::Failed, FailureKind::Internal.label());
        } else {
            self.close(Outcome::ClientGone, FailureKind::Cancelled.label());
        }
    }
}

/// Count of one request at the HTTP surface, by path and status of its answer.
#[derive(Debug)]
pub(crate) struct ResponseCount {
    path: &'static str,
    /// Status that is counted if no answer is reported.
    status: u16,
}

/// Status for an answer that no client was there to get; other servers use the same number.
const CLIENT_GONE: u16 = 499;

impl ResponseCount {
    pub(crate) fn open(path: &'static str) -> ResponseCount {
        ResponseCount { path, status: CLIENT_GONE }
    }

    pub(crate) fn close(mut self, status: u16) {
        self.status = status;
    }
}

impl Drop for ResponseCount {
    fn drop(&mut self) {
        let (path, status) = (self.path, self.status.to_string());
        counter!(names::HTTP_RESPONSES_TOTAL, "role" => ROLE, "path" => path, "status" => status).increment(1);
    }
}

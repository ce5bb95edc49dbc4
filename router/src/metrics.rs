//! Counts and latencies of the router, by latency class; knows no HTTP.

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use node::names;
use sched::journey::Instead;
use sched::slo::{GapParts, Judgement, Observation, Outcome, RequestRecord, Summary, Target, TtftParts};
use sched::{Choice, FailureKind, FinishReason, RequestId, Slo, Time};

use crate::MetricsSource;
use crate::clock::Clock;
use crate::keys::{TokenKind, Visitor};
use crate::openai::ApiError;
use crate::request_log::Ended;
use crate::slo::SloConfig;
use crate::traces::{Parent, Traces};
use crate::trail::Trail;

const ROLE: &str = "router";

/// Handles of all series, made once, as a look-up by labels costs more than recording.
#[derive(Debug)]
pub(crate) struct RouterMetrics {
    /// Name of the model, as a label.
    model: Arc<str>,
    traces: Traces,
    classes: Vec<ClassMetrics>,
    choices: ChoiceCounts,
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
    model: Arc<str>,
    ttft: Histogram,
    tpot: Histogram,
    itl: Histogram,
    request: Histogram,
    judged: Counter,
    attained_ttft: Counter,
    attained_tpot: Counter,
    attained_itl: Counter,
    goodput: Counter,
}

/// Choices by the reason for which they ended.
#[derive(Debug)]
struct ChoiceCounts {
    stop: Counter,
    length: Counter,
    abort: Counter,
    error: Counter,
}

impl RouterMetrics {
    /// Makes the series of a router of one model. Every series whose labels are known is there from the start with 0:
    /// the rate of a counter that appears with 1 is 0, so its first event would be missed.
    pub(crate) fn new(slo: &SloConfig, model: &str, metrics_of: &[MetricsSource], traces: Traces) -> RouterMetrics {
        let model: Arc<str> = model.into();
        let ttft_part = |(part, _)| histogram!(names::TTFT_PART_SECONDS, "role" => ROLE, "part" => part);
        let gap_part = |(part, _)| histogram!(names::HANDOFF_GAP_PART_SECONDS, "role" => ROLE, "part" => part);
        start_at_zero(metrics_of);
        RouterMetrics {
            traces,
            classes: slo.classes.iter().map(|class| ClassMetrics::new(&class.name, &model)).collect(),
            choices: ChoiceCounts::new(&model),
            model,
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
        class.requests(outcome).increment(1);
        class.request.record(summary.total.secs_f64());
        if let Some(tpot) = summary.tpot {
            class.tpot.record(tpot.secs_f64());
        }
        class.attained(summary);
    }
}

/// Registers series that are counted where they happen, by their labels.
fn start_at_zero(metrics_of: &[MetricsSource]) {
    for kind in FailureKind::ALL.into_iter().filter(|kind| sched::journey::may_be_retried(*kind)) {
        counter!(names::RETRIES_TOTAL, "role" => ROLE, "reason" => kind.label()).increment(0);
    }
    for instead in [Instead::LocalPrefill, Instead::Failure] {
        counter!(names::HANDOFFS_GIVEN_UP_TOTAL, "role" => ROLE, "instead" => instead.label()).increment(0);
    }
    for source in metrics_of {
        counter!(names::SCRAPE_FAILED_TOTAL, "role" => ROLE, "worker" => source.worker.clone()).increment(0);
    }
}

impl ChoiceCounts {
    fn new(model: &Arc<str>) -> ChoiceCounts {
        let count = |reason: &'static str| {
            let counter =
                counter!(names::CHOICES_TOTAL, "role" => ROLE, "model" => model.to_string(), "reason" => reason);
            counter.increment(0);
            counter
        };
        ChoiceCounts { stop: count("stop"), length: count("length"), abort: count("abort"), error: count("error") }
    }

    fn finished(&self, reason: FinishReason) {
        match reason {
            FinishReason::Stop => self.stop.increment(1),
            FinishReason::Length => self.length.increment(1),
        }
    }

    /// Counts choices that their request's end has cut off.
    fn cut_off(&self, choices: u64, outcome: Outcome) {
        match outcome {
            Outcome::Done => {}
            Outcome::ClientGone => self.abort.increment(choices),
            Outcome::Refused | Outcome::Failed => self.error.increment(choices),
        }
    }
}

/// Outcome of a request that was answered, as a label.
const OK: &str = "ok";

impl ClassMetrics {
    fn new(class: &str, model: &Arc<str>) -> ClassMetrics {
        let labels = || [("role", ROLE.to_owned()), ("class", class.to_owned()), ("model", model.to_string())];
        let named = |metric: &'static str| histogram!(metric, &labels());
        let count = |metric: &'static str| {
            let counter = counter!(metric, &labels());
            counter.increment(0);
            counter
        };
        let attained = |target: &str| {
            let [role, class, model] = labels();
            let counter = counter!(names::SLO_ATTAINED_TOTAL, &[role, class, model, ("target", target.to_owned())]);
            counter.increment(0);
            counter
        };
        let class = ClassMetrics {
            name: class.to_owned(),
            model: Arc::clone(model),
            ttft: named(names::TTFT_SECONDS),
            tpot: named(names::TPOT_SECONDS),
            itl: named(names::ITL_SECONDS),
            request: named(names::REQUEST_SECONDS),
            attained_ttft: attained("ttft"),
            attained_tpot: attained("tpot"),
            attained_itl: attained("itl"),
            judged: count(names::SLO_JUDGED_TOTAL),
            goodput: count(names::GOODPUT_REQUESTS_TOTAL),
        };
        for outcome in FailureKind::ALL.map(FailureKind::label).into_iter().chain([OK]) {
            class.requests(outcome).increment(0);
        }
        class
    }

    fn requests(&self, outcome: &'static str) -> Counter {
        let labels = [
            ("role", ROLE.to_owned()),
            ("class", self.name.clone()),
            ("model", self.model.to_string()),
            ("outcome", outcome.to_owned()),
        ];
        counter!(names::REQUESTS_TOTAL, &labels)
    }

    /// Counts attained targets of judged requests; refused and failed ones attain none.
    fn attained(&self, summary: &Summary) {
        match summary.judgement() {
            Judgement::Left => return,
            Judgement::Met | Judgement::Missed => self.judged.increment(1),
        }
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
    trail: Arc<Trail>,
    /// Number of the request at the workers.
    id: RequestId,
    endpoint: &'static str,
    slo: Slo,
    /// Who pays for the tokens.
    visitor: Visitor,
    record: RequestRecord,
    stage: Stage,
    prompt_tokens: u64,
    /// Those of them that prefix caches had.
    cached_tokens: u64,
    /// Choices that were asked for and have not ended.
    open_choices: u64,
}

/// What is known of a request on its arrival.
#[derive(Debug, Clone)]
pub(crate) struct Opening<'a> {
    pub(crate) name: &'a str,
    pub(crate) id: RequestId,
    pub(crate) endpoint: &'static str,
    /// Place in the client's trace.
    pub(crate) parent: Option<Parent>,
    /// Who pays for the tokens.
    pub(crate) visitor: Visitor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// The status of the answer is sent.
    Answering,
    Closed,
}

/// Status of an answer that went well.
const STATUS_OK: u16 = 200;

impl Account {
    /// Opens the account on arrival, under a class that the body may change.
    pub(crate) fn open(
        metrics: &Arc<RouterMetrics>,
        clock: Clock,
        config: &SloConfig,
        slo: Slo,
        opening: Opening<'_>,
    ) -> Account {
        let Opening { name, id, endpoint, parent, visitor } = opening;
        metrics.in_flight.increment(1.0);
        let record = RequestRecord::new(clock.now(), slo, config.itl_quantile(&slo));
        Account {
            metrics: Arc::clone(metrics),
            clock,
            trail: Arc::new(Trail::of(name, parent)),
            id,
            endpoint,
            slo,
            visitor,
            record,
            stage: Stage::Open,
            prompt_tokens: 0,
            cached_tokens: 0,
            open_choices: 0,
        }
    }

    /// Notes that the request has been parsed and tokenised, and how many choices it asks for.
    pub(crate) fn parsed(&mut self, slo: Slo, prompt_tokens: u64, choices: u64) {
        self.slo = slo;
        self.open_choices = choices;
        self.prompt_tokens = prompt_tokens;
        let now = self.clock.now();
        self.record.parsed(now, slo);
        self.visitor.spend(TokenKind::Prompt, prompt_tokens, now);
        self.metrics.prompt_tokens.increment(prompt_tokens);
    }

    /// Notes how many tokens of a prompt a prefix cache had.
    pub(crate) fn found_cached(&mut self, tokens: u32) {
        self.cached_tokens += u64::from(tokens);
    }

    /// Notes that the request has been handed to the workers.
    pub(crate) fn admitted(&mut self) {
        self.record.admitted(self.clock.now());
    }

    /// Notes a token that goes to the client.
    pub(crate) fn token(&mut self, now: Time, delivery: &sched::journey::Delivery, index: u32) {
        self.visitor.spend(TokenKind::Generated, 1, now);
        let seen = self.record.token(now, Choice(index), delivery.submitted, delivery.timing);
        self.metrics.observe(&self.slo, &seen);
    }

    /// Notes that a choice has ended as it should.
    pub(crate) fn choice_ended(&mut self, index: u32, reason: FinishReason) {
        self.record.choice_ended(Choice(index));
        self.open_choices = self.open_choices.saturating_sub(1);
        self.metrics.choices.finished(reason);
    }

    /// Notes that the status of the answer is sent.
    pub(crate) fn answering(&mut self) {
        if self.stage == Stage::Open {
            self.stage = Stage::Answering;
        }
    }

    pub(crate) fn done(&mut self) {
        self.close(Outcome::Done, OK, STATUS_OK);
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
        self.close(outcome, error.kind.label(), error.status);
    }

    /// Returns the trail of the request, and its number at the workers.
    pub(crate) fn called(&self) -> (Arc<Trail>, RequestId) {
        (Arc::clone(&self.trail), self.id)
    }

    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    fn close(&mut self, outcome: Outcome, label: &'static str, status: u16) {
        let status = match self.stage {
            Stage::Closed => return,
            Stage::Answering => STATUS_OK,
            Stage::Open => status,
        };
        self.stage = Stage::Closed;
        self.metrics.in_flight.decrement(1.0);
        self.metrics.choices.cut_off(self.open_choices, outcome);
        let summary = self.record.clone().end(self.clock.now(), outcome);
        self.metrics.ended(&summary, label);
        let ended = Ended {
            trail: &self.trail,
            id: self.id,
            endpoint: self.endpoint,
            model: &self.metrics.model,
            class: self.metrics.classes.get(usize::from(summary.class)).map_or("?", |class| &class.name),
            key: self.visitor.name(),
            outcome: label,
            status,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            summary: &summary,
        };
        ended.log();
        self.metrics.traces.ended(&ended);
    }
}

/// Closes an account without a known end: its client has gone, or the router has panicked.
impl Drop for Account {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.close(Outcome::Failed, FailureKind::Internal.label(), FailureKind::Internal.http_status());
        } else {
            self.close(Outcome::ClientGone, FailureKind::Cancelled.label(), CLIENT_GONE);
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

//! Metrics of a worker of any role: load, tokens, hand-offs, transfers. Knows messages, not the code that computes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use proto::TurnedAway;
use sched::cost::Phase;
use sched::message::{FromWorker, Load, ToWorker};
use sched::share::{Decision, WindowReport};
use sched::{FailureKind, LaneId, Role, Span};

use node::names;
use node::telemetry::LiveGauge;

/// Lanes of a co-located worker, in order of their ids.
const LANES: [(&str, Phase); 2] = [("prefill", Phase::Prefill), ("decode", Phase::Decode)];

/// Facts about a worker that do not change.
#[derive(Debug, Clone)]
pub struct WorkerFacts {
    /// Name of the model.
    pub model: String,
    /// Backend and kernel set that compute.
    pub backend: String,
    /// True if results depend on the request alone.
    pub exact: bool,
}

/// Live counters of the tokens that each expert of each layer has computed.
#[derive(Clone)]
pub struct ExpertTokens {
    /// Layers that have experts.
    pub layers: Vec<u32>,
    /// Experts per layer.
    pub experts: usize,
    /// Counters by `[layers][experts]`, still counted up by the engine.
    pub tokens: Arc<dyn AsRef<[AtomicU64]> + Send + Sync>,
}

struct ExpertSeries {
    tokens: Arc<dyn AsRef<[AtomicU64]> + Send + Sync>,
    counters: Vec<Counter>,
}

/// Metric series of one worker, registered once.
#[derive(Clone)]
pub struct WorkerMetrics {
    role: &'static str,
    transport: String,
    running: Gauge,
    waiting: Gauge,
    waiting_tokens: Gauge,
    held: Gauge,
    blocks: [Gauge; 4],
    prompt_tokens: Counter,
    cached_tokens: Counter,
    generated_tokens: Counter,
    preemptions: Counter,
    foreign_claims: Counter,
    handed_over: Counter,
    reader_lost: Counter,
    joined: Counter,
    handoff_failed: Counter,
    orphans: Counter,
    invariants_broken: Counter,
    session_legs: Gauge,
    peers_up: Gauge,
    transfer_bytes: Counter,
    transfer_seconds: Histogram,
    step_seconds: Histogram,
    step_gap_seconds: Histogram,
    /// Set once a model with experts is loaded.
    experts: Arc<OnceLock<ExpertSeries>>,
}

impl WorkerMetrics {
    /// Registers the series of a worker in the process's recorder; most start at zero, so that they show at once.
    #[must_use]
    pub fn new(role: Role, transport: &str) -> WorkerMetrics {
        let (role, transport) = (role.label(), transport.to_owned());
        let block = |state: &'static str| gauge!(names::KV_BLOCKS, "role" => role, "state" => state);
        let handoff = |outcome: &'static str| counter!(names::HANDOFFS_TOTAL, "role" => role, "outcome" => outcome);
        let metrics = WorkerMetrics {
            role,
            running: gauge!(names::RUNNING_SEQUENCES, "role" => role),
            waiting: gauge!(names::WAITING_LEGS, "role" => role),
            waiting_tokens: gauge!(names::WAITING_TOKENS, "role" => role),
            held: gauge!(names::HELD_LEGS, "role" => role),
            blocks: ["free", "cached", "in_use", "quarantined"].map(block),
            prompt_tokens: counter!(names::PROMPT_TOKENS_TOTAL, "role" => role),
            cached_tokens: counter!(names::CACHED_TOKENS_TOTAL, "role" => role),
            generated_tokens: counter!(names::GENERATED_TOKENS_TOTAL, "role" => role),
            preemptions: counter!(names::PREEMPTIONS_TOTAL, "role" => role),
            foreign_claims: counter!(names::PLANE_TURNED_AWAY_TOTAL, "role" => role, "reason" => "foreign_lease"),
            handed_over: handoff("handed_over"),
            reader_lost: handoff("reader_lost"),
            joined: handoff("joined"),
            handoff_failed: handoff("failed"),
            orphans: counter!(names::ORPHANED_MESSAGES_TOTAL, "role" => role),
            invariants_broken: counter!(names::INVARIANTS_BROKEN_TOTAL, "role" => role),
            session_legs: gauge!(names::SESSION_LEGS, "role" => role),
            peers_up: gauge!(names::PEERS_UP, "role" => role),
            transfer_bytes: counter!(names::KV_TRANSFER_BYTES_TOTAL, "role" => role, "transport" => transport.clone()),
            transfer_seconds: histogram!(names::KV_TRANSFER_SECONDS, "role" => role, "transport" => transport.clone()),
            step_seconds: histogram!(names::STEP_SECONDS, "role" => role),
            step_gap_seconds: histogram!(names::STEP_GAP_SECONDS, "role" => role),
            transport,
            experts: Arc::default(),
        };
        metrics.start_at_zero();
        metrics
    }

    /// Exports the facts that do not change.
    pub fn runs(&self, facts: &WorkerFacts) {
        gauge!(names::ENGINE_EXACT, "role" => self.role).set(if facts.exact { 1.0 } else { 0.0 });
        let labels = [
            ("role", self.role.to_owned()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("model", facts.model.clone()),
            ("backend", facts.backend.clone()),
            ("transport", self.transport.clone()),
        ];
        gauge!(names::BUILD_INFO, &labels).set(1.0);
    }

    /// Exports the tokens of each expert from now on, with each load. Only the first call has an effect.
    pub fn count_experts(&self, counted: ExpertTokens) {
        let ExpertTokens { layers, experts, tokens } = counted;
        let pairs = layers.iter().flat_map(|layer| (0..experts).map(move |expert| (*layer, expert)));
        let counters = pairs.map(|(layer, expert)| {
            let labels = [("role", self.role.to_owned()), ("layer", layer.to_string()), ("expert", expert.to_string())];
            counter!(names::EXPERT_TOKENS_TOTAL, &labels)
        });
        let series = ExpertSeries { counters: counters.collect(), tokens };
        self.experts.get_or_init(|| series).export();
    }

    fn start_at_zero(&self) {
        self.load(&Load::default());
        self.session_legs.set(0.0);
        self.peers_up.set(0.0);
        let counters =
            [&self.prompt_tokens, &self.generated_tokens, &self.handed_over, &self.reader_lost, &self.joined];
        let others = [&self.handoff_failed, &self.orphans, &self.transfer_bytes, &self.invariants_broken];
        for counter in counters.into_iter().chain(others) {
            counter.increment(0);
        }
        for reason in TurnedAway::ALL {
            counter!(names::PLANE_TURNED_AWAY_TOTAL, "role" => self.role, "reason" => reason.label()).increment(0);
        }
        for end in ["done", "failed", "aborted"] {
            self.transfers_ended(end).increment(0);
        }
        for kind in FailureKind::ALL {
            counter!(names::LEG_FAILURES_TOTAL, "role" => self.role, "kind" => kind.label()).increment(0);
        }
    }

    /// Exports a decision about the shares of the lanes, and the time that it took to set them.
    pub fn divided(&self, decision: &Decision, took: Duration) {
        let role = self.role;
        for (lane, phase) in LANES {
            gauge!(names::SHARE_RATIO, "role" => role, "lane" => lane).set(decision.split.share_of(phase));
        }
        let of_reason = |name: &'static str| counter!(name, "role" => role, "reason" => decision.reason.label());
        of_reason(names::SHARE_DECISIONS_TOTAL).increment(1);
        of_reason(names::SHARE_SWITCHES_TOTAL).increment(u64::from(decision.switches()));
        if decision.switches() {
            histogram!(names::SHARE_SWITCH_SECONDS, "role" => role).record(took.as_secs_f64());
        }
        for (kind, latencies) in [("measured", decision.measured), ("predicted", decision.predicted)] {
            for (lane, latency) in [("prefill", latencies.prefill), ("decode", latencies.decode)] {
                if let Some(latency) = latency {
                    let labels = [("role", role), ("lane", lane), ("kind", kind)];
                    gauge!(names::SHARE_LATENCY_SECONDS, &labels).set(latency.0 as f64 / 1e6);
                }
            }
        }
        if let Some(attainment) = decision.window.as_ref().and_then(WindowReport::attainment) {
            gauge!(names::SHARE_WINDOW_ATTAINMENT_RATIO, "role" => role).set(attainment);
        }
    }

    /// Exports the device time that the lanes have used.
    pub fn used(&self, used: &[(LaneId, Duration)]) {
        for ((lane, _), (_, used)) in LANES.iter().zip(used) {
            let counter = counter!(names::LANE_USED_MICROSECONDS_TOTAL, "role" => self.role, "lane" => *lane);
            counter.absolute(used.as_micros() as u64);
        }
    }

    /// Exports the worker's load, and the scheduler's counts since its start.
    pub fn load(&self, load: &Load) {
        self.running.set(f64::from(load.running));
        self.waiting.set(f64::from(load.waiting));
        self.waiting_tokens.set(load.waiting_tokens as f64);
        self.held.set(f64::from(load.held));
        let blocks = [load.blocks_free, load.blocks_cached, load.blocks_in_use, load.blocks_quarantined];
        for (gauge, count) in self.blocks.iter().zip(blocks) {
            gauge.set(f64::from(count));
        }
        self.cached_tokens.absolute(load.cached_tokens);
        self.preemptions.absolute(load.preemptions);
        self.foreign_claims.absolute(load.foreign_claims);
        if let Some(experts) = self.experts.get() {
            experts.export();
        }
    }

    /// Counts the prompt tokens of a router's message that was taken in.
    pub fn taken(&self, prompt_tokens: u64) {
        self.prompt_tokens.increment(prompt_tokens);
    }

    /// Counts a message of the worker to a router.
    pub fn told(&self, message: &FromWorker) {
        match message {
            FromWorker::Offered { .. } | FromWorker::Scored { .. } => {}
            FromWorker::Committed { commit, .. } => self.generated_tokens.increment(commit.firsts.len() as u64),
            FromWorker::HandedOver { .. } => self.handed_over.increment(1),
            FromWorker::ReaderLost { .. } => self.reader_lost.increment(1),
            FromWorker::Token { timing, .. } => {
                self.generated_tokens.increment(1);
                if let Some(sched::message::TokenTiming::Joined(_)) = timing {
                    self.joined.increment(1);
                }
            }
            FromWorker::Failed { failure, .. } => {
                self.handoff_failed.increment(u64::from(failure.kind == FailureKind::KvLost));
                counter!(names::LEG_FAILURES_TOTAL, "role" => self.role, "kind" => failure.kind.label()).increment(1);
            }
        }
    }

    /// Counts messages about legs whose session with their router has ended.
    pub fn orphaned(&self, messages: usize) {
        self.orphans.increment(messages as u64);
    }

    /// Counts a caller that was turned away.
    pub fn turned_away(&self, reason: &'static str) {
        counter!(names::PLANE_TURNED_AWAY_TOTAL, "role" => self.role, "reason" => reason).increment(1);
    }

    /// Sets the number of legs that are not over.
    pub fn session_legs(&self, legs: usize) {
        self.session_legs.set(legs as f64);
    }

    /// Exports the rate of a giver that can be read from, until the returned gauge is dropped.
    #[must_use]
    pub fn pair_up(&self, giver: &str, bytes_per_second: f64) -> LiveGauge {
        let labels = [("role", self.role), ("transport", &self.transport), ("peer", giver)];
        let labels = labels.map(|(label, text)| (label, text.to_owned()));
        LiveGauge::new(names::KV_TRANSFER_BYTES_PER_SECOND, labels.into(), bytes_per_second)
    }

    /// Sets the number of givers that can be read from.
    pub fn peers_up(&self, peers: usize) {
        self.peers_up.set(peers as f64);
    }

    /// Counts a pull that brought all its bytes, and its time.
    pub fn transferred(&self, bytes: u64, took: Span) {
        self.transfer_bytes.increment(bytes);
        self.transfer_seconds.record(took.secs_f64());
        self.transfers_ended("done").increment(1);
    }

    /// Counts a pull that ended without all its bytes: `failed` or `aborted`.
    pub fn transfer_broken(&self, end: &'static str) {
        self.transfers_ended(end).increment(1);
    }

    /// Records a step; `gap` is the time that the device waited for it while there was work.
    pub fn stepped(&self, took: Duration, gap: Option<Duration>) {
        self.step_seconds.record(took.as_secs_f64());
        if let Some(gap) = gap {
            self.step_gap_seconds.record(gap.as_secs_f64());
        }
    }

    /// Counts a broken invariant of the KV blocks.
    pub fn invariant_broken(&self) {
        self.invariants_broken.increment(1);
    }

    fn transfers_ended(&self, end: &'static str) -> Counter {
        let labels = [("role", self.role.to_owned()), ("transport", self.transport.clone()), ("end", end.to_owned())];
        counter!(names::KV_TRANSFERS_TOTAL, &labels)
    }
}

impl ExpertSeries {
    fn export(&self) {
        for (counter, tokens) in self.counters.iter().zip((*self.tokens).as_ref()) {
            counter.absolute(tokens.load(Ordering::Relaxed));
        }
    }
}

/// Tokens of the prompt that a message asks this worker to compute.
pub(crate) fn prompt_tokens(message: &ToWorker) -> u64 {
    match message {
        ToWorker::Submit(request, _) => request.prompt.len() as u64,
        ToWorker::Offer(_) | ToWorker::Commit(_) | ToWorker::Cancel { .. } | ToWorker::Renew(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use sched::{Attempt, Leg, RequestId};

    use super::*;

    #[test]
    fn series_show_at_once_and_follow_what_happens() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let facts = WorkerFacts { model: "demo".into(), backend: "cpu".into(), exact: true };
        metrics::with_local_recorder(&recorder, || {
            let metrics = WorkerMetrics::new(Role::Decode, "ucx");
            metrics.runs(&facts);
            let text = handle.render();
            for line in [
                r#"baton_kv_transfer_bytes_total{role="decode",transport="ucx"} 0"#,
                r#"baton_kv_blocks{role="decode",state="in_use"} 0"#,
                r#"baton_engine_exact{role="decode"} 1"#,
                r#"baton_cached_tokens_total{role="decode"} 0"#,
                r#"baton_preemptions_total{role="decode"} 0"#,
                r#"baton_kv_transfers_total{role="decode",transport="ucx",end="failed"} 0"#,
            ] {
                assert!(text.contains(line), "{line} is not in\n{text}");
            }
            metrics.transferred(1 << 20, Span::from_ms(3));
            metrics.stepped(Duration::from_millis(4), None);
            metrics.stepped(Duration::from_millis(4), Some(Duration::from_micros(8)));
            metrics.load(&Load { blocks_in_use: 7, cached_tokens: 32, preemptions: 1, ..Load::default() });
            metrics.load(&Load { blocks_in_use: 7, cached_tokens: 48, preemptions: 2, ..Load::default() });
            let leg = Leg { request: RequestId(1), attempt: Attempt(0) };
            metrics.told(&FromWorker::HandedOver { leg });
        });
        let text = handle.render();
        for line in [
            r#"baton_kv_transfer_bytes_total{role="decode",transport="ucx"} 1048576"#,
            r#"baton_kv_blocks{role="decode",state="in_use"} 7"#,
            r#"baton_cached_tokens_total{role="decode"} 48"#,
            r#"baton_preemptions_total{role="decode"} 2"#,
            r#"baton_handoffs_total{role="decode",outcome="handed_over"} 1"#,
            r#"baton_step_seconds_count{role="decode"} 2"#,
            r#"baton_step_gap_seconds_sum{role="decode"} 0.000008"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn experts_are_exported_with_the_load() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let metrics = WorkerMetrics::new(Role::Prefill, "ucx");
            let tokens: Arc<Vec<AtomicU64>> = Arc::new((0..4).map(AtomicU64::new).collect());
            let outlet = metrics.clone();
            metrics.count_experts(ExpertTokens { layers: vec![1, 3], experts: 2, tokens: tokens.clone() });
            tokens[2].fetch_add(40, Ordering::Relaxed);
            outlet.load(&Load::default());
        });
        let text = handle.render();
        for (layer, expert, tokens) in [(1, 0, 0), (1, 1, 1), (3, 0, 42), (3, 1, 3)] {
            let line =
                format!(r#"baton_expert_tokens_total{{role="prefill",layer="{layer}",expert="{expert}"}} {tokens}"#);
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
    }
}

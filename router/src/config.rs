//! The router's section of the configuration; knows no file format.

use std::path::PathBuf;
use std::time::Duration;

use node::bind::{addresses_of_others, check_model_name, listen_address};
use node::config::Fault;
use node::door::{check_host, check_origin};
use proto::session::SessionLimits;
use sched::Span;
use sched::cluster::{BreakerConfig, PairPause};
use sched::desk::DeskConfig;
use sched::journey::{JourneyConfig, LostHandoffs};
use sched::route::{LeastLoaded, LocalPrefill, RoundRobin, RouteConfig, RoutePolicy};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::keys::{KeySource, KeysConfig};
use crate::model_output::ToolFormatChoice;
use crate::slo::SloConfig;
use crate::text::{ControlReading, ReasoningFormat};
use crate::tls::TlsConfig;
use crate::traces::TracesConfig;

/// Model that a router serves, its workers, and its bounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address for clients, `host:port`; with port 0 the system chooses one.
    pub listen: String,
    /// Address for `/health`, `/ready`, `/metrics` and `/version` apart from the clients, `host:port`; empty for none.
    pub admin_listen: String,
    /// Directory of the model: its tokenizer, chat template and sizes are read here, its weights are not.
    pub model_dir: PathBuf,
    /// Names by which clients may call the model, its own first. Empty means the directory's name.
    pub model_names: Vec<String>,
    /// Addresses of the workers.
    pub workers: Workers,
    /// Bounds on what clients may send and ask for.
    pub limits: LimitsConfig,
    /// Reading of control tokens in clients' text.
    pub text: TextSection,
    /// Latency classes.
    pub slo: SloConfig,
    /// Traces of requests.
    pub traces: TracesConfig,
    /// Choice of the worker for a request.
    pub route: RouteSection,
    /// Time and attempts that a request may take.
    pub request: RequestSection,
    /// Sessions with workers.
    pub session: SessionSection,
    /// API keys of clients.
    pub keys: KeysConfig,
    /// TLS of the client port.
    pub tls: TlsConfig,
    /// Names besides this machine's that clients may use in the `Host` header. On loopback all others are refused, so
    /// that no web page reaches the router under a name of its own; elsewhere only if this list has entries.
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages that may use the API, like `https://chat.example`; `*` for all. Pages of other origins are
    /// refused.
    pub allowed_origins: Vec<String>,
    /// Milliseconds that running requests get to end when the router is asked to stop.
    pub drain_ms: u64,
    /// Milliseconds between SIGTERM and the drain, in which the router is not ready but takes requests and closes each
    /// connection with its next answer: time for load balancers and clients to go elsewhere. Ctrl-C skips them.
    pub lame_duck_ms: u64,
}

/// Addresses of the workers' sessions, `host:port`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workers {
    /// Workers that prefill.
    pub prefill: Vec<String>,
    /// Workers that decode, and aggregated ones; each worker says itself which it is.
    pub decode: Vec<String>,
}

/// Bounds on what clients may send and ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Bytes of one request body.
    pub body_bytes_max: usize,
    /// Milliseconds that a client may take to send its body.
    pub body_ms_max: u64,
    /// Bytes of a body that must arrive per second, averaged over five seconds; slower requests are given up.
    pub body_bytes_per_s_min: u64,
    /// Milliseconds that a client may take to send the head of a request, on a new connection or after an answer.
    pub head_ms_max: u64,
    /// Milliseconds for which answers may wait for a client in total; then its connection is closed. Bytes that the
    /// client takes earn time back, at the pace of `answer_bytes_per_s_min`.
    pub unread_ms_max: u64,
    /// Bytes of waiting answers that a client must take per second, or it falls behind.
    pub answer_bytes_per_s_min: u64,
    /// Connections at a time, fewer if the limit of open files is lower. When all are taken, a new one closes the one
    /// that has waited longest without a whole request.
    pub connections_max: usize,
    /// Requests at a time; more are refused with 429.
    pub requests_max: usize,
    /// Bytes of all request bodies at a time, counted as they arrive; more are refused with 429. Up to 16 KiB of each
    /// body are not counted.
    pub bytes_max: usize,
    /// Milliseconds of processor time for turning one request's text into tokens; more is refused with 400.
    pub text_cpu_ms_max: u64,
    /// Bytes of text without a place between two words at which it may be cut; more is refused with 400.
    pub unbroken_bytes_max: usize,
    /// Choices per prompt.
    pub n_max: u32,
    /// Answer tokens that one request may ask for: prompts times choices times `max_tokens`. A single choice may always
    /// fill the context. Without `max_tokens` the choices share this number.
    pub output_tokens_max: u64,
    /// Bytes of one answer that is not streamed, including the prompts that it repeats.
    pub answer_bytes_max: usize,
    /// Bytes of all answers that are not streamed at a time; more are refused with 429.
    pub answers_bytes_max: usize,
    /// Choices at a time, per worker that generates, of requests with several choices; the others wait, so that
    /// requests with one choice find room.
    pub wide_choices_max: u32,
    /// Prompts in one completion request.
    pub prompts_max: usize,
    /// Stop strings of one request.
    pub stop_max: usize,
    /// Bytes of one stop string.
    pub stop_bytes_max: usize,
    /// Answer tokens of a chat whose client sets no number; 0 means the recommendation of the model's authors, or else
    /// the rest of the context.
    pub chat_max_tokens_default: u32,
    /// Batches of tokens that may wait for a client that reads slowly; beyond it the request is cancelled.
    pub unread_batches_max: usize,
    /// Bytes of tokens that may wait for such a client; beyond it the request is cancelled.
    pub unread_bytes_max: usize,
    /// Bytes of tokens that may wait for all such clients, without the first 16 KiB of each. Beyond it the next request
    /// with more waiting is cancelled.
    pub unread_bytes_sum_max: usize,
}

/// Reading of control tokens in clients' text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextSection {
    /// Reading of a control token that a message's content spells: `text` or `token`.
    pub control_in_messages: ControlReading,
    /// Reading of a control token that a raw prompt spells: `text` or `token`.
    pub control_in_prompts: ControlReading,
    /// Form of tool calls in answers: `auto` (that of the chat template), `none` (they stay in the text) or a name.
    pub tool_format: ToolFormatChoice,
    /// Reading of thoughts in answers: `auto` (split off at the marks of the chat template) or `none`.
    pub reasoning_format: ReasoningFormat,
}

/// Choice of the worker for a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteSection {
    /// `least_loaded` or `round_robin`.
    pub policy: PolicyName,
    /// Tokens of the longest prompt that the decode worker prefills itself; 0 for none.
    pub local_prefill_tokens_max: u32,
    /// Whether decode workers prefill every prompt while they are connected to no prefill worker, and requests whose
    /// hand-off was lost too often.
    pub local_prefill_without_pair: bool,
    /// Milliseconds for which a pair that has lost a hand-off is avoided; doubled with each further loss in a row.
    pub pair_pause_ms: u64,
    /// The longest such pause in milliseconds.
    pub pair_pause_ms_max: u64,
    /// Legs in a row that a worker may fail or be lost with; then it is avoided, for the same pauses. 0 never avoids one.
    pub worker_failures_max: u32,
}

/// Names of routing policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyName {
    /// Picks the shortest prefill queue, then the smallest decode batch.
    LeastLoaded,
    /// Picks the worker that was chosen longest ago.
    RoundRobin,
}

/// Time and attempts that a request may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequestSection {
    /// Milliseconds from a request's arrival to its latest end.
    pub deadline_ms: u64,
    /// Attempts that a request may lose in a row without a token from a decoding worker between them.
    pub attempts_max: u32,
    /// Milliseconds that a new request waits for a worker.
    pub worker_wait_ms: u64,
    /// Milliseconds that a request whose worker was lost waits for another one.
    pub lost_wait_ms: u64,
    /// Milliseconds before a refused request, or one lost twice in a row, is tried again; grows with each further loss.
    pub retry_pause_ms: u64,
}

/// Sessions with workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionSection {
    /// Milliseconds between two renewals of the leases of running requests.
    pub beat_ms: u64,
    /// Longest time in milliseconds between two signs of life of a worker. After three without one its session ends and
    /// its requests go elsewhere. A worker whose connection answers but which sends no status gets no new work after
    /// three beats (of at least a second each), and is given up after six.
    pub alive_beat_ms: u64,
    /// Longest pause in milliseconds between two attempts to reach a worker.
    pub reconnect_ms_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: "127.0.0.1:8000".to_owned(),
            admin_listen: String::new(),
            model_dir: PathBuf::new(),
            model_names: Vec::new(),
            workers: Workers::default(),
            limits: LimitsConfig::default(),
            text: TextSection::default(),
            slo: SloConfig::default(),
            traces: TracesConfig::default(),
            route: RouteSection::default(),
            request: RequestSection::default(),
            session: SessionSection::default(),
            keys: KeysConfig::default(),
            tls: TlsConfig::default(),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            drain_ms: 5_000,
            lame_duck_ms: 1_000,
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        LimitsConfig {
            body_bytes_max: 8 << 20,
            body_ms_max: 30_000,
            body_bytes_per_s_min: 16 << 10,
            head_ms_max: 75_000,
            unread_ms_max: 60_000,
            answer_bytes_per_s_min: 16 << 10,
            connections_max: 4_096,
            requests_max: 1_024,
            bytes_max: 256 << 20,
            text_cpu_ms_max: 5_000,
            unbroken_bytes_max: 1 << 20,
            n_max: 16,
            output_tokens_max: 1 << 19,
            answer_bytes_max: 64 << 20,
            answers_bytes_max: 128 << 20,
            wide_choices_max: 48,
            prompts_max: 64,
            stop_max: 16,
            stop_bytes_max: 1_024,
            chat_max_tokens_default: 0,
            unread_batches_max: 4_096,
            unread_bytes_max: 4 << 20,
            unread_bytes_sum_max: 64 << 20,
        }
    }
}

impl Default for TextSection {
    fn default() -> Self {
        TextSection {
            control_in_messages: ControlReading::Text,
            control_in_prompts: ControlReading::Token,
            tool_format: ToolFormatChoice::Auto,
            reasoning_format: ReasoningFormat::Auto,
        }
    }
}

impl Default for RouteSection {
    fn default() -> Self {
        RouteSection {
            policy: PolicyName::LeastLoaded,
            local_prefill_tokens_max: 0,
            local_prefill_without_pair: false,
            pair_pause_ms: 500,
            pair_pause_ms_max: 30_000,
            worker_failures_max: 3,
        }
    }
}

impl Default for RequestSection {
    fn default() -> Self {
        RequestSection {
            deadline_ms: 600_000,
            attempts_max: 3,
            worker_wait_ms: 5_000,
            lost_wait_ms: 30_000,
            retry_pause_ms: 100,
        }
    }
}

impl Default for SessionSection {
    fn default() -> Self {
        SessionSection { beat_ms: 5_000, alive_beat_ms: 2_000, reconnect_ms_max: 1_000 }
    }
}

impl Config {
    /// Checks that every value is in its range and that there are workers.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn check(&self) -> Result<(), Error> {
        self.check_values().map_err(|fault| Error::Config(format!("{} {}", fault.key, fault.problem)))?;
        if self.workers.prefill.is_empty() && self.workers.decode.is_empty() {
            return Err(Error::Config("router.workers names no worker".to_owned()));
        }
        Ok(())
    }

    /// Checks key file, certificate and private key, if there are any, so that a start fails before it costs anything.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn check_files(&self) -> Result<(), Error> {
        KeySource::open(&self.keys, &self.slo)?;
        self.tls.load().map(drop)
    }

    /// Checks that every value is in its range, without looking for workers.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn check_values(&self) -> Result<(), Fault> {
        self.check_addresses()?;
        self.check_names()?;
        let limits = &self.limits;
        let positive: [(&str, u64); 24] = [
            ("limits.connections_max", limits.connections_max as u64),
            ("limits.body_bytes_max", limits.body_bytes_max as u64),
            ("limits.body_ms_max", limits.body_ms_max),
            ("limits.body_bytes_per_s_min", limits.body_bytes_per_s_min),
            ("limits.head_ms_max", limits.head_ms_max),
            ("limits.unread_ms_max", limits.unread_ms_max),
            ("limits.answer_bytes_per_s_min", limits.answer_bytes_per_s_min),
            ("limits.requests_max", limits.requests_max as u64),
            ("limits.bytes_max", limits.bytes_max as u64),
            ("limits.text_cpu_ms_max", limits.text_cpu_ms_max),
            ("limits.unbroken_bytes_max", limits.unbroken_bytes_max as u64),
            ("limits.n_max", limits.n_max.into()),
            ("limits.output_tokens_max", limits.output_tokens_max),
            ("limits.answer_bytes_max", limits.answer_bytes_max as u64),
            ("limits.answers_bytes_max", limits.answers_bytes_max as u64),
            ("limits.wide_choices_max", limits.wide_choices_max.into()),
            ("limits.prompts_max", limits.prompts_max as u64),
            ("limits.unread_batches_max", limits.unread_batches_max as u64),
            ("limits.unread_bytes_max", limits.unread_bytes_max as u64),
            ("limits.unread_bytes_sum_max", limits.unread_bytes_sum_max as u64),
            ("request.deadline_ms", self.request.deadline_ms),
            ("request.attempts_max", self.request.attempts_max.into()),
            ("session.beat_ms", self.session.beat_ms),
            ("session.alive_beat_ms", self.session.alive_beat_ms),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(Fault::of(format!("router.{key}"), "must be above 0"));
        }
        let choices_max = proto::limits::CHOICES_MAX as u64;
        if u64::from(limits.n_max) > choices_max {
            return Err(Fault::of("router.limits.n_max", format!("must not be above {choices_max}")));
        }
        self.traces.check()?;
        self.slo.check()?;
        self.keys.check(&self.slo)?;
        self.tls.check()
    }

    fn check_addresses(&self) -> Result<(), Fault> {
        let fault = |key: String| move |problem: String| Fault::of(format!("router.{key}"), problem);
        listen_address(&self.listen).map_err(fault("listen".to_owned()))?;
        if !self.admin_listen.is_empty() {
            listen_address(&self.admin_listen).map_err(fault("admin_listen".to_owned()))?;
        }
        let Workers { prefill, decode } = &self.workers;
        addresses_of_others(prefill.iter().chain(decode).map(String::as_str)).map_err(|(place, problem)| {
            match place.checked_sub(prefill.len()) {
                None => fault(format!("workers.prefill[{place}]"))(problem),
                Some(place) => fault(format!("workers.decode[{place}]"))(problem),
            }
        })
    }

    fn check_names(&self) -> Result<(), Fault> {
        let fault = |key: String| move |problem: String| Fault::of(format!("router.{key}"), problem);
        for (place, name) in self.model_names.iter().enumerate() {
            check_model_name(name).map_err(fault(format!("model_names[{place}]")))?;
            if self.model_names[..place].contains(name) {
                return Err(fault(format!("model_names[{place}]"))(format!("is {name:?}, which is named twice")));
            }
        }
        for (place, host) in self.allowed_hosts.iter().enumerate() {
            check_host(host).map_err(fault(format!("allowed_hosts[{place}]")))?;
        }
        for (place, origin) in self.allowed_origins.iter().enumerate() {
            check_origin(origin).map_err(fault(format!("allowed_origins[{place}]")))?;
        }
        Ok(())
    }

    fn journey(&self) -> JourneyConfig {
        JourneyConfig {
            attempts_max: self.request.attempts_max,
            lost_handoffs: match self.route.local_prefill_without_pair {
                true => LostHandoffs::PrefillLocally,
                false => LostHandoffs::Fail,
            },
            worker_wait: Span::from_ms(self.request.worker_wait_ms),
            lost_wait: Span::from_ms(self.request.lost_wait_ms),
            retry_pause: Span::from_ms(self.request.retry_pause_ms),
            deadline: Span::from_ms(self.request.deadline_ms),
        }
    }

    pub(crate) fn desk(&self) -> DeskConfig {
        DeskConfig {
            journey: self.journey(),
            renew_every: Span::from_ms(self.session.beat_ms),
            status_every: self.status_beat(),
            wide_choices_max: self.limits.wide_choices_max,
        }
    }

    pub(crate) fn lame_duck(&self) -> Duration {
        Duration::from_millis(self.lame_duck_ms)
    }

    /// Longest time between two statuses of a worker; not less than the workers' own beat.
    fn status_beat(&self) -> Span {
        Span::from_ms(self.session.alive_beat_ms).max(sched::message::STATUS_BEAT)
    }

    /// Bounds of sessions: a connection that answers nothing for three beats is over.
    pub(crate) fn session_limits(&self) -> SessionLimits {
        SessionLimits::default().probed_every(Duration::from_millis(self.session.alive_beat_ms))
    }

    pub(crate) fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }
}

impl RouteSection {
    pub(crate) fn config(&self) -> RouteConfig {
        let (first, max) = (Span::from_ms(self.pair_pause_ms), Span::from_ms(self.pair_pause_ms_max));
        let pause = PairPause { first, max };
        RouteConfig {
            local_prefill_tokens_max: self.local_prefill_tokens_max,
            local_prefill: if self.local_prefill_without_pair {
                LocalPrefill::WithoutPair
            } else {
                LocalPrefill::Never
            },
            pair_pause: pause,
            breaker: BreakerConfig { failures_max: self.worker_failures_max, pause },
        }
    }

    pub(crate) fn policy(&self) -> Box<dyn RoutePolicy> {
        match self.policy {
            PolicyName::LeastLoaded => Box::new(LeastLoaded),
            PolicyName::RoundRobin => Box::new(RoundRobin::default()),
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;

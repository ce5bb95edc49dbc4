//! The engine's section of the configuration; knows no file format and no command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use kernels::{BLOCK_TOKENS_MAX, KernelError, KernelSet, TILE_TOKENS};
use kv_transfer::{Fabric, TransportKind};
use sched::cost::{DecodeFit, Fitted, PrefillFit};
use sched::replica::STEPS_IN_FLIGHT_MAX;
use sched::scheduling::{SchedulingConfig, SchedulingError};
use sched::share::{ShareConfig, ShareError};
use serde::{Deserialize, Serialize};

use crate::{EngineError, KvPool};

/// Settings of one worker: how it computes, stores KV and moves KV.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory of the model: config.json, *.safetensors, tokenizer files. Empty under `baton serve`: the bundled one.
    pub model_dir: PathBuf,
    /// Name under which the model is served; empty: the directory's name.
    pub model_name: String,
    /// Backend that computes: `cpu`, or `modelled`, which does no maths and takes the time that a latency model says.
    pub backend: BackendKind,
    /// Format of the weights in matrix products: `f32`, `bf16`, `int8` (one scale per row; half the memory and the
    /// reads of bf16; embeddings and expert routers stay as stored), or `auto`, the format of the files.
    pub dtype: WeightsDtype,
    /// Format of stored keys and values: `f32`, `bf16`, `int8` (one scale per token and head; half the memory and the
    /// transfer of bf16), or `auto`, bf16 where weights are bf16 (as stored, for int8), else f32.
    pub kv_dtype: KvDtypeChoice,
    /// Directory of packed weights, shared by the workers of a host: the first worker packs, all workers map the file.
    /// Empty: $XDG_CACHE_HOME/baton or ~/.cache/baton. `off` packs into each worker's own memory.
    pub weights_cache: String,
    /// Size of the KV pool: `512 MiB` (or KiB, GiB), `256 blocks`, or a number of bytes; rounded down to whole blocks.
    pub kv_pool: KvPool,
    /// Tokens per KV block, a multiple of 16, at most 128.
    pub block_tokens: u32,
    /// Longest sequence, prompt and output, in tokens; 0: the limit of the model.
    pub context_max: u32,
    /// Sequences that run at the same time.
    pub sequences_max: u32,
    /// Most rows of one step: the prompt tokens of all chunks, plus one row per decoding sequence. It fixes the memory
    /// that steps need; `scheduling.step_budget` may take on fewer prompt tokens.
    pub step_tokens_max: u32,
    /// Steps on the device at a time, 1 or 2. With 2, the next is planned while one runs, so the device hardly waits.
    pub steps_in_flight: u32,
    /// Legs that may wait for blocks or for their giver; further legs are refused as overload. Givers get at most half.
    pub queue_legs_max: u32,
    /// KV caches that are pulled from one prefill worker at a time; further pulls wait for their turn.
    pub pulls_per_giver_max: u32,
    /// Reuse of the KV of ended requests for equal prefixes: `on` or `off`.
    pub prefix_cache: PrefixCacheChoice,
    /// Share of the pool that unfinished reservations may hold.
    pub filling_share: f32,
    /// Time after which a lease that was not renewed ends, in milliseconds.
    pub lease_span_ms: u64,
    /// Time between two renewals of a lease, in milliseconds.
    pub lease_beat_ms: u64,
    /// Threads that compute; 0: one per entry of `cores`, or one per core of the machine.
    pub threads: usize,
    /// Cores that the computing threads are pinned to; empty: the system places the threads.
    pub cores: Vec<usize>,
    /// Tensor parallelism: ranks that share every layer, 1, 2, 4 or 8. Must divide the model's heads and kv heads.
    pub tp: u32,
    /// Pipeline parallelism: groups of consecutive layers, each with its own ranks.
    pub pp: u32,
    /// Kind of the ranks of `tp` and `pp`: `threads` of the worker, or `processes` that share its KV pool.
    pub ranks: RanksChoice,
    /// Instruction level of the kernels: auto, amx, avx512bf16, avx2 or portable.
    pub kernel_set: String,
    /// Transport of KV between workers: `ucx`, `tcp`, `shm` or `auto`. `auto` is shm under `baton serve`, where it
    /// opens no port and admits only processes of the same user, and ucx elsewhere. There is no fallback.
    pub transport: TransportChoice,
    /// Address that the tcp transport listens on; port 0 lets the system choose.
    pub tcp_listen: String,
    /// Address that peers are told in place of the listening one; needed when that is 0.0.0.0.
    pub tcp_advertise: String,
    /// UCX transports to open, as `UCX_TLS` names them: `posix,cma` on one host, `rc` and its kin for RDMA. UCX's tcp
    /// lets strangers write memory, so it is refused under every name.
    pub ucx_tls: String,
    /// `true` if all who reach the RDMA fabric may write this worker's memory; RDMA in `ucx_tls` needs `true`.
    pub ucx_trusts_fabric: bool,
    /// Most givers that this worker reads KV from at once, and most readers that read from it.
    pub peers_max: usize,
    /// Events that may wait for the replica thread.
    pub inbox_events_max: usize,
    /// Orders, admission and the budget of a step where there is more to do than fits.
    pub scheduling: SchedulingConfig,
    /// Division of the device between the lanes of a co-located worker.
    pub share: ShareConfig,
    /// Coefficients of the latency model, for the modelled backend.
    pub modelled: ModelledConfig,
}

/// Backend that computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// The CPU.
    Cpu,
    /// No maths: a latency model says how long a step takes, and tokens are hashes.
    Modelled,
}

/// Format of the weights in matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightsDtype {
    /// The format of the files.
    Auto,
    /// Converted to f32.
    F32,
    /// Converted to bf16.
    Bf16,
    /// Rounded to int8 with one scale per row.
    Int8,
}

/// Format of stored keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvDtypeChoice {
    /// bf16 for bf16 weights, f32 for other weights.
    Auto,
    /// f32.
    F32,
    /// bf16.
    Bf16,
    /// Integers of 8 bits with one scale per token and head.
    Int8,
}

/// Kind of the ranks of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RanksChoice {
    /// Groups of threads in the worker's process.
    Threads,
    /// Processes that the worker starts.
    Processes,
}

/// Reuse of the KV of ended requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrefixCacheChoice {
    /// Reused for equal prefixes.
    On,
    /// Never reused.
    Off,
}

/// Transport of KV between workers. There is no fallback: a transport that cannot start is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransportChoice {
    /// Shared memory between the workers that `baton serve` starts, UCX between others.
    Auto,
    /// UCX: RDMA between hosts, cross-memory attach on one.
    Ucx,
    /// TCP.
    Tcp,
    /// Shared memory of one host.
    Shm,
    /// Inside one process, for tests; no configuration names it.
    #[serde(skip_deserializing)]
    InProcess,
}

/// Latency model, in microseconds on the whole device. A step with prompt tokens takes
/// `prefill_step_us + prefill_token_us * tokens + prefill_token_squared_us * sum of squared lengths`, another step
/// `decode_step_us + decode_context_token_us * context + decode_sequence_us * sequences`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelledConfig {
    /// Once per step with prompt tokens.
    pub prefill_step_us: f64,
    /// Per prompt token.
    pub prefill_token_us: f64,
    /// Per squared prompt length.
    pub prefill_token_squared_us: f64,
    /// Once per step without prompt tokens.
    pub decode_step_us: f64,
    /// Per token of context.
    pub decode_context_token_us: f64,
    /// Per decoding sequence.
    pub decode_sequence_us: f64,
    /// Slowdown of a lane by a neighbour that has the whole device.
    pub contention: f64,
    /// Time that loading takes, layer by layer, in milliseconds: rehearses the start of a large model.
    pub load_ms: u64,
    /// Tokens after which a choice ends with its stop token; 0 runs to `max_tokens`.
    pub output_tokens: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            model_dir: PathBuf::new(),
            model_name: String::new(),
            backend: BackendKind::Cpu,
            dtype: WeightsDtype::Auto,
            kv_dtype: KvDtypeChoice::Auto,
            weights_cache: String::new(),
            kv_pool: KvPool::Bytes(512 << 20),
            block_tokens: 16,
            context_max: 0,
            sequences_max: 64,
            step_tokens_max: 512,
            steps_in_flight: STEPS_IN_FLIGHT_MAX,
            queue_legs_max: 1024,
            pulls_per_giver_max: 4,
            prefix_cache: PrefixCacheChoice::On,
            filling_share: 0.5,
            lease_span_ms: 30_000,
            lease_beat_ms: 5_000,
            threads: 0,
            cores: Vec::new(),
            tp: 1,
            pp: 1,
            ranks: RanksChoice::Threads,
            kernel_set: "auto".to_owned(),
            transport: TransportChoice::Auto,
            tcp_listen: "127.0.0.1:0".to_owned(),
            tcp_advertise: String::new(),
            ucx_tls: "posix,cma".to_owned(),
            ucx_trusts_fabric: false,
            peers_max: 256,
            inbox_events_max: 16_384,
            scheduling: SchedulingConfig::default(),
            share: ShareConfig::default(),
            modelled: ModelledConfig::default(),
        }
    }
}

impl Default for ModelledConfig {
    fn default() -> Self {
        let Fitted { prefill, decode, contention } = Fitted::example();
        ModelledConfig {
            prefill_step_us: prefill.step_us,
            prefill_token_us: prefill.token_us,
            prefill_token_squared_us: prefill.token_squared_us,
            decode_step_us: decode.step_us,
            decode_context_token_us: decode.context_token_us,
            decode_sequence_us: decode.sequence_us,
            contention,
            load_ms: 0,
            output_tokens: 0,
        }
    }
}

/// All slots of an inbox are allocated at start; this many take about 200 MB.
const INBOX_EVENTS_MAX: usize = 1 << 20;

impl Config {
    /// Checks what [`Config::check`] checks, and that this machine has the kernels.
    pub fn validate(&self) -> Result<(), EngineError> {
        self.check()?;
        self.instructions().map(|_| ())
    }

    /// Checks single fields and their relations, on any machine. What depends on the model is checked at start.
    pub fn check(&self) -> Result<(), EngineError> {
        let wrong = |key: &'static str, problem: String| Err(EngineError::Config { key, problem });
        let positive = [
            ("sequences_max", self.sequences_max),
            ("step_tokens_max", self.step_tokens_max),
            ("queue_legs_max", self.queue_legs_max),
            ("pulls_per_giver_max", self.pulls_per_giver_max),
            ("block_tokens", self.block_tokens),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return wrong(key, "must be at least 1, found 0".to_owned());
        }
        if self.step_tokens_max < self.sequences_max {
            let problem = format!("is {}, less than sequences_max {}", self.step_tokens_max, self.sequences_max);
            return wrong("step_tokens_max", problem);
        }
        if !(1..=STEPS_IN_FLIGHT_MAX).contains(&self.steps_in_flight) {
            return wrong("steps_in_flight", format!("must be 1 or 2, found {}", self.steps_in_flight));
        }
        let block_tokens = self.block_tokens as usize;
        if !block_tokens.is_multiple_of(TILE_TOKENS) || block_tokens > BLOCK_TOKENS_MAX {
            let rule = format!("must be a multiple of {TILE_TOKENS}, at most {BLOCK_TOKENS_MAX}");
            return wrong("block_tokens", format!("{rule}, found {block_tokens}"));
        }
        if !(self.filling_share > 0.0 && self.filling_share <= 1.0) {
            return wrong("filling_share", format!("must lie in (0, 1], found {}", self.filling_share));
        }
        if self.lease_span_ms == 0 {
            return wrong("lease_span_ms", "must be above 0".to_owned());
        }
        if self.lease_beat_ms == 0 || self.lease_beat_ms.saturating_mul(2) > self.lease_span_ms {
            let (span, beat) = (self.lease_span_ms, self.lease_beat_ms);
            let problem = format!("must be above 0 and at most half of lease_span_ms {span}, found {beat}");
            return wrong("lease_beat_ms", problem);
        }
        self.validate_threads()?;
        self.validate_ranks()?;
        self.scheduling
            .check(self.sequences_max)
            .map_err(|SchedulingError { key, problem }| EngineError::Config { key, problem })?;
        self.share.check().map_err(|ShareError { key, problem }| EngineError::Config { key, problem })?;
        kv_transfer::check_ucx_tls(&self.ucx_tls, self.ucx_fabric())
            .map_err(|refused| EngineError::Config { key: "ucx_tls", problem: refused.to_string() })?;
        if self.peers_max == 0 {
            return wrong("peers_max", "must be at least 1, found 0".to_owned());
        }
        if !(1..=INBOX_EVENTS_MAX).contains(&self.inbox_events_max) {
            let problem = format!("must lie between 1 and {INBOX_EVENTS_MAX}, found {}", self.inbox_events_max);
            return wrong("inbox_events_max", problem);
        }
        if self.kv_pool.is_empty() {
            return wrong("kv_pool", format!("must be above 0, found {}", self.kv_pool));
        }
        self.addresses()?;
        self.modelled.fitted().map(|_| ())
    }

    /// Listening address of the tcp transport, and the address that peers are told instead.
    pub(crate) fn addresses(&self) -> Result<(SocketAddr, Option<IpAddr>), EngineError> {
        let listen = self.tcp_listen.parse().map_err(|error| EngineError::Config {
            key: "tcp_listen",
            problem: format!("is {:?}, expected an IP address and a port: {error}", self.tcp_listen),
        })?;
        let advertise = match self.tcp_advertise.as_str() {
            "" => None,
            address => Some(address.parse().map_err(|error| EngineError::Config {
                key: "tcp_advertise",
                problem: format!("is {address:?}: {error}"),
            })?),
        };
        Ok((listen, advertise))
    }

    pub(crate) fn ucx_fabric(&self) -> Fabric {
        match self.ucx_trusts_fabric {
            true => Fabric::Trusted,
            false => Fabric::Untrusted,
        }
    }

    /// Checks what needs no model; `tp` and `pp` are checked against its shape at start.
    fn validate_ranks(&self) -> Result<(), EngineError> {
        let wrong = |key: &'static str, problem: String| Err(EngineError::Config { key, problem });
        if !matches!(self.tp, 1 | 2 | 4 | 8) {
            return wrong("tp", format!("must be 1, 2, 4 or 8, found {}", self.tp));
        }
        if self.pp == 0 {
            return wrong("pp", "must be at least 1, found 0".to_owned());
        }
        match self.backend {
            BackendKind::Modelled if self.tp > 1 => {
                wrong("tp", format!("is {}, but the modelled backend is one device", self.tp))
            }
            BackendKind::Modelled if self.pp > 1 => {
                wrong("pp", format!("is {}, but the modelled backend is one device", self.pp))
            }
            BackendKind::Modelled | BackendKind::Cpu => Ok(()),
        }
    }

    fn validate_threads(&self) -> Result<(), EngineError> {
        const THREADS_MAX: usize = 1024;
        let wrong = |key: &'static str, problem: String| Err(EngineError::Config { key, problem });
        for (key, count) in [("threads", self.threads), ("cores", self.cores.len())] {
            if count > THREADS_MAX {
                return wrong(key, format!("asks for {count} threads, at most {THREADS_MAX} can run"));
            }
        }
        if self.threads != 0 && !self.cores.is_empty() && self.threads != self.cores.len() {
            let problem = format!("is {}, but cores names {}", self.threads, self.cores.len());
            return wrong("threads", problem);
        }
        if let Some(place) = (1..self.cores.len()).find(|&place| self.cores[..place].contains(&self.cores[place])) {
            return wrong("cores", format!("names core {} twice", self.cores[place]));
        }
        self.named_set().map(|_| ())
    }

    /// Instruction level that the configuration names, even if this processor lacks it; `None` is the best available.
    fn named_set(&self) -> Result<Option<KernelSet>, EngineError> {
        if self.kernel_set == "auto" {
            return Ok(None);
        }
        self.kernel_set.parse::<KernelSet>().map(Some).map_err(|error| self.wrong_set(&error))
    }

    fn wrong_set(&self, error: &KernelError) -> EngineError {
        EngineError::Config { key: "kernel_set", problem: format!("is {:?}: {error}", self.kernel_set) }
    }

    /// Instruction level of the kernels. For the CPU backend, this processor must have it.
    pub(crate) fn instructions(&self) -> Result<KernelSet, EngineError> {
        match (self.named_set()?, self.backend) {
            (None, _) => Ok(KernelSet::best()),
            (Some(set), BackendKind::Cpu) => set.require().map_err(|error| self.wrong_set(&error)).map(|()| set),
            (Some(set), BackendKind::Modelled) => Ok(set),
        }
    }

    /// Ranks of a worker as text for people; empty for a single rank.
    #[must_use]
    pub fn ranks_label(&self) -> String {
        let kind = match self.ranks {
            RanksChoice::Threads => "threads",
            RanksChoice::Processes => "processes",
        };
        match (self.tp, self.pp) {
            (1, 1) => String::new(),
            (tp, pp) => format!("tp {tp} × pp {pp} ({kind})"),
        }
    }

    /// Name under which the model is served.
    #[must_use]
    pub fn served_name(&self) -> String {
        if !self.model_name.is_empty() {
            return self.model_name.clone();
        }
        model_files::served_name(&self.model_dir)
    }
}

impl TransportChoice {
    /// Transport that this choice stands for; `auto` is UCX where `baton serve` has not chosen.
    #[must_use]
    pub const fn kind(self) -> TransportKind {
        match self {
            TransportChoice::Auto | TransportChoice::Ucx => TransportKind::Ucx,
            TransportChoice::Tcp => TransportKind::Tcp,
            TransportChoice::Shm => TransportKind::Shm,
            TransportChoice::InProcess => TransportKind::InProcess,
        }
    }
}

/// Largest coefficient of the latency model: no step that ends within a request's time needs a larger one.
const COEFFICIENT_US_MAX: f64 = 60_000_000.0;

impl ModelledConfig {
    fn check(&self) -> Result<(), EngineError> {
        let coefficients = [
            ("modelled.prefill_step_us", self.prefill_step_us, self.prefill_step_us > 0.0),
            ("modelled.prefill_token_us", self.prefill_token_us, true),
            ("modelled.prefill_token_squared_us", self.prefill_token_squared_us, true),
            ("modelled.decode_step_us", self.decode_step_us, self.decode_step_us > 0.0),
            ("modelled.decode_context_token_us", self.decode_context_token_us, true),
            ("modelled.decode_sequence_us", self.decode_sequence_us, true),
        ];
        for (key, value, takes_time) in coefficients {
            if !(0.0..=COEFFICIENT_US_MAX).contains(&value) || !takes_time {
                let problem = format!("must lie between 0 and {COEFFICIENT_US_MAX}, a step's above 0; found {value}");
                return Err(EngineError::Config { key, problem });
            }
        }
        Ok(())
    }

    /// Latency model of these coefficients, if they describe a device.
    pub fn fitted(&self) -> Result<Fitted, EngineError> {
        let fitted = Fitted {
            prefill: PrefillFit {
                step_us: self.prefill_step_us,
                token_us: self.prefill_token_us,
                token_squared_us: self.prefill_token_squared_us,
                saturation_share: 1.0,
            },
            decode: DecodeFit {
                step_us: self.decode_step_us,
                context_token_us: self.decode_context_token_us,
                sequence_us: self.decode_sequence_us,
                saturation_share: 1.0,
            },
            contention: self.contention,
        };
        self.check()?;
        fitted.checked().map_err(|error| EngineError::Config { key: "modelled", problem: error.to_string() })
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;

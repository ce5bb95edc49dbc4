//! The engine's section of the configuration; knows no file format and no command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use kernels::{BLOCK_TOKENS_MAX, KernelError, KernelSet, TILE_TOKENS};
use kv_transfer::{Fabric, TransportKind};
use sched::cost::{DecodeFit, Fitted, PrefillFit};
use sched::replica::STEPS_IN_FLIGHT_MAX;
use serde::{Deserialize, Serialize};

use crate::{EngineError, KvPool};

/// How one worker computes, stores and moves KV.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory of the model: config.json, *.safetensors, tokenizer files. Empty is the bundled one under `baton serve`.
    pub model_dir: PathBuf,
    /// Name under which the model is served; empty is the directory's name.
    pub model_name: String,
    /// What computes: `cpu`, or `modelled`, which runs no maths and takes the time that a latency model says.
    pub backend: BackendKind,
    /// Format of the weights that matrices are computed with: `f32`, `bf16`, `int8` (one scale per row; half the memory
    /// and the reading of bf16; embeddings and routers stay as stored), or `auto`, as the files hold them.
    pub dtype: WeightsDtype,
    /// Format of stored keys and values: `f32`, `bf16`, `int8` (one scale per token and head; half the memory and the
    /// transfer of bf16), or `auto`, bf16 where weights are bf16 (as stored, for int8), else f32.
    pub kv_dtype: KvDtypeChoice,
    /// Directory of packed weights, which the workers of a host share: the first one packs, all of them map the file.
    /// Empty is $XDG_CACHE_HOME/baton or ~/.cache/baton; `off` packs into each worker's own memory.
    pub weights_cache: String,
    /// Size of the KV pool: `512 MiB` (or KiB, GiB), `256 blocks`, or a number of bytes; rounded down to whole blocks.
    pub kv_pool: KvPool,
    /// Tokens per KV block, a multiple of 16, at most 128.
    pub block_tokens: u32,
    /// Longest sequence of prompt and output in tokens; 0 is what the model was made for.
    pub context_max: u32,
    /// Sequences that run at once.
    pub sequences_max: u32,
    /// Rows of one step: prompt tokens of all chunks and one per decoding sequence.
    pub step_tokens_max: u32,
    /// Steps that are with the device at once, 1 or 2: with 2 the next is formed while one runs, so the device never waits.
    pub steps_in_flight: u32,
    /// Legs that may wait for blocks or for their giver; more are refused as overload. Givers get at most half.
    pub queue_legs_max: u32,
    /// KV caches that are read from one prefill worker at a time; the others wait for their turn.
    pub pulls_per_giver_max: u32,
    /// Whether the KV of ended requests is reused for equal prefixes: `on` or `off`.
    pub prefix_cache: PrefixCacheChoice,
    /// Part of the pool that unfinished reservations may hold.
    pub filling_share: f32,
    /// A lease ends when it was not renewed for this long, in milliseconds.
    pub lease_span_ms: u64,
    /// How often leases are renewed, in milliseconds.
    pub lease_beat_ms: u64,
    /// Threads that compute; 0 is one per entry of `cores`, or one per core of the machine.
    pub threads: usize,
    /// Cores to pin the computing threads to; empty leaves them to the system.
    pub cores: Vec<usize>,
    /// Tensor parallelism: ranks that share every layer, 1, 2, 4 or 8. Must divide the model's heads and kv heads.
    pub tp: u32,
    /// Pipeline parallelism: groups of consecutive layers, each with its own ranks.
    pub pp: u32,
    /// What the ranks of `tp` and `pp` are: `threads` of the worker, or `processes` that share its KV pool.
    pub ranks: RanksChoice,
    /// Instruction level of the kernels: auto, amx, avx512bf16, avx2 or portable.
    pub kernel_set: String,
    /// What moves KV between workers: `ucx`, `tcp`, `shm`, or `auto`: shm under `baton serve`, where it opens no port and admits
    /// only processes of the same user, ucx elsewhere. There is no fallback.
    pub transport: TransportChoice,
    /// Where the tcp transport listens; port 0 lets the system choose.
    pub tcp_listen: String,
    /// The address that peers are told instead of the one listened on; needed when that is 0.0.0.0.
    pub tcp_advertise: String,
    /// The UCX transports to open, as `UCX_TLS` names them: `posix,cma` on one host, `rc` and its kin for RDMA. UCX's tcp,
    /// which lets strangers write memory, is refused under every name.
    pub ucx_tls: String,
    /// Whether nobody reaches the RDMA fabric who may not write this worker's memory; RDMA in `ucx_tls` needs `true`.
    pub ucx_trusts_fabric: bool,
    /// Workers that this one reads KV from, and workers that read from it, at once.
    pub peers_max: usize,
    /// Events that may wait for the replica thread.
    pub inbox_events_max: usize,
    /// Coefficients of the latency model, for the modelled backend.
    pub modelled: ModelledConfig,
}

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// The processor.
    Cpu,
    /// Nothing: steps take as long as a latency model says and tokens are hashes.
    Modelled,
}

/// Format of the weights that matrices are computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightsDtype {
    /// As the files hold them.
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
    /// bf16 for bf16 weights, f32 for others.
    Auto,
    /// f32.
    F32,
    /// bf16.
    Bf16,
    /// Integers of 8 bits with one scale per token and head.
    Int8,
}

/// What the ranks of a worker are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RanksChoice {
    /// Groups of threads in the worker's process.
    Threads,
    /// Processes that the worker starts.
    Processes,
}

/// Whether the KV of ended requests is reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrefixCacheChoice {
    /// For equal prefixes.
    On,
    /// Never.
    Off,
}

/// What moves KV between workers. There is no fallback: a transport that cannot start is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransportChoice {
    /// What suits: shared memory between the workers that `baton serve` starts, UCX between others.
    Auto,
    /// UCX: RDMA between hosts, cross-memory attach on one.
    Ucx,
    /// TCP.
    Tcp,
    /// Shared memory of one host.
    Shm,
    /// Inside one process, for tests.
    InProcess,
}

/// A latency model, in microseconds on the whole device: a step with prompt tokens takes
/// `prefill_step_us + prefill_token_us * tokens + prefill_token_squared_us * sum of squared lengths`, one without
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
    /// How much a neighbour that has the whole device slows a lane down.
    pub contention: f64,
    /// Milliseconds that loading takes, layer by layer: to rehearse the start of a large model.
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

/// The places of an inbox are all made at start; so many take some 200 MB.
const INBOX_EVENTS_MAX: usize = 1 << 20;

impl Config {
    /// Checks as [`Config::check`] does, and whether this machine has the kernels.
    pub fn validate(&self) -> Result<(), EngineError> {
        self.check()?;
        self.instructions().map(|_| ())
    }

    /// Checks what single fields and their relations allow, on any machine; whatever depends on the model is checked at
    /// start.
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
        if self.lease_beat_ms == 0 || self.lease_beat_ms.saturating_mul(2) > self.lease_span_ms {
            let (span, beat) = (self.lease_span_ms, self.lease_beat_ms);
            let problem = format!("must be above 0 and at most half of lease_span_ms {span}, found {beat}");
            return wrong("lease_beat_ms", problem);
        }
        self.validate_threads()?;
        self.validate_ranks()?;
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

    /// Where the tcp transport listens, and what peers are told instead.
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

    /// Whether RDMA may be used.
    pub(crate) fn ucx_fabric(&self) -> Fabric {
        match self.ucx_trusts_fabric {
            true => Fabric::Trusted,
            false => Fabric::Untrusted,
        }
    }

    /// What can be said without the model; `tp` and `pp` are checked against its shape at start.
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

    /// The instruction level that is named, whether this processor has it or not; `None` is the best it has.
    fn named_set(&self) -> Result<Option<KernelSet>, EngineError> {
        if self.kernel_set == "auto" {
            return Ok(None);
        }
        self.kernel_set.parse::<KernelSet>().map(Some).map_err(|error| self.wrong_set(&error))
    }

    fn wrong_set(&self, error: &KernelError) -> EngineError {
        EngineError::Config { key: "kernel_set", problem: format!("is {:?}: {error}", self.kernel_set) }
    }

    /// The instruction level of the kernels: one that exists and that this processor has, if it computes.
    pub(crate) fn instructions(&self) -> Result<KernelSet, EngineError> {
        match (self.named_set()?, self.backend) {
            (None, _) => Ok(KernelSet::best()),
            (Some(set), BackendKind::Cpu) => set.require().map_err(|error| self.wrong_set(&error)).map(|()| set),
            (Some(set), BackendKind::Modelled) => Ok(set),
        }
    }

    /// The ranks of a worker, for people; empty where it is one.
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

    /// The name under which the model is served.
    #[must_use]
    pub fn served_name(&self) -> String {
        if !self.model_name.is_empty() {
            return self.model_name.clone();
        }
        model_files::served_name(&self.model_dir)
    }
}

impl TransportChoice {
    /// The transport of this name; where `baton serve` has not chosen, `auto` is UCX.
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

    /// The latency model, if its coefficients describe a device.
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

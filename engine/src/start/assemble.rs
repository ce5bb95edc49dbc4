//! Puts the parts of a replica together; each step's failure names what it was about.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::available_parallelism;

use kernels::memory::HostMemory;
use kernels::{CpuOps, Dtype, KernelError, KvGeometry, Placement, Pool};
use kv_transfer::{KvTransport, LeaseTable, Limits, Options, RegionId, Setup};
use sched::layout::KvLayout;
use sched::replica::{LeaseConfig, PrefixCache, Replica, ReplicaConfig};
use sched::{CompatParts, InstanceId, Role, Span};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::{ModelInfo, Started, geometry, random};
use crate::backend::{Backend, CpuBackend, ModelledBackend, ModelledDevice, Notify, StepLimits};
use crate::model::{ExpertCounts, Model, ModelSpec, Precision, WeightFiles};
use crate::replica::{Outlet, Parts, Waker, spawn};
use crate::{BackendKind, Config, EngineError, KvStore, PrefixCacheChoice, WeightsDtype};

/// Version of the hand-off protocol between workers.
const WIRE_VERSION: u32 = 1;

/// A backend with its model and its pool, as [`open_backend`] makes them.
pub struct Opened {
    /// What computes; idle.
    pub backend: Box<dyn Backend>,
    /// The pool it reads and writes.
    pub kv: KvStore,
    /// The shape of the model.
    pub spec: ModelSpec,
    /// Longest sequence that it can run, in tokens.
    pub context_max: u32,
    /// Weights and everything else that decides the maths.
    pub weights_digest: u128,
    /// What each expert has computed; `None` where no expert computes.
    pub expert_counts: Option<ExpertCounts>,
}

/// Loads the model and starts its backend, without scheduler and transport: for measuring and for tests.
/// `notify` is called whenever the backend has something to poll.
pub fn open_backend(config: &Config, notify: Notify) -> Result<Opened, EngineError> {
    config.validate()?;
    let spec = ModelSpec::read(&config.model_dir)?;
    let context_max = context_max(config, &spec)?;
    match config.backend {
        BackendKind::Cpu => cpu(config, spec, context_max, notify),
        BackendKind::Modelled => modelled(config, spec, context_max, notify),
    }
}

pub(super) fn start(config: &Config, role: Role, outlet: Box<dyn Outlet>) -> Result<Started, EngineError> {
    let (waker, sleeper) = Waker::pair();
    let Opened { backend, kv, spec, context_max, weights_digest, expert_counts } =
        open_backend(config, waker.notify())?;
    let (geometry, layout) = (*kv.geometry(), kv.layout()?);
    let instance = InstanceId(random::incarnation()?);
    let leases = Arc::new(LeaseTable::new());
    let setup = Setup { instance, notify: waker.notify(), access: Arc::clone(&leases) as _, limits: limits(config) };
    let (transport, region) = transport(config, &setup, &kv)?;
    let compat = compat(&spec, &kv, &layout, weights_digest, &backend.describe().numerics_id);
    let scheduler = scheduler(config, role, &spec, &geometry, context_max, &compat)?;
    let info = ModelInfo {
        instance,
        name: config.served_name(),
        role,
        context_max,
        vocab: spec.vocab,
        eos: spec.eos,
        layout: layout.clone(),
        blocks: geometry.blocks as u32,
        compat,
        backend: backend.describe().clone(),
        transport: transport.kind(),
    };
    log(&info);
    let endpoint = transport.endpoint();
    let inbox_events_max = config.inbox_events_max;
    let parts = Parts { scheduler, backend, transport, leases, region, layout, outlet, inbox_events_max };
    let (handle, join) = spawn(parts, waker, sleeper)?;
    Ok(Started { handle, info, endpoint, join, expert_counts })
}

fn log(info: &ModelInfo) {
    tracing::info!(
        model = info.name,
        role = info.role.label(),
        backend = info.backend.backend,
        kernel_set = info.backend.kernel_set,
        weights = info.backend.weights_dtype,
        threads = info.backend.threads,
        kv_blocks = info.blocks,
        kv_dtype = info.layout.shape().dtype.label(),
        transport = info.transport.label(),
        compat_key = %info.compat_key(),
        "replica"
    );
}

fn context_max(config: &Config, spec: &ModelSpec) -> Result<u32, EngineError> {
    match config.context_max {
        0 => Ok(spec.context_max),
        asked if asked > spec.context_max => {
            let problem = format!("is {asked}, the model was made for {}", spec.context_max);
            Err(EngineError::Config { key: "context_max", problem })
        }
        asked => Ok(asked),
    }
}

fn precision(config: &Config) -> Precision {
    match config.dtype {
        WeightsDtype::Auto => Precision::AsStored,
        WeightsDtype::F32 => Precision::Converted(Dtype::F32),
        WeightsDtype::Bf16 => Precision::Converted(Dtype::Bf16),
    }
}

fn pool(config: &Config, geometry: KvGeometry) -> Result<KvStore, EngineError> {
    let bytes = geometry.pool_bytes();
    let memory = HostMemory::new(bytes, config.transport.kind().backing()).map_err(|error| EngineError::Memory {
        what: "the KV pool",
        bytes: bytes as u64,
        reason: error.to_string(),
    })?;
    KvStore::new(Arc::new(memory), geometry)
}

fn transport(config: &Config, setup: &Setup, kv: &KvStore) -> Result<(Box<dyn KvTransport>, RegionId), EngineError> {
    let kind = config.transport.kind();
    let failed = |error: kv_transfer::TransferError| EngineError::Transport {
        transport: kind.label().to_owned(),
        problem: error.to_string(),
    };
    let mut transport = kv_transfer::open(kind, setup, &transport_options(config)?).map_err(failed)?;
    let region = transport.register(Arc::clone(kv.memory())).map_err(failed)?;
    Ok((Box::new(transport), region))
}

/// One bound for both directions: whom we read from, and who reads from us.
fn limits(config: &Config) -> Limits {
    Limits { peers_max: config.peers_max, readers_max: config.peers_max, ..Limits::default() }
}

fn transport_options(config: &Config) -> Result<Options, EngineError> {
    let tcp_listen = config.tcp_listen.parse::<SocketAddr>().map_err(|error| EngineError::Config {
        key: "tcp_listen",
        problem: format!("is {:?}: {error}", config.tcp_listen),
    })?;
    let tcp_advertise = match config.tcp_advertise.as_str() {
        "" => None,
        address => Some(address.parse::<IpAddr>().map_err(|error| EngineError::Config {
            key: "tcp_advertise",
            problem: format!("is {address:?}: {error}"),
        })?),
    };
    Ok(Options { tcp_listen, tcp_advertise, ucx_tls: config.ucx_tls.clone() })
}

fn cpu(config: &Config, spec: ModelSpec, context_max: u32, notify: Notify) -> Result<Opened, EngineError> {
    let weights = WeightFiles::open(&config.model_dir)?;
    let precision = precision(config);
    let geometry = geometry::of_model(config, &spec, precision.of(spec.stored_dtype(&weights)?))?;
    let kv = pool(config, geometry)?;
    let threads = Arc::new(Pool::new(&placement(config)?).map_err(|error| unplaced(config, error))?);
    let ops = CpuOps::new(Arc::clone(&threads), config.instructions()?)?;
    let weights_digest = digest(&spec, weights.digest());
    let model = Model::load(&ops, spec.clone(), &weights, precision, context_max)?;
    let limits =
        StepLimits { rows_max: config.step_tokens_max, wanted_max: config.sequences_max, positions_max: context_max };
    let cores_named = config.clone();
    let prepare = move || threads.pin_caller().map_err(|error| unplaced(&cores_named, error));
    let expert_counts = model.expert_counts().cloned();
    let backend = CpuBackend::start(ops, model, kv.clone(), limits, notify, prepare)?;
    Ok(Opened { backend: Box::new(backend), kv, spec, context_max, weights_digest, expert_counts })
}

/// Threads that could not be placed: the configuration's fault where it names their cores.
fn unplaced(config: &Config, error: KernelError) -> EngineError {
    match config.cores.is_empty() {
        true => EngineError::Kernels(error),
        false => EngineError::Config { key: "cores", problem: format!("is {:?}: {error}", config.cores) },
    }
}

fn placement(config: &Config) -> Result<Placement, EngineError> {
    if !config.cores.is_empty() {
        return Ok(Placement::Cores(config.cores.clone()));
    }
    if config.threads > 0 {
        return Ok(Placement::Floating(config.threads));
    }
    let cores = available_parallelism().map_err(|error| EngineError::Config {
        key: "threads",
        problem: format!("is 0, and the number of cores is unknown: {error}"),
    })?;
    Ok(Placement::Floating(cores.get()))
}

fn modelled(config: &Config, spec: ModelSpec, context_max: u32, notify: Notify) -> Result<Opened, EngineError> {
    let kv = pool(config, geometry::of_modelled(config, &spec)?)?;
    let device = ModelledDevice {
        cost: config.modelled.fitted()?,
        layers: spec.layers,
        vocab: spec.vocab,
        eos: spec.eos.clone(),
        output_tokens: (config.modelled.output_tokens > 0).then_some(config.modelled.output_tokens),
    };
    let backend = ModelledBackend::start(device, notify)?;
    let weights_digest = digest(&spec, 0);
    Ok(Opened { backend: Box::new(backend), kv, spec, context_max, weights_digest, expert_counts: None })
}

/// Weights and everything of the configuration that changes the maths; context and end tokens do not.
fn digest(spec: &ModelSpec, weights: u128) -> u128 {
    let maths = ModelSpec { context_max: 0, eos: Vec::new(), ..spec.clone() };
    xxh3_128(format!("{weights:032x} {maths:?}").as_bytes())
}

fn compat(spec: &ModelSpec, kv: &KvStore, layout: &KvLayout, weights_digest: u128, numerics: &str) -> CompatParts {
    let shape = layout.shape();
    CompatParts {
        weights_digest,
        layers: shape.layers_total,
        kv_heads: shape.kv_heads_total,
        head_dim: shape.head_dim,
        rope: format!("{:?}", spec.positions),
        kv_dtype: shape.dtype,
        scale_rule: kv.geometry().dtype.scale_rule().to_owned(),
        numerics: numerics.to_owned(),
        wire_version: WIRE_VERSION,
    }
}

fn scheduler(
    config: &Config,
    role: Role,
    spec: &ModelSpec,
    geometry: &KvGeometry,
    context_max: u32,
    compat: &CompatParts,
) -> Result<Replica, EngineError> {
    let config = ReplicaConfig {
        role,
        blocks_total: geometry.blocks as u32,
        block_tokens: config.block_tokens,
        layers: spec.layers,
        vocab: spec.vocab,
        context_max,
        sequences_max: config.sequences_max,
        step_tokens_max: config.step_tokens_max,
        steps_in_flight: config.steps_in_flight,
        queue_legs_max: config.queue_legs_max,
        prefix_cache: match config.prefix_cache {
            PrefixCacheChoice::On => PrefixCache::On,
            PrefixCacheChoice::Off => PrefixCache::Off,
        },
        filling_share: config.filling_share,
        lease: LeaseConfig { span: Span::from_ms(config.lease_span_ms), beat: Span::from_ms(config.lease_beat_ms) },
        hash_salt: xxh3_64(&compat.key().to_bytes()),
        lease_seed: random::incarnation()? as u64,
    };
    Replica::new(config).map_err(|error| EngineError::Scheduler(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transport_takes_as_many_peers_as_configured() {
        let limits = limits(&Config { peers_max: 300, ..Config::default() });
        assert_eq!((limits.peers_max, limits.readers_max), (300, 300));
    }
}

//! Puts the parts of a replica together; each step's failure names what it was about.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::available_parallelism;

use kernels::memory::HostMemory;
use kernels::{CpuOps, Dtype, KernelSet, KvGeometry, Ops, Placement, Pool};
use kv_transfer::{KvTransport, LeaseTable, Limits, Options, RegionId, Setup, TransportKind};
use sched::layout::KvLayout;
use sched::replica::{LeaseConfig, PrefixCache, Replica, ReplicaConfig};
use sched::{CompatParts, InstanceId, Role, Span};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::{ModelInfo, Started, geometry, random};
use crate::backend::{Backend, CpuBackend, ModelledBackend, ModelledDevice, StepLimits};
use crate::model::{Model, ModelSpec, Precision, WeightFiles};
use crate::replica::{Outlet, Parts, Waker, spawn};
use crate::{BackendKind, Config, EngineError, KvStore, PrefixCacheChoice, TransportChoice, WeightsDtype};

/// Version of the hand-off protocol between workers.
const WIRE_VERSION: u32 = 1;

/// A backend with what the rest has to know about its model.
struct Computes {
    backend: Box<dyn Backend>,
    weights_digest: u128,
}

pub(super) fn start(config: &Config, role: Role, outlet: Box<dyn Outlet>) -> Result<Started, EngineError> {
    let spec = ModelSpec::read(&config.model_dir)?;
    let context_max = context_max(config, &spec)?;
    let instance = InstanceId(random::incarnation()?);
    let (waker, sleeper) = Waker::pair();
    let weights = match config.backend {
        BackendKind::Cpu => Some(WeightFiles::open(&config.model_dir)?),
        BackendKind::Modelled => None,
    };
    let geometry = match &weights {
        Some(weights) => geometry::of_model(config, &spec, computed_dtype(config, weights)?)?,
        None => geometry::of_modelled(config, &spec)?,
    };
    let kv = pool(config, geometry)?;
    let layout = kv.layout()?;
    let leases = Arc::new(LeaseTable::new());
    let setup = Setup { instance, notify: waker.notify(), access: Arc::clone(&leases) as _, limits: Limits::default() };
    let (transport, region) = transport(config, &setup, &kv)?;
    let Computes { backend, weights_digest } = match weights {
        Some(weights) => cpu(config, &spec, &weights, kv, context_max, &waker)?,
        None => modelled(config, &spec, &waker)?,
    };
    let compat = compat(&spec, &layout, weights_digest, &backend.describe().numerics_id);
    let scheduler = scheduler(config, role, &spec, &geometry, context_max, &compat)?;
    let info = ModelInfo {
        instance,
        name: config.served_name(),
        role,
        context_max,
        vocab: spec.vocab,
        eos: spec.eos.clone(),
        layout: layout.clone(),
        blocks: geometry.blocks as u32,
        compat,
        backend: backend.describe().clone(),
        transport: transport.kind(),
    };
    let endpoint = transport.endpoint();
    let inbox_events_max = config.inbox_events_max;
    let parts = Parts { scheduler, backend, transport, leases, region, layout, outlet, inbox_events_max };
    let (handle, join) = spawn(parts, waker, sleeper)?;
    Ok(Started { handle, info, endpoint, join })
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

fn computed_dtype(config: &Config, weights: &WeightFiles) -> Result<Dtype, EngineError> {
    Ok(precision(config).of(weights.stored_dtype()?))
}

fn pool(config: &Config, geometry: KvGeometry) -> Result<KvStore, EngineError> {
    let bytes = geometry.pool_bytes();
    let memory = HostMemory::new(bytes, transport_kind(config).backing()).map_err(|error| EngineError::Memory {
        what: "the KV pool",
        bytes: bytes as u64,
        reason: error.to_string(),
    })?;
    KvStore::new(Arc::new(memory), geometry)
}

fn transport_kind(config: &Config) -> TransportKind {
    match config.transport {
        TransportChoice::Ucx => TransportKind::Ucx,
        TransportChoice::Tcp => TransportKind::Tcp,
        TransportChoice::Shm => TransportKind::Shm,
        TransportChoice::InProcess => TransportKind::InProcess,
    }
}

fn transport(config: &Config, setup: &Setup, kv: &KvStore) -> Result<(Box<dyn KvTransport>, RegionId), EngineError> {
    let kind = transport_kind(config);
    let failed = |error: kv_transfer::TransferError| EngineError::Transport {
        transport: kind.label().to_owned(),
        problem: error.to_string(),
    };
    let mut transport = kv_transfer::open(kind, setup, &transport_options(config)?).map_err(failed)?;
    let region = transport.register(Arc::clone(kv.memory())).map_err(failed)?;
    Ok((Box::new(transport), region))
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

fn cpu(
    config: &Config,
    spec: &ModelSpec,
    weights: &WeightFiles,
    kv: KvStore,
    context_max: u32,
    waker: &Waker,
) -> Result<Computes, EngineError> {
    let pool = Arc::new(Pool::new(&placement(config)?)?);
    let ops = CpuOps::new(Arc::clone(&pool), kernel_set(config)?)?;
    let weights_digest = digest(spec, weights.digest());
    let model = Model::load(&ops, spec.clone(), weights, precision(config), context_max)?;
    tracing::info!(kernel_set = ops.describe().kernel_set, threads = pool.threads(), "cpu backend");
    let limits =
        StepLimits { rows_max: config.step_tokens_max, wanted_max: config.sequences_max, positions_max: context_max };
    let prepare = move || {
        if let Err(error) = pool.pin_caller() {
            tracing::warn!(%error, "the executor thread is not pinned");
        }
    };
    let backend = CpuBackend::start(ops, model, kv, limits, waker.notify(), prepare)?;
    Ok(Computes { backend: Box::new(backend), weights_digest })
}

fn kernel_set(config: &Config) -> Result<KernelSet, EngineError> {
    match config.kernel_set.as_str() {
        "auto" => Ok(KernelSet::best()),
        name => Ok(name.parse::<KernelSet>()?),
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

fn modelled(config: &Config, spec: &ModelSpec, waker: &Waker) -> Result<Computes, EngineError> {
    let device = ModelledDevice {
        cost: config.modelled.fitted()?,
        layers: spec.layers,
        vocab: spec.vocab,
        eos: spec.eos.clone(),
        output_tokens: (config.modelled.output_tokens > 0).then_some(config.modelled.output_tokens),
    };
    let backend = ModelledBackend::start(device, waker.notify())?;
    Ok(Computes { backend: Box::new(backend), weights_digest: digest(spec, 0) })
}

/// Weights and everything of the configuration that changes the maths; context and end tokens do not.
fn digest(spec: &ModelSpec, weights: u128) -> u128 {
    let maths = ModelSpec { context_max: 0, eos: Vec::new(), ..spec.clone() };
    xxh3_128(format!("{weights:032x} {maths:?}").as_bytes())
}

fn compat(spec: &ModelSpec, layout: &KvLayout, weights_digest: u128, numerics: &str) -> CompatParts {
    let shape = layout.shape();
    CompatParts {
        weights_digest,
        layers: shape.layers_total,
        kv_heads: shape.kv_heads_total,
        head_dim: shape.head_dim,
        rope: format!("{:?}", spec.rope),
        kv_dtype: shape.dtype,
        scale_rule: "none".to_owned(),
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
        context_max,
        sequences_max: config.sequences_max,
        step_tokens_max: config.step_tokens_max,
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

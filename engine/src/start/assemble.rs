//! Puts the parts of a replica together; each step's failure names what it was about.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kernels::memory::{Backing, HostMemory};
use kernels::{Dtype, KvGeometry};
use kv_transfer::{KvTransport, LeaseTable, Limits, Options, RegionId, Serving, Setup};
use sched::device::{Device, DeviceSpec};
use sched::handoff::LeaseKey;
use sched::layout::{KvLayout, Resharding, TILE_TOKENS};
use sched::replica::{LeaseConfig, PrefixCache, Reading, Replica, ReplicaConfig};
use sched::{CompatParts, InstanceId, Role, Span};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::memory::Needs;
use super::ranks::{Crew, NoRankProgram, Rank, RankProgram, unplaced};
use super::{ModelInfo, Purpose, Started, geometry, random};
use crate::backend::{Backend, CpuBackend, ModelledBackend, Notify, StepLimits};
use crate::model::{ExpertCounts, Grid, ModelSpec, Precision, WeightFiles};
use crate::replica::{Outlet, Parts, Waker, spawn};
use crate::{BackendKind, Config, EngineError, KvStore, Phase, PrefixCacheChoice, Progress, RanksChoice, WeightsDtype};

/// Version of the hand-off protocol between workers.
const WIRE_VERSION: u32 = 2;
/// How often a modelled device that loads looks whether it shall stop.
const LOADING_SLICE: Duration = Duration::from_millis(20);

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
    let wished = config.transport.kind().backing();
    open_with_ranks(config, wished, notify, &NoRankProgram, &Progress::default())
}

fn open_with_ranks(
    config: &Config,
    wished: Backing,
    notify: Notify,
    program: &dyn RankProgram,
    progress: &Progress,
) -> Result<Opened, EngineError> {
    config.validate()?;
    let spec = ModelSpec::read(&config.model_dir)?;
    let context_max = context_max(config, &spec)?;
    match config.backend {
        BackendKind::Cpu => cpu(config, (spec, context_max), wished, notify, program, progress),
        BackendKind::Modelled => modelled(config, spec, context_max, (wished, notify), progress),
    }
}

pub(super) fn start(
    config: &Config,
    Purpose { role, serving }: Purpose,
    outlet: Box<dyn Outlet>,
    program: &dyn RankProgram,
    progress: &Progress,
) -> Result<Started, EngineError> {
    let (waker, sleeper) = Waker::pair();
    let opened = open_with_ranks(config, backing(config, serving), waker.notify(), program, progress)?;
    progress.begins(Phase::Assembling, 0);
    let Opened { backend, kv, spec, context_max, weights_digest, expert_counts } = opened;
    let (geometry, layout) = (*kv.geometry(), kv.layout()?);
    let instance = InstanceId(random::incarnation()?);
    let leases = Arc::new(LeaseTable::new());
    let setup =
        Setup { instance, notify: waker.notify(), access: Arc::clone(&leases) as _, limits: limits(config), serving };
    let (transport, region) = transport(config, &setup, &kv)?;
    let compat = compat(&spec, &kv, &layout, weights_digest, &backend.describe().numerics_id);
    let scheduler = scheduler(config, role, &spec, &layout, geometry.blocks as u32, context_max, &compat)?;
    let info = ModelInfo {
        instance,
        name: config.served_name(),
        role,
        context_max,
        vocab: spec.vocab,
        eos: spec.eos,
        layout: layout.clone(),
        blocks: geometry.blocks as u32,
        sequences_max: config.sequences_max,
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
    tracing::debug!(
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

pub(super) fn context_max(config: &Config, spec: &ModelSpec) -> Result<u32, EngineError> {
    match config.context_max {
        0 => Ok(spec.context_max),
        asked if asked > spec.context_max => {
            let problem = format!("is {asked}, the model was made for {}", spec.context_max);
            Err(EngineError::Config { key: "context_max", problem })
        }
        asked => Ok(asked),
    }
}

pub(super) fn precision(config: &Config) -> Precision {
    match config.dtype {
        WeightsDtype::Auto => Precision::AsStored,
        WeightsDtype::F32 => Precision::Converted(Dtype::F32),
        WeightsDtype::Bf16 => Precision::Converted(Dtype::Bf16),
        WeightsDtype::Int8 => Precision::Int8,
    }
}

/// Bounds of one step of this worker.
pub(super) fn step_limits(config: &Config, context_max: u32) -> StepLimits {
    StepLimits { rows_max: config.step_tokens_max, wanted_max: config.sequences_max, positions_max: context_max }
}

/// What the pool is best made of: what the transport serves from, where it serves, and else memory with huge pages.
fn backing(config: &Config, serving: Serving) -> Backing {
    match serving {
        Serving::Readers => config.transport.kind().backing(),
        Serving::Nobody => Backing::Anonymous,
    }
}

/// The pool's memory. Where ranks are processes they must be able to map it, whatever else was wished for.
fn pool(config: &Config, geometry: KvGeometry, grid: Grid, wished: Backing) -> Result<KvStore, EngineError> {
    let bytes = geometry.pool_bytes();
    let backing = match config.ranks {
        RanksChoice::Processes if grid != Grid::ALONE => Backing::Bequeathed,
        RanksChoice::Processes | RanksChoice::Threads => wished,
    };
    if backing != wished {
        tracing::debug!("the KV pool is shared with the processes of the ranks, not private memory");
    }
    let memory = HostMemory::new(bytes, backing).map_err(|error| EngineError::Memory {
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

/// One bound for both directions: whom we read from, and who reads from us. There is room for every pull that the
/// scheduler lets run.
fn limits(config: &Config) -> Limits {
    let batches_max = config.peers_max.saturating_mul(config.pulls_per_giver_max as usize);
    Limits { peers_max: config.peers_max, readers_max: config.peers_max, batches_max, ..Limits::default() }
}

fn transport_options(config: &Config) -> Result<Options, EngineError> {
    let (tcp_listen, tcp_advertise) = config.addresses()?;
    let (ucx_tls, ucx_fabric) = (config.ucx_tls.clone(), config.ucx_fabric());
    Ok(Options { tcp_listen, tcp_advertise, ucx_tls, ucx_fabric })
}

fn cpu(
    config: &Config,
    (spec, context_max): (ModelSpec, u32),
    wished: Backing,
    notify: Notify,
    program: &dyn RankProgram,
    progress: &Progress,
) -> Result<Opened, EngineError> {
    let grid = Crew::grid(config, &spec)?;
    let weights = WeightFiles::open(&config.model_dir)?.reporting_to(progress);
    let spec = spec.as_stored(&weights)?;
    let precision = precision(config);
    let bytes = weights.prepared_bytes(precision);
    let geometry = geometry::of_model(config, &spec, precision.of(spec.stored_dtype(&weights)?))?;
    let limits = step_limits(config, context_max);
    Needs::of((&spec, grid), &geometry, bytes, limits).require()?;
    let kv = pool(config, geometry, grid, wished)?;
    let weights_digest = digest(&spec, weights.digest()?);
    let (spec_too, progress) = (spec.clone(), progress.clone());
    let crew = Crew { config: config.clone(), spec: spec_too, grid, precision, limits, weights_digest, progress };
    let named = config.clone();
    let pin = |threads: Arc<kernels::Pool>| move || threads.pin_caller().map_err(|error| unplaced(&named, error));
    let (backend, expert_counts) = if grid == Grid::ALONE {
        let Rank { forward, threads } = crew.alone(&weights, &kv)?;
        let (info, counts) = (forward.describe(grid.tensor), forward.expert_counts());
        (CpuBackend::start(forward, (info, None), limits, notify, pin(threads))?, counts)
    } else {
        let (Rank { forward, threads }, segment) = crew.group(&weights, &kv, program, &notify)?;
        let (info, counts) = (forward.describe(), forward.expert_counts());
        (CpuBackend::start(forward, (info, Some(segment)), limits, notify, pin(threads))?, counts)
    };
    Ok(Opened { backend: Box::new(backend), kv, spec, context_max, weights_digest, expert_counts })
}

fn modelled(
    config: &Config,
    spec: ModelSpec,
    context_max: u32,
    (wished, notify): (Backing, Notify),
    progress: &Progress,
) -> Result<Opened, EngineError> {
    let geometry = geometry::of_modelled(config, &spec)?;
    Needs::of_pool(&geometry).require()?;
    let kv = pool(config, geometry, Grid::ALONE, wished)?;
    let device = DeviceSpec {
        layers: spec.layers,
        vocab: spec.vocab,
        eos: spec.eos.clone(),
        output_tokens: (config.modelled.output_tokens > 0).then_some(config.modelled.output_tokens),
    };
    take_loading_time(config, device.layers, progress)?;
    let device = Device::new(Box::new(config.modelled.fitted()?), device);
    let backend = ModelledBackend::start(device, notify)?;
    let weights_digest = digest(&spec, 0);
    Ok(Opened { backend: Box::new(backend), kv, spec, context_max, weights_digest, expert_counts: None })
}

/// A modelled device takes the time to load that a real one would, layer by layer.
fn take_loading_time(config: &Config, layers: u32, progress: &Progress) -> Result<(), EngineError> {
    let layers = layers.max(1);
    let pause = Duration::from_millis(config.modelled.load_ms) / layers;
    for _ in 0..layers {
        progress.begins(Phase::Modelled, 0);
        let until = Instant::now() + pause;
        while Instant::now() < until {
            progress.check()?;
            std::thread::sleep(LOADING_SLICE.min(until.saturating_duration_since(Instant::now())));
        }
    }
    Ok(())
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

/// How many positions the transport can copy at a time, however scattered they lie on both sides.
fn pull_tokens_max(layout: &KvLayout, copies_max: usize) -> u32 {
    let units = copies_max / Resharding::copies_per_unit(layout) as usize;
    u32::try_from(units).unwrap_or(u32::MAX).clamp(1, u32::MAX / TILE_TOKENS) * TILE_TOKENS
}

fn scheduler(
    config: &Config,
    role: Role,
    spec: &ModelSpec,
    layout: &KvLayout,
    blocks_total: u32,
    context_max: u32,
    compat: &CompatParts,
) -> Result<Replica, EngineError> {
    let config = ReplicaConfig {
        role,
        blocks_total,
        block_tokens: config.block_tokens,
        layers: spec.layers,
        vocab: spec.vocab,
        context_max,
        sequences_max: config.sequences_max,
        step_tokens_max: config.step_tokens_max,
        step_layers_max: spec.layers,
        steps_in_flight: config.steps_in_flight,
        queue_legs_max: config.queue_legs_max,
        pulls_per_giver_max: config.pulls_per_giver_max,
        pull_tokens_max: pull_tokens_max(layout, limits(config).copies_max),
        reading: Reading::WhenComplete,
        prefix_cache: match config.prefix_cache {
            PrefixCacheChoice::On => PrefixCache::On,
            PrefixCacheChoice::Off => PrefixCache::Off,
        },
        filling_share: config.filling_share,
        lease: LeaseConfig { span: Span::from_ms(config.lease_span_ms), beat: Span::from_ms(config.lease_beat_ms) },
        hash_salt: xxh3_64(&compat.key().to_bytes()),
        lease_key: LeaseKey::new(random::bytes()?),
    };
    Replica::new(config).map_err(|error| EngineError::Scheduler(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv_store::layout_of;

    #[test]
    fn a_pull_has_no_more_copies_than_the_transport_takes() {
        let geometry = |layers| KvGeometry {
            blocks: 1,
            layers,
            kv_heads: 8,
            head_dim: 128,
            block_tokens: 64,
            dtype: kernels::KvDtype::Bf16,
        };
        let tokens = |layers, copies| pull_tokens_max(&layout_of(&geometry(layers)).unwrap(), copies);
        assert_eq!(tokens(80, 1 << 20), (1 << 20) / 160 * 16);
        assert_eq!(tokens(1, 1), 16, "a pull has at least one tile");
        assert_eq!(tokens(1, usize::MAX) % 16, 0);
    }

    #[test]
    fn the_transport_takes_as_many_peers_as_configured() {
        let limits = limits(&Config { peers_max: 300, pulls_per_giver_max: 7, ..Config::default() });
        assert_eq!((limits.peers_max, limits.readers_max), (300, 300));
        assert_eq!(limits.batches_max, 300 * 7, "every pull that the scheduler lets run has its place");
    }
}

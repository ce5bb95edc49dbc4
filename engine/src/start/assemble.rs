//! Assembles the parts of a replica; the error of each step names the part that failed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_utils::sync::Parker;
use kernels::memory::Backing;
use kv_transfer::{KvTransport, LeaseTable, Limits, Options, RegionId, Serving, Setup};
use sched::device::{Device, DeviceSpec};
use sched::handoff::LeaseKey;
use sched::layout::{KvLayout, Resharding, TILE_TOKENS};
use sched::replica::{LaneConfig, LaneWork, LeaseConfig, PrefixCache, Reading, Replica, ReplicaConfig};
use sched::share::{Divisions, IdleShare, Partition, ShareError};
use sched::{CompatParts, InstanceId, Role, Span, Time};
use xxhash_rust::xxh3::xxh3_64;

use super::cpu::{self, NoRankProgram, RankProgram};
use super::limits::context_max;
use super::memory::Needs;
use super::opened::{Opened, digest, pool};
use super::{ModelInfo, Purpose, Started, geometry};
use crate::backend::{ModelledBackend, Notify};
use crate::model::{Grid, ModelSpec};
use crate::replica::{Outlet, Parts, spawn};
use crate::structure::Structures;
use crate::{BackendKind, Config, EngineError, KvStore, Phase, PrefixCacheChoice, Progress};

/// Version of the hand-off protocol between workers.
const WIRE_VERSION: u32 = 2;
/// Parts in which shares are counted: steps of 5 %.
const DIVISIONS: u16 = 20;
/// Time between two checks whether a loading modelled device shall stop.
const LOADING_SLICE: Duration = Duration::from_millis(20);

/// Loads the model and starts its backend, without scheduler and transport, for measurements and tests. `notify` is
/// called whenever the backend has something to poll.
pub fn open_backend(config: &Config, notify: Notify) -> Result<Opened, EngineError> {
    let wished = config.transport.kind().backing();
    open_with_ranks(config, (wished, 1), notify, &NoRankProgram, &Progress::default())
}

/// Does what [`open_backend`] does, for two lanes that compute at the same time, each with its share of the device.
pub fn open_partitioned(config: &Config, notify: Notify) -> Result<Opened, EngineError> {
    let wished = config.transport.kind().backing();
    open_with_ranks(config, (wished, 2), notify, &NoRankProgram, &Progress::default())
}

fn open_with_ranks(
    config: &Config,
    (wished, lanes): (Backing, usize),
    notify: Notify,
    program: &dyn RankProgram,
    progress: &Progress,
) -> Result<Opened, EngineError> {
    config.validate()?;
    let spec = ModelSpec::read(&config.model_dir)?;
    let context_max = context_max(config, &spec)?;
    match config.backend {
        BackendKind::Cpu => cpu::open(config, (spec, context_max), (wished, lanes), &notify, program, progress),
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
    let parker = Parker::new();
    let thread = parker.unparker().clone();
    let notify: Notify = Arc::new(move || thread.unpark());
    let opened = open_with_ranks(
        config,
        (backing(config, serving), LaneWork::of_role(role).len()),
        Arc::clone(&notify),
        program,
        progress,
    )?;
    progress.begins(Phase::Assembling, 0);
    let Opened { backend, kv, spec, context_max, weights_digest, expert_counts, structures } = opened;
    let (geometry, layout) = (*kv.geometry(), kv.layout()?);
    let instance = InstanceId(u128::from_le_bytes(random_bytes()?));
    let leases = Arc::new(LeaseTable::new());
    let setup = Setup { instance, notify, access: Arc::clone(&leases) as _, limits: limits(config), serving };
    let (transport, region) = transport(config, &setup, &kv)?;
    let compat = compat(&spec, &kv, &layout, weights_digest, &backend.describe().numerics_id);
    let scheduler = scheduler(config, role, &spec, &layout, geometry.blocks as u32, context_max, &compat)?;
    let partition = partition(config, role, (spec.layers, geometry.blocks as u32))?;
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
    let parts = Parts {
        scheduler,
        backend,
        transport,
        leases,
        region,
        layout,
        partition,
        structures,
        outlet,
        inbox_events_max,
    };
    let (handle, join) = spawn(parts, parker)?;
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

/// Memory for the KV pool: what the transport serves readers from, or huge pages if there are no readers.
fn backing(config: &Config, serving: Serving) -> Backing {
    match serving {
        Serving::Readers => config.transport.kind().backing(),
        Serving::Nobody => Backing::Anonymous,
    }
}

fn transport(config: &Config, setup: &Setup, kv: &KvStore) -> Result<(Box<dyn KvTransport>, RegionId), EngineError> {
    let kind = config.transport.kind();
    let failed = |error: kv_transfer::TransferError| EngineError::Transport {
        transport: kind.label().to_owned(),
        problem: error.to_string(),
    };
    let mut transport = kv_transfer::open(kind, setup, &transport_options(config)?).map_err(failed)?;
    let region = transport.register(kv.region().clone()).map_err(failed)?;
    Ok((Box::new(transport), region))
}

/// One peer limit for both directions, givers and readers, and room for every pull that the scheduler allows.
fn limits(config: &Config) -> Limits {
    let batches_max = config.peers_max.saturating_mul(config.pulls_per_giver_max as usize);
    Limits { peers_max: config.peers_max, readers_max: config.peers_max, batches_max, ..Limits::default() }
}

fn transport_options(config: &Config) -> Result<Options, EngineError> {
    let (tcp_listen, tcp_advertise) = config.addresses()?;
    let (ucx_tls, ucx_fabric) = (config.ucx_tls.clone(), config.ucx_fabric());
    Ok(Options { tcp_listen, tcp_advertise, ucx_tls, ucx_fabric })
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
    let structures = Structures::new(config.model_dir.clone());
    Ok(Opened { backend: Box::new(backend), kv, spec, context_max, weights_digest, expert_counts: None, structures })
}

/// Waits, layer by layer, as long as a real device would take to load.
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

/// Random bytes: unpredictable, and different at every start of every worker.
fn random_bytes<const N: usize>() -> Result<[u8; N], EngineError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| EngineError::Random(error.to_string()))?;
    Ok(bytes)
}

/// Most positions in one pull, so that even scattered blocks on both sides fit the transport's copy limit.
fn pull_tokens_max(layout: &KvLayout, copies_max: usize) -> u32 {
    let units = copies_max / Resharding::copies_per_unit(layout) as usize;
    u32::try_from(units).unwrap_or(u32::MAX).clamp(1, u32::MAX / TILE_TOKENS) * TILE_TOKENS
}

/// The division of the device, where the role has a lane for each phase.
fn partition(config: &Config, role: Role, sizes: (u32, u32)) -> Result<Option<Partition>, EngineError> {
    if LaneWork::of_role(role).len() < 2 {
        return Ok(None);
    }
    let idle = match config.backend {
        BackendKind::Cpu => IdleShare::Lent,
        BackendKind::Modelled => IdleShare::Unused,
    };
    let wrong = |ShareError { key, problem }| EngineError::Config { key, problem };
    let device = Divisions::new(DIVISIONS, idle).map_err(wrong)?;
    Partition::new(&config.share, device, sizes, Time(0)).map(Some).map_err(wrong)
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
    let lane = |work: &LaneWork| LaneConfig {
        work: *work,
        step_tokens_max: config.step_tokens_max,
        step_layers_max: spec.layers,
        steps_in_flight: config.steps_in_flight,
    };
    let config = ReplicaConfig {
        lanes: LaneWork::of_role(role).iter().map(lane).collect(),
        blocks_total,
        block_tokens: config.block_tokens,
        layers: spec.layers,
        vocab: spec.vocab,
        context_max,
        sequences_max: config.sequences_max,
        queue_legs_max: config.queue_legs_max,
        pulls_per_giver_max: config.pulls_per_giver_max,
        pull_tokens_max: pull_tokens_max(layout, limits(config).copies_max),
        reading: Reading::WhenComplete,
        prefix_cache: match config.prefix_cache {
            PrefixCacheChoice::On => PrefixCache::On,
            PrefixCacheChoice::Off => PrefixCache::Off,
        },
        filling_share: config.filling_share,
        scheduling: config.scheduling.scheduling(),
        lease: LeaseConfig { span: Span::from_ms(config.lease_span_ms), beat: Span::from_ms(config.lease_beat_ms) },
        hash_salt: xxh3_64(&compat.key().to_bytes()),
        lease_key: LeaseKey::new(random_bytes()?),
    };
    Replica::new(config).map_err(|error| EngineError::Scheduler(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv_store::layout_of;
    use kernels::KvGeometry;

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

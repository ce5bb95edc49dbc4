//! Starts a backend on this host's CPUs: a single rank, or a leader with followers in threads or processes.

mod crew;
mod placement;
mod processes;
mod threads;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kernels::collective::{Patience, Segment};
use kernels::memory::Backing;
use kernels::{CpuOps, Pool, PoolLane};
use sched::LaneId;

use self::crew::Crew;
use self::placement::unplaced;
use super::geometry;
use super::limits::{lane_limits, precision, segment_shape, step_limits};
use super::memory::Needs;
use super::opened::{Opened, digest, pool};
use crate::backend::{
    Built, Described, Forward, Group, HostSampled, Notify, OpsBackend, Order, Orders, Plan, Runner, StepLimits,
};
use crate::model::{Grid, Model, ModelSpec, WeightFiles};
use crate::sampling::Choices;
use crate::structure::Structures;
use crate::{Config, EngineError, KvStore, Phase, Progress, RanksChoice};

pub use processes::{NoRankProgram, RankProgram, serve_rank};

/// Limit on loading. It may be long: a rank that ends is noticed at once, and the progress shows a rank that is stuck.
const LOADING_MAX: Duration = Duration::from_secs(24 * 3600);
/// Loads the model and starts its backend. `notify` is called whenever the backend has something to poll.
pub(super) fn open(
    config: &Config,
    (spec, context_max): (ModelSpec, u32),
    (wished, lanes): (Backing, usize),
    notify: &Notify,
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
    let lanes = lanes.min(crew::lanes_max(config, grid)?);
    Needs::of((&spec, grid), &geometry, bytes, &lane_limits(config, limits, lanes)).require()?;
    let kv = pool(config, geometry, grid, wished)?;
    let weights_digest = digest(&spec, weights.digest()?);
    let (spec_too, progress) = (spec.clone(), progress.clone());
    let crew = Crew { config: config.clone(), spec: spec_too, grid, precision, limits, weights_digest, progress };
    // Before any rank loads, so that cores that do not exist are reported at once.
    let threads = crew.threads(0, lanes)?;
    let structures = Structures::new(config.model_dir.clone());
    let choices = Choices::new(structures.clone());
    let (backend, expert_counts) = if grid == Grid::ALONE {
        OpsBackend::start(Alone::plans(crew, weights, &threads, (&kv, &choices))?, notify)?
    } else {
        let (gathered, pool) = (Gathered::new(&crew, &kv, program, notify)?, kv.clone());
        let build = Box::new(move || gathered.lead(&crew, &weights, &threads, (&pool, choices)));
        OpsBackend::start(vec![Plan { build, limits, rest: None }], notify)?
    };
    Ok(Opened { backend: Box::new(backend), kv, spec, context_max, weights_digest, expert_counts, structures })
}

/// The only rank of one lane; the lanes of a pool of threads share its weights.
struct Alone {
    crew: Arc<Crew>,
    weights: Arc<WeightFiles>,
    /// Set by the executor that is built first.
    model: Arc<OnceLock<Arc<Model<CpuOps>>>>,
    kv: KvStore,
    choices: Choices,
    threads: PoolLane,
    lane: LaneId,
    limits: StepLimits,
}

impl Alone {
    /// An executor for each lane of the pool.
    fn plans(
        crew: Crew,
        weights: WeightFiles,
        threads: &Arc<Pool>,
        (kv, choices): (&KvStore, &Choices),
    ) -> Result<Vec<Plan<impl Forward + use<>>>, EngineError> {
        let (crew, weights, model) = (Arc::new(crew), Arc::new(weights), Arc::default());
        let limits = lane_limits(&crew.config, crew.limits, threads.lanes());
        let plan = |lane: u8| {
            let alone = Alone {
                crew: Arc::clone(&crew),
                weights: Arc::clone(&weights),
                model: Arc::clone(&model),
                kv: kv.clone(),
                choices: choices.clone(),
                threads: threads.lane(usize::from(lane))?,
                lane: LaneId(lane),
                limits: limits[usize::from(lane)],
            };
            let rest = (threads.lanes() > 1).then(|| alone.threads.clone());
            Ok(Plan { limits: alone.limits, rest, build: Box::new(move || alone.build()) })
        };
        (0..threads.lanes() as u8).map(plan).collect()
    }

    fn build(self) -> Result<Built<impl Forward + use<>>, EngineError> {
        let Alone { crew, weights, model, kv, choices, threads, lane, limits } = self;
        threads.pin_caller().map_err(|error| unplaced(&crew.config, error))?;
        let ops = CpuOps::on_lane(threads.clone(), crew.config.instructions()?)?;
        let model = match model.get() {
            Some(model) => Arc::clone(model),
            None => {
                let loaded = Arc::new(crew.load(&weights, 0, (&ops, threads.pool()))?);
                Arc::clone(model.get_or_init(|| loaded))
            }
        };
        let runner = Runner::alone(ops, model, &kv, limits, lane)?;
        let (info, expert_counts) = (runner.describe(crew.grid.tensor), runner.expert_counts());
        let described = Described { info, expert_counts, ranks: None };
        Ok(Built { forward: HostSampled::new(runner, choices), described })
    }
}

/// Followers that load their parts, and the orders that lead them.
struct Gathered {
    segment: Arc<Segment>,
    /// Dropping them says that the worker stops, and waits for them.
    followers: Box<dyn Send>,
    orders: Orders,
}

impl Gathered {
    /// Starts the followers. `notify` is called when one of them ends.
    fn new(crew: &Crew, kv: &KvStore, program: &dyn RankProgram, notify: &Notify) -> Result<Gathered, EngineError> {
        let backing = match crew.config.ranks {
            RanksChoice::Threads => Backing::Anonymous,
            RanksChoice::Processes => Backing::Bequeathed,
        };
        let segment = Segment::new(segment_shape(crew.grid, &crew.spec, crew.limits, kv.geometry()), backing)?;
        let followers: Box<dyn Send> = match crew.config.ranks {
            RanksChoice::Threads => Box::new(threads::start(crew, kv, &segment, notify)?),
            RanksChoice::Processes => Box::new(processes::start(crew, kv, &segment, program, notify)?),
        };
        let mut orders = Orders::new(&segment);
        orders.give(0..crew.grid.ranks(), &Order::Ready)?;
        Ok(Gathered { segment, followers, orders })
    }

    /// Loads the leader's own part and waits for the others.
    fn lead(
        self,
        crew: &Crew,
        weights: &WeightFiles,
        threads: &Arc<Pool>,
        (kv, choices): (&KvStore, Choices),
    ) -> Result<Built<impl Forward + use<>>, EngineError> {
        let Gathered { segment, followers, mut orders } = self;
        threads.pin_caller().map_err(|error| unplaced(&crew.config, error))?;
        let runner = crew.runner(weights, (0, threads), &segment, kv)?;
        crew.progress.begins(Phase::WaitingForRanks, 0);
        orders.hear(Patience { spin: Duration::ZERO, limit: LOADING_MAX })?;
        let group = Group::new(runner, crew.grid, &segment, orders, crew.patience(), followers);
        let (info, expert_counts) = (group.describe(), group.expert_counts());
        Ok(Built {
            forward: HostSampled::new(group, choices),
            described: Described { info, expert_counts, ranks: Some(segment) },
        })
    }
}

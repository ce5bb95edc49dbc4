//! What every CPU rank of a worker needs, and how a rank loads its part of the model; knows not who starts it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kernels::collective::{Follower, Patience, Segment};
use kernels::{CpuOps, Pool};

use super::placement::{self, unplaced};
use crate::backend::{Runner, StepLimits, follow};
use crate::model::{CacheKey, Grid, Model, ModelSpec, Precision, Share, Source, WeightFiles, WeightsCache};
use crate::{Config, EngineError, KvStore, Phase, Progress};

/// Time that a rank may be late for reasons other than its computing.
const LAYER_MARGIN: Duration = Duration::from_secs(30);
/// Operations per second of the slowest rank that the others wait for.
const SLOWEST_OPERATIONS_PER_S: f64 = 4e9;
/// Ranks with cores of their own spin this long for each other before they sleep.
const SPIN: Duration = Duration::from_micros(60);

/// Everything that a rank of a worker needs to load its part.
#[derive(Clone)]
pub(super) struct Crew {
    pub(super) config: Config,
    pub(super) spec: ModelSpec,
    pub(super) grid: Grid,
    pub(super) precision: Precision,
    pub(super) limits: StepLimits,
    /// Digest of the whole model, whatever part a rank has.
    pub(super) weights_digest: u128,
    /// Progress of the leader.
    pub(super) progress: Progress,
}

/// Lanes that can compute at the same time: each needs a thread, and of several ranks one executor has all lanes.
pub(super) fn lanes_max(config: &Config, grid: Grid) -> Result<usize, EngineError> {
    match grid {
        Grid::ALONE => Ok(placement::of_rank(config, Share { index: 0, of: 1 })?.threads()),
        _ => Ok(1),
    }
}

impl Crew {
    pub(super) fn grid(config: &Config, spec: &ModelSpec) -> Result<Grid, EngineError> {
        let grid = Grid { tensor: config.tp, stages: config.pp };
        grid.check(spec)?;
        Ok(grid)
    }

    /// Loads the part of rank `rank` and follows the leader until the group ends.
    pub(super) fn follow(&self, rank: u32, segment: &Arc<Segment>, kv: &KvStore) -> Result<(), EngineError> {
        let mut follower = Follower::new(segment, rank as usize)?;
        follow(&mut follower, self.follower(rank, segment, kv), self.patience().spin);
        Ok(())
    }

    fn follower(&self, rank: u32, segment: &Arc<Segment>, kv: &KvStore) -> Result<Runner<CpuOps>, EngineError> {
        let threads = self.threads(rank, 1)?;
        let weights = WeightFiles::open(&self.config.model_dir)?.reporting_to(&self.progress.of_follower());
        let runner = self.runner(&weights, (rank, &threads), segment, kv)?;
        threads.pin_caller().map_err(|error| unplaced(&self.config, error))?;
        Ok(runner)
    }

    pub(super) fn runner(
        &self,
        weights: &WeightFiles,
        (rank, threads): (u32, &Arc<Pool>),
        segment: &Arc<Segment>,
        kv: &KvStore,
    ) -> Result<Runner<CpuOps>, EngineError> {
        let ops = CpuOps::new(Arc::clone(threads), self.config.instructions()?)?;
        let model = self.load(weights, rank, (&ops, threads))?;
        let of_group = (segment, rank as usize);
        Runner::of_group(ops, model, kv, self.limits, of_group, self.patience())
    }

    /// Threads of a rank, which work for so many lanes at the same time.
    pub(super) fn threads(&self, rank: u32, lanes: usize) -> Result<Arc<Pool>, EngineError> {
        let placement = placement::of_rank(&self.config, self.grid.part(&self.spec, rank).tensor)?;
        Ok(Arc::new(Pool::with_lanes(&placement, lanes).map_err(|error| unplaced(&self.config, error))?))
    }

    pub(super) fn load(
        &self,
        weights: &WeightFiles,
        rank: u32,
        (ops, threads): (&CpuOps, &Arc<Pool>),
    ) -> Result<Model<CpuOps>, EngineError> {
        let part = self.grid.part(&self.spec, rank);
        let cache = WeightsCache::of_key(&self.config.weights_cache, |name| std::env::var_os(name).map(PathBuf::from));
        let bytes = weights.prepared_bytes(self.precision) / u64::from(self.grid.ranks());
        let key = CacheKey::new(ops, self.weights_digest, &format!("{:?} {part:?}", self.precision), bytes)?;
        let own_bytes = weights.bytes() / u64::from(self.grid.ranks());
        cache.load(key, (threads, weights.progress()), |shelf| {
            if shelf.packs() {
                weights.progress().begins(Phase::Packing, own_bytes);
            }
            let source = Source { weights, precision: self.precision, shelf };
            Model::load(ops, self.spec.clone(), part.clone(), source, self.limits.positions_max)
        })
    }

    pub(super) fn patience(&self) -> Patience {
        let spin = if placement::have_own_cores(self.grid.tensor) { SPIN } else { Duration::ZERO };
        Patience { spin, limit: self.layer_max() }
    }

    /// Time after which a rank that takes no part in a layer counts as stuck: what the largest layer takes a very slow
    /// processor with all rows of a step, and a margin.
    fn layer_max(&self) -> Duration {
        let (spec, shape) = (&self.spec, self.spec.head_shape());
        let experts = spec.experts().map_or(0, |(width, routing)| routing.per_row * width as usize);
        let mlp = 3 * experts.max(spec.dense_width().unwrap_or(0) as usize);
        let operations =
            2.0 * self.limits.rows_max as f64 * spec.hidden as f64 * (shape.qkv_cols() + shape.out_cols() + mlp) as f64;
        LAYER_MARGIN + Duration::from_secs_f64(operations / SLOWEST_OPERATIONS_PER_S)
    }
}

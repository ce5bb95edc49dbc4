//! One rank: its part of the model, its window of the pool, the activations of every lane. Knows no scheduler, and of
//! other ranks only what it shares with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use kernels::collective::{Alone, Board, Collective, Patience, Segment, SharedReduce, Tallies};
use kernels::{KvWindow, Ops};
use sched::LaneId;

use super::StepLimits;
use super::input::StepInput;
use super::order::{Entry, Order};
use crate::backend::BackendInfo;
use crate::model::{Activations, ExpertCounts, LogitRows, Model, Tally};
use crate::{EngineError, KvStore};

/// A rank: a single one, or one of several around a segment.
pub(crate) struct Runner<O: Ops> {
    ops: O,
    /// Weights, which the ranks of several lanes share.
    model: Arc<Model<O>>,
    kv: O::Kv,
    limits: StepLimits,
    ranks: Box<dyn Collective<O>>,
    boards: Option<Boards>,
    /// Buffers for the steps of every lane.
    lanes: BTreeMap<LaneId, Activations<O>>,
}

/// Boards over which ranks exchange rows and logits.
struct Boards {
    rows: Board,
    logits: Board,
}

impl<O: Ops> Runner<O> {
    /// Makes the only rank of the steps of `lane`. `kv` is the whole pool, of which every rank sees its own window.
    pub(crate) fn alone(
        ops: O,
        model: Arc<Model<O>>,
        kv: &KvStore,
        limits: StepLimits,
        lane: LaneId,
    ) -> Result<Runner<O>, EngineError> {
        let mut runner = Runner::new(ops, model, kv, limits, Box::new(Alone), None)?;
        runner.open(lane)?;
        Ok(runner)
    }

    /// Makes rank `rank` of those around `segment`.
    pub(crate) fn of_group(
        ops: O,
        mut model: Model<O>,
        kv: &KvStore,
        limits: StepLimits,
        (segment, rank): (&Arc<Segment>, usize),
        patience: Patience,
    ) -> Result<Runner<O>, EngineError> {
        // All ranks of a stage route alike, so only the first counts, in memory that the leader and all stages see.
        let counts = rank.is_multiple_of(segment.shape().group_ranks);
        model.count_experts_in(counts.then(|| Arc::new(Tallies::of(segment)) as Tally));
        let ranks = Box::new(SharedReduce::new(segment, rank, patience)?);
        let boards = Boards { rows: Board::of_rows(segment), logits: Board::of_logits(segment) };
        let mut runner = Runner::new(ops, Arc::new(model), kv, limits, ranks, Some(boards))?;
        runner.open(LaneId(0))?;
        Ok(runner)
    }

    /// Makes a rank without activations; opening the first lane at once turns a lack of memory into an error at start.
    fn new(
        ops: O,
        model: Arc<Model<O>>,
        kv: &KvStore,
        limits: StepLimits,
        ranks: Box<dyn Collective<O>>,
        boards: Option<Boards>,
    ) -> Result<Runner<O>, EngineError> {
        let (layers, heads) = (model.part().layers.clone(), model.part().kv_heads(model.spec()));
        let usizes = |range: std::ops::Range<u32>| range.start as usize..range.end as usize;
        let window = KvWindow { layers: usizes(layers), kv_heads: usizes(heads) };
        let kv = ops.kv(kv.region(), *kv.geometry(), window)?;
        Ok(Runner { ops, model, kv, limits, ranks, boards, lanes: BTreeMap::new() })
    }

    pub(super) fn model(&self) -> &Model<O> {
        &self.model
    }

    /// Describes the backend; `tensor` ranks like this one work at the same time.
    pub(crate) fn describe(&self, tensor: u32) -> BackendInfo {
        let (ops, weights_dtype) = (self.ops.describe(), self.model.weights_dtype());
        BackendInfo {
            backend: ops.backend,
            kernel_set: ops.kernel_set.to_owned(),
            numerics_id: format!("{} weights:{weights_dtype}", ops.numerics_id),
            weights_dtype: weights_dtype.to_owned(),
            threads: ops.threads * tensor as usize,
            exact: true,
        }
    }

    /// Work of its experts; the counters are shared and go on counting.
    pub(crate) fn expert_counts(&self) -> Option<ExpertCounts> {
        self.model.expert_counts().cloned()
    }

    pub(super) fn obey(&mut self, order: Order) -> Result<(), EngineError> {
        match order {
            Order::Ready => Ok(()),
            Order::Copy(pairs) => self.copy_blocks(&pairs),
            Order::Enter { lane, input, entry } => self.enter(lane, &input, entry),
            Order::Layer { lane, layer } => self.layer(lane, layer),
            Order::HandOver(lane) => self.hand_over(lane),
            Order::TakeOver(lane) => self.take_over(lane),
            Order::Logits(lane) => self.put_logits(lane),
        }
    }

    pub(super) fn copy_blocks(&mut self, pairs: &[(u32, u32)]) -> Result<(), EngineError> {
        Ok(self.ops.copy_blocks(&self.kv, pairs)?)
    }

    /// Takes the input for a lane's next layers, and embeds if the first layer is here. If several ranks share the
    /// vocabulary, each puts the rows of its tokens on the board, from where all take them.
    pub(super) fn enter(&mut self, lane: LaneId, input: &StepInput, entry: Entry) -> Result<(), EngineError> {
        self.open(lane)?;
        let Runner { ops, model, kv, lanes, .. } = self;
        let space = lanes.get_mut(&lane).ok_or_else(|| absent(lane))?;
        model.begin(ops, space, kv, input.as_input())?;
        match entry {
            Entry::Embed if self.model.part().is_first() => self.embed(lane),
            Entry::Embed | Entry::Kept => Ok(()),
        }
    }

    fn embed(&mut self, lane: LaneId) -> Result<(), EngineError> {
        let Runner { ops, model, boards, lanes, .. } = self;
        let space = lanes.get_mut(&lane).ok_or_else(|| absent(lane))?;
        if !model.part().is_shared() {
            return model.embed(ops, space);
        }
        let hidden = model.spec().hidden as usize;
        let (rows, values) = model.embed_own(ops, space)?;
        let board = &boards.as_ref().ok_or_else(alone)?.rows;
        for (row, values) in rows.iter().zip(values.chunks_exact(hidden)) {
            board.put(row * hidden, values)?;
        }
        Ok(())
    }

    pub(super) fn layer(&mut self, lane: LaneId, layer: u32) -> Result<(), EngineError> {
        let Runner { ops, model, kv, ranks, lanes, .. } = self;
        let space = lanes.get_mut(&lane).ok_or_else(|| absent(lane))?;
        model.layer(ops, ranks.as_mut(), space, kv, layer)?;
        // Once per step, because at every layer it would have to wait for the device.
        if layer + 1 == model.part().layers.end { model.take_expert_counts(ops, space) } else { Ok(()) }
    }

    /// Waits until everything that was asked for is done.
    pub(super) fn wait(&mut self) -> Result<(), EngineError> {
        Ok(self.ops.wait()?)
    }

    pub(super) fn logits(&mut self, lane: LaneId) -> Result<LogitRows<'_>, EngineError> {
        let Runner { ops, model, lanes, .. } = self;
        model.logits(ops, lanes.get_mut(&lane).ok_or_else(|| absent(lane))?)
    }

    fn hand_over(&mut self, lane: LaneId) -> Result<(), EngineError> {
        let values = self.model.hidden(&self.ops, self.lanes.get(&lane).ok_or_else(|| absent(lane))?)?;
        Ok(self.boards.as_ref().ok_or_else(alone)?.rows.put(0, &values)?)
    }

    fn take_over(&mut self, lane: LaneId) -> Result<(), EngineError> {
        let Runner { ops, model, boards, lanes, .. } = self;
        let space = lanes.get_mut(&lane).ok_or_else(|| absent(lane))?;
        let mut values = vec![0.0; space.rows() * model.spec().hidden as usize];
        boards.as_ref().ok_or_else(alone)?.rows.get(0, &mut values)?;
        model.set_hidden(ops, space, &values)
    }

    fn put_logits(&mut self, lane: LaneId) -> Result<(), EngineError> {
        let own = self.model.part().vocab(self.model.spec());
        let (first, vocab) = (own.start as usize, self.model.spec().vocab as usize);
        let Runner { ops, model, boards, lanes, .. } = self;
        let logits = model.logits(ops, lanes.get_mut(&lane).ok_or_else(|| absent(lane))?)?;
        let board = &boards.as_ref().ok_or_else(alone)?.logits;
        (0..logits.count()).try_for_each(|row| Ok(board.put(row * vocab + first, logits.row(row))?))
    }

    /// Allocates buffers for a lane's steps, the first time.
    fn open(&mut self, lane: LaneId) -> Result<(), EngineError> {
        let Runner { ops, model, limits, lanes, .. } = self;
        if let std::collections::btree_map::Entry::Vacant(vacant) = lanes.entry(lane) {
            vacant.insert(Activations::new(ops, model, limits.rows_max, limits.wanted_max)?);
        }
        Ok(())
    }
}

fn absent(lane: LaneId) -> EngineError {
    EngineError::Plan(format!("{lane} has no activations"))
}

fn alone() -> EngineError {
    EngineError::Plan("a rank that is alone was told to share".to_owned())
}

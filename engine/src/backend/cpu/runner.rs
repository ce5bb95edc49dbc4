//! One rank at work: its part of the model, its window of the pool, the activations of every lane. Knows no scheduler,
//! and of other ranks only what it shares with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use kernels::collective::{Alone, Board, Collective, Patience, Segment, SharedReduce, Tallies};
use kernels::{KvView, Ops};
use sched::LaneId;

use super::StepLimits;
use super::input::StepInput;
use super::order::{Entry, Order};
use crate::EngineError;
use crate::backend::BackendInfo;
use crate::model::{Activations, ExpertCounts, LogitRows, Model, Tally};

/// A rank: alone, or one of several around a segment.
pub(crate) struct Runner<O: Ops> {
    ops: O,
    model: Model<O>,
    kv: KvView,
    limits: StepLimits,
    ranks: Box<dyn Collective<O>>,
    boards: Option<Boards>,
    lanes: BTreeMap<LaneId, Lane<O>>,
}

/// Where rows and logits change hands.
struct Boards {
    rows: Board,
    logits: Board,
}

struct Lane<O: Ops> {
    space: Activations<O>,
    input: StepInput,
}

impl<O: Ops> Runner<O> {
    /// The only rank. `kv` is the whole pool, of which every rank sees its own window.
    pub(crate) fn alone(ops: O, model: Model<O>, kv: &KvView, limits: StepLimits) -> Result<Runner<O>, EngineError> {
        Runner::new(ops, model, kv, limits, Box::new(Alone), None)
    }

    /// Rank `rank` of those around `segment`.
    pub(crate) fn of_group(
        ops: O,
        mut model: Model<O>,
        kv: &KvView,
        limits: StepLimits,
        (segment, rank): (&Arc<Segment>, usize),
        patience: Patience,
    ) -> Result<Runner<O>, EngineError> {
        // All ranks of a stage route alike: the first one counts for them, where every stage and the leader can see it.
        let counts = rank.is_multiple_of(segment.shape().group_ranks);
        model.count_experts_in(counts.then(|| Arc::new(Tallies::of(segment)) as Tally));
        let ranks = Box::new(SharedReduce::new(segment, rank, patience)?);
        let boards = Boards { rows: Board::of_rows(segment), logits: Board::of_logits(segment) };
        Runner::new(ops, model, kv, limits, ranks, Some(boards))
    }

    fn new(
        ops: O,
        model: Model<O>,
        kv: &KvView,
        limits: StepLimits,
        ranks: Box<dyn Collective<O>>,
        boards: Option<Boards>,
    ) -> Result<Runner<O>, EngineError> {
        let (layers, heads) = (model.part().layers.clone(), model.part().kv_heads(model.spec()));
        let usizes = |range: std::ops::Range<u32>| range.start as usize..range.end as usize;
        let kv = kv.window(usizes(layers), usizes(heads))?;
        let mut runner = Runner { ops, model, kv, limits, ranks, boards, lanes: BTreeMap::new() };
        // Lane 0 always exists; making its space now turns a lack of memory into an error at start.
        runner.open(LaneId(0))?;
        Ok(runner)
    }

    pub(super) fn model(&self) -> &Model<O> {
        &self.model
    }

    /// What computes; `tensor` ranks like this one work at the same time.
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

    /// What its experts have computed; shared, it goes on counting.
    pub(crate) fn expert_counts(&self) -> Option<ExpertCounts> {
        self.model.expert_counts().cloned()
    }

    /// Does what an order says.
    pub(super) fn obey(&mut self, order: Order) -> Result<(), EngineError> {
        match order {
            Order::Ready => Ok(()),
            Order::Copy(pairs) => self.copy_blocks(&pairs),
            Order::Enter { lane, input, entry } => self.enter(lane, input, entry),
            Order::Layer { lane, layer } => self.layer(lane, layer),
            Order::HandOver(lane) => self.hand_over(lane),
            Order::TakeOver(lane) => self.take_over(lane),
            Order::Logits(lane) => self.put_logits(lane),
        }
    }

    pub(super) fn copy_blocks(&mut self, pairs: &[(u32, u32)]) -> Result<(), EngineError> {
        Ok(self.ops.copy_blocks(&self.kv, pairs)?)
    }

    /// Takes the input of a lane's next layers, and embeds if the first layer is here. Where several ranks hold the
    /// vocabulary, each puts the rows of its tokens on the board, and all take them over from there.
    pub(super) fn enter(&mut self, lane: LaneId, input: StepInput, entry: Entry) -> Result<(), EngineError> {
        self.open(lane)?.input = input;
        match entry {
            Entry::Embed if self.model.part().is_first() => self.embed(lane),
            Entry::Embed | Entry::Kept => Ok(()),
        }
    }

    fn embed(&mut self, lane: LaneId) -> Result<(), EngineError> {
        let Runner { ops, model, kv, boards, lanes, .. } = self;
        let Lane { space, input } = lanes.get_mut(&lane).ok_or_else(|| absent(lane))?;
        if !model.part().is_shared() {
            return model.embed(ops, space, input.pass(kv));
        }
        let hidden = model.spec().hidden as usize;
        let (rows, values) = model.embed_own(ops, space, input.pass(kv))?;
        let board = &boards.as_ref().ok_or_else(alone)?.rows;
        for (row, values) in rows.into_iter().zip(values.chunks_exact(hidden)) {
            board.put(row * hidden, values)?;
        }
        Ok(())
    }

    pub(super) fn layer(&mut self, lane: LaneId, layer: u32) -> Result<(), EngineError> {
        let Runner { ops, model, kv, ranks, lanes, .. } = self;
        let Lane { space, input } = lanes.get_mut(&lane).ok_or_else(|| absent(lane))?;
        model.layer(ops, ranks.as_mut(), space, input.pass(kv), layer)
    }

    /// Logits of this rank's share of the vocabulary.
    pub(super) fn logits(&mut self, lane: LaneId) -> Result<LogitRows<'_>, EngineError> {
        let Runner { ops, model, lanes, .. } = self;
        let Lane { space, input } = lanes.get_mut(&lane).ok_or_else(|| absent(lane))?;
        model.logits(ops, space, input.wanted.len())
    }

    fn hand_over(&mut self, lane: LaneId) -> Result<(), EngineError> {
        let Lane { space, input } = self.lanes.get(&lane).ok_or_else(|| absent(lane))?;
        let values = self.model.hidden(&self.ops, space, input.tokens.len())?;
        Ok(self.boards.as_ref().ok_or_else(alone)?.rows.put(0, &values)?)
    }

    fn take_over(&mut self, lane: LaneId) -> Result<(), EngineError> {
        let Runner { ops, model, kv, boards, lanes, .. } = self;
        let Lane { space, input } = lanes.get_mut(&lane).ok_or_else(|| absent(lane))?;
        let mut values = vec![0.0; input.tokens.len() * model.spec().hidden as usize];
        boards.as_ref().ok_or_else(alone)?.rows.get(0, &mut values)?;
        model.set_hidden(ops, space, input.pass(kv), &values)
    }

    fn put_logits(&mut self, lane: LaneId) -> Result<(), EngineError> {
        let own = self.model.part().vocab(self.model.spec());
        let (first, vocab) = (own.start as usize, self.model.spec().vocab as usize);
        let Runner { ops, model, boards, lanes, .. } = self;
        let Lane { space, input } = lanes.get_mut(&lane).ok_or_else(|| absent(lane))?;
        let rows = input.wanted.len();
        let logits = model.logits(ops, space, rows)?;
        let board = &boards.as_ref().ok_or_else(alone)?.logits;
        (0..rows).try_for_each(|row| Ok(board.put(row * vocab + first, logits.row(row))?))
    }

    fn open(&mut self, lane: LaneId) -> Result<&mut Lane<O>, EngineError> {
        let Runner { ops, model, limits, lanes, .. } = self;
        match lanes.entry(lane) {
            std::collections::btree_map::Entry::Occupied(lane) => Ok(lane.into_mut()),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                let space = Activations::new(ops, model, limits.rows_max, limits.wanted_max)?;
                Ok(vacant.insert(Lane { space, input: StepInput::default() }))
            }
        }
    }
}

fn absent(lane: LaneId) -> EngineError {
    EngineError::Plan(format!("{lane} has no activations"))
}

fn alone() -> EngineError {
    EngineError::Plan("a rank that is alone was told to share".to_owned())
}

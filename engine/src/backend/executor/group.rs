//! Several ranks: the leader's own part, and followers that get the same orders; knows no thread and no process.
//!
//! All ranks of a stage run a layer together. Hidden rows go from stage to stage, and logits to the leader, over the
//! boards of the segment. Any failure ends the group, because its ranks are no longer at the same point.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use kernels::Ops;
use kernels::collective::{Board, CollectiveError, Follower, Heard, Leader, Patience, Segment};
use sched::LaneId;

use super::input::StepInput;
use super::layers::Layers;
use super::order::{Entry, Order};
use super::runner::Runner;
use crate::EngineError;
use crate::backend::BackendInfo;
use crate::model::{ExpertCounts, Grid, LogitRows, ModelSpec};

/// Rank of the leader: tensor rank 0 of the first stage.
const LEADER: u32 = 0;

pub(crate) struct Group<O: Ops> {
    runner: Runner<O>,
    grid: Grid,
    orders: Orders,
    patience: Patience,
    logits_board: Board,
    /// Rows of each lane that want logits.
    wanted: BTreeMap<LaneId, usize>,
    logits: Vec<f32>,
    /// Dropped after the leader has closed the segment: this drop waits for the followers.
    _followers: Box<dyn Send>,
}

/// The leader's side of the segment, and the words of the current order.
pub(crate) struct Orders {
    leader: Leader,
    words: Vec<u32>,
}

impl Orders {
    pub(crate) fn new(segment: &Arc<Segment>) -> Orders {
        Orders { leader: Leader::new(segment), words: Vec::new() }
    }

    pub(crate) fn give(&mut self, ranks: Range<u32>, order: &Order) -> Result<(), CollectiveError> {
        self.words.clear();
        order.encode(&mut self.words);
        let followers = ranks.filter(|rank| *rank != LEADER).map(|rank| rank as usize);
        self.leader.give(followers, &self.words)
    }

    pub(crate) fn hear(&mut self, patience: Patience) -> Result<(), CollectiveError> {
        self.leader.hear(patience)
    }
}

impl<O: Ops> Group<O> {
    /// Makes a group whose followers have loaded their parts. `followers` is dropped last.
    pub(crate) fn new(
        runner: Runner<O>,
        grid: Grid,
        segment: &Arc<Segment>,
        orders: Orders,
        patience: Patience,
        followers: Box<dyn Send>,
    ) -> Group<O> {
        Group {
            runner,
            grid,
            orders,
            patience,
            logits_board: Board::of_logits(segment),
            wanted: BTreeMap::new(),
            logits: Vec::new(),
            _followers: followers,
        }
    }

    pub(crate) fn describe(&self) -> BackendInfo {
        self.runner.describe(self.grid.tensor)
    }

    /// Work of the experts of all stages; the leader is one of the ranks that count.
    pub(crate) fn expert_counts(&self) -> Option<ExpertCounts> {
        self.runner.expert_counts()
    }

    /// Has all of `ranks` carry out an order; returns when the last one has.
    fn together(&mut self, ranks: Range<u32>, order: Order) -> Result<(), EngineError> {
        self.orders.give(ranks.clone(), &order)?;
        if ranks.contains(&LEADER) {
            self.runner.obey(order).map_err(|error| match error {
                ranks @ EngineError::Ranks { .. } => ranks,
                other => EngineError::ranks(format!("rank {LEADER}: {other}")),
            })?;
        }
        Ok(self.orders.hear(self.patience)?)
    }

    fn stage_of(&self, layer: u32) -> Result<u32, EngineError> {
        let holds = |stage: &u32| self.grid.part(self.spec(), stage * self.grid.tensor).layers.contains(&layer);
        let missing = || EngineError::Plan(format!("no stage has layer {layer}"));
        (0..self.grid.stages).find(holds).ok_or_else(missing)
    }
}

impl<O: Ops> Layers for Group<O> {
    fn spec(&self) -> &ModelSpec {
        self.runner.model().spec()
    }

    fn copy_blocks(&mut self, pairs: Vec<(u32, u32)>) -> Result<(), EngineError> {
        self.together(0..self.grid.ranks(), Order::Copy(pairs))
    }

    fn enter(&mut self, lane: LaneId, input: StepInput, entry: Entry) -> Result<(), EngineError> {
        self.wanted.insert(lane, input.wanted.len());
        self.together(0..self.grid.ranks(), Order::Enter { lane, input, entry })?;
        match entry {
            Entry::Embed if self.grid.tensor > 1 => self.together(self.grid.of_stage(0), Order::TakeOver(lane)),
            Entry::Embed | Entry::Kept => Ok(()),
        }
    }

    fn layer(&mut self, lane: LaneId, layer: u32) -> Result<(), EngineError> {
        let stage = self.stage_of(layer)?;
        let ranks = self.grid.of_stage(stage);
        self.together(ranks.clone(), Order::Layer { lane, layer })?;
        if layer + 1 == self.spec().layers || self.stage_of(layer + 1)? == stage {
            return Ok(());
        }
        self.together(ranks.start..ranks.start + 1, Order::HandOver(lane))?;
        self.together(self.grid.of_stage(stage + 1), Order::TakeOver(lane))
    }

    /// Nothing to wait for: ranks answer an order after they have carried it out.
    fn wait(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    fn logits(&mut self, lane: LaneId) -> Result<LogitRows<'_>, EngineError> {
        self.together(self.grid.of_stage(self.grid.stages - 1), Order::Logits(lane))?;
        let vocab = self.spec().vocab as usize;
        let rows = self.wanted.get(&lane).copied().unwrap_or(0);
        self.logits.resize(rows * vocab, 0.0);
        self.logits_board.get(0, &mut self.logits)?;
        Ok(LogitRows::new(&self.logits, vocab))
    }
}

/// Follows the orders of a group until it ends or an order fails: then others may wait for this rank in the middle of a
/// layer, and its end tells them. A rank that could not load its part answers the first order with the reason.
pub(crate) fn follow<O: Ops>(follower: &mut Follower, runner: Result<Runner<O>, EngineError>, spin: Duration) {
    let mut words = Vec::new();
    let mut runner = match runner {
        Ok(runner) => runner,
        Err(error) => {
            if follower.next(&mut words, spin) == Heard::Order {
                follower.answer(Err((error.blame().kind(), &error.to_string())));
            }
            return;
        }
    };
    while follower.next(&mut words, spin) == Heard::Order {
        match Order::decode(&words).and_then(|order| runner.obey(order)) {
            Ok(()) => follower.answer(Ok(())),
            Err(error) => return follower.answer(Err((error.blame().kind(), &error.to_string()))),
        }
    }
}

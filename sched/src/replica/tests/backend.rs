//! A backend that runs the oracle's model over real block contents and checks every plan it is given.
//!
//! Steps of a lane run in the order of their submission, those of two lanes beside each other. An early step runs as
//! soon as those before it have run, so the backend may be ahead of what the scheduler has heard; a late one runs when
//! its end is told, after all the scheduler did meanwhile.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::oracle;
use crate::replica::ReplicaConfig;
use crate::{
    BlockId, Failure, FailureKind, Input, LaneId, SampleOutcome, SampledToken, ScoreRow, SequenceRows, SlotId, StepId,
    StepPlan, StepResult, TokenId,
};

/// Content of a block where nothing was written, or where something was torn.
const GARBAGE: u64 = 0xDEAD;
/// Sample of a slot after a step that should have sampled it and did not; it must never be told.
const VOID: TokenId = TokenId(u32::MAX);

/// Time of a step's reads and writes between its submission and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effects {
    Early,
    Late,
}

pub(super) struct FakeBackend {
    block_tokens: u32,
    layers: u32,
    step_tokens_max: u32,
    /// Most rows of a step that may want logits.
    logits_max: u32,
    cells: Vec<Vec<u64>>,
    slots: BTreeMap<SlotId, Slot>,
    lanes: BTreeMap<LaneId, Lane>,
    /// Draws, by seed and position, whose rows turn out to be damaged.
    pub(super) damaged: BTreeSet<(u64, u64)>,
    /// Rows that continued with a token which the scheduler did not know when it formed their step.
    pub(super) continued: u64,
}

#[derive(Default)]
struct Lane {
    running: VecDeque<Running>,
    /// Rows whose hidden states are kept, and their next layer.
    kept: Option<(Vec<SequenceRows>, u32)>,
    /// Step that left last, unless it was cancelled: the scheduler may not have heard of its end yet.
    left: Option<StepId>,
    sampled: Vec<SlotId>,
}

struct Slot {
    seed: u64,
    prompt_tokens: u32,
    position: u64,
    last: Last,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Unknown,
    Token(TokenId),
    Void,
}

struct Running {
    step: StepId,
    plan: StepPlan,
    effects: Effects,
    result: Option<StepResult>,
    cancelled: bool,
}

impl FakeBackend {
    pub(super) fn new(config: &ReplicaConfig) -> FakeBackend {
        let (blocks, block_tokens) = (config.blocks_total, config.block_tokens);
        let cells = vec![vec![GARBAGE; block_tokens as usize]; blocks as usize];
        FakeBackend {
            block_tokens,
            layers: config.layers,
            step_tokens_max: config.lanes.iter().map(|lane| lane.step_tokens_max).max().unwrap_or(0),
            logits_max: config.sequences_max,
            cells,
            slots: BTreeMap::new(),
            lanes: BTreeMap::new(),
            damaged: BTreeSet::new(),
            continued: 0,
        }
    }

    pub(super) fn lane_of(&self, step: StepId) -> Option<LaneId> {
        let has = |lane: &Lane| lane.running.iter().any(|running| running.step == step);
        self.lanes.iter().find(|(_, lane)| has(lane)).map(|(id, _)| *id)
    }

    pub(super) fn busy(&self) -> Vec<LaneId> {
        self.lanes.iter().filter(|(_, lane)| !lane.running.is_empty()).map(|(id, _)| *id).collect()
    }

    pub(super) fn submit(&mut self, lane: LaneId, step: StepId, plan: StepPlan, effects: Effects) {
        let before = self.lanes.entry(lane).or_default().running.back();
        assert!(before.is_none_or(|last| last.step < step), "{step} is submitted after a later one");
        self.check(lane, &plan);
        self.check_beside(lane, &plan);
        self.lane(lane).running.push_back(Running { step, plan, effects, result: None, cancelled: false });
        self.run_ahead(lane);
    }

    /// A cancel may cross the end of its step: what is due by then happens in the scheduler before it hears of the end.
    /// It cannot name any other step that does not run.
    pub(super) fn cancel(&mut self, lane: LaneId, step: StepId) {
        let lane = self.lane(lane);
        match lane.running.iter_mut().find(|running| running.step == step) {
            Some(running) => assert!(!std::mem::replace(&mut running.cancelled, true), "{step} is cancelled twice"),
            None => assert_eq!(lane.left.take(), Some(step), "a step is cancelled that does not run"),
        }
    }

    /// Ends the oldest step of a lane; one that was cancelled in time leaves torn blocks and brings nothing.
    pub(super) fn finish(&mut self, lane: LaneId) -> Option<(StepId, StepResult)> {
        let Running { step, plan, result, cancelled, .. } = self.lane(lane).running.pop_front()?;
        self.lane(lane).left = (!cancelled).then_some(step);
        self.lane(lane).sampled = plan.sample.iter().map(|sample| sample.slot).collect();
        let result = match result {
            Some(early) if !cancelled || self.has_begun_next(lane) => early,
            None if !cancelled => self.execute(lane, &plan),
            early => {
                self.cut(lane, &plan, early.is_some());
                StepResult { layers_done: plan.layers.len() as u32 - 1, ..StepResult::default() }
            }
        };
        self.run_ahead(lane);
        Some((step, result))
    }

    /// Makes the draw at `index` of the lane's step that ended last fail after all.
    pub(super) fn void(&mut self, lane: LaneId, index: usize) {
        let slot = self.lane(lane).sampled[index];
        self.slots.get_mut(&slot).expect("it has sampled").last = Last::Void;
    }

    /// Ends the oldest step of a lane as one that could not run, unless the next one has begun.
    pub(super) fn abandon(&mut self, id: LaneId) -> Option<StepId> {
        let lane = self.lane(id);
        if lane.running.get(1).is_some_and(|next| next.result.is_some()) {
            return None;
        }
        let Running { step, plan, result, cancelled, .. } = lane.running.pop_front()?;
        lane.left = (!cancelled).then_some(step);
        self.cut(id, &plan, result.is_some());
        self.run_ahead(id);
        Some(step)
    }

    /// Takes the youngest step of a lane back before it ran, as one that could not be handed over.
    pub(super) fn refuse(&mut self, lane: LaneId) -> Option<StepId> {
        let lane = self.lane(lane);
        let Running { step, cancelled, .. } = lane.running.pop_back()?;
        lane.left = (!cancelled).then_some(step);
        Some(step)
    }

    /// Checks that no step in flight reads these blocks, which are written now.
    pub(super) fn assert_unread(&self, blocks: &[BlockId]) {
        let running = self.lanes.values().flat_map(|lane| &lane.running);
        let mut read = running.flat_map(|running| &running.plan.blocks);
        assert!(!read.any(|block| blocks.contains(block)), "{blocks:?} are written while a step reads them");
    }

    fn lane(&mut self, lane: LaneId) -> &mut Lane {
        self.lanes.entry(lane).or_default()
    }

    /// True if the step that is now the oldest of a lane has run, so that the one before it had ended.
    fn has_begun_next(&mut self, lane: LaneId) -> bool {
        self.lane(lane).running.front().is_some_and(|next| next.result.is_some())
    }

    /// Runs early steps of a lane up to the first late one.
    fn run_ahead(&mut self, lane: LaneId) {
        for at in 0..self.lane(lane).running.len() {
            let Running { plan, effects, result, cancelled, .. } = &self.lane(lane).running[at];
            if result.is_some() {
                continue;
            }
            if *effects == Effects::Late || *cancelled {
                return;
            }
            let plan = plan.clone();
            let result = self.execute(lane, &plan);
            self.lane(lane).running[at].result = Some(result);
        }
    }

    pub(super) fn write(&mut self, block: BlockId, offset: u32, value: u64) {
        self.cells[block.0 as usize][offset as usize] = value;
    }

    pub(super) fn write_at(&mut self, table: &[BlockId], position: u32, value: u64) {
        let block = table[(position / self.block_tokens) as usize];
        self.write(block, position % self.block_tokens, value);
    }

    pub(super) fn stored(&self, table: &[BlockId], tokens: u32) -> Vec<u64> {
        (0..tokens).map(|position| *self.cell(table, position)).collect()
    }

    fn cell(&self, table: &[BlockId], position: u32) -> &u64 {
        let block = table[(position / self.block_tokens) as usize];
        &self.cells[block.0 as usize][(position % self.block_tokens) as usize]
    }

    fn check(&self, lane: LaneId, plan: &StepPlan) {
        let Lane { running, kept, .. } = &self.lanes[&lane];
        let before = running.back().map(|before| (&before.plan.sequences, before.plan.layers.end));
        let before = before.or(kept.as_ref().map(|(rows, layer)| (rows, *layer)));
        if plan.layers.start > 0 {
            assert_eq!(before, Some((&plan.sequences, plan.layers.start)), "nothing to go on from");
        }
        let whole = plan.layers.end == self.layers;
        assert!(whole || wanted(plan).is_empty(), "a sample or score before the last layer");
        assert!(wanted(plan).len() as u32 <= self.logits_max, "{} rows want logits", wanted(plan).len());
        assert!(plan.layers.start == 0 || (plan.admit.is_empty() && plan.copies.is_empty()));
        assert!(!plan.sequences.is_empty(), "an empty step");
        assert!(plan.tokens.len() as u32 <= self.step_tokens_max, "{} rows", plan.tokens.len());
        let others = running.iter().filter(|running| {
            plan.layers.start == 0 || running.plan.sequences != plan.sequences || running.plan.blocks != plan.blocks
        });
        let mut written: BTreeSet<_> = others.flat_map(|running| self.written(&running.plan)).collect();
        let mut next_row = 0;
        for rows in &plan.sequences {
            assert_eq!(rows.rows.start, next_row);
            next_row = rows.rows.end;
            let table = &plan.blocks[rows.blocks.start as usize..rows.blocks.end as usize];
            let end = rows.first_position + rows.rows.len() as u32;
            assert_eq!(table.len() as u32, end.div_ceil(self.block_tokens));
            assert_eq!(table.iter().collect::<BTreeSet<_>>().len(), table.len(), "a table names a block twice");
        }
        for cell in self.written(plan) {
            assert!(written.insert(cell), "{cell:?} is written by two sequences or steps in flight");
        }
        assert_eq!(next_row as usize, plan.tokens.len());
    }

    /// Checks a plan against the steps of other lanes, which run at any time: neither may touch what the other changes.
    fn check_beside(&self, lane: LaneId, plan: &StepPlan) {
        let others = self.lanes.iter().filter(|(id, _)| **id != lane).flat_map(|(_, lane)| &lane.running);
        for Running { step, plan: other, .. } in others {
            let (ours, theirs) = (self.changed(plan), self.changed(other));
            let clash =
                ours.intersection(&self.used(other)).chain(theirs.intersection(&self.used(plan))).next().copied();
            assert_eq!(clash, None, "a cell that {step} of another lane reads or writes is written, or the other way");
            let both = named(plan).intersection(&named(other)).next().copied();
            assert_eq!(both, None, "{step} of another lane names the slot");
        }
    }

    /// Cells that a plan writes, with those that it copies to.
    fn changed(&self, plan: &StepPlan) -> BTreeSet<(BlockId, u32)> {
        let copied = plan.copies.iter().flat_map(|copy| (0..self.block_tokens).map(|offset| (copy.to, offset)));
        self.written(plan).chain(copied).collect()
    }

    fn used(&self, plan: &StepPlan) -> BTreeSet<(BlockId, u32)> {
        let whole = |block: BlockId| (0..self.block_tokens).map(move |offset| (block, offset));
        let read = plan.sequences.iter().flat_map(|rows| {
            let table = &plan.blocks[rows.blocks.start as usize..rows.blocks.end as usize];
            (0..rows.first_position).map(|at| (table[(at / self.block_tokens) as usize], at % self.block_tokens))
        });
        let copied = plan.copies.iter().flat_map(|copy| whole(copy.from));
        self.changed(plan).into_iter().chain(read).chain(copied).collect()
    }

    fn written<'a>(&self, plan: &'a StepPlan) -> impl Iterator<Item = (BlockId, u32)> + use<'a> {
        let block_tokens = self.block_tokens;
        plan.sequences.iter().flat_map(move |rows| {
            let end = rows.first_position + rows.rows.len() as u32;
            (rows.first_position..end).map(move |position| {
                let index = rows.blocks.start + position / block_tokens;
                (plan.blocks[index as usize], position % block_tokens)
            })
        })
    }

    /// Does what happens even in a step that runs no layer.
    fn begin(&mut self, plan: &StepPlan) {
        for init in &plan.admit {
            let prompt_tokens = init.prompt.len() as u32;
            let last = init.generated.last().map_or(Last::Unknown, |token| Last::Token(*token));
            let slot = Slot { seed: init.seed, prompt_tokens, position: init.generated.len() as u64, last };
            self.slots.insert(init.slot, slot);
        }
        for copy in &plan.copies {
            self.cells[copy.to.0 as usize] = self.cells[copy.from.0 as usize].clone();
        }
    }

    fn execute(&mut self, lane: LaneId, plan: &StepPlan) -> StepResult {
        self.begin(plan);
        self.lane(lane).kept = None;
        if plan.layers.end < self.layers {
            self.tear(plan);
            self.lane(lane).kept = Some((plan.sequences.clone(), plan.layers.end));
            return StepResult { layers_done: plan.layers.len() as u32, ..StepResult::default() };
        }
        let mut values_at_row: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let wanted = wanted(plan);
        for rows in &plan.sequences {
            let table = &plan.blocks[rows.blocks.start as usize..rows.blocks.end as usize];
            let mut values = self.stored(table, rows.first_position);
            for (position, row) in (rows.first_position..).zip(rows.rows.clone()) {
                let input = self.input(plan, rows, row);
                values.push(oracle::value(&values, input));
                self.write_at(table, position, values[position as usize]);
                if wanted.contains(&row) {
                    values_at_row.insert(row, values.clone());
                }
            }
        }
        let samples = plan.sample.iter().map(|sample| self.sample(sample.slot, &values_at_row[&sample.row])).collect();
        let score = |row: &ScoreRow| Ok(oracle::score(&values_at_row[&row.row], row.token));
        let scores = plan.score.iter().map(score).collect();
        StepResult { samples, scores, layers_done: plan.layers.len() as u32 }
    }

    fn input(&mut self, plan: &StepPlan, rows: &SequenceRows, row: u32) -> TokenId {
        let Input::FromSlot(slot) = rows.input else {
            return plan.tokens[row as usize];
        };
        assert_eq!(rows.rows.len(), 1, "{slot} holds one token");
        self.continued += 1;
        match self.slots[&slot].last {
            Last::Token(token) => token,
            Last::Void => TokenId(0),
            Last::Unknown => panic!("{slot} has no token to continue from"),
        }
    }

    fn sample(&mut self, slot: SlotId, values: &[u64]) -> SampleOutcome {
        let state = self.slots.get_mut(&slot).expect("a slot samples that was not admitted");
        if state.last == Last::Void {
            return Ok(sampled(VOID));
        }
        if self.damaged.contains(&(state.seed, state.position)) {
            state.last = Last::Void;
            return Err(damaged_row());
        }
        let expected = u64::from(state.prompt_tokens) + state.position;
        assert_eq!(values.len() as u64, expected, "{slot} samples at another position than its state says");
        let token = oracle::sample(values, state.seed, state.position);
        state.position += 1;
        state.last = Last::Token(token);
        Ok(sampled(token))
    }

    fn tear(&mut self, plan: &StepPlan) {
        for (block, offset) in self.written(plan).collect::<Vec<_>>() {
            self.write(block, offset, GARBAGE);
        }
    }

    /// Turns everything that a cut step may have written into garbage, and voids its slots.
    fn cut(&mut self, lane: LaneId, plan: &StepPlan, has_run: bool) {
        if !has_run {
            self.begin(plan);
        }
        self.lane(lane).kept = None;
        self.tear(plan);
        for sample in &plan.sample {
            self.slots.get_mut(&sample.slot).expect("a slot of the step before").last = Last::Void;
        }
    }
}

/// Rows whose logits a plan wants.
fn wanted(plan: &StepPlan) -> BTreeSet<u32> {
    plan.sample.iter().map(|sample| sample.row).chain(plan.score.iter().map(|score| score.row)).collect()
}

/// Slots that a plan seats, samples or continues from.
fn named(plan: &StepPlan) -> BTreeSet<SlotId> {
    let continued = plan.sequences.iter().filter_map(|rows| match rows.input {
        Input::Given => None,
        Input::FromSlot(slot) => Some(slot),
    });
    let admitted = plan.admit.iter().map(|init| init.slot);
    admitted.chain(plan.sample.iter().map(|sample| sample.slot)).chain(continued).collect()
}

pub(super) fn damaged_row() -> Failure {
    Failure::new(FailureKind::Internal, "a damaged row")
}

pub(super) fn sampled(token: TokenId) -> SampledToken {
    SampledToken { token, logprob: None, top: Vec::new() }
}

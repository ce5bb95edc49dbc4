//! A backend that runs the oracle's model over real block contents and checks every plan it is given.
//!
//! Steps run in the order of their submission. An early one runs as soon as those before it have run, so the backend may
//! be a step ahead of what the scheduler has heard; a late one runs when its end is told, after all the scheduler did
//! meanwhile.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::oracle;
use crate::{
    BlockId, Failure, FailureKind, Input, SampleOutcome, SampledToken, SequenceRows, SlotId, StepId, StepPlan,
    StepResult, TokenId,
};

/// What a block holds where nothing was written, or where something was torn.
const GARBAGE: u64 = 0xDEAD;
/// What a slot samples after a step that should have sampled it and did not; nobody may be told.
const VOID: TokenId = TokenId(u32::MAX);

/// When a step's reads and writes happen between its submission and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effects {
    Early,
    Late,
}

pub(super) struct FakeBackend {
    block_tokens: u32,
    layers: u32,
    step_tokens_max: u32,
    cells: Vec<Vec<u64>>,
    slots: BTreeMap<SlotId, Slot>,
    running: VecDeque<Running>,
    /// The rows whose hidden states are kept, and their next layer.
    kept: Option<(Vec<SequenceRows>, u32)>,
    /// The step that left last, unless it was cancelled: the scheduler may not have heard of its end yet.
    left: Option<StepId>,
    /// Who sampled in the step that ended last.
    sampled: Vec<SlotId>,
    /// Draws, by seed and position, whose rows turn out to be damaged.
    pub(super) damaged: BTreeSet<(u64, u64)>,
    /// Rows that continued with a token which the scheduler did not know when it formed their step.
    pub(super) continued: u64,
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
    pub(super) fn new(blocks: u32, block_tokens: u32, layers: u32, step_tokens_max: u32) -> FakeBackend {
        let cells = vec![vec![GARBAGE; block_tokens as usize]; blocks as usize];
        FakeBackend {
            block_tokens,
            layers,
            step_tokens_max,
            cells,
            slots: BTreeMap::new(),
            running: VecDeque::new(),
            kept: None,
            left: None,
            sampled: Vec::new(),
            damaged: BTreeSet::new(),
            continued: 0,
        }
    }

    pub(super) fn has(&self, step: StepId) -> bool {
        self.running.iter().any(|running| running.step == step)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    pub(super) fn submit(&mut self, step: StepId, plan: StepPlan, effects: Effects) {
        assert!(self.running.back().is_none_or(|last| last.step < step), "{step} is submitted after a later one");
        self.check(&plan);
        self.running.push_back(Running { step, plan, effects, result: None, cancelled: false });
        self.run_ahead();
    }

    /// A cancel may cross the end of its step: what is due by then happens in the scheduler before it hears of the end.
    /// It cannot name any other step that does not run.
    pub(super) fn cancel(&mut self, step: StepId) {
        match self.running.iter_mut().find(|running| running.step == step) {
            Some(running) => assert!(!std::mem::replace(&mut running.cancelled, true), "{step} is cancelled twice"),
            None => assert_eq!(self.left.take(), Some(step), "a step is cancelled that does not run"),
        }
    }

    /// Ends the oldest step; one that was cancelled in time leaves torn blocks and brings nothing.
    pub(super) fn finish(&mut self) -> Option<(StepId, StepResult)> {
        let Running { step, plan, result, cancelled, .. } = self.running.pop_front()?;
        self.left = (!cancelled).then_some(step);
        self.sampled = plan.sample.iter().map(|sample| sample.slot).collect();
        let result = match result {
            Some(early) if !cancelled || self.has_begun_next() => early,
            None if !cancelled => self.execute(&plan),
            early => {
                self.cut(&plan, early.is_some());
                StepResult { samples: Vec::new(), layers_done: plan.layers.len() as u32 - 1 }
            }
        };
        self.run_ahead();
        Some((step, result))
    }

    /// The draw at `index` of the step that ended last failed after all.
    pub(super) fn void(&mut self, index: usize) {
        self.slots.get_mut(&self.sampled[index]).expect("it has sampled").last = Last::Void;
    }

    /// Ends the oldest step as one that could not run, unless the next one has begun.
    pub(super) fn abandon(&mut self) -> Option<StepId> {
        if self.running.get(1).is_some_and(|next| next.result.is_some()) {
            return None;
        }
        let Running { step, plan, result, cancelled, .. } = self.running.pop_front()?;
        self.left = (!cancelled).then_some(step);
        self.cut(&plan, result.is_some());
        self.run_ahead();
        Some(step)
    }

    /// Takes the youngest step back before it ran, as one that could not be handed over.
    pub(super) fn refuse(&mut self) -> Option<StepId> {
        let Running { step, cancelled, .. } = self.running.pop_back()?;
        self.left = (!cancelled).then_some(step);
        Some(step)
    }

    /// Nobody else may write what a step in flight reads.
    pub(super) fn assert_unread(&self, blocks: &[BlockId]) {
        let mut read = self.running.iter().flat_map(|running| &running.plan.blocks);
        assert!(!read.any(|block| blocks.contains(block)), "{blocks:?} are written while a step reads them");
    }

    /// Whether what is the oldest step now has run, so that the one before it had ended.
    fn has_begun_next(&self) -> bool {
        self.running.front().is_some_and(|next| next.result.is_some())
    }

    /// Runs early steps up to the first late one.
    fn run_ahead(&mut self) {
        for at in 0..self.running.len() {
            let Running { plan, effects, result, cancelled, .. } = &self.running[at];
            if result.is_some() {
                continue;
            }
            if *effects == Effects::Late || *cancelled {
                return;
            }
            let plan = plan.clone();
            self.running[at].result = Some(self.execute(&plan));
        }
    }

    pub(super) fn write(&mut self, block: BlockId, offset: u32, value: u64) {
        self.cells[block.0 as usize][offset as usize] = value;
    }

    pub(super) fn write_at(&mut self, table: &[BlockId], position: u32, value: u64) {
        let block = table[(position / self.block_tokens) as usize];
        self.write(block, position % self.block_tokens, value);
    }

    /// The stored values of the first `tokens` positions of a table.
    pub(super) fn stored(&self, table: &[BlockId], tokens: u32) -> Vec<u64> {
        (0..tokens).map(|position| *self.cell(table, position)).collect()
    }

    fn cell(&self, table: &[BlockId], position: u32) -> &u64 {
        let block = table[(position / self.block_tokens) as usize];
        &self.cells[block.0 as usize][(position % self.block_tokens) as usize]
    }

    fn check(&self, plan: &StepPlan) {
        let before = self.running.back().map(|before| (&before.plan.sequences, before.plan.layers.end));
        let before = before.or(self.kept.as_ref().map(|(rows, layer)| (rows, *layer)));
        if plan.layers.start > 0 {
            assert_eq!(before, Some((&plan.sequences, plan.layers.start)), "nothing to go on from");
        }
        let whole = plan.layers.end == self.layers;
        assert!(whole || plan.sample.is_empty(), "a sample before the last layer");
        assert!(plan.layers.start == 0 || (plan.admit.is_empty() && plan.retire.is_empty() && plan.copies.is_empty()));
        assert!(!plan.sequences.is_empty(), "an empty step");
        assert!(plan.tokens.len() as u32 <= self.step_tokens_max, "{} rows", plan.tokens.len());
        let others = self.running.iter().filter(|running| {
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

    /// The cells that the rows of a plan write.
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

    /// What happens even in a step that runs no layer.
    fn begin(&mut self, plan: &StepPlan) {
        for slot in &plan.retire {
            assert!(self.slots.remove(slot).is_some(), "{slot} is retired, but nobody sits there");
        }
        for init in &plan.admit {
            let prompt_tokens = init.prompt.len() as u32;
            let last = init.generated.last().map_or(Last::Unknown, |token| Last::Token(*token));
            let slot = Slot { seed: init.seed, prompt_tokens, position: init.generated.len() as u64, last };
            assert!(self.slots.insert(init.slot, slot).is_none(), "{} is admitted twice", init.slot);
        }
        for copy in &plan.copies {
            self.cells[copy.to.0 as usize] = self.cells[copy.from.0 as usize].clone();
        }
    }

    fn execute(&mut self, plan: &StepPlan) -> StepResult {
        self.begin(plan);
        self.kept = None;
        if plan.layers.end < self.layers {
            self.tear(plan);
            self.kept = Some((plan.sequences.clone(), plan.layers.end));
            return StepResult { samples: Vec::new(), layers_done: plan.layers.len() as u32 };
        }
        let mut values_at_row: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let wanted: BTreeSet<u32> = plan.sample.iter().map(|sample| sample.row).collect();
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
        StepResult { samples, layers_done: plan.layers.len() as u32 }
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

    /// Everything a cut step may have written is garbage, and its slots are void.
    fn cut(&mut self, plan: &StepPlan, has_run: bool) {
        if !has_run {
            self.begin(plan);
        }
        self.kept = None;
        self.tear(plan);
        for sample in &plan.sample {
            self.slots.get_mut(&sample.slot).expect("a slot of the step before").last = Last::Void;
        }
    }
}

pub(super) fn damaged_row() -> Failure {
    Failure::new(FailureKind::Internal, "a damaged row")
}

pub(super) fn sampled(token: TokenId) -> SampledToken {
    SampledToken { token, logprob: None, top: Vec::new() }
}

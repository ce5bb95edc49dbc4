//! A backend that runs the oracle's model over real block contents and checks every plan it is given.

use std::collections::{BTreeMap, BTreeSet};

use super::oracle;
use crate::{BlockId, SampledToken, SlotId, StepId, StepPlan, StepResult, TokenId};

/// What a block holds where nothing was written, or where something was torn.
const GARBAGE: u64 = 0xDEAD;

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
    running: Option<Running>,
}

struct Slot {
    seed: u64,
    prompt_tokens: u32,
    position: u64,
}

struct Running {
    step: StepId,
    plan: StepPlan,
    result: Option<StepResult>,
    cancelled: bool,
}

impl FakeBackend {
    pub(super) fn new(blocks: u32, block_tokens: u32, layers: u32, step_tokens_max: u32) -> FakeBackend {
        let cells = vec![vec![GARBAGE; block_tokens as usize]; blocks as usize];
        FakeBackend { block_tokens, layers, step_tokens_max, cells, slots: BTreeMap::new(), running: None }
    }

    pub(super) fn step_in_flight(&self) -> Option<StepId> {
        self.running.as_ref().map(|running| running.step)
    }

    pub(super) fn submit(&mut self, step: StepId, plan: StepPlan, effects: Effects) {
        assert!(self.running.is_none(), "{step} is submitted while another runs");
        self.check(&plan);
        let result = (effects == Effects::Early).then(|| self.execute(&plan));
        self.running = Some(Running { step, plan, result, cancelled: false });
    }

    /// A cancel may cross the end of its step; it cannot name another one.
    pub(super) fn cancel(&mut self, step: StepId) {
        if let Some(running) = &mut self.running {
            assert!(running.step == step && !running.cancelled, "{step} is cancelled twice or was never submitted");
            running.cancelled = true;
        }
    }

    /// Ends the step in flight; one that was cancelled leaves torn blocks and brings nothing.
    pub(super) fn finish(&mut self) -> Option<(StepId, StepResult)> {
        let Running { step, plan, result, cancelled } = self.running.take()?;
        let late = result.unwrap_or_else(|| self.execute(&plan));
        if !cancelled {
            return Some((step, late));
        }
        self.tear(&plan);
        Some((step, StepResult { samples: Vec::new(), layers_done: self.layers - 1 }))
    }

    /// Ends the step in flight as one that could not run.
    pub(super) fn abandon(&mut self) -> Option<StepId> {
        let Running { step, plan, result, .. } = self.running.take()?;
        if result.is_none() {
            self.execute(&plan);
        }
        self.tear(&plan);
        Some(step)
    }

    pub(super) fn write(&mut self, block: BlockId, offset: u32, value: u64) {
        self.cells[block.0 as usize][offset as usize] = value;
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
        assert_eq!(plan.layers, 0..self.layers);
        assert!(!plan.sequences.is_empty(), "an empty step");
        assert!(plan.tokens.len() as u32 <= self.step_tokens_max, "{} rows", plan.tokens.len());
        let mut written = BTreeSet::new();
        let mut next_row = 0;
        for rows in &plan.sequences {
            assert_eq!(rows.rows.start, next_row);
            next_row = rows.rows.end;
            let table = &plan.blocks[rows.blocks.start as usize..rows.blocks.end as usize];
            let end = rows.first_position + rows.rows.len() as u32;
            assert_eq!(table.len() as u32, end.div_ceil(self.block_tokens));
            assert_eq!(table.iter().collect::<BTreeSet<_>>().len(), table.len(), "a table names a block twice");
            for position in rows.first_position..end {
                let cell = (table[(position / self.block_tokens) as usize], position % self.block_tokens);
                assert!(written.insert(cell), "{cell:?} is written by two sequences");
            }
        }
        assert_eq!(next_row as usize, plan.tokens.len());
    }

    fn execute(&mut self, plan: &StepPlan) -> StepResult {
        for slot in &plan.retire {
            assert!(self.slots.remove(slot).is_some(), "{slot} is retired, but nobody sits there");
        }
        for init in &plan.admit {
            let prompt_tokens = init.prompt.len() as u32;
            let slot = Slot { seed: init.seed, prompt_tokens, position: init.generated.len() as u64 };
            assert!(self.slots.insert(init.slot, slot).is_none(), "{} is admitted twice", init.slot);
        }
        for copy in &plan.copies {
            self.cells[copy.to.0 as usize] = self.cells[copy.from.0 as usize].clone();
        }
        let mut values_at_row: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let wanted: BTreeSet<u32> = plan.sample.iter().map(|sample| sample.row).collect();
        for rows in &plan.sequences {
            let table = &plan.blocks[rows.blocks.start as usize..rows.blocks.end as usize];
            let mut values = self.stored(table, rows.first_position);
            for (position, row) in (rows.first_position..).zip(rows.rows.clone()) {
                values.push(oracle::value(&values, plan.tokens[row as usize]));
                let block = table[(position / self.block_tokens) as usize];
                self.write(block, position % self.block_tokens, values[position as usize]);
                if wanted.contains(&row) {
                    values_at_row.insert(row, values.clone());
                }
            }
        }
        let samples = plan.sample.iter().map(|sample| self.sample(sample.slot, &values_at_row[&sample.row])).collect();
        StepResult { samples, layers_done: self.layers }
    }

    fn sample(&mut self, slot: SlotId, values: &[u64]) -> SampledToken {
        let state = self.slots.get_mut(&slot).expect("a slot samples that was not admitted");
        let expected = u64::from(state.prompt_tokens) + state.position;
        assert_eq!(values.len() as u64, expected, "{slot} samples at another position than its state says");
        let token = oracle::sample(values, state.seed, state.position);
        state.position += 1;
        sampled(token)
    }

    /// Everything a cut step may have written is garbage.
    fn tear(&mut self, plan: &StepPlan) {
        for rows in &plan.sequences {
            let end = rows.first_position + rows.rows.len() as u32;
            for position in rows.first_position..end {
                let index = rows.blocks.start + position / self.block_tokens;
                self.write(plan.blocks[index as usize], position % self.block_tokens, GARBAGE);
            }
        }
    }
}

pub(super) fn sampled(token: TokenId) -> SampledToken {
    SampledToken { token, logprob: None, top: Vec::new() }
}

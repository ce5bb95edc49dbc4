//! Our engine, driven through the `Backend` trait with two steps in flight, as a replica drives it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crossbeam_channel::{Receiver, bounded};
use engine::backend::BackendEvent;
use engine::{Config, Opened, open_backend};
use sched::{
    BlockCopy, BlockId, Input, LaneId, SampleRow, SamplingParams, SequenceRows, SlotId, SlotInit, StepId, StepPlan,
    TokenId,
};

use crate::case::{Case, Phase};
use crate::options::BLOCK_TOKENS;
use crate::rounds::Sample;

const STEPS_IN_FLIGHT: usize = 2;
const STEP_DEADLINE: Duration = Duration::from_secs(300);

/// A loaded model with its pool.
pub(crate) struct Ours {
    opened: Opened,
    woken: Receiver<()>,
    vocab: u32,
    chunk: u32,
    steps: u32,
    /// Steps submitted in the life of the backend.
    submitted: u64,
    /// Batches and contexts whose blocks have been written.
    filled: Vec<(u32, u32)>,
}

impl Ours {
    pub(crate) fn open(config: &Config, steps: u32) -> Result<Ours> {
        let (wake, woken) = bounded(1);
        let notify = Arc::new(move || {
            let _already_woken = wake.try_send(());
        });
        let began = Instant::now();
        let opened = open_backend(config, notify)?;
        println!("Baton, loaded in {:.1} s: {:?}", began.elapsed().as_secs_f64(), opened.backend.describe());
        let (vocab, chunk) = (opened.spec.vocab, config.step_tokens_max);
        Ok(Ours { opened, woken, vocab, chunk, steps, submitted: 0, filled: Vec::new() })
    }

    /// Runs a case once, sampling included.
    pub(crate) fn sample(&mut self, case: &Case) -> Result<Sample> {
        let seconds = match case.phase {
            Phase::Prefill { tokens } => self.prefill_s(tokens),
            Phase::Decode { batch, context } => self.decode_s(batch, context),
        };
        let seconds = seconds.with_context(|| format!("Baton, {}", case.name))?;
        Ok(Sample { tokens: case.tokens(self.steps), seconds })
    }

    fn prefill_s(&mut self, tokens: u32) -> Result<f64> {
        let mut plans = self.prompt(tokens);
        if let Some(last) = plans.last_mut() {
            last.admit.push(greedy(0));
            last.sample.push(SampleRow { row: last.tokens.len() as u32 - 1, slot: SlotId(0) });
        }
        let seconds = self.run(plans.into_iter())?;
        self.run(std::iter::once(retire(1)))?;
        Ok(seconds)
    }

    fn decode_s(&mut self, batch: u32, context: u32) -> Result<f64> {
        self.fill(batch, context)?;
        let (layers, steps) = (self.opened.spec.layers, self.steps);
        let per_sequence = (context + steps).div_ceil(BLOCK_TOKENS);
        let plans = (0..steps).map(|step| {
            let position = context + step;
            let mut plan = StepPlan { layers: 0..layers, ..StepPlan::default() };
            if step == 0 {
                plan.admit = (0..batch).map(greedy).collect();
            }
            for sequence in 0..batch {
                push_sequence(&mut plan, sequence * per_sequence, position..position + 1);
                plan.tokens.push(TokenId(0));
                plan.sample.push(SampleRow { row: sequence, slot: SlotId(sequence) });
            }
            for (sequence, rows) in (0..).zip(&mut plan.sequences) {
                rows.input = Input::FromSlot(SlotId(sequence));
            }
            plan
        });
        let seconds = self.run(plans)?;
        self.run(std::iter::once(retire(batch)))?;
        Ok(seconds)
    }

    /// Computes the keys and values of one context and copies them to the other sequences. Once: what other cases write
    /// over them later is of the same kind, and its values do not matter for time.
    fn fill(&mut self, batch: u32, context: u32) -> Result<()> {
        if self.filled.contains(&(batch, context)) {
            return Ok(());
        }
        let prompt = self.prompt(context);
        self.run(prompt.into_iter())?;
        let per_sequence = (context + self.steps).div_ceil(BLOCK_TOKENS);
        let block = |sequence: u32, block: u32| BlockId(sequence * per_sequence + block);
        let pairs = (1..batch).flat_map(|sequence| {
            (0..context.div_ceil(BLOCK_TOKENS)).map(move |at| BlockCopy { from: BlockId(at), to: block(sequence, at) })
        });
        let copy = StepPlan { copies: pairs.collect(), layers: 0..self.opened.spec.layers, ..StepPlan::default() };
        self.run(std::iter::once(copy))?;
        self.filled.push((batch, context));
        Ok(())
    }

    /// The chunks of one prompt in the first blocks of the pool; samples nothing.
    fn prompt(&self, tokens: u32) -> Vec<StepPlan> {
        let starts = (0..tokens).step_by(self.chunk as usize);
        let chunks = starts.map(|start| {
            let positions = start..(start + self.chunk).min(tokens);
            let mut plan = StepPlan { layers: 0..self.opened.spec.layers, ..StepPlan::default() };
            plan.tokens.extend(positions.clone().map(|position| TokenId(7 * position % self.vocab)));
            push_sequence(&mut plan, 0, positions);
            plan
        });
        chunks.collect()
    }

    /// Seconds from the first submission to the end of the last step.
    fn run(&mut self, plans: impl Iterator<Item = StepPlan>) -> Result<f64> {
        let began = Instant::now();
        let mut in_flight = 0;
        for plan in plans {
            if in_flight == STEPS_IN_FLIGHT {
                self.wait_for_one()?;
                in_flight -= 1;
            }
            self.submitted += 1;
            self.opened.backend.submit(LaneId(0), StepId(self.submitted), plan)?;
            in_flight += 1;
        }
        (0..in_flight).try_for_each(|_| self.wait_for_one())?;
        Ok(began.elapsed().as_secs_f64())
    }

    fn wait_for_one(&mut self) -> Result<()> {
        loop {
            while let Some(event) = self.opened.backend.poll() {
                match event {
                    BackendEvent::Progress { .. } => {}
                    BackendEvent::Done { result: Ok(_), .. } => return Ok(()),
                    BackendEvent::Done { result: Err(failure), step, .. } => bail!("{step}: {failure}"),
                }
            }
            let woken = self.woken.recv_timeout(STEP_DEADLINE);
            woken.with_context(|| format!("a step has not ended within {STEP_DEADLINE:?}"))?;
        }
    }
}

/// Adds rows at these positions of the sequence whose blocks begin at `first_block`. Their tokens are pushed apart.
fn push_sequence(plan: &mut StepPlan, first_block: u32, positions: std::ops::Range<u32>) {
    let blocks_start = plan.blocks.len() as u32;
    let rows_start = plan.sequences.last().map_or(0, |last| last.rows.end);
    plan.blocks.extend((0..positions.end.div_ceil(BLOCK_TOKENS)).map(|block| BlockId(first_block + block)));
    plan.sequences.push(SequenceRows {
        rows: rows_start..rows_start + (positions.end - positions.start),
        blocks: blocks_start..plan.blocks.len() as u32,
        first_position: positions.start,
        input: Input::Given,
    });
}

/// A slot that has a token to continue from.
fn greedy(slot: u32) -> SlotInit {
    SlotInit {
        slot: SlotId(slot),
        params: Arc::new(SamplingParams { temperature: 0.0, ..SamplingParams::default() }),
        seed: 0,
        prompt: [TokenId(0)].into(),
        generated: vec![TokenId(slot)],
    }
}

fn retire(slots: u32) -> StepPlan {
    StepPlan { retire: (0..slots).map(SlotId).collect(), ..StepPlan::default() }
}

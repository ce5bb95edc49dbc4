//! Our engine's part: timed plans of a case; knows no other program.

use std::sync::Arc;

use anyhow::{Context, Result};
use engine::Config;
use sched::{BlockCopy, BlockId, Input, SampleRow, SamplingParams, SlotId, SlotInit, StepPlan, TokenId};

use crate::case::{Case, Phase};
use crate::driver::{BLOCK_TOKENS, Driver, push_rows};
use crate::rounds::Sample;

pub(crate) struct Ours {
    driver: Driver,
    chunk: u32,
    steps: u32,
    /// Pairs of batch and context whose blocks have been written.
    filled: Vec<(u32, u32)>,
}

impl Ours {
    pub(crate) fn open(config: &Config, steps: u32) -> Result<Ours> {
        let driver = Driver::open(config)?;
        println!("Baton: {:?}", driver.describe());
        Ok(Ours { driver, chunk: config.step_tokens_max, steps, filled: Vec::new() })
    }

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
        let ran = self.driver.run(plans)?;
        Ok(ran.seconds)
    }

    fn decode_s(&mut self, batch: u32, context: u32) -> Result<f64> {
        self.fill(batch, context)?;
        let layers = self.driver.spec().layers;
        let per_sequence = self.blocks_per_sequence(context);
        let plans = (0..self.steps).map(|step| {
            let position = context + step;
            let mut plan = StepPlan { layers: 0..layers, ..StepPlan::default() };
            if step == 0 {
                plan.admit = (0..batch).map(greedy).collect();
            }
            for sequence in 0..batch {
                push_rows(&mut plan, sequence * per_sequence, position..position + 1);
                plan.tokens.push(TokenId(0));
                plan.sample.push(SampleRow { row: sequence, slot: SlotId(sequence) });
            }
            for (sequence, rows) in (0..).zip(&mut plan.sequences) {
                rows.input = Input::FromSlot(SlotId(sequence));
            }
            plan
        });
        let ran = self.driver.run(plans)?;
        Ok(ran.seconds)
    }

    /// Computes KV of one context and copies it to the other sequences. Once is enough: other cases overwrite it with
    /// similar values, and timing does not depend on values.
    fn fill(&mut self, batch: u32, context: u32) -> Result<()> {
        if self.filled.contains(&(batch, context)) {
            return Ok(());
        }
        let prompt = self.prompt(context);
        self.driver.run(prompt)?;
        let per_sequence = self.blocks_per_sequence(context);
        let copies_of = |sequence: u32| {
            let blocks = 0..context.div_ceil(BLOCK_TOKENS);
            blocks.map(move |at| BlockCopy { from: BlockId(at), to: BlockId(sequence * per_sequence + at) })
        };
        self.driver.run([StepPlan { copies: (1..batch).flat_map(copies_of).collect(), ..StepPlan::default() }])?;
        self.filled.push((batch, context));
        Ok(())
    }

    fn blocks_per_sequence(&self, context: u32) -> u32 {
        (context + self.steps).div_ceil(BLOCK_TOKENS)
    }

    /// Chunks of one prompt in the first blocks of the pool; samples nothing.
    fn prompt(&self, tokens: u32) -> Vec<StepPlan> {
        let (layers, vocab) = (self.driver.spec().layers, self.driver.spec().vocab);
        let starts = (0..tokens).step_by(self.chunk as usize);
        let chunks = starts.map(|start| {
            let positions = start..(start + self.chunk).min(tokens);
            let mut plan = StepPlan { layers: 0..layers, ..StepPlan::default() };
            plan.tokens.extend(positions.clone().map(|position| TokenId(7 * position % vocab)));
            push_rows(&mut plan, 0, positions);
            plan
        });
        chunks.collect()
    }
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

//! Promises of every `Backend`: one end per step, cancels at layer boundaries, steps cut by layers, errors not panics.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use crossbeam_channel::{Receiver, bounded};
use engine::backend::BackendEvent;
use engine::{BackendKind, Config, Opened, open_backend};
use sched::replica::Progress;
use sched::{
    BlockCopy, BlockId, Failure, Input, LaneId, SampleOutcome, SampleRow, SampledToken, SamplingParams, SequenceRows,
    SlotId, SlotInit, StepId, StepPlan, StepResult, TokenId,
};

use support::requests::tokens;
use support::{family, workers};

const LANE: LaneId = LaneId(0);
const VOCAB: u32 = 384;
const LAYERS: u32 = 3;
const BLOCK_TOKENS: u32 = 16;

struct Device {
    opened: Opened,
    woken: Receiver<()>,
    steps: u64,
}

impl Device {
    fn open(config: &Config) -> Result<Device> {
        let (wake, woken) = bounded(1);
        let notify = Arc::new(move || {
            let _already_woken = wake.try_send(());
        });
        Ok(Device { opened: open_backend(config, notify)?, woken, steps: 0 })
    }

    fn submit(&mut self, plan: StepPlan) -> Result<StepId> {
        self.submit_telling(plan, Progress::Untold)
    }

    fn submit_telling(&mut self, plan: StepPlan, progress: Progress) -> Result<StepId> {
        self.steps += 1;
        self.opened.backend.submit(LANE, StepId(self.steps), plan, progress)?;
        Ok(StepId(self.steps))
    }

    fn next(&mut self) -> Result<BackendEvent> {
        loop {
            if let Some(event) = self.opened.backend.poll() {
                return Ok(event);
            }
            self.woken.recv_timeout(Duration::from_secs(60)).context("the backend says nothing")?;
        }
    }

    fn done(&mut self, wanted: StepId) -> Result<Result<StepResult, Failure>> {
        match self.next()? {
            BackendEvent::Done { step, result, .. } if step == wanted => Ok(result),
            BackendEvent::Done { step, .. } => bail!("{step} ended while {wanted} was awaited"),
            BackendEvent::Progress { .. } => bail!("nobody asked how far {wanted} is"),
            BackendEvent::Stopped(failure) => bail!("the backend has stopped: {failure}"),
        }
    }

    fn run(&mut self, plan: StepPlan) -> Result<StepResult> {
        let step = self.submit(plan)?;
        Ok(self.done(step)??)
    }
}

fn cpu() -> Result<Device> {
    Device::open(&workers::config(&family("qwen3")))
}

/// One rank, two that share each layer, two pipeline stages, and both.
fn cpus() -> Result<Vec<Device>> {
    let ranks = [(1, 1), (2, 1), (1, 2), (2, 2)].into_iter();
    ranks.map(|(tp, pp)| Device::open(&Config { tp, pp, ..workers::config(&family("qwen3")) })).collect()
}

fn modelled(model_dir: &Path, step_us: f64) -> Result<Device> {
    let mut config = Config { backend: BackendKind::Modelled, ..workers::config(model_dir) };
    config.modelled.prefill_step_us = step_us;
    Device::open(&config)
}

fn slot(params: SamplingParams) -> SlotInit {
    let params = Arc::new(params);
    SlotInit { slot: SlotId(0), seed: 5, params, prompt: [TokenId(1)].into(), generated: Vec::new() }
}

fn sampling() -> SamplingParams {
    SamplingParams { logprobs: Some(2), ..SamplingParams::default() }
}

/// A prompt of random tokens in blocks from `first_block` on, all layers, sampled into slot 0.
fn prompt(count: u32, first_block: u32) -> StepPlan {
    let table = count.div_ceil(BLOCK_TOKENS);
    StepPlan {
        admit: vec![slot(sampling())],
        sequences: vec![SequenceRows { rows: 0..count, blocks: 0..table, first_position: 0, input: Input::Given }],
        tokens: tokens(3, count as usize, VOCAB),
        blocks: (first_block..first_block + table).map(BlockId).collect(),
        layers: 0..LAYERS,
        sample: vec![SampleRow { row: count - 1, slot: SlotId(0) }],
        ..StepPlan::default()
    }
}

/// The step that appends the token in slot 0 at `position`.
fn append(position: u32, first_block: u32) -> StepPlan {
    let table = position / BLOCK_TOKENS + 1;
    StepPlan {
        sequences: vec![SequenceRows {
            rows: 0..1,
            blocks: 0..table,
            first_position: position,
            input: Input::FromSlot(SlotId(0)),
        }],
        tokens: vec![TokenId(u32::MAX)],
        blocks: (first_block..first_block + table).map(BlockId).collect(),
        layers: 0..LAYERS,
        sample: vec![SampleRow { row: 0, slot: SlotId(0) }],
        ..StepPlan::default()
    }
}

fn bits(samples: &[SampleOutcome]) -> Vec<(u32, u32)> {
    let bits = |sample: &SampledToken| (sample.token.0, sample.logprob.map_or(0, f32::to_bits));
    // A row without a token gets a pair that no sampled row has.
    samples.iter().map(|outcome| outcome.as_ref().map_or((u32::MAX, u32::MAX), bits)).collect()
}

#[test]
fn steps_cut_by_layers_give_the_same_bits() -> Result<()> {
    for mut device in cpus()? {
        let whole = device.run(prompt(50, 0))?;
        let whole_next = device.run(append(50, 0))?;
        let mut head = prompt(50, 8);
        (head.layers, head.sample) = (0..1, Vec::new());
        assert_eq!(device.run(head)?, StepResult { layers_done: 1, ..StepResult::default() });
        let middle = StepPlan { admit: Vec::new(), layers: 1..2, sample: Vec::new(), ..prompt(50, 8) };
        device.run(middle)?;
        let tail = StepPlan { admit: Vec::new(), layers: 2..LAYERS, ..prompt(50, 8) };
        assert_eq!(bits(&device.run(tail)?.samples), bits(&whole.samples));
        assert_eq!(bits(&device.run(append(50, 8))?.samples), bits(&whole_next.samples));
    }
    Ok(())
}

#[test]
fn copied_blocks_continue_with_the_same_bits() -> Result<()> {
    for mut device in cpus()? {
        device.run(prompt(20, 0))?;
        let expected = device.run(append(20, 0))?;
        device.run(prompt(20, 4))?;
        let mut copied = append(20, 10);
        copied.copies =
            vec![BlockCopy { from: BlockId(4), to: BlockId(10) }, BlockCopy { from: BlockId(5), to: BlockId(11) }];
        assert_eq!(bits(&device.run(copied)?.samples), bits(&expected.samples));
    }
    Ok(())
}

#[test]
fn a_token_is_taken_from_its_slot_before_anybody_else_knows_it() -> Result<()> {
    for mut device in cpus()? {
        let first = device.run(prompt(20, 0))?;
        let second = device.run(append(20, 0))?;
        let (one, two) = (device.submit(prompt(20, 4))?, device.submit(append(20, 4))?);
        assert_eq!(bits(&device.done(one)??.samples), bits(&first.samples));
        assert_eq!(bits(&device.done(two)??.samples), bits(&second.samples));
    }
    Ok(())
}

#[test]
fn a_cancelled_step_ends_with_the_layers_it_ran() -> Result<()> {
    let mut device = cpu()?;
    // The second step waits behind the first, so it is always cancelled before its first layer.
    let one = device.submit(prompt(400, 0))?;
    let two = device.submit(prompt(400, 30))?;
    device.opened.backend.cancel(two);
    assert_eq!(device.done(one)??.layers_done, LAYERS);
    assert_eq!(device.done(two)??, StepResult::default());
    // The cancelled step's slot was admitted nevertheless.
    let sampled = StepPlan { admit: Vec::new(), ..prompt(3, 0) };
    assert_eq!(device.run(sampled)?.samples.len(), 1);
    device.opened.backend.cancel(StepId(99));
    Ok(())
}

/// The step after one that was to sample slot 0: appends to that slot, and runs another prompt in slot 1.
fn behind(position: u32) -> StepPlan {
    let mut plan = append(position, 0);
    let other = prompt(20, 20);
    plan.admit = vec![SlotInit { slot: SlotId(1), ..slot(sampling()) }];
    let blocks = plan.blocks.len() as u32;
    plan.sequences.push(SequenceRows { rows: 1..21, blocks: blocks..blocks + 2, ..other.sequences[0].clone() });
    plan.tokens.extend(other.tokens);
    plan.blocks.extend(other.blocks);
    plan.sample.push(SampleRow { row: 20, slot: SlotId(1) });
    plan
}

#[test]
fn the_step_behind_one_that_brings_nothing_runs_for_everybody_else() -> Result<()> {
    let mut device = cpu()?;
    let expected = bits(&device.run(prompt(20, 20))?.samples);
    // Cancelled before its first layer, because an earlier step runs.
    let blocker = StepPlan { admit: Vec::new(), sample: Vec::new(), ..prompt(400, 40) };
    device.submit(blocker)?;
    let (cancelled, next) = (device.submit(prompt(400, 0))?, device.submit(behind(400))?);
    device.opened.backend.cancel(cancelled);
    device.done(StepId(cancelled.0 - 1))??;
    assert_eq!(device.done(cancelled)??.samples, []);
    let samples = device.done(next)??.samples;
    assert_eq!(bits(&samples[..1])[0].0, u32::MAX, "nobody can take this for a token");
    assert_eq!(bits(&samples[1..]), expected);

    // Fails: the model has fewer layers.
    let wrong = StepPlan { layers: 0..LAYERS + 1, ..prompt(400, 0) };
    let (failed, next) = (device.submit(wrong)?, device.submit(behind(400))?);
    assert!(device.done(failed)?.is_err());
    assert_eq!(bits(&device.done(next)??.samples[1..]), expected);
    Ok(())
}

#[test]
fn progress_that_was_asked_for_wakes_before_the_end_and_counts_layers() -> Result<()> {
    let mut device = cpu()?;
    let step = device.submit_telling(prompt(30, 0), Progress::ByLayer)?;
    let mut seen = Vec::new();
    loop {
        match device.next()? {
            BackendEvent::Progress { layers_done, .. } => seen.push(layers_done),
            BackendEvent::Done { step: ended, result, .. } => {
                assert_eq!((ended, result?.layers_done), (step, LAYERS));
                break;
            }
            BackendEvent::Stopped(failure) => bail!("the backend has stopped: {failure}"),
        }
    }
    assert_eq!(seen, [1, 2]);
    Ok(())
}

#[test]
fn wrong_plans_are_errors_that_name_what_is_wrong() -> Result<()> {
    let mut device = cpu()?;
    let mut refuse = |change: &dyn Fn(&mut StepPlan), expected: &str| -> Result<()> {
        let mut plan = prompt(20, 0);
        plan.admit.clear();
        plan.sample.clear();
        change(&mut plan);
        let step = device.submit(plan)?;
        let failure = device.done(step)?.expect_err(expected);
        assert!(failure.detail.contains(expected), "{failure} does not contain {expected:?}");
        Ok(())
    };
    refuse(&|plan| plan.layers = 0..4, "layers 0..4 of a model with 3")?;
    refuse(&|plan| plan.layers = 1..3, "has kept None")?;
    refuse(&|plan| plan.tokens[3] = TokenId(VOCAB), "row 3 has token 384 of a vocabulary of 384")?;
    refuse(&|plan| plan.tokens.push(TokenId(0)), "sequences cover 20 of 21 rows")?;
    refuse(&|plan| plan.blocks[1] = BlockId(100_000), "100000")?;
    refuse(&|plan| plan.sequences[0].blocks = 0..1, "block table")?;
    refuse(&|plan| plan.sequences[0].blocks = 0..9, "a block table 0..9 of 2 blocks")?;
    refuse(&|plan| plan.sequences[0].first_position = 500, "a sequence ends at position 520, at most 512 fit")?;
    refuse(&|plan| plan.sample = vec![SampleRow { row: 20, slot: SlotId(0) }], "wants logits of row 20 of 20")?;
    refuse(&|plan| plan.sample = vec![SampleRow { row: 0, slot: SlotId(0) }], "slot0 samples but was not admitted")?;
    // After all that the device still works.
    assert_eq!(device.run(prompt(20, 0))?.samples.len(), 1);
    Ok(())
}

#[test]
fn modelled_steps_take_their_time_and_can_be_cancelled() -> Result<()> {
    let mut device = modelled(&family("llama"), 200_000.0)?;
    let began = std::time::Instant::now();
    let step = device.submit(prompt(20, 0))?;
    assert_eq!(device.done(step)??.samples.len(), 1);
    assert!(began.elapsed() >= Duration::from_millis(200));
    let mut endless = modelled(&family("llama"), 6e7)?;
    let step = endless.submit(prompt(20, 0))?;
    let queued = endless.submit(StepPlan { admit: Vec::new(), ..prompt(20, 0) })?;
    endless.opened.backend.cancel(queued);
    endless.opened.backend.set_shares(&[(LANE, 0.5)]);
    assert!(endless.opened.backend.poll().is_none());
    endless.opened.backend.cancel(step);
    Ok(())
}

#[test]
fn dropping_a_backend_ends_its_thread_at_a_layer_boundary() -> Result<()> {
    let mut device = cpu()?;
    for _ in 0..20 {
        let mut plan = prompt(500, 0);
        plan.admit.clear();
        plan.sample.clear();
        device.submit(plan)?;
    }
    drop(device);
    let endless = modelled(&family("llama"), 6e7)?;
    drop(endless);
    Ok(())
}

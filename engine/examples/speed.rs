//! How fast the CPU backend runs a model: prefill and decode steps through the `Backend` trait, as JSON lines.
//!
//! usage: speed DIR [threads=N] [cores=0,1] [rounds=N] [kernel_set=NAME] [decode_steps=N]

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crossbeam_channel::{Receiver, bounded};
use engine::backend::BackendEvent;
use engine::{Config, Opened, TransportChoice, open_backend};
use sched::{
    BlockId, Input, LaneId, SampleRow, SamplingParams, SequenceRows, SlotId, SlotInit, StepId, StepPlan, TokenId,
};
use serde_json::json;

const BLOCK_TOKENS: u32 = 16;
/// Positions that a decoding sequence begins with.
const CONTEXT: u32 = 256;
const SEQUENCES_MAX: u32 = 16;

struct Bench {
    opened: Opened,
    woken: Receiver<()>,
    steps: u64,
    rounds: usize,
    decode_steps: u32,
}

fn main() -> Result<()> {
    let (config, rounds, decode_steps) = parse()?;
    let (wake, woken) = bounded(1);
    let notify = Arc::new(move || {
        let _already_woken = wake.try_send(());
    });
    let began = Instant::now();
    let opened = open_backend(&config, notify)?;
    println!(
        "{}",
        json!({"loaded_s": began.elapsed().as_secs_f64(), "backend": format!("{:?}", opened.backend.describe())})
    );
    let mut bench = Bench { opened, woken, steps: 0, rounds, decode_steps };
    for rows in [512, 2048] {
        bench.prefill(rows)?;
    }
    for batch in [1, 8, 16] {
        bench.decode(batch)?;
    }
    Ok(())
}

fn parse() -> Result<(Config, usize, u32)> {
    let mut arguments = std::env::args().skip(1);
    let directory =
        arguments.next().context("usage: speed DIR [threads=N] [cores=0,1] [rounds=N] [kernel_set=NAME]")?;
    let mut config = Config {
        model_dir: directory.into(),
        kv_blocks: SEQUENCES_MAX * 4096 / BLOCK_TOKENS,
        block_tokens: BLOCK_TOKENS,
        sequences_max: SEQUENCES_MAX,
        step_tokens_max: 2048,
        transport: TransportChoice::InProcess,
        ..Config::default()
    };
    let (mut rounds, mut decode_steps) = (5, 16);
    for argument in arguments {
        let (key, value) = argument.split_once('=').with_context(|| format!("{argument:?} is not key=value"))?;
        match key {
            "threads" => config.threads = value.parse()?,
            "cores" => config.cores = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "rounds" => rounds = value.parse()?,
            "decode_steps" => decode_steps = value.parse()?,
            "kernel_set" => config.kernel_set = value.to_owned(),
            "weights_cache" => config.weights_cache = value.to_owned(),
            other => bail!("unknown key {other:?}"),
        }
    }
    Ok((config, rounds, decode_steps))
}

impl Bench {
    /// One prompt in one step.
    fn prefill(&mut self, rows: u32) -> Result<()> {
        if rows > self.opened.context_max {
            return Ok(());
        }
        let mut times = Vec::new();
        for _ in 0..self.rounds {
            let plan = self.plan(1, 0, rows, Turn::Only);
            times.push(self.run(plan)?);
        }
        self.report("prefill", rows, rows, &mut times);
        Ok(())
    }

    /// `batch` sequences that each append one token per step.
    fn decode(&mut self, batch: u32) -> Result<()> {
        for sequence in 0..batch {
            // Contents of the context do not matter for speed; filling it once makes every byte a real one.
            let mut fill = self.plan(batch, 0, CONTEXT, Turn::Only);
            fill.sequences = vec![SequenceRows {
                rows: 0..CONTEXT,
                blocks: fill.sequences[sequence as usize].blocks.clone(),
                first_position: 0,
                input: Input::Given,
            }];
            fill.tokens.truncate(CONTEXT as usize);
            (fill.sample, fill.admit, fill.retire) = (Vec::new(), Vec::new(), Vec::new());
            self.run(fill)?;
        }
        let mut times = Vec::new();
        for round in 0..self.rounds {
            for step in 0..self.decode_steps {
                let turn = match (round, step) {
                    (0, 0) => Turn::First,
                    _ => Turn::Middle,
                };
                let plan = self.plan(batch, CONTEXT + step, 1, turn);
                times.push(self.run(plan)?);
            }
        }
        let retire = StepPlan { retire: (0..batch).map(SlotId).collect(), ..StepPlan::default() };
        self.run(retire)?;
        self.report("decode", batch, batch, &mut times);
        Ok(())
    }

    fn plan(&self, batch: u32, first_position: u32, rows: u32, turn: Turn) -> StepPlan {
        let table = (first_position + rows).div_ceil(BLOCK_TOKENS);
        let per_sequence = 4096 / BLOCK_TOKENS;
        let mut plan = StepPlan { layers: 0..self.opened.spec.layers, ..StepPlan::default() };
        for sequence in 0..batch {
            let first = plan.blocks.len() as u32;
            plan.blocks.extend((0..table).map(|block| BlockId(sequence * per_sequence + block)));
            let start = plan.tokens.len() as u32;
            plan.tokens.extend((0..rows).map(|row| TokenId((7 * row + sequence) % self.opened.spec.vocab)));
            plan.sequences.push(SequenceRows {
                rows: start..start + rows,
                blocks: first..first + table,
                first_position,
                input: Input::Given,
            });
            plan.sample.push(SampleRow { row: start + rows - 1, slot: SlotId(sequence) });
        }
        if turn != Turn::Middle {
            plan.admit = (0..batch).map(greedy).collect();
        }
        if turn == Turn::Only {
            plan.sample.clear();
            plan.admit.clear();
        }
        plan
    }

    /// Seconds from submission to the end of the step.
    fn run(&mut self, plan: StepPlan) -> Result<f64> {
        self.steps += 1;
        let began = Instant::now();
        self.opened.backend.submit(LaneId(0), StepId(self.steps), plan)?;
        loop {
            while let Some(event) = self.opened.backend.poll() {
                if let BackendEvent::Done { result, .. } = event {
                    result?;
                    return Ok(began.elapsed().as_secs_f64());
                }
            }
            self.woken.recv_timeout(Duration::from_secs(120)).context("a step takes longer than two minutes")?;
        }
    }

    fn report(&self, phase: &str, size: u32, tokens: u32, times: &mut [f64]) {
        times.sort_by(f64::total_cmp);
        let (median, best) = (times[times.len() / 2], times[0]);
        let parameters = self.opened.spec.multiplied_parameters() as f64;
        let per_token = if phase == "prefill" {
            // Without logits, as all but the last chunk of a prompt.
            parameters - f64::from(self.opened.spec.hidden) * f64::from(self.opened.spec.vocab)
        } else {
            parameters
        };
        let line = json!({
            "phase": phase, "size": size, "step_ms_median": median * 1e3, "step_ms_best": best * 1e3,
            "tokens_per_s": f64::from(tokens) / median,
            "gflop_per_s": 2.0 * per_token * f64::from(tokens) / median / 1e9,
            "weights_gb_per_s_bf16": 2.0 * per_token / median / 1e9,
        });
        println!("{line}");
    }
}

/// Where a plan stands in a run of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It admits its slots.
    First,
    /// Its slots are admitted already.
    Middle,
    /// It samples nothing.
    Only,
}

fn greedy(slot: u32) -> SlotInit {
    SlotInit {
        slot: SlotId(slot),
        params: Arc::new(SamplingParams { temperature: 0.0, ..SamplingParams::default() }),
        seed: 0,
        prompt: [TokenId(0)].into(),
        generated: Vec::new(),
    }
}

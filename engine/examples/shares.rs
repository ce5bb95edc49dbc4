//! What two lanes get that share the threads of one CPU, at every share: core time, throughput and step times.
//!
//! usage: shares DIR [shares=10,20,50,100] [rows=N] [batch=N] [context=N] [window_ms=N] [rounds=N] [cores=0,1] [threads=N]
//!
//! A backend with one lane beside them shows what an idle lane costs.
//!
//! One lane prefills `rows` rows per step, the other decodes `batch` sequences, both without a pause. Each round measures
//! both alone and then together at every share, so that other load on the machine hits all of them. A share of 100 is
//! no division: either lane may use all.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use crossbeam_channel::{Receiver, bounded};
use engine::backend::{BackendEvent, Notify};
use engine::{Config, EngineError, Opened, TransportChoice, open_backend, open_partitioned};
use sched::replica::Progress;
use sched::{BlockId, Input, LaneId, SequenceRows, StepId, StepPlan, TokenId};

const PREFILL: LaneId = LaneId(0);
const DECODE: LaneId = LaneId(1);
const BLOCK_TOKENS: u32 = 16;
/// Share of either lane if both may use all of the device.
const OVERSUBSCRIBED: f32 = 1.0;
const STEP_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Options {
    config: Config,
    shares: Vec<f32>,
    rows: u32,
    batch: u32,
    context: u32,
    window: Duration,
    rounds: u32,
}

/// What the lanes did in one window.
#[derive(Default, Clone)]
struct Seen {
    /// Ends of steps, and the time that each took.
    ended: BTreeMap<LaneId, Vec<(Instant, Duration)>>,
    /// Part of the core time that prefill used.
    prefill_part: f64,
}

struct Lanes {
    opened: Opened,
    woken: Receiver<()>,
    submitted: u64,
    /// What a step in flight does, whatever its lane.
    doing: BTreeMap<StepId, LaneId>,
    in_flight: BTreeMap<LaneId, u32>,
    options: Options,
}

fn main() -> Result<()> {
    let options = parse(std::env::args().skip(1))?;
    let mut whole = Lanes::open(open_backend, options.clone())?;
    let mut lanes = Lanes::open(open_partitioned, options)?;
    ensure!(lanes.opened.backend.used().len() == 2, "two lanes need two threads");
    let shares = lanes.options.shares.clone();
    let (mut solo_prefill, mut solo_decode, mut solo_steps) = (Vec::new(), Vec::new(), Vec::new());
    let mut together: Vec<Vec<Seen>> = vec![Vec::new(); shares.len()];
    let (mut whole_prefill, mut whole_decode) = (Vec::new(), Vec::new());
    lanes.window(&[PREFILL, DECODE])?;
    whole.window(&[PREFILL])?;
    for _ in 0..lanes.options.rounds {
        lanes.set(0.5);
        whole_prefill.push(whole.window(&[PREFILL])?.rate(PREFILL));
        solo_prefill.push(lanes.window(&[PREFILL])?.rate(PREFILL));
        whole_decode.push(whole.window(&[DECODE])?.rate(DECODE));
        let decode = lanes.window(&[DECODE])?;
        solo_steps.extend(decode.times(DECODE));
        solo_decode.push(decode.rate(DECODE));
        for (share, seen) in shares.iter().zip(&mut together) {
            lanes.set(*share);
            seen.push(lanes.window(&[PREFILL, DECODE])?);
        }
    }
    let (prefill, decode) = (median(solo_prefill), median(solo_decode));
    let [p50, p99] = quantiles(solo_steps);
    println!(
        "alone: prefill {:.0} rows/s, decode {:.1} steps/s, p50 {p50:.2} ms, p99 {p99:.2} ms",
        prefill * f64::from(lanes.options.rows),
        decode
    );
    let [whole_prefill, whole_decode] = [whole_prefill, whole_decode].map(median);
    println!(
        "beside an idle lane: prefill {:.3}, decode {:.3} of one lane's",
        prefill / whole_prefill,
        decode / whole_decode
    );
    println!("share  core time  prefill  decode  together  decode p50, p99 x (1-x)/alone");
    for (share, seen) in shares.iter().zip(&together) {
        let of = |value: &dyn Fn(&Seen) -> f64| median(seen.iter().map(value).collect());
        let (p, d) = (of(&|seen| seen.rate(PREFILL)) / prefill, of(&|seen| seen.rate(DECODE)) / decode);
        let steps = quantiles(seen.iter().flat_map(|seen| seen.times(DECODE)).collect());
        let scale = f64::from(1.0 - share) / p50;
        println!(
            "{share:>5.2}  {:>9.3}  {p:>7.2}  {d:>6.2}  {:>8.2}  {:.2}, {:.2}",
            of(&|seen| seen.prefill_part),
            p + d,
            steps[0] * scale,
            steps[1] * scale
        );
    }
    lanes.switches()
}

impl Lanes {
    fn open(open: fn(&Config, Notify) -> Result<Opened, EngineError>, options: Options) -> Result<Lanes> {
        let (wake, woken) = bounded(1);
        let notify = Arc::new(move || {
            let _already_woken = wake.try_send(());
        });
        let opened = open(&options.config, notify)?;
        Ok(Lanes { opened, woken, submitted: 0, doing: BTreeMap::new(), in_flight: BTreeMap::new(), options })
    }

    fn set(&mut self, prefill: f32) {
        let decode = if prefill == OVERSUBSCRIBED { OVERSUBSCRIBED } else { 1.0 - prefill };
        self.opened.backend.set_shares(&[(PREFILL, prefill), (DECODE, decode)]);
    }

    /// Runs the lanes without a pause, and empties them at the end.
    fn window(&mut self, lanes: &[LaneId]) -> Result<Seen> {
        let mut seen = Seen::default();
        let before = self.used();
        let until = Instant::now() + self.options.window;
        for lane in lanes {
            self.submit(*lane)?;
            self.submit(*lane)?;
        }
        while Instant::now() < until {
            let (lane, took) = self.next_end()?;
            seen.ended.entry(lane).or_default().push((Instant::now(), took));
            self.submit(lane)?;
        }
        let used = self.used();
        if let ([prefill, decode], [prefill_before, decode_before]) = (&used[..], &before[..]) {
            let [prefill, decode] =
                [*prefill - *prefill_before, *decode - *decode_before].map(|used| used.as_secs_f64());
            seen.prefill_part = prefill / (prefill + decode);
        }
        while self.in_flight.values().any(|steps| *steps > 0) {
            self.next_end()?;
        }
        Ok(seen)
    }

    fn used(&self) -> Vec<Duration> {
        self.opened.backend.used().into_iter().map(|(_, used)| used).collect()
    }

    fn submit(&mut self, lane: LaneId) -> Result<()> {
        let Options { rows, batch, context, .. } = self.options;
        let mut plan = StepPlan { layers: 0..self.opened.spec.layers, ..StepPlan::default() };
        let blocks = context.max(rows).div_ceil(BLOCK_TOKENS) + 1;
        if lane == PREFILL {
            push(&mut plan, batch * blocks, 0..rows);
        } else {
            (0..batch).for_each(|sequence| push(&mut plan, sequence * blocks, context - 1..context));
        }
        self.submitted += 1;
        let step = StepId(self.submitted);
        let on = if self.opened.backend.used().is_empty() { PREFILL } else { lane };
        self.opened.backend.submit(on, step, plan, Progress::Untold)?;
        self.doing.insert(step, lane);
        *self.in_flight.entry(lane).or_default() += 1;
        Ok(())
    }

    fn next_end(&mut self) -> Result<(LaneId, Duration)> {
        loop {
            match self.opened.backend.poll() {
                Some(BackendEvent::Done { step, ran, result, .. }) => {
                    let lane = self.doing.remove(&step).context("an unknown step")?;
                    result.map_err(|failure| anyhow::anyhow!("{failure}"))?;
                    *self.in_flight.entry(lane).or_default() -= 1;
                    return Ok((lane, ran.took()));
                }
                Some(BackendEvent::Progress { .. }) => {}
                Some(BackendEvent::Stopped(failure)) => bail!("the backend has stopped: {failure}"),
                None => self.woken.recv_timeout(STEP_DEADLINE).context("no step has ended")?,
            }
        }
    }

    /// Part of the core time that prefill uses between 1 and 4 ms after each switch from 20 to 80 % and back.
    fn switches(&mut self) -> Result<()> {
        let mut parts: [Vec<f64>; 2] = Default::default();
        for lane in [PREFILL, PREFILL, DECODE, DECODE] {
            self.submit(lane)?;
        }
        for flip in 0..20 {
            let high = flip % 2 == 1;
            self.set(if high { 0.8 } else { 0.2 });
            let switched = Instant::now();
            let mut samples = Vec::new();
            for wait_us in [1_000, 4_000] {
                let until = switched + Duration::from_micros(wait_us);
                std::thread::sleep(until.saturating_duration_since(Instant::now()));
                samples.push(self.used());
            }
            let [prefill, decode] = [0, 1].map(|lane| (samples[1][lane] - samples[0][lane]).as_secs_f64());
            parts[usize::from(high)].push(prefill / (prefill + decode));
            // Long enough for steps to end and to be replaced.
            let until = Instant::now() + Duration::from_millis(300);
            while Instant::now() < until {
                let (lane, _) = self.next_end()?;
                self.submit(lane)?;
            }
        }
        let [low, high] = parts.map(median);
        println!("1 to 4 ms after a switch: to 0.20: {low:.3}, to 0.80: {high:.3} (median of 10)");
        while self.in_flight.values().any(|steps| *steps > 0) {
            self.next_end()?;
        }
        Ok(())
    }
}

impl Seen {
    /// Steps per second between the first and the last end.
    fn rate(&self, lane: LaneId) -> f64 {
        let ended = self.ended.get(&lane).map(Vec::as_slice).unwrap_or_default();
        match ended {
            [first, .., last] => (ended.len() - 1) as f64 / (last.0 - first.0).as_secs_f64(),
            _ => f64::NAN,
        }
    }

    fn times(&self, lane: LaneId) -> Vec<f64> {
        let ended = self.ended.get(&lane).map(Vec::as_slice).unwrap_or_default();
        ended.iter().map(|(_, took)| took.as_secs_f64() * 1e3).collect()
    }
}

fn push(plan: &mut StepPlan, first_block: u32, positions: Range<u32>) {
    let (rows_start, blocks_start) = (plan.tokens.len() as u32, plan.blocks.len() as u32);
    plan.tokens.extend(positions.clone().map(|position| TokenId(1 + position % 100)));
    plan.blocks.extend((0..positions.end.div_ceil(BLOCK_TOKENS)).map(|block| BlockId(first_block + block)));
    plan.sequences.push(SequenceRows {
        rows: rows_start..plan.tokens.len() as u32,
        blocks: blocks_start..plan.blocks.len() as u32,
        first_position: positions.start,
        input: Input::Given,
    });
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn quantiles(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    let at = |part: f64| values.get(((values.len() as f64 * part) as usize).min(values.len().saturating_sub(1)));
    [0.5, 0.99].map(|part| at(part).copied().unwrap_or(f64::NAN))
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let dir = arguments.next().context("usage: shares DIR [key=value]…; see the first lines of the source")?;
    let mut config = Config { model_dir: dir.into(), transport: TransportChoice::Tcp, ..Config::default() };
    let mut options = Options {
        config: config.clone(),
        shares: (1..=10).map(|tenth| tenth as f32 / 10.0).collect(),
        rows: 512,
        batch: 8,
        context: 512,
        window: Duration::from_millis(1_500),
        rounds: 3,
    };
    for argument in arguments {
        let (key, value) = argument.split_once('=').with_context(|| format!("{argument} is not key=value"))?;
        match key {
            "shares" => {
                let percents = value.split(',').map(str::parse::<f32>).collect::<Result<Vec<_>, _>>()?;
                options.shares = percents.into_iter().map(|percent| percent / 100.0).collect();
            }
            "rows" => options.rows = value.parse()?,
            "batch" => options.batch = value.parse()?,
            "context" => options.context = value.parse()?,
            "window_ms" => options.window = Duration::from_millis(value.parse()?),
            "rounds" => options.rounds = value.parse()?,
            "threads" => config.threads = value.parse()?,
            "cores" => config.cores = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            _ => bail!("unknown key {key}"),
        }
    }
    let blocks = (options.batch + 1) * (options.context.max(options.rows).div_ceil(BLOCK_TOKENS) + 1);
    config.kv_pool = engine::KvPool::Blocks(blocks);
    config.step_tokens_max = options.rows.max(options.batch);
    options.config = config;
    Ok(options)
}

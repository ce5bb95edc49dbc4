//! Time that the device stands still between decode steps, on a real replica with one and with two steps in flight.
//!
//! usage: gaps DIR [ahead=1,2] [batch=1,8] [prompt=N] [tokens=N] [rounds=N] [threads=N] [cores=0,1] [kernel_set=NAME]
//!             [structure=FILE]
//!
//! The replicas live in this process and take turns, so that other load on the machine hits all of them; `ahead` lists
//! their steps in flight, in order of start. Every request generates the same number of tokens; steps count once all
//! requests have their first. With `structure`, a file with a grammar in Lark, each round has a second half, in which every
//! choice follows the grammar; it should have no end, for a choice does not end with it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crossbeam_channel::{Receiver, Sender, unbounded};
use engine::replica::{Outbound, Outlet};
use engine::{Config, PrefixCacheChoice, Started, TransportChoice, start};
use sched::message::{Envelope, FromWorker, ToWorker, Work};
use sched::replica::Event;
use sched::{
    Attempt, Choice, ChoiceState, Leg, Request, RequestId, Role, SamplingParams, Slo, Span, Structure, TokenId,
    rng::token_hash,
};
use serde_json::json;

struct Options {
    config: Config,
    ahead: Vec<u32>,
    batches: Vec<u32>,
    prompt: u32,
    tokens: u32,
    rounds: u32,
    structure: Option<Arc<Structure>>,
}

/// A replica and the number of its requests so far.
struct Served {
    steps_in_flight: u32,
    started: Started,
    said: Receiver<Outbound>,
    requests: u64,
}

#[derive(Default)]
struct Measured {
    steps: Vec<Duration>,
    gaps: Vec<Duration>,
    wall: Duration,
    step_ms_by_round: Vec<f64>,
}

struct ToChannel(Sender<Outbound>);

impl Outlet for ToChannel {
    fn put(&mut self, out: Outbound) {
        let _measurement_is_over = self.0.send(out);
    }

    fn flush(&mut self) {}
}

fn main() -> Result<()> {
    let options = parse(std::env::args().skip(1))?;
    let replicas = options.ahead.iter().map(|steps| Served::start(&options, *steps));
    let mut replicas = replicas.collect::<Result<Vec<_>>>()?;
    for batch in &options.batches {
        let mut free: Vec<_> = replicas.iter().map(|_| Measured::default()).collect();
        let mut structured: Vec<_> = replicas.iter().map(|_| Measured::default()).collect();
        for _ in 0..options.rounds {
            for (index, replica) in replicas.iter_mut().enumerate() {
                replica.run(&options, *batch, None, &mut free[index])?;
                if let Some(structure) = &options.structure {
                    replica.run(&options, *batch, Some(structure), &mut structured[index])?;
                }
            }
        }
        for (index, replica) in replicas.iter().enumerate() {
            println!("{}", free[index].report(*batch, replica.steps_in_flight, "free")?);
            if options.structure.is_some() {
                println!("{}", structured[index].report(*batch, replica.steps_in_flight, "structured")?);
            }
        }
    }
    Ok(())
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let usage = "usage: gaps DIR [ahead=1,2] [batch=1,8] [prompt=N] [tokens=N] [rounds=N] [threads=N] [cores=0,1] \
                 [kernel_set=NAME] [structure=FILE]";
    let directory = arguments.next().context(usage)?;
    let config = Config {
        model_dir: directory.into(),
        kv_pool: engine::KvPool::Bytes(256 << 20),
        prefix_cache: PrefixCacheChoice::Off,
        transport: TransportChoice::InProcess,
        ..Config::default()
    };
    let mut options =
        Options { config, ahead: vec![1, 2], batches: vec![1, 8], prompt: 64, tokens: 32, rounds: 3, structure: None };
    for argument in arguments {
        let (key, value) = argument.split_once('=').with_context(|| format!("{argument:?} is not key=value"))?;
        match key {
            "ahead" => options.ahead = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "batch" => options.batches = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "prompt" => options.prompt = value.parse()?,
            "tokens" => options.tokens = value.parse()?,
            "rounds" => options.rounds = value.parse()?,
            "threads" => options.config.threads = value.parse()?,
            "cores" => options.config.cores = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "structure" => {
                let grammar = std::fs::read_to_string(value).with_context(|| value.to_owned())?;
                options.structure = Some(Arc::new(Structure { grammar: grammar.into(), ends: Vec::new() }));
            }
            "kernel_set" => options.config.kernel_set = value.to_owned(),
            other => bail!("unknown key {other:?}; {usage}"),
        }
    }
    Ok(options)
}

impl Served {
    fn start(options: &Options, steps_in_flight: u32) -> Result<Served> {
        let (out, said) = unbounded();
        let config = Config { steps_in_flight, ..options.config.clone() };
        let started = start(&config, Role::Aggregated, Box::new(ToChannel(out)))?;
        Ok(Served { steps_in_flight, started, said, requests: 0 })
    }

    fn run(
        &mut self,
        options: &Options,
        batch: u32,
        structure: Option<&Arc<Structure>>,
        measured: &mut Measured,
    ) -> Result<()> {
        let steps_before = measured.steps.len();
        for _ in 0..batch {
            self.requests += 1;
            let request = request(self.requests, options, structure, self.started.info.vocab);
            self.started.handle.send(Event::Router(ToWorker::Submit(request, Work::Whole)))?;
        }
        let (mut begun, mut ended, mut since) = (BTreeSet::new(), BTreeSet::new(), None);
        while ended.len() < batch as usize {
            match self.said.recv_timeout(Duration::from_secs(120)).context("a step takes longer than two minutes")? {
                Outbound::Stepped { took, gap, .. } if since.is_some() => measured.add(took, gap),
                Outbound::Say(Envelope::Router(FromWorker::Token { leg, ended: end, .. })) => {
                    begun.insert(leg);
                    if begun.len() == batch as usize {
                        since.get_or_insert_with(Instant::now);
                    }
                    if end.is_some() {
                        ended.insert(leg);
                    }
                }
                Outbound::Say(Envelope::Router(FromWorker::Failed { failure, .. })) => bail!("{failure}"),
                Outbound::Stopped(failure) => bail!("the replica stopped: {failure:?}"),
                _ => {}
            }
        }
        let wall = since.map_or(Duration::ZERO, |since| since.elapsed());
        measured.wall += wall;
        let steps = measured.steps.len() - steps_before;
        measured.step_ms_by_round.push(wall.as_secs_f64() * 1e3 / steps as f64);
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.started.handle.shutdown();
    }
}

impl Measured {
    fn add(&mut self, took: Duration, gap: Option<Duration>) {
        self.steps.push(took);
        self.gaps.extend(gap);
    }

    fn report(&mut self, batch: u32, steps_in_flight: u32, answers: &str) -> Result<serde_json::Value> {
        self.steps.sort_unstable();
        self.gaps.sort_unstable();
        let micros = |sorted: &[Duration], percent: usize| {
            let at = sorted.get((sorted.len().saturating_sub(1)) * percent / 100);
            at.map(|span| span.as_secs_f64() * 1e6).context("nothing was measured")
        };
        let sum = |spans: &[Duration]| spans.iter().sum::<Duration>().as_secs_f64();
        Ok(json!({
            "batch": batch, "steps_in_flight": steps_in_flight, "answers": answers, "steps": self.steps.len(),
            "step_ms_median": micros(&self.steps, 50)? / 1e3, "step_ms_max": micros(&self.steps, 100)? / 1e3,
            "gap_us_median": micros(&self.gaps, 50)?, "gap_us_p99": micros(&self.gaps, 99)?,
            "gap_percent_of_step": 100.0 * sum(&self.gaps) / sum(&self.steps),
            "tokens_per_s": self.steps.len() as f64 * f64::from(batch) / self.wall.as_secs_f64(),
            "step_ms_by_round": self.step_ms_by_round,
        }))
    }
}

fn request(id: u64, options: &Options, structure: Option<&Arc<Structure>>, vocab: u32) -> Request {
    let token = |at: u32| TokenId((token_hash(id, u64::from(at)) % u64::from(vocab)) as u32);
    let params = SamplingParams {
        max_tokens: options.tokens,
        temperature: 0.0,
        structure: structure.cloned(),
        ..SamplingParams::default()
    };
    Request {
        leg: Leg { request: RequestId(id), attempt: Attempt(0) },
        prompt: (0..options.prompt).map(token).collect(),
        choices: vec![ChoiceState { choice: Choice(0), generated: Vec::new() }],
        params: Arc::new(params),
        slo: Slo::default(),
        deadline_in: Span::from_secs(600),
    }
}

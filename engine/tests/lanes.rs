//! Two lanes over one pool and one set of weights give the tokens and bits of one lane.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use crossbeam_channel::{Receiver, bounded};
use engine::backend::{BackendEvent, Notify};
use engine::{Config, EngineError, Opened, open_backend, open_partitioned};
use sched::handoff::LeaseKey;
use sched::message::{Envelope, FromWorker, ToWorker, Work};
use sched::replica::{
    Action, Compute, Event, LaneConfig, LaneWork, LeaseConfig, PrefixCache, Reading, Replica, ReplicaConfig,
};
use sched::scheduling::Scheduling;
use sched::{LaneId, Leg, Request, SamplingParams, Time, TokenId, rng};

use support::requests::{mix, request, tokens};
use support::workers::{Exact, Texts, assert_equal, config, take_scores};
use support::{demo, family};

const ONE: &[LaneWork] = &[LaneWork::DecodeFirst];
const TWO: &[LaneWork] = &[LaneWork::Prefill, LaneWork::Decode];
const BLOCKS: u32 = 512;

struct Worker {
    replica: Replica,
    opened: Opened,
    woken: Receiver<()>,
    now: Time,
    texts: Texts,
    /// Prompts of the legs that run.
    open: BTreeMap<Leg, Arc<[TokenId]>>,
    /// Times that steps of both lanes were in flight together.
    beside: u32,
    in_flight: [u32; 2],
    /// Set to move the shares after every step.
    shares_move_with_seed: Option<u64>,
}

impl Worker {
    fn new(config: &Config, lanes: &[LaneWork], blocks: u32, prefix_cache: PrefixCache) -> Result<Worker> {
        Worker::on(open_backend, config, lanes, blocks, prefix_cache)
    }

    /// A worker whose lanes compute at the same time.
    fn partitioned(config: &Config) -> Result<Worker> {
        Worker::on(open_partitioned, config, TWO, BLOCKS, PrefixCache::On)
    }

    fn on(
        open: fn(&Config, Notify) -> Result<Opened, EngineError>,
        config: &Config,
        lanes: &[LaneWork],
        blocks: u32,
        prefix_cache: PrefixCache,
    ) -> Result<Worker> {
        let (wake, woken) = bounded(1);
        let notify = Arc::new(move || {
            let _already_woken = wake.try_send(());
        });
        let opened = open(config, notify)?;
        let lane = |work: &LaneWork| LaneConfig {
            work: *work,
            step_tokens_max: config.step_tokens_max,
            step_layers_max: opened.spec.layers,
            steps_in_flight: config.steps_in_flight,
        };
        let replica = Replica::new(ReplicaConfig {
            lanes: lanes.iter().map(lane).collect(),
            blocks_total: blocks,
            block_tokens: config.block_tokens,
            layers: opened.spec.layers,
            vocab: opened.spec.vocab,
            context_max: opened.context_max,
            sequences_max: config.sequences_max,
            queue_legs_max: 1_000,
            pulls_per_giver_max: 1,
            pull_tokens_max: 1 << 20,
            reading: Reading::WhenComplete,
            prefix_cache,
            filling_share: 1.0,
            scheduling: Scheduling::default(),
            lease: LeaseConfig::default(),
            hash_salt: 1,
            lease_key: LeaseKey::new([1; 32]),
        })?;
        let (texts, open) = (Texts::new(), BTreeMap::new());
        Ok(Worker {
            replica,
            opened,
            woken,
            now: Time(0),
            texts,
            open,
            beside: 0,
            in_flight: [0; 2],
            shares_move_with_seed: None,
        })
    }

    /// Runs all requests at once, and returns every token.
    fn run(&mut self, requests: &[Request]) -> Result<Texts> {
        for request in requests {
            self.open.insert(request.leg, Arc::clone(&request.prompt));
            self.feed(Event::Router(ToWorker::Submit(request.clone(), Work::Whole)))?;
        }
        while !self.open.is_empty() {
            match self.opened.backend.poll() {
                Some(event) => self.ended(event)?,
                None => self.woken.recv_timeout(Duration::from_secs(60)).context("the backend says nothing")?,
            }
        }
        Ok(std::mem::take(&mut self.texts))
    }

    fn ended(&mut self, event: BackendEvent) -> Result<()> {
        let BackendEvent::Done { lane, step, result, .. } = event else { bail!("{event:?}") };
        self.in_flight[usize::from(lane.0)] -= 1;
        if let Some(seed) = self.shares_move_with_seed {
            let prefill = rng::uniform_f64(seed, self.now.0, 0).clamp(0.01, 0.99) as f32;
            self.opened.backend.set_shares(&[(LaneId(0), prefill), (LaneId(1), 1.0 - prefill)]);
        }
        self.feed(Event::StepDone { lane, step, result: result? })
    }

    fn feed(&mut self, event: Event) -> Result<()> {
        self.now = Time(self.now.0 + 1);
        self.replica.on(self.now, event);
        while let Some(action) = self.replica.poll() {
            self.perform(action)?;
        }
        self.replica.check_invariants().map_err(anyhow::Error::msg)
    }

    fn perform(&mut self, action: Action) -> Result<()> {
        match action {
            Action::Compute(Compute::Run { lane, step, plan, progress }) => {
                self.in_flight[usize::from(lane.0)] += 1;
                self.beside += u32::from(self.in_flight.iter().all(|steps| *steps > 0));
                Ok(self.opened.backend.submit(lane, step, plan, progress)?)
            }
            Action::Compute(Compute::Cancel { step, .. }) => {
                self.opened.backend.cancel(step);
                Ok(())
            }
            Action::Say(Envelope::Router(FromWorker::Token { leg, choice, token, ended, .. })) => {
                self.texts.entry((leg.request.0, choice.0)).or_default().push(Exact::new(&token, ended));
                Ok(())
            }
            Action::Say(Envelope::Router(FromWorker::Scored { leg, scores })) => {
                let prompt = self.open.get(&leg).context("an unknown leg is scored")?;
                take_scores(&mut self.texts, leg, prompt, &scores);
                Ok(())
            }
            Action::Say(Envelope::Over(leg)) => {
                self.open.remove(&leg);
                Ok(())
            }
            other => bail!("{other:?}"),
        }
    }
}

fn texts(config: &Config, lanes: &[LaneWork], requests: &[Request]) -> Result<Texts> {
    let mut worker = Worker::new(config, lanes, BLOCKS, PrefixCache::On)?;
    let texts = worker.run(requests)?;
    ensure!(lanes.len() == 1 || worker.beside > 5, "steps ran beside each other {} times", worker.beside);
    Ok(texts)
}

#[test]
fn two_lanes_give_the_bits_of_one_for_every_family() -> Result<()> {
    for name in ["qwen3", "llama-bf16", "mixtral"] {
        let base = config(&family(name));
        let requests = mix(384);
        let expected = texts(&base, ONE, &requests)?;
        for (step_tokens_max, sequences_max, steps_in_flight) in [(512, 32, 2), (16, 8, 2), (33, 5, 1)] {
            let config = Config { step_tokens_max, sequences_max, steps_in_flight, ..base.clone() };
            assert_equal(&expected, &texts(&config, TWO, &requests)?, &format!("{name}, {step_tokens_max} rows"));
        }
    }
    Ok(())
}

#[test]
fn ranks_and_formats_hold_with_two_lanes() -> Result<()> {
    let base = config(&demo());
    for (tp, pp) in [(2, 1), (1, 2)] {
        let config = Config { tp, pp, step_tokens_max: 64, ..base.clone() };
        let requests = mix(384);
        assert_equal(&texts(&config, ONE, &requests)?, &texts(&config, TWO, &requests)?, &format!("tp {tp} pp {pp}"));
    }
    Ok(())
}

/// In this pool, running sequences take the blocks of younger ones, also of prompts in the other lane.
#[test]
fn preemption_over_the_pool_changes_nothing() -> Result<()> {
    let params = |seed| SamplingParams { max_tokens: 90, logprobs: Some(2), seed, ..SamplingParams::default() };
    let requests: Vec<Request> =
        (0..8).map(|id| request(id, tokens(id, 100 + id as usize, 384), 1 + (id % 2) as u32, params(id))).collect();
    let config = Config { step_tokens_max: 64, ..config(&family("qwen3")) };
    let expected = Worker::new(&config, ONE, BLOCKS, PrefixCache::Off)?.run(&requests)?;
    let mut worker = Worker::new(&config, TWO, 30, PrefixCache::Off)?;
    assert_equal(&expected, &worker.run(&requests)?, "30 blocks");
    let load = worker.replica.load();
    ensure!(load.preemptions > 0, "nobody was preempted");
    assert_eq!((load.blocks_in_use, load.blocks_quarantined), (0, 0));
    Ok(())
}

#[test]
fn lanes_with_unequal_shares_give_the_same_bits() -> Result<()> {
    let config = Config { step_tokens_max: 32, ..config(&family("qwen3")) };
    let requests = mix(384);
    let expected = texts(&config, ONE, &requests)?;
    for (prefill, decode) in [(0.1, 0.9), (0.9, 0.1)] {
        let mut worker = Worker::new(&config, TWO, BLOCKS, PrefixCache::On)?;
        worker.opened.backend.set_shares(&[(LaneId(0), prefill), (LaneId(1), decode)]);
        assert_equal(&expected, &worker.run(&requests)?, &format!("shares {prefill} and {decode}"));
    }
    Ok(())
}

/// Each lane has an executor and both draw from one pool of threads, while the shares move at random.
#[test]
fn lanes_that_compute_at_the_same_time_give_the_same_bits() -> Result<()> {
    for (name, threads) in [("qwen3", 2), ("llama-bf16", 3), ("mixtral", 2)] {
        let config = Config { step_tokens_max: 33, threads, ..config(&family(name)) };
        let requests = mix(384);
        let expected = texts(&config, ONE, &requests)?;
        let mut worker = Worker::partitioned(&config)?;
        for round in 0..4 {
            worker.shares_move_with_seed = Some(round);
            assert_equal(&expected, &worker.run(&requests)?, &format!("{name}, round {round}"));
        }
        ensure!(worker.beside > 5, "steps ran beside each other {} times", worker.beside);
        let used = worker.opened.backend.used();
        ensure!(used.len() == 2 && used.iter().all(|(_, used)| !used.is_zero()), "{used:?}");
    }
    Ok(())
}

/// With one thread, or with several ranks, lanes take turns layer by layer.
#[test]
fn lanes_that_cannot_compute_at_the_same_time_take_turns() -> Result<()> {
    for (threads, tp) in [(1, 1), (2, 2)] {
        let config = Config { step_tokens_max: 33, threads, tp, ..config(&demo()) };
        let requests = mix(384);
        let expected = texts(&config, ONE, &requests)?;
        assert_equal(&expected, &Worker::partitioned(&config)?.run(&requests)?, &format!("{threads} threads, tp {tp}"));
    }
    Ok(())
}

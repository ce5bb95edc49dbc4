//! Several ranks, threads or processes, give the tokens and log-probabilities of one rank bit for bit; the end of a
//! rank ends the worker with its reason.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crossbeam_channel::{Receiver, unbounded};
use engine::replica::{Outbound, Outlet};
use engine::{
    Config, KvDtypeChoice, NoRankProgram, PrefixCacheChoice, RankProgram, RanksChoice, WeightsDtype, serve_rank,
    start_with_ranks,
};
use sched::message::{Envelope, FromWorker, ToWorker, Work};
use sched::replica::Event;
use sched::{Request, Role, SamplingParams};

use support::requests::{mix, request, tokens};
use support::workers::{Texts, Workers, assert_equal, config};
use support::{demo, family};

/// Environment variable of the processes of ranks.
const IS_RANK: &str = "BATON_TEST_IS_A_RANK";

/// Not a test: runs a rank if the environment says so.
#[test]
fn a_rank() -> Result<()> {
    if std::env::var_os(IS_RANK).is_some() {
        serve_rank()?;
    }
    Ok(())
}

/// Starts this test binary again as a rank.
struct Again;

impl RankProgram for Again {
    fn command(&self) -> std::io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["a_rank", "--exact", "--nocapture"]).env(IS_RANK, "1");
        Ok(command)
    }
}

fn with_ranks(base: &Config, tp: u32, pp: u32, ranks: RanksChoice) -> Config {
    Config { tp, pp, ranks, ..base.clone() }
}

fn texts(config: &Config, requests: &[Request]) -> Result<Texts> {
    let mut workers = Workers::aggregated_with(config, &Again)?;
    let texts = workers.run(requests)?;
    workers.settle()?;
    Ok(texts)
}

/// A few requests of every kind, for a model of `vocab` tokens.
fn some(vocab: u32) -> Vec<Request> {
    mix(vocab).into_iter().step_by(2).collect()
}

#[test]
fn ranks_of_every_family_are_one_model() -> Result<()> {
    // Plain; head norms and tied embeddings; learned positions with biases and ReLU; experts beside dense layers.
    for name in ["llama-bf16", "llama-f16", "qwen3", "opt", "qwen3moe"] {
        let base = Config { step_tokens_max: 64, ..config(&family(name)) };
        let requests = some(384);
        let expected = texts(&base, &requests)?;
        for (tp, pp) in [(2, 1), (1, 2), (2, 2)] {
            let found = texts(&with_ranks(&base, tp, pp, RanksChoice::Threads), &requests)?;
            assert_equal(&expected, &found, &format!("{name}: tp {tp}, pp {pp}"));
        }
    }
    Ok(())
}

#[test]
fn four_ranks_and_uneven_stages_are_one_model() -> Result<()> {
    let auto = KvDtypeChoice::Auto;
    let formats = [
        (WeightsDtype::Bf16, auto),
        (WeightsDtype::F32, auto),
        (WeightsDtype::Bf16, KvDtypeChoice::Int8),
        (WeightsDtype::Int8, auto),
    ];
    for (dtype, kv_dtype) in formats {
        let base = Config { dtype, kv_dtype, step_tokens_max: 128, ..config(&demo()) };
        let requests: Vec<Request> = some(2048).into_iter().step_by(2).collect();
        let expected = texts(&base, &requests)?;
        for (tp, pp) in [(4, 1), (4, 2), (2, 2), (1, 4)] {
            let found = texts(&with_ranks(&base, tp, pp, RanksChoice::Threads), &requests)?;
            assert_equal(&expected, &found, &format!("{dtype:?}, KV {kv_dtype:?}: tp {tp}, pp {pp}"));
        }
    }
    Ok(())
}

#[test]
fn processes_are_one_model_too() -> Result<()> {
    let base = Config { prefix_cache: PrefixCacheChoice::Off, ..config(&family("llama-bf16")) };
    let requests = some(384);
    let expected = texts(&base, &requests)?;
    for (tp, pp) in [(2, 1), (1, 2), (2, 2)] {
        let found = texts(&with_ranks(&base, tp, pp, RanksChoice::Processes), &requests)?;
        assert_equal(&expected, &found, &format!("processes: tp {tp}, pp {pp}"));
    }
    Ok(())
}

#[test]
fn experts_of_other_processes_are_counted() -> Result<()> {
    let base = with_ranks(&config(&family("qwen3moe")), 1, 2, RanksChoice::Processes);
    let mut workers = Workers::aggregated_with(&base, &Again)?;
    let params = SamplingParams { max_tokens: 5, ..SamplingParams::default() };
    workers.run(&[request(1, tokens(1, 20, 384), 1, params)])?;
    let counts = workers.first.expert_counts.as_ref().context("a model with experts counts")?;
    let rows = (*counts.rows).as_ref();
    let sums = rows.chunks(counts.experts).map(|layer| layer.iter().map(|rows| rows.load(Ordering::Relaxed)).sum());
    let sums: Vec<u64> = sums.collect();
    assert!(sums.len() == 2 && sums.iter().all(|sum| *sum > 0), "{sums:?}: the second layer is another process's");
    Ok(())
}

#[test]
fn prefill_and_decode_may_have_different_ranks() -> Result<()> {
    let base = config(&family("qwen3"));
    let requests = some(384);
    let expected = texts(&base, &requests)?;
    let (prefill, decode) =
        (with_ranks(&base, 2, 1, RanksChoice::Threads), with_ranks(&base, 1, 2, RanksChoice::Threads));
    let mut workers = Workers::disaggregated(&prefill, &decode)?;
    assert_equal(&expected, &workers.run(&requests)?, "prefill with tp 2, decode with pp 2");
    assert!(workers.bytes_moved > 0);
    workers.settle()
}

#[test]
fn impossible_ranks_are_refused_by_name() {
    let refused = |directory: &Path, tp: u32, pp: u32, ranks: RanksChoice| {
        let config = with_ranks(&config(directory), tp, pp, ranks);
        start_with_ranks(&config, Role::Aggregated, Box::new(Deaf), &NoRankProgram).err().map(|error| error.to_string())
    };
    let threads = RanksChoice::Threads;
    for (name, tp, pp, expected) in [
        ("llama", 4, 1, "engine.tp is 4, which does not divide the model's 2 kv heads"),
        ("llama", 8, 1, "engine.tp is 8, which does not divide the model's 4 attention heads"),
        ("llama", 3, 1, "engine.tp must be 1, 2, 4 or 8, found 3"),
        ("llama", 1, 3, "engine.pp must lie between 1 and the model's 2 layers, found 3"),
        ("mixtral", 2, 1, "engine.tp is 2, which needs an MLP width that is a multiple of 32; the model's is 48"),
    ] {
        assert_eq!(refused(&family(name), tp, pp, threads).as_deref(), Some(expected));
    }
    let found = refused(&family("llama"), 2, 1, RanksChoice::Processes);
    let expected = "engine.ranks is \"processes\": this program cannot start processes for ranks";
    assert_eq!(found.as_deref(), Some(expected));
}

struct Deaf;

impl Outlet for Deaf {
    fn put(&mut self, _: Outbound) {}

    fn flush(&mut self) {}
}

/// Passes every message to a test.
struct ToTest(crossbeam_channel::Sender<Outbound>);

impl Outlet for ToTest {
    fn put(&mut self, out: Outbound) {
        let _test_has_ended = self.0.send(out);
    }

    fn flush(&mut self) {}
}

/// A program whose processes the test can find.
struct Watched(Arc<Mutex<Vec<PathBuf>>>);

impl RankProgram for Watched {
    fn command(&self) -> std::io::Result<Command> {
        let directory = std::env::temp_dir().join(format!("baton-rank-{}-{:p}", std::process::id(), self));
        let mut names = self.0.lock().map_err(|_| std::io::Error::other("poisoned"))?;
        let name = directory.with_extension(names.len().to_string());
        names.push(name.clone());
        let mut command = Again.command()?;
        command.env("BATON_TEST_RANK_NAME", &name);
        Ok(command)
    }
}

/// Process whose environment contains `name`.
fn process_of(name: &Path) -> Result<u32> {
    let needle = format!("BATON_TEST_RANK_NAME={}", name.display());
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|variable| variable == needle.as_bytes()) {
            let id = path.file_name().and_then(|id| id.to_str()).context("a process has a number")?;
            return Ok(id.parse()?);
        }
    }
    bail!("no process is named {}", name.display())
}

fn stopped(said: &Receiver<Outbound>, patience: Duration) -> Result<(String, bool)> {
    let (began, mut failed_a_leg) = (Instant::now(), false);
    while began.elapsed() < patience {
        match said.recv_timeout(patience)? {
            Outbound::Say(Envelope::Router(FromWorker::Failed { .. })) => failed_a_leg = true,
            Outbound::Stopped(failure) => {
                return Ok((failure.context("it stopped without a reason")?.to_string(), failed_a_leg));
            }
            _ => {}
        }
    }
    bail!("the worker has not stopped within {patience:?}")
}

/// A rank that is killed, under load or idle, ends the worker with the rank's name, and never hangs it.
#[test]
fn a_killed_rank_stops_the_worker() -> Result<()> {
    for under_load in [true, false] {
        let names = Arc::new(Mutex::new(Vec::new()));
        let (out, said) = unbounded();
        let config = with_ranks(&config(&family("llama-bf16")), 2, 1, RanksChoice::Processes);
        let program = Watched(Arc::clone(&names));
        let worker = start_with_ranks(&config, Role::Aggregated, Box::new(ToTest(out)), &program)?;
        let name = names.lock().map_err(|_| anyhow::anyhow!("poisoned"))?[0].clone();
        let id = process_of(&name)?;
        if under_load {
            let params = SamplingParams { max_tokens: 400, ..SamplingParams::default() };
            let request = request(1, tokens(1, 50, 384), 1, params);
            worker.handle.send(Event::Router(ToWorker::Submit(request, Work::Whole)))?;
            let first = |out: &Outbound| matches!(out, Outbound::Say(Envelope::Router(FromWorker::Token { .. })));
            while !first(&said.recv_timeout(Duration::from_secs(60))?) {}
        }
        assert!(Command::new("kill").args(["-9", &id.to_string()]).status()?.success());
        let (reason, _) = stopped(&said, Duration::from_secs(20))?;
        assert!(reason.contains("rank 1 has ended: its process ended (signal: 9"), "{reason}");
        assert!(worker.join.join().is_ok());
    }
    Ok(())
}

/// When a worker stops in order, the processes of its ranks are gone, too.
#[test]
fn ranks_end_with_their_worker() -> Result<()> {
    let names = Arc::new(Mutex::new(Vec::new()));
    let config = with_ranks(&config(&family("llama-bf16")), 2, 2, RanksChoice::Processes);
    let program = Watched(Arc::clone(&names));
    let worker = start_with_ranks(&config, Role::Aggregated, Box::new(Deaf), &program)?;
    let names = names.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.clone();
    assert_eq!(names.len(), 3);
    names.iter().try_for_each(|name| process_of(name).map(drop))?;
    worker.handle.shutdown();
    assert!(worker.join.join().is_ok());
    assert!(names.iter().all(|name| process_of(name).is_err()));
    Ok(())
}

//! Soak: a deployment at four fifths of its capacity while clients hang up and workers are killed; knows no server's inside.
//!
//! `SOAK_SECONDS=60 cargo test --release -p baton-tests --test soak -- --ignored --nocapture`; without the variable it
//! takes ten minutes.

#[path = "soak/asks.rs"]
mod asks;
#[path = "soak/dice.rs"]
mod dice;
#[path = "soak/load.rs"]
mod load;
#[path = "soak/watch.rs"]
mod watch;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use baton_tests::deployment::{Deployment, signal};
use client::http::Client;

use asks::Form;
use dice::Dice;
use load::Known;
use watch::Samples;

const LENGTH: Duration = Duration::from_secs(600);
/// Shorter soaks end before memory has settled.
const FLAT_FROM: Duration = Duration::from_secs(300);
const SHARE_OF_CAPACITY: f64 = 0.8;
const KILL_EVERY: Duration = Duration::from_secs(20);
const RESTART_MAX: Duration = Duration::from_secs(30);
const WORKERS: [&str; 4] = ["prefill-0", "prefill-1", "decode-0", "decode-1"];
const DEPLOYMENT: [&str; 12] = [
    "--set",
    "serve.prefill_workers=2",
    "--set",
    "serve.decode_workers=2",
    // Two cores serve four workers.
    "--set",
    "engine.threads=1",
    "--set",
    "engine.kv_pool=64 MiB",
    "--set",
    load::DEADLINE_MS,
    "--set",
    "telemetry.log=warn",
];

#[test]
#[ignore = "ten minutes; .ci/long runs it"]
fn no_stream_is_wrong_none_hangs_and_nothing_grows() -> Result<()> {
    let length = length()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let deployment = Deployment::start(&DEPLOYMENT)?;
    let client = load::client(&deployment.address.to_string())?;
    let known = runtime.block_on(answered(&client))?;
    let capacity = runtime.block_on(load::capacity(&client, &known))?;
    println!(
        "{} requests; capacity {:.1} a second, {:.2} s each",
        known.len(),
        capacity.requests_per_s,
        capacity.mean_s
    );

    let over = AtomicBool::new(false);
    let (tally, samples, kills) = thread::scope(|scope| {
        let watching = scope.spawn(|| Samples::take(deployment.pid(), &over));
        let killing = scope.spawn(|| kill_by_and_by(&deployment, &over));
        let tally = runtime.block_on(load::run(&client, &known, capacity, SHARE_OF_CAPACITY, length));
        over.store(true, Ordering::Relaxed);
        let samples = watching.join().ok().context("the watcher panicked")??;
        let kills = killing.join().ok().context("the killer panicked")??;
        anyhow::Ok((tally?, samples, kills))
    })?;

    println!("{length:?}: {tally}\n{kills} workers killed; the router: {samples}");
    ensure!(tally.wrong == 0 && tally.hung == 0, "{tally}\n{}", deployment.log());
    ensure!(tally.failed() * 100 <= tally.sent, "more than one request of a hundred failed: {tally}");
    ensure!(tally.not_sent * 2 < tally.sent, "most of the time there was no place: {tally}");
    ensure!(kills + 1 >= length.as_secs() / KILL_EVERY.as_secs(), "only {kills} workers could be killed");
    if length >= FLAT_FROM {
        samples.are_flat()?;
    }
    deployment.wait_until_idle()
}

fn length() -> Result<Duration> {
    match std::env::var("SOAK_SECONDS") {
        Ok(seconds) => Ok(Duration::from_secs(seconds.parse().context("SOAK_SECONDS")?)),
        Err(_) => Ok(LENGTH),
    }
}

/// Learns what each request must answer, while nothing else happens; both forms must agree.
async fn answered(client: &Client) -> Result<Known> {
    let mut known = Vec::new();
    for ask in asks::asks() {
        let whole = ask.put(client, Form::Whole).await?;
        let streamed = ask.put(client, Form::Streamed).await?;
        ensure!(whole == streamed, "{ask:?}: whole {whole:?}, streamed {streamed:?}");
        known.push((ask, whole));
    }
    Ok(known.into())
}

/// Kills one worker after the other, and returns their number. `serve` starts each again.
fn kill_by_and_by(deployment: &Deployment, over: &AtomicBool) -> Result<u64> {
    let (mut dice, mut killed, mut next) = (Dice::new(2), BTreeSet::new(), Instant::now() + KILL_EVERY);
    while !over.load(Ordering::Relaxed) {
        if Instant::now() < next {
            thread::sleep(Duration::from_millis(100));
            continue;
        }
        next += KILL_EVERY;
        let worker = WORKERS[dice.below(WORKERS.len() as u64) as usize];
        let pid = deployment.child_pid(worker)?;
        ensure!(killed.insert(pid), "{worker} was not started again:\n{}", deployment.log());
        signal(pid, "KILL")?;
    }
    deployment.wait_until("the last worker runs again", RESTART_MAX, |deployment| {
        let pids = WORKERS.iter().map(|worker| deployment.child_pid(worker)).collect::<Result<Vec<_>>>()?;
        Ok(!pids.iter().any(|pid| killed.contains(pid)))
    })?;
    Ok(killed.len() as u64)
}

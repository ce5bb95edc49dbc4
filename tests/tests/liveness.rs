//! Tests of workers that stand still (SIGSTOP): they are noticed within a few beats, their streams go on elsewhere with
//! the same tokens, and they take part again when they are back.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use baton_tests::deployment::{Deployment, signal};
use baton_tests::http;
use serde_json::{Value, json};

const BEAT_MS: u64 = 400;
/// Beats of silence after which a worker is given up.
const BEATS_SILENT: u32 = 3;
const SOON: Duration = Duration::from_secs(30);
const STREAMS: u64 = 6;

/// Starts two workers of each role without maths: a request has the same tokens wherever it runs.
fn deployment() -> Result<Deployment> {
    let beats = [
        format!("router.session.alive_beat_ms={BEAT_MS}"),
        format!("decode.giver_beat_ms={BEAT_MS}"),
        format!("decode.giver_lost_ms={BEAT_MS}"),
        "decode.engine.modelled.decode_step_us=25000".to_owned(),
        "prefill.engine.modelled.prefill_token_us=1500".to_owned(),
        "serve.prefill_workers=2".to_owned(),
        "serve.decode_workers=2".to_owned(),
        "prefill.engine.kv_pool=33554432".to_owned(),
        "decode.engine.kv_pool=33554432".to_owned(),
    ];
    let mut arguments = vec!["--backend", "modelled", "--set", "engine.transport=tcp"];
    beats.iter().for_each(|setting| arguments.extend(["--set", setting]));
    Deployment::start(&arguments)
}

fn body(seed: u64) -> Value {
    let prompt: Vec<u64> = (0..120 + seed).map(|place| 300 + (seed * 97 + place * 31) % 900).collect();
    json!({
        "prompt": prompt, "max_tokens": 120, "seed": seed, "ignore_eos": true, "stream": true, "return_token_ids": true,
    })
}

/// Tokens of a stream, and its longest silence.
struct Heard {
    tokens: Vec<u64>,
    stall: Duration,
}

/// Runs streams in their own threads; announces each token.
fn streams(address: SocketAddr) -> (Receiver<()>, Vec<std::thread::JoinHandle<Result<Heard>>>) {
    let (announce, announced) = channel();
    let stream = |seed: u64| {
        let announce = announce.clone();
        std::thread::spawn(move || {
            let mut heard = Heard { tokens: Vec::new(), stall: Duration::ZERO };
            let mut events = http::stream(address, "/v1/completions", &body(seed))?;
            let mut last = Instant::now();
            while let Some(event) = events.next_data()? {
                anyhow::ensure!(event.get("error").is_none(), "{event}");
                heard.stall = heard.stall.max(last.elapsed());
                last = Instant::now();
                let ids = event["choices"][0]["token_ids"].as_array().cloned().unwrap_or_default();
                heard.tokens.extend(ids.iter().filter_map(Value::as_u64));
                let _nobody_counts_any_more = announce.send(());
            }
            Ok(heard)
        })
    };
    (announced, (0..STREAMS).map(stream).collect())
}

/// Stops `worker` during streams, waits for these, continues it and waits until it takes part again.
fn stop_and_go_on(worker: &str, after_tokens: usize) -> Result<()> {
    let deployment = deployment()?;
    let (_, undisturbed) = streams(deployment.address);
    let undisturbed = joined(undisturbed)?;
    let stall_max = stall_max(&undisturbed);
    let pid = deployment.child_pid(worker)?;
    let (announced, disturbed) = streams(deployment.address);
    (0..after_tokens).try_for_each(|_| announced.recv_timeout(SOON))?;
    signal(pid, "STOP")?;
    let disturbed = joined(disturbed);
    // New requests must avoid the worker too.
    let short = json!({"prompt": [400, 401, 402], "max_tokens": 5, "ignore_eos": true});
    let fresh = (0..8).map(|_| Ok(http::post(deployment.address, "/v1/completions", &short)?.status));
    let fresh = fresh.collect::<Result<Vec<u16>>>();
    signal(pid, "CONT")?;
    let disturbed = disturbed.with_context(|| deployment.log())?;
    for (seed, (before, after)) in undisturbed.iter().zip(&disturbed).enumerate() {
        assert_eq!(before.tokens, after.tokens, "stream {seed}: a pause, and never a wrong or repeated token");
        assert!(after.stall < stall_max, "stream {seed} stood still for {:?}:\n{}", after.stall, deployment.log());
    }
    assert_eq!(fresh?, [200; 8], "{}", deployment.log());
    let stalled = disturbed.iter().map(|heard| heard.stall).max();
    println!("{worker}: the longest pause of a stream was {stalled:?} of {stall_max:?}");
    deployment.wait_until("the worker takes part again", SOON, |deployment| {
        http::post(deployment.address, "/v1/completions", &short)?;
        Ok(deployment.metric("baton_worker_up", &[])? == 4.0)
    })?;
    // Every worker must give everything back, including the one that stood still.
    deployment.wait_until("gauges back to zero", SOON, |deployment| {
        let busy = deployment.metric("baton_kv_blocks", &["state=\"in_use\""])?
            + deployment.metric("baton_running_sequences", &[])?
            + deployment.metric("baton_held_legs", &[])?;
        Ok(busy == 0.0)
    })?;
    let (_, again) = streams(deployment.address);
    let again = joined(again)?;
    assert!(undisturbed.iter().zip(&again).all(|(before, after)| before.tokens == after.tokens));
    Ok(())
}

/// Longest silence to accept: the beats until a silent worker is given up, as many again for streams to start
/// elsewhere, and a share for this machine's speed, which the longest pause of undisturbed streams shows.
fn stall_max(undisturbed: &[Heard]) -> Duration {
    let longest = undisturbed.iter().map(|heard| heard.stall).max().unwrap_or_default();
    Duration::from_millis(BEAT_MS) * (2 * BEATS_SILENT) + 3 * longest
}

fn joined(streams: Vec<std::thread::JoinHandle<Result<Heard>>>) -> Result<Vec<Heard>> {
    streams.into_iter().map(|stream| stream.join().map_err(|_| anyhow!("a client panicked"))?).collect()
}

#[test]
fn a_decode_worker_that_stands_still_is_noticed_and_comes_back() -> Result<()> {
    stop_and_go_on("decode-0", 60)
}

#[test]
fn a_prefill_worker_that_stands_still_is_noticed_and_comes_back() -> Result<()> {
    stop_and_go_on("prefill-0", 1)
}

//! Tests of processes that are killed, hung up on and fed nonsense; nothing may leak or go wrong silently.

use std::time::Duration;

use anyhow::{Context, Result};
use baton_tests::deployment::{Deployment, signal};
use baton_tests::http;
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

fn long_stream() -> serde_json::Value {
    json!({"prompt": "Once upon a time", "max_tokens": 900, "ignore_eos": true, "temperature": 0, "stream": true, "return_token_ids": true})
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Worker,
    Rank,
}

/// Kills (a part of) `role` during a stream; the client must get the same tokens as without the kill, or a clean error.
fn kill_during_stream(arguments: &[&str], role: &str, victim: Victim) -> Result<()> {
    let deployment = Deployment::start(arguments)?;
    let undisturbed = http::stream(deployment.address, "/v1/completions", &long_stream())?.collect()?;
    let undisturbed: String = undisturbed.iter().filter_map(|e| e["choices"][0]["text"].as_str()).collect();
    let worker = deployment.child_pid(role)?;
    let ranks = children_of(worker)?;
    let victim = match victim {
        Victim::Worker => worker,
        Victim::Rank => *ranks.first().context("the worker has no rank to kill")?,
    };
    let mut events = http::stream(deployment.address, "/v1/completions", &long_stream())?;
    let mut text = String::new();
    let mut seen = 0;
    let ended_well = loop {
        match events.next_data()? {
            None => break true,
            Some(event) if event.get("error").is_some() => {
                assert!(event["error"]["code"].is_string(), "a clean error has a code: {event}");
                break false;
            }
            Some(event) => text.push_str(event["choices"][0]["text"].as_str().unwrap_or_default()),
        }
        seen += 1;
        if seen == 20 {
            signal(victim, "KILL")?;
        }
    };
    if ended_well {
        assert_eq!(text, undisturbed, "a resumed stream repeats and skips nothing");
    } else {
        assert!(undisturbed.starts_with(&text), "what was sent before the error was right");
    }
    deployment.wait_until("the process is restarted", SOON, |d| Ok(d.child_pid(role)? != worker))?;
    deployment.wait_until("its ranks are gone", SOON, |_| Ok(!ranks.iter().any(|rank| is_alive(*rank))))?;
    deployment.wait_until("the restarted process serves", SOON, |deployment| {
        let answer = http::post(deployment.address, "/v1/completions", &json!({"prompt": "Hello", "max_tokens": 8}))?;
        Ok(answer.status == 200)
    })?;
    deployment.wait_until_idle()
}

/// Returns the processes that `parent` has started and that have not ended.
fn children_of(parent: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if parent_of(pid) == Some(parent) {
            children.push(pid);
        }
    }
    Ok(children)
}

/// Returns the parent of a running process; state and parent are the first fields after the name in brackets.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    (fields.next()? != "Z").then(|| fields.next()?.parse().ok())?
}

fn is_alive(pid: u32) -> bool {
    parent_of(pid).is_some()
}

const TWO_PROCESSES: [&str; 4] = ["--set", "decode.engine.tp=2", "--set", "decode.engine.ranks=processes"];

#[test]
fn killing_decode_during_a_stream_is_survived() -> Result<()> {
    kill_during_stream(&[], "decode", Victim::Worker)
}

#[test]
fn killing_prefill_during_a_stream_is_survived() -> Result<()> {
    kill_during_stream(&[], "prefill", Victim::Worker)
}

/// Over ucx on one host only shared memory shows a peer's death, which must be noticed all the same.
#[test]
fn killing_either_role_over_ucx_is_survived() -> Result<()> {
    for role in ["prefill", "decode"] {
        kill_during_stream(&["--set", "engine.transport=ucx"], role, Victim::Worker)?;
    }
    Ok(())
}

#[test]
fn killing_a_rank_during_a_stream_is_survived() -> Result<()> {
    kill_during_stream(&TWO_PROCESSES, "decode", Victim::Rank)
}

#[test]
fn ranks_do_not_outlive_their_worker() -> Result<()> {
    kill_during_stream(&TWO_PROCESSES, "decode", Victim::Worker)
}

#[test]
fn five_hundred_requests_with_hang_ups_leave_nothing_behind() -> Result<()> {
    let deployment = Deployment::start(&[])?;
    let address = deployment.address;
    let workers: Vec<_> =
        (0..8u64).map(|worker| std::thread::spawn(move || hang_up_at_random(address, worker))).collect();
    for worker in workers {
        worker.join().map_err(|_| anyhow::anyhow!("a client thread panicked"))??;
    }
    deployment.wait_until_idle()
}

fn hang_up_at_random(address: std::net::SocketAddr, worker: u64) -> Result<()> {
    let mut state = worker * 7919 + 1;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..63 {
        let prompt: Vec<u64> = (0..1 + draw(200)).map(|_| 300 + draw(900)).collect();
        let body =
            json!({"prompt": prompt, "max_tokens": 1 + draw(60), "n": 1 + draw(3), "stream": true, "ignore_eos": true});
        let mut events = http::stream(address, "/v1/completions", &body)?;
        let keep = draw(40);
        for _ in 0..keep {
            if events.next_data()?.is_none() {
                break;
            }
        }
        // Dropping the events hangs up, in whatever stage the answer is.
    }
    Ok(())
}

#[test]
fn nonsense_gets_a_clear_error_and_harms_nobody() -> Result<()> {
    let deployment = Deployment::start(&[])?;
    let long: Vec<u32> = vec![300; 5_000];
    let cases = [
        ("/v1/completions", json!({}).to_string(), 400, "prompt"),
        ("/v1/completions", "{\"prompt\": ".to_string(), 400, "JSON"),
        ("/v1/completions", json!({"prompt": "x", "max_tokens": "many"}).to_string(), 400, "max_tokens"),
        ("/v1/completions", json!({"prompt": "x", "temperature": -1}).to_string(), 400, "temperature"),
        ("/v1/completions", json!({"prompt": [99_999_999]}).to_string(), 400, "99999999"),
        ("/v1/completions", json!({"prompt": long}).to_string(), 400, "maximum context length is"),
        ("/v1/completions", json!({"prompt": "x", "n": 100_000}).to_string(), 400, "n"),
        ("/v1/completions", json!({"prompt": "x", "model": "no-such-model"}).to_string(), 404, "no-such-model"),
        ("/v1/chat/completions", json!({"messages": []}).to_string(), 400, "messages"),
        ("/v1/chat/completions", json!({"messages": [{"role": "wizard", "content": "x"}]}).to_string(), 400, "role"),
        ("/v1/no/such/path", json!({}).to_string(), 404, "/v1/no/such/path"),
    ];
    for (path, body, status, named) in cases {
        let answer = http::post_text(deployment.address, path, &body)?;
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
        let error = &answer.json()?["error"];
        let message = error["message"].as_str().with_context(|| format!("{path}: {}", answer.body))?;
        assert!(message.contains(named), "{path}: {message:?} does not name {named:?}");
        assert!(error["code"].is_string() || error["code"].is_null(), "{error}");
        assert!(answer.headers.iter().any(|header| header.starts_with("x-request-id: ")), "{:?}", answer.headers);
    }
    let answer = http::post(deployment.address, "/v1/completions", &json!({"prompt": "Hello", "max_tokens": 4}))?;
    assert_eq!(answer.status, 200);
    deployment.wait_until_idle()
}

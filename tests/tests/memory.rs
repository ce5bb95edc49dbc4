//! Test of the memory of workers on one host: proportional set sizes against share of the weights and KV pool.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use baton_tests::deployment::{self, Deployment};
use baton_tests::{http, repository};
use serde_json::json;

/// Bytes of each worker's pool: small beside the weights, so that a second copy of these cannot hide in it.
const KV_BYTES: u64 = 64 << 20;
/// Further share of memory that a worker may take, for code, activations and transport.
const OVERHEAD_MAX: f64 = 0.10;
const ROLES: [&str; 2] = ["prefill", "decode"];

/// The workers map one packed copy of the weights; `smaps_rollup` reports each worker's proportional part.
#[test]
#[ignore = "makes a model of 1.1 billion parameters, 2.2 GB, and as much cache; .ci/long runs it"]
fn workers_of_a_host_share_the_weights() -> Result<()> {
    let scratch = deployment::binary()?.parent().context("where is baton?")?.join("memory-test");
    let model = model(&scratch)?;
    let cache = scratch.join("cache");
    let weights = std::fs::metadata(model.join("model.safetensors"))?.len();
    let keys = ROLES.map(|role| {
        let engine = format!("{role}.engine");
        [format!("{engine}.kv_pool={KV_BYTES}"), format!("{engine}.weights_cache={}", cache.display())]
    });
    let mut arguments = vec!["--model", model.to_str().context("a path that is not UTF-8")?];
    keys.iter().flatten().for_each(|key| arguments.extend(["--set", key]));
    let mut deployment = Deployment::start(&arguments)?;
    let prompt: Vec<u32> = (0..1500).map(|token| 300 + token % 1000).collect();
    let body = json!({"prompt": prompt, "max_tokens": 16, "ignore_eos": true, "temperature": 0});
    let answer = http::post(deployment.address, "/v1/completions", &body)?;
    ensure!(answer.status == 200, "{}\n{}", answer.body, deployment.log());
    let bound = (weights as f64 / ROLES.len() as f64 + KV_BYTES as f64) * (1.0 + OVERHEAD_MAX);
    for role in ROLES {
        let bytes = proportional_bytes(deployment.child_pid(role)?)?;
        println!("{role}: PSS {:.1} MB, at most {:.1} MB", bytes as f64 / 1e6, bound / 1e6);
        ensure!(bytes as f64 <= bound, "{role} takes {bytes} bytes, at most {bound:.0} are its share");
    }
    ensure!(deployment.stop()?.success(), "{}", deployment.log());
    Ok(())
}

/// Makes a directory with random weights of the 1.1B shape, once.
fn model(scratch: &Path) -> Result<PathBuf> {
    let model = scratch.join("1.1b");
    if model.join("complete").exists() {
        return Ok(model);
    }
    let status = Command::new(env!("CARGO"))
        .args(["run", "--release", "--offline", "-p", "engine", "--example", "random_model", "--"])
        .arg(&model)
        .arg("shape=1.1b")
        .current_dir(repository::root())
        .status()
        .context("cargo run")?;
    ensure!(status.success(), "random_model failed with {status}");
    std::fs::write(model.join("complete"), "")?;
    Ok(model)
}

/// Returns the bytes of a process's pages; shared pages are divided among the processes that map them.
fn proportional_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kilobytes =
        line.and_then(|rest| rest.split_whitespace().next()).with_context(|| format!("no Pss in {path}"))?;
    Ok(1024 * kilobytes.parse::<u64>()?)
}

//! The whole hand-off in one process: two replica threads, every transport, the same bits as one worker.

mod support;

use anyhow::Result;
use engine::{BackendKind, Config, KvDtypeChoice, TransportChoice};

use support::family;
use support::requests::mix;
use support::workers::{Workers, assert_equal, config};

const VOCAB: u32 = 384;

fn check(name: &str, prefill: &Config, decode: &Config) -> Result<()> {
    let requests = mix(VOCAB);
    let expected =
        Workers::aggregated(&Config { transport: TransportChoice::InProcess, ..prefill.clone() })?.run(&requests)?;
    let mut workers = Workers::disaggregated(prefill, decode)?;
    assert_equal(&expected, &workers.run(&requests)?, name);
    assert!(workers.bytes_moved > 0, "{name}: no bytes moved");
    let before = workers.bytes_moved;
    assert_equal(&expected, &workers.run(&requests)?, &format!("{name}, again"));
    assert!(workers.bytes_moved - before < before, "{name}: decode pulled what it had");
    workers.settle()
}

#[test]
fn every_family_in_process() -> Result<()> {
    for name in
        ["llama", "llama3rope", "mistral", "qwen2", "qwen3", "mixtral", "qwen3moe", "opt", "llama-f16", "llama-bf16"]
    {
        let base = config(&family(name));
        check(name, &base, &base)?;
    }
    Ok(())
}

/// Scales of int8 KV travel inside the tiles.
#[test]
fn int8_caches_in_process() -> Result<()> {
    for name in ["llama-bf16", "mistral"] {
        let base = Config { kv_dtype: KvDtypeChoice::Int8, ..config(&family(name)) };
        check(name, &base, &Config { step_tokens_max: 40, ..base.clone() })?;
    }
    Ok(())
}

#[test]
fn tight_pools_in_process() -> Result<()> {
    let base = config(&family("llama-bf16"));
    let prefill = Config { kv_pool: engine::KvPool::Blocks(60), step_tokens_max: 48, ..base.clone() };
    let decode = Config { kv_pool: engine::KvPool::Blocks(40), step_tokens_max: 40, ..base };
    check("tight pools", &prefill, &decode)
}

#[test]
fn over_tcp() -> Result<()> {
    let base = Config { transport: TransportChoice::Tcp, ..config(&family("llama-bf16")) };
    check("tcp", &base, &base)
}

#[test]
fn over_shared_memory() -> Result<()> {
    let base = Config { transport: TransportChoice::Shm, ..config(&family("llama-bf16")) };
    check("shm", &base, &base)
}

#[cfg(feature = "ucx")]
#[test]
fn over_ucx() -> Result<()> {
    let base = Config { transport: TransportChoice::Ucx, ..config(&family("llama-bf16")) };
    check("ucx", &base, &base)
}

#[test]
fn modelled_workers_hand_over_real_bytes() -> Result<()> {
    let base = Config { backend: BackendKind::Modelled, ..config(&family("llama-bf16")) };
    check("modelled", &base, &base)
}

//! The command line's promises: exit codes and messages that name what was wrong.

use std::net::TcpListener;
use std::process::Output;

use anyhow::{Context, Result};
use baton_tests::deployment::command;

fn baton(arguments: &[&str]) -> Result<Output> {
    command()?.args(arguments).output().with_context(|| format!("baton {arguments:?}"))
}

#[track_caller]
fn check(arguments: &[&str], code: i32, named: &str) -> Result<()> {
    let output = baton(arguments)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "baton {arguments:?}: {stderr}");
    assert!(stderr.contains(named), "baton {arguments:?}: {stderr:?} does not name {named:?}");
    Ok(())
}

#[test]
fn unknown_configuration_is_named() -> Result<()> {
    check(&["serve", "--set", "router.no_such_key=1"], 64, "no_such_key")?;
    check(&["serve", "--set", "nonsense"], 64, "nonsense")?;
    check(&["serve", "--config", "/no/such/file.toml"], 64, "/no/such/file.toml")?;
    let file = std::env::temp_dir().join(format!("baton-test-{}.toml", std::process::id()));
    std::fs::write(&file, "[router]\nlisten = 5\n")?;
    let path = file.to_string_lossy().into_owned();
    check(&["serve", "--config", &path], 64, "listen")?;
    check(&["serve", "--config", &path], 64, &path)?;
    Ok(std::fs::remove_file(&file)?)
}

#[test]
fn impossible_deployments_are_refused_before_anything_starts() -> Result<()> {
    check(&["serve", "--listen", "127.0.0.1:0", "--set", "serve.decode_workers=0"], 64, "serve.decode_workers")?;
    check(&["serve", "--listen", "127.0.0.1:0", "--set", "serve.prefill_workers=1000000"], 64, "serve.prefill_workers")
}

#[test]
fn workers_that_cannot_exchange_kv_are_refused() -> Result<()> {
    let f32_only_here = ["--set", "decode.engine.dtype=f32"];
    check(&[&["serve", "--listen", "127.0.0.1:0"][..], &f32_only_here[..]].concat(), 69, "KV cache cannot be moved")
}

#[test]
fn a_missing_or_broken_model_is_named() -> Result<()> {
    check(&["serve", "--model", "/no/such/model"], 66, "/no/such/model")?;
    let dir = std::env::temp_dir().join(format!("baton-broken-model-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let path = dir.to_string_lossy().into_owned();
    check(&["serve", "--model", &path], 66, "config.json")?;
    let fixture = baton_tests::repository::root().join("tests/fixtures/families/llama");
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixture.join(file), dir.join(file))?;
    }
    let config = std::fs::read_to_string(fixture.join("config.json"))?;
    std::fs::write(dir.join("config.json"), config.replace("LlamaForCausalLM", "GrandmotherForCausalLM"))?;
    check(&["serve", "--listen", "127.0.0.1:0", "--model", &path], 66, "GrandmotherForCausalLM")?;
    std::fs::write(dir.join("config.json"), config)?;
    check(&["serve", "--listen", "127.0.0.1:0", "--model", &path], 66, "safetensors")?;
    Ok(std::fs::remove_dir_all(&dir)?)
}

#[test]
fn a_port_in_use_is_named() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    check(&["serve", "--listen", &address], 69, &address)?;
    let said = baton(&["serve", "--listen", &address])?.stderr;
    let causes = String::from_utf8_lossy(&said).matches("in use").count();
    assert_eq!(causes, 1, "the cause is said once: {}", String::from_utf8_lossy(&said));
    Ok(())
}

#[test]
fn the_printed_configuration_is_a_configuration() -> Result<()> {
    let output = baton(&["config"])?;
    assert!(output.status.success());
    let file = std::env::temp_dir().join(format!("baton-defaults-{}.toml", std::process::id()));
    std::fs::write(&file, &output.stdout)?;
    let path = file.to_string_lossy().into_owned();
    let again = baton(&["config", "--config", &path])?;
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    Ok(std::fs::remove_file(&file)?)
}

//! Test of `baton verify` on the bundled model and a random-weight model of each family: not one bit may differ.

use anyhow::{Context, Result, ensure};
use baton_tests::deployment::command;
use baton_tests::repository;

fn verify(arguments: &[&str]) -> Result<()> {
    let output = command()?.arg("verify").args(arguments).output().context("baton verify")?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "baton verify {arguments:?}: {}\n{stdout}\n{stderr}", output.status);
    Ok(())
}

#[test]
fn the_bundled_model_is_exact() -> Result<()> {
    // Fewer prompts than the default: these take nine minutes on two cores without AVX-512. `.ci/long` takes more.
    verify(&["--prompts", "80"])
}

#[test]
fn each_family_is_exact() -> Result<()> {
    let families = repository::root().join("tests/fixtures/families");
    for family in ["llama", "llama3rope", "mistral", "qwen2", "qwen3", "mixtral", "qwen3moe", "opt"] {
        let model = families.join(family);
        verify(&["--model", &model.to_string_lossy(), "--prompts", "40"]).with_context(|| family.to_string())?;
    }
    Ok(())
}

#[test]
fn int8_is_exact_in_every_setup() -> Result<()> {
    verify(&["--formats", "int8/int8", "--prompts", "40"])
}

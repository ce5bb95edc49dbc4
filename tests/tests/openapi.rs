//! The description of the API beside what the router answers, tried by schemathesis; knows no field.
//!
//! `SCHEMATHESIS=PATH cargo test --release -p baton-tests --test openapi -- --ignored --nocapture`, with the program that
//! tests/openapi/requirements.txt names. `SCHEMATHESIS_SEED` and `SCHEMATHESIS_CASES` (per endpoint and phase) change the
//! cases.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use baton_tests::deployment::Deployment;
use baton_tests::tools_model::ToolsModel;
use baton_tests::{http, repository};

const KEY: &str = "a-key-of-strangers-who-try-everything";
/// Checks of schemathesis that say nothing here: rules between fields, such as that a named tool exists, are in no schema.
const NOT_SAID: &str = "positive_data_acceptance";
/// With fields left out, a body that was made wrong may be right.
const NOT_SAID_OF_FEWER: &str = "positive_data_acceptance,negative_data_rejection";

/// Bodies that are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bodies {
    /// As schemathesis makes them: most are refused at their first fault.
    AsMade,
    /// With few of the optional fields, so that more are served.
    WithFewer,
}

#[test]
#[ignore = "needs schemathesis and minutes; .ci/long runs it"]
fn the_description_holds_for_whatever_is_sent() -> Result<()> {
    for (mode, key) in [("disaggregated", None), ("aggregated", Some(KEY))] {
        let model = ToolsModel::new(mode)?;
        let folder = model.path().to_str().context("path")?;
        let mut arguments = vec!["--mode", mode, "--model", folder, "--max-model-len", "256"];
        arguments.extend(key.into_iter().flat_map(|key| ["--api-key", key]));
        let deployment = Deployment::start(&arguments)?;
        for bodies in [Bodies::AsMade, Bodies::WithFewer] {
            tried(&deployment, model.path(), key, bodies).with_context(|| format!("{mode}:\n{}", deployment.log()))?;
        }
        if key.is_none() {
            deployment.wait_until_idle()?;
        }
        ensure!(http::get(deployment.address, "/ready")?.status == 200, "not ready afterwards:\n{}", deployment.log());
    }
    Ok(())
}

/// Runs schemathesis, which fails if an answer is of another status, type or form than described, or a 5xx.
fn tried(deployment: &Deployment, place: &Path, key: Option<&str>, bodies: Bodies) -> Result<()> {
    let setting = |name: &str, usual: &str| std::env::var(name).unwrap_or_else(|_| usual.to_owned());
    let (seed, cases) = (setting("SCHEMATHESIS_SEED", "1"), setting("SCHEMATHESIS_CASES", "200"));
    let mut command = Command::new(setting("SCHEMATHESIS", "schemathesis"));
    command
        .args(["--no-color", "run", &format!("http://{}/openapi.json", deployment.address)])
        .args(["--seed", &seed, "--max-examples", &cases, "--phases", "coverage,fuzzing", "--workers", "1"])
        .args(["--generation-database", "none", "--request-timeout", "60", "--continue-on-failure", "--no-shrink"])
        // It leaves files where it runs.
        .current_dir(place)
        .env("PYTHONPATH", repository::root().join("tests/openapi"))
        .env("HOOKS_SEED", &seed)
        .env("NO_PROXY", "127.0.0.1")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    match bodies {
        Bodies::AsMade => command.args(["--exclude-checks", NOT_SAID]),
        Bodies::WithFewer => command.args(["--exclude-checks", NOT_SAID_OF_FEWER]).env("SCHEMATHESIS_HOOKS", "hooks"),
    };
    if let Some(key) = key {
        command.arg("--header").arg(format!("Authorization: Bearer {key}"));
    }
    let output = command.output().context("running schemathesis")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let summary = said.find("= SUMMARY =").map_or(&*said, |at| &said[at..]);
    println!("{bodies:?}, {}: {summary}", if key.is_some() { "with a key" } else { "without keys" });
    ensure!(output.status.success(), "{bodies:?}:\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

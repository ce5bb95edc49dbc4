//! Tests of `baton bench` against a real deployment: its report agrees with what the server counted.

use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use baton_tests::deployment::{Deployment, command};
use serde_json::Value;

/// Directory that is removed with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Result<Scratch> {
        let path = std::env::temp_dir().join(format!("baton-bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Scratch(path))
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn bench(arguments: &[&str]) -> Result<Output> {
    Ok(command()?.arg("bench").args(arguments).output()?)
}

fn number(report: &Value, pointer: &str) -> Result<f64> {
    report.pointer(pointer).and_then(Value::as_f64).with_context(|| format!("no number {pointer} in {report}"))
}

#[test]
fn the_report_agrees_with_the_counts_of_the_server() -> Result<()> {
    let deployment = Deployment::start(&["--backend", "modelled"])?;
    let scratch = Scratch::new("counts")?;
    let (json, html, records) =
        (scratch.file("report.json"), scratch.file("report.html"), scratch.file("records.jsonl"));
    let target = format!("http://{}/v1", deployment.address);
    let output = bench(
        &[
            &["--target", target.as_str(), "--rate", "20", "--limit", "60", "--input-tokens", "20..200"][..],
            &["--output-tokens", "1..12", "--warmup-requests", "10", "--slo", "chat=ttft_ms:60000,tpot_ms:60000"],
            &["--json", &json, "--html", &html, "--records", &records],
        ]
        .concat(),
    )?;
    let (said, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(0), "{said}\n{complaints}");
    for part in [
        "rows       60 read, 60 used",
        "requests   50 due, 50 ok, 0 failed; 10 of the warm-up apart",
        "TTFT",
        "(100.0 %",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json)?)?;
    assert_eq!((number(&report, "/schema")?, number(&report, "/targets/0/requests/ok")?), (1.0, 50.0));
    assert_eq!(number(&report, "/targets/0/attainment")?, 1.0);
    let latency = |name: &str| number(&report, &format!("/targets/0/latency/{name}"));
    assert!(latency("ttft_ms/p50")? <= latency("ttft_ms/p99")? && latency("ttft_ms/p50")? > 0.0);
    assert!(latency("e2e_ms/mean")? > latency("ttft_ms/mean")?);

    // The records have the warm-up, too: their tokens are those of the server.
    let lines = std::fs::read_to_string(&records)?;
    let lines: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(lines.len(), 60);
    let sum = |field: &str| lines.iter().filter_map(|line| line[field].as_f64()).sum::<f64>();
    let router = ["role=\"router\""];
    assert_eq!(sum("input_tokens"), deployment.metric("baton_prompt_tokens_total", &router)?);
    assert_eq!(sum("output_tokens"), deployment.metric("baton_generated_tokens_total", &router)?);
    assert_eq!(sum("output_tokens"), sum("output_tokens_asked"));
    let ok = deployment.metric("baton_requests_total", &["role=\"router\"", "outcome=\"ok\""])?;
    assert_eq!(ok, 60.0);
    assert!(std::fs::read_to_string(&html)?.contains("<svg"));
    Ok(())
}

#[test]
fn wrong_arguments_and_targets_are_told_apart() -> Result<()> {
    let scratch = Scratch::new("wrong")?;
    let trace = scratch.file("trace.jsonl");
    std::fs::write(&trace, "{\"timestamp\": 0, \"input_length\": 5, \"output_length\": 2}\n{\"timestamp\": 1}\n")?;
    let known = ["--target", "127.0.0.1:9", "--model", "m"];
    for (arguments, code, complaint) in [
        (&[][..], 64, "what to send? Give --rate, --concurrency, --sweep or --trace"),
        (&["--trace", &trace], 64, "trace.jsonl:2: input_length is missing"),
        (&["--rate", "1", "--slo", "a=ttft:5"], 64, "there is no target"),
        (&["--rate", "1", "--arrivals", "weibull"], 64, "expected constant, poisson or gamma:CV"),
        (&["--rate", "1", "--limit", "1", "--context-max", "10"], 64, "no request to send"),
        (&["--sweep"], 64, "give --slo"),
        (&["--rate", "50", "--limit", "3"], 1, "no request ended well"),
    ] {
        let output = bench(&[&known[..], arguments].concat())?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(complaint), "{arguments:?}: {said}");
    }
    let down = bench(&["--target", "127.0.0.1:9", "--rate", "1"])?;
    assert_eq!(down.status.code(), Some(69), "{}", String::from_utf8_lossy(&down.stderr));
    Ok(())
}

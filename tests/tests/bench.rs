//! Tests of `baton bench` against a real deployment: its report agrees with what the server counted and measured; TLS.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use baton_tests::deployment::{Deployment, command};
use baton_tests::repository;
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

/// Latencies of the generator and of the router over the same requests, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Means {
    ttft_ms: f64,
    tpot_ms: f64,
}

impl Means {
    fn agree_with(self, other: Means) -> bool {
        let agree = |ours: f64, theirs: f64| (ours - theirs).abs() <= (0.02 * theirs).max(1.0);
        agree(self.ttft_ms, other.ttft_ms) && agree(self.tpot_ms, other.tpot_ms)
    }
}

/// Sum in seconds and count of one of the router's histograms.
fn summed(deployment: &Deployment, histogram: &str) -> Result<(f64, f64)> {
    let of = |part: &str| deployment.metric(&format!("{histogram}_{part}"), &["role=\"router\""]);
    Ok((of("sum")?, of("count")?))
}

/// Sends `requests` requests; returns what the generator and what the router say of them.
fn measured_by_both(deployment: &Deployment, requests: u32, json: &str) -> Result<(Means, Means)> {
    const HISTOGRAMS: [&str; 2] = ["baton_ttft_seconds", "baton_tpot_seconds"];
    let before = HISTOGRAMS.map(|histogram| summed(deployment, histogram).unwrap_or_default());
    let (target, limit) = (deployment.address.to_string(), requests.to_string());
    let workload = ["--concurrency", "4", "--limit", &limit, "--input-tokens", "64", "--output-tokens", "12"];
    // A token may bring no text yet, as with half a letter. With token ids the generator sees that it has come, all the same.
    let ids = ["--extra", r#"{"return_token_ids": true}"#];
    let output = bench(&[&["--target", target.as_str(), "--json", json][..], &ids, &workload].concat())?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // A request counts when it has ended at the router, which may be after its client has read the last byte.
    let counted = |deployment: &Deployment, histogram, (_, count): (f64, f64)| -> Result<bool> {
        Ok(summed(deployment, histogram)?.1 == count + f64::from(requests))
    };
    deployment.wait_until("every request is counted", Duration::from_secs(10), |deployment| {
        Ok(counted(deployment, HISTOGRAMS[0], before[0])? && counted(deployment, HISTOGRAMS[1], before[1])?)
    })?;
    let router_ms = |place: usize| -> Result<f64> {
        let (sum_s, _) = summed(deployment, HISTOGRAMS[place])?;
        Ok((sum_s - before[place].0) * 1e3 / f64::from(requests))
    };
    let report: Value = serde_json::from_str(&std::fs::read_to_string(json)?)?;
    let latency = |name: &str| number(&report, &format!("/targets/0/latency/{name}/mean"));
    let generator = Means { ttft_ms: latency("ttft_ms")?, tpot_ms: latency("tpot_ms")? };
    Ok((generator, Means { ttft_ms: router_ms(0)?, tpot_ms: router_ms(1)? }))
}

/// The router's time to the first token runs from the arrival of the request's head to the token that is ready to be
/// written. The generator's runs from before it opens its connection until it has read the event. Between the two lie
/// the connection, the way of the request and that of the event: two wake-ups and some system calls each, below half a
/// millisecond on an idle machine. The gap is the same for every token, so it cancels out in the time per token, which
/// is (last - first) / (n - 1) on both sides. The modelled times are long, so that the tolerance is larger than what a
/// busy machine adds; a machine that is too busy once is asked again.
#[test]
fn latencies_agree_with_the_clock_of_the_server() -> Result<()> {
    let times = ["engine.modelled.prefill_step_us=500000", "engine.modelled.decode_step_us=50000"];
    let deployment = Deployment::start(&["--backend", "modelled", "--set", times[0], "--set", times[1]])?;
    let scratch = Scratch::new("agreement")?;
    let mut seen = Vec::new();
    for attempt in 0..3 {
        let (generator, router) = measured_by_both(&deployment, 16, &scratch.file(&format!("{attempt}.json")))?;
        ensure!(router.ttft_ms > 500.0 && router.tpot_ms > 50.0, "the model is not in use: {router:?}");
        eprintln!("generator {generator:?}, router {router:?}");
        if generator.agree_with(router) {
            return Ok(());
        }
        seen.push((generator, router));
    }
    anyhow::bail!("generator and router never agreed within 2 % or 1 ms: {seen:?}")
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
        (&["--rate", "0"], 64, "expected requests per second above 0"),
        (&["--rate", "1", "--extra", r#"{"n": 3}"#], 64, "n must be 1, but is 3"),
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

#[test]
fn servers_with_tls_are_reached_and_others_are_told_apart() -> Result<()> {
    let file = |name: &str| repository::root().join("node/tests/support/certificates").join(name).display().to_string();
    let (one, two) = (file("one.pem"), file("two.pem"));
    let files = [format!("router.tls.cert_file={one}"), format!("router.tls.key_file={}", file("one.key"))];
    let deployment = Deployment::start(&["--backend", "modelled", "--set", &files[0], "--set", &files[1]])?;
    let port = deployment.address.port();
    assert!(deployment.log().contains(&format!("ready  https://127.0.0.1:{port}  ")), "{}", deployment.log());
    // The certificates are for the name localhost.
    let (secure, other) = (format!("https://localhost:{port}/v1"), format!("https://127.0.0.1:{port}"));
    let plain = format!("http://127.0.0.1:{port}");
    for (arguments, code, said) in [
        (&["--target", secure.as_str(), "--ca", &one][..], 0, "sending 4 requests to https://localhost:"),
        (&["--target", &secure, "--ca", &two], 69, "--ca FILE names whom to trust"),
        (&["--target", &other, "--ca", &one], 69, "its certificate is for another name"),
        (&["--target", &plain, "--ca", &one], 64, "--ca is for https:// targets, and there is none"),
        (&["--target", &plain], 1, "This port speaks HTTPS and not plain HTTP."),
        (&["--target", &secure, "--ca", "/no/such/file.pem"], 69, "/no/such/file.pem"),
    ] {
        let output = bench(&[arguments, &["--concurrency", "2", "--limit", "4", "--output-tokens", "3"]].concat())?;
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {complaints}");
        assert!(complaints.contains(said), "{arguments:?}: {complaints}");
    }
    // A conversation trusts whom the system trusts, and the system's choice can be changed.
    let chat = || -> Result<_> {
        let mut chat = command()?;
        chat.args(["chat", "--target", &secure, "--max-tokens", "2", "Hello"]).stdin(Stdio::null());
        Ok(chat)
    };
    let stranger = chat()?.output()?;
    assert_eq!(stranger.status.code(), Some(69), "{}", String::from_utf8_lossy(&stranger.stderr));
    let known = chat()?.env("SSL_CERT_FILE", &one).output()?;
    assert!(known.status.success(), "{}", String::from_utf8_lossy(&known.stderr));
    Ok(())
}

//! Tests of a running deployment's `/metrics` against its documentation and the rules of Prometheus' text format.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use baton_tests::deployment::{Deployment, signal};
use baton_tests::{http, repository};
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Described {
    kind: String,
    help: String,
}

/// Contents of a text in Prometheus' format, after its rules were checked.
#[derive(Debug, Default)]
struct Exposed {
    families: BTreeMap<String, Described>,
    /// Labels of every sample, by family.
    labels: BTreeMap<String, BTreeSet<String>>,
    samples: BTreeSet<String>,
}

impl Exposed {
    /// Checks that every family is declared once before its samples, which stand together, without repeated series.
    fn parse(text: &str) -> Result<Exposed> {
        let mut exposed = Exposed::default();
        let mut now = String::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').with_context(|| format!("no help: {line}"))?;
                ensure!(!exposed.families.contains_key(name), "{name} is declared twice");
                now = name.to_owned();
                exposed.families.insert(now.clone(), Described { kind: String::new(), help: help.to_owned() });
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').with_context(|| format!("no type: {line}"))?;
                ensure!(name == now, "the type of {name} stands apart from its help");
                let family = exposed.families.get_mut(name).with_context(|| format!("{name} has no help"))?;
                kind.clone_into(&mut family.kind);
            } else {
                exposed.sample(&now, line)?;
            }
        }
        Ok(exposed)
    }

    fn sample(&mut self, family: &str, line: &str) -> Result<()> {
        let (series, value) = line.rsplit_once(' ').with_context(|| format!("no value: {line}"))?;
        value.parse::<f64>().with_context(|| format!("no number: {line}"))?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let kind = self.families.get(family).map(|family| family.kind.as_str());
        let suffixes: &[&str] = if kind == Some("histogram") { &["_bucket", "_sum", "_count"] } else { &[""] };
        ensure!(suffixes.iter().any(|suffix| name == format!("{family}{suffix}")), "{line} stands among {family}");
        ensure!(kind != Some("counter") || name.ends_with("_total"), "{name} is a counter without _total");
        ensure!(kind == Some("counter") || !name.ends_with("_total"), "{name} is no counter");
        ensure!(self.samples.insert(series.to_owned()), "{series} is there twice");
        let labels =
            labels.trim_end_matches('}').split("\",").filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        self.labels.entry(family.to_owned()).or_default().extend(labels);
        Ok(())
    }
}

/// Returns the table of docs/metrics.md: kind, help and labels of every metric.
fn documented() -> Result<BTreeMap<String, (Described, BTreeSet<String>)>> {
    let page = std::fs::read_to_string(repository::root().join("docs/metrics.md"))?;
    let mut table = BTreeMap::new();
    for row in page.lines().filter(|line| line.starts_with("| `baton_")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, labels, help] = cells.as_slice() else { anyhow::bail!("not a row: {row}") };
        let labels = labels.split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
        let described = Described { kind: (*kind).to_owned(), help: help.trim_end_matches(" |").to_owned() };
        table.insert(name.trim_matches('`').to_owned(), (described, labels));
    }
    Ok(table)
}

/// Metrics that appear only with another model, with two lanes, with keys or certificates, or in another build.
const RARE: &[&str] = &[
    "baton_expert_tokens_total",
    "baton_share_ratio",
    "baton_lane_used_microseconds_total",
    "baton_share_decisions_total",
    "baton_share_switches_total",
    "baton_share_switch_seconds",
    "baton_share_latency_seconds",
    "baton_share_window_attainment_ratio",
    "baton_key_refused_total",
    "baton_key_requests_total",
    "baton_key_tokens_total",
    "baton_reloads_total",
    "baton_traces_dropped_total",
];

fn ask(deployment: &Deployment, tokens: u32) -> Result<()> {
    let body = json!({"prompt": "Hello there", "max_tokens": tokens, "ignore_eos": true, "stream": true});
    http::stream(deployment.address, "/v1/completions", &body)?.collect().map(drop)
}

#[test]
fn what_is_exported_is_what_is_documented() -> Result<()> {
    let deployment = Deployment::start(&[])?;
    ask(&deployment, 8)?;
    let exposed = Exposed::parse(&http::get(deployment.address, "/metrics")?.body)?;
    let documented = documented()?;
    for (name, family) in exposed.families.iter().filter(|(name, _)| name.starts_with("baton_")) {
        let (described, labels) = documented.get(name).with_context(|| format!("{name} is not documented"))?;
        assert_eq!(family, described, "{name}");
        let known = ["role", "worker", "le"].map(str::to_owned).into_iter().chain(labels.iter().cloned()).collect();
        assert!(exposed.labels[name].is_subset(&known), "{name}: {:?}", exposed.labels[name]);
        assert!(labels.is_subset(&exposed.labels[name]), "{name}: {:?}", exposed.labels[name]);
        assert!(exposed.labels[name].contains("role"), "{name}");
    }
    let missing: Vec<&String> = documented.keys().filter(|name| !exposed.families.contains_key(*name)).collect();
    assert!(missing.iter().all(|name| RARE.contains(&name.as_str())), "{missing:?}");
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_threads"] {
        let of_all = ["worker=\"prefill-0\"", "worker=\"decode-0\"", "role=\"router\""];
        for who in of_all {
            assert!(deployment.metric(name, &[who])? > 0.0, "{name} of {who}");
        }
    }
    Ok(())
}

#[test]
fn a_worker_has_one_name_everywhere_and_its_series_end_with_it() -> Result<()> {
    let deployment = Deployment::start(&[])?;
    ask(&deployment, 4)?;
    let speed = "baton_kv_transfer_bytes_per_second";
    assert!(deployment.metric(speed, &["worker=\"decode-0\"", "peer=\"prefill-0\""])? > 0.0);
    for worker in ["prefill-0", "decode-0"] {
        assert_eq!(deployment.metric("baton_worker_up", &[&format!("worker=\"{worker}\"")])?, 1.0);
    }
    let before = deployment.child_pid("prefill")?;
    signal(before, "KILL")?;
    deployment.wait_until("it is started again", SOON, |d| Ok(d.child_pid("prefill")? != before))?;
    deployment.wait_until("it serves again", SOON, |d| Ok(ask(d, 4).is_ok() && d.metric(speed, &[])? > 0.0))?;
    let text = http::get(deployment.address, "/metrics")?.body;
    Exposed::parse(&text)?;
    let pairs: Vec<&str> = text.lines().filter(|line| line.starts_with(speed)).collect();
    assert_eq!(pairs.len(), 1, "the pair that is gone has left nothing: {pairs:?}");
    let ups = text.lines().filter(|line| line.starts_with("baton_worker_up{")).count();
    assert_eq!(ups, 2, "{text}");
    let log = deployment.log();
    assert!(log.contains("worker=\"prefill-0\""), "logs name it, too: {log}");
    assert!(!log.contains("inst1") && !text.contains("\"inst"), "no number of 39 digits: {log}");
    Ok(())
}

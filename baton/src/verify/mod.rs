//! `baton verify`: the same prompts through every mode, transport and shape; not one bit may differ.

mod outcome;
mod prompts;
mod setups;

use std::future::Future;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use node::telemetry::Metrics;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::bundled;
use crate::config::{BatonConfig, Mode};
use crate::http::Client;
use crate::serve::{Deployment, Narrator};
use outcome::{Answer, Difference};
use prompts::Bounds;
use setups::Setup;

/// What to verify.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// Directory of a Hugging Face model; the bundled one if not given.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Only this mode against the baseline.
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// How many prompts.
    #[arg(long, default_value = "200")]
    prompts: NonZeroUsize,
    /// Change one value of the configuration for every setup; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

/// Differences that are printed one by one; more are only counted.
const DIFFERENCES_SHOWN: usize = 5;

/// Runs every setup and compares each with the first, unless it is asked to stop.
pub async fn run(arguments: VerifyArgs, shutdown: impl Future<Output = ()>) -> Result<()> {
    tokio::select! {
        // What is dropped here takes its processes and files with it.
        () = shutdown => bail!("interrupted"),
        outcome = run_setups(arguments) => outcome,
    }
}

async fn run_setups(arguments: VerifyArgs) -> Result<()> {
    node::telemetry::log_to_stderr("warn")?;
    let metrics = Metrics::install()?;
    let model = match &arguments.model {
        Some(model) => model.clone(),
        None => bundled::directory()?,
    };
    router::text::ModelText::load(&model)?;
    let bounds = bounds_of(&model)?;
    let requests: Arc<[Value]> = prompts::requests(arguments.prompts.get(), bounds).into();
    println!("{} requests on {}", requests.len(), model.display());
    println!("{}", Row::HEADER);
    let mut baseline: Option<Vec<Answer>> = None;
    let mut differing = 0;
    for setup in setups::all().iter().filter(|setup| setup.is_wanted(arguments.mode)) {
        let config = setup.config(&model, &arguments.settings)?;
        if let Some(reason) = setup.unfit(&config, &model)? {
            println!("{:<39} left out: {reason}", setup.name);
            continue;
        }
        let row = run_setup(setup, config, metrics.clone(), Arc::clone(&requests)).await;
        let (mut row, answers) = row.with_context(|| format!("in setup {}", setup.name))?;
        match &baseline {
            None => row.verdict = "baseline".to_string(),
            Some(baseline) => {
                let differences = outcome::compare(baseline, &answers);
                row.verdict = outcome::verdict(&differences);
                differing += differences.len();
                println!("{row}");
                show(&differences);
                continue;
            }
        }
        println!("{row}");
        baseline = Some(answers);
    }
    ensure!(differing == 0, "{differing} choices differ from the baseline");
    println!("bit-equal: every token and every log-probability, in every setup");
    Ok(())
}

async fn run_setup(
    setup: &Setup,
    config: BatonConfig,
    metrics: Metrics,
    requests: Arc<[Value]>,
) -> Result<(Row, Vec<Answer>)> {
    let deployment = Deployment::start(&config, metrics, Narrator::Silent).await?;
    let start = Instant::now();
    let answers = send_all(&deployment, requests, setup.concurrency).await;
    let elapsed = start.elapsed();
    let metrics = Client::new(&deployment.address.to_string())?.get("/metrics").await;
    deployment.stop().await?;
    let answers = answers?;
    let (_, metrics) = metrics?;
    let moved_bytes = sum_of(&metrics, "baton_kv_transfer_bytes_total");
    let preemptions = sum_of(&metrics, "baton_preemptions_total");
    if setup.moves_kv() && moved_bytes == 0 {
        bail!("no KV byte was moved: this setup does not show what it is for");
    }
    let tokens = answers.iter().map(Answer::tokens).sum();
    let row = Row { name: setup.name, tokens, moved_bytes, preemptions, elapsed, verdict: String::new() };
    Ok((row, answers))
}

/// Sends every request, `concurrency` at a time, and returns the answers in the order of the requests.
async fn send_all(deployment: &Deployment, requests: Arc<[Value]>, concurrency: usize) -> Result<Vec<Answer>> {
    let client = Client::new(&deployment.address.to_string())?;
    let next = Arc::new(AtomicUsize::new(0));
    let mut senders = JoinSet::new();
    for _ in 0..concurrency {
        let (client, next, requests) = (client.clone(), Arc::clone(&next), Arc::clone(&requests));
        senders.spawn(async move {
            let mut answers = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(request) = requests.get(index) else { return anyhow::Ok(answers) };
                let answer = client.post("/v1/completions", request).await;
                let answer = answer.with_context(|| format!("request {index}"))?;
                answers.push((index, Answer::of(&answer).with_context(|| format!("answer {index}: {answer}"))?));
            }
        });
    }
    let mut answers = Vec::with_capacity(requests.len());
    while let Some(sent) = senders.join_next().await {
        answers.extend(sent??);
    }
    answers.sort_by_key(|(index, _)| *index);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

/// The sum of a counter's series over all processes.
fn sum_of(metrics: &str, name: &str) -> u64 {
    let series = metrics.lines().filter(|line| line.starts_with(name));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

fn bounds_of(model: &std::path::Path) -> Result<Bounds> {
    let path = model.join("config.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let config: Value = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    let number = |key: &str| {
        let value = config[key].as_u64().and_then(|value| u32::try_from(value).ok());
        value.with_context(|| format!("{}: {key} is not a number", path.display()))
    };
    Ok(Bounds { vocab: number("vocab_size")?, context_max: number("max_position_embeddings")? })
}

fn show(differences: &[Difference]) {
    for difference in differences.iter().take(DIFFERENCES_SHOWN) {
        println!("    {difference}");
    }
}

/// One line of the table.
struct Row {
    name: &'static str,
    tokens: usize,
    moved_bytes: u64,
    preemptions: u64,
    elapsed: Duration,
    verdict: String,
}

impl Row {
    const HEADER: &str =
        "setup                                     tokens   KV moved  preempted  seconds  against the baseline";
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let moved_mb = self.moved_bytes as f64 / 1e6;
        let seconds = self.elapsed.as_secs_f64();
        let Row { name, tokens, preemptions, verdict, .. } = self;
        write!(f, "{name:<39} {tokens:>8} {moved_mb:>7.1} MB {preemptions:>10} {seconds:>8.1}  {verdict}")
    }
}

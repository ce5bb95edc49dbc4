//! `baton verify`: sends the same prompts through every mode, transport and shape; not one bit may differ.

mod formats;
mod outcome;
mod prompts;
mod setups;
mod shares;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use client::http::Client;
use node::drain::Cause;
use node::telemetry::{Metrics, RequestLog};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::bundled;
use crate::config::{BatonConfig, Mode, TelemetryConfig};
use crate::ending::Ending;
use crate::serve::{Deployment, Narrator};
use crate::terminal::{OutputError, say};
use formats::{Format, Formats};
use outcome::{Answer, Difference};
use prompts::Bounds;
use setups::{Setup, Shares};

/// What to verify.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// Directory of a Hugging Face model; the bundled one if not given.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Only this mode against the baseline.
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Number formats of weights and of keys and values: `configured`, `all`, or pairs such as `bf16/int8`.
    #[arg(long, default_value = "configured", value_name = "PAIRS")]
    formats: Formats,
    /// How many prompts.
    #[arg(long, default_value = "200")]
    prompts: NonZeroUsize,
    /// Change one value of the configuration for every setup; may be repeated. What a setup is named after stays as it is.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

/// Moves of shares below which a setup says nothing about them.
const SHARE_MOVES_MIN: u64 = 3;
/// Differences that are printed one by one; further ones are only counted.
const DIFFERENCES_SHOWN: usize = 5;

/// Runs every setup and compares each with the first, unless it is asked to stop.
pub async fn run(arguments: VerifyArgs, ending: &Ending) -> Result<()> {
    tokio::select! {
        // Dropping the other branch ends its processes and removes its files.
        _ = ending.asked() => bail!("interrupted"),
        outcome = run_setups(arguments, ending) => outcome,
    }
}

async fn run_setups(arguments: VerifyArgs, ending: &Ending) -> Result<()> {
    TelemetryConfig { log: "warn".to_owned(), ..TelemetryConfig::default() }.start("verify", RequestLog::Auto)?;
    let metrics = Metrics::install("router")?;
    let bundled = if arguments.model.is_none() { Some(bundled::lay_out()?) } else { None };
    let model = bundled.as_ref().map(|bundled| bundled.path.clone()).or(arguments.model.clone()).unwrap_or_default();
    router::text::ModelText::load(&model)?;
    let bounds = bounds_of(&model)?;
    let requests: Arc<[Value]> = prompts::requests(arguments.prompts.get(), bounds).into();
    say(format_args!("{} requests on {}", requests.len(), model.display()))?;
    let (mut differing, mut compared) = (0, Compared::default());
    for format in arguments.formats.iter() {
        say(format)?;
        say(Row::HEADER)?;
        let run = Run { arguments: &arguments, model: &model, metrics: &metrics, requests: &requests, ending };
        differing += run.every_setup(format, &mut compared).await.with_context(|| format!("with {format}"))?;
    }
    ensure!(differing == 0, "{differing} choices differ from their baseline");
    let Compared { setups, left_out } = compared;
    ensure!(setups > 0, "nothing was compared: {left_out} setups were left out");
    Ok(say(format_args!("bit-equal: every token and every log-probability in {setups} setups; {left_out} left out"))?)
}

/// Numbers of setups compared with their baseline and left out.
#[derive(Debug, Default)]
struct Compared {
    setups: usize,
    left_out: usize,
}

struct Run<'a> {
    arguments: &'a VerifyArgs,
    model: &'a Path,
    metrics: &'a Metrics,
    requests: &'a Arc<[Value]>,
    ending: &'a Ending,
}

impl Run<'_> {
    /// Compares every setup with the first, for one pair of formats; returns the number of choices that differ.
    async fn every_setup(&self, format: &Format, compared: &mut Compared) -> Result<usize> {
        let settings = [format.settings(), self.arguments.settings.clone()].concat();
        let mut baseline: Option<Vec<Answer>> = None;
        let mut differing = 0;
        for setup in setups::all().iter().filter(|setup| setup.is_wanted(self.arguments.mode)) {
            let config = setup.config(self.model, &settings)?;
            if let Some(reason) = setup.unfit(&config, self.model)? {
                ensure!(baseline.is_some(), "the baseline cannot run: {reason}");
                say(format_args!("{:<39} left out: {reason}", setup.name))?;
                compared.left_out += 1;
                continue;
            }
            let row = run_setup(setup, config, self).await;
            let (mut row, answers) = row.with_context(|| format!("in setup {}", setup.name))?;
            let differences = baseline.as_ref().map(|baseline| outcome::compare(baseline, &answers));
            row.verdict = differences.as_ref().map_or("baseline".to_string(), |found| outcome::verdict(found));
            if setup.preempts() && row.preemptions == 0 {
                row.verdict.push_str("; no request was preempted, as all had room: of preemption this shows nothing");
            }
            say(&row)?;
            compared.setups += usize::from(baseline.is_some());
            let differences = differences.unwrap_or_default();
            show(&differences)?;
            differing += differences.len();
            baseline.get_or_insert(answers);
        }
        Ok(differing)
    }
}

async fn run_setup(setup: &Setup, config: BatonConfig, run: &Run<'_>) -> Result<(Row, Vec<Answer>)> {
    let deployment = Deployment::start(&config, run.metrics.clone(), Narrator::Silent, run.ending).await?;
    let start = Instant::now();
    let answers = match setup.shares {
        Shares::Configured => send_all(&deployment, Arc::clone(run.requests), setup.concurrency).await,
        Shares::Moving => tokio::select! {
            answers = send_all(&deployment, Arc::clone(run.requests), setup.concurrency) => answers,
            moved = shares::keep_moving(&deployment.admin_addresses) => match moved? {},
        },
    };
    let elapsed = start.elapsed();
    let metrics = Client::new(&deployment.address.to_string())?.get("/metrics").await;
    deployment.stop(Cause::Interrupted).await?;
    let answers = answers?;
    let metrics = metrics?.text();
    let moved_bytes = sum_of(&metrics, "baton_kv_transfer_bytes_total");
    let preemptions = sum_of(&metrics, "baton_preemptions_total");
    let retries = sum_of(&metrics, "baton_retries_total");
    if setup.moves_kv() && moved_bytes == 0 {
        bail!("no KV byte was moved: this setup does not show what it is for");
    }
    let moves = sum_of(&metrics, "baton_share_switches_total");
    if setup.shares == Shares::Moving && moves < SHARE_MOVES_MIN {
        bail!("shares moved {moves} times only: this setup does not show what it is for");
    }
    ensure!(retries == 0, "{retries} attempts were repeated, though nothing was made to fail");
    let tokens = answers.iter().map(Answer::tokens).sum();
    let row = Row { name: setup.name, tokens, moved_bytes, preemptions, elapsed, verdict: String::new() };
    Ok((row, answers))
}

/// Sends all requests, `concurrency` at a time; returns the answers in their order.
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

fn sum_of(metrics: &str, name: &str) -> u64 {
    let series = metrics.lines().filter(|line| line.starts_with(name));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

fn bounds_of(model: &Path) -> Result<Bounds> {
    let spec = engine::model::ModelSpec::read(model)?;
    Ok(Bounds { vocab: spec.vocab, context_max: spec.context_max })
}

fn show(differences: &[Difference]) -> Result<(), OutputError> {
    differences.iter().take(DIFFERENCES_SHOWN).try_for_each(|difference| say(format_args!("    {difference}")))
}

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

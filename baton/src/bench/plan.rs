//! Plan of a run: arguments and what the servers say about themselves become a session.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use client::Error;
use client::http::{Client, Deadlines};
use client::report::SloClasses;
use client::run::{Api, BodySettings, Endpoint, Limits, Pace, Progress, Sweep, SweepBounds};
use client::session::{Session, SweepSettings, WarmUp};
use client::workload::{
    Adjustment, Arrivals, LengthPairs, LengthSource, SharedPrefix, Synthetic, TraceSettings, Workload, read_trace,
};

use super::args::{ApiName, BenchArgs, PaceArgs, TargetArgs};

/// Seconds of a synthetic workload without limit.
const DURATION_S_DEFAULT: f64 = 30.0;
/// Most requests that are made up.
const REQUESTS_MAX: usize = 1_000_000;
/// Requests of a closed loop without limit, for each place.
const REQUESTS_PER_PLACE: usize = 20;

/// Asks the servers for their models, reads or makes the workload.
pub(super) async fn session(args: &BenchArgs) -> Result<Session> {
    // What is wrong with the arguments is told without a server.
    let sweep = sweep_of(args)?;
    let mut workload = workload(args)?;
    let (endpoints, context_max) = endpoints(&args.target, args.pace.silence).await?;
    let w = &args.workload;
    let is_open = args.pace.concurrency.is_none() && !args.sweep.sweep;
    let adjustment = Adjustment {
        length_scale: w.length_scale,
        context_max: w.context_max.or(context_max),
        rate_scale: w.rate_scale,
        duration_us: w.duration.filter(|_| is_open).map(us),
        limit: w.limit.map(Into::into),
    };
    adjustment.apply(&mut workload)?;
    let pace = &args.pace;
    Ok(Session {
        endpoints,
        workload,
        pace: pace_of(pace, w.duration),
        limits: Limits {
            in_flight_max: pace.in_flight_max.into(),
            deadline: Duration::from_secs_f64(pace.deadline),
            drain: Duration::from_secs_f64(pace.drain),
        },
        warm_up: WarmUp { requests: pace.warmup_requests, us: us(pace.warmup) },
        slos: SloClasses::new(pace.slos.clone())?,
        slices: pace.slices.into(),
        sweep,
        token_range: args.target.token_ids,
        seed: w.seed,
        progress: Arc::new(Progress::default()),
    })
}

fn us(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

fn sweep_of(args: &BenchArgs) -> Result<Option<SweepSettings>> {
    let s = &args.sweep;
    if !s.sweep {
        return Ok(None);
    }
    let bounds = SweepBounds { rate_min: s.rate_min, rate_max: s.rate_max, points_max: s.sweep_points_max };
    Sweep::new(bounds)?;
    Ok(Some(SweepSettings { bounds, duration_us: us(s.sweep_duration) }))
}

fn pace_of(pace: &PaceArgs, duration: Option<f64>) -> Pace {
    match pace.concurrency {
        Some(concurrency) => Pace::Closed { concurrency, duration: duration.map(Duration::from_secs_f64) },
        None => Pace::Open,
    }
}

/// Returns the servers and the shortest context among them, as far as they say it.
async fn endpoints(args: &TargetArgs, silence: f64) -> Result<(Vec<Endpoint>, Option<u32>)> {
    let extra = args.extra.clone().unwrap_or_default();
    let (mut endpoints, mut context_max): (Vec<Endpoint>, Option<u32>) = (Vec::new(), None);
    let deadlines = Deadlines { silence: Duration::from_secs_f64(silence), ..Deadlines::default() };
    let named: Vec<_> = args.targets.iter().map(|target| named(target)).collect();
    let clients = args.access.clients(named.iter().map(|(_, url)| *url))?;
    for ((name, _), client) in named.into_iter().zip(clients) {
        let client = client.with_deadlines(deadlines);
        let name = name.map_or_else(|| client.target().to_string(), str::to_owned);
        if endpoints.iter().any(|other| other.name == name) {
            return Err(Error::Settings(format!("target {name} is there twice: give names, as in a=URL")).into());
        }
        let (model, own_max) = model(&client, args.model.as_deref()).await?;
        context_max = context_max.into_iter().chain(own_max).min();
        let api = match args.api {
            ApiName::Completions => Api::Completions,
            ApiName::Chat => Api::Chat,
        };
        let body = BodySettings { api, model, sends: args.sends(), extra: extra.clone() };
        endpoints.push(Endpoint { name, client, body });
    }
    Ok((endpoints, context_max))
}

/// Splits `NAME=URL`; a name has no slash and no colon.
fn named(target: &str) -> (Option<&str>, &str) {
    match target.split_once('=') {
        Some((name, url)) if !name.is_empty() && !name.contains(['/', ':']) => (Some(name), url),
        _ => (None, target),
    }
}

/// Name of the model and its context. A named model is used even if the server does not list its models.
async fn model(client: &Client, named: Option<&str>) -> Result<(String, Option<u32>)> {
    let listed = client.models().await;
    if let Some(named) = named {
        let own = listed.ok().and_then(|models| models.into_iter().find(|(name, _)| name == named));
        return Ok((named.to_owned(), own.and_then(|(_, context_max)| context_max)));
    }
    let listed =
        listed.with_context(|| format!("asking {} for its models (--model NAME does without)", client.target()));
    Ok(listed?.into_iter().next().unwrap_or_default())
}

fn workload(args: &BenchArgs) -> Result<Workload> {
    let w = &args.workload;
    if let Some(trace) = &w.trace {
        let settings = TraceSettings { form: w.trace_form, block_tokens: w.block_tokens };
        return Ok(read_trace(trace, settings)?);
    }
    let lengths = match &w.lengths {
        Some(file) => LengthSource::Pairs { name: file.display().to_string(), pairs: LengthPairs::read(file)? },
        None => LengthSource::Independent { input: w.input_tokens.clone(), output: w.output_tokens.clone() },
    };
    let rate_per_s = rate(args)?;
    let prefix = w.prefix_tokens.map(|tokens| SharedPrefix { tokens, groups: w.prefix_groups });
    let arrivals = Arrivals { process: w.arrivals, rate_per_s };
    let (requests, duration_us) = extent(args, rate_per_s);
    Ok(Synthetic { seed: w.seed, arrivals, lengths, prefix, requests, duration_us }.workload())
}

fn rate(args: &BenchArgs) -> Result<f64> {
    let needs_none = args.pace.concurrency.is_some() || args.sweep.sweep;
    match args.workload.rate {
        Some(rate) => Ok(rate),
        // The points of a sweep have their own rates, and a closed loop has none.
        None if needs_none => Ok(args.sweep.rate_max.max(1.0)),
        None => Err(Error::Settings("what to send? Give --rate, --concurrency, --sweep or --trace".to_owned()).into()),
    }
}

/// Most synthetic requests and the microseconds in which they come, before the rate is scaled.
fn extent(args: &BenchArgs, rate_per_s: f64) -> (usize, Option<u64>) {
    let w = &args.workload;
    let limit = w.limit.map(usize::from);
    let requests = match args.pace.concurrency {
        _ if args.sweep.sweep => limit.unwrap_or((rate_per_s * args.sweep.sweep_duration).ceil() as usize),
        Some(_) if w.duration.is_some() => limit.unwrap_or(REQUESTS_MAX / 10),
        Some(concurrency) => limit.unwrap_or(usize::from(concurrency) * REQUESTS_PER_PLACE),
        None => {
            let duration = w.duration.or(limit.is_none().then_some(DURATION_S_DEFAULT));
            return (limit.unwrap_or(REQUESTS_MAX), duration.map(|duration| us(duration * w.rate_scale)));
        }
    };
    (requests.min(REQUESTS_MAX), None)
}

/// Checks that a file can be written before the run, not after it.
pub(super) fn writable(file: Option<&Path>) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(file);
    opened.map(drop).map_err(|source| Error::Io { file: file.to_owned(), source }.into())
}

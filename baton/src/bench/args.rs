//! Arguments of `baton bench`; sends nothing.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use client::report::SloClass;
use client::run::{Extra, OptionalField};
use client::workload::{ArrivalProcess, Lengths, TokenRange, TraceForm};

use crate::access::AccessArgs;

/// Sends a workload to a server of the OpenAI API and reports latencies, rates and goodput.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton bench --rate 10 --input-tokens 512 --output-tokens 128 --duration 60 --slo ttft_ms:200,tpot_ms:50
  baton bench --trace conversation_trace.jsonl --length-scale 0.03125 --json out.json --html out.html
  baton bench --concurrency 8 --limit 200 --target http://host:8000/v1
  baton bench --sweep --rate-min 1 --rate-max 200 --input-tokens 512 --output-tokens 64 --slo ttft_ms:200,tpot_ms:50
  baton bench --target a=8000 --target b=8001 --rate 5 --duration 120   # the same rows to both, in turns

docs/bench.md says what each number means. Exit codes: 0 done, 1 no request ended well or --attainment-min was missed,
64 wrong arguments or trace, 69 the server cannot be reached.")]
pub struct BenchArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    #[command(flatten)]
    pub(super) workload: WorkloadArgs,
    #[command(flatten)]
    pub(super) pace: PaceArgs,
    #[command(flatten)]
    pub(super) sweep: SweepArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Server and form of the requests.
#[derive(Debug, Args)]
#[command(next_help_heading = "Target")]
pub struct TargetArgs {
    /// Server: http://host:port or https://host:port, with or without /v1; several are compared, each with a name of its own.
    #[arg(long = "target", value_name = "[NAME=]URL", default_value = "http://127.0.0.1:8000")]
    pub(super) targets: Vec<String>,
    /// Model name; the first that each server lists if not given.
    #[arg(long)]
    pub(super) model: Option<String>,
    #[command(flatten)]
    pub(super) access: AccessArgs,
    /// Endpoint: completions sends token ids (exact lengths), chat sends short common words.
    #[arg(long, value_enum, default_value = "completions")]
    pub(super) api: ApiName,
    /// Fields that are not sent, for servers that refuse them.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FIELD")]
    pub(super) without: Vec<FieldName>,
    /// Sends the class of each row as slo_class.
    #[arg(long)]
    pub(super) send_class: bool,
    /// Further fields of every request, as a JSON object, such as {"temperature": 0}; none that bench sets itself.
    #[arg(long, value_name = "JSON", value_parser = told(Extra::parse))]
    pub(super) extra: Option<Extra>,
    /// Token ids of prompts; the end is not part of it.
    #[arg(long, value_name = "FIRST..END", default_value = "300..1200", value_parser = told(TokenRange::parse))]
    pub(super) token_ids: TokenRange,
}

/// Requests: a trace file, or synthetic ones.
#[derive(Debug, Args)]
#[command(next_help_heading = "Workload")]
pub struct WorkloadArgs {
    /// Trace file: JSON lines (also Mooncake's), or CSV of Azure or BurstGPT.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rate", "lengths", "input_tokens", "output_tokens"])]
    pub(super) trace: Option<PathBuf>,
    /// Form of the trace (jsonl, mooncake, azure, burstgpt); recognised by content if not given.
    #[arg(long, value_name = "FORM", value_parser = told(TraceForm::parse))]
    pub(super) trace_form: Option<TraceForm>,
    /// Tokens per block of hash_ids; found from the rows if not given (Mooncake: 512).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) block_tokens: Option<u32>,
    /// Requests per second of a synthetic workload.
    #[arg(long, value_name = "R", value_parser = rate)]
    pub(super) rate: Option<f64>,
    /// Arrivals of a synthetic workload: constant, poisson, or gamma:CV (above 1 bursts, below 1 evenly).
    #[arg(long, value_name = "PROCESS", default_value = "poisson", value_parser = told(ArrivalProcess::parse))]
    pub(super) arrivals: ArrivalProcess,
    /// Prompt length: N, MIN..MAX or lognormal:MEAN,CV.
    #[arg(long, value_name = "LENGTH", default_value = "256", value_parser = told(Lengths::parse))]
    pub(super) input_tokens: Lengths,
    /// Answer length, in the same form.
    #[arg(long, value_name = "LENGTH", default_value = "64", value_parser = told(Lengths::parse))]
    pub(super) output_tokens: Lengths,
    /// CSV file with pairs of lengths, columns input_length and output_length.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["input_tokens", "output_tokens"])]
    pub(super) lengths: Option<PathBuf>,
    /// Tokens of a prefix that synthetic prompts share, before their own.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "trace")]
    pub(super) prefix_tokens: Option<u32>,
    /// Number of different shared prefixes.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) prefix_groups: u32,
    /// Seed of everything that is random; equal seeds send equal requests.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Factor on the rate.
    #[arg(long, value_name = "F", default_value = "1", value_parser = factor)]
    pub(super) rate_scale: f64,
    /// Factor on all lengths; blocks of prefixes are scaled with them.
    #[arg(long, value_name = "F", default_value = "1", value_parser = factor)]
    pub(super) length_scale: f64,
    /// Longest prompt with its answer, in tokens; longer rows are left out. The server's max_model_len if not given.
    #[arg(long, value_name = "N")]
    pub(super) context_max: Option<u32>,
    /// Most requests.
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<NonZeroUsize>,
    /// Seconds in which requests are sent [default for synthetic requests: 30].
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(super) duration: Option<f64>,
}

/// When requests are sent, and when they are given up.
#[derive(Debug, Args)]
#[command(next_help_heading = "Run")]
pub struct PaceArgs {
    /// Closed loop: so many requests at a time, whatever the times of the workload.
    #[arg(long, value_name = "N")]
    pub(super) concurrency: Option<NonZeroUsize>,
    /// First requests that are sent and left out of the report.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) warmup_requests: usize,
    /// First seconds whose requests are sent and left out of the report.
    #[arg(long, value_name = "S", default_value = "0", value_parser = seconds)]
    pub(super) warmup: f64,
    /// Most requests in flight; one that is due beyond is counted as not sent.
    #[arg(long, value_name = "N", default_value = "4096")]
    pub(super) in_flight_max: NonZeroUsize,
    /// Longest time of a request, in seconds; at most an hour.
    #[arg(long, value_name = "S", default_value = "600", value_parser = deadline)]
    pub(super) deadline: f64,
    /// Longest silence of a server in the middle of a request, in seconds.
    #[arg(long, value_name = "S", default_value = "120", value_parser = seconds)]
    pub(super) silence: f64,
    /// Longest time for running requests to end after the last was sent, in seconds.
    #[arg(long, value_name = "S", default_value = "60", value_parser = seconds)]
    pub(super) drain: f64,
    /// Slices in which several targets take turns.
    #[arg(long, value_name = "N", default_value = "6")]
    pub(super) slices: NonZeroUsize,
    /// Targets of a class: [NAME=]ttft_ms:200,tpot_ms:50, also itl_p99_ms and e2e_ms; may be repeated.
    #[arg(long = "slo", value_name = "SLO", value_parser = told(SloClass::parse))]
    pub(super) slos: Vec<SloClass>,
    /// Smallest share of requests that must meet their targets; below it the exit code is 1.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(super) attainment_min: Option<f64>,
}

/// Search for the highest rate.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sweep")]
pub struct SweepArgs {
    /// Searches the highest rates at which 90 % and 99 % of the requests meet their targets.
    #[arg(long, conflicts_with_all = ["concurrency", "duration"])]
    pub(super) sweep: bool,
    /// Seconds per point.
    #[arg(long, value_name = "S", default_value = "20", value_parser = seconds)]
    pub(super) sweep_duration: f64,
    /// Lowest rate.
    #[arg(long, value_name = "R", default_value = "1", value_parser = rate)]
    pub(super) rate_min: f64,
    /// Highest rate.
    #[arg(long, value_name = "R", default_value = "256", value_parser = rate)]
    pub(super) rate_max: f64,
    /// Most points.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(super) sweep_points_max: usize,
}

/// Files.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Report as JSON.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Report as one page with plots, without scripts.
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// Every request as a line of JSON.
    #[arg(long, value_name = "FILE")]
    pub(super) records: Option<PathBuf>,
}

/// Endpoint on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ApiName {
    /// /v1/completions
    Completions,
    /// /v1/chat/completions
    Chat,
}

/// Field that may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FieldName {
    /// stream_options.include_usage: events are counted instead.
    Usage,
    /// ignore_eos: answers may be shorter than asked for.
    IgnoreEos,
    /// min_tokens: answers may be shorter than asked for.
    MinTokens,
}

impl TargetArgs {
    /// Optional fields that are sent.
    pub(super) fn sends(&self) -> Vec<OptionalField> {
        let known = [
            (FieldName::Usage, OptionalField::IncludeUsage),
            (FieldName::IgnoreEos, OptionalField::IgnoreEos),
            (FieldName::MinTokens, OptionalField::MinTokens),
        ];
        let sent = known.iter().filter(|(name, _)| !self.without.contains(name)).map(|(_, field)| *field);
        sent.chain(self.send_class.then_some(OptionalField::SloClass)).collect()
    }
}

/// Parser of an argument whose errors are shown as they are.
fn told<T>(parse: fn(&str) -> client::Result<T>) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| parse(text).map_err(|error| error.to_string())
}

/// Longest time that may be given: a week.
const SECONDS_MAX: f64 = 7.0 * 24.0 * 3600.0;
const DEADLINE_S_MAX: f64 = 3600.0;
/// Highest rate that may be given; beyond it the times between two requests vanish.
const RATE_MAX: f64 = 1e6;

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| *rate > 0.0 && *rate <= RATE_MAX);
    rate.ok_or_else(|| format!("expected requests per second above 0, at most {RATE_MAX}"))
}

fn factor(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|factor| (1e-6..=1e6).contains(factor));
    factor.ok_or_else(|| "expected a number from 0.000001 to 1000000".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a share from 0 to 1".to_owned())
}

fn deadline(text: &str) -> Result<f64, String> {
    let seconds = seconds(text).ok().filter(|seconds| (0.001..=DEADLINE_S_MAX).contains(seconds));
    seconds.ok_or_else(|| format!("expected seconds from 0.001 to {DEADLINE_S_MAX}"))
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds: &f64| (0.0..=SECONDS_MAX).contains(seconds));
    seconds.ok_or_else(|| format!("expected seconds from 0 to {SECONDS_MAX}"))
}

//! Whole report of a run, in the form of its JSON. The schema is stable: fields are added, none changes its meaning.

use serde::Serialize;

use super::measured::Measured;
use super::slo::SloClass;
use crate::workload::{Origin, WorkloadStats};

/// Version of the JSON.
pub const SCHEMA: u32 = 1;

/// Report of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of this form.
    pub schema: u32,
    /// Start, in seconds since 1970.
    pub begun_unix_s: u64,
    /// True if the user ended the run early.
    pub interrupted: bool,
    /// Requests of the run.
    pub workload: WorkloadReport,
    /// SLO classes.
    pub slo: Vec<SloClass>,
    /// Targets in the order of the command line.
    pub targets: Vec<TargetReport>,
    /// Second and further targets, divided by the first.
    pub ratios: Vec<Ratio>,
    /// Points of a sweep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweep: Option<SweepReport>,
    /// Doubts about the numbers.
    pub warnings: Vec<String>,
}

/// Requests of the run.
#[derive(Debug, Clone, Serialize)]
pub struct WorkloadReport {
    /// Source, and what became of its rows.
    pub origin: Origin,
    /// Statistics of the rows that were used.
    pub used: WorkloadStats,
    /// Way in which requests follow each other: `open`, `closed` or `sweep`.
    pub pace: &'static str,
    /// Requests in flight of a closed loop.
    pub concurrency: Option<usize>,
}

/// What one target did.
#[derive(Debug, Clone, Serialize)]
pub struct TargetReport {
    /// Name on the command line.
    pub name: String,
    /// Address.
    pub url: String,
    /// Model.
    pub model: String,
    /// Path that was asked.
    pub path: String,
    /// Sums.
    #[serde(flatten)]
    pub measured: Measured,
}

/// Number of one target divided by that of the first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratio {
    /// Target.
    pub target: String,
    /// Target that it is divided by.
    pub base: String,
    /// Number, such as `ttft_ms.p50`.
    pub number: &'static str,
    /// Quotient; `None` if the base is 0.
    pub ratio: Option<f64>,
}

/// Points of a sweep.
#[derive(Debug, Clone, Serialize)]
pub struct SweepReport {
    /// Seconds per point.
    pub duration_s: f64,
    /// Points in the order in which they were measured.
    pub points: Vec<SweepPoint>,
    /// Highest rates.
    pub best: Vec<BestRate>,
}

/// One point of a sweep.
#[derive(Debug, Clone, Serialize)]
pub struct SweepPoint {
    /// Rate that was asked for.
    pub rate_per_s: f64,
    /// Sums.
    #[serde(flatten)]
    pub measured: Measured,
}

/// Highest rate at which enough requests met their targets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BestRate {
    /// Share of requests.
    pub attainment: f64,
    /// Rate; `None` if even the lowest did not do.
    pub rate_per_s: Option<f64>,
    /// Lowest rate that missed; `None` if none did.
    pub missed_at_per_s: Option<f64>,
}

/// Number of a measurement.
pub(super) type Number = fn(&Measured) -> f64;

/// Numbers that are compared between targets.
pub(super) const COMPARED: [(&str, Number); 12] = [
    ("ttft_ms.p50", |of| of.latency.ttft_ms.p50),
    ("ttft_ms.p99", |of| of.latency.ttft_ms.p99),
    ("tpot_ms.p50", |of| of.latency.tpot_ms.p50),
    ("tpot_ms.p99", |of| of.latency.tpot_ms.p99),
    ("itl_ms.p50", |of| of.latency.itl_ms.p50),
    ("itl_ms.p99", |of| of.latency.itl_ms.p99),
    ("e2e_ms.p50", |of| of.latency.e2e_ms.p50),
    ("e2e_ms.p99", |of| of.latency.e2e_ms.p99),
    ("requests_per_s", |of| of.rates.requests_per_s),
    ("output_tokens_per_s", |of| of.rates.output_tokens_per_s),
    ("goodput_per_s", |of| of.rates.goodput_per_s),
    ("attainment", |of| of.attainment),
];

/// Divides the numbers of each further target by those of the first.
#[must_use]
pub fn ratios(targets: &[TargetReport]) -> Vec<Ratio> {
    let Some((base, others)) = targets.split_first() else { return Vec::new() };
    let compare = |target: &TargetReport| {
        let ratio = |(number, of): (&'static str, Number)| {
            let (own, base_value) = (of(&target.measured), of(&base.measured));
            let ratio = (base_value > 0.0).then(|| own / base_value);
            Ratio { target: target.name.clone(), base: base.name.clone(), number, ratio }
        };
        COMPARED.map(ratio)
    };
    others.iter().flat_map(compare).collect()
}

//! Report: what records mean. Percentiles, attainment and goodput, as text, JSON and HTML; sends nothing.

mod histogram;
mod html;
mod measured;
mod records;
mod slo;
mod summary;
mod warnings;
mod whole;

pub use histogram::{Histogram, Quantiles};
pub use html::html;
pub use measured::{ClassReport, FailureReport, Latencies, Measured, Rates, Requests, Tokens};
pub use records::record_line;
pub use slo::{SloClass, SloClasses};
pub use summary::summary;
pub use warnings::warnings;
pub use whole::{BestRate, Ratio, Report, SCHEMA, SweepPoint, SweepReport, TargetReport, WorkloadReport, ratios};

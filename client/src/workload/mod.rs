//! Workload: which requests are sent when, and what they ask. Knows no server and no clock.

mod adjust;
mod arrivals;
mod dice;
mod lengths;
mod prompt;
mod row;
mod stats;
mod synthetic;
mod trace;

pub use adjust::{Adjustment, Rerun};
pub use arrivals::{ArrivalProcess, Arrivals};
pub use lengths::{LengthPairs, Lengths};
pub use prompt::{Prompts, TokenRange};
pub use row::{Origin, Row, Workload};
pub use stats::{LengthStats, WorkloadStats};
pub use synthetic::{LengthSource, SharedPrefix, Synthetic};
pub use trace::{TraceForm, TraceSettings, read_trace};

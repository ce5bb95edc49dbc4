//! Statistics of a workload's rows, as they are printed with every report.

use serde::Serialize;

use super::Workload;

/// Lengths of prompts or answers, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct LengthStats {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: u32,
    /// 99th percentile.
    pub p99: u32,
    /// Longest.
    pub max: u32,
}

/// Statistics of the rows that are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct WorkloadStats {
    /// Rows that are used.
    pub rows_used: usize,
    /// Prompt lengths.
    pub input_tokens: LengthStats,
    /// Answer lengths.
    pub output_tokens: LengthStats,
    /// Seconds from the first to the last row.
    pub span_s: f64,
    /// Mean requests per second.
    pub rate_per_s: f64,
}

impl LengthStats {
    fn of(mut lengths: Vec<u32>) -> LengthStats {
        lengths.sort_unstable();
        let Some(max) = lengths.last().copied() else { return LengthStats::default() };
        let mean = lengths.iter().map(|length| f64::from(*length)).sum::<f64>() / lengths.len() as f64;
        // Nearest rank: the smallest length that at least this share of all do not exceed.
        let at = |share: f64| lengths[((lengths.len() as f64 * share).ceil() as usize).clamp(1, lengths.len()) - 1];
        LengthStats { mean, p50: at(0.50), p99: at(0.99), max }
    }
}

impl WorkloadStats {
    /// Counts the first `rows_used` rows of `workload`.
    #[must_use]
    pub fn of(workload: &Workload, rows_used: usize) -> WorkloadStats {
        let rows = &workload.rows[..rows_used.min(workload.rows.len())];
        WorkloadStats {
            rows_used: rows.len(),
            input_tokens: LengthStats::of(rows.iter().map(|row| row.input_tokens).collect()),
            output_tokens: LengthStats::of(rows.iter().map(|row| row.output_tokens).collect()),
            span_s: workload.span_us() as f64 / 1e6,
            rate_per_s: workload.rate_per_s(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_lengths_that_occur() {
        let stats = LengthStats::of((1..=100).rev().collect());
        assert_eq!(stats, LengthStats { mean: 50.5, p50: 50, p99: 99, max: 100 });
        assert_eq!(LengthStats::of(vec![7]), LengthStats { mean: 7.0, p50: 7, p99: 7, max: 7 });
        assert_eq!(LengthStats::of(vec![]), LengthStats::default());
    }
}

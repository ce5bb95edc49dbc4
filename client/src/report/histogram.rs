//! Histogram of times with three significant digits, and its quantiles; knows no requests.

use serde::Serialize;

/// Largest time that is told apart: above two hours all are alike.
const US_MAX: u64 = 2 * 3600 * 1_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// Histogram of times in microseconds (HdrHistogram: fixed relative error, here 0.1 %).
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: hdrhistogram::Histogram<u64>,
    sum_us: f64,
    max_us: f64,
}

/// Quantiles of times, in milliseconds. With a count of 0 all are 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Number of times.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Longest.
    pub max: f64,
}

impl Default for Histogram {
    #[expect(clippy::expect_used, reason = "bounds and digits are constants that the library accepts")]
    fn default() -> Histogram {
        let counts = hdrhistogram::Histogram::new_with_bounds(1, US_MAX, SIGNIFICANT_DIGITS);
        Histogram { counts: counts.expect("valid bounds"), sum_us: 0.0, max_us: 0.0 }
    }
}

impl Histogram {
    /// Records a time `count` times.
    pub fn record(&mut self, us: f64, count: u64) {
        // The clamped time is inside the bounds, so it is always recorded.
        self.counts.saturating_record_n(us.round().clamp(0.0, US_MAX as f64) as u64, count);
        self.sum_us += us * count as f64;
        self.max_us = self.max_us.max(us);
    }

    /// Returns the quantiles. A quantile is at least as long as this share of all times, and never above the maximum.
    #[must_use]
    pub fn quantiles(&self) -> Quantiles {
        let count = self.counts.len();
        if count == 0 {
            return Quantiles::default();
        }
        let at = |share: f64| (self.counts.value_at_quantile(share) as f64).min(self.max_us) / 1e3;
        Quantiles {
            count,
            mean: self.sum_us / count as f64 / 1e3,
            p50: at(0.50),
            p90: at(0.90),
            p95: at(0.95),
            p99: at(0.99),
            max: self.max_us / 1e3,
        }
    }
}

impl FromIterator<f64> for Histogram {
    fn from_iter<I: IntoIterator<Item = f64>>(times_us: I) -> Histogram {
        let mut histogram = Histogram::default();
        times_us.into_iter().for_each(|us| histogram.record(us, 1));
        histogram
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_times() {
        let quantiles = (1..=1000).map(|ms| f64::from(ms) * 1e3).collect::<Histogram>().quantiles();
        assert_eq!((quantiles.count, quantiles.mean, quantiles.max), (1000, 500.5, 1000.0));
        for (found, exact) in [(quantiles.p50, 500.0), (quantiles.p90, 900.0), (quantiles.p99, 990.0)] {
            assert!((found / exact - 1.0).abs() < 0.002, "{found} {exact}");
        }
        assert_eq!(Histogram::default().quantiles(), Quantiles::default());
    }

    #[test]
    fn odd_times_are_kept_in_bounds() {
        let quantiles = [0.0, 0.4, 1e18].into_iter().collect::<Histogram>().quantiles();
        assert_eq!((quantiles.count, quantiles.p50, quantiles.max), (3, 0.0, 1e15));
    }

    proptest! {
        /// Order and size: p50 <= p90 <= p95 <= p99 <= max, each within the error of a time that occurs.
        #[test]
        fn quantiles_are_in_order(times in prop::collection::vec(1_u32..100_000_000, 1..200)) {
            let q = times.iter().map(|us| f64::from(*us)).collect::<Histogram>().quantiles();
            prop_assert!(q.p50 <= q.p90 && q.p90 <= q.p95 && q.p95 <= q.p99 && q.p99 <= q.max);
            let mut sorted = times.clone();
            sorted.sort_unstable();
            let exact = f64::from(sorted[(sorted.len() as f64 * 0.9).ceil() as usize - 1]) / 1e3;
            prop_assert!((q.p90 / exact - 1.0).abs() < 0.002, "{} {}", q.p90, exact);
        }
    }
}

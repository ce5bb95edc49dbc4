//! Plots of a report: latency over time, distributions, attainment against rate. Knows no SVG.

use super::scale::Scale;
use super::svg::{Mark, Plot, Series, X_PIXELS, Y_PIXELS};
use crate::report::{Report, SweepReport};
use crate::run::{LEVELS, Record};

/// Most points of a scatter plot; more would hide each other.
const DOTS_MAX: usize = 2_000;
const BINS: usize = 40;
const STEPS: usize = 200;

/// Latency of a request in milliseconds.
type Latency = fn(&Record) -> Option<f64>;

fn ttft_ms(record: &Record) -> Option<f64> {
    record.ttft_us().filter(|_| record.failure.is_none()).map(|us| us as f64 / 1e3)
}

fn e2e_ms(record: &Record) -> Option<f64> {
    record.e2e_us().filter(|_| record.failure.is_none()).map(|us| us as f64 / 1e3)
}

fn tpot_ms(record: &Record) -> Option<f64> {
    record.tpot_us().filter(|_| record.failure.is_none()).map(|us| us / 1e3)
}

/// Draws all plots for which there are numbers.
pub(super) fn all(report: &Report, records: &[&[Record]]) -> Vec<String> {
    let mut plots = Vec::new();
    if let Some(sweep) = &report.sweep {
        plots.extend(attainment(sweep));
    } else {
        let named: Vec<(&str, &[Record])> =
            report.targets.iter().zip(records).map(|(target, records)| (target.name.as_str(), *records)).collect();
        plots.extend(over_time("Time to first token", &named, ttft_ms));
        plots.extend(over_time("Time to last token (E2E)", &named, e2e_ms));
        plots.extend(distribution("Distribution of TTFT", &named, ttft_ms));
        plots.extend(distribution("Distribution of TPOT", &named, tpot_ms));
    }
    plots
}

/// Every request as a dot, with median and 99th percentile of each part of the time.
fn over_time(title: &str, named: &[(&str, &[Record])], latency: Latency) -> Option<String> {
    let of = |records: &[Record]| -> Vec<(f64, f64)> {
        records.iter().filter_map(|record| Some((record.sent_us as f64 / 1e6, latency(record)?))).collect()
    };
    let points: Vec<Vec<(f64, f64)>> = named.iter().map(|(_, records)| of(records)).collect();
    let end_s = points.iter().flatten().map(|(at, _)| *at).fold(0.0, f64::max);
    let (min, max) = bounds(points.iter().flatten().map(|(_, ms)| *ms))?;
    let mut series = Vec::new();
    for (colour, ((name, _), points)) in named.iter().zip(&points).enumerate() {
        let every = points.len().div_ceil(DOTS_MAX).max(1);
        let dots = points.iter().copied().step_by(every).collect();
        series.push(Series { name: String::new(), points: dots, colour, mark: Mark::Dots });
        for (label, share, mark) in [("p50", 0.5, Mark::Line), ("p99", 0.99, Mark::DashedLine)] {
            let name = if named.len() > 1 { format!("{name} {label}") } else { label.to_owned() };
            series.push(Series { name, points: binned(points, end_s, share), colour, mark });
        }
    }
    let (x, y) = (Scale::linear(0.0, end_s, X_PIXELS), Scale::fitting(min, max, Y_PIXELS));
    Some(Plot { title, x_title: "seconds since the start", y_title: "ms", x, y, series }.draw())
}

/// Quantile of the latencies in each bin of the time that has any.
fn binned(points: &[(f64, f64)], end_s: f64, share: f64) -> Vec<(f64, f64)> {
    let width = end_s.max(1e-6) / BINS as f64;
    let mut bins: Vec<Vec<f64>> = vec![Vec::new(); BINS];
    for (at, ms) in points {
        bins[((at / width) as usize).min(BINS - 1)].push(*ms);
    }
    let quantile = |(place, mut bin): (usize, Vec<f64>)| {
        bin.sort_by(f64::total_cmp);
        let rank = (bin.len() as f64 * share).ceil() as usize;
        Some(((place as f64 + 0.5) * width, *bin.get(rank.checked_sub(1)?)?))
    };
    bins.into_iter().enumerate().filter_map(quantile).collect()
}

/// Share of requests that were at most as slow.
fn distribution(title: &str, named: &[(&str, &[Record])], latency: Latency) -> Option<String> {
    let sorted = |records: &[Record]| {
        let mut all: Vec<f64> = records.iter().filter_map(latency).collect();
        all.sort_by(f64::total_cmp);
        all
    };
    let sorted: Vec<Vec<f64>> = named.iter().map(|(_, records)| sorted(records)).collect();
    let (min, max) = bounds(sorted.iter().flatten().copied())?;
    let series = named.iter().zip(&sorted).enumerate().filter(|(_, (_, all))| !all.is_empty());
    let series = series.map(|(colour, ((name, _), all))| {
        let at = |step: usize| {
            let rank = (all.len() * step).div_ceil(STEPS).max(1);
            (all[rank - 1], rank as f64 / all.len() as f64 * 100.0)
        };
        Series { name: (*name).to_owned(), points: (0..=STEPS).map(at).collect(), colour, mark: Mark::Line }
    });
    let (x, y) = (Scale::fitting(min, max, X_PIXELS), Scale::linear(0.0, 100.0, Y_PIXELS));
    Some(Plot { title, x_title: "ms", y_title: "% of requests", x, y, series: series.collect() }.draw())
}

/// Attainment of each point of a sweep, with the levels.
fn attainment(sweep: &SweepReport) -> Option<String> {
    let mut points: Vec<(f64, f64)> =
        sweep.points.iter().map(|point| (point.rate_per_s, point.measured.attainment * 100.0)).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let max = points.last()?.0;
    let level = |(place, level): (usize, f64)| Series {
        name: format!("{:.0} %", level * 100.0),
        points: vec![(0.0, level * 100.0), (max, level * 100.0)],
        colour: place + 1,
        mark: Mark::DashedLine,
    };
    let levels = LEVELS.into_iter().enumerate().map(level);
    let measured = Series { name: "attainment".to_owned(), points, colour: 0, mark: Mark::LineWithDots };
    let series = levels.chain([measured]).collect();
    let (x, y) = (Scale::linear(0.0, max, X_PIXELS), Scale::linear(0.0, 100.0, Y_PIXELS));
    let title = "Attainment against rate";
    Some(Plot { title, x_title: "requests/s", y_title: "% met targets", x, y, series }.draw())
}

fn bounds(numbers: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    numbers.fold(None, |bounds, number| {
        let (min, max) = bounds.unwrap_or((number, number));
        Some((min.min(number), max.max(number)))
    })
}

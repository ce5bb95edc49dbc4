//! Measurement: what the records of one target add up to; knows no other target.

use std::collections::BTreeMap;

use serde::Serialize;

use super::histogram::{Histogram, Quantiles};
use super::slo::{SloClass, SloClasses};
use crate::run::{FailureKind, Record};

/// Sums of the records of one target.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Measured {
    /// Numbers of requests.
    pub requests: Requests,
    /// Seconds from the first planned request to the last end.
    pub span_s: f64,
    /// Rates over the span.
    pub rates: Rates,
    /// Numbers of tokens.
    pub tokens: Tokens,
    /// Quantiles of latencies.
    pub latency: Latencies,
    /// Share of requests that met all targets of their class; failures, late and unsent requests miss.
    pub attainment: f64,
    /// The same by class.
    pub classes: Vec<ClassReport>,
    /// Failures by kind.
    pub failures: Vec<FailureReport>,
}

/// Numbers of requests, warm-up apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Requests that were due.
    pub due: usize,
    /// Requests that were sent.
    pub sent: usize,
    /// Requests that ended well.
    pub ok: usize,
    /// Requests that failed or were not sent.
    pub failed: usize,
    /// Requests that the user's end of the run broke off: neither good nor bad.
    pub interrupted: usize,
    /// Requests of the warm-up, which count in no other number.
    pub warm_up: usize,
}

/// Rates over the span, per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Requests that were due, between the first and the last.
    pub offered_per_s: f64,
    /// Requests that ended well.
    pub requests_per_s: f64,
    /// Requests that met all targets of their class.
    pub goodput_per_s: f64,
    /// Prompt tokens of requests that ended well.
    pub input_tokens_per_s: f64,
    /// Answer tokens, also of requests that failed later.
    pub output_tokens_per_s: f64,
}

/// Numbers of tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tokens {
    /// Prompt tokens of requests that ended well.
    pub input: u64,
    /// Answer tokens.
    pub output: u64,
    /// Requests that ended well without the server's counts: their events were counted.
    pub without_usage: usize,
    /// Requests whose events held more tokens than they said.
    pub packed_events: usize,
    /// Requests that ended well with fewer tokens than they asked for.
    pub short_answers: usize,
}

/// Quantiles of latencies, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latencies {
    /// From sending to the first token.
    pub ttft_ms: Quantiles,
    /// Mean time per token after the first, one number per request.
    pub tpot_ms: Quantiles,
    /// Gaps between tokens, one number per token.
    pub itl_ms: Quantiles,
    /// From sending to the last token.
    pub e2e_ms: Quantiles,
    /// From sending to the status of the answer.
    pub first_byte_ms: Quantiles,
    /// Sent minus planned: lag of the generator itself.
    pub schedule_lag_ms: Quantiles,
}

/// Requests of one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassReport {
    /// Name and targets.
    pub slo: SloClass,
    /// Requests that count: all but interrupted ones.
    pub requests: usize,
    /// Requests that met all targets.
    pub met: usize,
    /// Share of them.
    pub attainment: f64,
    /// Requests per second that met all targets.
    pub goodput_per_s: f64,
    /// Latencies of the class.
    pub latency: Latencies,
}

/// Failures of one kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FailureReport {
    /// Kind.
    pub kind: FailureKind,
    /// Number of requests.
    pub count: usize,
    /// Message of the first one.
    pub example: String,
}

impl Measured {
    /// Adds up `records`, whose course took `span_us`. The first `warm_up` rows are left out.
    #[must_use]
    pub fn of(records: &[Record], span_us: u64, slos: &SloClasses, warm_up: usize) -> Measured {
        let kept: Vec<&Record> = records.iter().filter(|record| record.row >= warm_up).collect();
        let start_us = if warm_up == 0 { 0 } else { kept.iter().map(|record| record.planned_us).min().unwrap_or(0) };
        let span_s = (span_us.saturating_sub(start_us)) as f64 / 1e6;
        let classes = classes(&kept, slos, span_s);
        let (counted, met) = classes.iter().fold((0, 0), |sums, class| (sums.0 + class.requests, sums.1 + class.met));
        let requests = Requests { warm_up: records.len() - kept.len(), ..requests(&kept) };
        let tokens = tokens(&kept);
        Measured {
            requests,
            span_s,
            rates: rates(&kept, requests, tokens, met, span_s),
            tokens,
            latency: Latencies::of(kept.iter().copied()),
            attainment: share(met, counted),
            classes,
            failures: failures(&kept),
        }
    }
}

impl Latencies {
    fn of<'a>(records: impl Iterator<Item = &'a Record>) -> Latencies {
        let [mut ttft, mut tpot, mut itl, mut e2e, mut first_byte, mut lag] = [(); 6].map(|()| Histogram::default());
        for record in records {
            if !is_unsent(record) {
                lag.record(record.lag_us() as f64, 1);
            }
            // Only whole answers: those that broke off would make latencies look better.
            if record.failure.is_some() {
                continue;
            }
            record.ttft_us().iter().for_each(|us| ttft.record(*us as f64, 1));
            record.e2e_us().iter().for_each(|us| e2e.record(*us as f64, 1));
            record.tpot_us().iter().for_each(|us| tpot.record(*us, 1));
            record.first_byte_us.iter().for_each(|us| first_byte.record(f64::from(*us), 1));
            record.gaps_us().for_each(|(us, tokens)| itl.record(us, tokens.into()));
        }
        Latencies {
            ttft_ms: ttft.quantiles(),
            tpot_ms: tpot.quantiles(),
            itl_ms: itl.quantiles(),
            e2e_ms: e2e.quantiles(),
            first_byte_ms: first_byte.quantiles(),
            schedule_lag_ms: lag.quantiles(),
        }
    }
}

fn is_unsent(record: &Record) -> bool {
    record.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::NotSent)
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn per_s(count: f64, span_s: f64) -> f64 {
    if span_s > 0.0 { count / span_s } else { 0.0 }
}

fn requests(records: &[&Record]) -> Requests {
    let of = |wanted: fn(FailureKind) -> bool| {
        records.iter().filter(|record| record.failure.as_ref().is_some_and(|failure| wanted(failure.kind))).count()
    };
    Requests {
        due: records.len(),
        sent: records.len() - of(|kind| kind == FailureKind::NotSent),
        ok: records.iter().filter(|record| record.failure.is_none()).count(),
        failed: of(FailureKind::counts),
        interrupted: of(|kind| !kind.counts()),
        warm_up: 0,
    }
}

fn tokens(records: &[&Record]) -> Tokens {
    let ok = || records.iter().filter(|record| record.failure.is_none());
    let input = |record: &&&Record| record.usage.map_or(u64::from(record.input_tokens), |usage| usage.prompt_tokens);
    Tokens {
        input: ok().map(|record| input(&record)).sum(),
        output: records.iter().map(|record| record.tokens()).sum(),
        without_usage: ok().filter(|record| record.usage.is_none()).count(),
        packed_events: ok().filter(|record| record.has_packed_events()).count(),
        short_answers: ok().filter(|record| record.tokens() < u64::from(record.output_tokens)).count(),
    }
}

fn rates(records: &[&Record], requests: Requests, tokens: Tokens, met: usize, span_s: f64) -> Rates {
    let planned = || records.iter().map(|record| record.planned_us);
    let offered_us = planned().max().unwrap_or(0) - planned().min().unwrap_or(0);
    Rates {
        offered_per_s: per_s(requests.due.saturating_sub(1) as f64, offered_us as f64 / 1e6),
        requests_per_s: per_s(requests.ok as f64, span_s),
        goodput_per_s: per_s(met as f64, span_s),
        input_tokens_per_s: per_s(tokens.input as f64, span_s),
        output_tokens_per_s: per_s(tokens.output as f64, span_s),
    }
}

fn classes(records: &[&Record], slos: &SloClasses, span_s: f64) -> Vec<ClassReport> {
    let counts = |record: &Record| record.failure.as_ref().is_none_or(|failure| failure.kind.counts());
    let report = |(place, slo): (usize, &SloClass)| {
        let of_class = records.iter().copied().filter(|record| slos.place_of(record) == place && counts(record));
        let of_class: Vec<&Record> = of_class.collect();
        let met = of_class.iter().filter(|record| slo.is_met_by(record)).count();
        ClassReport {
            slo: slo.clone(),
            requests: of_class.len(),
            met,
            attainment: share(met, of_class.len()),
            goodput_per_s: per_s(met as f64, span_s),
            latency: Latencies::of(of_class.iter().copied()),
        }
    };
    slos.all().iter().enumerate().map(report).collect()
}

fn failures(records: &[&Record]) -> Vec<FailureReport> {
    let mut by_kind: BTreeMap<FailureKind, FailureReport> = BTreeMap::new();
    for failure in records.iter().filter_map(|record| record.failure.as_ref()) {
        let first = || FailureReport { kind: failure.kind, count: 0, example: failure.message.clone() };
        by_kind.entry(failure.kind).or_insert_with(first).count += 1;
    }
    by_kind.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Failure, tests::record};

    fn failed(kind: FailureKind) -> Record {
        Record { failure: Some(Failure { kind, message: kind.label() }), ..record(&[(10, 1)], None) }
    }

    #[test]
    fn every_arrival_counts_in_the_attainment() {
        let slos = SloClasses::new(vec![SloClass::parse("ttft_ms:100").unwrap()]).unwrap();
        let records = [
            record(&[(100, 1), (200, 1)], Some(2)),
            record(&[(101, 1), (200, 1)], Some(2)),
            failed(FailureKind::Status(500)),
            failed(FailureKind::NotSent),
            failed(FailureKind::Interrupted),
        ];
        let measured = Measured::of(&records, 2_000_000, &slos, 0);
        assert_eq!(measured.requests, Requests { due: 5, sent: 4, ok: 2, failed: 2, interrupted: 1, warm_up: 0 });
        assert_eq!((measured.attainment, measured.rates.goodput_per_s), (0.25, 0.5));
        assert_eq!((measured.rates.requests_per_s, measured.latency.ttft_ms.count), (1.0, 2));
        let kinds: Vec<String> = measured.failures.iter().map(|failure| failure.kind.label()).collect();
        assert_eq!(kinds, ["status_500", "interrupted", "not_sent"]);
    }

    #[test]
    fn warm_up_is_left_out_of_counts_and_span() {
        let slos = SloClasses::new(Vec::new()).unwrap();
        let at = |row: usize, planned_us| Record { row, planned_us, sent_us: planned_us, ..record(&[(10, 1)], None) };
        let records: Vec<Record> = (0..10).map(|row| at(row, row as u64 * 100_000)).collect();
        let measured = Measured::of(&records, 1_000_000, &slos, 4);
        assert_eq!((measured.requests.warm_up, measured.requests.ok), (4, 6));
        assert_eq!((measured.span_s, measured.rates.requests_per_s), (0.6, 10.0));
        assert_eq!((measured.rates.offered_per_s, measured.tokens.without_usage), (10.0, 6));
    }
}

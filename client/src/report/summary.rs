//! Report as a text for people; computes nothing.

use std::fmt::Write;

use super::histogram::Quantiles;
use super::measured::{ClassReport, Measured};
use super::slo::SloClass;
use super::whole::{COMPARED, Report, SweepReport, TargetReport, WorkloadReport};
use crate::workload::LengthStats;

/// Most characters of an example of a failure.
const EXAMPLE_CHARS_MAX: usize = 160;

/// Writes the summary; its last line ends with a line feed.
#[must_use]
pub fn summary(report: &Report) -> String {
    let mut text = workload(&report.workload);
    for target in &report.targets {
        text.push_str(&heading(target));
        text.push_str(&measured(&target.measured));
    }
    if report.targets.len() > 1 {
        text.push_str(&side_by_side(&report.targets));
    }
    if let Some(found) = &report.sweep {
        text.push_str(&sweep(found));
    }
    if report.interrupted {
        text.push_str("\nended early by the user: the numbers are those of the requests that had ended\n");
    }
    for (place, warning) in report.warnings.iter().enumerate() {
        let gap = if place == 0 { "\n" } else { "" };
        let _ = writeln!(text, "{gap}warning: {}", printable(warning));
    }
    text
}

/// Replaces control characters: texts of servers and files must not steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

fn workload(workload: &WorkloadReport) -> String {
    let (origin, used) = (&workload.origin, &workload.used);
    let blocks = origin.block_tokens.map_or(String::new(), |tokens| format!(", blocks of {tokens} tokens"));
    let mut text = format!("workload   {} ({}{blocks})\n", printable(&origin.source), origin.form);
    let mut dropped = Vec::new();
    let mut drop = |count: usize, reason: String| {
        if count > 0 {
            dropped.push(format!("{count} {reason}"));
        }
    };
    drop(origin.rows_empty, "without prompt or answer".to_owned());
    drop(origin.rows_over_context, format!("over the context of {} tokens", origin.context_max.unwrap_or(0)));
    drop(origin.rows_after_limit, "after the limit".to_owned());
    let dropped = if dropped.is_empty() { String::new() } else { format!("; left out: {}", dropped.join(", ")) };
    let _ = writeln!(text, "rows       {} read, {} used{dropped}", origin.rows_read, used.rows_used);
    if origin.rows_out_of_order > 0 {
        let _ = writeln!(text, "           {} were out of order and were sorted", origin.rows_out_of_order);
    }
    if origin.length_scale != 1.0 || origin.rate_scale != 1.0 {
        let _ = writeln!(text, "scaled     lengths x {}, rate x {}", origin.length_scale, origin.rate_scale);
    }
    let _ = writeln!(text, "input      {}", lengths(used.input_tokens));
    let _ = writeln!(text, "output     {}", lengths(used.output_tokens));
    let _ = match (workload.concurrency, workload.pace) {
        (Some(concurrency), _) => writeln!(text, "pace       closed loop, {concurrency} at a time"),
        (None, "sweep") => writeln!(text, "pace       open loop, at the rate of each point of the sweep"),
        (None, _) => writeln!(text, "pace       open loop, {:.2} requests/s for {:.1} s", used.rate_per_s, used.span_s),
    };
    text
}

fn lengths(stats: LengthStats) -> String {
    format!("mean {:.1}, p50 {}, p99 {}, max {} tokens", stats.mean, stats.p50, stats.p99, stats.max)
}

fn heading(target: &TargetReport) -> String {
    let name = if target.name == target.url { String::new() } else { format!("{}  ", printable(&target.name)) };
    format!("\ntarget     {name}{}{}  model {}\n", target.url, target.path, printable(&target.model))
}

fn measured(of: &Measured) -> String {
    let (requests, rates) = (of.requests, of.rates);
    let mut notes = String::new();
    for (count, what) in [(requests.due - requests.sent, "not sent"), (requests.interrupted, "interrupted")] {
        if count > 0 {
            let _ = write!(notes, ", {count} {what}");
        }
    }
    if requests.warm_up > 0 {
        let _ = write!(notes, "; {} of the warm-up apart", requests.warm_up);
    }
    let mut text = format!("requests   {} due, {} ok, {} failed{notes}\n", requests.due, requests.ok, requests.failed);
    let _ = writeln!(
        text,
        "rates      {:.2} requests/s ({:.2} offered), {:.0} tokens/s in, {:.0} out, over {:.1} s",
        rates.requests_per_s, rates.offered_per_s, rates.input_tokens_per_s, rates.output_tokens_per_s, of.span_s
    );
    let latency = of.latency;
    let _ =
        writeln!(text, "{:<14}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}", "ms", "mean", "p50", "p90", "p95", "p99", "max");
    for (name, quantiles) in [
        ("TTFT", latency.ttft_ms),
        ("TPOT", latency.tpot_ms),
        ("ITL", latency.itl_ms),
        ("E2E", latency.e2e_ms),
        ("schedule lag", latency.schedule_lag_ms),
    ] {
        text.push_str(&row(name, quantiles));
    }
    for class in &of.classes {
        text.push_str(&attainment(class));
    }
    for failure in &of.failures {
        let example: String = printable(&failure.example).chars().take(EXAMPLE_CHARS_MAX).collect();
        let _ = writeln!(text, "failed     {} {}, such as: {example}", failure.count, failure.kind.label());
    }
    text
}

fn row(name: &str, of: Quantiles) -> String {
    if of.count == 0 {
        return format!("{name:<14}{:>10}\n", "none");
    }
    let numbers = [of.mean, of.p50, of.p90, of.p95, of.p99, of.max].map(|ms| format!("{ms:>10.2}"));
    format!("{name:<14}{}\n", numbers.concat())
}

fn attainment(class: &ClassReport) -> String {
    let of = format!("{} of {}", class.met, class.requests);
    let share = class.attainment * 100.0;
    let name = printable(&class.slo.name);
    if !class.slo.has_targets() {
        return format!(
            "goodput    {:.2} requests/s ended well ({share:.1} %, {of}); no targets given (--slo)\n",
            class.goodput_per_s
        );
    }
    let targets = targets(&class.slo);
    format!("goodput    {:.2} requests/s of class {name} met {targets} ({share:.1} %, {of})\n", class.goodput_per_s)
}

fn targets(slo: &SloClass) -> String {
    let targets = [("TTFT", slo.ttft_ms), ("TPOT", slo.tpot_ms), ("ITL p99", slo.itl_p99_ms), ("E2E", slo.e2e_ms)];
    let said = targets.into_iter().filter_map(|(name, ms)| Some(format!("{name} <= {} ms", ms?)));
    said.collect::<Vec<_>>().join(", ")
}

fn side_by_side(targets: &[TargetReport]) -> String {
    let mut text = format!("\n{:<22}", "side by side");
    for (place, target) in targets.iter().enumerate() {
        let _ = write!(text, "{:>14}", printable(&target.name));
        if place > 0 {
            let _ = write!(text, "{:>10}", "ratio");
        }
    }
    text.push('\n');
    for (number, of) in COMPARED {
        let _ = write!(text, "{number:<22}");
        let base = of(&targets[0].measured);
        for (place, target) in targets.iter().enumerate() {
            let own = of(&target.measured);
            let _ = write!(text, "{own:>14.2}");
            if place > 0 {
                let ratio = if base > 0.0 { format!("{:.3}", own / base) } else { "-".to_owned() };
                let _ = write!(text, "{ratio:>10}");
            }
        }
        text.push('\n');
    }
    text
}

fn sweep(found: &SweepReport) -> String {
    let mut text = format!("\nsweep      {} points of {} s\n", found.points.len(), found.duration_s);
    let _ = writeln!(
        text,
        "{:>10}{:>10}{:>12}{:>12}{:>12}{:>12}{:>9}",
        "rate/s", "attained", "goodput/s", "TTFT p50", "TTFT p99", "TPOT p99", "failed"
    );
    let mut points: Vec<_> = found.points.iter().collect();
    points.sort_by(|a, b| a.rate_per_s.total_cmp(&b.rate_per_s));
    for point in points {
        let (of, latency) = (&point.measured, point.measured.latency);
        let _ = writeln!(
            text,
            "{:>10.2}{:>8.1} %{:>12.2}{:>12.2}{:>12.2}{:>12.2}{:>9}",
            point.rate_per_s,
            of.attainment * 100.0,
            of.rates.goodput_per_s,
            latency.ttft_ms.p50,
            latency.ttft_ms.p99,
            latency.tpot_ms.p99,
            of.requests.failed
        );
    }
    for best in &found.best {
        let share = best.attainment * 100.0;
        let missed =
            best.missed_at_per_s.map_or_else(|| "no rate missed".to_owned(), |rate| format!("{rate:.2} missed"));
        let rate = best.rate_per_s.map_or_else(|| "no rate".to_owned(), |rate| format!("{rate:.2} requests/s"));
        let _ = writeln!(text, "highest rate with {share:.0} % attainment: {rate} ({missed})");
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use expect_test::expect;

    use super::*;
    use crate::report::{SCHEMA, SloClasses, warnings};
    use crate::run::{Failure, FailureKind, Record, tests::record};
    use crate::workload::{Origin, Row, Workload, WorkloadStats};

    pub(in crate::report) fn report() -> Report {
        let slos = SloClasses::new(vec![SloClass::parse("chat=ttft_ms:200,tpot_ms:50").unwrap()]).unwrap();
        let failure = Some(Failure { kind: FailureKind::Status(503), message: "full\u{1b}[2J".to_owned() });
        let records = [
            record(&[(100, 1), (120, 1), (140, 1)], Some(3)),
            record(&[(300, 1), (320, 1)], Some(2)),
            Record { failure, ..record(&[], None) },
        ];
        let measured = Measured::of(&records, 1_000_000, &slos, 0);
        let row = |at_us| Row { at_us, input_tokens: 10, output_tokens: 5, blocks: [].into(), class: None };
        let origin = Origin {
            source: "trace.jsonl".to_owned(),
            form: "jsonl".to_owned(),
            rows_read: 5,
            rows_over_context: 2,
            context_max: Some(2048),
            length_scale: 1.0,
            rate_scale: 1.0,
            ..Origin::default()
        };
        let rows = vec![row(0), row(100_000), row(200_000)];
        let workload = Workload { rows, block_tokens: 1, origin: origin.clone() };
        let said = warnings("a", &measured);
        let target = |name: &str| TargetReport {
            name: name.to_owned(),
            url: "http://127.0.0.1:8000".to_owned(),
            model: "m".to_owned(),
            path: "/v1/completions".to_owned(),
            measured: measured.clone(),
        };
        Report {
            schema: SCHEMA,
            begun_unix_s: 0,
            interrupted: false,
            workload: WorkloadReport {
                origin,
                used: WorkloadStats::of(&workload, usize::MAX),
                pace: "open",
                concurrency: None,
            },
            slo: slos.all().to_vec(),
            targets: vec![target("a")],
            ratios: Vec::new(),
            sweep: None,
            warnings: said,
        }
    }

    #[test]
    fn the_summary_says_rows_rates_latencies_and_failures() {
        expect![[r#"
            workload   trace.jsonl (jsonl)
            rows       5 read, 3 used; left out: 2 over the context of 2048 tokens
            input      mean 10.0, p50 10, p99 10, max 10 tokens
            output     mean 5.0, p50 5, p99 5, max 5 tokens
            pace       open loop, 10.00 requests/s for 0.2 s

            target     a  http://127.0.0.1:8000/v1/completions  model m
            requests   3 due, 2 ok, 1 failed
            rates      2.00 requests/s (0.00 offered), 20 tokens/s in, 5 out, over 1.0 s
            ms                  mean       p50       p90       p95       p99       max
            TTFT              200.00    100.03    300.00    300.00    300.00    300.00
            TPOT               20.00     20.00     20.00     20.00     20.00     20.00
            ITL                20.00     20.00     20.00     20.00     20.00     20.00
            E2E               230.00    140.03    320.00    320.00    320.00    320.00
            schedule lag        0.00      0.00      0.00      0.00      0.00      0.00
            goodput    1.00 requests/s of class chat met TTFT <= 200 ms, TPOT <= 50 ms (33.3 %, 1 of 3)
            failed     1 status_503, such as: full�[2J

            warning: a: 2 answers were shorter than asked for: does the server honour ignore_eos and min_tokens?
        "#]]
        .assert_eq(&summary(&report()));
    }
}

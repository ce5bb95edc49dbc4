//! Report as one HTML page: no scripts, nothing from elsewhere, everything from outside escaped.

mod plots;
mod scale;
mod svg;

use std::fmt::Write;

use super::histogram::Quantiles;
use super::summary::summary;
use super::whole::{Report, TargetReport};
use crate::run::Record;

const STYLE: &str = include_str!("style.css");

/// Writes the page. `records` are those of each target of the report, in its order.
#[must_use]
pub fn html(report: &Report, records: &[&[Record]]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>baton bench</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\"><style>\n{STYLE}</style></head>\n\
         <body><h1>baton bench</h1>\n"
    );
    // Writing to a string never fails.
    let _ = writeln!(page, "<p>{}</p>", escape(&report.workload.origin.source));
    for warning in &report.warnings {
        let _ = writeln!(page, "<p class=\"warning\">{}</p>", escape(warning));
    }
    report.targets.iter().for_each(|target| page.push_str(&table(target)));
    plots::all(report, records).iter().for_each(|plot| page.push_str(plot));
    let _ = writeln!(page, "<h2>Summary</h2>\n<pre>{}</pre>\n</body></html>", escape(&summary(report)));
    page
}

fn table(target: &TargetReport) -> String {
    let of = &target.measured;
    let mut text = format!("<h2>{}</h2>\n", escape(&target.name));
    let _ = writeln!(
        text,
        "<p>{:.2} requests/s ended well, {:.2} met their targets ({:.1} %); {:.0} tokens/s out; \
         {} of {} requests failed</p>",
        of.rates.requests_per_s,
        of.rates.goodput_per_s,
        of.attainment * 100.0,
        of.rates.output_tokens_per_s,
        of.requests.failed,
        of.requests.due
    );
    text.push_str(
        "<table><tr><th>ms</th><th>mean</th><th>p50</th><th>p90</th><th>p95</th><th>p99</th><th>max</th></tr>\n",
    );
    let latency = of.latency;
    for (name, quantiles) in
        [("TTFT", latency.ttft_ms), ("TPOT", latency.tpot_ms), ("ITL", latency.itl_ms), ("E2E", latency.e2e_ms)]
    {
        text.push_str(&row(name, quantiles));
    }
    text.push_str("</table>\n");
    text
}

fn row(name: &str, of: Quantiles) -> String {
    let numbers = [of.mean, of.p50, of.p90, of.p95, of.p99, of.max];
    let cells: Vec<String> = numbers.iter().map(|ms| format!("<td>{ms:.2}</td>")).collect();
    format!("<tr><td>{name}</td>{}</tr>\n", cells.concat())
}

/// Text that HTML and XML show as it is.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::summary::tests::report;
    use crate::run::tests::record;

    #[test]
    fn the_page_stands_alone_and_escapes_what_comes_from_outside() {
        let mut report = report();
        let script = "<script>alert(1)</script>";
        report.targets[0].name = script.to_owned();
        report.targets[0].model = script.to_owned();
        report.targets[0].measured.failures[0].example = script.to_owned();
        report.workload.origin.source = script.to_owned();
        report.warnings.push(script.to_owned());
        let records = [record(&[(100, 1), (120, 1), (140, 1)], Some(3)), record(&[(9000, 1)], Some(1))];
        let page = html(&report, &[&records]);
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;"), "{page}");
        for outside in ["http:", "https:", "src=", "href=", "url(", "@import"] {
            let found = page.split(outside).count() - 1;
            // The summary shows addresses as text.
            assert!(found == 0 || outside == "http:", "{outside} {found}");
        }
        assert_eq!(page.matches("<svg").count(), 4);
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }

    #[test]
    fn a_run_without_answers_has_no_plots() {
        assert_eq!(html(&report(), &[&[]]).matches("<svg").count(), 0);
    }
}

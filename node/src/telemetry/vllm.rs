//! Our series under the names that vLLM gives them, for dashboards, routers and autoscalers that read those; made from a
//! page of our own series when one is asked for, so it counts nothing itself.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::names;

/// Names under which metrics are exported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricNames {
    /// Our own.
    #[default]
    Baton,
    /// Our own, and those of vLLM beside them.
    BatonAndVllm,
}

impl MetricNames {
    /// Returns the names for one answer: those that are configured, or more if its query has `names=vllm`.
    #[must_use]
    pub fn or_asked_by(self, query: Option<&str>) -> MetricNames {
        let is_asked = query.is_some_and(|query| query.split('&').any(|parameter| parameter == "names=vllm"));
        if is_asked { MetricNames::BatonAndVllm } else { self }
    }

    /// Adds to a page of our own series what these names want besides.
    pub fn complete(self, page: &mut String) {
        match self {
            MetricNames::Baton => {}
            MetricNames::BatonAndVllm => {
                let more = families(page);
                page.push_str(&more);
            }
        }
    }
}

/// Start of every name here.
pub const PREFIX: &str = "vllm:";

/// A metric of vLLM and the series of ours that make it, summed over all labels but `le`.
struct Alias {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    of: &'static str,
    only: Only,
}

/// Series that count.
#[derive(Clone, Copy)]
enum Only {
    All,
    /// Those of the router if the page has them: workers count the same tokens.
    Router,
    Workers,
    Part(&'static str),
}

const fn histogram(name: &'static str, of: &'static str, only: Only, help: &'static str) -> Alias {
    Alias { name, kind: "histogram", help, of, only }
}

const fn counter(name: &'static str, of: &'static str, only: Only, help: &'static str) -> Alias {
    Alias { name, kind: "counter", help, of, only }
}

const fn gauge(name: &'static str, of: &'static str, help: &'static str) -> Alias {
    Alias { name, kind: "gauge", help, of, only: Only::All }
}

const ALIASES: [Alias; 14] = [
    histogram("vllm:time_to_first_token_seconds", names::TTFT_SECONDS, Only::All, "Time to first token."),
    histogram("vllm:inter_token_latency_seconds", names::ITL_SECONDS, Only::All, "Gaps between two tokens."),
    histogram("vllm:time_per_output_token_seconds", names::ITL_SECONDS, Only::All, "Older name of the gaps."),
    histogram(
        "vllm:request_time_per_output_token_seconds",
        names::TPOT_SECONDS,
        Only::All,
        "Mean time per token after the first, per request.",
    ),
    histogram("vllm:e2e_request_latency_seconds", names::REQUEST_SECONDS, Only::All, "Time of whole requests."),
    histogram("vllm:request_queue_time_seconds", names::TTFT_PART_SECONDS, Only::Part("queue"), "Wait for prefill."),
    histogram("vllm:request_prefill_time_seconds", names::TTFT_PART_SECONDS, Only::Part("prefill"), "Prefill."),
    counter("vllm:prompt_tokens_total", names::PROMPT_TOKENS_TOTAL, Only::Router, "Prompt tokens."),
    counter("vllm:generation_tokens_total", names::GENERATED_TOKENS_TOTAL, Only::Router, "Generated tokens."),
    counter("vllm:prefix_cache_queries_total", names::PROMPT_TOKENS_TOTAL, Only::Workers, "Prompt tokens at workers."),
    counter("vllm:prefix_cache_hits_total", names::CACHED_TOKENS_TOTAL, Only::All, "Those found in a prefix cache."),
    counter("vllm:num_preemptions_total", names::PREEMPTIONS_TOTAL, Only::All, "Sequences that lost their blocks."),
    gauge("vllm:num_requests_running", names::RUNNING_SEQUENCES, "Sequences in running batches."),
    gauge("vllm:num_requests_waiting", names::WAITING_LEGS, "Choices that wait at workers."),
];

/// Sample of our page; text of labels is left escaped.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, &'a str)>,
    value: f64,
}

impl<'a> Sample<'a> {
    fn read(line: &'a str) -> Option<Sample<'a>> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let value = value.parse().ok()?;
        Some(Sample { name, labels: labels_of(labels), value })
    }

    fn label(&self, wanted: &str) -> Option<&'a str> {
        self.labels.iter().find(|(label, _)| *label == wanted).map(|(_, text)| *text)
    }
}

/// Reads `a="x",b="y"}`; a quote inside a text has a backslash before it.
fn labels_of(mut rest: &str) -> Vec<(&str, &str)> {
    let mut labels = Vec::new();
    while let Some((label, text)) = rest.split_once("=\"") {
        let mut is_escaped = false;
        let end = text.find(|c| {
            let ends = c == '"' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            ends
        });
        let Some((text, after)) = end.and_then(|end| text.split_at_checked(end)) else { break };
        labels.push((label.trim_start_matches(','), text));
        rest = after.trim_start_matches('"');
    }
    labels
}

/// Returns the families of vLLM that a page of our series can make. What it has no source for is left out.
fn families(page: &str) -> String {
    let samples: Vec<Sample<'_>> =
        page.lines().filter(|line| line.starts_with("baton_")).filter_map(Sample::read).collect();
    let model = samples.iter().find_map(|sample| sample.label("model")).unwrap_or_default();
    let mut out = String::new();
    for alias in &ALIASES {
        alias.write(&samples, model, &mut out);
    }
    write_finished(&samples, model, &mut out);
    write_kv_usage(&samples, model, &mut out);
    out
}

impl Alias {
    fn write(&self, samples: &[Sample<'_>], model: &str, out: &mut String) {
        // A value for each suffix and bound, in the order of the page.
        let mut sums: Vec<((&str, Option<&str>), f64)> = Vec::new();
        for sample in samples.iter().filter(|sample| self.counts(sample, samples)) {
            let Some(suffix) = sample.name.strip_prefix(self.of) else { continue };
            let key = (suffix, sample.label("le"));
            match sums.iter_mut().find(|(known, _)| *known == key) {
                Some((_, sum)) => *sum += sample.value,
                None => sums.push((key, sample.value)),
            }
        }
        if sums.is_empty() {
            return;
        }
        declare(self.name, self.kind, self.help, out);
        for ((suffix, bound), sum) in sums {
            let bound = bound.map(|le| format!(",le=\"{le}\"")).unwrap_or_default();
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{}{suffix}{{model_name=\"{model}\"{bound}}} {sum}", self.name);
        }
    }

    fn counts(&self, sample: &Sample<'_>, all: &[Sample<'_>]) -> bool {
        let is_ours = matches!(sample.name.strip_prefix(self.of), Some("" | "_bucket" | "_sum" | "_count"));
        let is_router = |sample: &Sample<'_>| sample.label("role") == Some("router");
        is_ours
            && match self.only {
                Only::All => true,
                Only::Part(part) => sample.label("part") == Some(part),
                Only::Workers => !is_router(sample),
                Only::Router => is_router(sample) || !all.iter().any(|other| other.name == self.of && is_router(other)),
            }
    }
}

fn write_finished(samples: &[Sample<'_>], model: &str, out: &mut String) {
    let name = "vllm:request_success_total";
    let mut ended = samples.iter().filter(|sample| sample.name == names::CHOICES_TOTAL).peekable();
    if ended.peek().is_some() {
        declare(name, "counter", "Choices that have ended, by reason.", out);
    }
    for sample in ended {
        let reason = sample.label("reason").unwrap_or_default();
        let _ = writeln!(out, "{name}{{model_name=\"{model}\",finished_reason=\"{reason}\"}} {}", sample.value);
    }
}

/// Writes the part of all KV blocks that sequences hold; blocks of the prefix cache are free in vLLM's sense.
fn write_kv_usage(samples: &[Sample<'_>], model: &str, out: &mut String) {
    let blocks = || samples.iter().filter(|sample| sample.name == names::KV_BLOCKS);
    let all: f64 = blocks().map(|sample| sample.value).sum();
    if all > 0.0 {
        let is_free = |sample: &&Sample<'_>| matches!(sample.label("state"), Some("free" | "cached"));
        let free: f64 = blocks().filter(is_free).map(|sample| sample.value).sum();
        declare("vllm:kv_cache_usage_perc", "gauge", "Part of the KV blocks that is in use, 0 to 1.", out);
        let _ = writeln!(out, "vllm:kv_cache_usage_perc{{model_name=\"{model}\"}} {}", (all - free) / all);
    }
}

fn declare(name: &str, kind: &str, help: &str, out: &mut String) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"# HELP baton_ttft_seconds x
# TYPE baton_ttft_seconds histogram
baton_ttft_seconds_bucket{role="router",class="a",model="m \"1\"",le="0.5"} 1
baton_ttft_seconds_bucket{role="router",class="a",model="m \"1\"",le="+Inf"} 2
baton_ttft_seconds_sum{role="router",class="a",model="m \"1\""} 1.5
baton_ttft_seconds_count{role="router",class="a",model="m \"1\""} 2
baton_ttft_seconds_bucket{role="router",class="b",model="m \"1\"",le="0.5"} 3
baton_ttft_seconds_bucket{role="router",class="b",model="m \"1\"",le="+Inf"} 3
baton_ttft_seconds_sum{role="router",class="b",model="m \"1\""} 0.5
baton_ttft_seconds_count{role="router",class="b",model="m \"1\""} 3
baton_ttft_part_seconds_sum{role="router",part="parse"} 7
baton_ttft_part_seconds_sum{role="router",part="queue"} 8
baton_prompt_tokens_total{role="router"} 10
baton_prompt_tokens_total{worker="p",role="prefill"} 11
baton_prompt_tokens_total{worker="d",role="decode"} 2
baton_running_sequences{worker="p",role="prefill"} 1
baton_running_sequences{worker="d",role="decode"} 4
baton_choices_total{role="router",model="m \"1\"",reason="length"} 6
baton_kv_blocks{role="decode",state="free"} 5
baton_kv_blocks{role="decode",state="cached"} 1
baton_kv_blocks{role="decode",state="in_use"} 2
process_threads{role="router"} 3
"#;

    #[test]
    fn our_series_have_their_names_summed_over_what_they_do_not_know() {
        let mut page = PAGE.to_owned();
        MetricNames::Baton.complete(&mut page);
        assert_eq!(page, PAGE);
        MetricNames::Baton.or_asked_by(Some("x=1&names=vllm")).complete(&mut page);
        let added: Vec<&str> = page[PAGE.len()..].lines().filter(|line| !line.starts_with('#')).collect();
        let wanted = [
            r#"vllm:time_to_first_token_seconds_bucket{model_name="m \"1\"",le="0.5"} 4"#,
            r#"vllm:time_to_first_token_seconds_bucket{model_name="m \"1\"",le="+Inf"} 5"#,
            r#"vllm:time_to_first_token_seconds_sum{model_name="m \"1\""} 2"#,
            r#"vllm:time_to_first_token_seconds_count{model_name="m \"1\""} 5"#,
            r#"vllm:request_queue_time_seconds_sum{model_name="m \"1\""} 8"#,
            r#"vllm:prompt_tokens_total{model_name="m \"1\""} 10"#,
            r#"vllm:prefix_cache_queries_total{model_name="m \"1\""} 13"#,
            r#"vllm:num_requests_running{model_name="m \"1\""} 5"#,
            r#"vllm:request_success_total{model_name="m \"1\"",finished_reason="length"} 6"#,
            r#"vllm:kv_cache_usage_perc{model_name="m \"1\""} 0.25"#,
        ];
        assert_eq!(added, wanted);
        assert_eq!(page.matches("# TYPE vllm:").count(), 7, "each family is declared once: {page}");
    }

    #[test]
    fn a_worker_counts_its_own_tokens() {
        let page =
            "baton_prompt_tokens_total{role=\"prefill\"} 11\nbaton_build_info{role=\"prefill\",model=\"demo\"} 1\n";
        let added = families(page);
        assert!(added.contains("vllm:prompt_tokens_total{model_name=\"demo\"} 11\n"), "{added}");
        assert!(!added.contains("vllm:kv_cache_usage_perc"), "without a source there is none: {added}");
    }

    #[test]
    fn names_begin_as_vllms_and_their_sources_exist() {
        for alias in &ALIASES {
            assert!(alias.name.starts_with(PREFIX), "{}", alias.name);
            let source = names::ALL.iter().find(|metric| metric.name == alias.of).unwrap();
            assert_eq!(source.kind.label(), alias.kind, "{}", alias.name);
        }
    }
}

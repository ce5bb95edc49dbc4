//! Logs to standard error, and metrics in memory; knows no port.

mod format;
mod live;
mod process;
mod request_log;
mod stream;
mod vllm;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use sched::contained::{is_contained, said};
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::names::{self, Kind};

pub use format::{LogFormat, process_name, set_process_name};
pub use live::LiveGauge;
pub use request_log::{REQUEST_TARGET, RequestLog};
pub use stream::{LAST_LINES, PendingLine, Stream};
pub use vllm::{MetricNames, PREFIX as VLLM_PREFIX};

/// Environment variable that overrides the configured log level.
pub const LOG_VARIABLE: &str = "BATON_LOG";

/// Environment variable that asks for colours where standard error is no terminal.
pub const COLOURS_VARIABLE: &str = "CLICOLOR_FORCE";

/// Reason why telemetry could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The log filter is invalid.
    #[error("{origin} {text:?} is not a log filter: {problem}")]
    Filter {
        /// Variable or configuration key from which the filter came.
        origin: &'static str,
        /// Text of the filter.
        text: String,
        /// Problem of the filter.
        problem: String,
    },
    /// Something else in this process has set up logging.
    #[error("logging is set up already")]
    Logging,
    /// Something else in this process has set up metrics.
    #[error("metrics are set up already")]
    Metrics,
    /// A histogram's buckets are empty.
    #[error("metric {name} cannot have its buckets")]
    Buckets {
        /// Name of the metric.
        name: &'static str,
        /// Error of the recorder.
        source: BuildError,
    },
}

/// Sends logs of `level` (or of `BATON_LOG`) to standard error: `info`, or per module `info,engine=debug`. Every line
/// carries `name`; `requests` says whether requests have lines, unless the filter does. Logging never blocks the caller:
/// see [`Stream`]. A panic is a log line too.
///
/// # Errors
/// When the filter is invalid, or logging is set up already.
pub fn log_to_stderr(level: &str, requests: RequestLog, format: LogFormat, name: &str) -> Result<(), TelemetryError> {
    let (origin, text) = match std::env::var(LOG_VARIABLE) {
        Ok(text) if !text.is_empty() => (LOG_VARIABLE, text),
        _ => ("telemetry.log", level.to_owned()),
    };
    filter(origin, &text)?;
    let filter = filter(origin, &requests.within(&text))?;
    set_process_name(name);
    let logs = tracing_subscriber::fmt().with_ansi(wants_colours()).with_env_filter(filter);
    let logs = logs.event_format(format::Line { format }).with_writer(|| PendingLine::of(Stream::Stderr));
    logs.try_init().map_err(|_| TelemetryError::Logging)?;
    // Start the writing threads now: a later moment without room for threads would silence the process for ever.
    Stream::ALL.iter().for_each(|stream| stream.open());
    std::panic::set_hook(Box::new(|panic| {
        let reason = said(panic.payload());
        if is_contained() {
            tracing::debug!(reason, "a library has panicked");
            return;
        }
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("?");
        let trace = std::backtrace::Backtrace::capture();
        let trace = match trace.status() {
            std::backtrace::BacktraceStatus::Captured => format!(", {trace}"),
            _ => String::new(),
        };
        tracing::error!(thread, place, "a thread has panicked, which is a defect of ours: {reason}{trace}");
        // This may be the last line of the process.
        Stream::Stderr.flush(LAST_LINES);
    }));
    Ok(())
}

/// Returns true on a terminal, or if `CLICOLOR_FORCE` asks for colours; never if `NO_COLOR` is set.
#[must_use]
pub fn wants_colours() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    !is_set("NO_COLOR") && (terminal || is_set(COLOURS_VARIABLE))
}

/// Checks a log filter of the configuration.
pub fn check_filter(text: &str) -> Result<(), TelemetryError> {
    filter("telemetry.log", text).map(|_| ())
}

fn filter(origin: &'static str, text: &str) -> Result<EnvFilter, TelemetryError> {
    let wrong = |problem: String| TelemetryError::Filter { origin, text: text.to_owned(), problem };
    // A mistyped level would count as a module, and everything else would fall silent.
    if let Some(word) = text.split(',').map(str::trim).find(|word| !is_level(word) && !is_module_and_level(word)) {
        return Err(wrong(format!("{word:?} is neither off, error, warn, info, debug or trace nor module=level")));
    }
    EnvFilter::try_new(text).map_err(|error| wrong(error.to_string()))
}

fn is_level(word: &str) -> bool {
    !word.is_empty() && word.parse::<LevelFilter>().is_ok()
}

/// Refuses filters of spans and fields (`[span{field=value}]=level`), as no line here is inside a span.
fn is_module_and_level(word: &str) -> bool {
    let is_module =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_:-".contains(c));
    word.split_once('=').is_some_and(|(module, level)| is_module(module) && is_level(level))
}

/// Metrics of this process; clones share them.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    role: &'static str,
    names: MetricNames,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Installs the recorder for this process, whose role is `role`; fails the second time.
    pub fn install(role: &'static str) -> Result<Metrics, TelemetryError> {
        let recorder = recorder()?;
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_| TelemetryError::Metrics)?;
        names::describe();
        Ok(Metrics { handle, role, names: MetricNames::default() })
    }

    /// Makes metrics without a recorder, which stay empty.
    #[must_use]
    pub fn detached() -> Metrics {
        Metrics {
            handle: PrometheusBuilder::new().build_recorder().handle(),
            role: "none",
            names: MetricNames::default(),
        }
    }

    /// Sets the names under which pages for others have the series.
    #[must_use]
    pub fn named(self, names: MetricNames) -> Metrics {
        Metrics { names, ..self }
    }

    /// Returns the names under which pages for others have the series.
    #[must_use]
    pub fn names(&self) -> MetricNames {
        self.names
    }

    /// Returns all series under our own names, in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = self.handle.render();
        let mut add = |name: &str, kind: &str, help: &str, samples: &[String]| {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{}\n\n", samples.join("\n")));
        };
        let mut families = live::samples();
        let dropped = Stream::ALL.map(|stream| {
            let labels = [("role", self.role), ("stream", stream.label())];
            live::sample(names::LOG_LINES_DROPPED_TOTAL, &labels, stream.dropped() as f64)
        });
        families.insert(names::LOG_LINES_DROPPED_TOTAL, dropped.into());
        for metric in names::ALL {
            if let Some(samples) = families.get(metric.name) {
                add(metric.name, metric.kind.label(), metric.help, samples);
            }
        }
        for fact in process::facts() {
            let sample = live::sample(fact.name, &[("role", self.role)], fact.value);
            add(fact.name, fact.kind, fact.help, &[sample]);
        }
        text
    }

    /// Folds histogram samples; must be called every few seconds.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

fn recorder() -> Result<PrometheusRecorder, TelemetryError> {
    let mut builder = PrometheusBuilder::new();
    for metric in names::ALL {
        match metric.kind {
            Kind::Counter | Kind::Gauge => {}
            Kind::Histogram(buckets) => {
                builder = builder
                    .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
                    .map_err(|source| TelemetryError::Buckets { name: metric.name, source })?;
            }
        }
    }
    Ok(builder.build_recorder())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_have_their_buckets_and_help() {
        let recorder = recorder().unwrap();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            names::describe();
            metrics::histogram!(names::TTFT_SECONDS, "role" => "router", "class" => "default").record(0.3);
            metrics::counter!(names::PROMPT_TOKENS_TOTAL, "role" => "prefill").increment(5);
        });
        let text = handle.render();
        assert!(text.contains("# TYPE baton_ttft_seconds histogram"), "{text}");
        assert!(text.contains(r#"le="0.25"} 0"#) && text.contains(r#"le="0.5"} 1"#), "{text}");
        assert!(text.contains(r#"baton_prompt_tokens_total{role="prefill"} 5"#), "{text}");
        assert!(text.contains("# HELP baton_ttft_seconds "), "{text}");
    }

    #[test]
    fn a_wrong_filter_is_quoted() {
        let said = log_to_stderr("info,=loud=", RequestLog::Off, LogFormat::Text, "x").unwrap_err().to_string();
        assert!(said.starts_with("telemetry.log \"info,=loud=\" is not a log filter: "), "{said}");
    }

    /// Found by trying: `inof` was taken for a module, and not even warnings were written any more.
    #[test]
    fn a_mistyped_level_is_no_module() {
        for wrong in ["", ",", "info,", "inof", "info,router", "router=debug,bogus", "=info", "router=loud", "[x]=info"]
        {
            assert!(check_filter(wrong).is_err(), "{wrong}");
        }
        for right in ["WARN", "3", "off", "info,router=debug", "warn,engine::replica=trace"] {
            assert!(check_filter(right).is_ok(), "{right}");
        }
    }
}

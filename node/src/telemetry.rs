//! Logs to standard error and metrics in memory; knows no port and no metric by name.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use thiserror::Error;
use tracing_subscriber::EnvFilter;

use crate::names::{self, Kind};

/// The environment variable that overrides the configured log level.
pub const LOG_VARIABLE: &str = "BATON_LOG";

/// Telemetry could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The log level is not one.
    #[error("{origin} {text:?} is not a log filter: {problem}")]
    Filter {
        /// The variable or the configuration key it came from.
        origin: &'static str,
        /// What it says.
        text: String,
        /// Why it is none.
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
        /// The metric.
        name: &'static str,
        /// Why.
        source: BuildError,
    },
}

/// Sends logs of `level` (or what `BATON_LOG` says) to standard error: `info`, or per module `info,engine=debug`.
///
/// # Errors
/// The filter is not one, or logging is set up already.
pub fn log_to_stderr(level: &str) -> Result<(), TelemetryError> {
    let (origin, text) = match std::env::var(LOG_VARIABLE) {
        Ok(text) if !text.is_empty() => (LOG_VARIABLE, text),
        _ => ("log level", level.to_owned()),
    };
    let filter = EnvFilter::try_new(&text).map_err(|error| TelemetryError::Filter {
        origin,
        text,
        problem: error.to_string(),
    })?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    logs.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init().map_err(|_| TelemetryError::Logging)
}

/// The metrics of this process; clones share them.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Records what this process counts from now on; once per process.
    ///
    /// # Errors
    /// Metrics are set up already.
    pub fn install() -> Result<Metrics, TelemetryError> {
        let recorder = recorder()?;
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_| TelemetryError::Metrics)?;
        names::describe();
        Ok(Metrics { handle })
    }

    /// Metrics that nothing is recorded into, for surfaces without a recorder.
    #[must_use]
    pub fn detached() -> Metrics {
        Metrics { handle: PrometheusBuilder::new().build_recorder().handle() }
    }

    /// All series in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds histogram samples; to be called every few seconds.
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
        let said = log_to_stderr("info,=loud=").unwrap_err().to_string();
        assert!(said.starts_with("log level \"info,=loud=\" is not a log filter: "), "{said}");
    }
}

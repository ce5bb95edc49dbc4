//! The section of the configuration about logs and metrics of a process; knows no command.

use node::telemetry::{LogFormat, MetricNames, RequestLog, TelemetryError};
use serde::{Deserialize, Serialize};

/// Logs and metrics of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Log filter: a level, or levels by module as in `info,router=debug`. The variable BATON_LOG overrides it.
    pub log: String,
    /// Whether the router logs a line for each request: `on`, `off`, or `auto`, which is off under `baton serve`.
    pub request_log: RequestLog,
    /// Form of log lines: `text`, or `json`, one object per line.
    pub format: LogFormat,
    /// Names of metrics: `baton`, or `baton_and_vllm`.
    pub metric_names: MetricNames,
}

impl TelemetryConfig {
    /// Starts logging under `name`; `requests` is usual for the command.
    pub fn start(&self, name: &str, requests: RequestLog) -> Result<(), TelemetryError> {
        node::telemetry::log_to_stderr(&self.log, self.request_log.or(requests), self.format, name)
    }
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        TelemetryConfig {
            log: "info".to_string(),
            request_log: RequestLog::Auto,
            format: LogFormat::Text,
            metric_names: MetricNames::Baton,
        }
    }
}

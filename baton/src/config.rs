//! The one configuration: every crate owns its section, this composes them; knows what the file looks like.

use std::path::{Path, PathBuf};

use anyhow::Result;
use node::bind::check_model_name;
use node::config::{Fault, MS_MAX};
use node::telemetry::{LogFormat, TelemetryError, check_filter};
use serde::{Deserialize, Serialize};

use crate::plane::PlaneConfig;

/// The commented defaults: what `baton config` prints and what docs and chart show.
pub const DEFAULTS: &str = include_str!("default.toml");

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatonConfig {
    /// What every process says of itself.
    pub telemetry: TelemetryConfig,
    /// What routers and workers know of each other.
    pub plane: PlaneConfig,
    /// What `baton serve` starts.
    pub serve: ServeConfig,
    /// The router.
    pub router: router::Config,
    /// A prefill worker.
    pub prefill: prefill_server::Config,
    /// A decode (or aggregated) worker.
    pub decode: decode_server::Config,
}

/// What every process says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Log filter: a level, or levels by module as in `info,router=debug`. The variable BATON_LOG wins over it.
    pub log: String,
    /// How log lines are written: `text`, or `json`, one object per line.
    pub format: LogFormat,
}

impl TelemetryConfig {
    /// Logs from now on, under `name`.
    pub fn start(&self, name: &str) -> Result<(), TelemetryError> {
        node::telemetry::log_to_stderr(&self.log, self.format, name)
    }
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        TelemetryConfig { log: "info".to_string(), format: LogFormat::Text }
    }
}

/// What `baton serve` starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServeConfig {
    /// How prefill and decode are placed: `disaggregated` or `aggregated`.
    pub mode: Mode,
    /// Directory of the model; empty is the bundled one.
    pub model_dir: PathBuf,
    /// Name under which it is served; empty is the directory's name.
    pub model_name: String,
    /// What computes, for all workers: `cpu`, or `modelled`, which only takes the time that a latency model says.
    pub backend: engine::BackendKind,
    /// What moves KV between the workers: `ucx`, `tcp`, `shm`, or `auto`, which is shm: it opens no port and admits only
    /// processes of the same user.
    pub transport: TransportChoice,
    /// Prefill workers, in disaggregated mode.
    pub prefill_workers: u32,
    /// Decode workers, or aggregated ones.
    pub decode_workers: u32,
}

/// How prefill and decode are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Different processes; the KV cache moves between them.
    Disaggregated,
    /// One process does both, chunks mixed with decodes.
    Aggregated,
}

/// What moves KV between the workers of `serve`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransportChoice {
    /// What suits the workers of one host: shared memory.
    Auto,
    /// UCX.
    Ucx,
    /// TCP.
    Tcp,
    /// Shared memory.
    Shm,
}

impl TransportChoice {
    /// The transport of every worker that `serve` starts; there is no second choice.
    #[must_use]
    pub const fn on_one_host(self) -> engine::TransportChoice {
        match self {
            TransportChoice::Auto | TransportChoice::Shm => engine::TransportChoice::Shm,
            TransportChoice::Ucx => engine::TransportChoice::Ucx,
            TransportChoice::Tcp => engine::TransportChoice::Tcp,
        }
    }
}

impl Default for ServeConfig {
    fn default() -> Self {
        ServeConfig {
            mode: Mode::Disaggregated,
            model_dir: PathBuf::new(),
            model_name: String::new(),
            backend: engine::BackendKind::Cpu,
            transport: TransportChoice::Auto,
            prefill_workers: 1,
            decode_workers: 1,
        }
    }
}

impl BatonConfig {
    /// The defaults, changed by a file and then by `a.b=c` settings.
    pub fn load(file: Option<&Path>, settings: &[String]) -> Result<BatonConfig> {
        Ok(node::config::load_checked(file, settings, BatonConfig::check)?)
    }

    /// Checks every section, whichever command reads it: before anything starts, on any machine, without a model.
    pub fn check(&self) -> Result<(), Fault> {
        check_filter(&self.telemetry.log).map_err(|error| Fault::of("telemetry.log", error.to_string()))?;
        self.serve.check()?;
        self.router.check_values()?;
        self.prefill.check()?;
        self.decode.check()?;
        let all = toml::Value::try_from(self).map_err(|error| Fault::of("", error.to_string()))?;
        check_times(&all, "")
    }

    /// Checks what the processes of one deployment, which all have this configuration, tell each other when they meet.
    pub fn check_deployment(&self) -> Result<(), Fault> {
        let beat_ms = self.router.session.beat_ms;
        let decode = ("decode", &self.decode.engine);
        let workers = match self.serve.mode {
            Mode::Disaggregated => vec![("prefill", &self.prefill.engine), decode],
            Mode::Aggregated => vec![decode],
        };
        match workers.into_iter().find(|(_, engine)| beat_ms.saturating_mul(2) > engine.lease_span_ms) {
            None => Ok(()),
            Some((role, engine)) => {
                let span_ms = engine.lease_span_ms;
                let problem = format!("must be at most half of {role}.engine.lease_span_ms {span_ms}, found {beat_ms}");
                Err(Fault::of("router.session.beat_ms", problem))
            }
        }
    }
}

/// No time is longer than anybody waits, so that no sum of two overflows.
fn check_times(value: &toml::Value, path: &str) -> Result<(), Fault> {
    match value {
        toml::Value::Table(table) => table.iter().try_for_each(|(key, value)| match path {
            "" => check_times(value, key),
            path => check_times(value, &format!("{path}.{key}")),
        }),
        toml::Value::Integer(ms) if path.ends_with("_ms") || path.ends_with("_ms_max") => {
            match u64::try_from(*ms).is_ok_and(|ms| ms <= MS_MAX) {
                true => Ok(()),
                false => Err(Fault::of(path, format!("must not be above {MS_MAX} (30 days), found {ms}"))),
            }
        }
        _ => Ok(()),
    }
}

/// A key that has no default and was left out.
#[derive(Debug, thiserror::Error)]
#[error("{key} is not set: {hint}")]
pub struct NotSet {
    key: &'static str,
    hint: &'static str,
}

impl NotSet {
    /// Refuses a model directory that was left out.
    pub fn check_model(key: &'static str, model_dir: &Path) -> Result<(), NotSet> {
        let hint = "name the directory of a model, in a file that --config names or with --set";
        if model_dir.as_os_str().is_empty() { Err(NotSet { key, hint }) } else { Ok(()) }
    }
}

/// Worker processes of one role that `serve` starts at most: it is for one host.
const WORKERS_MAX: u32 = 64;

impl ServeConfig {
    fn check(&self) -> Result<(), Fault> {
        for (key, found) in [("prefill_workers", self.prefill_workers), ("decode_workers", self.decode_workers)] {
            if !(1..=WORKERS_MAX).contains(&found) {
                let problem = format!("must lie between 1 and {WORKERS_MAX}, found {found}");
                return Err(Fault::of(format!("serve.{key}"), problem));
            }
        }
        match self.model_name.is_empty() {
            true => Ok(()),
            false => check_model_name(&self.model_name).map_err(|problem| Fault::of("serve.model_name", problem)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commented_defaults_are_the_defaults() {
        let printed: BatonConfig = toml::from_str(DEFAULTS).unwrap();
        assert_eq!(printed, BatonConfig::default());
    }

    #[test]
    fn every_key_is_explained() {
        let all = toml::Value::try_from(BatonConfig::default()).unwrap();
        let printed: toml::Value = toml::from_str(DEFAULTS).unwrap();
        assert_eq!(keys(&printed, ""), keys(&all, ""), "default.toml misses or adds keys");
        let mut explained = false;
        for line in DEFAULTS.lines() {
            // Keys stand at the start of a line; entries of a list of tables are indented.
            let key = line.starts_with(|first: char| first.is_ascii_lowercase()) && line.contains(" = ");
            assert!(!key || explained, "no comment above {line:?}");
            explained = line.starts_with('#');
        }
    }

    fn keys(value: &toml::Value, path: &str) -> Vec<String> {
        match value {
            toml::Value::Table(table) => {
                table.iter().flat_map(|(key, value)| keys(value, &format!("{path}.{key}"))).collect()
            }
            _ => vec![path.to_string()],
        }
    }
}

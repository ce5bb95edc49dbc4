//! The configuration: every crate owns its section, this file composes them; knows the form of the file.

use std::path::Path;

use anyhow::Result;
use node::bind::check_model_name;
use node::config::{Fault, MS_MAX};
use node::telemetry::check_filter;
use serde::{Deserialize, Serialize};

use crate::admin::AdminConfig;
use crate::plane::PlaneConfig;
pub use crate::telemetry::TelemetryConfig;

/// Commented defaults, as printed by `baton config` and shown in docs and chart.
pub const DEFAULTS: &str = include_str!("default.toml");

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatonConfig {
    /// Logs and metrics of every process.
    pub telemetry: TelemetryConfig,
    /// Secret that routers and workers share.
    pub plane: PlaneConfig,
    /// Key of the operators.
    pub admin: AdminConfig,
    /// Processes that `baton serve` starts.
    pub serve: ServeConfig,
    /// The router.
    pub router: router::Config,
    /// Computation and KV transfer of every worker.
    pub engine: engine::Config,
    /// Prefill worker, with `engine` changed by its own keys.
    pub prefill: worker::Config,
    /// Decode (or aggregated) worker, with `engine` changed by its own keys.
    pub decode: decode_server::Config,
}

/// Processes that `baton serve` starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServeConfig {
    /// Number of prefill workers; none are started where decode workers run whole requests.
    pub prefill_workers: u32,
    /// Number of decode, aggregated or co-located workers.
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
    /// One process does both, each on its share of the device.
    Colocated,
}

impl Default for ServeConfig {
    fn default() -> Self {
        ServeConfig { prefill_workers: 1, decode_workers: 1 }
    }
}

impl BatonConfig {
    /// Loads the defaults, changed by a file and then by `a.b=c` settings.
    pub fn load(file: Option<&Path>, settings: &[String]) -> Result<BatonConfig> {
        let defaults = toml::Table::try_from(BatonConfig::default())?;
        let settings = for_every_role(settings);
        Ok(node::config::load_checked(file, &settings, &defaults, complete, BatonConfig::check)?)
    }

    /// Writes the configuration as a file, in which the engines of workers have only the keys that differ.
    pub fn to_file(&self) -> Result<String, toml::ser::Error> {
        let mut all = toml::Table::try_from(self)?;
        let shared = section_of(&all, ENGINE);
        for role in ROLES {
            if let Some(toml::Value::Table(section)) = all.get_mut(role)
                && let Some(toml::Value::Table(engine)) = section.get_mut(ENGINE)
            {
                without(engine, &shared);
                if engine.is_empty() {
                    section.remove(ENGINE);
                }
            }
        }
        toml::to_string(&all)
    }

    /// Returns how `baton serve` places prefill and decode, which follows from the role of decode workers.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match self.decode.role {
            decode_server::DecodeRole::Decode => Mode::Disaggregated,
            decode_server::DecodeRole::Aggregated => Mode::Aggregated,
            decode_server::DecodeRole::Colocated => Mode::Colocated,
        }
    }

    /// Sets the placement of prefill and decode.
    pub fn set_mode(&mut self, mode: Mode) {
        self.decode.role = match mode {
            Mode::Disaggregated => decode_server::DecodeRole::Decode,
            Mode::Aggregated => decode_server::DecodeRole::Aggregated,
            Mode::Colocated => decode_server::DecodeRole::Colocated,
        };
    }

    /// Sets the model, whatever was configured.
    pub fn set_model(&mut self, model_dir: &Path) {
        for engine in [&mut self.engine, &mut self.prefill.engine, &mut self.decode.engine] {
            engine.model_dir = model_dir.to_path_buf();
        }
        self.router.model_dir.clear();
    }

    /// Completes open settings for the workers of one host, which `baton serve` starts.
    #[must_use]
    pub fn on_one_host(&self, model_dir: &Path) -> BatonConfig {
        let mut config = self.clone();
        for engine in [&mut config.engine, &mut config.prefill.engine, &mut config.decode.engine] {
            if engine.model_dir.as_os_str().is_empty() {
                engine.model_dir = model_dir.to_path_buf();
            }
            if engine.transport == engine::TransportChoice::Auto {
                engine.transport = engine::TransportChoice::Shm;
            }
        }
        config
    }

    /// Checks every section, for every command: before anything starts, on any machine, without a model.
    pub fn check(&self) -> Result<(), Fault> {
        check_filter(&self.telemetry.log).map_err(|error| Fault::of("telemetry.log", error.to_string()))?;
        self.serve.check()?;
        self.router.check_values()?;
        if !self.engine.model_name.is_empty() {
            check_model_name(&self.engine.model_name).map_err(|problem| Fault::of("engine.model_name", problem))?;
        }
        self.check_workers()?;
        let all = toml::Table::try_from(self).map_err(|error| Fault::of("", error.to_string()))?;
        // Faults that workers have from the shared engine are reported as they were written.
        check_times(&toml::Value::Table(section_of(&all, ENGINE)), ENGINE)?;
        check_times(&toml::Value::Table(all), "")
    }

    /// Checks the workers' engines: the shared one with a role's changes. A fault that both roles have from the shared
    /// engine is reported there.
    fn check_workers(&self) -> Result<(), Fault> {
        let of_all = self.engine.check().map_err(|error| match error {
            engine::EngineError::Config { key, problem } => Fault::of(format!("{ENGINE}.{key}"), problem),
            other => Fault::of(ENGINE, other.to_string()),
        });
        let (prefill, decode) = (self.prefill.check(prefill_server::SECTION), self.decode.check());
        if let Err(shared) = &of_all {
            let of_role = |role| Err(Fault::of(format!("{role}.{}", shared.key), shared.problem.clone()));
            if prefill == of_role("prefill") && decode == of_role("decode") {
                return of_all;
            }
        }
        prefill.and(decode)
    }

    /// Checks that the processes of one deployment, which all have this configuration, fit each other.
    pub fn check_deployment(&self) -> Result<(), Fault> {
        if !self.router.model_dir.as_os_str().is_empty() && self.router.model_dir != self.engine.model_dir {
            return Err(self.another_model("router.model_dir".to_owned()));
        }
        let beat_ms = self.router.session.beat_ms;
        let decode = ("decode", &self.decode.engine);
        let workers = match self.mode() {
            Mode::Disaggregated => vec![("prefill", &self.prefill.engine), decode],
            Mode::Aggregated | Mode::Colocated => vec![decode],
        };
        for (role, engine) in &workers {
            if engine.model_dir != self.engine.model_dir {
                return Err(self.another_model(format!("{role}.engine.model_dir")));
            }
        }
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

impl BatonConfig {
    fn another_model(&self, key: String) -> Fault {
        let ours = match self.engine.model_dir.as_os_str().is_empty() {
            true => "not set: the bundled model".to_owned(),
            false => self.engine.model_dir.display().to_string(),
        };
        Fault::of(key, format!("differs from engine.model_dir ({ours}), and a deployment serves one model"))
    }
}

const ENGINE: &str = "engine";
const ROLES: [&str; 2] = ["prefill", "decode"];

const MOVED: [(&[&str], &str, &str); 12] = [
    (&["serve"], "mode", "decode.role (`decode`, `aggregated` or `colocated`)"),
    (&["serve"], "model_dir", "engine.model_dir"),
    (&["serve"], "model_name", "engine.model_name"),
    (&["serve"], "backend", "engine.backend"),
    (&["serve"], "transport", "engine.transport"),
    (&["router"], "metrics_from", "what `baton serve` does by itself (others scrape the admin_listen of each worker)"),
    (&["engine"], "kv_bytes", "engine.kv_pool"),
    (&["engine"], "kv_blocks", "engine.kv_pool = \"N blocks\""),
    (&["prefill", "engine"], "kv_bytes", "prefill.engine.kv_pool"),
    (&["prefill", "engine"], "kv_blocks", "prefill.engine.kv_pool = \"N blocks\""),
    (&["decode", "engine"], "kv_bytes", "decode.engine.kv_pool"),
    (&["decode", "engine"], "kv_blocks", "decode.engine.kv_pool = \"N blocks\""),
];

/// Copies shared engine settings to each role, where they override a file; settings of a role override both.
fn for_every_role(settings: &[String]) -> Vec<String> {
    let is_shared = |setting: &&String| {
        node::config::parts_of(setting).is_some_and(|(parts, _)| parts.len() > 1 && parts[0] == ENGINE)
    };
    let (shared, others): (Vec<&String>, Vec<&String>) = settings.iter().partition(is_shared);
    let of_role =
        |role: &str| shared.iter().map(|setting| format!("{role}.{}", setting.trim_start())).collect::<Vec<_>>();
    let roles = ROLES.into_iter().flat_map(of_role);
    shared.iter().map(|setting| (*setting).clone()).chain(roles).chain(others.into_iter().cloned()).collect()
}

/// Gives each role the shared engine, changed by its own section.
fn complete(all: &mut toml::Table) -> Result<(), Fault> {
    for (path, key, now) in MOVED {
        let section = path.iter().try_fold(&*all, |here, name| here.get(*name).and_then(toml::Value::as_table));
        if section.is_some_and(|section| section.contains_key(key)) {
            return Err(Fault::of(format!("{}.{key}", path.join(".")), format!("is {now} now")));
        }
    }
    let shared = section_of(all, ENGINE);
    // Report wrong types in the section that has them.
    node::config::section::<engine::Config>(ENGINE, &shared)?;
    for role in ROLES {
        let empty = || toml::Value::Table(toml::Table::new());
        // A value that is no section is refused when the struct is filled.
        if let toml::Value::Table(section) = all.entry(role).or_insert_with(empty)
            && let toml::Value::Table(engine) = section.entry(ENGINE).or_insert_with(empty)
        {
            if engine.get("model_dir").and_then(toml::Value::as_str) == Some("") {
                engine.remove("model_dir");
            }
            complete_by(engine, &shared);
        }
    }
    Ok(())
}

fn section_of(all: &toml::Table, name: &str) -> toml::Table {
    all.get(name).and_then(toml::Value::as_table).cloned().unwrap_or_default()
}

/// Copies keys of `shared` that `own` does not have.
fn complete_by(own: &mut toml::Table, shared: &toml::Table) {
    for (key, value) in shared {
        match (own.get_mut(key), value) {
            (None, value) => drop(own.insert(key.clone(), value.clone())),
            (Some(toml::Value::Table(own)), toml::Value::Table(shared)) => complete_by(own, shared),
            (Some(_), _) => {}
        }
    }
}

fn without(own: &mut toml::Table, shared: &toml::Table) {
    own.retain(|key, value| match (value, shared.get(key)) {
        (toml::Value::Table(own), Some(toml::Value::Table(shared))) => {
            without(own, shared);
            !own.is_empty()
        }
        (value, shared) => shared != Some(value),
    });
}

/// Checks that every time is at most the allowed maximum, so that no sum of two overflows.
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

/// Error: a key without a default was left out.
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

/// Most worker processes per role, as `serve` is for one host.
const WORKERS_MAX: u32 = 64;

impl ServeConfig {
    fn check(&self) -> Result<(), Fault> {
        for (key, found) in [("prefill_workers", self.prefill_workers), ("decode_workers", self.decode_workers)] {
            if !(1..=WORKERS_MAX).contains(&found) {
                let problem = format!("must lie between 1 and {WORKERS_MAX}, found {found}");
                return Err(Fault::of(format!("serve.{key}"), problem));
            }
        }
        Ok(())
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
        let all: toml::Value = toml::from_str(&BatonConfig::default().to_file().unwrap()).unwrap();
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

    #[test]
    fn an_engine_is_said_once_and_workers_say_what_differs() {
        let settings = ["engine.dtype=int8", "engine.modelled.load_ms=7", "decode.engine.kv_pool=4096"];
        let config = load(&settings).unwrap();
        assert_eq!(
            (config.prefill.engine.dtype, config.decode.engine.dtype),
            (config.engine.dtype, config.engine.dtype)
        );
        assert_eq!(
            (config.prefill.engine.kv_pool, config.decode.engine.kv_pool),
            (engine::KvPool::Bytes(512 << 20), engine::KvPool::Bytes(4096))
        );
        assert_eq!(config.decode.engine.modelled.load_ms, 7);
        let written: toml::Table = toml::from_str(&config.to_file().unwrap()).unwrap();
        assert_eq!(written["decode"]["engine"].as_table().unwrap().len(), 1);
        assert!(!written["prefill"].as_table().unwrap().contains_key("engine"));
        let file = std::env::temp_dir().join(format!("baton-config-{}.toml", std::process::id()));
        std::fs::write(&file, config.to_file().unwrap()).unwrap();
        assert_eq!(BatonConfig::load(Some(&file), &[]).unwrap(), config);
        std::fs::remove_file(file).unwrap();
        let role_in_file = std::env::temp_dir().join(format!("baton-config-role-{}.toml", std::process::id()));
        std::fs::write(&role_in_file, "[decode.engine]\nbackend = \"cpu\"\nqueue_legs_max = 2\nmodel_dir = \"\"\n")
            .unwrap();
        let settings = [
            "engine.backend=modelled",
            "engine.queue_legs_max=4",
            "decode.engine.queue_legs_max=1",
            "engine.model_dir=m",
        ];
        let settings: Vec<String> = settings.iter().map(|text| (*text).to_owned()).collect();
        let config = BatonConfig::load(Some(&role_in_file), &settings).unwrap();
        assert_eq!(config.decode.engine.backend, engine::BackendKind::Modelled, "settings win over the file");
        assert_eq!((config.prefill.engine.queue_legs_max, config.decode.engine.queue_legs_max), (4, 1));
        assert_eq!(config.decode.engine.model_dir, Path::new("m"));
        let config = BatonConfig::load(Some(&role_in_file), &["engine.model_dir=m".to_owned()]).unwrap();
        let decode = &config.decode.engine;
        assert_eq!((decode.queue_legs_max, decode.model_dir.as_path()), (2, Path::new("m")));
        std::fs::remove_file(role_in_file).unwrap();
        let apart = load(&["decode.engine.model_dir=elsewhere"]).unwrap().check_deployment().unwrap_err();
        assert_eq!(apart.key, "decode.engine.model_dir");
        for (wrong, said) in [
            ("engine.block_tokens=17", "--set \"engine.block_tokens=17\", key engine.block_tokens: must be a multiple"),
            ("engine.kv_pool=true", "key engine.kv_pool: invalid type: boolean"),
            ("engine.kv_byte=1", "key engine.kv_byte: unknown field"),
            ("decode.engine.kv_blocks=4", "key decode.engine.kv_blocks: is decode.engine.kv_pool = \"N blocks\" now"),
            ("serve.mode=aggregated", "key serve.mode: is decode.role (`decode`, `aggregated` or `colocated`) now"),
            ("decode.engine.tp=3", "key decode.engine.tp"),
            ("engine.lease_span_ms=999999999999", "key engine.lease_span_ms: must not be above"),
            ("engine=3", "key engine: "),
            ("serve.transport=tcp", "--set \"serve.transport=tcp\", key serve.transport: is engine.transport now"),
            ("router.metrics_from=[]", "key router.metrics_from: is what `baton serve` does by itself"),
            ("engine=[\"/m\"]", "--set \"engine=[\\\"/m\\\"]\", key engine: is a list, expected a section"),
            ("decode.engine=[\"/m\"]", "key decode.engine: is a list, expected a section"),
            ("router.slo.classes=[[\"interactive\"]]", "key router.slo.classes[0]: is a value, expected a section"),
            ("engine={sequences_max=5}", "sets a whole section"),
            ("router.slo.classes={}", "--set \"router.slo.classes={}\" sets a whole section"),
            ("engine.dtype.x=1", "--set \"engine.dtype.x=1\", key engine.dtype: is a section, expected a value"),
            ("engine.transport=in_process", "expected one of `auto`, `ucx`, `tcp`, `shm`"),
            ("engine.lease_span_ms=0", "key engine.lease_span_ms: must be above 0"),
            ("router.request.attempts_max=0", "key router.request.attempts_max: must be above 0"),
            (
                "engine.lease_beat_ms=20000",
                "key engine.lease_beat_ms: must be above 0 and at most half of lease_span_ms",
            ),
        ] {
            let error = load(&[wrong]).unwrap_err().to_string();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }

    /// Found by a newcomer: relations were checked against unused defaults, and spaces kept a setting from roles.
    #[test]
    fn values_are_checked_as_workers_have_them() {
        let config = load(&[
            "engine.step_tokens_max=32",
            "prefill.engine.sequences_max=16",
            "decode.engine.sequences_max=16",
            "engine . queue_legs_max = 7",
        ]);
        let config = config.unwrap();
        assert_eq!([config.prefill.engine.queue_legs_max, config.decode.engine.queue_legs_max], [7, 7]);
        let of_all = load(&["engine.step_tokens_max=3"]).unwrap_err().to_string();
        assert!(of_all.contains("key engine.step_tokens_max: is 3, less than sequences_max 64"), "{of_all}");
        let of_one = load(&["engine.step_tokens_max=64", "decode.engine.sequences_max=65"]).unwrap_err().to_string();
        assert!(of_one.contains("key decode.engine.step_tokens_max: is 64"), "{of_one}");
    }

    #[test]
    fn a_deployment_serves_one_model() {
        let mut config = load(&["engine.model_dir=a", "router.model_dir=b"]).unwrap();
        let refused = config.check_deployment().unwrap_err();
        assert_eq!(
            (refused.key.as_str(), refused.problem.as_str()),
            ("router.model_dir", "differs from engine.model_dir (a), and a deployment serves one model")
        );
        config.set_model(Path::new("c"));
        assert_eq!(config.check_deployment(), Ok(()));
    }

    fn load(settings: &[&str]) -> Result<BatonConfig> {
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_string()).collect();
        BatonConfig::load(None, &settings)
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

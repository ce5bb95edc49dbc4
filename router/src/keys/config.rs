//! Section `[router.keys]` and the entries of a key file; knows no request.

use std::path::PathBuf;

use node::bind::check_name;
use node::config::Fault;
use node::key::KeyDigest;
use sched::quota::QuotaLimits;
use serde::{Deserialize, Serialize};

use crate::slo::SloConfig;

/// Most keys of one router: each request is compared with all of them.
pub(super) const KEYS_MAX: usize = 1_024;
/// Most models that one key may name.
const MODELS_MAX: usize = 256;

/// API keys of clients. Without file and list, whoever reaches the port may use the API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeysConfig {
    /// File with further keys, which is read again when it changes; empty for none.
    pub file: PathBuf,
    /// Keys.
    pub list: Vec<KeyConfig>,
}

/// One API key. A limit of 0 means none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// Name in logs and metrics.
    pub name: String,
    /// SHA-256 of the key.
    pub sha256: KeyDigest,
    /// Names of the models that the key may use; empty for all.
    #[serde(default)]
    pub models: Vec<String>,
    /// Requests per minute.
    #[serde(default)]
    pub requests_per_minute: u64,
    /// Tokens per minute, those of prompts and of answers together.
    #[serde(default)]
    pub tokens_per_minute: u64,
    /// Requests at a time.
    #[serde(default)]
    pub concurrency_max: u64,
    /// Latency class of requests that name none; empty for the router's default.
    #[serde(default)]
    pub slo_class: String,
}

impl KeyConfig {
    /// Makes a key that may do everything.
    #[must_use]
    pub fn unlimited(name: impl Into<String>, sha256: KeyDigest) -> KeyConfig {
        KeyConfig {
            name: name.into(),
            sha256,
            models: Vec::new(),
            requests_per_minute: 0,
            tokens_per_minute: 0,
            concurrency_max: 0,
            slo_class: String::new(),
        }
    }

    pub(super) fn limits(&self) -> QuotaLimits {
        let limit = |limit: u64| (limit > 0).then_some(limit);
        QuotaLimits {
            requests_per_minute: limit(self.requests_per_minute),
            tokens_per_minute: limit(self.tokens_per_minute),
            concurrency_max: limit(self.concurrency_max),
        }
    }

    fn check(&self, slo: &SloConfig) -> Result<(), (&'static str, String)> {
        if self.name.is_empty() {
            return Err(("name", "is empty".to_owned()));
        }
        check_name(&self.name).map_err(|problem| ("name", problem))?;
        if self.models.len() > MODELS_MAX {
            return Err(("models", format!("has {} entries, more than {MODELS_MAX}", self.models.len())));
        }
        if !self.slo_class.is_empty() {
            slo.resolve(Some(&self.slo_class)).map_err(|error| ("slo_class", error.message))?;
        }
        Ok(())
    }
}

impl KeysConfig {
    /// Returns true if a client needs a key.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        !self.file.as_os_str().is_empty() || !self.list.is_empty()
    }

    /// Checks the keys of the list.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn check(&self, slo: &SloConfig) -> Result<(), Fault> {
        check_all(&self.list, slo).map_err(|(place, field, problem)| {
            let key = if field.is_empty() { String::new() } else { format!("[{place}].{field}") };
            Fault::of(format!("router.keys.list{key}"), problem)
        })
    }
}

/// Checks that keys have names and digests of their own, and values that can be; an error is the place of an entry, a
/// field, and what is wrong with it.
pub(super) fn check_all(keys: &[KeyConfig], slo: &SloConfig) -> Result<(), (usize, &'static str, String)> {
    if keys.len() > KEYS_MAX {
        return Err((KEYS_MAX, "", format!("has {} keys, more than {KEYS_MAX}", keys.len())));
    }
    for (place, key) in keys.iter().enumerate() {
        key.check(slo).map_err(|(field, problem)| (place, field, problem))?;
        let earlier = &keys[..place];
        if earlier.iter().any(|other| other.name == key.name) {
            return Err((place, "name", format!("is {:?}, the name of an earlier key", key.name)));
        }
        if let Some(other) = earlier.iter().find(|other| other.sha256 == key.sha256) {
            return Err((place, "sha256", format!("is that of the key {:?}, too", other.name)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, secret: &str) -> KeyConfig {
        KeyConfig::unlimited(name, KeyDigest::of(secret.as_bytes()).unwrap())
    }

    #[test]
    fn a_fault_names_entry_and_field() {
        let check = |list: Vec<KeyConfig>| {
            let fault = KeysConfig { list, ..KeysConfig::default() }.check(&SloConfig::default()).unwrap_err();
            format!("{} {}", fault.key, fault.problem)
        };
        let said = check(vec![key("a", "1"), key("a", "2")]);
        assert_eq!(said, "router.keys.list[1].name is \"a\", the name of an earlier key");
        let said = check(vec![key("a", "1"), key("b", "1")]);
        assert_eq!(said, "router.keys.list[1].sha256 is that of the key \"a\", too");
        let said = check(vec![KeyConfig { slo_class: "gold".to_owned(), ..key("a", "1") }]);
        assert!(said.starts_with("router.keys.list[0].slo_class there is no latency class \"gold\""), "{said}");
        assert!(check(vec![key("", "1")]).starts_with("router.keys.list[0].name"));
        let many = (0..=KEYS_MAX).map(|number| key(&number.to_string(), &number.to_string())).collect();
        assert_eq!(check(many), "router.keys.list has 1025 keys, more than 1024");
    }

    #[test]
    fn a_configured_file_locks_even_if_it_names_nobody() {
        assert!(!KeysConfig::default().is_locked());
        assert!(KeysConfig { file: PathBuf::from("keys.toml"), ..KeysConfig::default() }.is_locked());
        assert!(KeysConfig { list: vec![key("a", "1")], ..KeysConfig::default() }.is_locked());
    }
}

//! Keeps the keys of a router those of its key file; knows no request.

use metrics::counter;
use node::names;
use node::watched::{LOOK_EVERY, Seen, Watched};
use tracing::{info, warn};

use super::config::{KeyConfig, KeysConfig, check_all};
use super::file::{FILE_BYTES_MAX, KeyFileError, parse};
use super::ring::Keys;
use crate::slo::SloConfig;

/// Keys of the configuration, those of its file included, and the file as it was read.
#[derive(Debug)]
pub(crate) struct KeySource {
    config: KeysConfig,
    slo: SloConfig,
    file: Option<Watched>,
}

impl KeySource {
    /// Reads the file for the first time, if there is one; returns the source and all keys.
    pub(crate) fn open(config: &KeysConfig, slo: &SloConfig) -> Result<(KeySource, Vec<KeyConfig>), KeyFileError> {
        let file = match config.file.as_os_str().is_empty() {
            true => None,
            false => Some(Watched::open(&config.file, FILE_BYTES_MAX).map_err(KeyFileError::Read)?),
        };
        let source = KeySource { config: config.clone(), slo: slo.clone(), file };
        let keys = source.keys()?;
        Ok((source, keys))
    }

    /// Returns the keys of the list and those that the file had at the last look.
    fn keys(&self) -> Result<Vec<KeyConfig>, KeyFileError> {
        let mut keys = self.config.list.clone();
        if let Some(file) = &self.file {
            let name = file.path().display().to_string();
            let seen: &Seen = file.seen();
            let bytes = seen.as_ref().map_err(|problem| KeyFileError::Read(problem.clone()))?;
            keys.extend(parse(&name, bytes, &self.slo)?);
            check_all(&keys, &self.slo).map_err(|(_, field, problem)| {
                KeyFileError::Read(format!("{name} and router.keys.list together: {field} {problem}"))
            })?;
        }
        Ok(keys)
    }
}

/// Looks at the key file for ever. A file that cannot be used changes nothing: its keys stay those that were read last.
pub(crate) async fn keep_up(mut source: KeySource, keys: Keys) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(file) = &mut source.file else { return };
        if !file.look().await {
            continue;
        }
        let outcome = match source.keys() {
            Ok(now) => {
                keys.replace(&now);
                info!(keys = now.len(), "API keys are read again");
                "ok"
            }
            Err(error) => {
                warn!(%error, "API keys stay as they were");
                "failed"
            }
        };
        counter!(names::RELOADS_TOTAL, "role" => "router", "of" => "keys", "outcome" => outcome).increment(1);
    }
}

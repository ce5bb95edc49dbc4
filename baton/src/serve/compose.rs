//! Turns one configuration into one per child process, with addresses and cores.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::child::{Launch, WorkerRole};
use crate::admin::AdminConfig;
use crate::config::{BatonConfig, Mode};

/// Time without a report that a worker gets beyond its own bound.
const SILENCE_MARGIN: Duration = Duration::from_secs(10);

/// Addresses of a child: port 0 until it has reported its ports, then always the same ones.
#[derive(Debug, Clone)]
pub struct Places {
    /// Address for sessions and peers.
    pub listen: String,
    /// Address for health and metrics.
    pub admin_listen: String,
}

impl Places {
    /// Returns addresses with free ports of this host.
    #[must_use]
    pub fn free() -> Places {
        Places { listen: "127.0.0.1:0".to_string(), admin_listen: "127.0.0.1:0".to_string() }
    }
}

/// Configurations of one deployment's children, written as files into one directory.
#[derive(Debug)]
pub struct Composer {
    config: BatonConfig,
    directory: PathBuf,
}

impl Composer {
    /// Prepares the children of `config`, with their files in `directory`.
    #[must_use]
    pub fn new(config: &BatonConfig, directory: &Path) -> Composer {
        let mut config = config.clone();
        // Workers serve no clients, and their admin ports are on loopback, where the router reads their metrics.
        config.router.keys = router::KeysConfig::default();
        config.admin = AdminConfig::default();
        Composer { config, directory: directory.to_path_buf() }
    }

    /// Writes the configuration of prefill worker `index`.
    pub fn prefill(&self, index: usize, places: &Places) -> Result<Launch> {
        let mut config = self.config.clone();
        let name = format!("prefill-{index}");
        config.prefill.name.clone_from(&name);
        config.prefill.listen.clone_from(&places.listen);
        config.prefill.admin_listen.clone_from(&places.admin_listen);
        self.place_on_cores(&mut config.prefill.engine, index);
        let silence_max = silence_max(config.prefill.start_stall_ms, 0);
        self.write(WorkerRole::Prefill, name, &config, silence_max)
    }

    /// Writes the configuration of decode worker `index`, which reads from `givers`; in aggregated mode there are none.
    pub fn decode(&self, index: usize, places: &Places, givers: &[String]) -> Result<Launch> {
        let mut config = self.config.clone();
        config.decode.listen.clone_from(&places.listen);
        config.decode.admin_listen.clone_from(&places.admin_listen);
        config.decode.peers = givers.to_vec();
        let name = format!("{}-{index}", config.decode.role.label());
        config.decode.name.clone_from(&name);
        self.place_on_cores(&mut config.decode.engine, self.prefill_workers() + index);
        let silence_max = silence_max(config.decode.start_stall_ms, config.decode.peers_wait_ms);
        self.write(WorkerRole::Decode, name, &config, silence_max)
    }

    /// Returns the number of prefill workers.
    #[must_use]
    pub fn prefill_workers(&self) -> usize {
        match self.config.mode() {
            Mode::Disaggregated => self.config.serve.prefill_workers as usize,
            Mode::Aggregated | Mode::Colocated => 0,
        }
    }

    /// Returns the number of decode (or aggregated) workers.
    #[must_use]
    pub fn decode_workers(&self) -> usize {
        self.config.serve.decode_workers as usize
    }

    fn place_on_cores(&self, engine: &mut engine::Config, worker: usize) {
        if engine.cores.is_empty() && engine.threads == 0 {
            engine.cores = cores_of(worker, self.prefill_workers() + self.decode_workers(), cores_of_host());
        }
    }

    fn write(&self, role: WorkerRole, name: String, config: &BatonConfig, silence_max: Duration) -> Result<Launch> {
        let path = self.directory.join(format!("{name}.toml"));
        let text = config.to_file().context("writing a child's configuration")?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(Launch { name, role, config: path, silence_max })
    }
}

/// Bound on silence from outside; a worker that notices its own stall needs some time to report it.
fn silence_max(start_stall_ms: u64, wait_ms: u64) -> Duration {
    Duration::from_millis(start_stall_ms).saturating_add(Duration::from_millis(wait_ms)).saturating_add(SILENCE_MARGIN)
}

fn cores_of_host() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Returns the cores of one of `workers` worker processes. All cores are divided between them; with four or more, one
/// is left for the router. With fewer cores than workers, they share.
fn cores_of(worker: usize, workers: usize, cores: usize) -> Vec<usize> {
    let first = usize::from(cores >= 4);
    let divided = cores - first;
    if workers > divided {
        return vec![first + worker % divided];
    }
    let start = worker * divided / workers;
    let end = (worker + 1) * divided / workers;
    (first + start..first + end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_divided_between_workers() {
        assert_eq!((cores_of(0, 2, 2), cores_of(1, 2, 2)), (vec![0], vec![1]));
        assert_eq!(cores_of(0, 1, 2), [0, 1]);
        assert_eq!((cores_of(0, 2, 8), cores_of(1, 2, 8)), (vec![1, 2, 3], vec![4, 5, 6, 7]));
        assert_eq!((cores_of(0, 3, 2), cores_of(2, 3, 2)), (vec![0], vec![0]));
        assert_eq!(cores_of(0, 2, 1), [0]);
    }
}

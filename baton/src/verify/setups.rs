//! Deployments that `verify` compares: modes, transports, chunkings, block sizes, batch mixes, ranks.

use std::path::Path;

use anyhow::Result;
use engine::model::Grid;

use crate::config::{BatonConfig, Mode};

/// Deployment and the load that it gets.
#[derive(Debug)]
pub struct Setup {
    /// Name in the table.
    pub name: &'static str,
    /// Requests at a time, which determines the batch mix.
    pub concurrency: usize,
    /// Who sets the shares of co-located workers.
    pub shares: Shares,
    mode: Mode,
    settings: &'static [&'static str],
}

/// Who sets the shares of co-located workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shares {
    /// The configuration.
    Configured,
    /// An operator, several times a second.
    Moving,
}

impl Setup {
    const fn aggregated(name: &'static str, concurrency: usize, settings: &'static [&'static str]) -> Setup {
        Setup { name, concurrency, shares: Shares::Configured, mode: Mode::Aggregated, settings }
    }

    const fn colocated(name: &'static str, concurrency: usize, settings: &'static [&'static str]) -> Setup {
        Setup { name, concurrency, shares: Shares::Configured, mode: Mode::Colocated, settings }
    }

    const fn disaggregated(name: &'static str, concurrency: usize, settings: &'static [&'static str]) -> Setup {
        Setup { name, concurrency, shares: Shares::Configured, mode: Mode::Disaggregated, settings }
    }
}

/// All setups; the first is the baseline.
const SETUPS: &[Setup] = &[
    Setup::aggregated("aggregated, one request at a time", 1, &["decode.engine.prefix_cache=off"]),
    Setup::aggregated("aggregated, batched", 16, &[]),
    Setup::aggregated(
        "aggregated, chunks of 64, blocks of 32",
        12,
        &["decode.engine.step_tokens_max=64", "decode.engine.block_tokens=32"],
    ),
    Setup::disaggregated(
        "disaggregated over ucx",
        16,
        &["prefill.engine.transport=ucx", "decode.engine.transport=ucx"],
    ),
    Setup::disaggregated("disaggregated over tcp", 8, &["prefill.engine.transport=tcp", "decode.engine.transport=tcp"]),
    Setup::disaggregated(
        "disaggregated over shm, chunks of 96",
        24,
        &["prefill.engine.transport=shm", "decode.engine.transport=shm", "prefill.engine.step_tokens_max=96"],
    ),
    Setup::disaggregated(
        "disaggregated over ucx, blocks 64 to 16",
        16,
        &["prefill.engine.transport=ucx", "decode.engine.transport=ucx", "prefill.engine.block_tokens=64"],
    ),
    Setup::disaggregated(
        "disaggregated over tcp, blocks 16 to 32",
        12,
        &["prefill.engine.transport=tcp", "decode.engine.transport=tcp", "decode.engine.block_tokens=32"],
    ),
    Setup::disaggregated(
        "disaggregated over shm, blocks 32 to 64",
        24,
        &[
            "prefill.engine.transport=shm",
            "decode.engine.transport=shm",
            "prefill.engine.block_tokens=32",
            "decode.engine.block_tokens=64",
        ],
    ),
    Setup::aggregated("aggregated, a pool that is too small", 32, &["decode.engine.kv_pool=104 blocks"]),
    Setup::disaggregated(
        "disaggregated, pools that are too small",
        32,
        &["prefill.engine.kv_pool=128 blocks", "decode.engine.kv_pool=104 blocks"],
    ),
    Setup::aggregated("aggregated, tp 2", 16, &["decode.engine.tp=2"]),
    Setup::aggregated("aggregated, tp 4 as processes", 16, &["decode.engine.tp=4", "decode.engine.ranks=processes"]),
    Setup::aggregated("aggregated, pp 2 as processes", 16, &["decode.engine.pp=2", "decode.engine.ranks=processes"]),
    Setup::disaggregated(
        "disaggregated, tp 2 to tp 2 x pp 2",
        16,
        &["prefill.engine.tp=2", "decode.engine.tp=2", "decode.engine.pp=2"],
    ),
    Setup::colocated("co-located, half each", 16, &["decode.engine.threads=2"]),
    Setup::colocated(
        "co-located, chunks of 64, oversubscribed",
        12,
        &["decode.engine.threads=2", "decode.engine.step_tokens_max=64", "decode.engine.share.policy=oversubscribed"],
    ),
    Setup::colocated(
        "co-located, a pool that is too small",
        32,
        &["decode.engine.threads=3", "decode.engine.kv_pool=104 blocks", "decode.engine.share.prefill_percent=20"],
    ),
    Setup {
        shares: Shares::Moving,
        ..Setup::colocated("co-located, shares that move", 16, &["decode.engine.threads=2"])
    },
    Setup::colocated("co-located, tp 2", 16, &["decode.engine.tp=2"]),
    Setup::aggregated("aggregated, one thread", 16, &["decode.engine.threads=1"]),
    Setup::aggregated("aggregated, two threads", 16, &["decode.engine.threads=2"]),
];

/// Returns all setups, the baseline first.
#[must_use]
pub fn all() -> &'static [Setup] {
    SETUPS
}

impl Setup {
    /// Returns true if the setup runs when only `mode` is asked for; the baseline always runs.
    #[must_use]
    pub fn is_wanted(&self, mode: Option<Mode>) -> bool {
        mode.is_none_or(|mode| mode == self.mode) || self.name == all()[0].name
    }

    /// Returns true if KV bytes must move.
    #[must_use]
    pub fn moves_kv(&self) -> bool {
        self.mode == Mode::Disaggregated
    }

    /// Returns true if the pool is to be so small that requests are preempted.
    #[must_use]
    pub fn preempts(&self) -> bool {
        self.settings.iter().any(|setting| setting.contains(".kv_pool="))
    }

    /// Returns why the ranks of this setup's configuration cannot serve a model, if so.
    pub fn unfit(&self, config: &BatonConfig, model: &Path) -> Result<Option<String>> {
        let spec = engine::model::ModelSpec::read(model)?;
        let workers = match self.mode {
            Mode::Disaggregated => vec![("prefill", &config.prefill.engine), ("decode", &config.decode.engine)],
            Mode::Aggregated | Mode::Colocated => vec![("decode", &config.decode.engine)],
        };
        let misfit = |(role, worker): (&str, &engine::Config)| {
            let checked = Grid { tensor: worker.tp, stages: worker.pp }.check(&spec);
            checked.err().map(|error| format!("{role}: {error}"))
        };
        Ok(workers.into_iter().find_map(misfit))
    }

    /// Returns the setup's configuration.
    pub fn config(&self, model: &Path, settings: &[String]) -> Result<BatonConfig> {
        // The setup's own settings name roles and come last, so nothing overrides them.
        let own = self.settings.iter().map(|setting| (*setting).to_string());
        let all: Vec<String> = settings.iter().cloned().chain(own).collect();
        let mut config = BatonConfig::load(None, &all)?;
        config.set_mode(self.mode);
        config.set_model(model);
        config.router.listen = "127.0.0.1:0".to_string();
        // A deployment per setup comes and goes: only errors are worth a line in the table.
        config.telemetry.log = "error".to_string();
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_baseline_is_part_of_every_mode() {
        for mode in [None, Some(Mode::Aggregated), Some(Mode::Colocated), Some(Mode::Disaggregated)] {
            let wanted: Vec<_> = all().iter().filter(|setup| setup.is_wanted(mode)).collect();
            assert_eq!(wanted[0].name, all()[0].name);
            let others = &wanted[1..];
            assert!(!others.is_empty() && others.iter().all(|setup| mode.is_none_or(|mode| mode == setup.mode)));
        }
    }
}

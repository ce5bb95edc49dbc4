//! The deployments that `verify` compares: modes, transports, chunkings, block sizes, batch mixes.

use std::path::Path;

use anyhow::Result;

use crate::config::{BatonConfig, Mode};

/// One deployment and how hard it is pushed.
#[derive(Debug)]
pub struct Setup {
    /// For the table.
    pub name: &'static str,
    /// Requests at a time; another number is another batch mix.
    pub concurrency: usize,
    mode: Mode,
    settings: &'static [&'static str],
}

/// The first is the baseline that all others are compared with.
#[must_use]
pub fn all() -> &'static [Setup] {
    const SETUPS: &[Setup] = &[
        Setup {
            name: "aggregated, one request at a time",
            concurrency: 1,
            mode: Mode::Aggregated,
            settings: &["decode.engine.prefix_cache=off"],
        },
        Setup { name: "aggregated, batched", concurrency: 16, mode: Mode::Aggregated, settings: &[] },
        Setup {
            name: "aggregated, chunks of 64, blocks of 32",
            concurrency: 12,
            mode: Mode::Aggregated,
            settings: &["decode.engine.step_tokens_max=64", "decode.engine.block_tokens=32"],
        },
        Setup {
            name: "disaggregated over ucx",
            concurrency: 16,
            mode: Mode::Disaggregated,
            settings: &["serve.transport=ucx"],
        },
        Setup {
            name: "disaggregated over tcp",
            concurrency: 8,
            mode: Mode::Disaggregated,
            settings: &["serve.transport=tcp"],
        },
        Setup {
            name: "disaggregated over shm, chunks of 96",
            concurrency: 24,
            mode: Mode::Disaggregated,
            settings: &["serve.transport=shm", "prefill.engine.step_tokens_max=96"],
        },
        Setup {
            name: "aggregated, a pool that is too small",
            concurrency: 32,
            mode: Mode::Aggregated,
            settings: &["decode.engine.kv_blocks=104"],
        },
        Setup {
            name: "disaggregated, pools that are too small",
            concurrency: 32,
            mode: Mode::Disaggregated,
            settings: &["prefill.engine.kv_blocks=128", "decode.engine.kv_blocks=104"],
        },
    ];
    SETUPS
}

impl Setup {
    /// Whether it runs when only `mode` is asked for; the baseline always does.
    #[must_use]
    pub fn is_wanted(&self, mode: Option<Mode>) -> bool {
        mode.is_none_or(|mode| mode == self.mode) || std::ptr::eq(self, &all()[0])
    }

    /// Whether KV bytes must have moved in it.
    #[must_use]
    pub fn moves_kv(&self) -> bool {
        self.mode == Mode::Disaggregated
    }

    /// Its configuration.
    pub fn config(&self, model: &Path, settings: &[String]) -> Result<BatonConfig> {
        let own = self.settings.iter().map(|setting| (*setting).to_string());
        let all: Vec<String> = own.chain(settings.iter().cloned()).collect();
        let mut config = BatonConfig::load(None, &all)?;
        config.serve.mode = self.mode;
        config.serve.model_dir = model.to_path_buf();
        config.router.listen = "127.0.0.1:0".to_string();
        // A deployment per setup comes and goes: only what is wrong is worth a line between the rows of the table.
        config.telemetry.log = "error".to_string();
        Ok(config)
    }
}

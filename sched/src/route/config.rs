//! Configuration of routes; knows no worker.

use crate::cluster::{BreakerConfig, PairPause};

/// Routes that a router may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteConfig {
    /// Prompts up to this long are prefilled by the decode worker itself, because a hand-off does not pay; 0 is off.
    pub local_prefill_tokens_max: u32,
    /// Whether decode workers prefill any prompt while no pair is up.
    pub local_prefill: LocalPrefill,
    /// Pause of pairs that have lost a hand-off.
    pub pair_pause: PairPause,
    /// When workers that fail are avoided.
    pub breaker: BreakerConfig,
}

/// Handling of a leg while no pair is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalPrefill {
    /// The leg waits for a pair.
    Never,
    /// A decode worker runs the leg whole.
    WithoutPair,
}

impl Default for RouteConfig {
    fn default() -> Self {
        RouteConfig {
            local_prefill_tokens_max: 0,
            local_prefill: LocalPrefill::Never,
            pair_pause: PairPause::default(),
            breaker: BreakerConfig::default(),
        }
    }
}

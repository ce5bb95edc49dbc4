//! Which routes a router may take; knows no worker.

use crate::cluster::PairPause;

/// Which routes a router may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteConfig {
    /// Prompts up to this long are prefilled by the decode worker itself, because a hand-off does not pay; 0 is off.
    pub local_prefill_tokens_max: u32,
    /// Whether decode workers prefill any prompt while no pair is up.
    pub local_prefill: LocalPrefill,
    /// How long a pair is avoided that has lost a hand-off.
    pub pair_pause: PairPause,
}

/// What happens to a leg while no pair is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalPrefill {
    /// It waits for one.
    Never,
    /// A decode worker runs it whole.
    WithoutPair,
}

impl Default for RouteConfig {
    fn default() -> Self {
        RouteConfig {
            local_prefill_tokens_max: 0,
            local_prefill: LocalPrefill::Never,
            pair_pause: PairPause::default(),
        }
    }
}

//! Which routes exist for a leg: roles, links and sizes decide; knows no preference.

use super::{Output, Route, RouteAsk};
use crate::cluster::{Cluster, PairPause, Worker};
use crate::{Role, WorkerId};

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

/// All routes for a leg, in a fixed order.
pub(super) fn routes(cluster: &Cluster, config: &RouteConfig, ask: &RouteAsk<'_>) -> Vec<Route> {
    let mut routes: Vec<Route> = match ask.output {
        Output::FirstToken => whole(cluster, Role::Prefill, ask).collect(),
        Output::Sequence if ask.prefill_tokens <= config.local_prefill_tokens_max => {
            whole(cluster, Role::Decode, ask).collect()
        }
        Output::Sequence => cluster.of_role(Role::Prefill).flat_map(|giver| readers(cluster, giver.id, ask)).collect(),
    };
    routes.extend(whole(cluster, Role::Aggregated, ask));
    if routes.is_empty() && config.local_prefill == LocalPrefill::WithoutPair {
        routes.extend(whole(cluster, Role::Decode, ask));
    }
    routes
}

/// All workers that can run a leg from its prompt to its end.
pub(super) fn local(cluster: &Cluster, ask: &RouteAsk<'_>) -> Vec<Route> {
    whole(cluster, Role::Decode, ask).chain(whole(cluster, Role::Aggregated, ask)).collect()
}

/// All pairs with this giver.
pub(super) fn readers(cluster: &Cluster, giver: WorkerId, ask: &RouteAsk<'_>) -> Vec<Route> {
    if !cluster.get(giver).is_some_and(|giver| holds(giver, ask.prefill_tokens)) {
        return Vec::new();
    }
    let fits = cluster.of_role(Role::Decode).filter(|reader| holds(reader, ask.sequence_tokens));
    fits.filter(|reader| cluster.link(giver, reader.id).is_some())
        .map(|reader| Route::Pair { giver, reader: reader.id })
        .collect()
}

fn whole(cluster: &Cluster, role: Role, ask: &RouteAsk<'_>) -> impl Iterator<Item = Route> {
    let tokens = ask.sequence_tokens;
    cluster.of_role(role).filter(move |worker| holds(worker, tokens)).map(|worker| Route::Whole(worker.id))
}

fn holds(worker: &Worker, tokens: u32) -> bool {
    tokens <= worker.sequence_tokens_max()
}

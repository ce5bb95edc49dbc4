//! Which of several routes to prefer; knows loads, not requests.

use std::collections::BTreeMap;

use super::Route;
use crate::WorkerId;
use crate::cluster::Cluster;

/// A preference among routes. Deterministic: the same cluster and the same history give the same choice.
pub trait RoutePolicy: Send {
    /// Name in the configuration and in logs.
    fn name(&self) -> &'static str;

    /// One of the candidates, or `None` when there is none. Candidates come in a fixed order without repeats.
    fn choose(&mut self, cluster: &Cluster, candidates: &[Route]) -> Option<Route>;
}

/// The route whose prefill queue is shortest in tokens, then whose decode side has the fewest sequences. Ties go to
/// the worker that joined first.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeastLoaded;

/// The worker that was chosen longest ago, on either side.
#[derive(Debug, Clone, Default)]
pub struct RoundRobin {
    turns: BTreeMap<WorkerId, u64>,
    turn: u64,
}

impl RoutePolicy for LeastLoaded {
    fn name(&self) -> &'static str {
        "least_loaded"
    }

    fn choose(&mut self, cluster: &Cluster, candidates: &[Route]) -> Option<Route> {
        let waiting = |id| cluster.get(id).map_or(u64::MAX, |worker| worker.waiting_tokens());
        let sequences = |id| cluster.get(id).map_or(u64::MAX, |worker| worker.sequences());
        let load = |route: &Route| match *route {
            Route::Pair { giver, reader } => (waiting(giver), sequences(reader)),
            Route::Whole(worker) => (waiting(worker), sequences(worker)),
        };
        candidates.iter().copied().min_by_key(|route| (load(route), *route))
    }
}

impl RoutePolicy for RoundRobin {
    fn name(&self) -> &'static str {
        "round_robin"
    }

    fn choose(&mut self, cluster: &Cluster, candidates: &[Route]) -> Option<Route> {
        let last = |id| self.turns.get(&id).copied().unwrap_or(0);
        let age = |route: &Route| match *route {
            Route::Pair { giver, reader } => (last(giver), last(reader)),
            Route::Whole(worker) => (last(worker), 0),
        };
        let chosen = candidates.iter().copied().min_by_key(|route| (age(route), *route))?;
        self.turns.retain(|id, _| cluster.get(*id).is_some());
        self.turn += 1;
        self.turns.extend(chosen.workers().map(|id| (id, self.turn)));
        Some(chosen)
    }
}

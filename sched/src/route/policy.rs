//! Preferences among routes; knows no journey.

use std::collections::{BTreeMap, BTreeSet};

use super::{Chosen, Open, Route};
use crate::cluster::{Kind, Worker};
use crate::{Role, WorkerId};

/// Preference among routes. Deterministic: the same cluster and the same history give the same choice.
pub trait RoutePolicy: Send {
    /// Name in the configuration and in logs.
    fn name(&self) -> &'static str;

    /// Takes in that a worker has come or gone; everything else is read from the cluster in `choose`.
    fn changed(&mut self, change: &Change<'_>);

    /// Chooses one of the routes that are open to a leg; `None` when there is none.
    fn choose(&mut self, open: &Open<'_>) -> Option<Chosen>;
}

/// Change in the set of workers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change<'a> {
    /// The worker is up.
    Joined(&'a Worker),
    /// The worker is gone.
    Left(&'a Worker),
}

/// Prefers the route with the shortest prefill queue in tokens, then with the fewest sequences on its decode side. Of
/// givers with equal queues the few with the fewest sequences are compared; further ties go to the first to join.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeastLoaded;

/// Most givers with equally short queues that are compared. One is enough if every reader reads from each.
const EQUAL_GIVERS_MAX: usize = 8;

/// Prefers the worker that was chosen longest ago, on either side.
#[derive(Debug, Clone, Default)]
pub struct RoundRobin {
    turns: BTreeMap<WorkerId, u64>,
    /// The same turns by kind and role, longest ago first.
    order: BTreeMap<(Kind, Role), BTreeSet<(u64, WorkerId)>>,
    turn: u64,
}

impl RoutePolicy for LeastLoaded {
    fn name(&self) -> &'static str {
        "least_loaded"
    }

    fn changed(&mut self, _: &Change<'_>) {}

    fn choose(&mut self, open: &Open<'_>) -> Option<Chosen> {
        let pair = shortest_pair(open);
        let alone = open.alone().filter_map(|mut workers| workers.next());
        let alone = alone.map(|worker| ((worker.waiting_tokens(), worker.sequences()), Route::Whole(worker.id)));
        let (_, route) = pair.into_iter().chain(alone).min()?;
        Some(Chosen { route, reason: "shortest queue" })
    }
}

/// Best pair by (prompt tokens at its giver, sequences at its reader), of the first few givers that have a reader.
fn shortest_pair(open: &Open<'_>) -> Option<((u64, u64), Route)> {
    let mut best: Option<((u64, u64), Route)> = None;
    let mut compared = 0;
    for giver in open.givers() {
        let waiting = giver.waiting_tokens();
        if compared == EQUAL_GIVERS_MAX || best.is_some_and(|((least, _), _)| waiting > least) {
            break;
        }
        if let Some(reader) = open.readers(giver).next() {
            compared += 1;
            let pair = ((waiting, reader.sequences()), Route::Pair { giver: giver.id, reader: reader.id });
            best = Some(best.map_or(pair, |best| best.min(pair)));
        }
    }
    best
}

impl RoutePolicy for RoundRobin {
    fn name(&self) -> &'static str {
        "round_robin"
    }

    fn changed(&mut self, change: &Change<'_>) {
        match change {
            Change::Joined(worker) => {
                self.turns.insert(worker.id, 0);
                self.order.entry((worker.info.kind(), worker.info.role)).or_default().insert((0, worker.id));
            }
            Change::Left(worker) => {
                let turn = self.turns.remove(&worker.id).unwrap_or(0);
                let key = (worker.info.kind(), worker.info.role);
                if let Some(order) = self.order.get_mut(&key) {
                    order.remove(&(turn, worker.id));
                    if order.is_empty() {
                        self.order.remove(&key);
                    }
                }
            }
        }
    }

    fn choose(&mut self, open: &Open<'_>) -> Option<Chosen> {
        let givers = self.of(open, Role::Prefill).filter(|_| open.has_pairs());
        let pair = givers.filter(|(_, giver)| open.gives(*giver)).find_map(|(given, giver)| {
            let (read, reader) = self.of(open, Role::Decode).find(|(_, reader)| open.reads(giver, *reader))?;
            Some(((given, read), Route::Pair { giver, reader }))
        });
        let alone = Role::ALL.into_iter().filter(|role| open.may_run_alone(*role)).filter_map(|role| {
            let (turn, worker) = self.of(open, role).find(|(_, worker)| open.runs_alone(*worker))?;
            Some(((turn, 0), Route::Whole(worker)))
        });
        let (_, route) = pair.into_iter().chain(alone).min()?;
        self.turn += 1;
        let turn = self.turn;
        route.workers().for_each(|worker| self.takes_turn(open, worker, turn));
        Some(Chosen { route, reason: "its turn" })
    }
}

impl RoundRobin {
    /// Workers of a role, the one that was chosen longest ago first.
    fn of<'a>(&'a self, open: &Open<'_>, role: Role) -> impl Iterator<Item = (u64, WorkerId)> + use<'a> {
        self.order.get(&(open.kind(), role)).into_iter().flatten().copied()
    }

    fn takes_turn(&mut self, open: &Open<'_>, worker: WorkerId, turn: u64) {
        let (Some(role), Some(last)) =
            (open.cluster().get(worker).map(|worker| worker.info.role), self.turns.insert(worker, turn))
        else {
            return;
        };
        if let Some(order) = self.order.get_mut(&(open.kind(), role)) {
            order.remove(&(last, worker));
            order.insert((turn, worker));
        }
    }
}

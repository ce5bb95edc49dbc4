//! Where a leg runs: which routes exist and which of them a policy prefers; knows no request beyond its size.

mod candidates;
mod lack;
mod policy;

pub use candidates::{LocalPrefill, RouteConfig};
pub use lack::Lack;
pub use policy::{LeastLoaded, RoundRobin, RoutePolicy};

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::cluster::{Assigned, Cluster, Intake};
use crate::{InstanceId, Time, WorkerId};

/// A way to serve a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// Prefill at `giver`, then hand over to `reader`.
    Pair {
        /// Who computes the prompt.
        giver: WorkerId,
        /// Who generates.
        reader: WorkerId,
    },
    /// Everything at one worker.
    Whole(WorkerId),
}

/// What has to be served.
#[derive(Debug, Clone, Copy)]
pub struct RouteAsk<'a> {
    /// When it is asked.
    pub now: Time,
    /// Tokens to prefill.
    pub prefill_tokens: u32,
    /// Tokens of the sequence when it has reached its limit.
    pub sequence_tokens: u32,
    /// Sequences it will decode as.
    pub choices: u32,
    /// Whether anything is left after the first token.
    pub output: Output,
    /// Workers to use only if there is no other.
    pub avoid: &'a BTreeSet<WorkerId>,
}

/// How much a leg generates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// One token per choice: nothing is left to decode after prefill.
    FirstToken,
    /// More than one token.
    Sequence,
}

/// How a hand-off went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// The reader generates from what it has read.
    Arrived,
    /// It could not be read.
    Lost,
}

/// How a giver is reached by its readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Giver {
    /// Its process incarnation.
    pub instance: InstanceId,
    /// Where its peer service listens.
    pub address: Arc<str>,
}

/// What a journey asks its router for.
pub trait Pick {
    /// A route for a leg, or `None` while there is none. The work counts as assigned from now on.
    fn route(&mut self, ask: &RouteAsk<'_>) -> Option<Route>;

    /// Another reader for a leg that already prefills at `giver`.
    fn reader(&mut self, giver: WorkerId, ask: &RouteAsk<'_>) -> Option<WorkerId>;

    /// A worker that decodes and prefills the leg by itself, whatever the settings say about that.
    fn local(&mut self, ask: &RouteAsk<'_>) -> Option<Route>;

    /// Whether `reader` takes new legs from `giver` now.
    fn takes(&self, giver: WorkerId, reader: WorkerId) -> bool;

    /// How a hand-off between the two went, for whoever is to be sent that way next.
    fn learn(&mut self, now: Time, giver: WorkerId, reader: WorkerId, passage: Passage);

    /// How readers reach this giver; `None` once it is gone.
    fn giver(&self, giver: WorkerId) -> Option<Giver>;

    /// What is missing while there is no route.
    fn lack(&self) -> Lack;
}

/// The live implementation of [`Pick`]: a cluster, a policy and the router's settings.
pub struct Picker<'a> {
    /// The workers that are up.
    pub cluster: &'a mut Cluster,
    /// Which route to prefer.
    pub policy: &'a mut dyn RoutePolicy,
    /// Which routes exist.
    pub config: &'a RouteConfig,
}

impl Pick for Picker<'_> {
    fn route(&mut self, ask: &RouteAsk<'_>) -> Option<Route> {
        self.assigned(&candidates::routes(self.cluster, self.config, ask), ask)
    }

    fn reader(&mut self, giver: WorkerId, ask: &RouteAsk<'_>) -> Option<WorkerId> {
        match self.choose(&candidates::readers(self.cluster, giver, ask), ask)? {
            Route::Pair { reader, .. } | Route::Whole(reader) => {
                self.cluster.assign(reader, sequences(ask));
                self.cluster.handoff_tried(ask.now, giver, reader);
                Some(reader)
            }
        }
    }

    fn local(&mut self, ask: &RouteAsk<'_>) -> Option<Route> {
        self.assigned(&candidates::local(self.cluster, ask), ask)
    }

    fn takes(&self, giver: WorkerId, reader: WorkerId) -> bool {
        let is_open = self.cluster.get(reader).is_some_and(|reader| reader.intake == Intake::Open);
        is_open && self.cluster.link(giver, reader).is_some()
    }

    fn learn(&mut self, now: Time, giver: WorkerId, reader: WorkerId, passage: Passage) {
        match passage {
            Passage::Arrived => self.cluster.handoff_arrived(giver, reader),
            Passage::Lost => self.cluster.handoff_lost(now, giver, reader, self.config.pair_pause),
        }
    }

    fn giver(&self, giver: WorkerId) -> Option<Giver> {
        let info = &self.cluster.get(giver)?.info;
        Some(Giver { instance: info.instance, address: Arc::clone(&info.peer_address) })
    }

    fn lack(&self) -> Lack {
        Lack::of(self.cluster)
    }
}

impl Picker<'_> {
    /// One of the routes; the work counts from now on.
    fn assigned(&mut self, all: &[Route], ask: &RouteAsk<'_>) -> Option<Route> {
        let route = self.choose(all, ask)?;
        let prefill = Assigned { prefill_tokens: ask.prefill_tokens.into(), sequences: 0 };
        match route {
            Route::Pair { giver, reader } => {
                self.cluster.assign(giver, prefill);
                self.cluster.assign(reader, sequences(ask));
                self.cluster.handoff_tried(ask.now, giver, reader);
            }
            Route::Whole(worker) => {
                self.cluster.assign(worker, prefill);
                self.cluster.assign(worker, sequences(ask));
            }
        }
        Some(route)
    }

    /// What nobody has complained about; else what only other requests have; else anything.
    fn choose(&mut self, all: &[Route], ask: &RouteAsk<'_>) -> Option<Route> {
        let welcome = |route: &Route| !route.workers().any(|id| ask.avoid.contains(&id));
        let sound = |route: &Route| match *route {
            Route::Pair { giver, reader } => !self.cluster.is_strained(ask.now, giver, reader),
            Route::Whole(_) => true,
        };
        let tier = |keep: &dyn Fn(&Route) -> bool| {
            let kept: Vec<Route> = all.iter().copied().filter(keep).collect();
            (!kept.is_empty()).then_some(kept)
        };
        let best = tier(&|route| welcome(route) && sound(route));
        let candidates = best.or_else(|| tier(&welcome)).or_else(|| tier(&sound)).or_else(|| tier(&|_| true))?;
        self.policy.choose(self.cluster, &candidates)
    }
}

fn sequences(ask: &RouteAsk<'_>) -> Assigned {
    Assigned { prefill_tokens: 0, sequences: ask.choices.into() }
}

impl Route {
    /// The workers it uses.
    pub fn workers(self) -> impl Iterator<Item = WorkerId> {
        let (first, second) = match self {
            Route::Pair { giver, reader } => (giver, Some(reader)),
            Route::Whole(worker) => (worker, None),
        };
        std::iter::once(first).chain(second)
    }
}

#[cfg(test)]
mod tests;

//! Where a leg runs: which routes exist and which of them a policy prefers; knows no journey.

mod config;
mod lack;
mod open;
mod policy;

pub use config::{LocalPrefill, RouteConfig};
pub use lack::Lack;
pub use open::Open;
pub use policy::{Change, LeastLoaded, RoundRobin, RoutePolicy};

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::block::{ContentHash, HASH_UNIT_TOKENS, HashChain};
use crate::cluster::{Assigned, Cluster, Intake, Kind, WorkerInfo};
use crate::{InstanceId, ModelId, Slo, Span, Time, TokenId, WorkerId};
use open::{Alone, Pairs, Seats, Tier};

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

/// A route that a policy prefers, and in a word why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// The route.
    pub route: Route,
    /// Why, for logs and metrics.
    pub reason: &'static str,
}

/// What has to be served.
#[derive(Debug, Clone, Copy)]
pub struct RouteAsk<'a> {
    /// When it is asked.
    pub now: Time,
    /// By which model.
    pub model: ModelId,
    /// By which workers it has begun: it goes on at one of their kind. `None` may begin anywhere.
    pub begun: Option<Kind>,
    /// The tokens to prefill begin with these.
    pub prompt: &'a [TokenId],
    /// Tokens to prefill.
    pub prefill_tokens: u32,
    /// Tokens of the sequence when it has reached its limit.
    pub sequence_tokens: u32,
    /// Sequences it will decode as.
    pub choices: u32,
    /// Whether anything is left after the first token.
    pub output: Output,
    /// What it was promised.
    pub slo: Slo,
    /// How much of its TTFT target is left; `None` once its client has a token, or if it has no target.
    pub ttft_slack: Option<Span>,
    /// Workers to use only if there is no other.
    pub avoid: &'a BTreeSet<WorkerId>,
}

impl RouteAsk<'_> {
    /// Names of the leading units of its prompt, as workers that were told `salt` name them in their prefix caches.
    #[must_use]
    pub fn prefix_hashes(&self, salt: u64) -> Vec<ContentHash> {
        let units = self.prompt.len() as u32 / HASH_UNIT_TOKENS;
        let mut chain = HashChain::new(salt, HASH_UNIT_TOKENS);
        chain.first(units, |position| self.prompt[position as usize]).to_vec()
    }
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
    fn route(&mut self, ask: &RouteAsk<'_>) -> Option<Chosen>;

    /// Another reader for a leg that already prefills at `giver`.
    fn reader(&mut self, giver: WorkerId, ask: &RouteAsk<'_>) -> Option<WorkerId>;

    /// A worker that decodes and prefills the leg by itself, whatever the settings say about that.
    fn local(&mut self, ask: &RouteAsk<'_>) -> Option<Chosen>;

    /// Whether `reader` takes new legs from `giver` now.
    fn takes(&self, giver: WorkerId, reader: WorkerId) -> bool;

    /// How a hand-off between the two went, for whoever is to be sent that way next.
    fn learn(&mut self, now: Time, giver: WorkerId, reader: WorkerId, passage: Passage);

    /// How readers reach this giver; `None` once it is gone.
    fn giver(&self, giver: WorkerId) -> Option<Giver>;

    /// Which other workers give the same bits as this one; `None` once it is gone.
    fn kind(&self, worker: WorkerId) -> Option<Kind>;

    /// What is missing while there is no route for this model, or for what has begun at workers of a kind.
    fn lack(&self, model: ModelId, begun: Option<Kind>) -> Lack;
}

/// The live implementation of [`Pick`]: the workers that are up, a preference among routes, and which routes exist.
pub struct Routing {
    /// Workers join and leave through [`Routing::join`] and [`Routing::leave`], so that the policy hears of it.
    pub cluster: Cluster,
    policy: Box<dyn RoutePolicy>,
    config: RouteConfig,
}

impl Routing {
    /// Nobody is up yet.
    #[must_use]
    pub fn new(policy: Box<dyn RoutePolicy>, config: RouteConfig) -> Routing {
        Routing { cluster: Cluster::default(), policy, config }
    }

    /// A worker has joined.
    pub fn join(&mut self, id: WorkerId, info: WorkerInfo) {
        self.cluster.join(id, info);
        if let Some(worker) = self.cluster.get(id) {
            self.policy.changed(&Change::Joined(worker));
        }
    }

    /// A worker is lost or has left.
    pub fn leave(&mut self, id: WorkerId) {
        if let Some(worker) = self.cluster.leave(id) {
            self.policy.changed(&Change::Left(&worker));
        }
    }

    /// One of the routes; the work counts from now on.
    fn assigned(&mut self, pairs: Pairs, alone: Alone, ask: &RouteAsk<'_>) -> Option<Chosen> {
        let chosen = self.choose(pairs, alone, ask)?;
        let prefill = Assigned { prefill_tokens: ask.prefill_tokens.into(), sequences: 0 };
        match chosen.route {
            Route::Pair { giver, reader } => {
                self.cluster.assign(giver, prefill);
                self.cluster.assign(reader, sequences(ask));
                self.cluster.handoff_tried(ask.now, giver, reader);
            }
            Route::Whole(worker) => {
                self.cluster.assign(worker, Assigned { sequences: ask.choices.into(), ..prefill });
            }
        }
        Some(chosen)
    }

    /// What nobody has complained about; else what only other requests have; else anything.
    fn choose(&mut self, pairs: Pairs, alone: Alone, ask: &RouteAsk<'_>) -> Option<Chosen> {
        let tiers = match ask.avoid.is_empty() && !self.cluster.has_strains() {
            true => &[Tier::Any][..],
            false => &Tier::ALL,
        };
        let kind = self.kind_for(pairs, ask)?;
        let policy = &mut self.policy;
        let seats: &[Seats] = if ask.choices > 1 { &[Seats::ForAll, Seats::Any] } else { &[Seats::Any] };
        seats.iter().find_map(|seats| {
            let open = |tier: &Tier| Open::new(&self.cluster, (ask, kind, *seats), (pairs, alone), *tier);
            tiers.iter().find_map(|tier| policy.choose(&open(tier)))
        })
    }

    /// The workers that may serve: those of the giver's kind, of the kind that has begun, or of the one that serves.
    fn kind_for(&self, pairs: Pairs, ask: &RouteAsk<'_>) -> Option<Kind> {
        match pairs {
            Pairs::Of(giver) => self.kind(giver),
            Pairs::None | Pairs::All => ask.begun.or_else(|| self.cluster.serving(ask.model)),
        }
    }
}

impl Pick for Routing {
    fn route(&mut self, ask: &RouteAsk<'_>) -> Option<Chosen> {
        let (pairs, alone) = match ask.output {
            Output::FirstToken => (Pairs::None, Alone::PREFILL),
            Output::Sequence if ask.prefill_tokens <= self.config.local_prefill_tokens_max => {
                (Pairs::None, Alone::DECODE)
            }
            Output::Sequence => (Pairs::All, Alone::AGGREGATED),
        };
        let chosen = self.assigned(pairs, alone, ask);
        match self.config.local_prefill {
            LocalPrefill::Never => chosen,
            LocalPrefill::WithoutPair => chosen.or_else(|| self.assigned(Pairs::None, Alone::DECODE, ask)),
        }
    }

    fn reader(&mut self, giver: WorkerId, ask: &RouteAsk<'_>) -> Option<WorkerId> {
        match self.choose(Pairs::Of(giver), Alone::NOBODY, ask)?.route {
            Route::Pair { reader, .. } | Route::Whole(reader) => {
                self.cluster.assign(reader, sequences(ask));
                self.cluster.handoff_tried(ask.now, giver, reader);
                Some(reader)
            }
        }
    }

    fn local(&mut self, ask: &RouteAsk<'_>) -> Option<Chosen> {
        self.assigned(Pairs::None, Alone::DECODE, ask)
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

    fn kind(&self, worker: WorkerId) -> Option<Kind> {
        Some(self.cluster.get(worker)?.info.kind())
    }

    fn lack(&self, model: ModelId, begun: Option<Kind>) -> Lack {
        match begun.zip(self.cluster.serving(model)) {
            Some((begun, serving)) if begun != serving && self.cluster.can_serve(begun) => Lack::Room,
            Some((begun, serving)) if begun != serving => Lack::Kind,
            Some(_) | None => Lack::of(&self.cluster, model),
        }
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

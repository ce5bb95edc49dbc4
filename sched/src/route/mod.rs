//! Routes of legs: which exist and which of them a policy prefers; knows no journey.

mod config;
mod lack;
mod open;
mod policy;

pub use config::{LocalPrefill, RouteConfig};
pub use lack::Lack;
pub use open::Open;
pub use policy::{Change, LeastLoaded, RoundRobin, RoutePolicy};

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::block::{ContentHash, HASH_UNIT_TOKENS, HashChain};
use crate::cluster::{Assigned, Cluster, Conduct, Intake, Kind, Treatment, WorkerInfo};
use crate::{InstanceId, ModelId, Slo, Span, Time, TokenId, WorkerId};
use open::{Alone, Pairs, Seats, Tier};

/// A way to serve a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// Prefill at `giver`, then hand over to `reader`.
    Pair {
        /// Worker that computes the prompt.
        giver: WorkerId,
        /// Worker that generates.
        reader: WorkerId,
    },
    /// Everything at one worker.
    Whole(WorkerId),
}

/// Route that a policy prefers, with the reason in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// The route.
    pub route: Route,
    /// Reason, for logs and metrics.
    pub reason: &'static str,
}

/// Leg that needs a route.
#[derive(Debug, Clone, Copy)]
pub struct RouteAsk<'a> {
    /// Time of the question.
    pub now: Time,
    /// Model that is to serve it.
    pub model: ModelId,
    /// Kind of the workers at which it has begun and must go on; `None` may begin anywhere.
    pub begun: Option<Kind>,
    /// Prompt, with which the tokens to prefill begin.
    pub prompt: &'a [TokenId],
    /// Tokens to prefill.
    pub prefill_tokens: u32,
    /// Tokens of the sequence when it has reached its limit.
    pub sequence_tokens: u32,
    /// Number of sequences that it will decode as.
    pub choices: u32,
    /// Whether anything is left after the first token.
    pub output: Output,
    /// Latency targets.
    pub slo: Slo,
    /// Time left of its TTFT target; `None` once its client has a token, or if it has no target.
    pub ttft_slack: Option<Span>,
    /// Workers that refused the request or failed it.
    pub avoid: &'a BTreeSet<WorkerId>,
    /// Whether these may be used.
    pub avoided: Avoided,
}

/// Whether workers that a leg avoids may be used for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Avoided {
    /// If there is no other.
    LastResort,
    /// They may not.
    Never,
}

impl RouteAsk<'_> {
    /// Content hashes of the leading units of its prompt, as in prefix caches of workers that were told `salt`.
    #[must_use]
    pub fn prefix_hashes(&self, salt: u64) -> Vec<ContentHash> {
        let units = self.prompt.len() as u32 / HASH_UNIT_TOKENS;
        let mut chain = HashChain::new(salt, HASH_UNIT_TOKENS);
        chain.first(units, |position| self.prompt[position as usize]).to_vec()
    }
}

/// Amount of output that a leg generates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// One token per choice: nothing is left to decode after prefill.
    FirstToken,
    /// More than one token.
    Sequence,
}

/// Outcome of a hand-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// The reader generates from the KV that it has read.
    Arrived,
    /// The KV could not be read.
    Lost,
}

/// Address by which readers reach a giver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Giver {
    /// Incarnation of its process.
    pub instance: InstanceId,
    /// Address of its peer service.
    pub address: Arc<str>,
}

/// Questions that a journey asks its router.
pub trait Pick {
    /// Returns a route for a leg, whose work counts as assigned from now on, or `None` while there is none.
    fn route(&mut self, ask: &RouteAsk<'_>) -> Option<Chosen>;

    /// Returns another reader for a leg that already prefills at `giver`.
    fn reader(&mut self, giver: WorkerId, ask: &RouteAsk<'_>) -> Option<WorkerId>;

    /// Returns a worker that decodes and prefills the leg by itself, whatever the settings say about that.
    fn local(&mut self, ask: &RouteAsk<'_>) -> Option<Chosen>;

    /// Whether `reader` takes new legs from `giver` now.
    fn takes(&self, giver: WorkerId, reader: WorkerId) -> bool;

    /// Takes in the outcome of a hand-off between the two, for later choices.
    fn learn(&mut self, now: Time, giver: WorkerId, reader: WorkerId, passage: Passage);

    /// Takes in what a worker has done with a leg, for later choices.
    fn learn_conduct(&mut self, now: Time, worker: WorkerId, conduct: Conduct);

    /// Returns how readers reach this giver; `None` once it is gone.
    fn giver(&self, giver: WorkerId) -> Option<Giver>;

    /// Returns the kind of a worker; `None` once it is gone.
    fn kind(&self, worker: WorkerId) -> Option<Kind>;

    /// Returns what is missing while there is no route for this model, or for what has begun at workers of a kind.
    fn lack(&self, model: ModelId, begun: Option<Kind>) -> Lack;
}

/// The live implementation of [`Pick`]: the workers that are up, a policy, and the routes that may be taken.
pub struct Routing {
    /// Workers that are up. They join and leave by [`Routing::join`] and [`Routing::leave`], which tell the policy.
    pub cluster: Cluster,
    policy: Box<dyn RoutePolicy>,
    config: RouteConfig,
    /// Workers that are treated differently from now on; nobody was told yet.
    treated: VecDeque<(WorkerId, Treatment)>,
}

impl Routing {
    /// Begins with no worker up.
    #[must_use]
    pub fn new(policy: Box<dyn RoutePolicy>, config: RouteConfig) -> Routing {
        Routing { cluster: Cluster::default(), policy, config, treated: VecDeque::new() }
    }

    /// Takes out the next worker that is treated differently from now on; to be called until there is none.
    pub fn next_treated(&mut self) -> Option<(WorkerId, Treatment)> {
        self.treated.pop_front()
    }

    /// Adds a worker that has joined.
    pub fn join(&mut self, id: WorkerId, info: WorkerInfo) {
        self.cluster.join(id, info);
        if let Some(worker) = self.cluster.get(id) {
            self.policy.changed(&Change::Joined(worker));
        }
    }

    /// Removes a worker that is lost or has left.
    pub fn leave(&mut self, id: WorkerId) {
        if let Some(worker) = self.cluster.leave(id) {
            self.policy.changed(&Change::Left(&worker));
        }
    }

    /// Chooses a route and counts its work as assigned.
    fn assigned(&mut self, pairs: Pairs, alone: Alone, ask: &RouteAsk<'_>) -> Option<Chosen> {
        let chosen = self.choose(pairs, alone, ask)?;
        let prefill = Assigned { prefill_tokens: ask.prefill_tokens.into(), sequences: 0 };
        match chosen.route {
            Route::Pair { giver, reader } => {
                self.cluster.assign(giver, prefill);
                self.cluster.assign(reader, sequences(ask));
                self.cluster.handoff_tried(ask.now, giver, reader);
                self.cluster.leg_tried(ask.now, giver);
                self.cluster.leg_tried(ask.now, reader);
            }
            Route::Whole(worker) => {
                self.cluster.leg_tried(ask.now, worker);
                self.cluster.assign(worker, Assigned { sequences: ask.choices.into(), ..prefill });
            }
        }
        Some(chosen)
    }

    /// Tries the strictest tier first, and routes that can run all choices at once before others.
    fn choose(&mut self, pairs: Pairs, alone: Alone, ask: &RouteAsk<'_>) -> Option<Chosen> {
        let tiers = match ask.avoided {
            Avoided::LastResort if ask.avoid.is_empty() && !self.cluster.has_strains() => &[Tier::Any][..],
            Avoided::LastResort => &Tier::ALL,
            Avoided::Never => &Tier::WELCOME,
        };
        let kind = self.kind_for(pairs, ask)?;
        let policy = &mut self.policy;
        let seats: &[Seats] = if ask.choices > 1 { &[Seats::ForAll, Seats::Any] } else { &[Seats::Any] };
        seats.iter().find_map(|seats| {
            let open = |tier: &Tier| Open::new(&self.cluster, (ask, kind, *seats), (pairs, alone), *tier);
            tiers.iter().find_map(|tier| policy.choose(&open(tier)))
        })
    }

    /// Kind of the workers that may serve: the giver's, the one that has begun, or the one that serves the model.
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
                self.cluster.leg_tried(ask.now, reader);
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

    fn learn_conduct(&mut self, now: Time, worker: WorkerId, conduct: Conduct) {
        let treatment = self.cluster.conduct(now, worker, conduct, self.config.breaker);
        self.treated.extend(treatment.map(|treatment| (worker, treatment)));
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
    /// Workers that the route uses.
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

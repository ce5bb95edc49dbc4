//! Routes that are open to a leg, by roles, links and sizes; knows no preference.

use super::RouteAsk;
use crate::cluster::{Cluster, Intake, Kind, Worker};
use crate::{Role, WorkerId};

/// Most readers of a giver that are sorted by load; if it has more, all decode workers are tried, the least busy first.
const READERS_FEW: usize = 32;

/// Routes that are open to a leg. Never lists all pairs: a policy looks at workers in order until one will do.
pub struct Open<'a> {
    cluster: &'a Cluster,
    ask: &'a RouteAsk<'a>,
    kind: Kind,
    seats: Seats,
    pairs: Pairs,
    alone: Alone,
    tier: Tier,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pairs {
    None,
    All,
    /// Pairs of this giver.
    Of(WorkerId),
}

/// Roles of workers that may run the leg from its prompt to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alone(&'static [Role]);

impl Alone {
    pub(super) const NOBODY: Alone = Alone(&[]);
    pub(super) const AGGREGATED: Alone = Alone(&[Role::Aggregated, Role::Colocated]);
    pub(super) const PREFILL: Alone = Alone(&[Role::Prefill, Role::Aggregated, Role::Colocated]);
    pub(super) const DECODE: Alone = Alone(&[Role::Decode, Role::Aggregated, Role::Colocated]);
}

/// Whether every worker of a route runs all choices of the leg at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seats {
    ForAll,
    /// A worker that cannot will refuse the leg.
    Any,
}

/// Strictness in what routes are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tier {
    /// Only workers that did not refuse the request, and workers and pairs that lost nothing lately.
    Best,
    /// Only workers that did not refuse the request.
    Welcome,
    /// Only workers and pairs that lost nothing lately.
    Sound,
    Any,
}

impl Tier {
    pub(super) const ALL: [Tier; 4] = [Tier::Best, Tier::Welcome, Tier::Sound, Tier::Any];
    /// Tiers without workers that refused the request.
    pub(super) const WELCOME: [Tier; 2] = [Tier::Best, Tier::Welcome];

    fn minds_refusals(self) -> bool {
        matches!(self, Tier::Best | Tier::Welcome)
    }

    fn minds_losses(self) -> bool {
        matches!(self, Tier::Best | Tier::Sound)
    }
}

impl<'a> Open<'a> {
    pub(super) fn new(
        cluster: &'a Cluster,
        (ask, kind, seats): (&'a RouteAsk<'a>, Kind, Seats),
        (pairs, alone): (Pairs, Alone),
        tier: Tier,
    ) -> Open<'a> {
        Open { cluster, ask, kind, seats, pairs, alone, tier }
    }

    /// Leg that needs a route.
    #[must_use]
    pub fn ask(&self) -> &RouteAsk<'a> {
        self.ask
    }

    /// Kind of the workers that may serve it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// All workers.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        self.cluster
    }

    /// Workers that could compute the prompt for a reader, fewest prompt tokens to prefill first.
    pub fn givers(&self) -> impl Iterator<Item = &Worker> {
        let all = match self.pairs {
            Pairs::All => Some(self.cluster.by_prompts(self.kind, Role::Prefill)),
            Pairs::None | Pairs::Of(_) => None,
        };
        let one = match self.pairs {
            Pairs::Of(giver) => self.cluster.get(giver),
            Pairs::None | Pairs::All => None,
        };
        all.into_iter().flatten().chain(one).filter(|giver| self.is_giver(giver))
    }

    /// Workers that could take the leg over from `giver`, fewest sequences first.
    pub fn readers(&self, giver: &Worker) -> impl Iterator<Item = &Worker> {
        let linked = self.cluster.readers_of(giver.id);
        let (few, many) = if linked.len() <= READERS_FEW {
            let mut few: Vec<&Worker> = linked.filter_map(|id| self.cluster.get(id)).collect();
            few.sort_by_key(|reader| (reader.sequences(), reader.id));
            (few, None)
        } else {
            (Vec::new(), Some(self.cluster.by_sequences(self.kind, Role::Decode)))
        };
        let giver = giver.id;
        few.into_iter().chain(many.into_iter().flatten()).filter(move |reader| self.is_reader(giver, reader))
    }

    /// Workers that could run the leg from its prompt to its end, role by role, fewest prompt tokens to prefill first.
    pub fn alone(&self) -> impl Iterator<Item = impl Iterator<Item = &Worker>> {
        let of_role = |role: &Role| self.cluster.by_prompts(self.kind, *role).filter(|worker| self.is_alone(worker));
        self.alone.0.iter().map(of_role)
    }

    /// Whether workers of this role may run the leg from its prompt to its end.
    #[must_use]
    pub fn may_run_alone(&self, role: Role) -> bool {
        self.alone.0.contains(&role)
    }

    /// Whether any pair may be open.
    #[must_use]
    pub fn has_pairs(&self) -> bool {
        self.pairs != Pairs::None
    }

    /// Whether a worker could compute the prompt for a reader.
    #[must_use]
    pub fn gives(&self, giver: WorkerId) -> bool {
        match self.pairs {
            Pairs::None => false,
            Pairs::All => self.open_to_new(giver).is_some_and(|giver| self.is_giver(giver)),
            Pairs::Of(only) => giver == only && self.cluster.get(giver).is_some_and(|giver| self.is_giver(giver)),
        }
    }

    /// Whether a worker could take the leg over from one that [gives](Open::gives).
    #[must_use]
    pub fn reads(&self, giver: WorkerId, reader: WorkerId) -> bool {
        self.cluster.get(reader).is_some_and(|reader| self.is_reader(giver, reader))
    }

    /// Whether a worker could run the leg from its prompt to its end.
    #[must_use]
    pub fn runs_alone(&self, worker: WorkerId) -> bool {
        let worker = self.open_to_new(worker).filter(|worker| self.alone.0.contains(&worker.info.role));
        worker.is_some_and(|worker| self.is_alone(worker))
    }

    fn open_to_new(&self, id: WorkerId) -> Option<&Worker> {
        self.cluster.get(id).filter(|worker| worker.intake == Intake::Open)
    }

    fn is_giver(&self, giver: &Worker) -> bool {
        let chosen_before = matches!(self.pairs, Pairs::Of(_));
        giver.info.role == Role::Prefill
            && self.holds(giver, self.ask.prefill_tokens)
            && (chosen_before || (self.is_welcome(giver.id) && self.is_sound(giver.id)))
    }

    fn is_reader(&self, giver: WorkerId, reader: &Worker) -> bool {
        let takes = reader.info.role == Role::Decode && reader.intake == Intake::Open;
        let fits = takes && self.holds(reader, self.ask.sequence_tokens);
        let is_sound = || !self.tier.minds_losses() || !self.cluster.is_strained(self.ask.now, giver, reader.id);
        fits && self.is_welcome(reader.id) && self.cluster.link(giver, reader.id).is_some() && is_sound()
    }

    fn is_alone(&self, worker: &Worker) -> bool {
        self.holds(worker, self.ask.sequence_tokens) && self.is_welcome(worker.id) && self.is_sound(worker.id)
    }

    fn holds(&self, worker: &Worker, tokens: u32) -> bool {
        let info = &worker.info;
        let seats = match self.seats {
            Seats::ForAll => self.ask.choices <= info.sequences_max,
            Seats::Any => true,
        };
        info.kind() == self.kind && tokens <= worker.sequence_tokens_max() && seats
    }

    fn is_sound(&self, id: WorkerId) -> bool {
        !self.tier.minds_losses() || !self.cluster.is_failing(self.ask.now, id)
    }

    fn is_welcome(&self, id: WorkerId) -> bool {
        !self.tier.minds_refusals() || !self.ask.avoid.contains(&id)
    }
}

//! The workers a router knows, their load, and the pairs that can hand KV over; knows no connection.

mod breaker;
mod kind;
mod order;
mod reach;
mod silence;
mod strain;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::message::Load;
use crate::{CompatKey, Failure, InstanceId, ModelId, Role, Time, WorkerId};

use breaker::Breakers;
pub use breaker::{BreakerConfig, Conduct, Treatment};
pub use kind::Kind;
use order::Orders;
use reach::Reaches;
pub use silence::{Silence, Silences, Word};
pub use strain::PairPause;
use strain::{Pair, Strains};

/// Every worker that is up. A worker that restarts is another worker.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    workers: BTreeMap<WorkerId, Worker>,
    /// Sessions with each process; two may lead to the same one.
    by_instance: BTreeMap<InstanceId, BTreeSet<WorkerId>>,
    orders: Orders,
    /// Workers that have said that they can read from this giver.
    readers: BTreeMap<InstanceId, BTreeSet<WorkerId>>,
    reaches: Reaches,
    serving: BTreeMap<ModelId, Kind>,
    /// Processes of workers that have left lately: outcomes of their hand-offs may come later.
    left: VecDeque<(WorkerId, InstanceId)>,
    strains: Strains,
    breakers: Breakers,
}

const LEFT_MAX: usize = 256;

/// Description that a worker gave when it joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Name of the worker, for people.
    pub name: Arc<str>,
    /// Incarnation of its process.
    pub instance: InstanceId,
    /// Role of the worker.
    pub role: Role,
    /// Model that it serves.
    pub model: ModelId,
    /// Digest of its weights of that model; part of its compatibility key, too.
    pub weights: u128,
    /// Address of its peer service, `host:port`; empty if it has none.
    pub peer_address: Arc<str>,
    /// Compatibility key: workers with equal ones may exchange KV.
    pub compat: CompatKey,
    /// Most tokens of one sequence, prompt and output together.
    pub context_max: u32,
    /// Tokens that its whole KV pool holds.
    pub capacity_tokens: u64,
    /// Sequences that it runs at once; the choices of a leg are begun together.
    pub sequences_max: u32,
}

/// A worker that is up.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    /// Its name in this table.
    pub id: WorkerId,
    /// Description that it gave when it joined.
    pub info: WorkerInfo,
    /// Load that it last reported.
    pub load: Load,
    /// Work that was sent to it since then.
    pub assigned: Assigned,
    /// Whether new legs may go to it.
    pub intake: Intake,
    links: BTreeMap<InstanceId, Link>,
    problems: Vec<Failure>,
}

/// Whether new legs may go to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Intake {
    /// New legs may go there.
    #[default]
    Open,
    /// The worker ends what it has: no route leads to it, but its legs go on and its offers are passed on.
    Draining,
    /// The worker has been silent for some time: no route leads to it until it is heard again.
    Quiet,
}

/// Work that a worker's last load report cannot include yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Assigned {
    /// Prompt tokens to prefill.
    pub prefill_tokens: u64,
    /// Sequences to decode.
    pub sequences: u64,
}

/// A pair that is up: this reader can read from `giver`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The giver.
    pub giver: InstanceId,
    /// Name of the transport in use.
    pub transport: Arc<str>,
    /// Bandwidth measured when the two connected.
    pub bytes_per_second: u64,
}

impl Cluster {
    /// Adds a worker that has joined. Its name is new, even if it has been here before.
    pub fn join(&mut self, id: WorkerId, info: WorkerInfo) {
        let (instance, model) = (info.instance, info.model);
        let (load, assigned, intake) = (Load::default(), Assigned::default(), Intake::default());
        let worker = Worker { id, info, load, assigned, intake, links: BTreeMap::new(), problems: Vec::new() };
        self.orders.insert(&worker);
        assert!(self.workers.insert(id, worker).is_none(), "{id} joins twice");
        self.by_instance.entry(instance).or_default().insert(id);
        self.measure_around(id);
        self.settle(model);
    }

    /// Removes a worker that is lost or has left. Returns it, if it was known.
    pub fn leave(&mut self, id: WorkerId) -> Option<Worker> {
        let worker = self.workers.remove(&id)?;
        self.orders.remove(&worker);
        self.reaches.set(id, None);
        for giver in worker.links.keys() {
            forget(&mut self.readers, *giver, id);
        }
        forget(&mut self.by_instance, worker.info.instance, id);
        self.measure_readers(worker.info.instance);
        self.left.push_back((id, worker.info.instance));
        if self.left.len() > LEFT_MAX {
            self.left.pop_front();
        }
        self.settle(worker.info.model);
        Some(worker)
    }

    /// Sets whether a worker takes new legs.
    pub fn set_intake(&mut self, id: WorkerId, intake: Intake) {
        if self.get(id).is_some_and(|worker| worker.intake != intake) {
            self.change(id, |worker| worker.intake = intake);
            self.measure_around(id);
            self.settle_of(id);
        }
    }

    /// Sets the load that a worker has reported; it includes the work that was assigned before.
    pub fn set_load(&mut self, id: WorkerId, load: Load) {
        self.change(id, |worker| (worker.load, worker.assigned) = (load, Assigned::default()));
    }

    /// Counts work that is being sent to a worker, until its next load report.
    pub fn assign(&mut self, id: WorkerId, work: Assigned) {
        self.change(id, |worker| {
            worker.assigned.prefill_tokens += work.prefill_tokens;
            worker.assigned.sequences += work.sequences;
        });
    }

    /// Changes a worker, and with it its place in the orders.
    fn change(&mut self, id: WorkerId, change: impl FnOnce(&mut Worker)) {
        if let Some(worker) = self.workers.get_mut(&id) {
            self.orders.remove(worker);
            change(worker);
            self.orders.insert(worker);
        }
    }

    /// Sets the givers that a reader can read from; replaces what it said before.
    pub fn set_links(&mut self, reader: WorkerId, links: impl IntoIterator<Item = Link>) {
        let Some(worker) = self.workers.get_mut(&reader) else { return };
        let links = links.into_iter().map(|link| (link.giver, link)).collect();
        let before = std::mem::replace(&mut worker.links, links);
        for giver in before.keys().filter(|giver| !worker.links.contains_key(giver)) {
            forget(&mut self.readers, *giver, reader);
        }
        for giver in worker.links.keys().filter(|giver| !before.contains_key(giver)) {
            self.readers.entry(*giver).or_default().insert(reader);
        }
        self.measure(reader);
        self.settle_of(reader);
    }

    /// Sets the reasons why a reader cannot read from some givers; replaces what it said before.
    pub fn set_problems(&mut self, reader: WorkerId, problems: Vec<Failure>) {
        if let Some(worker) = self.workers.get_mut(&reader) {
            worker.problems = problems;
        }
    }

    /// Reasons why pairs are not up, as far as readers have said.
    pub fn problems(&self) -> impl Iterator<Item = &Failure> {
        self.workers.values().flat_map(|worker| &worker.problems)
    }

    /// A worker that is up, also while it drains.
    #[must_use]
    pub fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.workers.get(&id)
    }

    /// All workers, in the order in which they joined.
    pub fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values()
    }

    /// All workers of a role that take new legs for a model, in the order in which they joined.
    pub fn of_role(&self, model: ModelId, role: Role) -> impl Iterator<Item = &Worker> {
        let wanted = move |worker: &&Worker| {
            worker.info.model == model && worker.info.role == role && worker.intake == Intake::Open
        };
        self.workers.values().filter(wanted)
    }

    /// Workers of a kind and role that take new legs: fewest prompt tokens to prefill first, then fewest sequences.
    pub fn by_prompts(&self, kind: Kind, role: Role) -> impl Iterator<Item = &Worker> {
        self.orders.by_prompts(kind, role).filter_map(|id| self.get(id))
    }

    /// Workers of a kind and role that take new legs, fewest sequences first.
    pub fn by_sequences(&self, kind: Kind, role: Role) -> impl Iterator<Item = &Worker> {
        self.orders.by_sequences(kind, role).filter_map(|id| self.get(id))
    }

    /// Workers that have said that they can read from a giver, in the order in which they joined.
    pub fn readers_of(&self, giver: WorkerId) -> impl ExactSizeIterator<Item = WorkerId> {
        const NOBODY: &BTreeSet<WorkerId> = &BTreeSet::new();
        let readers = self.get(giver).and_then(|giver| self.readers.get(&giver.info.instance));
        readers.unwrap_or(NOBODY).iter().copied()
    }

    /// Link over which `reader` reads from `giver`, if that pair is up and compatible.
    #[must_use]
    pub fn link(&self, giver: WorkerId, reader: WorkerId) -> Option<&Link> {
        let (giver, reader) = (self.get(giver)?, self.get(reader)?);
        let link = reader.links.get(&giver.info.instance)?;
        (giver.info.compat == reader.info.compat).then_some(link)
    }

    /// Records a lost hand-off between the two: they are avoided for a while, and longer each time.
    pub fn handoff_lost(&mut self, now: Time, giver: WorkerId, reader: WorkerId, pause: PairPause) {
        if let Some(pair) = self.pair(giver, reader) {
            self.strains.lost(now, pair, pause);
        }
    }

    /// Records that a hand-off between the two has arrived.
    pub fn handoff_arrived(&mut self, giver: WorkerId, reader: WorkerId) {
        if let Some(pair) = self.pair(giver, reader) {
            self.strains.arrived(pair);
        }
    }

    /// Records that a hand-off between the two begins.
    pub fn handoff_tried(&mut self, now: Time, giver: WorkerId, reader: WorkerId) {
        if let Some(pair) = self.pair(giver, reader) {
            self.strains.tried(now, pair);
        }
    }

    /// True if hand-offs between the two were lost so lately, or one of them fails so much, that another pair is better.
    #[must_use]
    pub fn is_strained(&self, now: Time, giver: WorkerId, reader: WorkerId) -> bool {
        let is_lossy = || self.pair(giver, reader).is_some_and(|pair| self.strains.avoids(now, pair));
        self.is_failing(now, giver) || self.is_failing(now, reader) || (!self.strains.is_empty() && is_lossy())
    }

    /// True if a worker has failed so much lately that another is better.
    #[must_use]
    pub fn is_failing(&self, now: Time, worker: WorkerId) -> bool {
        !self.breakers.is_empty() && self.process(worker).is_some_and(|process| self.breakers.avoids(now, process))
    }

    /// True if any pair may be strained, or any worker be failing.
    #[must_use]
    pub fn has_strains(&self) -> bool {
        !self.strains.is_empty() || !self.breakers.is_empty()
    }

    /// Records what a worker has done with a leg; returns whether it is treated differently from now on.
    pub fn conduct(
        &mut self,
        now: Time,
        worker: WorkerId,
        conduct: Conduct,
        config: BreakerConfig,
    ) -> Option<Treatment> {
        let process = self.process(worker)?;
        self.breakers.learn(now, process, conduct, config)
    }

    /// Records that a leg goes to a worker.
    pub fn leg_tried(&mut self, now: Time, worker: WorkerId) {
        if let Some(process) = self.process(worker).filter(|_| !self.breakers.is_empty()) {
            self.breakers.tried(now, process);
        }
    }

    fn pair(&self, giver: WorkerId, reader: WorkerId) -> Option<Pair> {
        Some((self.process(giver)?, self.process(reader)?))
    }

    /// Process of a worker that is up, or has left lately.
    fn process(&self, id: WorkerId) -> Option<InstanceId> {
        let gone = || self.left.iter().find(|(left, _)| *left == id).map(|(_, instance)| *instance);
        self.get(id).map(|worker| worker.info.instance).or_else(gone)
    }

    /// Longest sequence (prompt and output) of a model that a worker or a pair can serve in full now, if any.
    #[must_use]
    pub fn sequence_tokens_max(&self, model: ModelId) -> Option<u32> {
        self.reaches.longest(self.serving(model)?)
    }

    /// Longest sequence of every model that can be served.
    pub fn models_that_reach(&self) -> impl Iterator<Item = (ModelId, u32)> {
        self.serving.iter().filter_map(|(model, kind)| Some((*model, self.reaches.longest(*kind)?)))
    }

    /// Kind of the workers that new requests for a model go to. Two kinds never serve side by side: which of two
    /// answers a client got would then be chance.
    #[must_use]
    pub fn serving(&self, model: ModelId) -> Option<Kind> {
        self.serving.get(&model).copied()
    }

    /// Kind that serves each model, if it can serve anything.
    pub fn able(&self) -> impl Iterator<Item = (ModelId, Kind)> {
        self.serving.iter().filter(|(_, kind)| self.can_serve(**kind)).map(|(model, kind)| (*model, *kind))
    }

    /// True if workers of a kind can serve anything.
    #[must_use]
    pub fn can_serve(&self, kind: Kind) -> bool {
        self.reaches.longest(kind).is_some()
    }

    /// Chooses the kind that serves a model. It stays until it can serve nothing; then the first to have joined that
    /// can follows. While none can, it is one that is there: some of its workers may do a part.
    fn settle(&mut self, model: ModelId) {
        let former = self.serving(model);
        if former.is_some_and(|kind| self.can_serve(kind)) {
            return;
        }
        let kinds = self.workers.values().map(|worker| worker.info.kind()).filter(|kind| kind.model == model);
        let able = kinds.clone().find(|kind| self.can_serve(*kind));
        let stays = || former.filter(|former| kinds.clone().any(|kind| kind == *former));
        match able.or_else(stays).or_else(|| kinds.clone().next()) {
            Some(kind) => self.serving.insert(model, kind),
            None => self.serving.remove(&model),
        };
    }

    fn settle_of(&mut self, id: WorkerId) {
        if let Some(model) = self.get(id).map(|worker| worker.info.model) {
            self.settle(model);
        }
    }

    /// Measures anew how far a worker reaches, and every worker that reads from it.
    fn measure_around(&mut self, id: WorkerId) {
        self.measure(id);
        if let Some(instance) = self.get(id).map(|worker| worker.info.instance) {
            self.measure_readers(instance);
        }
    }

    fn measure_readers(&mut self, giver: InstanceId) {
        let readers: Vec<WorkerId> = self.readers.get(&giver).into_iter().flatten().copied().collect();
        readers.into_iter().for_each(|reader| self.measure(reader));
    }

    fn measure(&mut self, id: WorkerId) {
        let reach = self.get(id).and_then(|worker| Some((worker.info.kind(), self.reach(worker)?)));
        self.reaches.set(id, reach);
    }

    /// Longest sequence that a worker can bring to its last token, alone or after one of its givers.
    fn reach(&self, worker: &Worker) -> Option<u32> {
        if worker.intake != Intake::Open {
            return None;
        }
        let own = worker.sequence_tokens_max();
        match worker.info.role {
            Role::Prefill => None,
            Role::Aggregated | Role::Colocated => Some(own),
            Role::Decode => {
                let givers = worker.links.keys().filter_map(|giver| self.by_instance.get(giver)).flatten();
                let open = givers.filter_map(|giver| self.get(*giver)).filter(|giver| giver.gives_to(worker));
                let mut longest = None;
                for reach in open.map(|giver| giver.sequence_tokens_max().min(own)) {
                    longest = longest.max(Some(reach));
                    // No other giver makes it longer.
                    if reach == own {
                        break;
                    }
                }
                longest
            }
        }
    }
}

fn forget(of: &mut BTreeMap<InstanceId, BTreeSet<WorkerId>>, instance: InstanceId, worker: WorkerId) {
    if let Some(workers) = of.get_mut(&instance) {
        workers.remove(&worker);
        if workers.is_empty() {
            of.remove(&instance);
        }
    }
}

impl WorkerInfo {
    /// Kind of the workers that give the same bits as this one.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind { model: self.model, compat: self.compat }
    }
}

impl Worker {
    /// True if new prompts for `reader` can begin here.
    fn gives_to(&self, reader: &Worker) -> bool {
        self.info.kind() == reader.info.kind() && self.info.role == Role::Prefill && self.intake == Intake::Open
    }

    /// Longest sequence that fits the model's context and this worker's whole pool.
    #[must_use]
    pub fn sequence_tokens_max(&self) -> u32 {
        u32::try_from(self.info.capacity_tokens).unwrap_or(u32::MAX).min(self.info.context_max)
    }

    /// Prompt tokens that wait for prefill here, as far as is known.
    #[must_use]
    pub fn waiting_tokens(&self) -> u64 {
        self.load.waiting_tokens + self.assigned.prefill_tokens
    }

    /// Sequences that decode or wait here, as far as is known.
    #[must_use]
    pub fn sequences(&self) -> u64 {
        u64::from(self.load.running) + u64::from(self.load.waiting) + self.assigned.sequences
    }
}

//! The workers a router knows, how full they are and which pairs can hand KV over; knows no connection.

mod silence;
mod strain;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::message::Load;
use crate::{CompatKey, Failure, InstanceId, Role, Time, WorkerId};

pub use silence::{Silence, Silences, Word};
pub use strain::PairPause;
use strain::{Pair, Strains};

/// Every worker that is up. A worker that restarts is another worker.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    workers: BTreeMap<WorkerId, Worker>,
    next: u32,
    /// Names of workers that have left lately: what they did before comes out later.
    left: BTreeMap<WorkerId, InstanceId>,
    strains: Strains,
}

/// How many workers that have left are remembered.
const LEFT_MAX: usize = 256;

/// What a worker said about itself when it joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Its process incarnation.
    pub instance: InstanceId,
    /// What it is for.
    pub role: Role,
    /// Where its peer service listens, `host:port`; empty where it has none.
    pub peer_address: Arc<str>,
    /// Who it may exchange KV with.
    pub compat: CompatKey,
    /// Most tokens of one sequence, prompt and output together.
    pub context_max: u32,
    /// Tokens that its whole pool holds.
    pub capacity_tokens: u64,
}

/// A worker that is up.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    /// Its name in this table.
    pub id: WorkerId,
    /// What it said about itself.
    pub info: WorkerInfo,
    /// What it last said about how full it is.
    pub load: Load,
    /// What was sent to it since then.
    pub assigned: Assigned,
    /// Whether new legs may go to it.
    pub intake: Intake,
    /// The givers it can read from.
    links: BTreeMap<InstanceId, Link>,
    /// Why it cannot read from others.
    problems: Vec<Failure>,
}

/// Whether new legs may go to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Intake {
    /// They may.
    #[default]
    Open,
    /// It ends what it has: no route leads to it, but its legs go on and its offers are passed on.
    Draining,
    /// It has said nothing for some time: no route leads to it until it is heard again.
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
    /// A worker has joined. Its name is new, even if it has been here before.
    pub fn join(&mut self, info: WorkerInfo) -> WorkerId {
        let id = WorkerId(self.next);
        self.next += 1;
        let (load, assigned, intake) = (Load::default(), Assigned::default(), Intake::default());
        let worker = Worker { id, info, load, assigned, intake, links: BTreeMap::new(), problems: Vec::new() };
        self.workers.insert(id, worker);
        id
    }

    /// A worker is lost or has left. Returns what it was, if it was known.
    pub fn leave(&mut self, id: WorkerId) -> Option<Worker> {
        let worker = self.workers.remove(&id)?;
        self.left.insert(id, worker.info.instance);
        if self.left.len() > LEFT_MAX {
            self.left.pop_first();
        }
        Some(worker)
    }

    /// A worker has said whether it takes new legs.
    pub fn set_intake(&mut self, id: WorkerId, intake: Intake) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.intake = intake;
        }
    }

    /// A worker has said how full it is; what was assigned before is part of that.
    pub fn set_load(&mut self, id: WorkerId, load: Load) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.load = load;
            worker.assigned = Assigned::default();
        }
    }

    /// A reader has said which givers it can read from; replaces what it said before.
    pub fn set_links(&mut self, reader: WorkerId, links: impl IntoIterator<Item = Link>) {
        if let Some(worker) = self.workers.get_mut(&reader) {
            worker.links = links.into_iter().map(|link| (link.giver, link)).collect();
        }
    }

    /// A reader has said why it cannot read from some givers; replaces what it said before.
    pub fn set_problems(&mut self, reader: WorkerId, problems: Vec<Failure>) {
        if let Some(worker) = self.workers.get_mut(&reader) {
            worker.problems = problems;
        }
    }

    /// Why pairs are not up, as far as readers have said.
    pub fn problems(&self) -> impl Iterator<Item = &Failure> {
        self.workers.values().flat_map(|worker| &worker.problems)
    }

    /// Work is being sent to a worker; counted until its next load report.
    pub fn assign(&mut self, id: WorkerId, work: Assigned) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.assigned.prefill_tokens += work.prefill_tokens;
            worker.assigned.sequences += work.sequences;
        }
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

    /// All workers of a role that take new legs, in the order in which they joined.
    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &Worker> {
        self.workers.values().filter(move |worker| worker.info.role == role && worker.intake == Intake::Open)
    }

    /// The link over which `reader` reads from `giver`, if that pair is up and compatible.
    #[must_use]
    pub fn link(&self, giver: WorkerId, reader: WorkerId) -> Option<&Link> {
        let (giver, reader) = (self.get(giver)?, self.get(reader)?);
        let link = reader.links.get(&giver.info.instance)?;
        (giver.info.compat == reader.info.compat).then_some(link)
    }

    /// A hand-off between the two was lost: they are avoided for a while, and longer each time.
    pub fn handoff_lost(&mut self, now: Time, giver: WorkerId, reader: WorkerId, pause: PairPause) {
        if let Some(pair) = self.pair(giver, reader) {
            self.strains.lost(now, pair, pause);
        }
    }

    /// A hand-off between the two has arrived.
    pub fn handoff_arrived(&mut self, giver: WorkerId, reader: WorkerId) {
        if let Some(pair) = self.pair(giver, reader) {
            self.strains.arrived(pair);
        }
    }

    /// A hand-off between the two begins.
    pub fn handoff_tried(&mut self, now: Time, giver: WorkerId, reader: WorkerId) {
        if let Some(pair) = self.pair(giver, reader) {
            self.strains.tried(now, pair);
        }
    }

    /// Whether hand-offs between the two were lost so lately that another pair is better.
    #[must_use]
    pub fn is_strained(&self, now: Time, giver: WorkerId, reader: WorkerId) -> bool {
        !self.strains.is_empty() && self.pair(giver, reader).is_some_and(|pair| self.strains.avoids(now, pair))
    }

    fn pair(&self, giver: WorkerId, reader: WorkerId) -> Option<Pair> {
        let name = |id| self.get(id).map(|worker| worker.info.instance).or_else(|| self.left.get(&id).copied());
        Some((name(giver)?, name(reader)?))
    }

    /// All pairs that are up: (giver, reader, link).
    pub fn links(&self) -> impl Iterator<Item = (&Worker, &Worker, &Link)> {
        self.of_role(Role::Prefill).flat_map(move |giver| {
            self.of_role(Role::Decode)
                .filter_map(move |reader| self.link(giver.id, reader.id).map(|link| (giver, reader, link)))
        })
    }

    /// The longest sequence (prompt and output) that could be served from its first to its last token, by an
    /// aggregated worker or a pair that is up; `None` while nobody can serve anything.
    #[must_use]
    pub fn sequence_tokens_max(&self) -> Option<u32> {
        let pairs =
            self.links().map(|(giver, reader, _)| giver.sequence_tokens_max().min(reader.sequence_tokens_max()));
        let alone = self.of_role(Role::Aggregated).map(Worker::sequence_tokens_max);
        pairs.chain(alone).max()
    }
}

impl Worker {
    /// The longest sequence that fits the model's context and this worker's whole pool.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn info(instance: u128, role: Role, compat: u128) -> WorkerInfo {
        WorkerInfo {
            instance: InstanceId(instance),
            role,
            peer_address: "localhost:1".into(),
            compat: CompatKey(compat),
            context_max: 1_000,
            capacity_tokens: 800 + instance as u64,
        }
    }

    fn link(giver: u128) -> Link {
        Link { giver: InstanceId(giver), transport: "tcp".into(), bytes_per_second: 1_000_000 }
    }

    #[test]
    fn a_pair_is_up_when_the_reader_says_so_and_the_keys_agree() {
        let mut cluster = Cluster::default();
        let prefill = cluster.join(info(1, Role::Prefill, 7));
        let other = cluster.join(info(2, Role::Prefill, 8));
        let decode = cluster.join(info(3, Role::Decode, 7));
        assert_eq!(cluster.link(prefill, decode), None);
        assert_eq!(cluster.sequence_tokens_max(), None);
        cluster.set_links(decode, [link(1), link(2)]);
        assert_eq!(cluster.link(prefill, decode), Some(&link(1)));
        assert_eq!(cluster.link(other, decode), None, "incompatible");
        assert_eq!(cluster.sequence_tokens_max(), Some(801));
        assert_eq!(cluster.links().count(), 1);
        cluster.leave(prefill);
        assert_eq!(cluster.link(prefill, decode), None);
        let again = cluster.join(info(1, Role::Prefill, 7));
        assert_ne!(again, prefill);
        assert_eq!(cluster.link(again, decode), Some(&link(1)), "the same incarnation, reconnected");
    }

    #[test]
    fn a_draining_worker_is_known_but_no_route_leads_to_it() {
        let mut cluster = Cluster::default();
        let prefill = cluster.join(info(1, Role::Prefill, 7));
        let decode = cluster.join(info(3, Role::Decode, 7));
        cluster.set_links(decode, [link(1)]);
        cluster.set_intake(prefill, Intake::Draining);
        assert_eq!((cluster.links().count(), cluster.of_role(Role::Prefill).count()), (0, 0));
        assert_eq!(cluster.link(prefill, decode), Some(&link(1)), "its offers can still be taken");
        cluster.set_intake(prefill, Intake::Open);
        assert_eq!(cluster.links().count(), 1);
    }

    #[test]
    fn assigned_work_counts_until_the_next_report() {
        let mut cluster = Cluster::default();
        let id = cluster.join(info(1, Role::Aggregated, 7));
        cluster.assign(id, Assigned { prefill_tokens: 100, sequences: 2 });
        cluster.assign(id, Assigned { prefill_tokens: 10, sequences: 1 });
        assert_eq!(cluster.get(id).map(|w| (w.waiting_tokens(), w.sequences())), Some((110, 3)));
        cluster.set_load(id, Load { running: 1, waiting: 1, waiting_tokens: 50, ..Load::default() });
        assert_eq!(cluster.get(id).map(|w| (w.waiting_tokens(), w.sequences())), Some((50, 2)));
    }
}

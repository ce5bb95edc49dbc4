//! Workers' side: replicas, devices and links, and the words between workers.

use std::collections::BTreeMap;
use std::sync::Arc;

use sched::cluster::{Link as ClusterLink, WorkerInfo};
use sched::desk::{DeskEvent, Phase, WorkerStatus};
use sched::device::{Device, DeviceEvent, DeviceSpec};
use sched::handoff::PullOutcome;
use sched::layout::KvLayout;
use sched::message::{Envelope, Load, ToGiver};
use sched::replica::{Action, Compute, Event, Pull, Replica, Transfer};
use sched::share::{Divisions, IdleShare, Partition};
use sched::{
    BlockId, CompatKey, Failure, FailureKind, InstanceId, LaneId, LeaseId, PullId, Role, Time, WorkerId, cost,
};

use super::Simulation;
use super::happening::Happening;
use super::requests::MODEL;
use crate::network::{Arrived, pull_bytes};
use crate::{PlannerError, WorkerSpec};

/// Parts in which shares are counted, as live.
const DIVISIONS: u16 = 20;

/// A worker that is alive.
pub(super) struct SimWorker {
    id: WorkerId,
    replica: Replica,
    device: Device,
    /// Set where two lanes share the device.
    partition: Option<Partition>,
    layout: KvLayout,
    /// Leases that readers hold here.
    granted: BTreeMap<LeaseId, Vec<BlockId>>,
    /// Times for which its timers are set.
    timer: Option<Time>,
    device_timer: Option<Time>,
}

impl Simulation<'_> {
    pub(super) fn start_workers(&mut self) -> Result<(), PlannerError> {
        for (index, spec) in self.config.workers.iter().enumerate() {
            let id = WorkerId(index as u32);
            let worker = SimWorker::new(id, spec, self.config)?;
            self.at_router(DeskEvent::Joined(id, worker.info(spec)));
            self.workers.insert(id, worker);
        }
        let of_role = |role| {
            let workers = self.config.workers.iter().enumerate();
            workers.filter(move |(_, spec)| spec.role == role).map(|(index, _)| WorkerId(index as u32))
        };
        let givers: Vec<InstanceId> = of_role(Role::Prefill).map(instance_of).collect();
        let readers: Vec<WorkerId> = of_role(Role::Decode).collect();
        let bytes_per_second = self.config.link.bytes_per_second;
        for reader in readers {
            let link =
                |giver: &InstanceId| ClusterLink { giver: *giver, transport: "modelled".into(), bytes_per_second };
            let links = Some(givers.iter().map(link).collect());
            let status = WorkerStatus { load: Load::default(), phase: Phase::Accepting, links, problems: Vec::new() };
            self.at_router(DeskEvent::Status(reader, status));
            givers.iter().for_each(|giver| self.feed(reader, Event::GiverUp(*giver)));
        }
        self.decide_at_router();
        Ok(())
    }

    pub(super) fn feed(&mut self, worker: WorkerId, event: Event) {
        if let Some(sim) = self.workers.get_mut(&worker) {
            if let Some(partition) = &mut sim.partition {
                partition.goes_in(self.now, &event);
            }
            sim.replica.on(self.now, event);
            self.stirred.insert(worker);
        }
    }

    pub(super) fn decide(&mut self, worker: WorkerId) -> Result<(), PlannerError> {
        while let Some(action) = self.workers.get_mut(&worker).and_then(|sim| sim.replica.poll()) {
            self.perform_at(worker, action)?;
        }
        self.divide(worker);
        let Some(sim) = self.workers.get_mut(&worker) else { return Ok(()) };
        let next = sim.next_timeout();
        if let Some(time) = next.filter(|_| next != sim.timer) {
            sim.timer = next;
            self.queue.push(time.max(self.now), Happening::WorkerTimer(worker));
        }
        Ok(())
    }

    fn perform_at(&mut self, worker: WorkerId, action: Action) -> Result<(), PlannerError> {
        let (now, later) = (self.now, self.now + self.config.hop);
        let Some(sim) = self.workers.get_mut(&worker) else { return Ok(()) };
        if let Some(partition) = &mut sim.partition {
            partition.comes_out(now, &action);
        }
        match action {
            Action::Compute(Compute::Run { lane, step, plan, progress }) => {
                sim.device.submit(now, (lane, step), plan, progress);
                self.set_device_timer(worker);
            }
            Action::Compute(Compute::Cancel { step, .. }) => {
                sim.device.cancel(now, step);
                self.set_device_timer(worker);
            }
            Action::Transfer(Transfer::Grant { lease, blocks }) => drop(sim.granted.insert(lease, blocks)),
            Action::Transfer(Transfer::Revoke(lease)) => drop(sim.granted.remove(&lease)),
            Action::Transfer(Transfer::Meet { giver, address }) => {
                let event = self.meeting(giver, address);
                self.queue.push(later, Happening::AtWorker { worker, event });
            }
            Action::Transfer(Transfer::Pull(pull)) => self.start_pull(worker, &pull)?,
            Action::Transfer(Transfer::AbortPull(pull)) => {
                self.network.abort(now, (worker, pull));
                self.set_network_timer();
                let event = Event::PullEnded { pull, outcome: PullOutcome::Aborted };
                self.queue.push(later, Happening::AtWorker { worker, event });
            }
            Action::Say(envelope) => {
                let happening = match envelope {
                    Envelope::Router(message) => Happening::AtRouter { worker, message },
                    // The single router carries its words itself.
                    Envelope::Over(_) => return Ok(()),
                    Envelope::Giver(giver, word) => {
                        Happening::AtGiver { giver: worker_of(giver), reader: worker, word }
                    }
                    Envelope::Reader(reader, word) => {
                        let event = Event::Giver(instance_of(worker), word);
                        Happening::AtWorker { worker: worker_of(reader), event }
                    }
                };
                self.queue.push(later, happening);
            }
        }
        Ok(())
    }

    /// Sets what is decided about the shares of a worker's device.
    fn divide(&mut self, worker: WorkerId) {
        let Some(SimWorker { replica, device, partition: Some(partition), .. }) = self.workers.get_mut(&worker) else {
            return;
        };
        if partition.is_due(self.now) {
            partition.tick(self.now, &replica.load());
        }
        while let Some(decision) = partition.poll() {
            for (lane, phase) in [(LaneId(0), cost::Phase::Prefill), (LaneId(1), cost::Phase::Decode)] {
                device.set_share(self.now, lane, decision.split.share_of(phase) as f32);
            }
            self.decisions.push((worker, decision));
        }
        self.set_device_timer(worker);
    }

    /// Result of looking for a giver.
    fn meeting(&self, giver: InstanceId, address: Arc<str>) -> Event {
        match self.workers.contains_key(&worker_of(giver)) {
            true => Event::GiverUp(giver),
            false => {
                let failure = Failure::new(FailureKind::WorkerLost, "its process is gone");
                Event::GiverUnmet { giver, address, failure }
            }
        }
    }

    fn start_pull(&mut self, reader: WorkerId, pull: &Pull) -> Result<(), PlannerError> {
        let (giver, lease) = (worker_of(pull.giver), pull.lease);
        let from = self.workers.get(&giver).map(|sim| sim.layout.clone());
        let Some(sim) = self.workers.get(&reader) else { return Ok(()) };
        match from {
            // The giver's process is gone, so the connection breaks at once.
            None => {
                let ends = Happening::PullEnds { reader, pull: pull.id, giver, lease };
                self.queue.push(self.now + self.config.hop, ends);
            }
            Some(layout) => {
                let bytes = pull_bytes(&layout, &sim.layout, pull);
                let bytes = bytes.map_err(|source| PlannerError::Layout { worker: reader, source })?;
                self.network.start(self.now, Arrived { id: (reader, pull.id), giver, lease }, bytes);
                self.set_network_timer();
            }
        }
        Ok(())
    }

    pub(super) fn network_is_due(&mut self) {
        while let Some(Arrived { id: (reader, pull), giver, lease }) = self.network.poll(self.now) {
            let ends = Happening::PullEnds { reader, pull, giver, lease };
            self.queue.push(self.now + self.config.link.latency, ends);
        }
        self.set_network_timer();
    }

    fn set_network_timer(&mut self) {
        let next = self.network.next_timeout();
        if let Some(time) = next.filter(|_| next != self.network_timer) {
            self.queue.push(time.max(self.now), Happening::NetworkTimer);
        }
        self.network_timer = next;
    }

    /// Ends a pull; its bytes count only if their lease still holds.
    pub(super) fn pull_ends(&mut self, reader: WorkerId, pull: PullId, giver: WorkerId, lease: LeaseId) {
        let holds = self.workers.get(&giver).is_some_and(|sim| sim.granted.contains_key(&lease));
        let outcome = if self.config.broken_links.iter().any(|link| link.breaks(self.now, giver, reader)) {
            PullOutcome::Failed("the link is broken".to_owned())
        } else if holds {
            PullOutcome::Complete
        } else {
            PullOutcome::Failed(format!("{lease} does not hold any more"))
        };
        self.feed(reader, Event::PullEnded { pull, outcome });
    }

    /// Delivers a reader's word. A dead giver gets none; the reader of a release learns that it was not heard.
    pub(super) fn at_giver(&mut self, giver: WorkerId, reader: WorkerId, word: ToGiver) {
        let later = self.now + self.config.hop;
        let word = match (self.workers.get(&giver), word) {
            (None, ToGiver::Release(lease)) => {
                let event = Event::ReleaseUnheard { giver: instance_of(giver), lease };
                return self.queue.push(later, Happening::AtWorker { worker: reader, event });
            }
            (None, ToGiver::Renew(_) | ToGiver::Follow(_) | ToGiver::Abort(_)) => return,
            (Some(_), word) => word,
        };
        self.feed(giver, Event::Reader(instance_of(reader), word));
    }

    pub(super) fn device_is_due(&mut self, worker: WorkerId) {
        while let Some(event) = self.workers.get_mut(&worker).and_then(|sim| sim.device.poll(self.now)) {
            let fact = match event {
                DeviceEvent::Progress { lane, step, layers_done } => Event::StepProgress { lane, step, layers_done },
                DeviceEvent::Done { lane, step, result: Ok(result), .. } => Event::StepDone { lane, step, result },
                DeviceEvent::Done { lane, step, result: Err(failure), .. } => Event::StepFailed { lane, step, failure },
            };
            self.steps += u64::from(!matches!(fact, Event::StepProgress { .. }));
            self.feed(worker, fact);
        }
        self.set_device_timer(worker);
    }

    fn set_device_timer(&mut self, worker: WorkerId) {
        let Some(sim) = self.workers.get_mut(&worker) else { return };
        let next = sim.device.next_timeout(self.now);
        if let Some(time) = next.filter(|_| next != sim.device_timer) {
            self.queue.push(time.max(self.now), Happening::DeviceTimer(worker));
        }
        sim.device_timer = next;
    }

    /// Ends a worker's process; peers and router notice one hop later, after all that it had already sent.
    pub(super) fn die(&mut self, worker: WorkerId) {
        if self.workers.remove(&worker).is_none() {
            return;
        }
        let later = self.now + self.config.hop;
        for Arrived { id: (reader, pull), giver, lease } in self.network.lose(self.now, worker) {
            self.queue.push(later, Happening::PullEnds { reader, pull, giver, lease });
        }
        self.set_network_timer();
        self.queue.push(later, Happening::SessionGone(worker));
        for peer in self.workers.keys() {
            let event = Event::GiverLost(instance_of(worker));
            self.queue.push(later, Happening::AtWorker { worker: *peer, event });
        }
    }
}

impl SimWorker {
    fn new(id: WorkerId, spec: &WorkerSpec, config: &crate::SimConfig) -> Result<SimWorker, PlannerError> {
        let replica = Replica::new(spec.replica.clone());
        let cost = spec.cost.checked().map_err(|source| PlannerError::Cost { worker: id, source })?;
        let layout = KvLayout::whole(spec.kv.clone());
        if spec.kv.block_tokens != spec.replica.block_tokens {
            let value = format!("{} in the cache of {id}", spec.kv.block_tokens);
            return Err(PlannerError::Setting { name: "block_tokens", value, must: "be its scheduler's" });
        }
        let device =
            DeviceSpec { layers: spec.replica.layers, vocab: config.vocab, eos: Vec::new(), output_tokens: None };
        let sizes = (spec.replica.layers, spec.replica.blocks_total);
        // As the modelled backend: what an idle lane leaves is unused.
        let partition = spec
            .share
            .as_ref()
            .map(|share| Partition::new(share, Divisions::new(DIVISIONS, IdleShare::Unused)?, sizes, Time(0)));
        Ok(SimWorker {
            id,
            replica: replica.map_err(|source| PlannerError::Replica { worker: id, source })?,
            device: Device::new(Box::new(cost), device),
            partition: partition.transpose().map_err(|source| PlannerError::Share { worker: id, source })?,
            layout: layout.map_err(|source| PlannerError::Layout { worker: id, source })?,
            granted: BTreeMap::new(),
            timer: None,
            device_timer: None,
        })
    }

    /// Time by which the worker must look again. The division of an idle device can wait.
    fn next_timeout(&self) -> Option<Time> {
        let divides = self.partition.as_ref().filter(|_| !self.replica.is_idle()).and_then(Partition::next_timeout);
        self.replica.next_timeout().into_iter().chain(divides).min()
    }

    fn info(&self, spec: &WorkerSpec) -> WorkerInfo {
        let name: Arc<str> = self.id.to_string().into();
        WorkerInfo {
            name: Arc::clone(&name),
            instance: instance_of(self.id),
            role: spec.role,
            model: MODEL,
            weights: 0,
            peer_address: name,
            compat: CompatKey(0),
            context_max: spec.replica.context_max,
            capacity_tokens: u64::from(spec.replica.blocks_total) * u64::from(spec.replica.block_tokens),
            sequences_max: spec.replica.sequences_max,
        }
    }

    pub(super) fn load(&self) -> Load {
        self.replica.load()
    }

    pub(super) fn check_leaks(&self) -> Result<(), PlannerError> {
        let leak = |detail| Err(PlannerError::Leak { worker: self.id, detail });
        if let Err(detail) = self.replica.check_invariants() {
            return leak(detail);
        }
        let load = self.replica.load();
        let held = load.blocks_in_use + load.blocks_quarantined + load.running + load.waiting + load.held;
        if !self.replica.is_idle() || held > 0 || !self.granted.is_empty() {
            return leak(format!("{load:?} with leases {:?}", self.granted.keys()));
        }
        Ok(())
    }
}

fn instance_of(worker: WorkerId) -> InstanceId {
    InstanceId(u128::from(worker.0))
}

fn worker_of(instance: InstanceId) -> WorkerId {
    WorkerId(instance.0 as u32)
}

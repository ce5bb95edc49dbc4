//! Sessions with workers: the name of each worker and the way to it; knows no request and decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use node::names;
use node::telemetry::LiveGauge;
use proto::session::client::{Commands, SendError};
use proto::session::{self, Pair, Welcome};
use sched::cluster::{Link, WorkerInfo};
use sched::desk::{Phase, WorkerStatus};
use sched::message::ToWorker;
use sched::{Role, WorkerId};
use tracing::warn;

use super::MODEL;
use crate::worker::Slot;

pub(super) struct Fleet {
    connections: BTreeMap<WorkerId, Connection>,
    /// Indexed by slot.
    seats: Vec<Seat>,
    /// Number of workers so far.
    workers: u32,
}

/// Configured worker, connected or not.
struct Seat {
    address: String,
    /// Name that the worker gives itself; its address until then.
    name: Arc<str>,
    worker: Option<WorkerId>,
    /// Gauge of whether the worker is up, once its role is known.
    up: Option<LiveGauge>,
}

struct Connection {
    slot: Slot,
    commands: Commands,
    role: Role,
    /// Givers from which the worker has said that it can read.
    links: Vec<Link>,
}

impl Fleet {
    pub(super) fn new(addresses: Vec<String>) -> Fleet {
        let seat = |address: String| Seat { name: address.as_str().into(), address, worker: None, up: None };
        Fleet { connections: BTreeMap::new(), seats: addresses.into_iter().map(seat).collect(), workers: 0 }
    }

    /// Notes a new session; returns the worker's number and what it said about itself.
    pub(super) fn up(&mut self, slot: Slot, welcome: Welcome, commands: Commands) -> (WorkerId, WorkerInfo) {
        self.call(slot, &welcome.name);
        let id = WorkerId(self.workers);
        self.workers += 1;
        let info = WorkerInfo {
            name: self.seats.get(slot.0).map_or_else(|| "?".into(), |seat| Arc::clone(&seat.name)),
            instance: welcome.instance,
            role: welcome.role,
            model: MODEL,
            weights: welcome.compat.weights_digest,
            peer_address: welcome.peer_address.unwrap_or_default().into(),
            compat: welcome.compat.key(),
            context_max: welcome.context_max,
            capacity_tokens: welcome.capacity_tokens,
            sequences_max: welcome.sequences_max,
        };
        self.connections.insert(id, Connection { slot, commands, role: info.role, links: Vec::new() });
        if let Some(seat) = self.seats.get_mut(slot.0) {
            seat.worker = Some(id);
        }
        self.publish(slot, info.role, 1.0);
        (id, info)
    }

    /// Notes the end of a slot's session; returns the worker that was behind it.
    pub(super) fn down(&mut self, slot: Slot) -> Option<WorkerId> {
        let worker = self.worker(slot)?;
        self.end(worker);
        Some(worker)
    }

    /// Ends the session with a worker; the next one begins by itself.
    pub(super) fn end(&mut self, worker: WorkerId) {
        if let Some(connection) = self.connections.remove(&worker) {
            self.publish(connection.slot, connection.role, 0.0);
            if let Some(seat) = self.seats.get_mut(connection.slot.0) {
                seat.worker = None;
            }
        }
    }

    /// Translates a worker's status for the desk.
    pub(super) fn status(&mut self, slot: Slot, status: session::WorkerStatus) -> Option<(WorkerId, WorkerStatus)> {
        let worker = self.worker(slot)?;
        let connection = self.connections.get_mut(&worker)?;
        let now: Vec<Link> = status.pairs.into_iter().map(link).collect();
        let links = (now != connection.links).then(|| now.clone());
        connection.links = now;
        let phase = match status.phase {
            session::Phase::Accepting => Phase::Accepting,
            session::Phase::Draining => Phase::Draining,
        };
        let problems = status.problems.into_iter().map(|problem| problem.failure).collect();
        Some((worker, WorkerStatus { load: status.load, phase, links, problems }))
    }

    /// Queues a message for a worker, and drops it if the worker is gone, as its legs are lost. Fails if the session
    /// reads too slowly or has ended.
    pub(super) fn send(&self, worker: WorkerId, message: ToWorker) -> Result<(), SendError> {
        self.connections.get(&worker).map_or(Ok(()), |connection| connection.commands.send(message))
    }

    pub(super) fn worker(&self, slot: Slot) -> Option<WorkerId> {
        self.seats.get(slot.0)?.worker
    }

    pub(super) fn name(&self, worker: WorkerId) -> &str {
        let seat = self.connections.get(&worker).and_then(|connection| self.seats.get(connection.slot.0));
        seat.map_or("?", |seat| &seat.name)
    }

    /// Takes a worker's name. A name that is taken would merge two workers in dashboards: the second keeps its address.
    fn call(&mut self, slot: Slot, name: &str) {
        let is_taken = self.seats.iter().enumerate().any(|(other, seat)| other != slot.0 && &*seat.name == name);
        let Some(seat) = self.seats.get_mut(slot.0) else { return };
        if is_taken {
            warn!(worker = seat.address, name, "another worker has this name: this one is called by its address");
        }
        let name = if name.is_empty() || is_taken { seat.address.as_str() } else { name };
        if &*seat.name != name {
            seat.name = name.into();
            seat.up = None;
        }
    }

    fn publish(&mut self, slot: Slot, role: Role, up: f64) {
        let Some(seat) = self.seats.get_mut(slot.0) else { return };
        let labels = [("role", "router"), ("worker", &seat.name), ("worker_role", role.label())];
        let labels = labels.map(|(label, text)| (label, text.to_owned()));
        seat.up = Some(LiveGauge::new(names::WORKER_UP, labels.into(), up));
    }
}

fn link(pair: Pair) -> Link {
    Link { giver: pair.giver, transport: pair.transport.into(), bytes_per_second: pair.bytes_per_second as u64 }
}

//! Sessions with workers: the name of each worker and the way to it; knows no request and decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::counter;
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
use crate::Workers;
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
    list: List,
    /// Role that a warning was about.
    warned_of: Option<Role>,
    /// Gauge of whether the worker is up, once its role is known.
    up: Option<LiveGauge>,
}

/// List of the configuration that names a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Prefill,
    Decode,
}

impl List {
    const fn key(self) -> &'static str {
        match self {
            List::Prefill => "router.workers.prefill",
            List::Decode => "router.workers.decode",
        }
    }
}

struct Connection {
    slot: Slot,
    commands: Commands,
    role: Role,
    /// Givers from which the worker has said that it can read.
    links: Vec<Link>,
}

impl Fleet {
    /// Begins with the configured workers, none of them connected; their slots are their places in this order.
    pub(super) fn new(workers: &Workers) -> Fleet {
        let seat = |list: List| {
            move |address: &String| {
                let (name, address) = (address.as_str().into(), address.clone());
                Seat { address, name, worker: None, list, warned_of: None, up: None }
            }
        };
        let prefill = workers.prefill.iter().map(seat(List::Prefill));
        let seats = prefill.chain(workers.decode.iter().map(seat(List::Decode))).collect();
        Fleet { connections: BTreeMap::new(), seats, workers: 0 }
    }

    /// Notes a new session; returns the worker's number and what it said about itself.
    pub(super) fn up(&mut self, slot: Slot, welcome: Welcome, commands: Commands) -> (WorkerId, WorkerInfo) {
        self.call(slot, &welcome.name);
        self.compare(slot, welcome.role);
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
        counter!(names::WORKER_AVOIDED_TOTAL, "role" => "router", "worker" => info.name.to_string()).increment(0);
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
        self.seat(worker).map_or("?", |seat| &seat.name)
    }

    /// Returns the name of a worker that is up, to be kept.
    pub(super) fn shared_name(&self, worker: WorkerId) -> Option<Arc<str>> {
        self.seat(worker).map(|seat| Arc::clone(&seat.name))
    }

    fn seat(&self, worker: WorkerId) -> Option<&Seat> {
        self.connections.get(&worker).and_then(|connection| self.seats.get(connection.slot.0))
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

    /// Warns, once per role, of a worker in the list of others. It is used all the same, as what it says it is.
    fn compare(&mut self, slot: Slot, role: Role) {
        let Some(seat) = self.seats.get_mut(slot.0) else { return };
        let belongs = match role {
            Role::Prefill => List::Prefill,
            Role::Decode | Role::Aggregated | Role::Colocated => List::Decode,
        };
        if seat.list != belongs && seat.warned_of.replace(role) != Some(role) {
            let (listed, role) = (seat.list.key(), role.label());
            warn!(
                worker = &*seat.name,
                address = seat.address,
                role,
                listed,
                "a worker is in the list of another role"
            );
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by an attacker: a decode worker in the list of prefill workers served as such, and nobody was told.
    #[test]
    fn a_worker_in_the_list_of_another_role_is_told_of_once() {
        let workers = Workers { prefill: vec!["a:1".to_owned()], decode: vec!["b:1".to_owned()] };
        let mut fleet = Fleet::new(&workers);
        fleet.compare(Slot(0), Role::Prefill);
        fleet.compare(Slot(1), Role::Aggregated);
        let warned = |fleet: &Fleet| [0, 1].map(|slot: usize| fleet.seats[slot].warned_of);
        assert_eq!(warned(&fleet), [None, None]);
        fleet.compare(Slot(0), Role::Decode);
        fleet.compare(Slot(1), Role::Prefill);
        fleet.compare(Slot(1), Role::Decode);
        assert_eq!(warned(&fleet), [Some(Role::Decode), Some(Role::Prefill)]);
    }
}

//! The workers a router has sessions with: who is up, what they can do, and the way to them; knows no request.

use std::collections::BTreeMap;
use std::sync::Arc;

use node::names;
use node::telemetry::LiveGauge;
use proto::session::client::{Commands, SendError};
use proto::session::{Phase, Welcome, WorkerStatus};
use sched::cluster::{Cluster, Intake, Link, WorkerInfo};
use sched::compat::CompatParts;
use sched::message::ToWorker;
use sched::route::{Lack, Picker, RouteConfig, RoutePolicy};
use sched::{Role, WorkerId};
use tracing::warn;

use crate::worker::Slot;

/// All workers.
pub(super) struct Fleet {
    cluster: Cluster,
    policy: Box<dyn RoutePolicy>,
    route: RouteConfig,
    connections: BTreeMap<Slot, Connection>,
    /// By slot.
    seats: Vec<Seat>,
}

/// A configured worker, whether it is there or not.
struct Seat {
    address: String,
    /// What it calls itself; until it has said so, its address.
    name: String,
    /// Whether it is up, as far as that is known.
    up: Option<LiveGauge>,
}

struct Connection {
    id: WorkerId,
    commands: Commands,
    compat: CompatParts,
    role: Role,
    phase: Phase,
    links: Vec<Link>,
}

/// Whether requests that wait may find a worker now that they did not find before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Routes {
    More,
    Same,
}

impl Fleet {
    pub(super) fn new(addresses: Vec<String>, policy: Box<dyn RoutePolicy>, route: RouteConfig) -> Fleet {
        let seat = |address: String| Seat { name: address.clone(), address, up: None };
        let seats = addresses.into_iter().map(seat).collect();
        Fleet { cluster: Cluster::default(), policy, route, connections: BTreeMap::new(), seats }
    }

    /// A session has begun.
    ///
    /// # Errors
    /// Why the worker cannot be used: its weights are others than those of the workers that are up.
    pub(super) fn up(&mut self, slot: Slot, welcome: Welcome, commands: Commands) -> Result<(), String> {
        if let Some(other) = self.connections.values().next()
            && other.compat.weights_digest != welcome.compat.weights_digest
        {
            let model = &welcome.model;
            return Err(format!("it serves {model} with other weights than the workers that are up"));
        }
        self.call(slot, &welcome.name);
        let info = WorkerInfo {
            instance: welcome.instance,
            role: welcome.role,
            peer_address: welcome.peer_address.unwrap_or_default().into(),
            compat: welcome.compat.key(),
            context_max: welcome.context_max,
            capacity_tokens: welcome.capacity_tokens,
        };
        let role = info.role;
        let id = self.cluster.join(info);
        let connection =
            Connection { id, commands, compat: welcome.compat, role, phase: Phase::Accepting, links: Vec::new() };
        self.publish(slot, connection.role, 1.0);
        self.connections.insert(slot, connection);
        Ok(())
    }

    /// A session is over; the worker that was behind it.
    pub(super) fn down(&mut self, slot: Slot) -> Option<WorkerId> {
        let connection = self.connections.remove(&slot)?;
        self.cluster.leave(connection.id);
        self.publish(slot, connection.role, 0.0);
        Some(connection.id)
    }

    /// A worker has said how it is.
    pub(super) fn status(&mut self, slot: Slot, status: WorkerStatus) -> Routes {
        let Some(connection) = self.connections.get_mut(&slot) else { return Routes::Same };
        let links: Vec<Link> = status
            .pairs
            .into_iter()
            .map(|pair| Link {
                giver: pair.giver,
                transport: Arc::from(pair.transport),
                bytes_per_second: pair.bytes_per_second as u64,
            })
            .collect();
        let mut routes = if links == connection.links { Routes::Same } else { Routes::More };
        match (connection.phase, status.phase) {
            // Its session stays for the legs it has; new ones do not find it.
            (Phase::Accepting, Phase::Draining) => self.cluster.set_intake(connection.id, Intake::Draining),
            (Phase::Draining, Phase::Accepting) => {
                self.cluster.set_intake(connection.id, Intake::Open);
                routes = Routes::More;
            }
            (Phase::Accepting, Phase::Accepting) | (Phase::Draining, Phase::Draining) => {}
        }
        connection.phase = status.phase;
        connection.links.clone_from(&links);
        self.cluster.set_load(connection.id, status.load);
        self.cluster.set_links(connection.id, links);
        routes
    }

    /// Queues a message for a worker; a worker that is gone has lost its legs already and needs none.
    ///
    /// # Errors
    /// The slot of a worker whose session cannot take it: it reads too slowly or has ended.
    pub(super) fn send(&mut self, worker: WorkerId, message: ToWorker) -> Result<(), (Slot, SendError)> {
        let Some((slot, connection)) = self.connections.iter().find(|(_, connection)| connection.id == worker) else {
            return Ok(());
        };
        connection.commands.send(message).map_err(|error| (*slot, error))
    }

    /// The worker behind a session.
    pub(super) fn worker(&self, slot: Slot) -> Option<WorkerId> {
        self.connections.get(&slot).map(|connection| connection.id)
    }

    /// What the worker of a slot is called.
    pub(super) fn name(&self, slot: Slot) -> &str {
        self.seats.get(slot.0).map_or("?", |seat| &seat.name)
    }

    /// A worker has said its name. Two of one name would be one in every dashboard: the second is called by its address.
    fn call(&mut self, slot: Slot, name: &str) {
        let is_taken = self.seats.iter().enumerate().any(|(other, seat)| other != slot.0 && seat.name == name);
        let Some(seat) = self.seats.get_mut(slot.0) else { return };
        if is_taken {
            warn!(worker = seat.address, name, "another worker has this name: this one is called by its address");
        }
        let name = if name.is_empty() || is_taken { seat.address.clone() } else { name.to_owned() };
        if seat.name != name {
            seat.name = name;
            seat.up = None;
        }
    }

    /// Chooses routes for journeys.
    pub(super) fn picker(&mut self) -> Picker<'_> {
        Picker { cluster: &mut self.cluster, policy: self.policy.as_mut(), config: &self.route }
    }

    /// Longest sequence that some route can hold now.
    pub(super) fn sequence_tokens_max(&self) -> Option<u32> {
        self.cluster.sequence_tokens_max()
    }

    /// Workers that are up and generate.
    pub(super) fn generators(&self) -> u32 {
        let generates = |connection: &&Connection| match connection.role {
            Role::Decode | Role::Aggregated => true,
            Role::Prefill => false,
        };
        u32::try_from(self.connections.values().filter(generates).count()).unwrap_or(u32::MAX)
    }

    /// What is missing before a request can be served.
    pub(super) fn lack(&self) -> Lack {
        Lack::of(&self.cluster)
    }

    fn publish(&mut self, slot: Slot, role: Role, up: f64) {
        let Some(seat) = self.seats.get_mut(slot.0) else { return };
        let labels = [("role", "router"), ("worker", &seat.name), ("worker_role", role.label())];
        let labels = labels.map(|(label, text)| (label, text.to_owned()));
        seat.up = Some(LiveGauge::new(names::WORKER_UP, labels.into(), up));
    }
}

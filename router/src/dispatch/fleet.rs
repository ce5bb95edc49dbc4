//! The workers a router has sessions with: who is up, what they can do, and the way to them; knows no request.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::gauge;
use node::names;
use proto::session::client::{Commands, SendError};
use proto::session::{Phase, Welcome, WorkerStatus};
use sched::cluster::{Cluster, Intake, Link, WorkerInfo};
use sched::compat::CompatParts;
use sched::message::ToWorker;
use sched::route::{Lack, Picker, RouteConfig, RoutePolicy};
use sched::{Role, WorkerId};

use crate::worker::Slot;

/// All workers.
pub(super) struct Fleet {
    cluster: Cluster,
    policy: Box<dyn RoutePolicy>,
    route: RouteConfig,
    connections: BTreeMap<Slot, Connection>,
    /// Configured addresses, by slot.
    addresses: Vec<String>,
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
        Fleet { cluster: Cluster::default(), policy, route, connections: BTreeMap::new(), addresses }
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

    /// The address a slot was configured with.
    pub(super) fn address(&self, slot: Slot) -> &str {
        self.addresses.get(slot.0).map_or("?", String::as_str)
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

    fn publish(&self, slot: Slot, role: Role, up: f64) {
        let worker = self.address(slot).to_owned();
        gauge!(names::WORKER_UP, "role" => "router", "worker" => worker, "worker_role" => role.label()).set(up);
    }
}

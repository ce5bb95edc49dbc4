//! The workers a router has sessions with: who is up, what they can do, and the way to them; knows no request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use node::names;
use node::telemetry::LiveGauge;
use proto::session::client::{Commands, SendError};
use proto::session::{Phase, Welcome, WorkerStatus};
use sched::cluster::{Cluster, Intake, Link, Silence, Silences, Word, WorkerInfo};
use sched::compat::CompatParts;
use sched::message::ToWorker;
use sched::route::{Lack, Picker, RouteConfig, RoutePolicy};
use sched::{InstanceId, Role, Span, Time, WorkerId};
use tracing::{info, warn};

use crate::worker::Slot;

/// All workers.
pub(super) struct Fleet {
    cluster: Cluster,
    policy: Box<dyn RoutePolicy>,
    route: RouteConfig,
    connections: BTreeMap<Slot, Connection>,
    silences: Silences,
    /// Processes that were given up for saying nothing. That their connections answer proves nothing.
    hushed: BTreeSet<InstanceId>,
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
    /// Statuses to come before new work goes there.
    statuses_wanted: u32,
}

/// The first status of a session is the last one that was said before it began; only the second shows that somebody lives.
const STATUSES_OF_LIFE: u32 = 2;

/// Whether requests that wait may find a worker now that they did not find before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Routes {
    More,
    Same,
}

impl Fleet {
    /// Nobody is up yet; every worker owes a status per `beat`.
    pub(super) fn new(addresses: Vec<String>, policy: Box<dyn RoutePolicy>, route: RouteConfig, beat: Span) -> Fleet {
        let seat = |address: String| Seat { name: address.clone(), address, up: None };
        let seats = addresses.into_iter().map(seat).collect();
        let (cluster, silences) = (Cluster::default(), Silences::new(beat));
        Fleet { cluster, policy, route, connections: BTreeMap::new(), silences, hushed: BTreeSet::new(), seats }
    }

    /// A session has begun.
    ///
    /// # Errors
    /// Why the worker cannot be used: its weights are others than those of the workers that are up.
    pub(super) fn up(&mut self, now: Time, slot: Slot, welcome: Welcome, commands: Commands) -> Result<(), String> {
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
        let statuses_wanted = if self.hushed.contains(&info.instance) { STATUSES_OF_LIFE } else { 0 };
        let id = self.cluster.join(info);
        if statuses_wanted > 0 {
            self.cluster.set_intake(id, Intake::Quiet);
        }
        self.silences.heard(now, id);
        let (compat, phase, links) = (welcome.compat, Phase::Accepting, Vec::new());
        let connection = Connection { id, commands, compat, role, phase, links, statuses_wanted };
        self.publish(slot, connection.role, 1.0);
        self.connections.insert(slot, connection);
        Ok(())
    }

    /// A session is over; the worker that was behind it.
    pub(super) fn down(&mut self, slot: Slot) -> Option<WorkerId> {
        let connection = self.connections.remove(&slot)?;
        self.cluster.leave(connection.id);
        self.silences.forget(connection.id);
        self.publish(slot, connection.role, 0.0);
        Some(connection.id)
    }

    /// A worker has said how it is.
    pub(super) fn status(&mut self, now: Time, slot: Slot, status: WorkerStatus) -> Routes {
        let Some(connection) = self.connections.get_mut(&slot) else { return Routes::Same };
        let word = self.silences.heard(now, connection.id);
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
        let intake = match status.phase {
            Phase::Accepting => Intake::Open,
            // Its session stays for the legs it has; new ones do not find it.
            Phase::Draining => Intake::Draining,
        };
        let proved = connection.statuses_wanted == 1;
        connection.statuses_wanted = connection.statuses_wanted.saturating_sub(1);
        let returned = connection.statuses_wanted == 0 && (proved || word == Word::Returned);
        if returned {
            info!(worker = self.seats.get(slot.0).map(|seat| &seat.name), "a silent worker is heard again");
            if let Some(worker) = self.cluster.get(connection.id) {
                self.hushed.remove(&worker.info.instance);
            }
        }
        if returned || connection.phase != status.phase {
            self.cluster.set_intake(connection.id, intake);
            if intake == Intake::Open {
                routes = Routes::More;
            }
        }
        connection.phase = status.phase;
        connection.links.clone_from(&links);
        self.cluster.set_load(connection.id, status.load);
        self.cluster.set_links(connection.id, links);
        let problems = status.problems.into_iter().map(|problem| problem.failure);
        self.cluster.set_problems(connection.id, problems.collect());
        routes
    }

    /// When to look for silent workers at the latest.
    pub(super) fn next_silence(&self) -> Option<Time> {
        self.silences.next_timeout()
    }

    /// Closes the intake of workers that say nothing; the slot of one that has to be given up.
    pub(super) fn silent(&mut self, now: Time) -> Option<Slot> {
        while let Some(silence) = self.silences.poll(now) {
            let slot_of =
                |id| self.connections.iter().find(|(_, connection)| connection.id == id).map(|(slot, _)| *slot);
            match silence {
                Silence::Quiet(id) => {
                    self.cluster.set_intake(id, Intake::Quiet);
                    let worker = slot_of(id).map(|slot| self.name(slot));
                    warn!(worker, "a worker says nothing; no new work goes to it");
                }
                Silence::Lost(id) => {
                    self.hushed.extend(self.cluster.get(id).map(|worker| worker.info.instance));
                    return slot_of(id);
                }
            }
        }
        None
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

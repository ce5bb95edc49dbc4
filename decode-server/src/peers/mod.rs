//! The givers that a worker reads from: each address has a link that meets the giver there and notices its end.
//!
//! Control (hello, watch, heartbeats, release, abort) runs here over gRPC; the replica's transport moves the bytes. The
//! scheduler knows which offers wait for which giver: it asks to meet givers and receives the outcome.

mod link;
mod path;
mod pauses;
mod table;
mod words;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::replica::{Command, PeerInfo, ReplicaHandle, TransferEnd};
use proto::peer::PeerHello;
use proto::peer::client::Peer;
use proto::session::{Pair, PairProblem, SessionLimits};
use sched::message::{ToGiver, ToReader};
use sched::replica::Event;
use sched::{Failure, FailureKind, InstanceId};
use tokio::sync::{Notify, mpsc, watch};
use worker::started::PairReport;
use worker::{Loaded, Taking, patiently};

use crate::Config;
use link::Link;
use path::Wire;
use table::{Introduction, Learning, Loss, Sought, Table};

/// Addresses, limits and deadlines of links to givers.
#[derive(Debug, Clone)]
pub struct PeersConfig {
    /// Configured addresses, tried from the start and for ever.
    pub addresses: Vec<String>,
    /// Limit on links.
    pub links_max: usize,
    /// Time after which a giver that cannot be reached is lost.
    pub lost_after: Duration,
    /// Deadlines of connections.
    pub limits: SessionLimits,
}

impl From<&Config> for PeersConfig {
    fn from(config: &Config) -> PeersConfig {
        PeersConfig {
            addresses: config.peers.clone(),
            links_max: config.peers_max.max(config.peers.len()),
            lost_after: Duration::from_millis(config.giver_lost_ms),
            limits: SessionLimits::default().probed_every(Duration::from_millis(config.giver_beat_ms)),
        }
    }
}

/// The taking side with all its givers; clones share it.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
}

struct Shared {
    config: PeersConfig,
    worker: Loaded,
    hello: PeerHello,
    runtime: tokio::runtime::Handle,
    /// Filled under the lock of the table, so that the replica learns in order which givers came and went.
    commands: mpsc::UnboundedSender<Command>,
    table: Mutex<Table>,
    /// Notified whenever a link has tried its address.
    tried: Notify,
}

impl Taking for Peers {
    fn begin(&self) {
        for address in &self.shared.config.addresses {
            let wake = self.table().know(address);
            self.start_link(address, wake);
        }
    }

    fn meet(&self, giver: InstanceId, address: &str) {
        let mut table = self.table();
        match table.seek(giver, address, self.learning()) {
            Ok(Sought::Up) => self.tell_replica(Event::GiverUp(giver)),
            Ok(Sought::Known) => {}
            Ok(Sought::New(wake)) => {
                drop(table);
                self.start_link(address, wake);
            }
            Err(failure) => self.tell_replica(Event::GiverUnmet { giver, address: address.into(), failure }),
        }
    }

    fn say(&self, giver: InstanceId, word: ToGiver) {
        let peers = self.clone();
        self.shared.runtime.spawn(async move { peers.tell(giver, word).await });
    }

    fn wire_up(&self, giver: InstanceId, bytes_per_second: f64) {
        self.table().set_wire(giver, Wire::Up { bytes_per_second });
    }

    /// Logs at debug only: the giver's link warns, once.
    fn wire_down(&self, giver: InstanceId, reason: String) {
        let (name, transport) = (self.table().name(giver), self.transport());
        tracing::debug!(giver = name, %reason, transport, "a giver cannot be read from");
        {
            let mut table = self.table();
            table.set_wire(giver, Wire::Down { reason });
            self.tell_replica(Event::GiverDown(giver));
        }
        self.publish();
    }

    /// Takes the pair down when several pulls in a row have failed over a connection that the transport calls up; the
    /// link then meets the giver again over a fresh connection.
    fn pull_ended(&self, giver: InstanceId, end: TransferEnd) {
        match end {
            TransferEnd::Done => self.table().pull_succeeded(giver),
            TransferEnd::Failed => {
                let enough = self.table().pull_failed(giver);
                if enough {
                    self.wire_down(giver, "several pulls in a row have failed".to_owned());
                }
            }
            TransferEnd::Refused | TransferEnd::Aborted => {}
        }
    }

    fn tried(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.all_tried())
    }

    fn reports(&self) -> Vec<PairReport> {
        self.table().reports(self.transport())
    }
}

impl Peers {
    /// Returns the taking side of a worker. Call it inside the runtime that will run the links.
    #[must_use]
    pub fn of(worker: &Loaded, config: PeersConfig) -> Peers {
        let hello = PeerHello {
            compat: worker.info.compat.clone(),
            instance: worker.info.instance,
            name: worker.name.clone(),
            lease_beat: worker.lease_beat,
        };
        let (worker, runtime) = (worker.clone(), tokio::runtime::Handle::current());
        let (commands, waiting) = mpsc::unbounded_channel();
        runtime.spawn(pass_on(worker.replica.clone(), waiting));
        let (table, tried) = (Mutex::new(Table::default()), Notify::new());
        Peers { shared: Arc::new(Shared { config, worker, hello, runtime, commands, table, tried }) }
    }

    /// Rule for unconfigured addresses: without a secret any process may send offers, so none of them is dialled.
    fn learning(&self) -> Learning {
        match self.shared.worker.secret.is_open() {
            true => Learning::Forbidden,
            false => Learning::UpTo(self.shared.config.links_max),
        }
    }

    fn transport(&self) -> &'static str {
        self.shared.worker.info.transport.label()
    }

    async fn all_tried(&self) {
        loop {
            let mut tried = std::pin::pin!(self.shared.tried.notified());
            // Registered before the check, so that a try between check and wait is not missed.
            tried.as_mut().enable();
            if self.table().all_tried() {
                return;
            }
            tried.await;
        }
    }

    fn start_link(&self, address: &str, wake: Arc<Notify>) {
        let link = Link::new(self.clone(), address.to_owned(), wake);
        let stopped = self.shared.worker.stop.asked();
        self.shared.runtime.spawn(async move {
            tokio::select! {
                () = link.run() => {}
                () = stopped => {}
            }
        });
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an event that must reach the replica, however full its inbox is.
    fn tell_replica(&self, event: Event) {
        self.command(event.into());
    }

    /// Passes a giver's word to the replica. The giver's other words wait meanwhile.
    async fn hear(&self, giver: InstanceId, word: ToReader) {
        let replica = &self.shared.worker.replica;
        patiently(Event::Giver(giver, word).into(), |command| replica.send(command)).await;
    }

    fn command(&self, command: Command) {
        // The receiving task ends only with the runtime.
        let _ = self.shared.commands.send(command);
    }

    fn greeted(&self, giver: InstanceId) {
        self.tell_replica(Event::GiverMet(giver));
    }

    /// Reports a giver that can be spoken to and read from; other givers sought at its address are not there.
    fn met(&self, address: &str, giver: InstanceId) {
        {
            let mut table = self.table();
            if table.is_up(giver) {
                self.tell_replica(Event::GiverUp(giver));
            }
            for sought in table.no_longer_sought(address, Some(giver)) {
                let detail = format!("the giver {sought} is gone; {giver} answers at {address}");
                self.unmet(sought, address, Failure::new(FailureKind::KvLost, detail));
            }
        }
        self.publish();
    }

    /// Fails the offers that wait for a giver at an address where none was met, so that the router can go elsewhere.
    fn not_met(&self, address: &str, failure: &Failure) {
        for sought in self.table().no_longer_sought(address, None) {
            self.unmet(sought, address, failure.clone());
        }
    }

    fn unmet(&self, giver: InstanceId, address: &str, failure: Failure) {
        self.tell_replica(Event::GiverUnmet { giver, address: address.into(), failure });
    }

    /// Notes that a giver was met (again) at `address`, and has the transport connect if needed; returns its wire.
    fn greet(&self, address: &str, (peer, name): (Peer, &str), info: PeerInfo) -> watch::Receiver<Wire> {
        let mut table = self.table();
        let (wire, introduction) = table.greet(address, peer, name);
        match introduction {
            Introduction::Known => {}
            Introduction::Needed => self.command(Command::AddPeer(Box::new(info))),
        }
        wire
    }

    fn lose(&self, address: &str, giver: InstanceId) -> Loss {
        let mut table = self.table();
        let loss = table.lose(address, giver);
        if loss == Loss::Complete {
            self.command(Command::RemovePeer(giver));
        }
        loss
    }

    /// Tells routers and metrics which givers are up, under the lock and so in the order of the changes.
    fn publish(&self) {
        let table = self.table();
        let up = table.up();
        let Loaded { metrics, sessions, .. } = &self.shared.worker;
        metrics.peers_up(up.len());
        let transport = self.transport();
        let pair = |(giver, bytes_per_second)| Pair { giver, transport: transport.to_owned(), bytes_per_second };
        let problems = table.problems().into_iter();
        let problems = problems.map(|(giver_address, failure)| PairProblem { giver_address, failure });
        sessions.pairs(up.into_iter().map(pair).collect(), problems.collect());
    }
}

/// Passes commands to the replica in order, each as soon as its inbox has room.
async fn pass_on(replica: ReplicaHandle, mut commands: mpsc::UnboundedReceiver<Command>) {
    while let Some(command) = commands.recv().await {
        patiently(command, |command| replica.send(command)).await;
    }
}

//! The givers of a decode worker: each address has a link that meets whoever answers there and notices its end.
//!
//! Control (hello, watch, heartbeats, release, abort) runs here over gRPC; the replica's transport moves the bytes. An
//! offer of a giver that is not up yet waits until its link has an answer, so the replica only ever sees offers that
//! it can pull from.

mod feed;
mod leases;
mod link;
mod parked;
mod path;
mod pauses;
mod table;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::EngineError;
use engine::replica::{ReplicaHandle, TransferEnd};
use node::drain::Stop;
use node::started::PairReport;
use node::worker_metrics::WorkerMetrics;
use proto::Secret;
use proto::peer::PeerHello;
use proto::session::server::Sessions;
use proto::session::{Pair, PairProblem, SessionLimits};
use sched::layout::KvLayout;
use sched::message::{FromWorker, ToWorker};
use sched::replica::Event;
use sched::{Failure, FailureKind, InstanceId, Leg, Request};
use tokio::sync::Notify;

use feed::{Fed, feed};
use link::Link;
use path::Wire;
use table::{Learning, Table};

/// How long to wait before a full inbox is tried again.
const INBOX_RETRY: Duration = Duration::from_millis(1);

/// How peers are met and when they are given up.
#[derive(Debug, Clone)]
pub(crate) struct PeersConfig {
    /// What givers must know.
    pub(crate) secret: Secret,
    /// The transport that must move the bytes.
    pub(crate) transport: &'static str,
    /// How this worker lays its KV cache out.
    pub(crate) layout: KvLayout,
    /// Most links.
    pub(crate) links_max: usize,
    /// Longest sequence in tokens.
    pub(crate) context_max: u32,
    /// Tokens that the KV pool holds.
    pub(crate) capacity_tokens: u64,
    /// A giver that cannot be reached for this long is lost.
    pub(crate) lost_after: Duration,
    /// How long one call about a lease may be tried.
    pub(crate) lease_beat: Duration,
    /// Deadlines of connections.
    pub(crate) limits: SessionLimits,
}

impl PeersConfig {
    /// Without a secret, whoever offers may be anybody: only configured addresses are dialled.
    fn learning(&self) -> Learning {
        match self.secret.is_open() {
            true => Learning::Forbidden,
            false => Learning::UpTo(self.links_max),
        }
    }

    /// What the replica would refuse when the giver is met is refused before it waits.
    fn fits(&self, request: &Request) -> Result<(), Failure> {
        let (tokens, context) = (request.prefill_tokens(), self.context_max);
        if tokens < context as usize && tokens as u64 <= self.capacity_tokens {
            return Ok(());
        }
        let held = self.capacity_tokens;
        let detail = format!("{tokens} tokens do not fit into a context of {context} and KV blocks for {held}");
        Err(Failure::new(FailureKind::TooLong, detail))
    }
}

/// Whom links talk to inside this process.
pub(crate) struct Surroundings {
    pub(crate) replica: ReplicaHandle,
    pub(crate) sessions: Sessions,
    pub(crate) metrics: WorkerMetrics,
    /// Ends every link.
    pub(crate) stop: Stop,
}

/// All givers; clones share them.
#[derive(Clone)]
pub(crate) struct Peers {
    shared: Arc<Shared>,
}

struct Shared {
    config: PeersConfig,
    hello: PeerHello,
    replica: ReplicaHandle,
    sessions: Sessions,
    metrics: WorkerMetrics,
    stop: Stop,
    runtime: tokio::runtime::Handle,
    table: Mutex<Table>,
    /// Told whenever a link has tried its address.
    tried: Notify,
}

/// What happens to a router's message.
pub(crate) enum Way {
    /// To the replica, now.
    Through(ToWorker),
    /// It waits for a giver.
    Held,
    /// The leg it begins cannot run here.
    Refused(Failure),
}

impl Peers {
    /// No giver yet. Must be called inside the runtime that is to run the links.
    pub(crate) fn new(config: PeersConfig, hello: PeerHello, surroundings: Surroundings) -> Peers {
        let Surroundings { replica, sessions, metrics, stop } = surroundings;
        let runtime = tokio::runtime::Handle::current();
        let table = Mutex::new(Table::default());
        let tried = Notify::new();
        Peers { shared: Arc::new(Shared { config, hello, replica, sessions, metrics, stop, runtime, table, tried }) }
    }

    /// Connects to a giver that is configured: tried for ever.
    pub(crate) fn know(&self, address: &str) {
        let wake = self.table().know(address);
        self.start_link(address, wake);
    }

    /// Resolves when every configured giver was tried once.
    pub(crate) async fn tried(&self) {
        loop {
            let mut tried = std::pin::pin!(self.shared.tried.notified());
            // Registered before the check, so that no try between check and wait is missed.
            tried.as_mut().enable();
            if self.table().all_tried() {
                return;
            }
            tried.await;
        }
    }

    /// How each configured giver fares.
    pub(crate) fn reports(&self) -> Vec<PairReport> {
        self.table().reports(self.shared.config.transport)
    }

    /// Lets a router's message through, or holds it until its giver is met.
    pub(crate) fn admit(&self, message: ToWorker) -> Way {
        let mut table = self.table();
        match message {
            ToWorker::Offer(offer) if !table.is_up(offer.giver) => {
                if let Err(failure) = self.shared.config.fits(&offer.request) {
                    return Way::Refused(failure);
                }
                let address = offer.giver_address.to_string();
                match table.hold(&address, offer, self.shared.config.learning()) {
                    Ok(None) => Way::Held,
                    Ok(Some(wake)) => {
                        drop(table);
                        self.start_link(&address, wake);
                        Way::Held
                    }
                    Err(failure) => Way::Refused(failure),
                }
            }
            other => match table.parked.follow(other) {
                None => Way::Held,
                Some(message) => Way::Through(message),
            },
        }
    }

    /// The transport has connected to a giver.
    pub(crate) fn wire_up(&self, giver: InstanceId, bytes_per_second: f64) {
        self.table().set_wire(giver, Wire::Up { bytes_per_second });
    }

    /// A pull has ended. When several in a row fail although the transport calls the giver well, the pair is taken down, and
    /// its link meets the giver again over a fresh connection.
    pub(crate) fn pull_ended(&self, giver: InstanceId, end: TransferEnd) {
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

    /// The transport cannot read from a giver. Its link says so aloud, once.
    pub(crate) fn wire_down(&self, giver: InstanceId, reason: String) {
        let (name, transport) = (self.table().name(giver), self.shared.config.transport);
        tracing::debug!(giver = name, %reason, transport, "a giver cannot be read from");
        self.table().set_wire(giver, Wire::Down { reason });
        self.publish();
    }

    fn start_link(&self, address: &str, wake: Arc<Notify>) {
        let link = Link::new(self.clone(), address.to_owned(), wake);
        let stopped = self.shared.stop.asked();
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

    /// A giver is up: what waited for it goes to the replica, before anything later about the same legs.
    fn met(&self, address: &str, giver: InstanceId) {
        let mut failed = Vec::new();
        {
            let mut table = self.table();
            for (leg, offered_by, messages) in table.parked.take(address) {
                if offered_by != giver {
                    let detail = format!("the giver {offered_by} is gone; {giver} answers at {address}");
                    failed.push((leg, Failure::new(FailureKind::KvLost, detail)));
                    continue;
                }
                match feed(messages, |event| self.shared.replica.send(event)) {
                    Fed::Whole => {}
                    Fed::Nothing(failure) => failed.push((leg, failure)),
                    Fed::Begun(failure) => {
                        self.withdraw(leg);
                        failed.push((leg, failure));
                    }
                }
            }
        }
        self.fail(failed);
        self.publish();
    }

    /// Takes back what the replica was told of a leg before its inbox was full, so that no block stays reserved for it.
    /// Tries until there is room or the replica has ended.
    fn withdraw(&self, leg: Leg) {
        let replica = self.shared.replica.clone();
        self.shared.runtime.spawn(async move {
            let cancel = || Event::Router(ToWorker::Cancel { leg, choice: None });
            patiently(|| replica.send(cancel())).await;
        });
    }

    /// A giver's process is gone; what reads from it must hear that, however full the inbox is.
    fn remove(&self, giver: InstanceId) {
        let replica = self.shared.replica.clone();
        self.shared.runtime.spawn(async move { patiently(|| replica.remove_peer(giver)).await });
    }

    /// A link could not reach its giver: what waited for it fails, so that the router can go elsewhere.
    fn not_met(&self, address: &str, failure: &Failure) {
        let waiting = self.table().parked.take(address);
        self.fail(waiting.into_iter().map(|(leg, _, _)| (leg, failure.clone())).collect());
    }

    fn fail(&self, legs: Vec<(Leg, Failure)>) {
        if legs.is_empty() {
            return;
        }
        let messages = legs.into_iter().map(|(leg, failure)| FromWorker::Failed { leg, failure });
        let messages: Vec<_> = messages.inspect(|message| self.shared.metrics.told(message)).collect();
        self.shared.sessions.tell(messages);
    }

    /// Tells routers and metrics which givers are up.
    fn publish(&self) {
        let up = self.table().up();
        self.shared.metrics.peers_up(up.len());
        let pair = |(giver, bytes_per_second)| {
            let transport = self.shared.config.transport.to_owned();
            Pair { giver, transport, bytes_per_second }
        };
        let problems = self.table().problems().into_iter();
        let problems = problems.map(|(giver_address, failure)| PairProblem { giver_address, failure });
        self.shared.sessions.pairs(up.into_iter().map(pair).collect(), problems.collect());
    }
}

/// Tells the replica what it must hear, until its inbox has room or it has ended.
async fn patiently(mut tell: impl FnMut() -> Result<(), EngineError>) {
    while let Err(EngineError::InboxFull { .. }) = tell() {
        tokio::time::sleep(INBOX_RETRY).await;
    }
}
